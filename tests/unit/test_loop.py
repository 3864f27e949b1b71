"""The loop, on a clock on which waiting takes no time: its pace, outages, the pause switch, starvation, stopping."""

from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.agents.job_questions import BUDGET, JobQuestions
from bdauto.bd.running import RunningCommand
from bdauto.common.errors import BdFailed, BdTimeout
from bdauto.domain import breaker
from bdauto.domain.bead import BeadList
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.pause import KEY, Pause
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings
from bdauto.loop.loop_context import Lane
from bdauto.telemetry.families import BEADS, LAST_SUCCESS, OLDEST, PAUSED, STARVED, SUSPENDED, UP
from tests.support.fakes import NOW, Board, row
from tests.support.scene import Make, Queue, gaps

DOWN = httpx.ConnectError("connection refused")


# PollSchedule


def test_idle_polling_backs_off_to_four_intervals_and_costs_one_process_a_cycle(make: Make) -> None:
    scene = make()
    scene.run(600)
    intervals = gaps(scene.cycles)
    assert 12 <= intervals[0] <= 22.5, "one and a half intervals, jittered"
    assert max(intervals) <= 60
    assert min(intervals[5:]) >= 48
    assert len(set(intervals[5:])) > 1, "jittered"
    looks = 600 / 60 + 1
    assert scene.tracker.reads.count("ready") == len(scene.cycles)
    assert scene.tracker.reads.count("kv") <= looks + 2 * len(scene.sweeps)


def test_a_sign_of_work_ends_the_back_off(make: Make) -> None:
    scene = make()
    scene.stop.at(400, lambda: scene.tracker.rows.update({"x-1": row("x-1")}))
    scene.run(600)
    found = next(index for index, moment in enumerate(scene.cycles) if moment >= 400)
    assert scene.board.posts == ["x-1"]
    assert scene.cycles[found + 1] - scene.cycles[found] <= 15


def test_a_long_wait_is_made_of_short_ones(make: Make) -> None:
    scene = make()
    scene.run(600)
    assert max(scene.stop.waits) <= 15, "else the loop would look dead while it waits"


def test_reaps_at_its_own_interval_which_never_grows(make: Make) -> None:
    scene = make()
    scene.run(3600, reap_every=timedelta(minutes=10))
    assert scene.sweeps[0] == 0
    assert all(480 <= gap <= 600 for gap in gaps(scene.sweeps))


def test_goes_on_at_once_while_the_agent_service_counts_room(make: Make) -> None:
    scene = make(*(row(f"x-{n}") for n in range(5)))
    free = {"status": "ok", "busy": False, "queued": 0, "capacity": 4}
    answers = [free | {"active": active, "busy": active >= 4} for active in range(5)]
    scene.board.health[:] = answers
    scene.run(10, agent=True, trip_after=0)
    assert len(scene.board.posts) == 4
    assert [moment for moment in scene.cycles if moment == 0] == [0, 0, 0, 0]


def test_a_cycle_that_dispatches_asks_each_service_once(make: Make) -> None:
    scene = make(*(row(f"x-{n}") for n in range(3)), health=[{"busy": False, "active": 0, "queued": 0, "capacity": 9}])
    scene.run(1, agent=True, max_beads=3, trip_after=0)
    assert scene.cycles == [0, 0]
    asked = Counter(request.url.path for request in scene.board.requests if not request.url.path.startswith("/jobs/"))
    assert asked == {"/api/agent-status": 2, "/health": 2, "/api/agent-dispatch": 3}, "the second cycle finds nothing"


def test_where_room_is_not_counted_it_waits_until_the_status_can_show_the_dispatch(make: Make) -> None:
    scene = make(row("x-1"), row("x-2"))
    scene.run(10)
    assert scene.board.posts == ["x-1", "x-2"]
    assert scene.cycles[:2] == pytest.approx([0, 2], abs=0.001)


def test_a_busy_service_is_asked_at_the_interval_and_costs_no_process_of_bd(make: Make) -> None:
    scene = make(row("x-1"), busy=[True] * 1000)
    scene.run(600, ignore_pause=True)
    assert all(12 <= gap <= 15 for gap in gaps(scene.cycles))
    assert set(scene.tracker.reads) == {"list", "kv"}, "the sweep's"


def test_a_dry_run_neither_hurries_nor_counts(make: Make) -> None:
    scene = make(row("x-1"))
    scene.run(60, dry_run=True)
    assert scene.board.posts == []
    assert scene.cycles == []
    assert len(scene.said("dispatched")) <= 6


