"""Agents that die at once: their beads, the breaker that they trip, and the signs of life that close it."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.bd.change import Change
from bdauto.common.errors import AgentsDie, BdFailed
from bdauto.controllers.reaper import Reaper
from bdauto.domain.breaker import FIRST_WAIT, KEY, Breaker, Death, read
from bdauto.domain.outcome import Report
from bdauto.domain.settings import ReapSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, row

WORDS = "node: cannot find module bd-agent"


def died(bead_id: str, *, ago: float = 60, attempts: int = 1, notes: str = "", **own: Any) -> dict[str, Any]:
    """Return a bead whose agent was started so many seconds ago."""
    claimed = NOW - timedelta(seconds=ago)
    own = {"attempt": f"a-{bead_id}", "attempts": attempts, "claimed_at": format_time(claimed), "job": bead_id} | own
    return row(
        bead_id,
        status="in_progress",
        updated_at=claimed,
        notes=f"auto-dispatcher claimed at {format_time(claimed)}\ndispatched: job={bead_id}{notes}",
        metadata={f"bdauto.{key}": value for key, value in own.items()},
    )


def alive(bead_id: str, **fields: Any) -> dict[str, Any]:
    return died(bead_id, notes=f"\nclaimed by agent {bead_id}", **fields)


def failed(words: str = WORDS, status: str = "failed", **fields: Any) -> Reply:
    """Return a job that has just ended."""
    ended = {"status": status, "exit_code": 1, "output": [words], "stderr": "", "finished_at": format_time(NOW)}
    return httpx.Response(200, json=ended | fields)


class Ward:
    """A tracker, an agent service, and sweeps."""

    def __init__(self, *rows: dict[str, Any], words: str = WORDS, agent: bool = True) -> None:
        self.clock = Clock()
        self.tracker = Tracker(self.clock, *rows)
        self.board = Board(jobs={str(r["id"]): failed(words) for r in rows if r["status"] == "in_progress"})
        self.agent = agent

    def sweep(self, **settings: Any) -> Report:
        services = self.board.services(agent=True) if self.agent else None
        return Reaper(self.tracker, self.tracker, services, ReapSettings(**settings), self.clock.runtime()).sweep()

    @property
    def breaker(self) -> Breaker:
        return read(self.tracker.store)

    def state(self) -> str:
        return self.breaker.state(self.clock.now())


@pytest.mark.parametrize("status", ["failed", "error", "completed"])
def test_a_bead_whose_agent_died_at_once_is_open_again_charged_and_backing_off(status: str) -> None:
    here = Ward(died("x-1"))
    here.board.jobs["x-1"] = failed(status=status)
    report = here.sweep()
    assert (report.exit_code, report.beads[0].outcome) == (0, "released")
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.attempt, bead.record.job) == ("open", 1, "", "")
    assert bead.record.retry_at is not None
    assert bead.record.retry_at > NOW
    how = "exit status 1: " if status == "failed" else ""
    assert here.tracker.notes("x-1")[-1] == (
        f"reaper: job x-1 is {status}, and its agent never wrote on the bead: {how}{WORDS} — released"
    )
    assert [death.bead for death in here.breaker.deaths] == ["x-1"]


def test_its_last_attempt_quarantines_it() -> None:
    here = Ward(died("x-1", attempts=3))
    assert here.sweep().beads[0].outcome == "blocked"
    assert "quarantined after 3 attempts; re-arm it: bd update x-1 -s open" in here.tracker.notes("x-1")[-1]
    assert WORDS in here.tracker.bead("x-1").record.quarantined


def test_an_agent_that_wrote_on_its_bead_did_not_die_at_once() -> None:
    here = Ward(alive("x-1"))
    assert here.sweep().beads[0].outcome == "blocked"
    assert here.tracker.store == {}


@pytest.mark.parametrize("status", ["failed", "error", "completed"])
@pytest.mark.parametrize(
    ("notes", "own"),
    [("\nclaimed by agent {}\nfound the cause", {}), ("", {"adopted": "a-{}"})],
    ids=["an agent that worked", "a job that bdauto did not start"],
)
def test_only_an_early_death_counts_of_the_jobs_that_are_over(notes: str, own: dict[str, Any], status: str) -> None:
    ids = [f"x-{n}" for n in range(1, 6)]
    beads = [
        died(i, ago=60 + n, notes=notes.format(i), **{key: text.format(i) for key, text in own.items()})
        for n, i in enumerate(ids)
    ]
    here = Ward(*beads)
    here.board.jobs = {i: failed(status=status) for i in ids}
    report = here.sweep()
    assert (report.exit_code, {bead.outcome for bead in report.beads}) == (0, {"released"} if own else {"blocked"})
    assert here.breaker == Breaker()
    assert here.tracker.written[-1].act != "set", "the breaker is not written"
    assert [here.tracker.bead(i).record.deaths for i in ids] == [0] * 5


def test_jobs_that_are_over_between_early_deaths_do_not_count() -> None:
    """Two agents died at once. The others had worked for an hour before they failed, and count for nothing."""
    worked = [alive(f"x-{n}", ago=3600 + n) for n in range(3, 7)]
    here = Ward(died("x-1"), died("x-2"), *worked)
    assert here.sweep(trip_after=3).exit_code == 0
    assert (here.state(), [death.bead for death in here.breaker.deaths]) == ("closed", ["x-1", "x-2"])


def test_without_a_word_on_jobs_a_stall_without_a_sign_is_one() -> None:
    here = Ward(*(died(f"x-{n}", ago=31 * 60) for n in range(3)), agent=False)
    assert here.sweep().exit_code == 4
    assert (here.state(), {here.tracker.bead(f"x-{n}").status for n in range(3)}) == ("open", {"open"})


def test_three_of_different_beads_trip_it_and_get_their_charge_back() -> None:
    here = Ward(*(died(f"x-{n}", attempts=3) for n in range(3)))
    report = here.sweep()
    assert isinstance(report.error, AgentsDie)
    assert (report.exit_code, {bead.outcome for bead in report.beads}) == (4, {"released"})
    assert "agents of 3 beads died at once" in str(report.error)
    assert WORDS in str(report.error)
    assert here.breaker.until == NOW + FIRST_WAIT
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in range(3)] == [2, 2, 2]
    assert here.tracker.notes("x-0")[-1].endswith("— released uncharged: dispatching is suspended")


def test_those_of_earlier_sweeps_get_their_charge_back_too() -> None:
    here = Ward(died("x-0"), died("x-1"))
    here.sweep()
    assert (here.state(), here.tracker.bead("x-0").record.attempts) == ("closed", 1)
    here.tracker.rows["x-2"] = died("x-2", ago=30)
    here.board.jobs["x-2"] = failed()
    assert here.sweep().exit_code == 4
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in range(3)] == [0, 0, 0]


def test_deaths_of_one_and_the_same_bead_do_not_trip_it() -> None:
    here = Ward(died("x-1"))
    for number in range(5):
        here.tracker.rows["x-1"] = died("x-1", attempt=f"a{number}")
        assert here.sweep().exit_code == 0
    assert here.state() == "closed"


SOON, LATER = (format_time(NOW - timedelta(seconds=ago)) for ago in (25, 300))


@pytest.mark.parametrize(
    ("job", "note", "outcome"),
    [
        (failed(finished_at=SOON), "", "released"),
        (failed(status="error", finished_at=SOON), "", "released"),
        (failed(started_at=LATER, finished_at=SOON), "", "blocked"),
        (failed(finished_at=SOON), "\nI have begun", "blocked"),
        (failed(status="completed", finished_at=SOON), "", "blocked"),
        (failed('{"total_cost_usd": 0.4, "result": "no"}', finished_at=SOON), "", "blocked"),
        (failed('{"total_cost_usd": 0, "result": "key expired"}', finished_at=SOON), "", "released"),
    ],
)
def test_an_agent_that_only_signs_and_ends_at_once_died_early(job: Reply, note: str, outcome: str) -> None:
    bead = died("x-1", notes=f"\nclaimed by agent x-1{note}")
    here = Ward(bead)
    here.board.jobs["x-1"] = job
    assert [one.outcome for one in here.sweep().beads] == [outcome]
    assert len(here.breaker.deaths) == (outcome == "released")


def test_the_sign_of_an_agent_that_died_at_once_is_no_life() -> None:
    here = Ward(*(died(f"x-{n}", ago=60 + n, notes=f"\nclaimed by agent x-{n}") for n in range(3)))
    for n in range(3):
        here.board.jobs[f"x-{n}"] = failed(finished_at=SOON)
    assert (here.sweep().exit_code, here.state()) == (4, "open")
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in range(3)] == [0, 0, 0]


def test_a_sign_of_life_in_between_counts() -> None:
    """x-2 was claimed after x-0 and x-1, and its agent works: those two died of something else."""
    here = Ward(died("x-0", ago=90), died("x-1", ago=80), alive("x-2", ago=70), died("x-3", ago=60))
    here.board.jobs["x-2"] = httpx.Response(200, json={"status": "running"})
    assert here.sweep().exit_code == 0
    assert [death.bead for death in here.breaker.deaths] == ["x-3"]


def test_so_does_a_bead_that_its_agent_has_closed_meanwhile() -> None:
    here = Ward(*(died(f"x-{n}", ago=90 - n) for n in range(3)), alive("x-9", ago=60) | {"status": "closed"})
    assert here.sweep().exit_code == 0
    assert here.state() == "closed"


def test_an_agent_that_was_at_work_before_says_nothing_about_new_ones() -> None:
    here = Ward(*(died(f"x-{n}") for n in range(3)), alive("x-9", ago=600))
    here.board.jobs["x-9"] = httpx.Response(200, json={"status": "running"})
    assert (here.sweep().exit_code, here.state()) == (4, "open")


def test_trip_after_0_switches_it_off() -> None:
    here = Ward(*(died(f"x-{n}") for n in range(9)))
    assert here.sweep(trip_after=0).exit_code == 0
    assert here.tracker.store == {}


def test_a_dry_run_changes_no_breaker() -> None:
    here = Ward(*(died(f"x-{n}") for n in range(9)))
    here.sweep(dry_run=True)
    assert here.tracker.store == {}


def opened(**fields: Any) -> Breaker:
    deaths = tuple(Death(f"d{n}", f"w{n}", claimed_at=format_time(NOW - timedelta(hours=1))) for n in range(3))
    return Breaker(deaths, until=NOW + timedelta(minutes=1), opened=1, write="w", **fields)


def test_a_sign_of_the_trial_s_agent_closes_it() -> None:
    here = Ward(alive("x-1"))
    here.board.jobs["x-1"] = httpx.Response(200, json={"status": "running"})
    here.tracker.store = {KEY: opened(trial="a-x-1", trial_bead="x-1").encode()}
    assert here.sweep().exit_code == 0
    assert here.state() == "closed"


def test_another_early_death_of_the_trial_opens_it_for_twice_as_long() -> None:
    here = Ward(died("x-1"))
    here.tracker.store = {KEY: opened(trial="a-x-1", trial_bead="x-1").encode()}
    assert here.sweep().exit_code == 4
    assert here.breaker.until == NOW + 2 * FIRST_WAIT
    assert here.tracker.bead("x-1").record.attempts == 0


RESETS = [
    ("Claude AI usage limit reached|1776551809", timedelta(seconds=63)),
    ("limit resets 2026-04-18T23:00:00Z", timedelta(minutes=24, seconds=14)),
    ("rate limited, try again in 63 seconds", timedelta(seconds=63)),
    ("5-hour limit reached ∙ resets 11pm (UTC)", timedelta(minutes=24, seconds=14)),
    ("resets 2030-01-01T00:00:00Z", FIRST_WAIT),
]


@pytest.mark.parametrize(("words", "wait"), RESETS, ids=[case[0] for case in RESETS])
def test_it_waits_until_the_time_that_the_last_words_name(words: str, wait: timedelta) -> None:
    here = Ward(*(died(f"x-{n}") for n in range(3)), words=words)
    here.sweep()
    assert here.breaker.until == NOW + wait


SERVICE = [
    ("limit", "You've hit your session limit · resets 11pm (UTC)"),
    ("login", "Invalid API key · Please run /login"),
    ("overloaded", "API Error: 529 Overloaded"),
    ("network", "getaddrinfo EAI_AGAIN api.example.com"),
]


@pytest.mark.parametrize("notes", ["", "\nclaimed by agent x-1", "\nclaimed by agent x-1\nhalf of it is done"])
@pytest.mark.parametrize(("why", "words"), SERVICE, ids=[case[0] for case in SERVICE])
def test_a_bead_is_not_charged_for_its_agent_s_service(why: str, words: str, notes: str) -> None:
    here = Ward(died("x-1", attempts=3, notes=notes), words=words)
    here.board.jobs["x-1"] = failed(words, started_at=LATER, finished_at=SOON)
    assert [one.outcome for one in here.sweep().beads] == ["released"]
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts) == ("open", 2)
    assert f"its agent's service failed ({why}): {words} — released uncharged" in here.tracker.notes("x-1")[-1]
    assert [death.bead for death in here.breaker.deaths] == ["x-1"]
    assert bead.record.runs[-1].why == why


@pytest.mark.parametrize("words", ["I ran out of ideas", "too many turns"])
def test_what_is_the_bead_s_own_is_judged_as_before(words: str) -> None:
    here = Ward(died("x-1", notes="\nhalf of it is done"), words=words)
    assert [one.outcome for one in here.sweep().beads] == ["blocked"]
    assert here.tracker.store == {}


def test_a_limit_in_the_middle_of_work_suspends_until_it_resets() -> None:
    here = Ward(
        *(died(f"x-{n}", notes="\nI have begun") for n in range(2)), words="usage limit reached, resets 11pm (UTC)"
    )
    assert (here.sweep().exit_code, here.state()) == (0, "closed")
    for n in (2, 3):
        here.tracker.rows[f"x-{n}"] = died(f"x-{n}", ago=30, notes="\nI have begun")
        here.board.jobs[f"x-{n}"] = failed("usage limit reached, resets 11pm (UTC)")
    assert here.sweep().exit_code == 4
    assert here.breaker.until == NOW + timedelta(minutes=24, seconds=14)
    beads = [here.tracker.bead(f"x-{n}") for n in range(4)]
    assert {(bead.status, bead.record.attempts) for bead in beads} == {("open", 0)}


def test_a_queue_of_one_bead_is_suspended_by_its_agent_s_service() -> None:
    """It is not charged, so nothing else would end the attempts."""
    here = Ward(died("x-1"), words="API Error: 529 Overloaded")
    codes = []
    for number in range(3):
        here.tracker.rows["x-1"] = died("x-1", attempt=f"a{number}")
        codes.append(here.sweep().exit_code)
    assert (codes, here.state()) == ([0, 0, 4], "open")


LATE_RESETS = [
    ("rate limited, try again in 300 seconds", timedelta(seconds=240)),
    ("rate limited, try again in 30 seconds", FIRST_WAIT),
    ("usage limit reached, resets 3am", timedelta(minutes=59)),
    ("weekly limit reached, resets Apr 24, 10:00am (UTC)", timedelta(days=5, hours=11, minutes=24, seconds=14)),
    (f"{'building · ' * 40} usage limit reached, try again in 300 seconds {'· ' * 150}", timedelta(seconds=240)),
]


@pytest.mark.parametrize(("words", "wait"), LATE_RESETS, ids=[case[0][:50] for case in LATE_RESETS])
def test_the_time_is_reckoned_from_the_job_s_end_and_not_the_sweep(words: str, wait: timedelta) -> None:
    here = Ward(*(died(f"x-{n}", ago=300) for n in range(3)))
    ended = format_time(NOW - timedelta(seconds=60))
    here.board.jobs = {f"x-{n}": failed(words, finished_at=ended) for n in range(3)}
    here.sweep()
    assert here.breaker.until == NOW + wait


def test_a_sweep_that_is_killed_after_the_breaker_is_done_by_the_next() -> None:
    here = Ward(*(died(f"x-{n}") for n in range(3)))
    here.sweep()
    store = dict(here.tracker.store)
    here = Ward(*(died(f"x-{n}") for n in range(3)))
    here.tracker.store = store
    assert here.sweep().exit_code == 0
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in range(3)] == [0, 0, 0]
    assert here.breaker.opened == 1


def test_one_that_is_killed_before_it_gave_a_charge_back_has_it_given_back_once() -> None:
    here = Ward(died("x-0", attempts=2), died("x-1"))
    here.sweep()
    before = {bead_id: dict(one) for bead_id, one in here.tracker.rows.items()}
    here.tracker.rows["x-2"] = died("x-2", ago=30)
    here.board.jobs["x-2"] = failed()
    here.sweep()
    here.tracker.rows |= {**before, "x-2": died("x-2", ago=30)}
    for _ in range(2):
        assert here.sweep().exit_code == 0
        assert [here.tracker.bead(f"x-{n}").record.attempts for n in range(3)] == [1, 0, 0]


def test_a_charge_that_is_not_given_back_is_reported_and_tried_again() -> None:
    here = Ward(died("x-0"), died("x-1"))
    here.sweep()
    here.tracker.rows["x-2"], here.board.jobs["x-2"] = died("x-2", ago=30), failed()

    def fail(change: Change) -> None:
        if change.act.startswith("give back"):
            raise BdFailed("disk full")

    here.tracker.before_write = fail
    report = here.sweep()
    told = {bead.id: (bead.outcome, bead.detail) for bead in report.beads}
    assert told["x-0"] == ("failed", "give back the charge of: disk full")
    assert told["x-2"][0] == "released"
    assert report.exit_code == 4, "the breaker has opened"
    assert here.sweep().exit_code == 5, "it is open, and the charges are still not given back"
    here.tracker.before_write = lambda change: None
    assert here.sweep().exit_code == 0
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in range(3)] == [0, 0, 0]


def test_a_job_is_read_once_and_its_secrets_are_hidden() -> None:
    key = "sk-ant-api03-AbCdEf0123456789"
    here = Ward(died("x-1"), words=f"401 invalid x-api-key {key}")
    here.sweep()
    assert [request.url.path for request in here.board.requests] == ["/jobs/x-1"]
    everything = "\n".join(here.tracker.notes("x-1")) + str(here.tracker.store)
    assert key not in everything
    assert "401 invalid x-api-key ***" in everything


def test_sweeps_of_healthy_beads_do_not_ask_for_more() -> None:
    here = Ward(alive("x-1"))
    here.board.jobs["x-1"] = httpx.Response(200, json={"status": "running"})
    here.sweep()
    assert here.tracker.reads == ["list", "kv", "results"]
