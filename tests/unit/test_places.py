"""A bead's place in the queue: it keeps it, however it comes back, until it has had a run that it is charged for."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.bd.change import Change
from bdauto.controllers.reaper import Reaper
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import dispatch_order
from bdauto.domain.reaping import JobEvidence
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import OnStall, ReapSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, bead, row
from tests.unit.test_dispatcher import Desk, desk, refusal

BEFORE = NOW - timedelta(days=1)
LATER = timedelta(hours=3)
IDLE = {"busy": False, "active": 0, "queued": 0, "capacity": 4}


def first(**fields: Any) -> Desk:
    """Return a desk with the one bead x-1, which has waited for a day."""
    here = desk(row("x-1", updated_at=BEFORE, created_at=BEFORE, **fields), grace=timedelta(minutes=10))
    here.board.health = [IDLE]
    return here


def posts(*answers: httpx.Response, **fields: Any) -> Callable[[], Desk]:
    def happens() -> Desk:
        here = first(**fields)
        here.board.script = list(answers)
        here.cycle()
        return here

    return happens


def three_refused() -> Desk:
    here = first()
    here.tracker.rows |= {bead_id: row(bead_id) for bead_id in ("y-1", "y-2")}
    here.board.script = [refusal("Bead not found.") for _ in range(3)]
    here.cycle(max_beads=3)
    return here


def slow_claim() -> Desk:
    here = first()

    def suspended(change: Change) -> None:
        here.tracker.before_write = lambda change: None
        here.clock.time += timedelta(minutes=6)

    here.tracker.before_write = suspended
    here.cycle()
    return here


def undone() -> Desk:
    """Dolt merged the claim with somebody's change of the same second."""
    here = first()
    apply = here.tracker.apply

    def overtaken(changes: Any) -> list[bool]:
        apply(changes)
        return [not apply([changes[0].undone("w9")])[0]]

    here.tracker.apply = overtaken  # type: ignore[method-assign]
    here.cycle()
    here.tracker.apply = apply  # type: ignore[method-assign]
    return here


def sweep(here: Desk, state: str = "", **settings: Any) -> Desk:
    """Sweep an hour later, when the agent service says this of the job."""
    here.clock.time += timedelta(hours=1)
    here.board.jobs = {"job-1": state} if state else {}
    services = here.board.services(agent=True)
    Reaper(here.tracker, here.tracker, services, ReapSettings(**settings), here.clock.runtime()).sweep()
    return here


def died(trip_after: int) -> Callable[[], Desk]:
    return lambda: sweep(posts()(), "failed", trip_after=trip_after)


def died_and_given_back() -> Desk:
    """The first death is charged. The second opens the breaker, which speaks for both."""
    here = sweep(posts()(), "failed", trip_after=2)
    here.tracker.rows["y-1"] = row("y-1", priority=0)
    here.cycle()
    here.board.jobs = {"job-2": "failed"}
    services = here.board.services(agent=True)
    Reaper(here.tracker, here.tracker, services, ReapSettings(trip_after=2), here.clock.runtime()).sweep()
    return here


def never_posted() -> Desk:
    """The dispatcher died between the claim and the POST."""
    here = first()
    dispatcher = here.dispatcher()
    dispatcher._attempts.claims.claim(here.tracker.bead("x-1"), "w1")
    return sweep(here)


def stalled() -> Desk:
    here = posts()()
    here.tracker.rows["x-1"]["notes"] += "\nclaimed by agent job-1"
    return sweep(here, "", on_stall=OnStall.requeue)


def failed_check() -> Desk:
    """It is uncharged, so it goes on soon."""
    here = posts()()
    here.tracker.rows["x-1"]["notes"] += "\nclaimed by agent job-1"
    services = here.board.services(agent=True)()
    end = Run(result=Result.failed, why=Why.check, ended_at=NOW)
    evidence = JobEvidence({"x-1": "completed"}, ends={"x-1": end})
    services.evidence = lambda *_: (evidence, None)  # type: ignore[method-assign]
    Reaper(here.tracker, here.tracker, lambda: services, ReapSettings(), here.clock.runtime()).sweep()
    return here


def by_hand(here: Desk, **fields: Any) -> Desk:
    """A person changes the bead later."""
    here.clock.time += LATER
    here.tracker.rows["x-1"] |= fields | {"updated_at": here.clock.now()}
    return here


