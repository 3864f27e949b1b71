"""The fence of a pod: of all that may start for an attempt, one starts the agent."""

from collections.abc import Sequence

import pytest

from bdauto.bd.change import Change
from bdauto.common.errors import BdFailed, BdTimeout
from bdauto.controllers.pod_fence import take
from tests.support.fakes import Clock, Tracker, row


def claimed(clock: Clock) -> Tracker:
    return Tracker(clock, row("x-1", status="in_progress", metadata={"bdauto.attempt": "w1"}))


def taken(tracker: Tracker, pod: str = "pod-1", attempt: str = "w1", bead: str = "x-1") -> str:
    """Return why the pod may not start its agent, "" if it may."""
    runtime = tracker.clock.runtime(seed=int(pod[-1]))
    found = take(tracker, tracker, runtime, bead_id=bead, attempt=attempt, pod=pod)
    return found if isinstance(found, str) else ""


def test_the_first_pod_takes_the_attempt_and_no_other_does() -> None:
    tracker = claimed(Clock())
    updated = tracker.rows["x-1"]["updated_at"]
    assert taken(tracker) == ""
    assert tracker.own("x-1") == {"attempt": "w1", "pod": "pod-1"}
    assert tracker.rows["x-1"]["updated_at"] == updated, "it is no sign of life"
    assert taken(tracker, "pod-2") == "another pod has taken attempt w1"
    assert taken(tracker) == "another pod has taken attempt w1", "nor a second container of the same pod"


@pytest.mark.parametrize(
    "change",
    [
        {"status": "open"},
        {"status": "blocked"},
        {"status": "closed"},
        {"metadata": {"bdauto.attempt": "w2"}},
        {"metadata": {}},
    ],
    ids=["opened", "blocked", "closed", "claimed again", "settled"],
)
def test_a_bead_that_is_not_claimed_for_it_starts_no_agent(change: dict[str, object]) -> None:
    tracker = claimed(Clock())
    tracker.rows["x-1"] |= change
    assert taken(tracker) == "x-1 is not claimed for attempt w1 any more"
    assert tracker.written == []


def test_a_bead_that_is_gone_starts_no_agent() -> None:
    assert "is not claimed" in taken(claimed(Clock()), bead="x-9")


def test_of_two_at_once_one_wins() -> None:
    tracker = claimed(Clock())
    other: list[str] = []

    def first(_change: Change) -> None:
        tracker.before_write = lambda _change: None
        other.append(taken(tracker, "pod-2"))

    tracker.before_write = first
    assert (taken(tracker), other) == ("another pod has taken attempt w1", [""])


def test_the_dispatcher_s_record_at_the_same_moment_harms_neither() -> None:
    tracker = claimed(Clock())

    def record(_change: Change) -> None:
        tracker.before_write = lambda _change: None
        tracker.rows["x-1"]["metadata"] |= {"bdauto.job": "w1", "bdauto.write": "w77"}

    tracker.before_write = record
    assert taken(tracker) == ""
    assert tracker.own("x-1") == {"attempt": "w1", "job": "w1", "pod": "pod-1"}


def test_a_write_without_an_answer_that_was_made_counts() -> None:
    tracker = claimed(Clock())

    def lost(_changes: Sequence[Change]) -> None:
        tracker.after_write = lambda _changes: None
        raise BdTimeout("bd sql: no answer")

    tracker.after_write = lost
    assert taken(tracker) == ""


def test_a_tracker_that_is_down_is_waited_for_and_then_an_error() -> None:
    tracker = claimed(Clock())

    def down(_verb: str) -> None:
        raise BdFailed("bd list: connection refused")

    tracker.before_read = down
    with pytest.raises(BdFailed, match="connection refused, for 5m"):
        taken(tracker)
    assert 250 < sum(tracker.clock.waited) < 310
    assert tracker.written == []