# Outages


def test_an_outage_of_beadboard_is_said_once_then_every_ten_minutes_and_at_its_end(make: Make) -> None:
    scene = make(row("x-1"), status=DOWN)
    scene.stop.at(1500, lambda: setattr(scene.board, "status", None))
    scene.run(1700)
    said = [(name, fields["target"]) for _, name, fields in scene.said("outage", "recovered")]
    assert said == [("outage", "beadboard")] * 3 + [("recovered", "beadboard")]
    moments = [moment for moment, _, _ in scene.said("outage", "recovered")]
    assert moments[0] == 0
    assert all(600 <= gap <= 660 for gap in gaps(moments[:3]))
    assert 1500 <= moments[3] <= 1560
    assert max(gaps(scene.cycles)) <= 60
    assert [title for title, _ in scene.told] == ["outage of beadboard", "end of the outage of beadboard"]
    assert "ready" not in scene.tracker.reads[: scene.tracker.reads.index("ready")]
    assert scene.board.posts == ["x-1"]


def test_no_bead_is_read_or_touched_while_beadboard_is_down(make: Make) -> None:
    scene = make(row("x-1"), status=httpx.Response(200, text="<html>"))
    scene.run(900)
    assert "ready" not in scene.tracker.reads
    assert scene.tracker.written == []
    assert scene.metric(UP, target="beadboard") == 0
    assert scene.loop
    assert not scene.loop.ready()


@pytest.mark.parametrize("error", [BdTimeout("bd ready did not answer"), BdFailed("bd ready failed (exit 1)")])
def test_an_outage_of_bd(make: Make, error: Exception) -> None:
    scene = make(row("x-1"))
    down = [True]

    def read(_verb: str) -> None:
        if down:
            raise error

    scene.tracker.before_read = read
    scene.stop.at(700, down.clear)
    scene.run(900)
    assert [name for _, name, _ in scene.said("outage", "recovered")] == ["outage", "outage", "recovered"]
    assert scene.said("recovered")[0][2]["target"] == "bd"
    assert max(gaps(scene.cycles)) <= 60
    assert scene.board.posts == ["x-1"]
    assert len(scene.sweeps) > 3, "a failed sweep is made up for soon"
    assert scene.metric(UP, target="bd") == 1


def test_after_an_outage_of_bd_the_writer_is_made_anew_since_bd_may_be_another_version(make: Make) -> None:
    scene = make()
    writers: list[int] = []
    down: list[int] = []
    scene.tracker.before_read = lambda verb: (_ for _ in ()).throw(BdFailed("gone")) if down else None
    scene.stop.at(100, lambda: down.append(1))
    scene.stop.at(200, down.clear)
    scene.run(50, writers=writers)
    assert len(writers) == 1
    scene.stop.signal = ""
    scene.run(400, writers=writers)
    assert len(writers) >= 3


def test_beads_that_are_not_started_are_tried_one_at_a_time_and_ever_more_rarely(make: Make) -> None:
    scene = make(*(row(f"x-{n:02}") for n in range(50)))
    scene.board.script = [httpx.Response(502, json={"error": "agent unreachable"}) for _ in range(500)]
    scene.run(7200, max_beads=5)
    tried = [moment for moment, name, _ in scene.said("unavailable")]
    assert len(tried) == len(scene.board.posts) < 30, "3 in the first cycle, which says that the service is down"
    assert len([moment for moment in tried if moment == 0]) == 3
    late = [gap for gap in gaps([m for m in tried if m > 3000]) if gap]
    assert late
    assert all(400 <= gap <= 660 for gap in late)
    assert [fields["target"] for _, name, fields in scene.said("outage")][:1] == ["dispatch"]
    assert scene.metric(UP, target="beadboard") == 1


def test_the_first_bead_that_starts_ends_that_outage_and_an_idle_cycle_does_not(make: Make) -> None:
    scene = make(row("x-1"))
    scene.board.script = [httpx.Response(502)]
    scene.run(1200)
    assert [name for _, name, _ in scene.said("outage", "recovered")] == ["outage", "recovered"]
    assert scene.board.posts == ["x-1", "x-1"]
    assert scene.said("recovered")[0][0] >= 60, "its backoff, in which nothing was eligible"


def test_what_became_of_the_last_bead_of_a_cycle_counts(make: Make) -> None:
    scene = make(*(row(f"x-{n}") for n in range(9)))
    scene.board.script = [httpx.Response(200, json={"job_id": "j-1"}), *[httpx.Response(502)] * 3]
    scene.run(10, max_beads=5)
    assert [fields["target"] for _, _, fields in scene.said("outage")] == ["dispatch"]


