"""What a loop may hand out before an agent of its last beads has given a sign of life."""

import pytest

from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.errors import BdFailed
from bdauto.loop.probation import LONGEST, Probation


def cycle(*beads: str, dry_run: bool = False) -> Report:
    return Report(
        "dispatch", Outcome.dispatched, dry_run, tuple(BeadReport(bead, BeadOutcome.dispatched) for bead in beads)
    )


def sweep(outcome: Outcome = Outcome.idle, malformed: tuple[str, ...] = (), **beads: str) -> Report:
    """Return a sweep in which each bead is kept silent, `alive`, or what is given."""
    found = tuple(
        BeadReport(bead, BeadOutcome.kept, lives=True) if what == "alive" else BeadReport(bead, BeadOutcome(what))
        for bead, what in beads.items()
    )
    return Report("reap", outcome, False, found, malformed=malformed)


def out(*beads: str, most: int = 3, trial: bool = False) -> Probation:
    probation = Probation(most)
    probation.dispatched(cycle(*beads), 0.0, trial=trial)
    return probation


def test_so_many_may_be_out_without_a_sign() -> None:
    assert [out(*"abcd"[:count]).holds(1.0) for count in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize("probation", [out("a", "b", "c", "d", most=0), Probation(3)])
def test_it_holds_nothing_back(probation: Probation) -> None:
    probation.dispatched(cycle("x", "y", "z", dry_run=True), 0.0, trial=False)
    assert not probation.holds(1.0)


@pytest.mark.parametrize(
    ("report", "holds"),
    [
        (sweep(a="kept", b="kept", c="kept"), True),
        (sweep(a="kept", b="alive", c="kept"), False),
        (sweep(a="kept", b="kept"), False),
        (sweep(), False),
        (sweep(a="released", b="kept", c="kept"), False),
        (sweep(Outcome.paused), True),
        (Report("reap", Outcome.failed, False, error=BdFailed("x")), True),
        (sweep(malformed=("bd list: entry 2 (c)",), a="kept", b="kept"), True),
    ],
    ids=["silent", "one wrote", "one closed its bead", "all did", "one died", "paused", "failed", "one is malformed"],
)
def test_what_a_sweep_says_of_them(report: Report, holds: bool) -> None:
    probation = out("a", "b", "c")
    probation.swept(report)
    assert probation.holds(1.0) is holds


def test_those_that_died_are_not_waited_for_and_those_that_follow_are() -> None:
    probation = out("a", "b", "c")
    probation.swept(sweep(a="released", b="released", c="released"))
    probation.dispatched(cycle("d", "e"), 1.0, trial=False)
    assert not probation.holds(2.0)


def test_a_trial_is_waited_for_alone_until_it_is_over() -> None:
    probation = out("a", trial=True)
    assert probation.holds(1.0)
    probation.swept(sweep(a="released"))
    probation.dispatched(cycle("b"), 2.0, trial=False)
    assert not probation.holds(3.0)


def test_an_agent_that_neither_writes_nor_dies_is_waited_for_two_minutes() -> None:
    probation = out("a", "b", "c")
    assert probation.holds(LONGEST.total_seconds() - 1)
    assert not probation.holds(LONGEST.total_seconds())
