"""Lanes: which beads belong to which, whose turn it is, what holds a lane, and what a tracker that is down holds up."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bdauto.bd.fallbacks import as_seen
from bdauto.common.errors import BdTimeout, PartlyDone
from bdauto.controllers.lane_turns import dispatch_in_turns
from bdauto.domain import breaker
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.eligibility import verdict
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.limits import reached
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report, merged
from bdauto.domain.record import Record, Run, metadata_of
from bdauto.domain.settings import DispatchSettings, ReapSettings, RunSettings, Watch
from bdauto.loop.loop_context import Lane
from bdauto.loop.watcher import Watcher
from tests.support.fakes import NOW, Board, Clock, Tracker, bead, row
from tests.support.scene import Make, Queue, Scene

DOCS = LaneRule("docs", "agent", DispatchSettings(labels=("docs",)), local=True)
HARD = LaneRule("hard", "agent", DispatchSettings(priorities=(0, 1)), fallback="docs")
REST = LaneRule("rest", "agent", DispatchSettings())
ANN = LaneRule("ann", "ann", DispatchSettings(types=("bug",)))
RULES = (DOCS, HARD, REST, ANN)


@pytest.mark.parametrize(
    ("fields", "lane"),
    [
        ({"labels": ["docs"], "priority": 0}, "docs"),
        ({"priority": 1}, "hard"),
        ({"priority": 2}, "rest"),
        ({"priority": 0, "issue_type": "epic"}, None),
        ({"assignee": "ann", "issue_type": "bug", "labels": ["docs"]}, "ann"),
        ({"assignee": "ann"}, None),
        ({"assignee": "bob"}, None),
    ],
)
def test_a_bead_belongs_to_the_first_lane_whose_conditions_it_meets(fields: dict[str, Any], lane: str | None) -> None:
    one = bead("x-1", **fields)
    rule = Lanes("docs", RULES).of(one)
    assert (rule.name if rule else None) == lane
    eligible = {
        own.name for own in RULES if verdict(one, True, own.assignee, own.wants, NOW, Lanes(own.name, RULES)).eligible
    }
    assert eligible == ({lane} if lane else set()), "no bead is in the queues of two lanes"


def test_explain_says_which_lane_and_why_not_the_earlier_ones() -> None:
    found = {c.name: c for c in verdict(bead("x-1"), True, "agent", REST.wants, NOW, Lanes("rest", RULES)).conditions}
    assert found["lane"].detail == "lane rest; not docs: lacks label docs, not hard: priority 2 is not 0 or 1"
    found = {c.name: c for c in verdict(bead("x-1"), True, "agent", DOCS.wants, NOW, Lanes("docs", RULES)).conditions}
    assert not found["lane"].passed
    epic = verdict(bead("x-1", issue_type="epic"), True, "agent", REST.wants, NOW, Lanes("rest", RULES))
    assert any("no lane takes it" in condition.detail for condition in epic.conditions)


@pytest.mark.parametrize(
    ("lane", "local", "owner"),
    [
        ("hard", False, "hard"),
        ("docs", True, "docs"),
        ("removed", True, "docs"),
        ("removed", False, "hard"),
        ("", False, "hard"),
        ("ann", False, "hard"),
        ("<b>{x=\"\\n'; DROP", False, "hard"),
    ],
)
def test_a_claimed_bead_belongs_to_one_lane_whatever_becomes_of_it(lane: str, local: bool, owner: str) -> None:
    """Its labels may change, and its lane may be gone from the file: then an alike one of its assignee has it."""
    place = {"bdauto.jobs_folder": "b1", "bdauto.host": "here"} if local else {}
    metadata = {"bdauto.attempt": "w1", "bdauto.lane": lane, **place}
    one = bead("x-1", status="in_progress", labels=["docs"], priority=4, metadata=metadata)
    assert [rule.name for rule in RULES if Lanes(rule.name, RULES).claimed(one)] == [owner]


def test_without_lanes_everything_is_of_the_one_lane() -> None:
    one = bead("x-1", status="in_progress", metadata={"bdauto.attempt": "w1", "bdauto.lane": "removed"})
    assert Lanes().claimed(one)
    assert Lanes().has(bead("x-2"))
    assert Lanes().condition(bead("x-2")) is None


def test_a_fallback_takes_beads_only_while_each_lane_before_it_is_held() -> None:
    first = LaneRule("first", "agent", DispatchSettings(labels=("a",)), fallback="second")
    second = LaneRule("second", "agent", DispatchSettings(labels=("b",)), fallback="last")
    last = LaneRule("last", "agent", DispatchSettings(labels=("c",)))
    tracker = Tracker(Clock())
    tracker.lane, tracker.lanes = "last", Lanes("last", (first, second, last))
    opened = Breaker((Death("z-1", "w0"),), NOW + timedelta(minutes=5), 1).encode()

    def taking(*held: str) -> set[str]:
        tracker.store = {breaker.key_of(name): opened for name in held}
        return {*as_seen(tracker, lambda _: (), NOW).taking}

    assert (taking(), taking("first"), taking("second")) == (set(), set(), {"second"})
    assert taking("first", "second") == {"first", "second"}
    assert taking("first", "second", "last") == {"first", "second"}, "its own breaker holds the last lane"
    tracker.lanes = Lanes("second", (first, second, last))
    assert taking("first") == {"first"}


def test_a_limit_counts_the_runs_of_its_own_lane() -> None:
    def ran(number: int, lane: str) -> Any:
        run = Run(attempt=f"w{number}", claimed_at=NOW - timedelta(minutes=number), ended_at=NOW, lane=lane)
        record = metadata_of(Record(assignee="agent", runs=(run,)))
        return bead(f"x-{number}", status="closed", metadata=record)

    beads = [ran(1, "docs"), ran(2, "docs"), ran(3, "hard"), ran(4, "removed")]
    own = DispatchSettings(max_per_day=2)

    def limit(lane: str, settings: DispatchSettings) -> str:
        found = reached(beads, settings, "agent", NOW, (), Lanes(lane, RULES))
        return found.words if found else ""

    assert limit("docs", own) == "2 dispatched in 24 hours, at most 2"
    assert limit("rest", own) == ""
    assert limit("hard", own) == "2 dispatched in 24 hours, at most 2", "what a removed lane spent counts for its heir"
    assert limit("rest", DispatchSettings(per_day_of_all=4)) == "all lanes: 4 dispatched in 24 hours, at most 4"
    assert limit("rest", DispatchSettings(per_day_of_all=5)) == ""


def test_a_limit_counts_a_run_whose_bead_was_given_to_another_lane() -> None:
    hour = timedelta(hours=1)
    runs = (Run(attempt="w1", claimed_at=NOW - 3 * hour, lane="ann"), Run(attempt="w2", claimed_at=NOW, lane="docs"))

    def limits(assignee: str, **settings: Any) -> list[str]:
        given = bead("x-1", status="closed", metadata=metadata_of(Record(assignee=assignee, runs=runs)))
        lanes = [(rule.name, rule.assignee, Lanes(rule.name, RULES)) for rule in RULES]
        return [name for name, of, own in lanes if reached([given], DispatchSettings(**settings), of, NOW, (), own)]

    assert limits("agent", max_per_day=1) == ["docs", "ann"], "the lane that ran it, whose ever it is by now"
    assert limits("agent", max_per_day=2) == []
    assert limits("agent", per_day_of_all=2) == ["docs", "hard", "rest", "ann"]
    assert limits("bob", max_per_day=1) == [], "another file may have lanes of the same names"


def test_a_limit_counts_no_runs_of_another_assignee_on_this_machine() -> None:
    here = [("x-1", Run(attempt="w1", claimed_at=NOW - timedelta(hours=1), lane="docs"))]
    settings = DispatchSettings(max_per_day=1)
    found = {rule.name: reached([], settings, rule.assignee, NOW, here, Lanes(rule.name, RULES)) for rule in RULES}
    assert [name for name, limit in found.items() if limit] == ["docs"]


def lane_with(beads: int, taken: list[str], name: str) -> Callable[[int], Report]:
    """A lane with so many beads, which notes its name for each that it dispatches."""
    left = beads

    def cycle(most: int) -> Report:
        nonlocal left
        number = min(most, left)
        left -= number
        taken.extend([name] * number)
        done = tuple(BeadReport(f"{name}-{left}-{n}", BeadOutcome.dispatched) for n in range(number))
        return Report("dispatch", Outcome.dispatched if done else Outcome.idle, False, done)

    return cycle


@pytest.mark.parametrize("seed", range(5))
def test_a_long_queue_of_one_lane_starves_no_other(seed: int) -> None:
    taken: list[str] = []
    cycles = {"long": lane_with(1000, taken, "long"), "short": lane_with(2, taken, "short")}
    dispatch_in_turns(cycles, {"long": 6, "short": 6}, random.Random(seed))
    assert sorted(taken) == ["long"] * 4 + ["short"] * 2
    assert "short" in taken[:2]


def test_one_bead_at_a_time_goes_to_each_lane_in_the_long_run() -> None:
    taken: list[str] = []
    cycles = {name: lane_with(1000, taken, name) for name in ("first", "second")}
    rng = random.Random(7)
    for _ in range(100):
        dispatch_in_turns(cycles, {"first": 1, "second": 1}, rng)
    assert taken.count("second") in range(30, 71)


def test_a_lane_dispatches_no_more_than_its_own_max() -> None:
    taken: list[str] = []
    cycles = {name: lane_with(9, taken, name) for name in ("a", "b")}
    dispatch_in_turns(cycles, {"a": 5, "b": 1}, random.Random(1))
    assert sorted(taken) == ["a"] * 4 + ["b"]


def test_a_lane_that_fails_ends_no_other() -> None:
    taken: list[str] = []
    failed = Report("dispatch", Outcome.failed, False, error=PartlyDone("it is broken", hint="mend it"))
    cycles = {"bad": lambda _: failed, "good": lane_with(2, taken, "good")}
    report = merged(dispatch_in_turns(cycles, {"bad": 5, "good": 5}, random.Random(1)))
    assert taken == ["good", "good"]
    assert (report.outcome, str(report.error)) == (Outcome.partial, "lane bad: it is broken; mend it")
    assert {one.lane for one in report.beads} == {"good"}


def lanes(scene: Scene, *rules: LaneRule, board: Board, **more: Any) -> list[Lane]:
    """Make the scene's own lane the first of these, and return the others, which share its tracker and `board`."""
    scene.tracker.lane, scene.tracker.lanes = rules[0].name, Lanes(rules[0].name, rules)
    others = []
    for rule in rules[1:]:
        tracker = Queue(scene.clock)
        tracker.lane, tracker.lanes = rule.name, Lanes(rule.name, rules)
        tracker.rows, tracker.store, tracker.reads = scene.tracker.rows, scene.tracker.store, scene.tracker.reads
        others.append(Lane(tracker, board.services(agent=bool(board.health)), rule.wants, ReapSettings(), **more))
    return others