def test_a_bd_that_lists_but_cannot_tell_what_is_ready_is_one_outage(make: Make) -> None:
    scene = make(row("x-1"))

    def read(verb: str) -> None:
        if verb == "ready" and scene.now < 400:
            raise BdFailed("bd ready failed")

    scene.tracker.before_read = read
    scene.run(500, reap_every=timedelta(seconds=30))
    assert len(scene.sweeps) > 10
    assert [name for _, name, _ in scene.said("outage", "recovered")] == ["outage", "recovered"]


def test_a_switch_or_census_that_fails_does_not_slow_dispatching(make: Make) -> None:
    scene = make()
    scene.tracker.before_read = lambda verb: (_ for _ in ()).throw(BdFailed("no")) if verb == "assigned" else None
    scene.stop.at(300, lambda: scene.tracker.rows.update({"x-1": row("x-1")}))
    scene.run(700, counting=True, reap_every=timedelta(minutes=2))
    assert scene.board.posts == ["x-1"]
    assert [name for _, name, _ in scene.said("outage", "recovered")] == ["outage", "outage"]


def test_an_agent_service_that_is_down_is_told_from_beadboard(make: Make) -> None:
    scene = make(row("x-1"), health=[{"status": "odd"}])
    scene.run(100, agent=True)
    assert [fields["target"] for _, _, fields in scene.said("outage")] == ["agent"]
    assert (scene.metric(UP, target="beadboard"), scene.metric(UP, target="agent")) == (1, 0)
    assert scene.board.posts == []


def test_a_bead_that_is_refused_is_no_outage(make: Make) -> None:
    scene = make(row("x-1"), script=[httpx.Response(400, json={"error": "no"})] * 9)
    scene.run(600)
    assert scene.said("outage") == []
    assert len(scene.board.posts) == 3


def test_what_a_cycle_complains_of_is_said_once_in_ten_minutes(make: Make) -> None:
    scene = make(row("x-1", acceptance_criteria=""), row("x-2"))
    scene.tracker.broken = {"x-2": {"priority": "high"}}
    scene.run(900)
    said = scene.said("cycle-failed")
    assert len([1 for _, _, fields in said if fields["command"] == "dispatch"]) == 2
    assert "x-2" in said[0][2]["error"]


# The switch


def paused(**fields: Any) -> str:
    return Pause("database work", "ann", NOW, **fields).encode()


def test_paused_nothing_is_dispatched_and_it_is_said_once(make: Make) -> None:
    scene = make(row("x-1"))
    scene.tracker.store[KEY] = paused()
    scene.stop.at(300, lambda: scene.tracker.store.clear())
    scene.run(600)
    assert [(name, fields.get("detail")) for _, name, fields in scene.said("paused", "resumed")] == [
        ("paused", "paused by ann: database work"),
        ("resumed", None),
    ]
    assert 300 <= scene.said("dispatched")[0][0] <= 360
    assert scene.tracker.reads.count("ready") < len(scene.cycles), "known to be paused, the queue is not read"


def test_a_pause_ends_by_itself(make: Make) -> None:
    scene = make(row("x-1"))
    scene.tracker.store[KEY] = paused(until=NOW + timedelta(minutes=2))
    scene.run(300)
    assert 120 <= scene.said("dispatched")[0][0] <= 180


def test_a_pause_is_seen_before_the_next_bead(make: Make) -> None:
    scene = make(row("x-1"), row("x-2"))
    scene.board.posted = lambda bead_id: scene.tracker.store.update({KEY: paused()})
    scene.run(300)
    assert scene.board.posts == ["x-1"]
    assert scene.tracker.rows["x-2"]["status"] == "open"


def test_a_pause_is_seen_within_a_minute_when_nothing_is_eligible(make: Make) -> None:
    scene = make()
    scene.stop.at(200, lambda: scene.tracker.store.update({KEY: paused()}))
    scene.run(400)
    assert 200 <= scene.said("paused")[0][0] <= 320
    assert scene.metric(PAUSED) == 1


def test_ignoring_the_pause(make: Make) -> None:
    scene = make(row("x-1"))
    scene.tracker.store[KEY] = paused()
    scene.run(60, ignore_pause=True)
    assert scene.board.posts == ["x-1"]
    assert scene.said("paused") == []


