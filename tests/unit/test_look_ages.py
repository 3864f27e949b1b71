"""A look has an age: what has changed before a POST counts, however slow the services and bd were in between."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bdauto.bd.change import Change
from bdauto.bd.prefetch import MAX_AGE, Prefetch
from bdauto.controllers.day_limits import DayLimits
from bdauto.domain.breaker import KEY as BREAKER
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.outcome import Outcome
from bdauto.domain.pause import KEY, Pause
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, Board, Clock, Tracker, bead, change, row
from tests.unit.test_dispatcher import Desk, desk, queue, said

SLOW = timedelta(seconds=18)
SWITCH = Pause("deploy", "ann").encode()


def pauses(here: Desk) -> None:
    here.tracker.store[KEY] = SWITCH


def at_status(here: Desk, what: Callable[[], None], took: timedelta = SLOW) -> None:
    """Do something while BeadBoard is asked whether it is busy."""
    ask = here.board.__call__

    def slow(request: Any) -> Any:
        if request.url.path == "/api/agent-status":
            here.clock.time += took
            what()
        return ask(request)

    here.board.services = lambda *, agent=False: _services(here, slow)  # type: ignore[method-assign]


def _services(here: Desk, handler: Callable[[Any], Any]) -> Callable[[], Any]:
    import httpx

    from bdauto.agents.beadboard.runner import BeadBoardRunner
    from bdauto.agents.beadboard.settings import BeadBoardSettings

    services = BeadBoardRunner(BeadBoardSettings(beadboard_url="http://board.test:3000"), httpx.MockTransport(handler))
    return lambda: services


@pytest.mark.parametrize("took", [timedelta(), SLOW], ids=["at once", "after 18 s"])
def test_a_pause_while_the_services_are_asked_is_heeded(took: timedelta) -> None:
    here = desk(*queue(2), max_beads=2)
    at_status(here, lambda: pauses(here), took)
    report = here.cycle()
    assert (report.outcome, report.exit_code, said(report)) == (Outcome.paused, 0, {})
    assert report.detail == "paused by ann: deploy"
    assert (here.board.posts, here.tracker.written) == ([], [])


def test_a_pause_during_the_claim_itself_is_heeded() -> None:
    """Unlike every look before it, the claim looks at the switch in the transaction that writes."""
    here = desk(row("x-1"))
    here.tracker.before_write = lambda _: pauses(here)
    report = here.cycle()
    assert (report.outcome, said(report), here.board.posts) == (Outcome.paused, {}, [])
    assert here.tracker.bead("x-1").status == "open"


def test_a_pause_during_a_slow_claim_gives_the_bead_back() -> None:
    here = desk(row("x-1"))
    apply = here.tracker.apply

    def slow(changes: Any) -> list[bool]:
        done = apply(changes)
        here.clock.time += MAX_AGE / 2 + timedelta(milliseconds=1)  # the start may take the other half
        pauses(here)
        return done

    here.tracker.apply = slow  # type: ignore[method-assign]
    report = here.cycle()
    assert (report.outcome, said(report), here.board.posts) == (Outcome.paused, {"x-1": "released"}, [])
    assert (here.tracker.bead("x-1").status, here.tracker.bead("x-1").record.attempts) == ("open", 0)


def test_a_bead_is_given_back_when_the_second_look_takes_too_long() -> None:
    """A reaper may have released it while the dispatcher waited for the answer about the switch."""
    here = desk(row("x-1"), row("x-2"), grace=timedelta(minutes=10), max_beads=1)
    apply = here.tracker.apply

    def slow_claim(changes: Any) -> list[bool]:
        here.tracker.apply, here.tracker.before_read = apply, slow_look  # type: ignore[method-assign]
        here.clock.time += MAX_AGE + timedelta(seconds=1)
        return apply(changes)

    def slow_look(verb: str) -> None:
        assert verb == "kv"
        here.tracker.before_read = lambda _: None
        here.clock.time += timedelta(minutes=12)

    here.tracker.apply = slow_claim  # type: ignore[method-assign]
    report = here.cycle()
    assert (said(report), here.board.posts) == ({"x-1": "released", "x-2": "dispatched"}, ["x-2"])
    assert "its claim took 12m" in report.beads[0].detail
    assert here.tracker.bead("x-1").record.attempts == 0


def test_a_pause_during_the_record_before_it_holds_the_next_bead() -> None:
    here = desk(*queue(3), max_beads=3)

    def slow(change: Change) -> None:
        if change.act == "record":
            here.clock.time += timedelta(seconds=60)
            pauses(here)

    here.tracker.before_write = slow
    report = here.cycle()
    assert (here.board.posts, said(report)) == (["x-1"], {"x-1": "dispatched"})
    assert report.detail == "paused by ann: deploy"


def test_an_ignored_pause_does_not_fail_a_claim() -> None:
    here = desk(row("x-1"), ignore_pause=True)
    here.tracker.before_write = lambda _: pauses(here)
    assert said(here.cycle()) == {"x-1": "dispatched"}


def test_a_breaker_that_opens_meanwhile_holds_the_bead() -> None:
    here = desk(row("x-1"))
    opened = Breaker((Death("x-9", "a", claimed_at="2026-04-18T22:00:00Z"),), NOW + timedelta(minutes=5), 1)
    here.tracker.before_write = lambda _: here.tracker.store.update({BREAKER: opened.encode()})
    report = here.cycle()
    assert (report.outcome, said(report), here.board.posts) == (Outcome.suspended, {}, [])


def test_a_death_that_is_counted_meanwhile_does_not_lose_the_bead() -> None:
    here = desk(row("x-1"))
    counted = Breaker((Death("x-9", "a", claimed_at="2026-04-18T22:00:00Z"),))
    here.tracker.before_write = lambda _: here.tracker.store.update({BREAKER: counted.encode()})
    assert said(here.cycle()) == {"x-1": "dispatched"}


def test_a_bead_that_somebody_else_has_is_lost_and_not_held() -> None:
    here = desk(row("x-1"))
    here.tracker.before_write = lambda _: here.tracker.rows["x-1"].update(status="in_progress")
    report = here.cycle()
    assert (report.outcome, said(report)) == (Outcome.idle, {"x-1": "lost"})


def test_a_blocker_while_the_services_are_asked_counts() -> None:
    here = desk(*queue(2))
    at_status(here, lambda: here.tracker.blocked.add("x-1"))
    assert said(here.cycle()) == {"x-2": "dispatched"}


def test_a_limit_that_is_reached_while_the_services_are_asked_holds() -> None:
    here = desk(row("x-1"), max_per_day=1)
    ran = {"bdauto.assignee": "agent", "bdauto.result": "running", "bdauto.job": "j", "bdauto.attempts": 1}
    other = row(
        "y-1", status="in_progress", updated_at=NOW, metadata=ran | {"bdauto.claimed_at": "2026-04-18T22:35:40Z"}
    )
    at_status(here, lambda: here.tracker.rows.update({"y-1": other}))
    report = here.cycle()
    assert (report.outcome, here.board.posts) == (Outcome.limited, [])


def test_a_recent_look_is_not_repeated() -> None:
    here = desk(row("x-1"))
    here.cycle()
    assert here.tracker.reads == ["ready", "kv"]


class Ages:
    """A read that answers with the moment at which it was started."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tracker = Tracker(self.clock)
        self.prefetch = Prefetch(self.tracker.kv_list, self.clock.now)

    def after(self, seconds: float) -> list[bool]:
        """Start, wait, and ask. Return which of the calls were ended."""
        self.prefetch.start()
        self.clock.time += timedelta(seconds=seconds)
        self.prefetch.result()
        return [call.ended for call in self.tracker.calls]