def test_lanes_at_rest_read_the_queue_once_for_all(make: Make) -> None:
    def reads(number: int) -> int:
        scene = make()
        rules = [LaneRule(f"l{n}", "agent", DispatchSettings(labels=(f"l{n}",))) for n in range(number)]
        others = lanes(scene, *rules, board=Board())
        scene.run(3600, watch=True, others=others, labels=("l0",))
        return scene.tracker.reads.count("ready")

    assert reads(10) <= 1.5 * reads(1) + 10, "and once each at the start"


def test_a_change_wakes_the_lane_that_has_not_seen_it(make: Make) -> None:
    scene, board = make(), Board()
    rules = (LaneRule("a", "agent", DispatchSettings(labels=("a",))), LaneRule("b", "agent", DispatchSettings()))
    others = lanes(scene, *rules, board=board)
    scene.stop.at(100, lambda: scene.tracker.rows.update({"x-1": row("x-1"), "x-2": row("x-2", labels=["a"])}))
    scene.run(130, watch=True, others=others, labels=("a",))
    assert (scene.board.posts, board.posts) == (["x-2"], ["x-1"]), "each by its lane, within seconds"


def test_a_tracker_that_is_down_holds_up_no_other(make: Make) -> None:
    scene, board = make(*(row(f"x-{number}") for number in range(20))), Board()
    far = Queue(scene.clock)
    calls: list[float] = []

    def hang(_verb: str) -> None:
        calls.append(scene.now)
        scene.clock.time += timedelta(seconds=60)
        raise BdTimeout("bd did not answer within 1m and was killed")

    far.before_read = hang
    off = RunSettings(watch=Watch.off)
    blind = Watcher(off, scene.revision.open, scene.stop.wait, scene.clock.monotonic, random.Random(1))
    far.lane = "far"
    down = Lane(far, board.services(), DispatchSettings(), ReapSettings(), lambda: far, blind)
    scene.run(1800, others=[down], dispatch_every=timedelta(seconds=15), trip_after=0)
    assert len(calls) < 8, "it is left alone nine times as long as it took"
    assert len(scene.board.posts) == 20, "the others go on"


