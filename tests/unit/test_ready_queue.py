"""The queue in exact dispatch order, however long it is: no page size may change the answer."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdauto.bd.command import PAGE
from bdauto.controllers.ready_queue import Queue
from bdauto.domain.bead import Bead
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, Clock, Tracker, row

BROKEN = [{"updated_at": "2026-02-30T00:00:00Z"}, {"title": 7}, {"id": "-rf"}, {"priority": 9}]
UNFIT: list[dict[str, Any]] = [
    {"acceptance_criteria": " \n"},
    {"issue_type": "epic"},
    {"is_template": True},
    {"metadata": {"bdauto.retry_at": "2026-04-18T22:35:47Z"}},
]


def ordered(tracker: Tracker, wanted: int) -> tuple[list[str], Queue]:
    queue = Queue(tracker, DispatchSettings(), NOW)
    page = tracker.ready(limit=PAGE).result()
    queue.read_ahead(page, wanted)
    return [bead.id for bead in queue.eligible(page, wanted)], queue


def expected(tracker: Tracker) -> list[str]:
    """Say it the plain way: all that bd calls ready and that is fit, sorted."""
    fit = [
        r
        for r in tracker.rows.values()
        if r["status"] == "open"
        and r["assignee"] == "agent"
        and r["id"] not in tracker.blocked
        and r["id"] not in tracker.broken
        and not any(r | unfit == r for unfit in UNFIT)
    ]
    return [r["id"] for r in sorted(fit, key=lambda r: (r["priority"], r["updated_at"], r["id"]))]


moments = st.one_of(st.integers(0, 5), st.integers(0, 10_000)).map(lambda s: NOW - timedelta(seconds=s))
issues = st.fixed_dictionaries(
    {
        "priority": st.one_of(st.just(2), st.integers(0, 4)),
        "created_at": moments,
        "updated_at": moments,
        "status": st.sampled_from(["open"] * 8 + ["in_progress", "closed"]),
        "assignee": st.sampled_from(["agent"] * 8 + ["ann"]),
    }
)
flaws = st.sampled_from([*[{}] * 12, *UNFIT])
states = st.sampled_from([None] * 12 + ["blocked"] + [*range(len(BROKEN))])


@given(st.lists(st.tuples(issues, flaws, states), max_size=120), st.integers(1, 30))
@settings(max_examples=150)
def test_any_queue_comes_in_exact_dispatch_order(entries: list[tuple[Any, Any, Any]], wanted: int) -> None:
    tracker = Tracker(Clock(), row("good-0", priority=0), row("good-4", priority=4))
    for number, (issue, flaw, state) in enumerate(entries):
        bead_id = f"x-{number}"
        tracker.rows[bead_id] = row(bead_id, **issue, **flaw)
        if state == "blocked":
            tracker.blocked.add(bead_id)
        elif state is not None:
            tracker.broken[bead_id] = BROKEN[state]
    ids, queue = ordered(tracker, wanted)
    assert ids == expected(tracker)
    if len(tracker.rows) < PAGE:
        seen = [tracker.rows[bead_id] for bead_id in tracker.broken]
        assert len(queue.malformed) == sum(r["status"] == "open" and r["assignee"] == "agent" for r in seen)


def long(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Return beads of one priority: the later created, the longer without an update."""
    return [
        row(
            f"x-{n:03}",
            created_at=NOW - timedelta(hours=count - n),
            updated_at=NOW - timedelta(seconds=n),
            **fields,
        )
        for n in range(count)
    ]


def test_the_head_of_a_long_queue_is_found_beyond_the_first_page() -> None:
    tracker = Tracker(Clock(), *long(100), *long(0))
    tracker.rows["old"] = row(
        "old", created_at=NOW - timedelta(hours=50, minutes=30), updated_at=NOW - timedelta(days=9)
    )
    assert ordered(tracker, 1)[0][0] == "old"


@pytest.mark.parametrize("count", [0, 1, PAGE - 1])
def test_a_short_queue_is_one_call_of_bd(count: int) -> None:
    tracker = Tracker(Clock(), *long(count))
    assert len(ordered(tracker, 5)[0]) == count
    assert tracker.reads == ["ready"]


def test_a_head_that_the_first_page_proves_is_one_call_of_bd() -> None:
    tracker = Tracker(Clock(), row("urgent", priority=0), *long(5_0))
    queue = Queue(tracker, DispatchSettings(), NOW)
    head = next(queue.eligible(tracker.ready(limit=PAGE).result(), 1))
    assert (head.id, tracker.reads) == ("urgent", ["ready"])


def test_the_head_of_a_long_queue_costs_three_small_calls() -> None:
    rows = [
        row(f"x-{n:03}", created_at=NOW - timedelta(hours=200 - n), updated_at=NOW - timedelta(hours=200 - n))
        for n in range(200)
    ]
    tracker = Tracker(Clock(), *rows)
    queue = Queue(tracker, DispatchSettings(), NOW)
    page = tracker.ready(limit=PAGE).result()
    queue.read_ahead(page, 1)
    assert tracker.reads == ["ready", "ready"], "the second one runs beside the look at the pause switch"
    head = next(queue.eligible(page, 1))
    assert (head.id, tracker.reads) == ("x-000", ["ready", "ready", "query"])


def test_a_priority_of_unreadable_beads_alone_does_not_hide_the_next() -> None:
    tracker = Tracker(
        Clock(), *long(PAGE, priority=1, acceptance_criteria=""), row("broken", priority=2), row("good", priority=3)
    )
    tracker.broken = {"broken": {"title": 7}}
    ids, queue = ordered(tracker, 1)
    assert ids == ["good"]
    assert any("broken" in line for line in queue.malformed)


def test_a_page_of_malformed_urgent_beads_alone_does_not_hide_the_next() -> None:
    tracker = Tracker(Clock(), *long(2 * PAGE, priority=0), row("good", priority=1))
    tracker.broken = {f"x-{n:03}": {"updated_at": "2026-02-30T00:00:00Z"} for n in range(2 * PAGE)}
    assert ordered(tracker, 1)[0] == ["good"]


def test_a_queue_in_which_everybody_backs_off_is_empty() -> None:
    tracker = Tracker(Clock(), *long(60, metadata={"bdauto.retry_at": "2026-04-18T23:00:00Z"}))
    assert ordered(tracker, 1)[0] == []


def test_the_queue_is_read_only_as_far_as_it_is_looked_at() -> None:
    tracker = Tracker(Clock(), *long(3, priority=0), *[r | {"id": f"y-{r['id']}"} for r in long(40, priority=3)])
    queue = Queue(tracker, DispatchSettings(), NOW)
    beads = queue.eligible(tracker.ready(limit=PAGE).result(), 1)
    taken: list[Bead] = [next(beads) for _ in range(3)]
    assert [bead.priority for bead in taken] == [0, 0, 0]
    assert tracker.reads == ["ready"]


def test_a_better_bead_of_the_same_second_is_seen_beyond_the_page() -> None:
    tracker = Tracker(Clock(), *long(40))
    oldest = min(tracker.rows.values(), key=lambda r: r["created_at"])
    oldest["updated_at"] = NOW - timedelta(days=1) + timedelta(milliseconds=500)
    hidden = max(tracker.rows.values(), key=lambda r: r["created_at"])
    hidden["updated_at"] = NOW - timedelta(days=1) + timedelta(milliseconds=200)
    assert ordered(tracker, 1)[0][:2] == [hidden["id"], oldest["id"]]