def quarantined() -> Desk:
    here = posts(refusal(), metadata={"bdauto.attempts": 2})()
    assert here.tracker.bead("x-1").status == "blocked"
    return by_hand(here, status="open")


def reassigned() -> Desk:
    here = posts(refusal("Agent is busy", 409))()
    by_hand(here, assignee="bob")
    return by_hand(here, assignee="agent")


BACK: list[tuple[str, Callable[[], Desk], bool]] = [
    ("busy", posts(refusal("Agent is busy", 409)), True),
    ("released: its claim was slow", slow_claim, True),
    ("released: its claim was merged and undone", undone, True),
    ("not_visible", posts(refusal("Bead x-1 not found.")), True),
    ("misconfigured", posts(refusal("no token", 500)), True),
    ("misconfigured: three in a row", three_refused, True),
    ("unavailable", posts(httpx.Response(502)), True),
    ("refused", posts(refusal()), True),
    ("released: never posted", never_posted, True),
    ("released: died, and the breaker opens", died(1), True),
    ("released: died, given back when the breaker opens", died_and_given_back, True),
    ("released: died, charged", died(3), False),
    ("requeued: stalled", stalled, False),
    ("requeued: its check failed", failed_check, True),
    ("quarantined, and re-armed", quarantined, False),
    ("opened by hand while it ran", lambda: by_hand(posts()(), status="open"), False),
    ("given to somebody else, and back", reassigned, False),
    ("edited while it waits", lambda: by_hand(posts(httpx.Response(502))(), title="better"), False),
]


@pytest.mark.parametrize(("happens", "keeps"), [case[1:] for case in BACK], ids=[case[0] for case in BACK])
def test_which_way_back_keeps_the_place(happens: Callable[[], Desk], keeps: bool) -> None:
    here = happens()
    back = here.tracker.bead("x-1")
    assert (back.status, back.record.attempt if keeps else "") == ("open", "")
    assert back.updated_at > BEFORE
    assert back.waiting_since == (BEFORE if keeps else back.updated_at)
    younger = bead("x-2", updated_at=BEFORE + timedelta(minutes=1))
    assert (dispatch_order(back) < dispatch_order(younger)) is keeps


@pytest.mark.parametrize("answer", [refusal("Agent is busy", 409), httpx.Response(502), refusal("no token", 500)])
def test_the_bead_that_has_waited_longest_is_posted_first_again(answer: httpx.Response) -> None:
    here = first()
    here.tracker.rows["x-2"] = row("x-2")
    here.board.script = [answer, answer]
    here.cycle()
    here.clock.time += LATER
    here.cycle()
    assert here.board.posts[-1] == "x-1"


def test_a_bead_whose_post_is_misconfigured_alone_does_not_stop_the_queue() -> None:
    """At first it is tried again at once, for the service may be mended. Then the others have their turn."""
    here = desk(*(row(f"x-{n}", updated_at=BEFORE + timedelta(minutes=n)) for n in (1, 2)))
    here.board.posted = lambda bead_id: here.board.script.extend([refusal("what?", 500)] * (bead_id == "x-1"))
    for _ in range(3):
        here.cycle()
    assert here.board.posts == ["x-1", "x-1", "x-2"]


def test_a_place_that_an_embedded_bd_dated_a_little_later_is_kept() -> None:
    waits = {"bdauto.armed_at": format_time(BEFORE), "bdauto.released_at": format_time(NOW), "bdauto.place": "kept"}
    late: Bead = bead(updated_at=NOW + timedelta(seconds=59), metadata=waits)
    assert late.waiting_since == BEFORE
    assert bead(updated_at=NOW + timedelta(seconds=61), metadata=waits).waiting_since > NOW


def test_a_place_is_never_later_than_the_last_update() -> None:
    ahead = bead(updated_at=BEFORE, metadata={"bdauto.armed_at": format_time(NOW)})
    assert ahead.waiting_since == BEFORE


def test_a_bead_that_is_charged_for_an_unknown_outcome_loses_its_place() -> None:
    """Else a gateway that gives up on every POST would be tried with this bead alone, until it is blocked."""
    here = first()
    here.board.script = [httpx.Response(504)]
    here.cycle()
    here.clock.time += LATER
    Reaper(here.tracker, here.tracker, None, ReapSettings(), here.clock.runtime()).sweep()
    assert here.tracker.bead("x-1").status == "open"
    assert here.tracker.bead("x-1").waiting_since > BEFORE
