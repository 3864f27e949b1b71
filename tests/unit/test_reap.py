"""One sweep of the reaper: the evidence table row by row, the mass guard, and writes that fail or come too late."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from bdauto.changes import Change, DryWriter
from bdauto.errors import BdError, BdFailed, BdTimeout
from bdauto.models import format_time
from bdauto.outcome import Outcome, Report
from bdauto.pause import KEY
from bdauto.reap import Reaper
from bdauto.settings import OnStall, ReapSettings

from .doubles import NOW, Board, Clock, Reply, Tracker, row


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
    """Return a bead that bdauto claimed and dispatched as job j-1, with no update for so long."""
    claimed = NOW - idle
    own = {"attempt": "a1", "attempts": 1, "claimed_at": format_time(claimed), "job": "j-1"} | own
    claim = f"auto-dispatcher claimed at {format_time(claimed)}"
    return row(
        bead_id,
        status="in_progress",
        updated_at=claimed,
        notes=f"{claim}\ndispatched: job=j-1" if notes is None else f"{claim}{notes}",
        metadata={f"bdauto.{key}": value for key, value in own.items() if value is not None},
    )


def said(report: Report) -> dict[str, str]:
    return {bead.id: bead.outcome.value for bead in report.beads}


DAYS, FRESH, STALE = timedelta(days=5), timedelta(minutes=1), timedelta(minutes=31)
Row = tuple[str, dict[str, Any], str | Reply | None, str, str]
EVIDENCE: list[Row] = [
    ("queued", running(idle=DAYS), "queued", "kept", "job j-1 is queued"),
    ("running", running(idle=DAYS), "running", "kept", "job j-1 is running"),
    ("failed", running(idle=FRESH), "failed", "blocked", "job j-1 is failed but the bead is still in progress"),
    ("timeout", running(idle=FRESH), "timeout", "blocked", "job j-1 is timeout"),
    ("error", running(idle=FRESH), "error", "blocked", "job j-1 is error"),
    ("completed", running(idle=FRESH), "completed", "blocked", "job j-1 is completed"),
    ("forgotten, fresh", running(idle=FRESH), None, "kept", "1m since the last update"),
    ("forgotten, stale", running(idle=STALE), None, "blocked", "no progress for 31m (threshold 30m)"),
    ("at the threshold", running(idle=timedelta(minutes=30)), None, "kept", "30m since"),
    ("down, fresh", running(idle=FRESH), httpx.ConnectError("refused"), "kept", "1m since"),
    ("down, stale", running(idle=STALE), httpx.Response(503), "blocked", "no progress for 31m"),
    ("bad token, stale", running(idle=STALE), httpx.Response(401), "blocked", "no progress for 31m"),
    ("HTML, fresh", running(idle=FRESH), httpx.Response(200, text="<html>"), "kept", "1m since"),
    ("a state of tomorrow, fresh", running(idle=FRESH), "resting", "kept", "1m since"),
    ("a state of tomorrow, stale", running(idle=STALE), "resting", "blocked", "no progress for 31m"),
    ("orphan", running(idle=timedelta(minutes=11), notes="", job=None), None, "released", "no job recorded"),
    ("orphan, in grace", running(idle=timedelta(minutes=9), notes="", job=None), None, "kept", "within the grace"),
    ("orphan, at the grace", running(idle=timedelta(minutes=10), notes="", job=None), None, "kept", "within the grace"),
    (
        "sign of the agent",
        running(idle=timedelta(minutes=11), notes="\nclaimed by agent j-9", job=None),
        None,
        "kept",
        "11m since",
    ),
    (
        "sign of the agent, stale",
        running(idle=STALE, notes="\nclaimed by agent j-9", job=None),
        None,
        "blocked",
        "no progress for 31m",
    ),
    (
        "unknown outcome",
        running(idle=timedelta(minutes=11), notes="", job=None, error="dispatch outcome unknown: no answer"),
        None,
        "kept",
        "11m since",
    ),
    (
        "unknown outcome, stale",
        running(idle=STALE, notes="", job=None, error="dispatch outcome unknown: no answer"),
        None,
        "blocked",
        "no progress for 31m",
    ),
    ("taken by hand, fresh", row("x-1", status="in_progress", updated_at=ago(minutes=20)), None, "kept", "20m since"),
    ("taken by hand, stale", row("x-1", status="in_progress", updated_at=ago(hours=2)), None, "blocked", "for 120m"),
    ("ahead of the clock", row("x-1", status="in_progress", updated_at=ago(seconds=-1)), None, "kept", "0s since"),
    ("ephemeral", running(idle=DAYS) | {"ephemeral": True}, "failed", "kept", "ephemeral"),
]


@pytest.mark.parametrize(
    ("bead", "job", "outcome", "evidence"), [e[1:] for e in EVIDENCE], ids=[e[0] for e in EVIDENCE]
)
def test_the_evidence_decides(bead: dict[str, Any], job: str | Reply | None, outcome: str, evidence: str) -> None:
    here = ward(dict(bead), jobs={"j-1": job} if job else {})
    report = here.sweep()
    assert said(report) == {"x-1": outcome}
    assert evidence in report.beads[0].detail
    assert report.exit_code == 0
    status = {"kept": "in_progress", "blocked": "blocked", "released": "open"}[outcome]
    assert here.tracker.bead("x-1").status == status
    assert report.outcome is (Outcome.idle if outcome == "kept" else Outcome.reaped)


def test_the_sign_of_the_agent_counts_only_after_the_last_claim() -> None:
    notes = "\nclaimed by agent j-0\nauto-dispatcher claimed at 2026-04-18T22:24:00Z"
    here = ward(running(idle=timedelta(minutes=11), notes=notes, job=None))
    assert said(here.sweep()) == {"x-1": "released"}


def test_a_stalled_bead_is_blocked_with_the_note_to_the_letter_and_forgets_its_counters() -> None:
    here = ward(running(idle=timedelta(minutes=42)))
    here.agent = False
    assert said(here.sweep()) == {"x-1": "blocked"}
    assert here.tracker.notes("x-1")[-1] == "reaper: no progress for 42m (threshold 30m) — blocking"
    assert here.tracker.own("x-1") == {"blocked": "no progress for 42m (threshold 30m)"}


def test_the_note_names_the_job_and_its_state() -> None:
    here = ward(running(idle=FRESH), jobs={"j-1": "failed"})
    here.sweep()
    note = here.tracker.notes("x-1")[-1]
    assert note == "reaper: job j-1 is failed but the bead is still in progress — blocking"


def test_a_job_is_asked_for_with_the_token_and_only_for_beads_with_a_job() -> None:
    here = ward(running(idle=FRESH), running("x-2", idle=FRESH, notes="", job=None), jobs={"j-1": "running"})
    here.sweep()
    [request] = here.board.requests
    assert request.url.path == "/jobs/j-1"


def test_an_orphan_is_open_again_with_its_attempt_charged_and_waits() -> None:
    here = ward(running(idle=timedelta(minutes=11), notes="", job=None, attempts=2))
    here.sweep()
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.attempts, bead.attempt, bead.claimed_at) == ("open", 2, "", None)
    assert bead.retry_at is not None
    assert bead.retry_at > NOW
    note = here.tracker.notes("x-1")[-1]
    assert note.startswith("reaper: claimed 11m ago, no job recorded and no sign of the agent (grace 10m)")


def test_requeue_opens_a_stalled_bead_until_its_attempts_are_used_up() -> None:
    here = ward(
        running("x-1", idle=STALE, attempts=1),
        running("x-2", idle=STALE, attempts=2),
        running("x-3", idle=STALE, attempts=3),
        on_stall=OnStall.requeue,
    )
    assert said(here.sweep()) == {"x-1": "requeued", "x-2": "requeued", "x-3": "blocked"}
    bead = here.tracker.bead("x-2")
    assert (bead.status, bead.attempts, bead.job, bead.failures) == ("open", 2, "", 1)
    assert bead.retry_at is not None
    assert timedelta(minutes=1) <= bead.retry_at - NOW <= timedelta(minutes=2)
    assert here.tracker.notes("x-2")[-1] == "reaper: no progress for 31m (threshold 30m) — requeueing"
    assert here.tracker.bead("x-3").status == "blocked"


def test_requeue_settles_a_failed_job_too() -> None:
    here = ward(running(idle=FRESH), jobs={"j-1": "timeout"}, on_stall=OnStall.requeue)
    assert said(here.sweep()) == {"x-1": "requeued"}


def many(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [running(f"x-{n}", idle=STALE, **fields) for n in range(1, count + 1)]


def test_more_stalled_beads_than_max_reap_and_nothing_is_written() -> None:
    here = ward(*many(11))
    report = here.sweep()
    assert (report.outcome, report.exit_code, here.tracker.written) == (Outcome.partial, 5, [])
    assert set(said(report).values()) == {"kept"}
    for word in ("11 beads", "--max-reap 10", "clock", "--force"):
        assert word in str(report.error)


def test_the_guard_counts_orphans_but_no_bead_whose_job_is_known() -> None:
    orphans = [running(f"o-{n}", idle=timedelta(minutes=11), notes="", job=None) for n in range(3)]
    known = [running(f"k-{n}", idle=STALE) for n in range(9)]
    assert ward(*orphans, max_reap=2).sweep().exit_code == 5
    here = ward(*orphans, *known, jobs={"j-1": "failed"}, max_reap=3)
    assert here.sweep().exit_code == 0
    assert {r["status"] for r in here.tracker.rows.values()} == {"open", "blocked"}


@pytest.mark.parametrize(("settings"), [{"force": True}, {"max_reap": 11}], ids=["--force", "a higher --max-reap"])
def test_force_or_a_higher_limit_settles_them_all(settings: dict[str, Any]) -> None:
    here = ward(*many(11))
    assert set(said(here.sweep(**settings)).values()) == {"blocked"}


def test_a_lost_note_is_written_again_once() -> None:
    here = ward(running(idle=FRESH, notes=""), jobs={"j-1": "running"})
    for _ in range(3):
        assert said(here.sweep()) == {"x-1": "kept"}
    assert here.tracker.notes("x-1")[1:] == ["dispatched: job=j-1"]
    here.tracker.rows["x-1"]["notes"] = "a person cleared the notes"
    here.sweep()
    assert here.tracker.notes("x-1") == ["a person cleared the notes"]


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


def test_a_dry_run_decides_the_same_and_writes_nothing() -> None:
    here = ward(*many(2), running("x-3", idle=FRESH, notes=""))
    reaper = here.reaper(dry_run=True)
    reaper.writer = DryWriter()
    report = reaper.sweep()
    assert (said(report), report.dry_run) == ({"x-1": "blocked", "x-2": "blocked", "x-3": "kept"}, True)
    assert here.tracker.written == []


def test_nothing_in_progress_is_idle() -> None:
    report = ward(row("x-1")).sweep()
    assert (report.outcome, report.exit_code, report.beads) == (Outcome.idle, 0, ())
