"""One sweep of the reaper: the evidence table row by row, the mass guard, and writes that fail or come too late."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from bdauto.agents.job_questions import JobQuestions
from bdauto.bd.change import MARK, Change, DryWriter
from bdauto.common.errors import BdError, BdFailed, BdTimeout
from bdauto.controllers.reaper import Reaper
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.pause import KEY
from bdauto.domain.reaping import JobEvidence, decide_reap
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import OnStall, ReapSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, TOKEN, Board, Clock, Reply, Tracker, row


@dataclass
class Ward:
    """A tracker with beads in progress, an agent service, and sweeps over them."""

    tracker: Tracker
    board: Board
    clock: Clock
    agent: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def sweep(self, **settings: Any) -> Report:
        return self.reaper(**settings).sweep()

    def own_job(self, bead_id: str) -> str:
        """Return the job that the bead records."""
        return self.tracker.bead(bead_id).record.job

    def reaper(self, **settings: Any) -> Reaper:
        chosen = ReapSettings(**(self.settings | settings))
        services = self.board.services(agent=True) if self.agent else None
        return Reaper(self.tracker, self.tracker, services, chosen, self.clock.runtime())


def ward(*rows: dict[str, Any], jobs: dict[str, str | Reply] | None = None, **settings: Any) -> Ward:
    clock = Clock()
    return Ward(Tracker(clock, *rows), Board(jobs=jobs or {}), clock, settings=settings)


def ago(**spans: float) -> datetime:
    return NOW - timedelta(**spans)


def running(bead_id: str = "x-1", *, idle: timedelta, notes: str | None = None, **own: Any) -> dict[str, Any]:
    """Return a bead that bdauto claimed and dispatched as job j-1, whose agent wrote on it, with no update for so long.

    `notes` is what was noted since the claim instead.
    """
    claimed = NOW - idle
    own = {"attempt": "a1", "attempts": 1, "claimed_at": format_time(claimed), "job": "j-1"} | own
    claim = f"auto-dispatcher claimed at {format_time(claimed)}"
    return row(
        bead_id,
        status="in_progress",
        updated_at=claimed,
        notes=f"{claim}\nclaimed by agent j-1\ndispatched: job=j-1" if notes is None else f"{claim}{notes}",
        metadata={f"bdauto.{key}": value for key, value in own.items() if value is not None},
    )


def said(report: Report) -> dict[str, str]:
    return {bead.id: bead.outcome.value for bead in report.beads}


DAYS, FRESH, STALE = timedelta(days=5), timedelta(minutes=1), timedelta(minutes=31)
IDLE, BUSY = (
    {"busy": False, "active": 0, "queued": 0, "capacity": 4},
    {"busy": False, "active": 1, "queued": 0, "capacity": 4},
)
QUEUED = BUSY | {"active": 0, "queued": 1}
UNCOUNTED = {"busy": False}


def unstarted(idle: timedelta, notes: str = "", **own: Any) -> dict[str, Any]:
    """Return a bead that bdauto claimed so long ago, without a job."""
    return running(idle=idle, notes=notes, job=None, **own)


OVERLOADED = "API Error: 529 overloaded"
CAUSES: list[tuple[dict[str, Any], str]] = [
    ({"words": "boom", "seconds": 12}, "failed after 12s: boom"),
    ({"words": "boom"}, "failed: boom"),
    ({"seconds": 90}, "failed after 1m30s"),
    ({}, "job j-1 is failed but the bead is still in progress"),
    (
        {"result": Result.completed, "words": "I am done.", "seconds": 5},
        "ended after 5s without closing its bead: I am done.",
    ),
    ({"result": Result.timeout, "seconds": 2700, "why": Why.timeout}, "timed out after 45m"),
    (
        {"why": Why.turns, "words": "Reached 30 turns", "seconds": 61},
        "failed after 1m1s: Reached 30 turns (raise its limit of turns, or split the bead)",
    ),
    (
        {"why": Why.budget, "words": "cost $5.01", "seconds": 61},
        "failed after 1m1s: cost $5.01 (raise its limit of costs, or split the bead)",
    ),
    (
        {"result": Result.completed, "why": Why.denied, "words": "was not allowed to use Bash: sorry", "seconds": 61},
        "ended after 1m1s without closing its bead: was not allowed to use Bash: sorry "
        "(permit that in its settings or its command)",
    ),
    (
        {"why": Why.overloaded, "words": OVERLOADED, "seconds": 12},
        f"failed after 12s: {OVERLOADED}; its agent's service failed (overloaded)",
    ),
]


@pytest.mark.parametrize(("fields", "words"), CAUSES, ids=[words for _, words in CAUSES])
def test_a_decision_says_the_cause_and_its_note_the_job(fields: dict[str, Any], words: str) -> None:
    found = msgspec.convert(running(idle=FRESH, notes="\nI have begun"), Bead)
    end = Run(**{"result": Result.failed, "ended_at": NOW, **fields})
    decision = decide_reap(found, JobEvidence({found.id: "failed"}, ends={found.id: end}), ReapSettings(), NOW)
    assert decision.evidence == words
    assert decision.note.startswith("reaper: job j-1 is failed")


Row = tuple[str, dict[str, Any], str | None, str, str]
EVIDENCE: list[Row] = [
    ("queued", running(idle=DAYS), "queued", "kept", "job j-1 is queued"),
    ("running", running(idle=DAYS), "running", "kept", "job j-1 is running"),
    ("failed", running(idle=FRESH), "failed", "blocked", "job j-1 is failed but the bead is still in progress"),
    ("error", running(idle=FRESH), "error", "blocked", "job j-1 is error"),
    ("completed", running(idle=FRESH), "completed", "blocked", "job j-1 is completed"),
    ("timeout is not over, fresh", running(idle=FRESH), "timeout", "kept", "job j-1 is timeout"),
    ("timeout, stale", running(idle=STALE), "timeout", "blocked", "no progress for 31m (threshold 30m); job j-1 is"),
    ("forgotten, fresh", running(idle=FRESH), None, "kept", "1m since the last update"),
    ("forgotten, stale", running(idle=STALE), None, "blocked", "no progress for 31m (threshold 30m)"),
    ("at the threshold", running(idle=timedelta(minutes=30)), None, "kept", "30m since"),
    ("a state of tomorrow, fresh", running(idle=FRESH), "resting", "kept", "1m since"),
    ("a state of tomorrow, stale", running(idle=STALE), "resting", "blocked", "no progress for 31m"),
    ("sign of the agent", unstarted(timedelta(minutes=11), "\nclaimed by agent j-9"), None, "kept", "11m since"),
    ("any note", unstarted(timedelta(minutes=11), "\nWorking on it…"), None, "kept", "11m since"),
    ("any note, stale", unstarted(STALE, "\nWorking on it…"), None, "blocked", "no progress for 31m"),
    (
        "own notes are no sign",
        running(idle=STALE, notes="\ndispatched: job=j-1"),
        None,
        "released",
        "never wrote",
    ),
    (
        "unknown outcome",
        unstarted(timedelta(minutes=11), error="dispatch outcome unknown: no answer"),
        None,
        "kept",
        "11m since",
    ),
    (
        "unknown outcome, stale",
        unstarted(STALE, error="dispatch outcome unknown: no answer"),
        None,
        "released",
        "no progress for 31m (threshold 30m), and its agent never wrote on the bead",
    ),
    ("taken by hand, fresh", row("x-1", status="in_progress", updated_at=ago(minutes=20)), None, "kept", "20m since"),
    ("taken by hand, stale", row("x-1", status="in_progress", updated_at=ago(hours=2)), None, "blocked", "for 120m"),
    ("ahead of the clock", row("x-1", status="in_progress", updated_at=ago(seconds=-1)), None, "kept", "0s since"),
    ("ephemeral", running(idle=DAYS) | {"ephemeral": True}, "failed", "kept", "ephemeral"),
]


@pytest.mark.parametrize("state", ["completed", "failed", "error", "timeout", None])
def test_an_adopted_job_that_ends_gives_its_bead_back_uncharged(state: str | None) -> None:
    """bdauto did not start the job, so the bead has not had its attempt."""
    here = ward(running(idle=STALE, attempt="w1", adopted="w1"), jobs={"j-1": state} if state else {})
    assert said(here.sweep()) == {"x-1": "released"}
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.adopted, bead.record.job) == ("open", 0, "", "")
    assert here.tracker.notes("x-1")[-1].endswith("given back uncharged: bdauto did not start its job")


@pytest.mark.parametrize("state", ["running", "queued"])
@pytest.mark.parametrize(
    "bead", [{"notes": "\ndispatched: job=j-1"}, {"attempt": "w1", "adopted": "w1"}], ids=["silent", "adopted"]
)
def test_a_job_that_runs_without_a_note_is_believed_for_a_day(bead: dict[str, Any], state: str) -> None:
    here = ward(running(idle=timedelta(hours=24), **bead), jobs={"j-1": state})
    assert said(here.sweep()) == {"x-1": "kept"}
    here.clock.time += timedelta(minutes=1)
    report = here.sweep()
    assert said(report) == {"x-1": "released" if "adopted" in bead else "blocked"}
    assert f"job j-1 is called {state}, but nothing was noted for 1d" in report.beads[0].detail
    assert here.tracker.bead("x-1").record.given_up == "j-1"


@pytest.mark.parametrize(
    ("bead", "job", "outcome", "evidence"), [e[1:] for e in EVIDENCE], ids=[e[0] for e in EVIDENCE]
)
def test_the_evidence_decides(bead: dict[str, Any], job: str | None, outcome: str, evidence: str) -> None:
    here = ward(dict(bead), jobs={"j-1": job} if job else {})
    here.board.health = [IDLE]
    report = here.sweep()
    assert said(report) == {"x-1": outcome}
    assert evidence in report.beads[0].detail
    assert report.exit_code == 0
    status = {"kept": "in_progress", "blocked": "blocked", "released": "open"}[outcome]
    assert here.tracker.bead("x-1").status == status
    assert report.outcome is (Outcome.idle if outcome == "kept" else Outcome.reaped)


CLAIMS: list[tuple[str, int, dict[str, Any] | None, str, str]] = [
    ("no agent service, within the threshold", 29, None, "kept", "within the threshold, it may have been posted"),
    ("no agent service, at the threshold", 30, None, "kept", "within the threshold"),
    ("no agent service, over the threshold", 31, None, "released", "no job recorded and no sign of the agent"),
    ("it runs nothing, within the grace", 9, IDLE, "kept", "within the grace"),
    ("it runs nothing, at the grace", 10, IDLE, "kept", "within the grace"),
    ("it runs nothing, over the grace", 11, IDLE, "released", "its service runs nothing"),
    ("it runs something", 11, BUSY, "kept", "within the threshold"),
    ("something is queued", 11, QUEUED, "kept", "within the threshold"),
    ("it does not count", 11, UNCOUNTED, "kept", "within the threshold"),
    ("it runs something, over the threshold", 31, BUSY, "released", "no sign of the agent"),
]


@pytest.mark.parametrize(
    ("minutes", "health", "outcome", "evidence"), [c[1:] for c in CLAIMS], ids=[c[0] for c in CLAIMS]
)
def test_a_claim_without_a_job_may_have_been_posted(
    minutes: int, health: dict[str, Any] | None, outcome: str, evidence: str
) -> None:
    here = ward(unstarted(timedelta(minutes=minutes)))
    here.agent = health is not None
    here.board.health = [health or {}]
    report = here.sweep()
    assert (said(report), report.exit_code) == ({"x-1": outcome}, 0)
    assert evidence in report.beads[0].detail


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, text="<html>")]
)
def test_where_nobody_can_be_asked_age_condemns_a_bead_with_a_job_after_two_hours(answer: Reply) -> None:
    here = ward(running(idle=timedelta(minutes=120)), jobs={"j-1": answer})
    report = here.sweep()
    assert (said(report), report.exit_code) == ({"x-1": "kept"}, 4)
    here.clock.time += timedelta(minutes=1)
    report = here.sweep()
    assert (said(report), report.exit_code) == ({"x-1": "blocked"}, 4)
    assert here.tracker.notes("x-1")[-1] == (
        "reaper: no progress for 121m (threshold 120m); the agent service could not be asked about job j-1 — blocking"
    )


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_no_verdict_on_a_bead_with_a_job(status: int) -> None:
    old, by_hand = running(idle=DAYS), row("x-2", status="in_progress", updated_at=ago(hours=2))
    here = ward(old, by_hand, jobs={"j-1": httpx.Response(status, json={"detail": "Invalid token"})})
    report = here.sweep()
    assert (said(report), report.exit_code) == ({"x-1": "kept", "x-2": "blocked"}, 4)
    assert f"HTTP {status}" in str(report.error)
    assert "token" in str(report.error)


def test_orphans_are_counted_as_attempts() -> None:
    here = ward(unstarted(STALE, attempts=2))
    assert said(here.sweep()) == {"x-1": "released"}
    here = ward(unstarted(STALE, attempts=3))
    assert said(here.sweep()) == {"x-1": "blocked"}
    assert here.tracker.notes("x-1")[-1].endswith("— blocking after attempt 3")


SKEWS: list[tuple[str, timedelta, timedelta | None, str]] = [
    ("a clock that is fast", STALE, timedelta(minutes=-20), "kept"),
    ("clocks that agree", STALE, timedelta(0), "blocked"),
    ("embedded: one host", STALE, None, "blocked"),
    ("a clock that is slow", timedelta(minutes=-11), timedelta(minutes=45), "blocked"),
]


@pytest.mark.parametrize(("idle", "ahead", "outcome"), [s[1:] for s in SKEWS], ids=[s[0] for s in SKEWS])
def test_where_age_matters_it_is_reckoned_by_the_server_s_clock(
    idle: timedelta, ahead: timedelta | None, outcome: str
) -> None:
    here = ward(running(idle=idle))
    here.tracker.server_clock = None if ahead is None else NOW + ahead
    assert said(here.sweep()) == {"x-1": outcome}


def test_the_server_s_clock_is_asked_for_only_where_it_matters() -> None:
    here = ward(running(idle=FRESH), running("x-2", idle=STALE, job="j-2"), jobs={"j-1": "failed", "j-2": "running"})
    here.sweep()
    assert here.tracker.reads == ["list", "kv", "results"]


def test_a_time_that_lies_ahead_is_said_and_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    ahead = datetime(2100, 1, 1, tzinfo=UTC)
    here = ward(
        running(idle=STALE) | {"updated_at": ahead},
        running("x-2", idle=FRESH) | {"updated_at": ahead},
        row("x-3", status="in_progress", updated_at=ahead),
    )
    with caplog.at_level(logging.WARNING, "bdauto"):
        report = here.sweep()
    assert said(report) == {"x-1": "blocked", "x-2": "kept", "x-3": "kept"}
    assert "2100-01-01T00:00:00Z, which lies ahead" in report.beads[2].detail
    assert [record.getMessage() for record in caplog.records].count("time-ahead") == 3


def test_in_an_embedded_database_the_claim_s_place_in_the_notes_is_in_the_metadata() -> None:
    """Its note is not yet there, and the agent's sign is an earlier run's."""
    sign = "\nclaimed by agent j-0"
    place = len(running(idle=DAYS, notes=sign)["notes"])
    for since, said_of_it in (("", "released"), ("\nclaimed by agent j-1", "blocked")):
        orphan = unstarted(STALE, sign + since, claim_note=f"{place} x")
        assert said(ward(orphan).sweep()) == {"x-1": said_of_it}


def test_the_sign_of_the_agent_counts_only_after_the_last_claim() -> None:
    notes = "\nclaimed by agent j-0\nauto-dispatcher claimed at 2026-04-18T22:24:00Z"
    assert said(ward(unstarted(STALE, notes)).sweep()) == {"x-1": "released"}


def test_a_stalled_bead_is_blocked_with_the_note_to_the_letter_and_keeps_its_job() -> None:
    here = ward(running(idle=timedelta(minutes=42)))
    here.agent = False
    assert said(here.sweep()) == {"x-1": "blocked"}
    assert here.tracker.notes("x-1")[-1] == "reaper: no progress for 42m (threshold 30m) — blocking"
    own = here.tracker.own("x-1")
    assert (own["job"], own["attempts"], own["quarantined"]) == ("j-1", 1, "no progress for 42m (threshold 30m)")
    [run] = here.tracker.bead("x-1").record.runs
    assert (own["result"], run.result, run.ended_at) == ("lost", "lost", NOW)
    assert "attempt" not in own


def test_the_note_names_the_job_and_its_state() -> None:
    here = ward(running(idle=FRESH), jobs={"j-1": "failed"})
    here.sweep()
    note = here.tracker.notes("x-1")[-1]
    assert note == "reaper: job j-1 is failed but the bead is still in progress — blocking"


def test_a_job_is_asked_for_with_the_token_and_only_for_beads_with_a_job() -> None:
    here = ward(running(idle=FRESH), running("x-2", idle=FRESH, notes="", job=None), jobs={"j-1": "running"})
    here.board.health = [BUSY]
    here.sweep()
    assert [request.url.path for request in here.board.requests] == ["/jobs/j-1", "/health"]
    assert [request.headers.get("authorization") for request in here.board.requests] == [f"Bearer {TOKEN}", None]


def test_an_orphan_is_open_again_with_its_attempt_charged_and_waits() -> None:
    here = ward(unstarted(timedelta(minutes=11), attempts=2))
    here.board.health = [IDLE]
    here.sweep()
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.attempt, bead.record.claimed_at) == ("open", 2, "", None)
    assert bead.record.retry_at is not None
    assert bead.record.retry_at > NOW
    note = here.tracker.notes("x-1")[-1]
    assert note == (
        "reaper: claimed 11m ago, no job recorded, no sign of the agent, and its service runs nothing (grace 10m) "
        "— released"
    )


def test_requeue_opens_a_stalled_bead_until_its_attempts_are_used_up() -> None:
    here = ward(
        running("x-1", idle=STALE, attempts=1),
        running("x-2", idle=STALE, attempts=2),
        running("x-3", idle=STALE, attempts=3),
        on_stall=OnStall.requeue,
    )
    assert said(here.sweep()) == {"x-1": "requeued", "x-2": "requeued", "x-3": "blocked"}
    bead = here.tracker.bead("x-2")
    assert (bead.status, bead.record.attempts, bead.record.job, bead.record.failures) == ("open", 2, "", 1)
    assert bead.record.retry_at is not None
    assert timedelta(minutes=1) <= bead.record.retry_at - NOW <= timedelta(minutes=2)
    assert here.tracker.notes("x-2")[-1] == "reaper: no progress for 31m (threshold 30m) — requeueing"
    assert here.tracker.bead("x-3").status == "blocked"


def test_requeue_settles_a_failed_job_too() -> None:
    here = ward(running(idle=FRESH), jobs={"j-1": "failed"}, on_stall=OnStall.requeue)
    assert said(here.sweep()) == {"x-1": "requeued"}


def test_a_requeue_waits_for_a_job_that_timed_out() -> None:
    """Its process runs on: a second agent must not start beside it."""
    here = ward(running(idle=timedelta(minutes=29)), jobs={"j-1": "timeout"}, on_stall=OnStall.requeue)
    assert said(here.sweep()) == {"x-1": "kept"}
    here.clock.time += timedelta(minutes=2)
    assert said(here.sweep()) == {"x-1": "requeued"}


def many(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [running(f"x-{n}", idle=STALE, **fields) for n in range(1, count + 1)]


def test_more_stalled_beads_than_max_reap_and_nothing_is_written() -> None:
    here = ward(*many(11))
    report = here.sweep()
    assert (report.outcome, report.exit_code, here.tracker.written) == (Outcome.partial, 5, [])
    assert set(said(report).values()) == {"kept"}
    for word in ("11 beads", "--max-reap 10", "clock", "--max-reap 0"):
        assert word in str(report.error)


def test_the_guard_counts_orphans_but_no_bead_whose_job_is_known() -> None:
    orphans = [running(f"o-{n}", idle=STALE, notes="", job=None) for n in range(3)]
    known = [running(f"k-{n}", idle=STALE) for n in range(9)]
    assert ward(*orphans, max_reap=2).sweep().exit_code == 5
    here = ward(*orphans, *known, jobs={"j-1": "failed"}, max_reap=3)
    assert here.sweep().exit_code == 0
    assert {r["status"] for r in here.tracker.rows.values()} == {"open", "blocked"}


@pytest.mark.parametrize("limit", [0, 11])
def test_a_higher_limit_or_none_settles_them_all(limit: int) -> None:
    here = ward(*many(11))
    assert set(said(here.sweep(max_reap=limit)).values()) == {"blocked"}


def test_a_lost_note_is_written_again_once() -> None:
    here = ward(running(idle=FRESH, notes=""), jobs={"j-1": "running"})
    for _ in range(3):
        assert said(here.sweep()) == {"x-1": "kept"}
    assert here.tracker.notes("x-1")[1:] == ["dispatched: job=j-1"]
    here.tracker.rows["x-1"]["notes"] = "a person cleared the notes"
    here.sweep()
    assert here.tracker.notes("x-1") == ["a person cleared the notes"]


def test_the_note_of_a_record_is_left_to_its_dispatcher_at_first() -> None:
    here = ward(running(idle=timedelta(seconds=5), notes=""), jobs={"j-1": "running"})
    here.sweep()
    assert here.tracker.written == []


@pytest.mark.parametrize(
    "own",
    [{"job": "j-1"}, {"job": None, "error": "dispatch outcome unknown: time-out"}],
    ids=["job", "unknown"],
)
def test_a_killed_dispatcher_s_note_is_written_by_a_sweep(own: dict[str, Any]) -> None:
    note = "dispatched: job=j-1" if own["job"] else own["error"]
    here = ward(running(idle=FRESH, notes="", **own), jobs={"j-1": "running"})
    here.sweep()
    assert here.tracker.notes("x-1")[1:] == [note]
    settled = ward(running(idle=STALE, notes="\nworking", **own), jobs={"j-1": "failed"})
    settled.sweep()
    assert settled.tracker.notes("x-1").count(note) == 1


def test_a_bead_that_was_recorded_since_it_was_read_is_not_settled() -> None:
    """A record does not move the time of the last update."""
    here = ward(running(idle=STALE, job=None, notes=""))
    here.tracker.rows["x-1"]["metadata"][MARK] = "w-of-the-claim"

    def record(_change: Change) -> None:
        here.tracker.rows["x-1"]["metadata"] |= {MARK: "w-of-the-record", "bdauto.job": "j-1"}

    here.tracker.before_write = record
    assert said(here.sweep()) == {"x-1": "lost"}


def test_two_sweeps_within_a_second_write_a_lost_note_again_once() -> None:
    here = ward(running(idle=FRESH, notes=""), jobs={"j-1": "running"})
    here.tracker.rows["x-1"]["metadata"][MARK] = "w-of-the-record"

    def other_sweep(_change: Change) -> None:
        row = here.tracker.rows["x-1"]
        row["notes"] += "\ndispatched: job=j-1"
        row["metadata"] = row["metadata"] | {MARK: "w-of-the-other-sweep", "bdauto.noted": "a-1"}

    here.tracker.before_write = other_sweep
    assert said(here.sweep()) == {"x-1": "kept"}
    assert here.tracker.notes("x-1")[1:] == ["dispatched: job=j-1"]


def test_a_note_that_is_there_is_not_written_again() -> None:
    here = ward(running(idle=FRESH), jobs={"j-1": "running"})
    here.sweep()
    assert here.tracker.written == []


@pytest.mark.parametrize("moved", [{"updated_at": NOW}, {"status": "closed"}, {"assignee": "ann"}], ids=str)
def test_a_bead_that_moved_since_it_was_read_stays_as_it_is(moved: dict[str, Any]) -> None:
    here = ward(running(idle=STALE))
    here.tracker.before_write = lambda change: here.tracker.rows["x-1"].update(moved)
    before = here.tracker.notes("x-1")
    report = here.sweep()
    assert (said(report), report.exit_code) == ({"x-1": "lost"}, 0)
    assert here.tracker.notes("x-1") == before
    assert here.tracker.rows["x-1"]["status"] == moved.get("status", "in_progress")


def failing(bead_id: str, error: BdError) -> Callable[[Change], None]:
    def fail(change: Change) -> None:
        if change.bead.id == bead_id:
            raise error

    return fail


def test_one_bead_s_failure_does_not_end_the_sweep() -> None:
    here = ward(*many(3))
    here.tracker.before_write = failing("x-2", BdFailed("bd sql failed: too odd"))
    report = here.sweep()
    assert said(report) == {"x-1": "blocked", "x-2": "failed", "x-3": "blocked"}
    assert (report.outcome, report.exit_code) == (Outcome.partial, 5)
    assert "x-2" in str(report.error)


def test_a_bd_that_hangs_ends_the_sweep() -> None:
    here = ward(*many(3))
    here.tracker.before_write = failing("x-2", BdTimeout("bd sql did not answer"))
    assert here.sweep().exit_code == 3


def test_an_unreadable_bead_is_counted_and_the_others_are_settled() -> None:
    here = ward(*many(2))
    here.tracker.broken = {"x-1": {"updated_at": "yesterday"}}
    report = here.sweep()
    assert (said(report), report.exit_code) == ({"x-2": "blocked"}, 5)
    assert "x-1" in report.malformed[0]


def test_a_bd_that_cannot_be_read_settles_nothing() -> None:
    here = ward(*many(1))
    here.tracker.broken = {"x-1": {"status": 7}}
    report = here.sweep()
    assert (report.outcome, report.exit_code, here.tracker.written) == (Outcome.failed, 3, [])


def test_paused_settles_nothing_unless_told_to() -> None:
    here = ward(*many(1))
    here.tracker.store = {KEY: '{"reason": "migration"}'}
    report = here.sweep()
    assert (report.outcome, report.exit_code, here.tracker.written) == (Outcome.paused, 0, [])
    assert "migration" in report.detail
    assert said(here.sweep(ignore_pause=True)) == {"x-1": "blocked"}


def test_a_dry_run_decides_the_same_and_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    here = ward(*many(2), running("x-3", idle=FRESH, notes=""))
    reaper = here.reaper(dry_run=True)
    reaper.writer = DryWriter()
    with caplog.at_level(logging.INFO, "bdauto"):
        report = reaper.sweep()
    assert (said(report), report.dry_run) == ({"x-1": "blocked", "x-2": "blocked", "x-3": "kept"}, True)
    assert [record.getMessage() for record in caplog.records] == ["note-lost", "would-reap", "would-reap", "kept"]
    assert here.tracker.written == []


def test_nothing_in_progress_is_idle() -> None:
    report = ward(row("x-1")).sweep()
    assert (report.outcome, report.exit_code, report.beads) == (Outcome.idle, 0, ())


@pytest.mark.parametrize(
    ("state", "words"),
    [("died", "has died"), ("timed out", "has timed out"), ("cancelled", "is cancelled"), ("failed", "is failed")],
)
def test_how_a_job_of_a_host_ended_is_said_in_words(state: str, words: str) -> None:
    bead = msgspec.convert(running(idle=FRESH), Bead)
    decision = decide_reap(bead, JobEvidence({"x-1": state}), ReapSettings(), NOW)
    assert decision.evidence == f"job j-1 {words} but the bead is still in progress"


def signed(bead_id: str, *, idle: timedelta = STALE, **own: Any) -> dict[str, Any]:
    """Return a bead whose POST had an unknown outcome, and whose agent has signed for the job `j-` plus its id."""
    error = "dispatch outcome unknown: no answer"
    return running(bead_id, idle=idle, notes=f"\n{error}\nclaimed by agent j-{bead_id}", job=None, error=error, **own)


def test_many_signed_jobs_are_asked_about_once_and_for_a_minute() -> None:
    names = [f"x-{number}" for number in range(9)]
    here = ward(*(signed(name, attempt=f"a-{name}") for name in names))
    services, asked, began = here.board.services(agent=True)(), list[str](), here.clock.time

    def ask(job: str) -> dict[str, Any]:
        asked.append(job)
        here.clock.sleep(12)
        return {"status": "running"}

    runtime = here.clock.runtime()
    services.questions = JobQuestions(ask, timedelta(seconds=15), runtime.monotonic, runtime.rng, at_once=0)
    reaper = Reaper(here.tracker, here.tracker, lambda: services, ReapSettings(), runtime)
    report = reaper.sweep()
    assert (len(asked), here.clock.time - began) == (5, timedelta(minutes=1))
    assert said(report) == dict.fromkeys(names, "kept")
    assert sum("no time to ask about job j-x-" in bead.detail for bead in report.beads) == 4
    assert {here.own_job(name) for name in names} == {*asked, ""}
    reaper.sweep()
    assert {here.own_job(name) for name in names} == {f"j-{name}" for name in names}


@pytest.mark.parametrize(("state", "job", "outcome"), [(None, "", "blocked"), ("running", "j-x-1", "kept")])
def test_a_signed_job_counts_if_the_service_knows_it(state: str | None, job: str, outcome: str) -> None:
    here = ward(signed("x-1"), jobs={"j-x-1": state} if state else {})
    assert said(here.sweep()) == {"x-1": outcome}
    assert (here.own_job("x-1"), len([r for r in here.board.requests if "/jobs/" in r.url.path])) == (job, 1)


def test_a_signed_job_that_another_bead_records_is_none_of_this_bead() -> None:
    other = running("x-2", idle=FRESH, job="j-x-1")
    here = ward(signed("x-1"), other, jobs={"j-x-1": "running"})
    assert said(here.sweep()) == {"x-1": "blocked", "x-2": "kept"}
    assert here.own_job("x-1") == ""


def test_a_dry_run_says_of_a_signed_job_what_a_sweep_would() -> None:
    here = ward(signed("x-1"), jobs={"j-x-1": "completed"})
    settings, runtime = ReapSettings(dry_run=True), here.clock.runtime()
    [told] = Reaper(here.tracker, DryWriter(), here.board.services(agent=True), settings, runtime).sweep().beads
    assert told.detail.startswith("job j-x-1 is completed")