def test_sweeps_that_take_long_keep_no_lane_from_dispatching(make: Make) -> None:
    scene, board = make(*(row(f"x-{number}") for number in range(3))), Board()
    rules = (LaneRule("a", "agent", DispatchSettings(labels=("a",))), LaneRule("b", "agent", DispatchSettings()))
    others = lanes(scene, *rules, board=board)

    def slow(verb: str) -> None:
        scene.clock.time += timedelta(seconds=3 if verb == "list" else 0)
        if scene.now > 120:  # the loop never waits, which is when the script ends it
            scene.stop.signal = "SIGTERM"

    scene.tracker.before_read = others[0].bd.before_read = slow  # type: ignore[attr-defined]
    scene.run(120, others=others, labels=("a",), reap_every=timedelta(seconds=2), dispatch_every=timedelta(seconds=1))
    assert len(board.posts) == 3


def test_of_lanes_that_may_dispatch_the_one_that_waits_longest_is_first(make: Make) -> None:
    beads = [row(f"x-{number}", labels=["a"]) for number in range(30)] + [row("y-1"), row("y-2")]
    free = {"busy": False, "active": 0, "queued": 0, "capacity": 9}
    scene, board = make(*beads, health=[free]), Board(health=[free])
    rules = (LaneRule("a", "agent", DispatchSettings(labels=("a",))), LaneRule("b", "agent", DispatchSettings()))
    others = lanes(scene, *rules, board=board)
    order: list[str] = []

    def posted(bead_id: str) -> None:
        order.append(bead_id)
        scene.clock.time += timedelta(milliseconds=100)

    scene.board.posted = board.posted = posted
    scene.run(60, agent=True, others=others, labels=("a",), trip_after=0, dispatch_every=timedelta(seconds=1))
    assert {"y-1", "y-2"} <= {*order[:8]}, order


def test_a_lane_over_its_limit_leaves_its_beads_to_its_fallback_until_the_reset() -> None:
    hard = LaneRule("hard", "agent", DispatchSettings(priorities=(0,), max_per_day=1), fallback="rest")
    rules = (hard, LaneRule("rest", "agent", DispatchSettings()))
    run = Run(attempt="w1", claimed_at=NOW - timedelta(hours=1), ended_at=NOW, lane="hard")
    spent = row("x-1", status="closed", metadata=metadata_of(Record(assignee="agent", runs=(run,))), updated_at=NOW)
    tracker = Tracker(Clock(), spent, row("x-2", priority=0))
    tracker.lane, tracker.lanes = "rest", Lanes("rest", rules)
    urgent = bead("x-2", priority=0)

    def takes(hours: int) -> bool:
        now = NOW + timedelta(hours=hours)
        seen = as_seen(tracker, lambda _: (), now)
        return verdict(urgent, True, "agent", rules[1].wants, now, seen).eligible

    assert (takes(0), takes(24)) == (True, False)
