"""Before a POST: each job that a bead names is asked about, and one that may run keeps the bead from being posted."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.notes import UNKNOWN
from bdauto.domain.outcome import Report
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, dispatcher, row

ROOM = {"busy": False, "active": 0, "queued": 0, "capacity": 9}
CLAIM = f"auto-dispatcher claimed at {format_time(NOW - timedelta(hours=1))}"
NAMES: dict[str, dict[str, Any]] = {
    "signed": {"notes": "mine\nclaimed by agent j-1\nhalf done"},
    "signed with words": {"notes": "claimed by agent j-1: I begin."},
    "signed by an earlier one": {"notes": "claimed by agent j-1\nclaimed by agent j-2"},
    "noted": {"notes": f"{CLAIM}\ndispatched: job=j-1\nreaper: no progress for 120m — requeueing"},
    "recorded": {"metadata": {"bdauto.job": "j-1"}},
    "opened by a person": {
        "notes": f"{CLAIM}\ndispatched: job=j-1",
        "metadata": {"bdauto.attempt": "a-1", "bdauto.attempts": 2, "bdauto.job": "j-1"},
    },
}
NO_VERDICT: dict[str, Reply] = {
    "401": httpx.Response(401),
    "403": httpx.Response(403),
    "500": httpx.Response(500),
    "503": httpx.Response(503),
    "422": httpx.Response(422),
    "time-out": httpx.ReadTimeout("slow"),
    "no connection": httpx.ConnectError("refused"),
    "garbage": httpx.Response(200, text="<html>"),
    "no state": httpx.Response(200, json={"id": "j-1"}),
}


class Desk:
    """A tracker, a BeadBoard with an agent service, and cycles between them that share a memory."""

    def __init__(self, *rows: dict[str, Any], **jobs: str | Reply) -> None:
        self.clock = Clock()
        self.tracker = Tracker(self.clock, *rows)
        self.board = Board(health=[ROOM], jobs={job.replace("_", "-"): state for job, state in jobs.items()})
        self.started_jobs = StartedJobs()

    def cycle(self, *, agent: bool = True, **settings: Any) -> Report:
        runtime, chosen = self.clock.runtime(len(self.board.posts)), DispatchSettings(**settings)
        services = self.board.services(agent=agent)
        return dispatcher(self.tracker, self.tracker, services, chosen, runtime, started_jobs=self.started_jobs).cycle()


def said(report: Report) -> dict[str, str]:
    return {bead.id: bead.outcome.value for bead in report.beads}


@pytest.mark.parametrize("answer", NO_VERDICT.values(), ids=list(NO_VERDICT))
@pytest.mark.parametrize("named", NAMES.values(), ids=list(NAMES))
def test_no_answer_about_a_job_leaves_the_bead_alone(named: dict[str, Any], answer: Reply) -> None:
    here = Desk(row("x-1", **named), j_1=answer)
    before = dict(here.tracker.rows["x-1"])
    report = here.cycle()
    assert (said(report), report.exit_code, here.board.posts) == ({"x-1": "kept"}, 4, [])
    assert "nobody can be asked about its job j-1" in report.beads[0].detail
    assert "x-1 is not posted" in str(report.error)
    assert here.tracker.rows["x-1"] == before


@pytest.mark.parametrize("state", ["timeout", "resting"])
def test_a_state_that_is_no_end_leaves_the_bead_alone(state: str) -> None:
    """The agent service marks a job `timeout` and lets its process run on."""
    here = Desk(row("x-1", **NAMES["opened by a person"]), j_1=state)
    report = here.cycle()
    assert (said(report), here.board.posts) == ({"x-1": "kept"}, [])
    assert report.beads[0].detail == f"its job j-1 is {state}, and may run"


def test_a_noted_timeout_of_a_bead_that_a_person_opened_may_run() -> None:
    """A sweep notes the end of its job at once, but nobody has waited for the process, which runs on."""
    own = {"bdauto.attempt": "a-1", "bdauto.attempts": 1, "bdauto.job": "j-1"}
    notes = f"dispatched: job=j-1\nagent finished: job=j-1 timeout at {format_time(NOW)}"
    here = Desk(row("x-1", notes=notes, metadata=own), j_1="timeout")
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "kept"}, [])
    here.board.jobs = {}
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "dispatched"}, ["x-1"])


def opened(minutes: float, **own: Any) -> dict[str, Any]:
    """A bead that a person has opened so long after its claim, of which no job is known."""
    claimed = {"attempt": "a-1", "attempts": 1, "claimed_at": format_time(NOW - timedelta(minutes=minutes))}
    return row("x-1", updated_at=NOW, metadata={f"bdauto.{key}": value for key, value in (claimed | own).items()})


@pytest.mark.parametrize("own", [{}, {"error": f"{UNKNOWN}: HTTP 504", "died": "a-1"}])
@pytest.mark.parametrize(("minutes", "active"), [(1, 0), (1, 1), (29, 1)])
def test_a_claim_that_may_be_posted_is_not_posted_again(minutes: int, active: int, own: dict[str, Any]) -> None:
    """Its dispatcher was killed, or nobody answered it; then a person opened the bead before its agent had signed."""
    here = Desk(opened(minutes, **own))
    here.board.health = [ROOM | {"active": active}]
    report = here.cycle()
    assert (said(report), here.board.posts) == ({"x-1": "kept"}, [])
    words = f"it was claimed {minutes}m ago and may have been posted: nobody knows of its job"
    assert report.beads[0].detail == words


@pytest.mark.parametrize(("minutes", "active"), [(16, 0), (31, 1)])
def test_a_claim_that_was_opened_is_posted_once_nothing_can_run(minutes: int, active: int) -> None:
    here = Desk(opened(minutes))
    here.board.health = [ROOM | {"active": active}]
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "dispatched"}, ["x-1"])


def test_a_person_can_say_that_no_agent_works_on_an_opened_bead() -> None:
    here = Desk(opened(1))
    del here.tracker.rows["x-1"]["metadata"]["bdauto.attempt"]
    assert said(here.cycle()) == {"x-1": "dispatched"}


def test_a_timeout_that_the_reaper_has_settled_is_over() -> None:
    notes = f"dispatched: job=j-1\nagent finished: job=j-1 timeout at {format_time(NOW)}"
    assert said(Desk(row("x-1", notes=notes), j_1="timeout").cycle()) == {"x-1": "dispatched"}


@pytest.mark.parametrize("state", ["failed", "completed", "error", None])
@pytest.mark.parametrize("named", NAMES.values(), ids=list(NAMES))
def test_jobs_that_are_over_hold_nothing_back(named: dict[str, Any], state: str | None) -> None:
    here = Desk(row("x-1", **named), **({"j_1": state} if state else {}))
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "dispatched"}, ["x-1"])


def test_the_beads_behind_one_that_is_left_alone_are_dispatched() -> None:
    here = Desk(row("x-1", priority=0, **NAMES["signed"]), row("x-2"), j_1=httpx.Response(500))
    report = here.cycle()
    assert (said(report), report.exit_code) == ({"x-1": "kept", "x-2": "dispatched"}, 4)


def test_a_cycle_does_not_wait_for_ever_for_answers_about_jobs() -> None:
    beads = [row(f"x-{n}", priority=0, notes=f"claimed by agent j-{n}") for n in range(9)]
    here = Desk(*beads, row("y-1"))
    asked = []

    class Slow(dict[str, Any]):
        def get(self, job: str, _: Any = None) -> Reply:
            asked.append(job)
            here.clock.time += timedelta(seconds=10)
            return httpx.ReadTimeout("slow")

    here.board.jobs = Slow()
    report = here.cycle()
    assert said(report) == {bead["id"]: "kept" for bead in beads} | {"y-1": "dispatched"}
    assert len(asked) == 3


@pytest.mark.parametrize("silent", [1, 2])
def test_jobs_that_never_answer_do_not_keep_other_beads_back(silent: int) -> None:
    """They come first in each cycle. What the service says of another job shows that it answers."""
    beads = [row(f"x-{n}", priority=0, notes=f"claimed by agent j-{n}") for n in range(silent)]
    others = [row(f"y-{n}", notes=f"claimed by agent k-{n}") for n in range(3)]
    here = Desk(*beads, *others)

    class Slow(dict[str, Any]):
        def get(self, job: str, _: Any = None) -> Reply:
            if not job.startswith("j-"):
                return httpx.Response(404)
            here.clock.time += timedelta(seconds=30)
            return httpx.ReadTimeout("slow")

    here.board.jobs = Slow()
    report = here.cycle(max_beads=9)
    kept, dispatched = ({bead["id"]: word for bead in some} for some, word in ((beads, "kept"), (others, "dispatched")))
    assert (said(report), report.exit_code) == (kept | dispatched, 4)


def test_one_cycle_waits_for_a_bounded_number_of_answers() -> None:
    beads = [row(f"x-{n:02}", notes=f"claimed by agent {'k' if n % 3 == 2 else 'j'}-{n}") for n in range(30)]
    jobs: dict[str, Any] = {f"j_{n}": httpx.ReadTimeout("slow") for n in range(30)}
    outcomes = list(said(Desk(*beads, **jobs).cycle(max_beads=9)).values())
    assert (outcomes.count("dispatched"), outcomes.count("kept")) == (2, 28)


def test_a_running_bead_that_a_person_opens_is_claimed_again_for_its_job() -> None:
    here = Desk(row("x-1"))
    here.cycle()
    before = here.tracker.own("x-1")
    here.tracker.rows["x-1"]["status"] = "open"
    here.board.jobs = {"job-1": "running"}
    here.clock.time += timedelta(minutes=5)
    report = here.cycle()
    assert (said(report), report.exit_code, here.board.posts) == ({"x-1": "reverted"}, 0, ["x-1"])
    assert (here.tracker.bead("x-1").status, here.tracker.own("x-1")) == ("in_progress", before)
    assert here.tracker.notes("x-1").count("dispatched: job=job-1") == 1


def test_a_job_whose_start_was_not_answered_is_the_bead_s_own() -> None:
    """Its agent has signed for it since. It is no job that somebody else started, and it is charged once."""
    here = Desk(row("x-1"))
    here.board.script = [httpx.ReadTimeout("slow")]
    here.cycle()
    here.clock.time += timedelta(minutes=5)
    here.tracker.rows["x-1"].update(status="open", notes=f"{here.tracker.rows['x-1']['notes']}\nclaimed by agent j-1")
    here.board.jobs = {"j-1": "running"}
    attempt = here.tracker.bead("x-1").record.attempt
    assert said(here.cycle()) == {"x-1": "reverted"}
    record = here.tracker.bead("x-1").record
    assert (record.attempt, record.attempts, record.job, record.adopted) == (attempt, 1, "j-1", "")
    assert [run.attempt for run in record.all_runs] == [attempt]


@pytest.mark.parametrize("named", ["signed", "signed by an earlier one", "noted", "recorded", "opened by a person"])
def test_a_restore_that_loses_is_reported(named: str) -> None:
    here = Desk(row("x-1", **NAMES[named]), j_1="running")
    here.tracker.before_write = lambda change: here.tracker.rows["x-1"].update(status="closed")
    report = here.cycle()
    assert (said(report), here.board.posts) == ({"x-1": "lost"}, [])
    assert "job j-1 runs on it" in report.beads[0].detail


def test_a_job_that_another_bead_records_is_that_beads() -> None:
    """A note with another bead's job neither adopts the job nor holds the bead back, whatever is known of the job."""
    other = row("x-1", status="in_progress", metadata={"bdauto.job": "j-1", "bdauto.attempt": "a"})
    for state in ("running", httpx.Response(500)):
        here = Desk(other, row("x-2", notes="claimed by agent j-1"), j_1=state)
        assert (said(here.cycle()), here.board.posts) == ({"x-2": "dispatched"}, ["x-2"])


