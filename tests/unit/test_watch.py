"""The loop while it watches the tracker: it wakes when something changes, and lets an idle tracker alone."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.domain.pause import KEY, Pause
from bdauto.domain.settings import RunSettings
from bdauto.loop.watcher import Watcher
from bdauto.telemetry.families import LAST_SUCCESS, PAUSED
from tests.support.fakes import NOW, row
from tests.support.scene import Make, Scene, gaps

DAY = 24 * 3600


def assign(scene: Scene, bead: str, **fields: Any) -> None:
    """Hand a bead to the agent."""
    scene.tracker.rows[bead] = row(bead, **({"updated_at": scene.clock.now()} | fields))


def reads_after(scene: Scene, moment: float) -> list[str]:
    """The reads of bd from now on, once the scene has come to that moment."""
    seen: list[int] = []
    scene.stop.at(moment, lambda: seen.append(len(scene.tracker.reads)))
    scene.run(moment + 3600, watch=True, counting=True)
    return scene.tracker.reads[seen[0] :]


def test_a_bead_is_posted_within_a_second_of_its_assignment(make: Make) -> None:
    scene = make()
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    moments = [1000.0 + 97 * number for number in range(20)]
    for number, moment in enumerate(moments):
        scene.stop.at(moment, lambda number=number: assign(scene, f"x-{number}"))  # type: ignore[misc]
    scene.board.jobs.update({f"job-{number}": "running" for number in range(30)})
    scene.run(4000, watch=True, trip_after=0, reap_every=timedelta(days=1))
    assert len(posted) == 20
    assert all(0 <= at - moment <= 1 for at, moment in zip(posted, moments, strict=True))
    assert len({round(at - moment, 2) for at, moment in zip(posted, moments, strict=True)}) > 5, "jittered"


def test_an_idle_hour_costs_a_look_every_five_minutes_and_nobody_else_is_asked(make: Make) -> None:
    scene = make(row("x-1", acceptance_criteria=""))
    reads = reads_after(scene, 1200)
    assert reads.count("ready") <= 13
    assert len(reads) <= 15, "a sweep once an hour"
    asked = len(scene.board.requests)
    assert asked <= 2, "at the start alone"
    assert max(scene.stop.waits) <= 1


def test_a_day_without_a_change_keeps_the_time_of_the_last_success_young(make: Make) -> None:
    scene = make()
    old: list[float] = []
    for moment in range(600, 7200, 60):
        scene.stop.at(
            moment,
            lambda: old.extend(
                scene.clock.time.timestamp() - (scene.metric(LAST_SUCCESS, command=command) or 0)
                for command in ("dispatch", "reap")
            ),
        )
    scene.run(7200, watch=True)
    assert max(old) < 900, "of the alert BdautoNoSuccess"


def test_what_only_time_makes_eligible_is_dispatched_when_it_is_known_to_be(make: Make) -> None:
    retry = (NOW + timedelta(seconds=700)).strftime("%Y-%m-%dT%H:%M:%SZ")
    scene = make(row("x-1", metadata={"bdauto.retry_at": retry}))
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    scene.run(1000, watch=True)
    assert posted == pytest.approx([700], abs=0.1)


def test_what_bd_alone_knows_to_become_ready_is_found_within_five_minutes(make: Make) -> None:
    scene = make(row("x-1"))
    scene.tracker.blocked = {"x-1"}
    scene.stop.at(1000, scene.tracker.blocked.clear)  # no revision tells of it
    scene.run(1400, watch=True)
    assert scene.board.posts == ["x-1"]


def test_at_capacity_the_service_is_asked_at_the_interval_and_bd_not_at_all(make: Make) -> None:
    scene = make(row("x-1"), busy=[True] * 10_000)
    scene.run(1200, watch=True, counting=True, ignore_pause=True, reap_every=timedelta(days=1))
    assert all(12 <= gap <= 15 for gap in gaps(scene.cycles))
    assert scene.tracker.reads.count("ready") == 1, "of the count at the start"


def test_a_bead_that_is_closed_lets_the_next_one_go_within_seconds_of_its_jobs_end(make: Make) -> None:
    scene = make(row("x-1", status="in_progress"), row("x-2"), busy=[True] * 10_000)
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    scene.stop.at(600, lambda: scene.tracker.rows["x-1"].update(status="closed"))
    scene.stop.at(603, scene.board.busy.clear)
    scene.run(700, watch=True)
    assert posted == pytest.approx([605], abs=2.5)


def test_the_last_of_several_changes_counts(make: Make) -> None:
    """An agent notes this and that before it closes its bead, and its job ends soon after."""
    scene = make(row("x-1", status="in_progress"), row("x-2"), busy=[True] * 10_000)
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    for second in range(5):
        note = f"step {second}"
        scene.stop.at(600 + 2 * second, lambda note=note: scene.tracker.rows["x-1"].update(notes=note))  # type: ignore[misc]
    scene.stop.at(610, lambda: scene.tracker.rows["x-1"].update(status="closed"))
    scene.stop.at(611.5, scene.board.busy.clear)
    scene.run(700, watch=True, dispatch_every=timedelta(minutes=2), reap_every=timedelta(days=1))
    assert posted == pytest.approx([612.5], abs=2.1)


def test_a_tracker_that_changes_all_the_time_costs_no_more_than_polling(make: Make) -> None:
    scene = make(row("y-1", assignee="ann"))

    def change(second: int) -> None:
        scene.tracker.rows["y-1"]["notes"] = str(second)

    for second in range(1, 3600):
        scene.stop.at(second, lambda second=second: change(second))  # type: ignore[misc]
    scene.run(3600, watch=True)
    assert scene.tracker.reads.count("ready") <= 3600 / 15 + 10


def test_its_own_changes_do_not_keep_it_awake(make: Make) -> None:
    scene = make()
    scene.stop.at(1000, lambda: assign(scene, "x-1"))
    seen: list[int] = []
    scene.stop.at(999, lambda: seen.append(len(scene.tracker.reads)))
    scene.run(1200, watch=True)
    assert scene.board.posts == ["x-1"]
    assert scene.tracker.reads[seen[0] :].count("ready") <= 3, "one that finds it, one after, one that its record wakes"


def test_a_bead_in_progress_is_swept_at_the_old_interval(make: Make) -> None:
    scene = make(row("x-1", status="in_progress", updated_at=NOW - timedelta(minutes=10)))
    scene.run(3600, watch=True)
    assert scene.tracker.bead("x-1").status == "blocked"
    assert len(scene.sweeps) >= 3


def test_one_that_comes_into_progress_is_swept_too(make: Make) -> None:
    scene = make()
    stalled = row("x-1", status="in_progress", updated_at=NOW - timedelta(hours=1))
    scene.stop.at(5000, lambda: scene.tracker.rows.update({"x-1": stalled}))
    scene.run(5700, watch=True)
    assert scene.tracker.bead("x-1").status == "blocked"
    assert [gap for gap in gaps(scene.sweeps) if gap > 3000], "and until then there was nothing to sweep"


def test_a_job_that_is_checked_long_after_its_bead_was_closed_is_seen(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No revision tells of its end."""
    scene = make(row("x-1", status="closed", closed_at=NOW, updated_at=NOW, metadata={"bdauto.attempt": "a1"}))
    unchecked: dict[str, str] = {}
    running = [True]
    monkeypatch.setattr(BeadBoardRunner, "checking", property(lambda _: bool(running)))
    monkeypatch.setattr(BeadBoardRunner, "unchecked", lambda _: unchecked)

    def fails() -> None:
        running.clear()
        unchecked["x-1"] = "a1"

    scene.stop.at(1500, fails)
    scene.run(2200, agent=True, watch=True)
    assert "closed it before its check had passed — opened again" in scene.tracker.notes("x-1")[0]