def test_a_switch_that_cannot_be_read_is_an_outage_and_touches_no_bead(make: Make) -> None:
    scene = make(row("x-1"))

    def read(verb: str) -> None:
        if verb == "kv":
            raise BdFailed("no store")

    scene.tracker.before_read = read
    scene.run(120)
    assert scene.tracker.written == []
    assert [fields["target"] for _, _, fields in scene.said("outage")] == ["bd"]


# Starvation


def test_starved_after_three_intervals_of_work_and_room_and_nothing_dispatched(make: Make) -> None:
    scene = make(*(row(f"x-{n}") for n in range(9)))
    scene.board.script = [httpx.Response(400, json={"error": "no"})] * 99
    seen = []
    scene.stop.at(44, lambda: seen.append(scene.metric(STARVED)))
    scene.run(100)
    assert seen == [0]
    assert scene.metric(STARVED) == 1
    assert [name for _, name, _ in scene.said("starved")] == ["starved"]
    assert [title for title, _ in scene.told if title == "starved"] == ["starved"]


def test_lost_races_starve_too_and_a_dispatch_ends_it(make: Make) -> None:
    scene = make(row("x-1"))
    steal = [True]

    def taken(change: Any) -> None:
        if steal and change.status == "in_progress":
            scene.tracker.rows["x-1"]["updated_at"] = scene.clock.now() - timedelta(hours=2)

    scene.tracker.before_write = taken
    scene.stop.at(120, steal.clear)
    seen = []
    scene.stop.at(119, lambda: seen.append(scene.metric(STARVED)))
    scene.run(200)
    assert seen == [1]
    assert scene.metric(STARVED) == 0
    assert scene.board.posts == ["x-1"]


@pytest.mark.parametrize("state", ["idle", "busy", "paused"])
def test_without_work_or_room_nothing_starves(make: Make, state: str) -> None:
    scene = make(*([] if state == "idle" else [row("x-1")]), busy=[True] * 99 if state == "busy" else [])
    if state == "paused":
        scene.tracker.store[KEY] = paused()
    scene.run(600, counting=True)
    assert scene.metric(STARVED) == 0


def test_idle_cycles_that_contradict_the_count_starve(make: Make) -> None:
    """A dispatcher that no longer finds what the census finds is dead and looks idle."""
    scene = make(row("x-1"))
    ready = scene.tracker.ready

    def blind(*, limit: int, priority: int | None = None, **which: Any) -> RunningCommand[BeadList]:
        return ready(limit=limit, priority=4 if limit else priority, **which)

    scene.tracker.ready = blind  # type: ignore[method-assign]
    scene.run(200, counting=True)
    assert scene.metric(BEADS, state="eligible") == 1
    assert scene.metric(STARVED) == 1


# The metrics


def test_the_whole_queue_is_counted_once_a_minute_and_only_when_asked(make: Make) -> None:
    old = NOW - timedelta(hours=2)
    rows = [
        row("x-1", updated_at=old),
        row("x-2", acceptance_criteria=""),
        row("x-3"),
        row("x-4", status="in_progress", updated_at=NOW),
        row("x-5", status="in_progress", updated_at=old),
    ]
    scene = make(*rows, busy=[True] * 99)
    scene.tracker.blocked = {"x-3"}
    scene.run(90, counting=True)
    states = ("eligible", "waiting", "in_progress", "stalled")
    assert [scene.metric(BEADS, state=state) for state in states] == [1, 2, 1, 0], "the sweep has settled one"
    assert scene.metric(OLDEST) == pytest.approx(7260, abs=60)
    assert scene.tracker.reads.count("assigned") == 2
    quiet = make(*rows)
    quiet.run(50)
    assert "assigned" not in quiet.tracker.reads


def test_a_stalled_bead_is_one_that_the_agent_service_does_not_vouch_for(make: Make) -> None:
    own = {"bdauto.attempt": "a", "bdauto.job": "j-1"}
    rows = [row("x-1", status="in_progress", updated_at=NOW - timedelta(hours=2), metadata=own, notes="job=j-1")]
    free = {"busy": True, "active": 1, "queued": 0, "capacity": 1}
    scene = make(*rows, health=[free], jobs={"j-1": "running"})
    scene.run(50, counting=True, agent=True)
    assert scene.metric(BEADS, state="in_progress") == 1
    assert scene.metric(BEADS, state="stalled") == 0


