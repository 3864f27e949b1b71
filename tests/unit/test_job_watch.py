"""In `bdauto run`: the end of a job is acted on at once, and so is what others do to its bead."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from bdauto.common.errors import BdFailed
from bdauto.domain.pause import KEY, Pause
from bdauto.domain.reconcile import RunningJob
from tests.support.fakes import NOW, row
from tests.support.scene import Scene, make

__all__ = ["make"]

Make = Callable[..., Scene]


class Machine:
    """Lets what BeadBoard starts run on this machine. `over` are the jobs that have ended, `stopped` those asked to."""

    def __init__(self, here: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here = here
        self.over: set[str] = set()
        self.stopped: list[tuple[str, str]] = []
        self.silence: timedelta | None = None
        services = here.board.services(agent=True)()
        monkeypatch.setattr(services, "running_jobs", self._running)
        monkeypatch.setattr(services, "job_state", lambda job: "completed" if job in self.over else "running")
        monkeypatch.setattr(services, "stop", self._stop)
        here.board.services = lambda *, agent=False: lambda: services  # type: ignore[method-assign]

    def _running(self) -> list[RunningJob]:
        jobs = {f"job-{n}": bead for n, bead in enumerate(self.here.board.posts, 1)}
        return [RunningJob(bead, job, NOW, NOW, self.silence) for job, bead in jobs.items() if job not in self.over]

    def _stop(self, job: str, why: str) -> bool:
        self.stopped.append((job, why))
        return True


def event(here: Scene, field: str, value: str, actor: str) -> None:
    """Let somebody change the bead x-1, and bd record it."""
    here.tracker.rows["x-1"][field] = value
    here.tracker.rows["x-1"]["updated_at"] = here.clock.now()
    recorded = {"issue_id": "x-1", "actor": actor, "event_type": "status_changed", "created_at": "2026-04-18T22:36:00Z"}
    here.tracker.recorded.append({**recorded, "new_value": {field: value}})


def test_the_end_of_a_job_is_swept_within_a_second_and_its_slot_is_used(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make(row("x-1"), health=[{"busy": False, "active": 1, "queued": 0, "capacity": 1}])
    here.board.health = [{"busy": False, "active": 0, "queued": 0, "capacity": 1}]
    machine = Machine(here, monkeypatch)

    def end() -> None:
        machine.over.add("job-1")
        here.board.jobs["job-1"] = "completed"

    here.board.jobs["job-1"] = "running"
    here.stop.at(200, end)
    here.run(260, watch=True, agent=True, reap_every=timedelta(hours=1))
    assert [at for at in here.sweeps if 199 < at < 201]
    assert [at for at in here.cycles if 200 <= at < 201]


def test_the_end_of_a_job_during_a_cycle_that_starts_another_is_not_lost(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make(row("x-1"), row("x-2", created_at=NOW), health=[{"busy": False, "active": 0, "capacity": 2}])
    machine, services = Machine(here, monkeypatch), here.board.services(agent=True)()
    start = services.start

    def ends_meanwhile(bead: Any, attempt: str) -> Any:
        if here.board.posts:
            machine.over.add("job-1")
            here.board.jobs["job-1"] = "completed"
        return start(bead, attempt)

    monkeypatch.setattr(services, "start", ends_meanwhile)
    here.board.jobs |= {"job-1": "running", "job-2": "running"}
    here.run(100, watch=True, agent=True, reap_every=timedelta(hours=1))
    assert [told["job"] for _, _, told in here.said("result")] == ["job-1"]


@pytest.mark.parametrize(("actor", "stopped"), [("ada", [("job-1", "ada set the bead to deferred")]), ("agent", [])])
def test_a_change_by_somebody_else_stops_the_job_at_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, actor: str, stopped: list[tuple[str, str]]
) -> None:
    here = make(row("x-1"))
    machine, seen = Machine(here, monkeypatch), list[Any]()
    here.board.jobs["job-1"] = "running"
    here.stop.at(100, lambda: event(here, "status", "deferred", actor))
    here.stop.at(103, lambda: seen.extend(machine.stopped))
    here.run(120, watch=True, agent=True)
    assert seen[:1] == stopped


def test_a_pause_that_stops_is_seen_while_nothing_is_eligible(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(row("x-1"))
    machine, seen = Machine(here, monkeypatch), list[Any]()
    here.board.jobs["job-1"] = "running"
    here.stop.at(100, lambda: here.tracker.store.update({KEY: Pause("deploy", "ada", stop=True).encode()}))
    here.stop.at(103, lambda: seen.extend(machine.stopped))
    here.run(120, watch=True, agent=True)
    assert seen[:1] == [("job-1", "ada paused dispatching and stopped what runs")]


def test_a_job_of_the_service_is_swept_once_its_bead_is_closed(make: Make) -> None:
    """The agent closes its bead some seconds before its job ends, so it is asked about again soon."""
    here = make(row("x-1"))
    here.board.jobs["job-1"] = "running"
    here.stop.at(200, lambda: here.tracker.rows["x-1"].update(status="closed", updated_at=here.clock.now()))
    here.stop.at(203, lambda: here.board.jobs.update({"job-1": "completed"}))
    here.run(260, watch=True, agent=True, reap_every=timedelta(hours=1))
    assert [at for at in here.sweeps if 200 <= at < 202]
    [(at, _, told)] = here.said("result")
    assert (203 <= at < 208, told["result"]) == (True, "closed")


@pytest.mark.parametrize(("what", "at"), [("closed", 220), ("silent", 77)])
def test_a_job_is_ended_when_its_time_is_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, what: str, at: float
) -> None:
    """An agent that closed its bead has two minutes, and a silent one as long as it is given."""
    here, stopped = make(row("x-1")), list[float]()
    machine = Machine(here, monkeypatch)
    machine.silence = timedelta(seconds=77) if what == "silent" else None
    monkeypatch.setattr(
        here.board.services(agent=True)(), "stop", lambda *_: stopped.append((here.clock.time - NOW).total_seconds())
    )
    here.board.jobs["job-1"] = "running"
    if what == "closed":
        here.stop.at(100, lambda: event(here, "status", "closed", "agent"))
    here.run(300, watch=True, agent=True, reap_every=timedelta(hours=1))
    assert stopped
    assert at - 1 <= stopped[0] <= at + 3


def test_a_look_that_bd_has_failed_is_repeated(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(row("x-1"))
    machine, failed = Machine(here, monkeypatch), list[str]()
    here.board.jobs["job-1"] = "running"
    events = here.tracker.events

    def fails_once(ids: Sequence[str]) -> list[Mapping[str, Any]]:
        failed.append("once")
        if len(failed) == 1:
            raise BdFailed("no")
        return events(ids)

    monkeypatch.setattr(here.tracker, "events", fails_once)
    here.stop.at(100, lambda: event(here, "status", "deferred", "ada"))
    here.run(110, watch=True, agent=True, reap_every=timedelta(hours=1))
    assert machine.stopped[:1] == [("job-1", "ada set the bead to deferred")]


def test_a_bead_that_its_agent_closes_during_the_sweep_is_recorded_soon(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first success of a newcomer: the sweep has read the bead just before its agent closed it."""
    here = make(row("x-1"))
    machine = Machine(here, monkeypatch)
    here.board.jobs["job-1"] = "running"

    def close(_change: Any) -> None:
        here.tracker.before_write = lambda _change: None
        here.tracker.rows["x-1"] |= {"status": "closed", "closed_at": here.clock.now(), "updated_at": here.clock.now()}

    def end() -> None:
        machine.over.add("job-1")
        here.board.jobs["job-1"] = "completed"
        here.tracker.before_write = close

    here.stop.at(200, end)
    here.run(400, watch=True, agent=True, reap_every=timedelta(hours=1))
    results = [at for at, name, _ in here.log.events if name == "result"]
    assert [name for _, name, _ in here.log.events if name in ("lost", "result")] == ["lost", "result"]
    assert results[0] < 205
