"""Whose job it is: a jobs folder is known by its id, a job by its folder, and others know nothing of it."""

import json
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.answers import AtCapacity, NotStarted, Started
from bdauto.agents.local import jobs as jobs_module
from bdauto.agents.local.job_output import job_end
from bdauto.agents.local.jobs import Jobs, only_one
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import parse_command
from bdauto.agents.runner import job_evidence
from bdauto.bd.change import DryWriter
from bdauto.bd.prefetch import MAX_AGE
from bdauto.common.errors import ServiceDown, ServiceDrift, UsageError
from bdauto.controllers.reaper import Reaper
from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.explanation import explanation
from bdauto.diagnostics.snapshot import gather, weigh
from bdauto.domain.notes import UNKNOWN
from bdauto.domain.outcome import Report
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, Board, Clock, Tracker, bead, dispatcher, row
from tests.support.scene import Queue
from tests.unit.test_earlier_jobs import ROOM, Desk
from tests.unit.test_jobs import alive, made

CLAIMED = NOW - timedelta(minutes=40)
COMPLETED = json.dumps({"state": "completed", "exit_code": 0, "seconds": 60, "ended": CLAIMED.timestamp() + 60})


def place(folder: Path, **settings: Any) -> LocalAgent:
    """An agent command with a jobs folder of its own."""
    folder.mkdir(mode=0o700, exist_ok=True)
    told = LocalAgentSettings(agent_command=parse_command("true"), agent_jobs=folder, **settings)
    return LocalAgent(told, Path("/p/.beads"), "agent", {})


