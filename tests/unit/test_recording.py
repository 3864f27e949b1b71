"""How jobs ended, recorded on their beads: once each, whoever has them by then, also of the attempts before."""

import json
import logging
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.bd.change import MARK, Change
from bdauto.common.errors import BdFailed
from bdauto.controllers.reaper import Reaper
from bdauto.domain.outcome import Report
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import ReapSettings
from bdauto.domain.times import format_time
from bdauto.telemetry.families import COMPLETIONS
from bdauto.telemetry.metrics import Metrics
from tests.support.fakes import NOW, Board, Clock, Tracker, row

CLAIMED = NOW - timedelta(minutes=10)
SAID = '{"type": "result", "result": "Fixed.", "num_turns": 12, "total_cost_usd": 0.42}'
ENDED = {
    "status": "completed",
    "started_at": format_time(CLAIMED),
    "finished_at": format_time(CLAIMED + timedelta(seconds=252)),
    "output": [SAID],
}


def job(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json=ENDED | fields)


def dispatched(bead_id: str = "x-1", status: str = "closed", *, notes: str = "", **own: Any) -> dict[str, Any]:
    """Return a bead that was dispatched as job j-1, and that somebody has taken to this status since."""
    own = {
        "attempt": "a1",
        "claimed_at": format_time(CLAIMED),
        "job": "j-1",
        "result": "running",
        "assignee": "agent",
        "write": "w1",
    } | own
    claim = f"auto-dispatcher claimed at {format_time(CLAIMED)}\ndispatched: job={own['job']}\nclaimed by agent j-1"
    return row(
        bead_id,
        status=status,
        updated_at=NOW - timedelta(minutes=5),
        closed_at=NOW - timedelta(minutes=5) if status == "closed" else None,
        notes=f"{claim}{notes}",
        metadata={f"bdauto.{key}": value for key, value in own.items() if value is not None},
    )


def tracker(*rows: dict[str, Any]) -> Tracker:
    return Tracker(Clock(), *rows)


def sweep(tracker: Tracker, agent: bool = True, dry_run: bool = False, **jobs: httpx.Response | str) -> Report:
    board = Board(jobs={name.replace("_", "-"): answer for name, answer in jobs.items()})
    services = board.services(agent=True) if agent else None
    return Reaper(tracker, tracker, services, ReapSettings(dry_run=dry_run), tracker.clock.runtime()).sweep()


NOTE = "agent finished: job=j-1 completed in 4m12s, $0.42 at 2026-04-18T22:29:58Z"
RESULT = {
    "result": "completed",
    "ended_at": "2026-04-18T22:29:58Z",
    "runs": 1,
    "seconds": 252,
    "cost_usd": 0.42,
    "turns": 12,
}


def results(tracker: Tracker, bead_id: str = "x-1") -> dict[str, Any]:
    """Return what is recorded of the last run that ended, and how many have."""
    record = tracker.bead(bead_id).record
    ended = [msgspec.to_builtins(run) for run in record.runs if run.ended_at]
    last = ended[-1] if ended else {}
    known = {"ended_at": last.get("ended"), "cost_usd": last.get("cost")}
    known |= {key: last.get(key) for key in ("seconds", "turns")}
    counted = {"result": record.result or None, "runs": len(ended) or None}
    return {key: value for key, value in (counted | known).items() if value is not None}


def test_of_a_bead_that_the_agent_has_closed() -> None:
    here = tracker(dispatched())
    sweep(here, j_1=job())
    assert results(here) == RESULT
    assert here.notes("x-1")[-1] == NOTE
    assert here.bead("x-1").status == "closed"
    assert here.own("x-1")["job"] == "j-1"


@pytest.mark.parametrize("status", ["blocked", "open", "deferred"])
def test_the_agent_s_last_line_is_noted_where_the_bead_was_not_closed(status: str) -> None:
    here = tracker(dispatched(status=status))
    sweep(here, j_1=job())
    assert here.notes("x-1")[-1] == f"{NOTE}: Fixed."
    assert here.bead("x-1").status == status


def test_of_a_bead_in_progress_with_the_decision_in_one_write() -> None:
    here = tracker(dispatched(status="in_progress"))
    sweep(here, j_1=job())
    assert results(here) == RESULT
    assert here.notes("x-1")[-2:] == [
        f"{NOTE}: Fixed.",
        "reaper: job j-1 is completed but the bead is still in progress — blocking",
    ]
    assert [change.act for change in here.written] == ["block"]


def test_a_job_that_runs_is_left_alone() -> None:
    here = tracker(dispatched(), dispatched("x-2", status="in_progress", job="j-2"))
    sweep(here, j_1="running", j_2="running")
    assert here.written == []


