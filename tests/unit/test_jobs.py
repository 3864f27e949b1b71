"""What a job's folder says of its state, and what is read back of its output; no process is started."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bdauto.agents.answers import NotStarted, Started
from bdauto.agents.local import job_output as output_module
from bdauto.agents.local import jobs as jobs_module
from bdauto.agents.local import supervisor
from bdauto.agents.local.job_output import LocalOutput, job_end
from bdauto.agents.local.jobs import JobRecord, Jobs, only_one, private_folder
from bdauto.agents.local.local_jobs import running_job
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.local.supervisor import HEAD, TAIL, Output
from bdauto.agents.prompt_settings import parse_command
from bdauto.agents.runner_status import Capacity
from bdauto.common.errors import UsageError
from bdauto.domain.agent_end import Why
from bdauto.domain.record import Result, Run
from tests.support.fakes import NOW, bead


def made(jobs: Jobs, job: str, *, bead: str = "x-1", started: float = 0.0, end: str | None = None) -> Path:
    """A job's folder, as the starter and the supervisor leave it."""
    folder = jobs.path / job
    folder.mkdir()
    record = {"bead": bead, "attempt": job, "tracker": "/p/.beads", "host": "here", "started": started}
    steps = [{"kind": "agent", "words": ["x"], "directory": "/p", "timeout": 1.0, "stdin": "prompt"}]
    (folder / "job.json").write_text(json.dumps(record | {"steps": steps}))
    (folder / "lock").touch()
    os.mkfifo(folder / "control")
    if end is not None:
        (folder / "end.json").write_text(end)
    return folder


@contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Hold the lock as the supervisor does."""
    lock = os.open(folder / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


SEGMENT = 1000


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (supervisor, output_module):
        monkeypatch.setattr(module, "SEGMENT", SEGMENT)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def test_a_job_is_alive_while_its_lock_is_held(jobs: Jobs) -> None:
    folder = made(jobs, "w1")
    with alive(folder):
        assert jobs.state("w1") == "running"
        assert jobs.running() == ["w1"]
    assert jobs.state("w1") == "died"
    assert jobs.running() == []


@pytest.mark.parametrize("state", ["completed", "failed", "timeout", "cancelled", "error"])
def test_the_written_end_is_the_state(jobs: Jobs, state: str) -> None:
    made(jobs, "w1", end=json.dumps({"state": state, "exit_code": 0}))
    assert jobs.state("w1") == state


def test_an_end_that_the_agent_writes_ends_no_job(jobs: Jobs) -> None:
    """Neither its slot nor its bead is free for another agent, and its end is not recorded yet."""
    folder = made(jobs, "w1", end=json.dumps({"state": "completed", "ended": time.time()}))
    agent = LocalAgent(LocalAgentSettings(agent_jobs=jobs.path), Path("/p/.beads"), "agent", {})
    with alive(folder):
        assert jobs.state("w1") == "running"
        assert jobs.running() == jobs.at_work("x-1", "/p/.beads") == ["w1"]
        assert not list(jobs.ends_of("/p/.beads"))
        assert [run.ended_at for _, run in agent.recent_runs(datetime.now(UTC) - timedelta(days=1))] == [None]
    assert [record.attempt for record, _ in jobs.ends_of("/p/.beads")] == ["w1"]


@pytest.mark.parametrize(
    "end", ["", "{", "[]", '{"state": 3}', '{"state": "running"}', '{"state": "failed", "ended": 1e300}', "\xff"]
)
def test_an_end_that_cannot_be_read_is_no_end(jobs: Jobs, end: str) -> None:
    made(jobs, "w1", end=end)
    assert jobs.state("w1") == "died"


@pytest.mark.parametrize("job", ["w2", "", ".", "..", "../w1", "w1/..", "/etc", "worktrees", ".new-w3", "w1\n"])
def test_what_is_no_job_of_this_folder_has_no_state(jobs: Jobs, job: str) -> None:
    made(jobs, "w1")
    (jobs.path / "worktrees").mkdir()
    (jobs.path / ".new-w3").mkdir()
    assert jobs.state(job) is None
    assert jobs.ids() == ["w1"] or set(jobs.ids()) == {"w1", "worktrees"}


def test_no_folder_has_no_jobs(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "none")
    assert jobs.ids() == jobs.running() == []
    assert jobs.state("w1") is None


def test_a_beads_jobs_are_those_of_its_own_tracker_the_oldest_first(jobs: Jobs) -> None:
    made(jobs, "w1", started=2)
    made(jobs, "w2", started=1)
    made(jobs, "w3", bead="x-2")
    assert jobs.of_bead("x-1", "/p/.beads") == ["w2", "w1"]
    assert jobs.of_bead("x-1", "/q/.beads") == []


def ran_at(hours: float, cost: float, segment: Path) -> str:
    """Write what a job printed, and return its end: so many hours ago."""
    (segment / "output.0").write_text(json.dumps({"total_cost_usd": cost, "num_turns": 3, "result": "Fixed."}))
    return json.dumps({"state": "completed", "ended": time.time() - hours * 3600, "seconds": 60})


def test_the_runs_of_a_day_are_told_from_the_folder_alone(jobs: Jobs) -> None:
    """Without those of other trackers, other queues and the day before. One that died ended by its time limit."""
    now = time.time()
    for job, hours in (("w1", 1), ("w2", 25), ("other", 1)):
        folder = made(jobs, job, started=now - hours * 3600 - 60)
        (folder / "end.json").write_text(ran_at(hours, 0.5, folder))
    record = json.loads((jobs.path / "other" / "job.json").read_text())
    (jobs.path / "other" / "job.json").write_text(json.dumps(record | {"assignee": "somebody"}))
    made(jobs, "died", started=now - 48 * 3600)
    running = made(jobs, "runs", started=now - 48 * 3600)
    settings = LocalAgentSettings(agent_jobs=jobs.path)
    agent = LocalAgent(settings, Path("/p/.beads"), "agent", {})
    with alive(running):
        for _ in range(2):
            found = {run.attempt: run for _, run in agent.recent_runs(datetime.now(UTC) - timedelta(days=1))}
            assert found.keys() == {"w1", "runs"}
            assert (found["w1"].cost_usd, found["w1"].turns, found["w1"].result) == (0.5, 3, "completed")
            assert found["runs"].ended_at is None
    assert LocalAgent(settings, Path("/q/.beads"), "agent", {}).recent_runs(NOW) == []


def test_only_a_running_job_can_be_stopped(jobs: Jobs) -> None:
    folder = made(jobs, "w1")
    assert not jobs.stop("w1", "somebody")
    assert not jobs.stop("w9", "somebody")
    with alive(folder):
        assert not jobs.stop("w1", "somebody")  # it has not begun to listen
        control = os.open(folder / "control", os.O_RDONLY | os.O_NONBLOCK)
        assert jobs.stop("w1", "some\nbody \x1b[31m" + "é" * 999)
        message = os.read(control, 1000)
        os.close(control)
    assert message.startswith("some body [31mé".encode())
    assert message.endswith(b"\n")
    assert len(message) <= supervisor.MESSAGE


def test_a_job_may_be_silent_until_its_agent_is_started(jobs: Jobs) -> None:
    """What prepares its worktree, such as an installation, may print nothing for longer than an agent may."""
    folder = made(jobs, "w1")
    [agent] = json.loads((folder / "job.json").read_text())["steps"]
    record = {"bead": "x-1", "attempt": "w1", "tracker": "", "host": "", "started": 0.0, "silence": 60.0}
    steps = [{"kind": "prepare", "words": ["x"], "directory": "/p", "timeout": 1.0}, agent]
    with_worktree, without = (msgspec.convert(record | {"steps": found}, JobRecord) for found in (steps, [agent]))
    assert running_job(jobs, with_worktree).silence is None
    assert running_job(jobs, without).silence == timedelta(minutes=1)
    (folder / "output.0").touch()  # the supervisor makes it before it starts the agent
    assert running_job(jobs, with_worktree).silence == timedelta(minutes=1)


def test_old_jobs_are_removed_and_living_ones_kept(jobs: Jobs) -> None:
    for job in ("ended", "died", "alive", "young"):
        made(jobs, job, end='{"state": "completed"}' if job == "ended" else None)
    (jobs.path / ".new-half").mkdir()
    (jobs.path / "worktrees").mkdir()
    for name in ("ended", "died", "alive", ".new-half", "worktrees"):
        os.utime(jobs.path / name, (0, 0))
    with alive(jobs.path / "alive"):
        jobs.prune(time.time() - 60)
    assert {path.name for path in jobs.path.iterdir()} == {"alive", "young", "worktrees"}


def test_a_job_whose_end_is_not_recorded_is_kept_for_longer(jobs: Jobs) -> None:
    """Nowhere else is what it cost."""
    day = 86_400.0
    for job, mark in (("recorded", "recorded"), ("deleted", "deleted"), ("unrecorded", "")):
        folder = made(jobs, job, end='{"state": "completed"}')
        if mark:
            jobs.mark(job, mark)
        os.utime(folder, (time.time() - 30 * day,) * 2)
    jobs.prune(time.time() - 7 * day)
    assert set(jobs.ids()) == {"deleted", "unrecorded"}
    for job in jobs.ids():
        os.utime(jobs.path / job, (time.time() - 91 * day,) * 2)
    jobs.prune(time.time() - 7 * day)
    assert jobs.ids() == []


@pytest.mark.parametrize("gone", [Jobs.state, Jobs.prune], ids=["one job", "the folder"])
def test_old_jobs_that_another_process_removes_do_not_unmake_a_start(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, gone: Callable[..., object]
) -> None:
    """The job runs: a start that said otherwise would give its bead out a second time."""
    os.utime(made(jobs, "old", end='{"state": "completed"}'), (0, 0))

    def vanish(*_: object) -> None:
        raise FileNotFoundError("old")

    settings = LocalAgentSettings(agent_command=parse_command("true"), agent_jobs=jobs.path)
    agent = LocalAgent(settings, jobs.path, "agent", {})
    jobs.path.chmod(0o700)
    monkeypatch.setattr("bdauto.agents.local.runner.start_job", lambda *_: None)
    monkeypatch.setattr(LocalAgent, "capacity", lambda _: Capacity(1))
    monkeypatch.setattr(LocalAgent, "jobs_at_work", lambda *_: [])
    monkeypatch.setattr(Jobs, gone.__name__, vanish)
    assert agent.start(bead(), "w1") == Started("w1")


def test_a_start_that_waits_for_another_process_gives_up(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended process may hold the lock: by the time that it goes on, a reaper may have released the claim."""
    agent = LocalAgent(LocalAgentSettings(agent_jobs=jobs.path), jobs.path, "agent", {})
    jobs.path.chmod(0o700)
    monkeypatch.setattr(jobs_module, "LOCK_TIMEOUT", 0.0)
    monkeypatch.setattr("bdauto.agents.local.runner.start_job", lambda *_: pytest.fail("it was started"))
    with only_one(jobs.path):
        answer = agent.start(bead(), "w1")
    assert isinstance(answer, NotStarted)
    assert "another process has held" in answer.error