@pytest.fixture
def here(tmp_path: Path) -> LocalAgent:
    return place(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> LocalAgent:
    return place(tmp_path / "there")


def claimed(at: LocalAgent | None, *, minutes: int = 40, left: int = 15, notes: str = "", **own: Any) -> dict[str, Any]:
    """A bead in progress, claimed so long ago at a place or by a service, whose job ends in so many minutes."""
    since = NOW - timedelta(minutes=minutes)
    keys = {"attempt": "w1", "attempts": 1, "claimed_at": format_time(since), "assignee": "agent", "write": "m1"}
    if at:
        ends_by = format_time(NOW + timedelta(minutes=left))
        keys |= {"jobs_folder": at.jobs.make_place(), "host": "laptop", "ends_by": ends_by}
    keys |= own
    lines = [f"auto-dispatcher claimed at {format_time(since)}", *([notes] if notes else [])]
    metadata = {f"bdauto.{key}": value for key, value in keys.items()}
    return row("x-1", status="in_progress", updated_at=since, notes="\n".join(lines), metadata=metadata)


def running(at: LocalAgent | None, **fields: Any) -> dict[str, Any]:
    """The same, with its job recorded."""
    job = str(fields.get("job", "w1"))
    notes = f"dispatched: job={job}\nclaimed by agent {job}"
    return claimed(at, **{"job": job, "result": "running", "notes": notes} | fields)


def sweep(tracker: Tracker, runner: Any, **settings: Any) -> Report:
    who, seed = (lambda: runner) if runner else None, len(tracker.written)  # each write has a mark of its own
    return Reaper(tracker, tracker, who, ReapSettings(**settings), tracker.clock.runtime(seed)).sweep()


def reapers(other: LocalAgent) -> Iterator[Any]:
    """Whoever is not the place of a local agent's claim."""
    yield other
    yield Board(health=[{"busy": False, "active": 0, "queued": 0, "capacity": 3}]).services(agent=True)()
    yield None


def test_a_folder_has_one_id_whoever_makes_it(here: LocalAgent, tmp_path: Path) -> None:
    assert here.jobs.place() == ""
    first = here.jobs.make_place()
    assert first
    assert [place(tmp_path / "here").jobs.make_place(), here.jobs.place()] == [first, first]
    assert [path.name for path in here.jobs.path.iterdir()] == [".place"]
    assert place(tmp_path / "there").jobs.make_place() != first


def test_of_two_that_make_the_id_at_once_one_wins(here: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def raced(path: Path, text: str, **options: Any) -> int:
        monkeypatch.setattr(Path, "write_text", write)
        write(here.jobs.path / ".place", "faster\n")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", raced)
    assert here.jobs.make_place() == here.jobs.place()
    assert here.jobs.place().startswith("faster-")


def test_an_id_that_is_none_is_refused(here: LocalAgent) -> None:
    (here.jobs.path / ".place").write_text("../x\n")
    with pytest.raises(UsageError, match="holds no id"):
        here.place()


def test_a_folder_that_others_may_write_to_gets_no_id(here: LocalAgent) -> None:
    here.jobs.path.chmod(0o777)
    with pytest.raises(UsageError, match="others may write"):
        here.place()


def test_the_claim_names_the_folder_and_the_latest_end_of_its_job(tmp_path: Path) -> None:
    limit = timedelta(minutes=45)
    agent = place(tmp_path / "plain", agent_timeout=limit)
    checked = place(
        tmp_path / "checked", agent_timeout=limit, agent_check=(parse_command("true"),), agent_check_timeout=limit
    )
    worktree = place(tmp_path / "worktree", agent_timeout=limit, agent_worktree=True)
    words: dict[str, Any] = {"agent_worktree": True, "agent_timeout": limit, "agent_check_timeout": limit}
    lands = place(tmp_path / "lands", agent_land=parse_command("true"), **words)
    assert agent.place().id == agent.jobs.place()
    assert limit < agent.place().longest < limit + timedelta(minutes=1)
    assert checked.place().longest == 2 * agent.place().longest
    assert lands.place().longest == 6 * agent.place().longest  # it may wait for another to land
    assert lands.place().checked
    assert worktree.place().longest == 2 * agent.place().longest  # a hook may run as long before the agent begins


def test_a_job_in_the_folder_counts_whatever_the_host_is_called(here: LocalAgent, there: LocalAgent) -> None:
    folder = made(here.jobs, "w1")
    tracker = Tracker(Clock(), running(here, host="old-name"))
    with alive(folder):
        assert sweep(tracker, here).beads[0].detail.startswith("job w1 is running")
        tracker.rows["x-1"]["metadata"]["bdauto.jobs_folder"] = there.jobs.make_place()
        assert sweep(tracker, here).beads[0].detail.startswith("job w1 is running")
    assert tracker.written == []


def test_before_the_latest_end_others_leave_the_bead_alone(here: LocalAgent, there: LocalAgent) -> None:
    """The threshold is shorter than a job may take, and a silent agent may be at work."""
    for reaper in reapers(there):
        for found in (claimed(here), running(here), claimed(here, error=UNKNOWN, notes=UNKNOWN)):
            tracker = Tracker(Clock(), found)
            [said] = sweep(tracker, reaper).beads
            assert (said.outcome, tracker.written) == ("kept", [])
            assert f"only host laptop (jobs folder {here.jobs.place()}) can be asked" in said.detail


def test_a_copy_of_the_folder_is_another_place(here: LocalAgent, there: LocalAgent) -> None:
    """A home folder that was copied to another host: nobody holds the copied lock of the job that runs."""
    here.jobs.make_place()
    folder = made(here.jobs, "w1")
    shutil.copytree(here.jobs.path, there.jobs.path, ignore=shutil.ignore_patterns("control"), dirs_exist_ok=True)
    assert there.jobs.state("w1") == "died"
    with alive(folder):
        for found in (running(here), claimed(here, attempt="w2")):
            tracker = Tracker(Clock(), found)
            [said] = sweep(tracker, there).beads
            assert (said.outcome, tracker.written) == ("kept", [])
            assert f"only host laptop (jobs folder {here.jobs.place()}) can be asked" in said.detail
            with pytest.raises(ServiceDrift, match="alone can be asked"):
                there.check_cancel(tracker.bead("x-1"))


def test_after_the_latest_end_the_threshold_applies(here: LocalAgent, there: LocalAgent) -> None:
    for reaper in reapers(there):
        young = Tracker(Clock(), running(here, minutes=20, left=-5))
        assert sweep(young, reaper).beads[0].outcome == "kept"
        old = Tracker(Clock(), running(here, minutes=70, left=-5))
        assert sweep(old, reaper).beads[0].outcome == "blocked"


def test_another_folder_releases_no_claim_after_the_grace_period(here: LocalAgent, there: LocalAgent) -> None:
    for reaper in reapers(there):
        tracker = Tracker(Clock(), claimed(here, minutes=20, left=-1))
        assert (sweep(tracker, reaper).beads[0].outcome, tracker.written) == ("kept", [])


def test_its_own_folder_knows_that_nothing_was_started(here: LocalAgent) -> None:
    tracker = Tracker(Clock(), claimed(here, minutes=20))
    assert sweep(tracker, here).beads[0].outcome == "released"
    assert "its jobs folder has no job of it" in tracker.notes("x-1")[-1]
    assert not {"jobs_folder", "host", "ends_by"} & tracker.own("x-1").keys()


@pytest.mark.parametrize("recorded", [True, False])
def test_what_others_settle_is_recorded_by_its_own_place(here: LocalAgent, there: LocalAgent, recorded: bool) -> None:
    """A job that cost something was recorded as lost for good, by whoever swept first."""
    for reaper in reapers(there):
        old = {"minutes": 70, "left": -5}
        found = running(here, **old) if recorded else claimed(here, notes="claimed by agent w1", **old)
        tracker = Tracker(Clock(), found)
        sweep(tracker, reaper)
        assert tracker.own("x-1")["result"] == "running"
        if not here.jobs.folder("w1"):
            (made(here.jobs, "w1", end=COMPLETED) / "output.0").write_text('{"total_cost_usd": 5.5}')
        sweep(tracker, here)
        [run] = tracker.bead("x-1").record.runs
        assert (tracker.own("x-1")["result"], run.result, run.cost_usd) == ("completed", "completed", 5.5)
        assert tracker.bead("x-1").status == "blocked"


def test_a_run_before_is_known_by_its_folder_and_not_by_a_host_s_name(here: LocalAgent, there: LocalAgent) -> None:
    """Its bead was claimed anew here, while its own place has not told yet how it ended."""
    before = {"attempt": "w0", "claimed": format_time(CLAIMED), "jobs_folder": here.jobs.make_place()}
    tracker = Tracker(Clock(), running(there, minutes=5, runs=json.dumps([before])))
    sweep(tracker, there)
    assert [run.result for run in tracker.bead("x-1").record.all_runs] == [None, None]
    (made(here.jobs, "w0", end=COMPLETED) / "output.0").write_text('{"total_cost_usd": 5.5}')
    sweep(tracker, here)
    assert [run.cost_usd for run in tracker.bead("x-1").record.all_runs] == [5.5, None]


@pytest.mark.parametrize(("hours", "result"), [(23, "running"), (25, "lost")])
def test_a_job_elsewhere_is_lost_after_a_day(here: LocalAgent, there: LocalAgent, hours: int, result: str) -> None:
    found = running(here) | {"status": "closed", "updated_at": NOW - timedelta(hours=hours)}
    tracker = Tracker(Clock(), found)
    sweep(tracker, there)
    assert tracker.own("x-1")["result"] == result


@pytest.mark.parametrize(("minutes", "outcome"), [(29, "kept"), (31, "blocked")])
def test_a_service_s_claim_goes_by_the_threshold_alone(here: LocalAgent, minutes: int, outcome: str) -> None:
    tracker = Tracker(Clock(), running(None, minutes=minutes, job="j-1"))
    [said] = sweep(tracker, here).beads
    assert said.outcome == outcome
    assert "only the agent service can be asked" in said.detail
    assert tracker.own("x-1")["result"] == "running"


def test_a_service_s_claim_is_not_cancelled_here(here: LocalAgent, there: LocalAgent) -> None:
    with pytest.raises(ServiceDrift, match="was handed to an agent service"):
        here.check_cancel(bead(**running(None, job="j-1")))
    with pytest.raises(ServiceDrift, match="was claimed by host laptop"):
        there.check_cancel(bead(**running(here)))
    here.check_cancel(bead(**claimed(here)))


def test_status_counts_down_to_the_latest_end(here: LocalAgent, there: LocalAgent) -> None:
    found = bead(**running(here))
    seen = weigh(found, job_evidence(there, [found])[0], ReapSettings(), NOW)
    assert (seen.job_state, seen.left) == ("elsewhere", timedelta(minutes=15))


def test_a_bead_of_which_a_job_runs_is_not_started_again(here: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent has set it open, and goes on."""
    monkeypatch.setattr("bdauto.agents.local.runner.start_job", lambda *_: pytest.fail("a second agent was started"))
    folder = made(here.jobs, "w1")
    with alive(folder):
        assert here.jobs_at_work(bead()) == ["w1"]
        answer = here.start(bead(), "w2")
    assert isinstance(answer, AtCapacity)
    assert "job w1 of it still runs here" in answer.words
    assert here.jobs_at_work(bead()) == []


def test_no_sweep_settles_a_bead_of_which_a_job_runs(here: LocalAgent, there: LocalAgent) -> None:
    folder = made(here.jobs, "w0")
    made(here.jobs, "w1", end=COMPLETED)
    with alive(folder):
        for found in (running(here), claimed(here), running(None, job="j-1"), running(there, left=-5)):
            tracker = Tracker(Clock(), found | {"updated_at": NOW - timedelta(hours=5)})
            [said] = sweep(tracker, here).beads
            assert tracker.written == []
            assert (said.outcome, said.job) == ("unclear", "w0") or said.detail.startswith("job w0 is running")
    tracker = Tracker(Clock(), running(here))
    assert sweep(tracker, here).beads[0].outcome == "blocked"


def checked(here: LocalAgent, job: str, *states: str, started: float = 1.0, **end: Any) -> Path:
    """The folder of a job with two checks, of which these have ended."""
    ended = [{"kind": "check", "text": f"check {n}", "state": state, "exit_code": 1} for n, state in enumerate(states)]
    told = {"state": "completed", "ended": NOW.timestamp(), "gates": ended} | end
    folder = made(here.jobs, job, started=time.time() + started, end=json.dumps(told))
    record = json.loads((folder / "job.json").read_bytes())
    steps = [{"kind": "check", "text": f"check {n}", "words": ["x"], "directory": "/p", "timeout": 1} for n in (0, 1)]
    (folder / "job.json").write_text(json.dumps(record | {"steps": [*record["steps"], *steps]}))
    return folder


def test_a_job_passes_with_all_its_checks(here: LocalAgent) -> None:
    ends = {
        job: job_end(checked(here, job, *states), NOW)
        for job, states in {
            "w1": ("completed", "completed"),
            "w2": ("completed",),
            "w3": ("completed", "failed"),
            "w4": (),
        }.items()
    }
    assert {job for job, end in ends.items() if end.checked} == {"w1"}
    assert (ends["w3"].result, ends["w3"].why, ends["w3"].words) == ("failed", "check", "check 1: exit status 1")
    assert (ends["w4"].result, ends["w4"].why) == ("completed", "ok")
    assert {job for job in ends if here.passed(job)} == {"w1"}


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"state": "failed", "exit_code": 1, "output": "rejected"}, "push: exit status 1: rejected"),
        ({"state": "timeout", "seconds": 60}, "push: timed out after 1m: it may or may not have landed"),
        ({"state": "cancelled", "signal": "SIGTERM"}, "push: killed by SIGTERM: it may or may not have landed"),
    ],
)
def test_a_landing_that_did_not_succeed_is_why_a_job_failed(
    here: LocalAgent, gate: dict[str, object], words: str
) -> None:
    folder = checked(here, "w1", "completed", "completed")
    end = json.loads((folder / "end.json").read_bytes())
    end["gates"].append({"kind": "land", "text": "push", **gate})
    (folder / "end.json").write_text(json.dumps(end))
    run = job_end(folder, NOW)
    assert (run.result, run.why, run.words, run.checked) == ("failed", "land", words, False)


def test_an_agent_that_failed_or_says_so_has_not_passed(here: LocalAgent) -> None:
    folder = checked(here, "w1", "completed", "completed", state="failed")
    assert not job_end(folder, NOW).checked
    folder = checked(here, "w2", "completed", "completed")
    (folder / "output.0").write_text(
        '{"type": "result", "is_error": true, "result": "no", "num_turns": 1, "session_id": "s"}\n'
    )
    assert (job_end(folder, NOW).result, job_end(folder, NOW).checked) == ("failed", False)


def test_a_job_whose_agent_says_that_it_failed_is_unchecked(here: LocalAgent) -> None:
    """Its exit status was 0, and its checks have passed. It stays unchecked after its end was recorded."""
    folder = checked(here, "w1", "completed", "completed", started=time.time())
    (folder / "output.0").write_text('{"type": "result", "is_error": true, "result": "no", "session_id": "s"}\n')
    assert here.unchecked() == {"x-1": "w1"}
    here.mark_recorded("w1", deleted=False)
    assert here.unchecked() == {"x-1": "w1"}


def test_the_output_of_a_recorded_job_is_not_read_again(here: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    checked(here, "w1", "completed", "completed", started=time.time())
    here.mark_recorded("w1", deleted=False)
    monkeypatch.setattr(LocalAgent, "passed", None)
    assert here.unchecked() == {}


def test_a_landing_that_was_cut_off_has_failed(here: LocalAgent) -> None:
    folder = made(here.jobs, "w1")
    (folder / "step").write_text(json.dumps({"kind": "land", "text": "landing (git)", "since": 1}))
    end = job_end(folder, NOW)
    assert (here.jobs.state("w1"), end.why, end.words) == (
        "died",
        "land",
        "landing (git) was cut off: it may or may not have landed",
    )


def test_the_last_job_of_a_bead_decides_whether_it_is_unchecked(here: LocalAgent) -> None:
    checked(here, "w1", "failed")
    assert here.unchecked() == {"x-1": "w1"}
    checked(here, "w2", "completed", "completed", started=2)
    assert here.unchecked() == {}
    with alive(checked(here, "w3", started=3)):
        assert here.unchecked() == {"x-1": "w3"}
    made(here.jobs, "w4", bead="x-2", end=json.dumps({"state": "completed"}))
    assert here.unchecked() == {"x-1": "w3"}
    made(here.jobs, "w5", started=time.time() + 4, end=json.dumps({"state": "completed"}))
    assert here.unchecked() == {}  # its last attempt had no check


@pytest.mark.parametrize(("minutes", "outcome"), [(9, "kept"), (11, "dispatched")])
def test_an_open_bead_waits_for_the_latest_end_elsewhere(here: LocalAgent, minutes: int, outcome: str) -> None:
    """Its agent, or a person, has opened it while its job runs where nobody can be asked."""
    desk = Desk(running(here, left=10) | {"status": "open"})
    desk.clock.time += timedelta(minutes=minutes)
    [said] = desk.cycle().beads
    assert said.outcome == outcome
    assert ("only host laptop" in said.detail) is (outcome == "kept")


@pytest.mark.parametrize(("hours", "started"), [(23, []), (25, ["x-1"])])
def test_an_open_bead_of_a_service_is_not_started_here_for_a_day(
    here: LocalAgent, monkeypatch: pytest.MonkeyPatch, hours: int, started: list[str]
) -> None:
    """Its person, or its agent, has opened it. Nobody here can be asked whether its job goes on."""
    begun = list[str]()
    monkeypatch.setattr(LocalAgent, "check_start", lambda *_, **__: None)
    monkeypatch.setattr(LocalAgent, "start", lambda _, bead, attempt: begun.append(bead.id) or Started(attempt))  # type: ignore[func-returns-value]
    for found in (running(None, minutes=hours * 60, job="j-1"), claimed(None, minutes=hours * 60)):
        tracker = Tracker(Clock(), found | {"status": "open", "updated_at": NOW - timedelta(minutes=1)})
        runtime = tracker.clock.runtime()
        report = dispatcher(tracker, tracker, lambda: here, DispatchSettings(), runtime).cycle()
        assert (begun, report.exit_code) == (started, 0)
        begun.clear()
        if not started:
            assert "only the agent service can be asked about it" in report.beads[0].detail


def test_jobs_of_a_copy_of_the_project_are_left_to_a_sweep_there(tmp_path: Path) -> None:
    """It has the same tracker id, and other beads: to close one there must not stop an agent here."""
    jobs, projects = Jobs(tmp_path / "jobs"), {name: tmp_path / name for name in ("first", "copy")}
    jobs.path.mkdir(mode=0o700)
    for project in projects.values():
        project.mkdir()
    first, copy = (
        LocalAgent(LocalAgentSettings(agent_jobs=jobs.path), project, "agent", {}, tracker="t-1")
        for project in projects.values()
    )
    for job in ("running", "over"):
        folder = made(jobs, job)
        told = json.loads((folder / "job.json").read_text())
        told |= {"tracker": "t-1", "beads": str(projects["first"]), "started": NOW.timestamp()}
        (folder / "job.json").write_text(json.dumps(told))
    end = {"state": "completed", "ended": time.time()}
    (jobs.path / "over" / "end.json").write_text(json.dumps(end))
    with alive(jobs.path / "running"):
        assert [one.job for one in first.running_jobs()] == ["running"]
        assert [run.attempt for _, run in first.unrecorded()] == ["over"]
        assert (copy.running_jobs(), copy.unrecorded()) == ([], [])
        projects["first"].rename(tmp_path / "gone")  # then it is no copy
        assert [one.job for one in copy.running_jobs()] == ["running"]
        assert [run.attempt for _, run in copy.unrecorded()] == ["over"]


def test_a_job_that_runs_here_is_believed_whatever_its_agent_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent has called it given up and opened its bead. A claim would take the word of its place away with it."""
    here = place(tmp_path / "here", agent_slots=2)
    monkeypatch.setattr(LocalAgent, "check_start", lambda *_, **__: None)
    tracker = Tracker(Clock(), running(here, given_up="w1") | {"status": "open"})
    with alive(made(here.jobs, "w1")):
        cycle = dispatcher(tracker, tracker, lambda: here, DispatchSettings(), tracker.clock.runtime(1)).cycle()
    assert [(said.outcome, said.job) for said in cycle.beads] == [("reverted", "w1")]
    assert tracker.own("x-1")["jobs_folder"] == here.jobs.place()


def test_a_claim_that_is_cancelled_before_its_start_starts_nothing(
    here: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdauto.agents.local.runner.start_job", lambda *_: pytest.fail("it was started"))
    here.forbid_start(bead(**claimed(here)))
    assert here.start(bead(), "w1") == NotStarted("its claim was cancelled")
    here.jobs.prune(time.time() + 1)
    assert [path.name for path in here.jobs.path.iterdir() if "w1" in path.name] == []
    made(here.jobs, "w1", end=COMPLETED)
    here.forbid_start(bead(**claimed(here)))  # it has begun
    assert here.jobs.ids() == ["w1"]
    assert not here.jobs.is_forbidden("w1")


def test_a_start_that_cannot_be_prevented_is_said(here: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "LOCK_TIMEOUT", 0.0)
    with only_one(here.jobs.path), pytest.raises(ServiceDown, match="may yet be started"):
        here.forbid_start(bead(**claimed(here)))


def test_a_start_waits_for_its_lock_no_longer_than_a_pause_allows() -> None:
    assert timedelta(seconds=jobs_module.LOCK_TIMEOUT) <= MAX_AGE / 2


def test_explain_and_status_say_what_a_job_elsewhere_holds_up(here: LocalAgent, there: LocalAgent) -> None:
    services = Board(health=[ROOM]).services(agent=True)()
    views: list[tuple[LocalAgent | None, Any]] = [(here, there), (here, services), (here, None), (None, there)]
    for place, runner in views:
        for found in (claimed(place, minutes=10), running(place, minutes=10, job="w1")):
            queue = Queue(Clock(), found | {"status": "open"})
            told = explanation(queue, runner, "x-1", DispatchSettings(), ReapSettings(), NOW)
            until = "2026-04-18T22:50:46Z" if place else "2026-04-19T22:25:46Z"
            assert told.headline.startswith(f"waiting: its job w1 may run until {until}: only ")
            assert [c.fix for c in told.conditions if c.name == "job"]
            [alert] = active_alerts(gather(queue, runner, DispatchSettings(), ReapSettings(), NOW))
            assert alert.startswith("not posted: x-1 (title of x-1): its job w1 may run until")


def test_what_this_place_can_be_asked_about_holds_nothing_up(here: LocalAgent) -> None:
    made(here.jobs, "w1", end=COMPLETED)
    for found, runner in (
        (running(here), here),
        (running(None, job="j-1"), Board(health=[ROOM]).services(agent=True)()),
    ):
        queue = Queue(Clock(), found | {"status": "open"})
        assert explanation(queue, runner, "x-1", DispatchSettings(), ReapSettings(), NOW).verdict.eligible


@pytest.mark.parametrize(("known", "charged"), [("w1", 1), ("w0", 2)], ids=["the bead knows it", "bd took it back"])
def test_a_job_of_this_machine_is_charged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str, charged: int
) -> None:
    """A bd that takes a claim back takes its charge back, too. Another process started the job."""
    monkeypatch.setattr(LocalAgent, "check_start", lambda *_, **__: None)
    here = place(tmp_path / "here", agent_slots=2)
    runs = json.dumps([{"attempt": known, "job": known, "jobs_folder": here.jobs.make_place()}])
    bead = row("x-1", metadata={"bdauto.attempts": 1, "bdauto.runs": runs})
    tracker = Tracker(Clock(), bead)
    with alive(made(here.jobs, "w1")):
        report = dispatcher(tracker, tracker, lambda: here, DispatchSettings(), tracker.clock.runtime()).cycle()
    assert [bead.outcome for bead in report.beads] == ["reverted"]
    assert tracker.bead("x-1").record.attempts == charged


@pytest.mark.parametrize(("minutes", "ended", "posted"), [(3, False, False), (11, False, True), (3, True, True)])
def test_an_opened_claim_waits_while_its_dispatcher_may_start_its_job(
    here: LocalAgent, monkeypatch: pytest.MonkeyPatch, minutes: int, ended: bool, posted: bool
) -> None:
    """A person opened it at once, while its dispatcher stood still between claim and start."""
    monkeypatch.setattr(LocalAgent, "check_start", lambda *_, **__: None)
    if ended:
        made(here.jobs, "w1", end=COMPLETED)
    clock = Clock()
    tracker = Tracker(clock, claimed(here, minutes=minutes) | {"status": "open"})
    settings = DispatchSettings(dry_run=True)
    [said] = dispatcher(tracker, DryWriter(), lambda: here, settings, clock.runtime()).cycle().beads
    assert said.outcome == ("dispatched" if posted else "kept")


def test_jobs_of_another_tracker_are_other_beads(tmp_path: Path, here: LocalAgent) -> None:
    other = LocalAgent(here.settings, Path("/p/.beads"), "agent", {}, tracker="0b37aa7f-d784")
    with alive(made(here.jobs, "w1")):
        assert other.jobs_at_work(bead()) == []
    assert Jobs(tmp_path / "none").place() == ""