def test_each_end_is_recorded_once() -> None:
    here = tracker(dispatched())
    sweep(here, j_1=job())
    sweep(here, j_1=job())
    assert results(here) == RESULT
    assert len(here.written) == 1


def test_of_two_sweeps_at_once_one_records_it() -> None:
    here = tracker(dispatched())

    def first(change: Change) -> None:
        here.before_write = lambda change: None
        sweep(here, j_1=job())

    here.before_write = first
    sweep(here, j_1=job())
    assert (results(here), here.notes("x-1").count(NOTE)) == (RESULT, 1)


BEFORE = {"attempt": "a0", "job": "j-0", "ended": "2026-04-18T21:00:00Z", "result": "failed", "cost": 0.5}


def test_the_runs_before_stay_in_the_list() -> None:
    here = tracker(dispatched(runs=json.dumps([BEFORE])))
    sweep(here, j_1=job())
    assert results(here) == RESULT | {"runs": 2}
    assert [run.cost_usd for run in here.bead("x-1").record.runs] == [0.5, 0.42]


def test_the_end_of_a_run_is_recorded_though_its_bead_was_claimed_anew() -> None:
    """Somebody opened the bead before a sweep saw its job's end, and a dispatcher claimed it again."""
    unended = {"attempt": "a0", "claimed": format_time(CLAIMED - timedelta(minutes=9)), "job": "j-0"}
    here = tracker(dispatched(status="in_progress", runs=json.dumps([unended])))
    over = job(finished_at=format_time(CLAIMED))
    sweep(here, j_0=over, j_1="running")
    record = here.bead("x-1").record
    assert [(run.attempt, run.result, run.cost_usd) for run in record.runs] == [("a0", "completed", 0.42)]
    assert (record.attempt, record.job, record.result) == ("a1", "j-1", "running")
    sweep(here, j_0=over, j_1="running")
    assert len(here.written) == 1


def test_a_run_before_that_is_forgotten_is_lost_and_the_one_at_hand_goes_on() -> None:
    unended = {"attempt": "a0", "claimed": format_time(CLAIMED - timedelta(minutes=9)), "job": "j-0"}
    here = tracker(dispatched(status="in_progress", runs=json.dumps([unended])))
    sweep(here, j_1="running")
    assert [run.result for run in here.bead("x-1").record.all_runs] == ["lost", None]


def test_a_run_before_whose_job_is_not_known_holds_up_no_result() -> None:
    """Nobody can ever be asked about it."""
    unended = {"attempt": "a0", "claimed": format_time(CLAIMED - timedelta(minutes=9)), "job": ""}
    here = tracker(dispatched(runs=json.dumps([unended])))
    sweep(here, j_1=job())
    here.rows["x-1"]["metadata"][MARK] = "w9"  # the second sweep here would choose the first one's
    sweep(here, j_1=job())
    assert [run.result for run in here.bead("x-1").record.all_runs] == ["lost", "completed"]


def test_unknown_is_not_zero() -> None:
    here = tracker(dispatched())
    sweep(here, j_1=job(output=["done"], started_at=None))
    assert results(here) == {key: RESULT[key] for key in ("result", "ended_at", "runs")}
    assert here.notes("x-1")[-1] == "agent finished: job=j-1 completed at 2026-04-18T22:29:58Z"


def test_a_job_that_the_service_has_forgotten_is_lost_since_the_bead_was_closed() -> None:
    here = tracker(dispatched())
    sweep(here)
    ended = format_time(NOW - timedelta(minutes=5))
    assert results(here) == {"result": "lost", "ended_at": ended, "runs": 1}


@pytest.mark.parametrize(("hours", "lost"), [(23, False), (25, True)])
def test_a_job_that_nobody_can_be_asked_about_is_lost_after_a_day(hours: int, lost: bool) -> None:
    here = tracker(dispatched() | {"updated_at": NOW - timedelta(hours=hours)})
    sweep(here, j_1=httpx.Response(503))
    assert (results(here)["result"] == "lost") is lost


def test_the_job_of_a_host_is_not_asked_about_elsewhere() -> None:
    here = tracker(dispatched(host="moon"), dispatched("x-2", assignee="other"))
    sweep(here)
    assert here.written == []


def test_without_an_agent_service_nothing_is_listed_and_a_stalled_job_is_lost() -> None:
    here = tracker(dispatched(), dispatched("x-2", status="in_progress") | {"updated_at": NOW - timedelta(hours=1)})
    sweep(here, agent=False)
    assert "results" not in here.reads
    assert results(here) == {"result": "running"}
    assert results(here, "x-2") == {"result": "lost", "ended_at": format_time(NOW), "runs": 1}


