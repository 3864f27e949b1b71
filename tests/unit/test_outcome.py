"""What a cycle came to: its exit status and the log level of each outcome."""

import logging

import pytest

from bdauto.common.errors import BdFailed, PartlyDone, ServiceDown, UsageError
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report, partly


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, 0), (UsageError("x"), 2), (BdFailed("x"), 3), (ServiceDown("x"), 4), (PartlyDone("x"), 5)],
)
def test_the_exit_status_is_the_error_s(error: UsageError | None, status: int) -> None:
    assert Report("dispatch", Outcome.idle, False, error=error).exit_code == status


def test_some_beads_that_failed_are_partly_done_and_named() -> None:
    beads = tuple(BeadReport(f"x-{n}", BeadOutcome.failed) for n in range(7))
    error = partly((*beads, BeadReport("y-1", BeadOutcome.blocked)), ("bd list: entry 1: odd",))
    assert error is not None
    assert str(error) == (
        "partly done: 7 failed (x-0, x-1, x-2, x-3, x-4); 1 malformed (bd list: entry 1: odd); the others were handled"
    )


def test_lost_and_kept_beads_are_no_failure() -> None:
    assert partly((BeadReport("x", BeadOutcome.lost), BeadReport("y", BeadOutcome.kept)), ()) is None


def test_what_needs_a_person_is_logged_louder_than_what_does_not() -> None:
    levels = {outcome: outcome.level for outcome in BeadOutcome}
    assert {o for o in levels if levels[o] == logging.ERROR} == {"unknown", "failed", "misconfigured"}
    assert {o for o in levels if levels[o] == logging.INFO} == {
        "dispatched",
        "adopted",
        "lost",
        "busy",
        "kept",
        "asks",
        "closed",
        "stopping",
    }