def test_the_folder_must_be_the_users_alone(tmp_path: Path) -> None:
    private_folder(tmp_path / "new" / "jobs")
    assert (tmp_path / "new" / "jobs").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UsageError, match="others may write"):
        private_folder(tmp_path / "open")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--agent-jobs"):
        private_folder(tmp_path / "file")


def text(reader: LocalOutput) -> bytes:
    return b"".join(reader.read())


def test_output_is_followed_across_segments(tmp_path: Path) -> None:
    output, reader = Output(str(tmp_path)), LocalOutput(Jobs(tmp_path.parent), tmp_path.name)
    output.write(b"one\n")
    assert text(reader) == b"one\n"
    assert text(reader) == b""
    output.write(b"x" * SEGMENT)
    output.write(b"two\n")
    assert text(reader) == b"x" * SEGMENT + b"two\n"


def test_the_middle_of_long_output_is_cut_and_the_reader_says_so(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    for number in range(20):
        output.write(bytes([65 + number]) * SEGMENT)
    output.write(b"\nthe end\n")
    sizes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sizes <= (HEAD + TAIL) * SEGMENT
    shown = text(LocalOutput(Jobs(tmp_path.parent), tmp_path.name))
    head, cut, tail = shown.partition(f"\n[… {11 * SEGMENT} bytes cut …]\n".encode())
    assert cut
    assert head[:1] + head[-1:] == b"AE"
    assert tail[:1] == b"Q"
    assert tail.endswith(b"the end\n")
    assert job_end(tmp_path, NOW).words == "the end"


END = {"state": "completed", "exit_code": 0, "seconds": 251.7, "ended": 1776551646.5}
CLAUDE = b'thinking\n{"result": "Fixed it.", "total_cost_usd": 0.42, "num_turns": 12}\n'
OVERLOADED = {"agent": "claude", "result": Result.failed, "why": Why.overloaded, "turns": 1, "words": "API Error: 529"}
ENDS: list[tuple[str, dict[str, Any], bytes, dict[str, Any]]] = [
    ("Claude's", {}, CLAUDE, {"agent": "claude", "cost_usd": 0.42, "turns": 12, "words": "Fixed it."}),
    ("failed by its own word", {}, b'{"result": "API Error: 529", "num_turns": 1, "is_error": true}', OVERLOADED),
    (
        "a tool prints after it",
        {},
        CLAUDE + b'{"result": "pass"}\nbye\n',
        {"agent": "claude", "cost_usd": 0.42, "turns": 12, "words": "Fixed it."},
    ),
    ("plain text", {}, b"one\ntwo\n", {"words": "two"}),
    ("silent", {}, b"", {}),
    (
        "failed",
        {"state": "failed", "exit_code": 1},
        b"boom\n",
        {"result": Result.failed, "why": Why.error, "words": "boom", "exit_code": 1},
    ),
    (
        "killed by the kernel",
        {"state": "failed", "exit_code": None, "signal": "SIGKILL"},
        b"boom\n",
        {"result": Result.failed, "why": Why.error, "words": "boom", "exit_code": -9},
    ),
    (
        "a signal of tomorrow",
        {"state": "failed", "exit_code": None, "signal": "SIGNEW"},
        b"boom\n",
        {"result": Result.failed, "why": Why.error, "words": "boom"},
    ),
    ("timeout", {"state": "timeout"}, CLAUDE[:9], {"result": Result.timeout, "why": Why.timeout, "words": "thinking"}),
    (
        "cancelled",
        {"state": "cancelled", "by": "cancelled by ann\x1b[1m"},
        b"x",
        {"result": Result.stopped, "why": Why.stopped, "words": "cancelled by ann[1m"},
    ),
    (
        "silent for too long",
        {"state": "cancelled", "by": "silence: nothing was written for 30m"},
        b"x",
        {"result": Result.timeout, "why": Why.silence, "words": "nothing was written for 30m"},
    ),
    (
        "not started",
        {"state": "error", "detail": "cannot run x"},
        b"",
        {"result": Result.error, "why": Why.error, "words": "cannot run x"},
    ),
    (
        "nonsense",
        {"state": "tired", "ended": 1e300, "seconds": -1},
        b"",
        {"result": Result.lost, "why": Why.lost, "ended_at": NOW, "seconds": None},
    ),
    ("ahead", {"ended": 9e9, "seconds": 1e300}, b"", {"ended_at": NOW, "seconds": None}),
]


@pytest.mark.parametrize(("end", "output", "found"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_how_a_job_ended(tmp_path: Path, end: dict[str, Any], output: bytes, found: dict[str, Any]) -> None:
    Output(str(tmp_path)).write(output)
    (tmp_path / "end.json").write_text(json.dumps(END | end))
    usual: dict[str, Any] = {
        "result": Result.completed,
        "ended_at": datetime(2026, 4, 18, 22, 34, 6, 500_000, UTC),
        "seconds": 252,
        "why": Why.ok,
    }
    assert job_end(tmp_path, NOW) == Run(**usual | found)


def step(cost: float) -> bytes:
    return json.dumps({"type": "step_finish", "sessionID": "s", "part": {"cost": cost}}).encode() + b"\n"


def summed(cost: float, session: str = "a") -> bytes:
    return json.dumps({"type": "result", "session_id": session, "total_cost_usd": cost}).encode() + b"\n"


@pytest.mark.parametrize(
    ("output", "cost"),
    [
        (step(0.6) + step(0.5), "$1.10"),
        (step(0.6)[:20], ""),
        (step(0.6) + b"x" * 5000 + b"\n" + step(0.5), "$1.10"),
        (b"\x1b[0m" + step(0.6)[:-1] + b"\x1b[0m\r\n\xef\xbb\xbf" + step(0.3) + b"\0" + step(0.2), "$1.10"),
        (b"see " + step(1.5), ""),
        (summed(0.5) + summed(0.9), ""),
        (summed(0.5) + summed(0.9, "b"), "$1.40"),
        (step(1.0), ""),
        (step(0.6) + b'{"type": "step_finish", "part": {"cost": ' + b"9" * 400 + b"}}\n" + step(0.5), "$1.10"),
        (
            b'{"cost": 9}\n{"part": {}}\ncost\n[1, "cost"]\n{"type": "step_finish", "part": {"cost": "?"}}\n',
            "",
        ),
    ],
)
def test_the_supervisor_adds_up_what_a_run_costs(output: bytes, cost: str) -> None:
    for size in (7, 1 << 16):
        costs = supervisor.Costs(1.0)
        told = [costs.feed(output[at : at + size]) for at in range(0, len(output), size)]
        assert told[-1] == (f"ended because it cost {cost}, more than $1.00" if cost else "")
    assert supervisor.Costs(None).feed(output) == ""


def test_a_job_that_cost_too_much_says_so(tmp_path: Path) -> None:
    Output(str(tmp_path)).write(step(1.25))
    end = END | {"state": "failed", "why": "budget", "detail": "ended because it cost $1.25, more than $1.00"}
    (tmp_path / "end.json").write_text(json.dumps(end))
    found = job_end(tmp_path, NOW)
    assert (found.result, found.why, found.cost_usd) == (Result.failed, Why.budget, 1.25)
    assert found.words == "ended because it cost $1.25, more than $1.00"


def test_a_job_that_died_is_lost_and_what_it_said_is_not(tmp_path: Path) -> None:
    Output(str(tmp_path)).write(CLAUDE)
    lost = Run(
        result=Result.lost, agent="claude", why=Why.lost, ended_at=NOW, cost_usd=0.42, turns=12, words="Fixed it."
    )
    assert job_end(tmp_path, NOW) == lost


def test_a_time_without_a_zone_is_that_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        Output(str(tmp_path)).write(b"Error: usage limit reached, resets 3am\n" + b"at line 7\n" * 20)
        (tmp_path / "end.json").write_text(json.dumps(END | {"state": "failed"}))
        end = job_end(tmp_path, NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (end.why, end.reset_at) == (Why.limit, datetime(2026, 4, 19, 1, tzinfo=UTC))


def test_a_reader_that_was_overtaken_says_what_it_missed(tmp_path: Path) -> None:
    output, reader = Output(str(tmp_path)), LocalOutput(Jobs(tmp_path.parent), tmp_path.name)
    output.write(b"A" * SEGMENT * HEAD + b"x" * SEGMENT)
    text(reader)
    for _ in range(TAIL + 2):
        output.write(b"y" * SEGMENT)
    output.write(b"end")
    shown = text(reader)
    assert shown.startswith(f"\n[… {3 * SEGMENT} bytes cut …]\n".encode())
    assert shown.endswith(b"yend")


def test_a_full_disk_loses_output_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(str(tmp_path))
    output.write(b"kept")
    real: Callable[[int, bytes], int] = os.write

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    output.write(b"lost")
    monkeypatch.setattr(os, "write", real)
    assert output.lost == 4
    output.write(b" again")
    assert (tmp_path / "output.0").read_bytes() == b"kept again"


def test_room_for_the_end_is_made_from_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(str(tmp_path))
    output.write(b"x" * SEGMENT + b"y")
    tries = []

    def fsync(file: int) -> None:
        tries.append(file)
        if len(tries) < 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    supervisor.write_end(str(tmp_path), {"state": "completed"}, output)
    assert {path.name for path in tmp_path.iterdir()} == {"end.json"}
    monkeypatch.setattr(os, "fsync", lambda _file: os.write(-1, b""))
    with pytest.raises(OSError, match="Bad file"):
        supervisor.write_end(str(tmp_path), {"state": "completed"}, output)