def test_a_claim_that_was_never_dispatched_has_no_result() -> None:
    orphan = dispatched(status="in_progress", job=None, result=None) | {"updated_at": NOW - timedelta(hours=1)}
    orphan["notes"] = f"auto-dispatcher claimed at {format_time(CLAIMED)}"
    here = tracker(orphan)
    sweep(here)
    assert here.bead("x-1").status == "open"
    assert results(here) == {}
    assert not any("agent finished" in note for note in here.notes("x-1"))


def test_a_bead_that_bdauto_never_claimed_has_no_result() -> None:
    here = tracker(row("x-1", status="in_progress", updated_at=NOW - timedelta(hours=2)))
    sweep(here)
    assert here.bead("x-1").status == "blocked"
    assert results(here) == {}


def test_what_was_recorded_of_this_attempt_is_not_recorded_again() -> None:
    done = BEFORE | {"attempt": "a1", "job": "j-1"}
    here = tracker(dispatched(status="in_progress", result="failed", runs=json.dumps([done])))
    sweep(here, j_1=job())
    assert [run.result for run in here.bead("x-1").record.runs] == ["failed"]


def test_a_result_of_the_attempt_before_does_not_stand_for_this_one() -> None:
    here = tracker(dispatched(status="in_progress", runs=json.dumps([BEFORE])))
    sweep(here, j_1=job())
    assert [run.result for run in here.bead("x-1").record.runs] == ["failed", "completed"]


def test_a_secret_in_the_last_line_is_not_noted() -> None:
    here = tracker(dispatched(status="blocked"))
    sweep(here, j_1=job(output=["no luck with sk-ant-abcdefgh12345678"]))
    assert here.notes("x-1")[-1].endswith(": no luck with ***")


@pytest.mark.parametrize("status", ["closed", "in_progress"])
def test_a_service_whose_clock_is_wrong_ends_no_job_before_its_claim(status: str) -> None:
    here = tracker(dispatched(status=status))
    sweep(here, j_1=job(started_at="1970-01-01T00:00:00Z", finished_at="1970-01-01T00:04:12Z"))
    assert results(here) == RESULT | {"ended_at": format_time(CLAIMED)}


def test_a_dry_run_lists_and_records_nothing() -> None:
    here = tracker(dispatched())
    sweep(here, dry_run=True, j_1=job())
    assert here.written == []
    assert "results" not in here.reads


def test_runs_that_bd_cannot_list_are_reported_and_the_sweep_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    here = tracker(dispatched(), dispatched("x-2", "in_progress", job="j-2"))

    def fail(verb: str) -> None:
        if verb == "results":
            raise BdFailed("unknown flag: --metadata-field")

    here.before_read = fail
    with caplog.at_level(logging.WARNING, "bdauto"):
        report = sweep(here, j_1=job(), j_2=job())
    assert [record.getMessage() for record in caplog.records] == ["results-failed", "blocked"]
    assert (report.exit_code, report.outcome) == (3, "partial")
    assert "unknown flag" in str(report.error)


def test_one_bead_that_cannot_be_written_does_not_affect_the_others(caplog: pytest.LogCaptureFixture) -> None:
    here = tracker(dispatched(), dispatched("x-2", job="j-2"))

    def fail(change: Change) -> None:
        if change.bead.id == "x-1":
            raise BdFailed("no")

    here.before_write = fail
    with caplog.at_level(logging.WARNING, "bdauto"):
        sweep(here, j_1=job(), j_2=job())
    assert (results(here)["result"], results(here, "x-2")["result"]) == ("running", "completed")
    assert [record.getMessage() for record in caplog.records] == ["failed"]


def test_a_claim_since_the_look_keeps_its_bead() -> None:
    here = tracker(dispatched(status="open"))

    def claim(change: Change) -> None:
        here.rows["x-1"]["metadata"] |= {"bdauto.attempt": "a2", "bdauto.write": "w2"}

    here.before_write = claim
    sweep(here, j_1=job())
    assert results(here) == {"result": "running"}


def test_beads_that_their_agents_have_left_are_said_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    here = tracker(dispatched(), dispatched("x-2", "blocked", job="j-2"), dispatched("x-3", "deferred", job="j-3"))
    metrics = Metrics("reap")
    with caplog.at_level(logging.INFO, "bdauto"):
        for _ in range(2):
            metrics.count(sweep(here, j_1=job(), j_2=job(), j_3="running"), 1.0, NOW)
    said = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "result"]
    assert [(one["bead"], one["job"], one["status"], one["seconds"]) for one in said] == [
        ("x-1", "j-1", "closed", 252),
        ("x-2", "j-2", "blocked", 252),
    ]
    counts = [metrics.registry.get_sample_value(COMPLETIONS, {"outcome": name}) for name in ("closed", "blocked")]
    assert (counts, metrics.registry.get_sample_value(COMPLETIONS, {"outcome": "other"})) == ([1, 1], 0)


