"""POSTs of which nobody knows what became of them: in a row they open the circuit breaker and charge no bead."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.bd.change import Change
from bdauto.common.errors import BdFailed
from bdauto.controllers.reaper import Reaper
from bdauto.domain.breaker import FIRST_WAIT, Breaker, read
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.settings import DispatchSettings, ReapSettings
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, dispatcher, row
from tests.support.scene import Make, make

__all__ = ["make"]

ROOM = {"busy": False, "active": 0, "queued": 0, "capacity": 9}
GATEWAY = httpx.Response(504, text="<html>Gateway Time-out")
UNCLEAR: dict[str, Reply] = {
    "504": GATEWAY,
    "a log-in page": httpx.Response(200, text="<html>Log in"),
    "202": httpx.Response(202, json={"job_id": "j"}),
    "time-out": httpx.ReadTimeout("slow"),
    "broken connection": httpx.RemoteProtocolError("Server disconnected"),
    "megabytes": httpx.Response(200, content=b" " * (1 << 21)),
}


class Desk:
    """A queue x-1, x-2, … with a BeadBoard, and one-shot ticks two minutes apart."""

    def __init__(self, count: int, *script: Reply) -> None:
        self.clock = Clock()
        rows = [row(f"x-{n}", updated_at=NOW - timedelta(hours=count + 1 - n)) for n in range(1, count + 1)]
        self.tracker = Tracker(self.clock, *rows)
        self.board = Board(list(script), health=[ROOM])

    def tick(self, **settings: Any) -> Report:
        chosen = DispatchSettings(**settings)
        runtime = self.clock.runtime(len(self.board.posts) + 1)
        report = dispatcher(self.tracker, self.tracker, self.board.services(agent=True), chosen, runtime).cycle()
        self.clock.time += timedelta(minutes=2)
        return report

    def sweep(self, **settings: Any) -> Report:
        services = self.board.services(agent=True)
        return Reaper(self.tracker, self.tracker, services, ReapSettings(**settings), self.clock.runtime()).sweep()

    @property
    def breaker(self) -> Breaker:
        return read(self.tracker.store)

    def note(self, bead_id: str, text: str) -> None:
        here = self.tracker.rows[bead_id]
        here.update(notes=f"{here['notes']}\n{text}", updated_at=self.clock.now())


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=list(UNCLEAR))
def test_three_in_a_row_suspend_dispatching_and_charge_no_bead(answer: Reply) -> None:
    here = Desk(5, *[answer] * 5)
    assert [here.tick().exit_code for _ in range(3)] == [4, 4, 4]
    report = here.tick()
    assert (report.outcome, here.board.posts) == (Outcome.suspended, ["x-1", "x-2", "x-3"])
    assert "nobody knows what became of the POSTs of 3 beads" in report.detail
    for bead_id in here.board.posts:
        assert (here.tracker.bead(bead_id).status, here.tracker.bead(bead_id).record.attempts) == ("in_progress", 0)


def test_the_tick_that_opens_the_breaker_says_so() -> None:
    here = Desk(3, GATEWAY, GATEWAY, GATEWAY)
    errors = [str(here.tick().error) for _ in range(3)]
    assert "suspended" not in errors[0] + errors[1]
    assert errors[2].startswith("x-3: dispatch outcome unknown: HTTP 504")
    assert "suspended until" in errors[2]


def test_a_tick_that_cannot_give_a_charge_back_names_the_bead() -> None:
    here = Desk(3, GATEWAY, GATEWAY, GATEWAY)

    def fail(change: Change) -> None:
        if change.act.startswith("give back") and change.bead.id == "x-1":
            raise BdFailed("disk full")

    here.tracker.before_write = fail
    here.tick()
    here.tick()
    beads = [(bead.id, bead.outcome, bead.detail) for bead in here.tick().beads]
    assert beads[-1] == ("x-1", "failed", "give back the charge of: disk full")
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in (1, 2, 3)] == [1, 0, 0]


def test_a_day_of_it_blocks_no_bead() -> None:
    """It cost 15 POSTs and five blocked beads before. The waits between trials double up to an hour."""
    here = Desk(5)
    here.board._dispatch = lambda bead_id: here.board.posts.append(bead_id) or GATEWAY  # type: ignore[func-returns-value, method-assign]
    for minute in range(0, 24 * 60, 2):
        here.tick()
        if minute % 10 == 0:
            here.sweep()
    beads = [here.tracker.bead(bead_id) for bead_id in here.tracker.rows]
    assert {bead.status for bead in beads} <= {"open", "in_progress"}
    assert max(bead.record.attempts for bead in beads) <= 1
    assert len(here.board.posts) < 35


BETWEEN: dict[str, Callable[[Desk], None]] = {
    "an agent notes": lambda here: here.note("x-2", "claimed by agent j-2"),
    "an agent closes": lambda here: here.tracker.rows["x-2"].update(status="closed", updated_at=here.clock.now()),
    "a POST is answered": lambda here: None,
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=list(BETWEEN))
def test_those_with_a_sign_between_them_are_not_in_a_row(between: Callable[[Desk], None]) -> None:
    """x-2 was dispatched between the first and the third."""
    job = httpx.Response(200, json={"job_id": "j-2"})
    here = Desk(5, GATEWAY, job, GATEWAY, GATEWAY)
    here.tick()
    here.tick()
    between(here)
    here.tick()
    here.tick()
    assert (here.breaker.until, here.board.posts) == (None, ["x-1", "x-2", "x-3", "x-4"])
    assert here.tracker.bead("x-4").record.attempts == 1


def test_one_bead_alone_is_charged_each_time() -> None:
    here = Desk(1, GATEWAY, GATEWAY, GATEWAY)
    for _ in range(3):
        here.tick()
        here.clock.time += timedelta(hours=2)
        here.sweep()
        here.clock.time += timedelta(hours=1)
    assert here.tracker.bead("x-1").status == "blocked"


def test_an_earlier_one_gets_its_charge_back_when_the_breaker_opens() -> None:
    """The reaper has opened it again by then."""
    here = Desk(3, GATEWAY, GATEWAY, GATEWAY)
    here.tick()
    here.clock.time += timedelta(minutes=31)
    here.sweep()
    assert here.tracker.bead("x-1").record.attempts == 1
    here.tick()
    here.tick()
    assert (here.breaker.until is not None, here.tracker.bead("x-1").record.attempts) == (True, 0)


def test_a_dispatcher_that_is_killed_before_it_gave_charges_back() -> None:
    here = Desk(3, GATEWAY, GATEWAY, GATEWAY)
    here.tick()
    here.tick()

    def killed(change: Any) -> None:
        if change.act == "give back the charge of":
            raise KeyboardInterrupt

    here.tracker.before_write = killed
    with pytest.raises(KeyboardInterrupt):
        here.tick()
    assert [here.tracker.bead(bead_id).record.attempts for bead_id in here.tracker.rows] == [1, 1, 1]
    here.tracker.before_write = lambda change: None
    here.sweep()
    here.sweep()
    assert [here.tracker.bead(bead_id).record.attempts for bead_id in here.tracker.rows] == [0, 0, 0]


def test_a_trial_with_an_unknown_outcome_waits_twice_as_long() -> None:
    here = Desk(5, *[GATEWAY] * 4)
    for _ in range(3):
        here.tick()
    here.clock.time = here.breaker.until or here.clock.time
    before = here.clock.now()
    assert here.tick().exit_code == 4
    assert here.breaker.until == before + 2 * FIRST_WAIT
    assert here.tracker.bead("x-4").record.attempts == 0


def test_a_job_that_started_after_all_is_followed_to_its_end() -> None:
    """It closes the breaker, is asked about as any other job, and is never started twice."""
    here = Desk(4, GATEWAY, GATEWAY, GATEWAY)
    for _ in range(3):
        here.tick()
    here.board.jobs = {"j-3": "running"}
    here.note("x-3", "claimed by agent j-3")
    here.clock.time += timedelta(minutes=90)
    assert [b.outcome for b in here.sweep().beads if b.id == "x-3"] == ["kept"]
    assert (here.breaker, here.tracker.bead("x-3").record.job) == (Breaker(write=here.breaker.write), "j-3")
    assert here.tick(max_beads=9).outcome is Outcome.dispatched
    here.board.jobs = {"j-3": "completed"}
    assert [b.detail for b in here.sweep().beads if b.id == "x-3"] == [
        "job j-3 is completed but the bead is still in progress"
    ]
    assert here.board.posts.count("x-3") == 1


def test_switched_off_it_counts_nothing() -> None:
    here = Desk(5, *[GATEWAY] * 5)
    for _ in range(5):
        here.tick(trip_after=0)
    assert (len(here.board.posts), here.tracker.store) == (5, {})


def test_a_loop_stops_as_well(make: Make) -> None:
    scene = make(*(row(f"x-{n}") for n in range(9)), script=[GATEWAY] * 99)
    scene.run(3600, agent=True)
    assert len(scene.board.posts) <= 6
    assert [name for _, name, _ in scene.said("breaker-open")][:1] == ["breaker-open"]