def test_without_an_agent_service_nobody_is_asked_about_a_stalled_bead(make: Make) -> None:
    own = {"bdauto.attempt": "a", "bdauto.job": "j-1"}
    scene = make(row("x-1", status="in_progress", updated_at=NOW - timedelta(hours=2), metadata=own))
    scene.run(1, counting=True)
    assert scene.metric(BEADS, state="stalled") == 1


def test_cycles_and_beads_are_counted(make: Make) -> None:
    scene = make(row("x-1"))
    scene.run(50)
    assert scene.metric("bdauto_dispatches_total", outcome="dispatched") == 1
    assert scene.metric("bdauto_reaps_total", outcome="kept") == 1
    assert scene.metric("bdauto_cycle_duration_seconds_count", command="dispatch") == len(scene.cycles)
    assert scene.metric("bdauto_last_success_timestamp_seconds", command="reap") == NOW.timestamp()


def test_the_last_success_begins_with_the_process_so_that_one_that_never_comes_is_missed(make: Make) -> None:
    scene = make()
    scene.tracker.before_read = lambda verb: (_ for _ in ()).throw(BdFailed("gone"))
    scene.run(1000)
    for command in ("dispatch", "reap"):
        assert scene.metric(LAST_SUCCESS, command=command) == NOW.timestamp()


# Life and stopping


def test_alive_for_three_intervals_after_it_last_moved_ready_once_both_answered(make: Make) -> None:
    scene = make()
    loop = scene.run(100)
    assert loop.ready()
    assert loop.alive()
    scene.clock.time += timedelta(seconds=45 - scene.stop.waits[-1] - 0.001)
    assert loop.alive()
    scene.clock.time += timedelta(seconds=0.002)
    assert not loop.alive()


def test_inside_a_cycle_it_is_alive_as_long_as_its_calls_may_take(make: Make) -> None:
    scene = make()
    seen: list[bool] = []

    def read(_verb: str) -> None:
        if not seen and scene.loop:
            scene.clock.time += timedelta(seconds=180)
            seen.append(scene.loop.alive())
            scene.clock.time += timedelta(seconds=1)
            seen.append(scene.loop.alive())

    scene.tracker.before_read = read
    scene.run(400)
    assert seen == [True, False]