def ended(job: str) -> Run:
    """A job as the jobs folder of a machine knows it."""
    return Run(attempt=job, job=job, result=Result.completed, ended_at=NOW, cost_usd=0.42, seconds=3)


def test_the_end_of_a_job_whose_bead_was_deleted_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose end stands on its bead is marked, and one that is not known yet to be recorded is looked at again."""
    caplog.set_level(logging.INFO)
    left = {"a1": "x-1", "w2": "x-2", "w3": "x-3"}
    marks: dict[str, bool] = {}
    monkeypatch.setattr(
        BeadBoardRunner, "unrecorded", lambda _: [(bead, ended(job)) for job, bead in left.items() if job not in marks]
    )
    monkeypatch.setattr(BeadBoardRunner, "mark_recorded", lambda _, job, deleted: marks.update({job: deleted}))
    there = tracker(dispatched(), dispatched("x-3", "in_progress", attempt="w3", job="w3"))
    for _ in range(3):
        sweep(there, j_1=job(), w3=job(status="running"))
    said = [record.fields for record in caplog.records if record.message == "result"]  # type: ignore[attr-defined]
    assert [(one["bead"], one["status"], one["cost_usd"]) for one in said] == [
        ("x-1", "closed", 0.42),
        ("x-2", "deleted", 0.42),
    ]
    assert marks == {"a1": False, "w2": True}


@pytest.mark.parametrize("status", ["closed", "in_progress"])
def test_the_cost_of_a_bead_that_was_renamed_is_counted_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    """The jobs folder knows it by its earlier id."""
    caplog.set_level(logging.INFO)
    marks: dict[str, bool] = {}
    monkeypatch.setattr(BeadBoardRunner, "unrecorded", lambda _: [] if marks else [("x-0", ended("a1"))])
    monkeypatch.setattr(BeadBoardRunner, "mark_recorded", lambda _, job, deleted: marks.update({job: deleted}))
    there = tracker(dispatched(status=status, attempt="a1", job="a1"))
    for _ in range(2):
        sweep(there, a1=job())
    said = [record.fields["bead"] for record in caplog.records if record.message == "result"]  # type: ignore[attr-defined]
    assert said == ["x-1"]


@pytest.mark.parametrize("status", ["closed", "open"])
@pytest.mark.parametrize(
    "forged",
    [
        dict.fromkeys(("attempt", "claimed_at", "job", "result", "assignee", "write")),
        {"result": "completed"},
        {"result": "completed", "attempt": "other", "job": "other"},
        {"result": "completed", "runs": json.dumps([{"attempt": "a1", "ended": f"{NOW:%FT%TZ}", "cost": 0.01}])},
        {"runs": json.dumps([{"attempt": "other"}])},
    ],
)
def test_an_agent_that_edits_its_record_takes_no_cost_away(
    monkeypatch: pytest.MonkeyPatch, forged: dict[str, Any], status: str
) -> None:
    """The jobs folder of this machine says how a job ended and what it cost. It is written once."""
    marks: list[str] = []
    monkeypatch.setattr(BeadBoardRunner, "unrecorded", lambda _: [] if marks else [("x-1", ended("a1"))])
    monkeypatch.setattr(BeadBoardRunner, "mark_recorded", lambda _, job, deleted: marks.append(job))
    there = tracker(dispatched(status=status, **forged))
    services = Board(jobs={}).services(agent=True)
    reaper = Reaper(there, there, services, ReapSettings(), there.clock.runtime())
    reports = [reaper.sweep() for _ in range(3)]
    [bead] = there.read(["x-1"]).result().beads
    assert [run.cost_usd for run in bead.record.runs if run.attempt == "a1"] == [0.42]
    assert bead.record.assignee == "agent"
    assert (reports[0].ended, reports[2].ended, marks) == ((status,), (), ["a1"])


@pytest.mark.parametrize(("actor", "noted"), [("ada", 1), ("agent", 0)])
def test_a_job_that_a_service_cannot_end_is_named_once_on_its_bead(actor: str, noted: int) -> None:
    here = tracker(dispatched(status="blocked"))
    event = {"issue_id": "x-1", "actor": actor, "event_type": "status_changed", "created_at": "2026-04-18T22:30:00Z"}
    here.recorded = [event | {"new_value": {"status": "blocked"}}]
    for _ in range(3):
        sweep(here, j_1=job(status="running", finished_at=None))
    words = "job j-1 goes on: ada set the bead to blocked, and an agent service cannot end a job"
    assert [note for note in here.notes("x-1") if "goes on" in note] == [words] * noted
