"""The breaker in the tracker, and what a dispatcher does while it is open or half open."""

from datetime import timedelta

import httpx
import pytest

from bdauto.controllers.breaker_store import BreakerStore
from bdauto.domain.breaker import FIRST_WAIT, KEY, Breaker, Death, read
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, Board, Clock, Tracker, dispatcher, row


def opened() -> Breaker:
    breaker = Breaker()
    for bead in ("a", "b", "c"):
        breaker = breaker.after_death(Death(bead, f"w-{bead}", "j", "invalid API key"), 3, NOW)
    return breaker


def desk(*beads: str) -> tuple[Tracker, Board, Clock]:
    clock = Clock()
    tracker = Tracker(clock, *(row(bead) for bead in beads))
    tracker.store = {KEY: opened().encode()}
    return tracker, Board(), clock


def cycle(tracker: Tracker, board: Board, clock: Clock, **settings: object) -> Report:
    chosen = DispatchSettings(**{"max_beads": 5, **settings})  # type: ignore[arg-type]
    return dispatcher(tracker, tracker, board.services(), chosen, clock.runtime()).cycle()


def test_an_open_breaker_suspends_dispatching_and_says_why() -> None:
    tracker, board, clock = desk("x-1")
    report = cycle(tracker, board, clock)
    assert (report.outcome, report.exit_code, board.posts) == (Outcome.suspended, 0, [])
    assert "suspended until 2026-04-18T22:40:46Z" in report.detail
    assert "invalid API key" in report.detail


def test_a_half_open_breaker_lets_exactly_one_bead_through() -> None:
    tracker, board, clock = desk("x-1", "x-2", "x-3")
    clock.time += FIRST_WAIT
    assert [bead.outcome for bead in cycle(tracker, board, clock).beads] == ["dispatched"]
    assert cycle(tracker, board, clock).outcome is Outcome.suspended
    assert (board.posts, read(tracker.store).trial_bead) == (["x-1"], "x-1")
    assert tracker.bead("x-1").record.attempt == read(tracker.store).trial


def test_of_several_dispatchers_one_takes_the_trial() -> None:
    tracker, _, clock = desk()
    clock.time += FIRST_WAIT
    stores = [BreakerStore(tracker, tracker, clock.runtime(seed)) for seed in range(8)]
    assert [store.take_trial(f"w{n}", "x-1") for n, store in enumerate(stores)] == [True] + [False] * 7


def test_a_dispatcher_that_loses_the_trial_between_its_look_and_its_claim_posts_nothing() -> None:
    tracker, board, clock = desk("x-1")
    clock.time += FIRST_WAIT
    swap = tracker.swap

    def somebody_was_faster(key: str, old: str | None, new: str | None) -> bool:
        tracker.swap = swap  # type: ignore[method-assign]
        assert BreakerStore(tracker, tracker, clock.runtime(7)).take_trial("w-other", "y-1")
        return swap(key, old, new)

    tracker.swap = somebody_was_faster  # type: ignore[method-assign]
    report = cycle(tracker, board, clock)
    assert (report.outcome, report.beads) == (Outcome.suspended, ())
    assert report.detail == "x-1 is passed over: another bead tries whether the agent works again"
    assert (board.posts, tracker.bead("x-1").status) == ([], "open")


def test_a_trial_that_was_not_started_gives_its_place_back() -> None:
    tracker, board, clock = desk("x-1")
    clock.time += FIRST_WAIT
    board.script = [httpx.Response(502)]
    cycle(tracker, board, clock)
    assert read(tracker.store).state(clock.now()) == "half-open"


@pytest.mark.parametrize("settings", [{"trip_after": 0}])
def test_switched_off_it_holds_nothing(settings: dict[str, object]) -> None:
    tracker, board, clock = desk("x-1")
    assert cycle(tracker, board, clock, **settings).outcome is Outcome.dispatched


def test_a_dry_run_takes_no_trial() -> None:
    tracker, board, clock = desk("x-1")
    clock.time += FIRST_WAIT + timedelta(seconds=1)
    before = dict(tracker.store)
    assert cycle(tracker, board, clock, dry_run=True).outcome is Outcome.dispatched
    assert tracker.store == before


def test_each_lane_has_a_breaker_of_its_own() -> None:
    tracker, board, clock = desk("x-1", "x-2")
    tracker.lane = "gpu"
    assert cycle(tracker, board, clock, max_beads=1).outcome is Outcome.dispatched
    tracker.store[f"{KEY}.gpu"] = tracker.store.pop(KEY)
    assert cycle(tracker, board, clock).outcome is Outcome.suspended