def test_a_job_that_two_beads_record_starts_no_second_agent() -> None:
    own = {"bdauto.job": "j-1", "bdauto.attempt": "a"}
    here = Desk(row("x-1", status="in_progress", metadata=own), row("x-2", metadata=own), j_1="running")
    report = here.cycle()
    assert (said(report), report.exit_code, here.board.posts) == ({"x-2": "kept"}, 5, [])
    assert "job j-1 is recorded here and on x-1" in report.beads[0].detail


def test_a_job_whose_claim_is_gone_is_remembered_on_its_bead() -> None:
    """Another process knows it, too. Where nobody can be asked it counts for a day."""
    here = Desk(row("x-1"))
    here.board.posted = lambda bead_id: here.tracker.rows.update({bead_id: row(bead_id)})
    assert said(here.cycle(agent=False)) == {"x-1": "failed"}
    here.started_jobs = StartedJobs()
    here.clock.time += timedelta(hours=23)
    assert said(here.cycle(agent=False)) == {"x-1": "kept"}
    here.board.jobs = {"job-1": "running"}
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "reverted"}, ["x-1"])


def test_a_job_whose_claim_is_gone_does_not_count_for_ever() -> None:
    here = Desk(row("x-1", metadata={"bdauto.unclaimed": "j-1"}))
    here.clock.time += timedelta(hours=24)
    assert (said(here.cycle(agent=False)), here.tracker.own("x-1").get("unclaimed")) == ({"x-1": "dispatched"}, None)


def test_a_reason_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    here = Desk(row("x-1", **NAMES["signed"]), j_1=httpx.Response(500))
    with caplog.at_level("WARNING", logger="bdauto"):
        for _ in range(3):
            assert said(here.cycle()) == {"x-1": "kept"}
        here.board.jobs = {"j-1": httpx.Response(401)}
        here.cycle()
    assert [record.getMessage() for record in caplog.records].count("kept") == 2


def test_a_job_that_the_reaper_has_given_up_is_not_believed_again() -> None:
    here = Desk(row("x-1", metadata={"bdauto.job": "j-1", "bdauto.given_up": "j-1"}), j_1="running")
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "dispatched"}, ["x-1"])
