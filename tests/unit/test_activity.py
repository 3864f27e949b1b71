"""A whole report from what two reads of the tracker say, and its JSON contract."""

from datetime import timedelta
from typing import Any

import pytest

from bdauto.diagnostics.activity import activity, as_json, gather_activity
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.figures import Window
from bdauto.domain.record import Result
from bdauto.domain.settings import By, DispatchSettings
from tests.support.fakes import NOW, Clock, Tracker, bead, row
from tests.unit.test_figures import HOUR, ended, ran

FIGURES = {
    "dispatched", "closed", "closed_first", "blocked", "quarantined", "ended", "failed", "stopped", "waiting",
    "running", "cost_usd", "costed", "cost_per_closed_usd",
}  # fmt: skip
SPREAD = {"count", "p50_seconds", "p90_seconds", "max_seconds"}
EXTREME = {"id", "title", "runs", "seconds", "cost_usd"}


def told(*beads: Bead, ready: tuple[Bead, ...] = (), by: By = By.day) -> dict[str, Any]:
    window = Window(NOW - timedelta(days=7), NOW)
    return as_json(activity(BeadList(beads), BeadList(ready), "agent", DispatchSettings(), window, by))


def test_the_contract() -> None:
    shown = told(
        ran("x-1", ended(result=Result.failed), ended(), status="closed"),
        ready=(bead("x-2"),),
    )
    assert shown.keys() == {
        "since", "until", "by", "total", "results", "days", "groups", "reasons", "never_started", "slowest", "dearest",
        "waiting", "malformed",
    }  # fmt: skip
    assert shown["total"].keys() == FIGURES
    assert shown["total"]["waiting"].keys() == shown["total"]["running"].keys() == SPREAD
    assert all(day.keys() == FIGURES | {"day"} for day in shown["days"])
    assert all(group.keys() == FIGURES | {"name"} for group in shown["groups"])
    assert shown["reasons"][0].keys() == {"count", "words", "beads"}
    assert shown["slowest"][0].keys() == shown["dearest"][0].keys() == EXTREME
    assert shown["waiting"][0].keys() == {"id", "title", "priority", "seconds", "eligible", "reason"}
    assert shown["results"] == {"closed": 1, "failed": 1}
    assert (shown["since"], shown["until"], shown["by"]) == ("2026-04-11T22:35:46Z", "2026-04-18T22:35:46Z", "day")


def test_an_empty_tracker_has_all_the_days_and_no_cost() -> None:
    shown = told()
    assert [day["day"] for day in shown["days"]] == [f"2026-04-{day}" for day in range(11, 19)]
    assert (shown["total"]["cost_usd"], shown["results"], shown["slowest"]) == (None, {}, [])


def test_whose_beads() -> None:
    taken_back = ran("x-1", ended(), status="closed", assignee="ann", more={"bdauto.assignee": "agent"})
    of_another_queue = ran("x-2", ended(), status="closed", more={"bdauto.assignee": "other"})
    never_ours = ran("x-3", ended(), status="closed", assignee="ann")
    shown = told(taken_back, of_another_queue, never_ours)
    assert (shown["total"]["closed"], [one["id"] for one in shown["slowest"]]) == (1, ["x-1"])


def test_the_busiest_groups_come_first() -> None:
    beads = [ran(f"x-{n}", ended(), status="closed", created_by="ann" if n else "") for n in range(3)]
    assert [(group["name"], group["closed"]) for group in told(*beads, by=By.creator)["groups"]] == [
        ("ann", 2),
        (None, 1),
    ]


def test_slowest_and_dearest() -> None:
    shown = told(
        ran("x-1", ended(seconds=10, cost=3.0), status="closed"),
        ran("x-2", ended(2 * HOUR, seconds=40), ended(seconds=40, cost=None), status="closed"),
        ran("x-3", ended(seconds=None, cost=None), status="closed"),
    )
    assert [(one["id"], one["seconds"], one["runs"]) for one in shown["slowest"]] == [("x-2", 80, 2), ("x-1", 10, 1)]
    assert [(one["id"], one["cost_usd"]) for one in shown["dearest"]] == [("x-1", 3.0), ("x-2", 0.5)]


def test_what_waits_longest_now() -> None:
    bare = bead("x-1", acceptance_criteria="", updated_at=NOW - 3 * HOUR)
    refused = bead(
        "x-2", updated_at=NOW - HOUR, metadata={"bdauto.armed_at": "2026-04-18T18:35:46Z", "bdauto.place": "kept"}
    )
    ran_before = bead("x-3", updated_at=NOW - 2 * HOUR)
    theirs = bead("x-4", assignee="ann", updated_at=NOW - 9 * HOUR)
    shown = told(theirs, ready=(bare, refused, ran_before))["waiting"]
    assert [(one["id"], one["seconds"], one["reason"]) for one in shown] == [
        ("x-2", 4 * 3600, None),
        ("x-1", 3 * 3600, "no acceptance criteria"),
        ("x-3", 2 * 3600, None),
    ]


def test_two_reads() -> None:
    tracker = Tracker(Clock(), row("x-1"), row("x-2", updated_at=NOW - timedelta(days=9), status="closed"))
    found = gather_activity(tracker, DispatchSettings(), NOW - timedelta(days=7), By.day, NOW)
    assert [one.bead.id for one in found.waiting] == ["x-1"]
    assert sorted(tracker.reads) == ["list", "ready"]


@pytest.mark.parametrize("part", [0, 400_000, 500_000, 999_999])
def test_what_happened_just_now_is_in_the_report(part: int) -> None:
    """bd rounds a time to the nearest second."""
    now = NOW + timedelta(microseconds=part)
    rounded = (now + timedelta(seconds=0.5)).replace(microsecond=0)
    closed = row(
        "x-1",
        status="closed",
        closed_at=rounded,
        updated_at=rounded,
        metadata={"bdauto.assignee": "agent", "bdauto.attempt": "a1", "bdauto.claimed_at": "2026-04-18T20:00:00Z"},
    )
    found = gather_activity(Tracker(Clock(), closed), DispatchSettings(), now - timedelta(days=7), By.day, now)
    assert found.total.closed == 1
