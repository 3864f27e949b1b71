"""The queue in exact dispatch order, however long it is: no page size may change the answer."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdauto.bd.command import PAGE
from bdauto.controllers.ready_queue import Queue
from bdauto.domain.bead import Bead
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time
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
    return [r["id"] for r in sorted(fit, key=lambda r: (r["priority"], began_to_wait(r), r["id"]))]


def given_back(moment: datetime, waited: int) -> dict[str, str]:
    """Return the metadata of a bead that bdauto gave back at a moment, having waited for so many seconds by then."""
    since = format_time(moment - timedelta(seconds=waited))
    return {"bdauto.armed_at": since, "bdauto.released_at": format_time(moment), "bdauto.place": "kept"}


def began_to_wait(one: dict[str, Any]) -> datetime:
    since = (one.get("metadata") or {}).get("bdauto.armed_at")
    return datetime.fromisoformat(since) if since else one["updated_at"]


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
places = st.sampled_from([None] * 6 + [1, 10, 10_000])
states = st.sampled_from([None] * 12 + ["blocked"] + [*range(len(BROKEN))])


@given(st.lists(st.tuples(issues, flaws, states, places), max_size=120), st.integers(1, 30))
@settings(max_examples=150)
def test_any_queue_comes_in_exact_dispatch_order(entries: list[tuple[Any, Any, Any, Any]], wanted: int) -> None:
    tracker = Tracker(Clock(), row("good-0", priority=0), row("good-4", priority=4))
    for number, (issue, flaw, state, waited) in enumerate(entries):
        bead_id = f"x-{number}"
        tracker.rows[bead_id] = row(bead_id, **issue, **flaw)
        if waited and "metadata" not in flaw:
            tracker.rows[bead_id]["metadata"] = given_back(issue["updated_at"], waited)
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


def test_the_head_of_a_long_queue_costs_four_small_calls() -> None:
    rows = [
        row(f"x-{n:03}", created_at=NOW - timedelta(hours=200 - n), updated_at=NOW - timedelta(hours=200 - n))
        for n in range(200)
    ]
    tracker = Tracker(Clock(), *rows)
    queue = Queue(tracker, DispatchSettings(), NOW)
    page = tracker.ready(limit=PAGE).result()
    queue.read_ahead(page, 1)
    assert tracker.reads == ["ready"] * 3, "two of them run beside the look at the pause switch"
    head = next(queue.eligible(page, 1))
    assert (head.id, tracker.reads) == ("x-000", [*["ready"] * 3, "query"])


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


def chain(count: int, **fields: Any) -> Tracker:
    """Return a long queue of one priority in which the second bead has these fields, and what they may name."""
    others = [
        row("closed-1", status="closed", assignee="ann"),
        row("parent-1", assignee="ann"),
        row("open-1", assignee="ann"),
    ]
    tracker = Tracker(Clock(), *long(count), *others)
    tracker.rows["x-098"] |= fields
    return tracker


def needs(*others: str, kind: str = "blocks") -> list[dict[str, str]]:
    return [{"type": kind, "depends_on_id": other} for other in others]


LATER: list[tuple[str, dict[str, Any], Callable[[Tracker], Any], bool]] = [
    ("nothing", {}, lambda t: None, True),
    ("a note", {}, lambda t: t.rows["x-098"].update(notes="n", updated_at=NOW), True),
    ("closed", {}, lambda t: t.rows["x-098"].update(status="closed"), False),
    ("claimed", {}, lambda t: t.rows["x-098"].update(status="in_progress"), False),
    ("taken over", {}, lambda t: t.rows["x-098"].update(assignee="bob"), False),
    ("a label", {}, lambda t: t.rows["x-098"].update(labels=["secret"]), False),
    ("deleted", {}, lambda t: t.rows.pop("x-098"), False),
    ("made a gate", {}, lambda t: t.rows["x-098"].update(issue_type="gate", ephemeral=True), False),
    ("a blocker", {}, lambda t: t.rows["x-098"].update(dependencies=needs("open-1")), False),
    ("a closed blocker", {}, lambda t: t.rows["x-098"].update(dependencies=needs("closed-1")), True),
    ("the blocker is still closed", {"dependencies": needs("closed-1")}, lambda t: None, True),
    (
        "the blocker is open again",
        {"dependencies": needs("closed-1")},
        lambda t: t.rows["closed-1"].update(status="open"),
        False,
    ),
    ("the blocker is gone", {"dependencies": needs("closed-1")}, lambda t: t.rows.pop("closed-1"), True),
    ("a blocker of another tracker", {"dependencies": needs("external:a:b")}, lambda t: None, True),
    ("the parent goes on", {"dependencies": needs("parent-1", kind="parent-child")}, lambda t: None, True),
    (
        "the parent is blocked",
        {"dependencies": needs("parent-1", kind="parent-child")},
        lambda t: t.rows["parent-1"].update(dependencies=needs("open-1")),
        False,
    ),
    (
        "a blocked parent",
        {},
        lambda t: (
            t.rows["parent-1"].update(dependencies=needs("open-1")),
            t.rows["x-098"].update(dependencies=needs("parent-1", kind="parent-child")),
        ),
        False,
    ),
    ("related", {}, lambda t: t.rows["x-098"].update(dependencies=needs("open-1", kind="related")), True),
]


@pytest.mark.parametrize(("fields", "change", "goes"), [case[1:] for case in LATER], ids=[case[0] for case in LATER])
def test_a_further_bead_of_a_long_queue_is_judged_anew(
    fields: dict[str, Any], change: Callable[[Tracker], Any], goes: bool
) -> None:
    tracker = chain(100, **fields)
    queue = Queue(tracker, DispatchSettings(exclude_labels=("secret",)), NOW)
    beads = queue.eligible(tracker.ready(limit=PAGE).result(), 5)
    assert (next(beads).id, queue.following and queue.following.id) == ("x-099", "x-098")
    second = next(beads)
    change(tracker)
    found = queue.judged_again(second, queue.read_again(second).result())
    assert (found is not None and found.id == "x-098") is goes


@pytest.mark.parametrize("count", [100, 5_000])
def test_a_further_bead_reads_itself_alone_however_long_the_queue(count: int) -> None:
    tracker = Tracker(Clock(), *long(count))
    queue = Queue(tracker, DispatchSettings(), NOW)
    beads = queue.eligible(tracker.ready(limit=PAGE).result(), 5)
    next(beads)
    second = next(beads)
    assert queue.read_again(second).result().beads == (tracker.bead("x-098" if count == 100 else "x-4998"),)


def test_the_children_of_one_parent_are_read_and_not_the_priority() -> None:
    tracker = chain(100, dependencies=needs("parent-1", kind="parent-child"))
    queue = Queue(tracker, DispatchSettings(), NOW)
    second = tracker.bead("x-098")
    assert [one.id for one in queue.read_again(second).result().beads] == ["x-098"]