def test_each_answer_about_a_job_is_a_sign_of_life(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of many slow jobs must not get the loop's container killed."""
    names = [f"x-{number}" for number in range(9)]
    beads = [row(name, status="in_progress", metadata={"bdauto.job": name}) for name in names]
    scene, seen = make(*beads, jobs=dict.fromkeys(names, "running")), list[bool]()
    services = scene.board.services(agent=True)()
    job = services.job

    def slowly(name: str) -> dict[str, Any] | None:
        scene.clock.time += timedelta(seconds=100)
        seen.append(scene.loop is not None and scene.loop.alive())
        return job(name)

    services.questions = JobQuestions(slowly, BUDGET, monotonic=lambda: 0.0, at_once=0)
    monkeypatch.setattr(scene.board, "services", lambda *, agent: lambda: services)
    scene.run(1, agent=True)
    assert seen == [True] * 9


def test_asked_to_stop_it_starts_nothing_new_and_finishes_the_bead_in_hand(make: Make) -> None:
    scene = make(row("x-1"), row("x-2"))
    scene.board.posted = lambda bead_id: setattr(scene.stop, "signal", "SIGTERM")
    scene.run(900, max_beads=5)
    assert scene.board.posts == ["x-1"]
    assert scene.tracker.own("x-1")["job"] == "job-1"
    assert scene.now == 0


def test_a_signal_breaks_off_what_only_reads(make: Make) -> None:
    scene = make(row("x-1"))
    scene.tracker.before_read = lambda verb: scene.stop._handle(15, None)
    scene.run(900)
    assert scene.tracker.written == []
    assert scene.now == 0
    assert scene.stop.signal == "SIGTERM"


def test_a_second_signal_ends_it_wherever_it_is(make: Make) -> None:
    scene = make(row("x-1"))

    def posted(_bead: str) -> None:
        scene.stop._handle(2, None)
        scene.stop._handle(2, None)

    scene.board.posted = posted
    with pytest.raises(KeyboardInterrupt):
        scene.run(900)
    assert "job" not in scene.tracker.own("x-1"), "what the reaper heals"


def test_agents_that_die_at_once_do_not_get_the_whole_queue(make: Make) -> None:
    """Every POST is answered 200, and every job fails: three beads trip the breaker, then one at a time tries."""
    beads = [f"x-{n}" for n in range(30)]
    scene = make(*map(row, beads), health=[{"busy": False, "active": 0, "queued": 0, "capacity": 9}])
    scene.board.jobs.update({f"job-{n}": "failed" for n in range(1, 99)})
    scene.run(600, agent=True, notify=True)
    assert 3 <= len(scene.board.posts) <= 8
    assert {scene.tracker.bead(bead).status for bead in beads} <= {"open", "in_progress"}
    assert {scene.tracker.bead(bead).record.attempts for bead in beads} == {0}
    assert scene.metric(SUSPENDED) == 1
    assert [title for title, _ in scene.told] == ["dispatching is suspended"]


@pytest.mark.parametrize(
    ("fields", "posts"),
    [({"assignee": "bob"}, 3), ({"status": "closed"}, 6)],
    ids=["somebody took it over", "its agent closed it"],
)
def test_a_bead_that_is_no_longer_in_progress_says_itself_whether_its_agent_lives(
    make: Make, fields: dict[str, str], posts: int
) -> None:
    """Three beads are out without a sign of life, and the first of them is no longer listed."""
    scene = make(*(row(f"x-{n}") for n in range(9)), health=[{"busy": False, "active": 0, "queued": 0, "capacity": 9}])
    scene.board.jobs.update({f"job-{n}": "running" for n in range(1, 99)})
    scene.stop.at(5, lambda: scene.tracker.rows["x-0"].update(fields))
    scene.run(100, agent=True)
    assert len(scene.board.posts) == posts


def test_when_the_agent_works_again_the_queue_goes_on_by_itself(make: Make) -> None:
    beads = [f"x-{n}" for n in range(12)]
    scene = make(*map(row, beads), health=[{"busy": False, "active": 0, "queued": 0, "capacity": 99}])
    works: list[bool] = []

    def start(bead_id: str) -> None:
        job = f"job-{len(scene.board.posts)}"
        scene.board.jobs[job] = "running" if works else "failed"
        if works:
            notes = scene.tracker.rows[bead_id].get("notes", "")
            scene.tracker.rows[bead_id]["notes"] = f"{notes}\nclaimed by agent {job}"

    scene.board.posted = start
    scene.stop.at(400, lambda: works.append(True))
    scene.run(3600, agent=True, notify=True)
    assert {scene.tracker.bead(bead).status for bead in beads} == {"in_progress"}
    assert scene.metric(SUSPENDED) == 0
    assert [title for title, _ in scene.told] == ["dispatching is suspended", "dispatching goes on"]


def test_a_few_beads_that_kill_every_agent_do_not_stop_the_queue(make: Make) -> None:
    poison = [f"p-{n}" for n in range(3)]
    beads = [f"x-{n}" for n in range(12)]
    rows = [*(row(bead, priority=0) for bead in poison), *map(row, beads)]
    scene = make(*rows, health=[{"busy": False, "active": 0, "queued": 0, "capacity": 99}])

    def start(bead_id: str) -> None:
        job = f"job-{len(scene.board.posts)}"
        scene.board.jobs[job] = "failed" if bead_id in poison else "running"
        if bead_id not in poison:
            notes = scene.tracker.rows[bead_id].get("notes", "")
            scene.tracker.rows[bead_id]["notes"] = f"{notes}\nclaimed by agent {job}"

    scene.board.posted = start
    scene.run(6 * 3600, agent=True)
    assert {scene.tracker.bead(bead).status for bead in beads} == {"in_progress"}
    posts = [scene.board.posts.count(bead) for bead in poison]
    assert max(posts) <= 12, "its backoff doubles up to an hour"


def test_each_lane_is_dispatched_reaped_and_suspended_by_itself(make: Make) -> None:
    board, stale = Board(), {"status": "in_progress", "updated_at": NOW - timedelta(hours=1)}
    scene = make(row("x-1"), row("y-1", assignee="gpu"), row("y-2", assignee="gpu", **stale))
    other = Queue(scene.clock, settings=BdSettings(assignee="gpu"))
    other.lane, other.rows, other.store = "gpu", scene.tracker.rows, scene.tracker.store
    death = Death("z-1", "w0", words="no key")
    scene.tracker.store[breaker.KEY] = Breaker((death,), NOW + timedelta(minutes=5), 1).encode()
    scene.run(120, others=[Lane(other, board.services(), DispatchSettings(), ReapSettings())])
    assert (scene.board.posts, board.posts) == ([], ["y-1"])
    assert scene.tracker.rows["y-2"]["status"] == "blocked"
