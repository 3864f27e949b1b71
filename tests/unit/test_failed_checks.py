"""Closed beads whose job's check failed: opened again, as long as it was the agent that closed them."""

from datetime import timedelta
from typing import Any

import pytest

from bdauto.agents.local.jobs import GateRecord
from bdauto.controllers.reaper import Reaper
from bdauto.domain.outcome import Report
from bdauto.domain.reaping import FailedCheck
from bdauto.domain.settings import ReapSettings
from bdauto.errors import BdFailed
from tests.support.fakes import NOW, Board, Clock, Tracker, row

WORDS = "exit 1: 2 failed"
ENDED = NOW - timedelta(minutes=2)


def closed(bead_id: str = "x-1", *, own: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a bead that the agent of attempt a1 closed a minute before its job ended."""
    record = {"attempt": "a1", "attempts": 1, "job": "a1"} | (own or {})
    moment = ENDED - timedelta(minutes=1)
    plain = {"status": "closed", "closed_at": moment, "updated_at": moment, "notes": "claimed by agent a1"}
    return row(bead_id, **(plain | fields), metadata={f"bdauto.{key}": value for key, value in record.items()})


class Ward:
    """A tracker, and a runner that knows of a failed check."""

    def __init__(self, *rows: dict[str, Any], check: FailedCheck | None = None) -> None:
        self.clock = Clock()
        self.tracker = Tracker(self.clock, *rows)
        self.services = Board().services(agent=True)()
        found = (check or FailedCheck("x-1", "a1", ENDED, WORDS),)
        self.services.failed_checks = lambda: found  # type: ignore[method-assign]

    def sweep(self, **settings: Any) -> Report:
        runner = lambda: self.services  # noqa: E731
        return Reaper(self.tracker, self.tracker, runner, ReapSettings(**settings), self.clock.runtime()).sweep()


def test_a_bead_whose_check_failed_is_open_again_charged_and_waits() -> None:
    here = Ward(closed())
    report = here.sweep()
    assert [(one.id, one.outcome) for one in report.beads] == [("x-1", "requeued")]
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.attempt) == ("open", 1, "")
    assert bead.record.retry_at
    assert bead.record.retry_at > NOW
    assert here.tracker.notes("x-1")[-1] == f"reaper: the check of job a1 failed: {WORDS} — opened again"
    assert here.sweep().beads == ()


def test_one_that_cannot_be_read_is_reported_and_the_others_are_settled() -> None:
    here = Ward(closed(), row("x-2", status="in_progress", updated_at=NOW - timedelta(hours=3)))

    def fail(verb: str) -> None:
        if verb == "list" and here.tracker.reads.count("list") == 2:
            raise BdFailed("no")

    here.tracker.before_read = fail
    report = here.sweep()
    assert [(one.id, one.outcome) for one in report.beads] == [("x-2", "blocked")]
    assert report.exit_code == 3
    assert [(one.id, one.outcome) for one in here.sweep().beads] == [("x-1", "requeued")]


def test_after_its_last_attempt_it_is_quarantined() -> None:
    here = Ward(closed(own={"attempts": 3}))
    assert [one.outcome for one in here.sweep().beads] == ["blocked"]
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts) == ("blocked", 3)
    assert bead.record.quarantined == f"the check of job a1 failed: {WORDS}"
    assert here.tracker.notes("x-1")[-1].endswith("quarantined after 3 attempts; re-arm it: bd update x-1 -s open")


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "open"},
        {"status": "blocked"},
        {"own": {"attempt": "a2"}},
        {"own": {"attempt": ""}},
        {"closed_at": ENDED + timedelta(seconds=3)},
    ],
    ids=str,
)
def test_what_somebody_else_did_to_the_bead_stands(fields: dict[str, Any]) -> None:
    here = Ward(closed(**fields))
    assert here.sweep().beads == ()
    assert here.tracker.written == []


def test_a_bead_that_was_opened_and_claimed_meanwhile_keeps_its_new_agent() -> None:
    here = Ward(closed())
    here.tracker.before_write = lambda change: here.tracker.rows["x-1"].update(status="in_progress")
    assert [one.outcome for one in here.sweep().beads] == ["lost"]
    assert here.tracker.rows["x-1"]["status"] == "in_progress"


def test_a_bead_that_is_gone_is_nobody_s_business() -> None:
    here = Ward(check=FailedCheck("x-1", "a1", ENDED, WORDS))
    assert (here.sweep().exit_code, here.tracker.written) == (0, [])


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"state": "failed", "exit_code": 2, "output": "a\n\nb\nc\n\x1b[31md\n"}, "check: exit 2: b | c | [31md"),
        ({"state": "failed", "signal": "SIGSEGV", "output": ""}, "check: SIGSEGV"),
        ({"state": "timeout", "signal": "SIGTERM", "seconds": 1800.4, "output": ""}, "check: timed out after 30m"),
        ({"state": "error", "detail": "cannot run x in /p: No such file", "output": ""}, "check: cannot run x in /p"),
        ({"state": "failed", "exit_code": 1, "output": "key sk-abcdefghijk1"}, "check: exit 1: key ***"),
    ],
)
def test_its_words_are_the_last_lines_of_the_check_cleaned(end: dict[str, Any], words: str) -> None:
    assert GateRecord(kind="check", text="check", **end).words.startswith(words)