def test_a_pause_is_noticed_and_its_end_too(make: Make) -> None:
    scene = make(row("x-1"))
    until = NOW + timedelta(seconds=1000)
    scene.tracker.store[KEY] = Pause("database work", "ann", NOW, until=until).encode()
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    scene.run(1100, watch=True)
    assert posted == pytest.approx([1000], abs=1)
    assert scene.metric(PAUSED) == 0


def test_a_resume_is_noticed_within_a_second(make: Make) -> None:
    scene = make(row("x-1"))
    scene.tracker.store[KEY] = Pause("database work", "ann", NOW).encode()
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    scene.stop.at(1000, scene.tracker.store.clear)
    scene.run(1100, watch=True)
    assert posted == pytest.approx([1000], abs=1.1)


def test_a_service_that_is_down_is_found_when_a_bead_comes_and_waited_for(make: Make) -> None:
    scene = make()
    scene.board.status = None
    scene.stop.at(1000, lambda: setattr(scene.board, "status", httpx.ConnectError("refused")))
    scene.stop.at(2000, lambda: assign(scene, "x-1"))
    scene.stop.at(2500, lambda: setattr(scene.board, "status", None))
    scene.run(2600, watch=True)
    assert [name for _, name, _ in scene.said("outage", "recovered")] == ["outage", "recovered"]
    assert 2000 <= scene.said("outage")[0][0] <= 2001
    assert scene.board.posts == ["x-1"]