@pytest.mark.parametrize(("seconds", "calls"), [(0, [False]), (2, [False]), (2.1, [True, False]), (-1, [True, False])])
def test_a_read_is_thrown_away_after_two_seconds(seconds: float, calls: list[bool]) -> None:
    assert Ages().after(seconds) == calls


def test_a_read_that_was_started_long_before_it_was_taken_over_is_made_anew() -> None:
    here = Ages()
    calls = here.tracker.calls
    kv_list = here.tracker.kv_list

    def taken_over() -> Any:
        call = kv_list()
        call.ahead = 3.0 if len(calls) == 1 else 0.0
        return call

    here.prefetch = Prefetch(taken_over, here.clock.now)
    here.prefetch.result()
    assert ([call.ended for call in calls], here.prefetch.began) == ([True, False], NOW)


def test_a_read_that_does_not_age_is_made_once() -> None:
    here = Ages()
    here.prefetch = Prefetch(here.tracker.kv_list, here.clock.now, ages=False)
    assert here.after(60) == [False]


def test_the_look_at_the_limits_ages() -> None:
    clock = Clock()
    tracker = Tracker(clock)
    limits = DayLimits(tracker, Board().services(), DispatchSettings(max_per_day=5), clock.now)
    limits.prefetch()
    clock.time += timedelta(seconds=3)
    limits.hold()
    assert [call.ended for call in tracker.calls] == [True, False]


def test_what_a_change_expects_of_the_store() -> None:
    expects = change(bead(), if_store={KEY: None, BREAKER: "v"})
    assert expects.allowed_by({BREAKER: "v"})
    assert expects.allowed_by({BREAKER: "v", KEY: ""})
    assert not expects.allowed_by({BREAKER: "w"})
    assert not expects.allowed_by({BREAKER: "v", KEY: SWITCH})


def test_a_slow_claim_of_the_trial_is_not_held_by_its_own_trial() -> None:
    """Else a half-open breaker would never close where bd takes more than two seconds to write."""
    here = desk(row("x-1"))
    waited = Breaker((Death("x-9", "a", claimed_at="2026-04-18T20:00:00Z"),), NOW - timedelta(minutes=1), 1)
    here.tracker.store[BREAKER] = waited.encode()

    def slow(change: Change) -> None:
        if change.act == "claim":
            here.clock.time += MAX_AGE + timedelta(seconds=1)

    here.tracker.before_write = slow
    report = here.cycle()
    assert (said(report), here.board.posts) == ({"x-1": "dispatched"}, ["x-1"])
