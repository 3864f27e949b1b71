"""What a loop may hand out before an agent of its last beads has given a sign of life."""

from typing import Any

import pytest

from bdauto.common.errors import BdFailed
from bdauto.domain.notes import CLAIM_NOTE
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.loop.probation import LONGEST, Probation
from tests.support.fakes import bead


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


def test_the_sign_of_an_agent_no_longer_waited_for_is_not_that_of_later_ones() -> None:
    """The loop stood still in the middle of a cycle, and its next sweep finds the first agent long finished."""
    probation = out("a", most=2)
    probation.dispatched(cycle("b"), LONGEST.total_seconds() + 1, trial=False)
    assert probation.unlisted(sweep(b="kept")) == []
    probation.swept(sweep(b="kept"), [bead("a", status="closed")])
    probation.dispatched(cycle("c"), LONGEST.total_seconds() + 2, trial=False)
    assert probation.holds(LONGEST.total_seconds() + 3)


@pytest.mark.parametrize("probation", [out("a", "b", "c", "d", most=0), Probation(3)])
def test_it_holds_nothing_back(probation: Probation) -> None:
    probation.dispatched(cycle("x", "y", "z", dry_run=True), 0.0, trial=False)
    assert not probation.holds(1.0)


@pytest.mark.parametrize(
    ("report", "holds"),
    [
        (sweep(a="kept", b="kept", c="kept"), True),
        (sweep(a="kept", b="alive", c="kept"), False),
        (sweep(a="kept", b="kept"), True),
        (sweep(), True),
        (sweep(a="released", b="kept", c="kept"), False),
        (sweep(Outcome.paused), True),
        (Report("reap", Outcome.failed, False, error=BdFailed("x")), True),
        (sweep(malformed=("bd list: entry 2 (c)",), a="kept", b="kept"), True),
    ],
    ids=["silent", "one wrote", "one is not listed", "none is", "one died", "paused", "failed", "one is malformed"],
)
def test_what_a_sweep_says_of_them(report: Report, holds: bool) -> None:
    probation = out("a", "b", "c")
    probation.swept(report)
    assert probation.holds(1.0) is holds


CLAIM = f"{CLAIM_NOTE}2026-04-18T22:35:46Z"


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ({"status": "closed"}, False),
        ({"status": "blocked"}, False),
        ({"status": "blocked", "metadata": {"bdauto.quarantined": "it failed"}}, True),
        ({"status": "open"}, True),
        ({"assignee": "bob"}, True),
        ({"assignee": "bob", "notes": f"{CLAIM}\nclaimed by agent j1"}, False),
    ],
    ids=["closed", "blocked", "quarantined", "open again", "taken over", "taken over, and its agent writes"],
)
def test_what_a_bead_says_that_is_no_longer_listed(found: dict[str, Any], holds: bool) -> None:
    """Four beads are out, and three are enough to wait for: whether that ends, a sign of life alone decides."""
    fields = {"status": "in_progress", "notes": CLAIM} | found
    fields["metadata"] = {"bdauto.attempt": "w1"} | fields.get("metadata", {})
    probation, report = out("a", "b", "c", "d"), sweep(a="kept", b="kept", c="kept")
    assert probation.unlisted(report) == ["d"]
    probation.swept(report, [bead("d", **fields)])
    assert probation.holds(1.0) is holds


def test_one_that_was_taken_over_is_waited_for_and_one_that_was_settled_is_not() -> None:
    for status, holds in (("in_progress", True), ("open", False)):
        probation = out("a", "b", "c")
        probation.swept(sweep(a="kept", b="kept"), [bead("c", status=status, assignee="bob")])
        assert probation.holds(1.0) is holds


def test_a_sweep_that_does_not_tell_leaves_nothing_unlisted() -> None:
    assert out("a").unlisted(sweep(Outcome.paused)) == []


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