# Watching fails


def test_where_changes_cannot_be_followed_it_polls_and_says_so_once(make: Make) -> None:
    scene = make()
    scene.revision.broken = "access denied"
    scene.stop.at(1000, lambda: assign(scene, "x-1"))
    scene.run(3600, watch=True, reap_every=timedelta(days=1))
    [(_, _, said)] = scene.said("watch-failed")
    assert "access denied" in str(said["error"])
    assert max(gaps(scene.cycles)) <= 60
    assert scene.board.posts == ["x-1"]
    assert len(scene.revision.opened) <= 16, "tried again ever more rarely"


def test_a_server_that_is_gone_for_a_while_is_watched_again_when_it_is_back(make: Make) -> None:
    scene = make()
    scene.stop.at(1000, lambda: setattr(scene.revision, "broken", "connection refused"))
    scene.stop.at(1200, lambda: setattr(scene.revision, "broken", ""))
    scene.stop.at(2500, lambda: assign(scene, "x-1"))
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    scene.run(2600, watch=True)
    assert [name for _, name, _ in scene.said("watching", "watch-failed")] == ["watching", "watch-failed", "watching"]
    assert posted == pytest.approx([2500], abs=1.1)


def test_a_connection_that_was_cut_is_made_anew_without_a_word(make: Make) -> None:
    scene = make()

    def cut() -> None:
        scene.revision.broken = "lost connection"

    opened = scene.revision.open

    def mended() -> Any:
        scene.revision.broken = ""
        return opened()

    scene.revision.open = mended  # type: ignore[method-assign]
    scene.stop.at(1000, cut)
    scene.run(1100, watch=True)
    assert scene.said("watch-failed") == []
    assert len(scene.revision.opened) == 2


def test_a_change_while_the_connection_was_cut_is_not_missed(make: Make) -> None:
    scene = make()
    scene.stop.at(1000, lambda: setattr(scene.revision, "broken", "lost connection"))
    scene.stop.at(1000.5, lambda: assign(scene, "x-1"))
    posted: list[float] = []
    scene.board.posted = lambda bead: posted.append(scene.now)
    scene.run(1100, watch=True)
    assert posted == pytest.approx([1000.5], abs=61)


def test_a_connection_that_a_sweep_finds_cut_wakes_the_loop_too(make: Make) -> None:
    scene = make()
    runtime = scene.clock.runtime()
    watcher = Watcher(RunSettings(), scene.revision.open, scene.stop.wait, runtime.monotonic, runtime.rng)
    watcher.seen()
    scene.revision.broken = "lost connection"
    assert watcher.now() is None, "as before a sweep"
    assert any(watcher.wait(1) for _ in range(3))
    assert scene.now < 3


def test_watching_is_off_when_it_is_switched_off(make: Make) -> None:
    scene = make()
    scene.run(600)
    assert scene.revision.asked == 0


# What is told


def test_the_time_from_ready_to_dispatch_is_measured(make: Make) -> None:
    scene = make()
    scene.stop.at(1000, lambda: assign(scene, "x-1"))
    scene.stop.at(1100, lambda: assign(scene, "x-2", updated_at=NOW - timedelta(days=2)))  # its blocker was closed
    scene.run(1200, watch=True, reap_every=timedelta(days=1))
    assert scene.metric("bdauto_ready_to_dispatch_seconds_count") == 2
    assert scene.metric("bdauto_ready_to_dispatch_seconds_bucket", le="1.0") == 1
    assert (scene.metric("bdauto_ready_to_dispatch_seconds_sum") or 0) < 110, "the last look at an idle queue counts"


def test_what_is_known_of_the_services_says_how_old_it_is(make: Make) -> None:
    scene = make()
    loop = scene.run(3000, watch=True)
    asked = scene.metric("bdauto_up_timestamp_seconds", target="beadboard")
    assert asked == NOW.timestamp(), "at the start"
    assert loop.ready()
    bd, beadboard = loop.known().splitlines()
    assert bd.startswith("bd up, asked ")
    assert beadboard == "beadboard up, asked 50m ago"
