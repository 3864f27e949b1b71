"""What an agent can leave in its job's folder. Nothing is followed, waited for, or read without an end."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from bdauto.agents.local import files, supervisor
from bdauto.agents.local.job_output import LocalOutput, job_end, segments
from bdauto.agents.local.jobs import Jobs
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.local.supervisor import HEAD, SEGMENT, TAIL, Output
from bdauto.common.errors import ServiceDown
from bdauto.domain.reaping import Action, decide_reap
from bdauto.domain.record import Result
from bdauto.domain.settings import ReapSettings
from tests.support.fakes import NOW, bead
from tests.unit.test_jobs import END, alive, made

LIMIT = 5
"""Seconds that a test may take. What waits for a pipe waits for ever."""
Put = Callable[[Path], None]


def denied(path: Path) -> None:
    """A file that this user may not read, also where the user is root, whom no mode keeps out."""
    if not path.exists():
        path.touch()
    _secret.add(str(path))


_secret: set[str] = set()
HOSTILE: dict[str, Put] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "dead link": lambda path: path.symlink_to("/nowhere"),
    "circle": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "unreadable": denied,
}


@pytest.fixture(autouse=True)
def _guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _secret.clear()
    files._named.clear()
    real: Callable[..., int] = os.open

    def opened(path: str | Path, *args: int, **named: int) -> int:
        if any(str(path).startswith(secret) for secret in _secret):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **named)

    monkeypatch.setattr(os, "open", opened)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def hostile(jobs: Jobs, name: str, put: Put) -> Path:
    """An ended job with something else in the place of one of its files."""
    folder = made(jobs, "w1", end=json.dumps(END))
    (folder / "output.0").write_text("the last words\n")
    (folder / name).unlink(missing_ok=True)
    put(folder / name)
    return folder


@pytest.mark.parametrize("put", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["job.json", "lock", "end.json"])
def test_a_job_whose_state_cannot_be_read_is_unknown(
    jobs: Jobs, name: str, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    hostile(jobs, name, put)
    made(jobs, "w2", end=json.dumps(END))
    agent = LocalAgent(LocalAgentSettings(agent_jobs=jobs.path), Path("/p/.beads"), "agent", {})
    for _ in range(3):
        assert jobs.state("w1") == "unknown"
        assert jobs.running() == []
        assert [job for job in jobs.of_bead("x-1", "/p/.beads") if job != "w1"] == ["w2"]
        assert agent.unchecked() == {}
        assert not jobs.stop("w1", "somebody")
    assert caplog.messages.count("unreadable") == 1


@pytest.mark.parametrize("put", HOSTILE.values(), ids=HOSTILE)
def test_output_that_is_no_file_is_passed_over(jobs: Jobs, put: Put, caplog: pytest.LogCaptureFixture) -> None:
    folder = hostile(jobs, "output.7", put)
    assert jobs.state("w1") == "completed"
    for _ in range(3):
        end = job_end(folder, NOW)
        assert (end.result, end.words) == (Result.completed, "the last words")
        assert b"".join(LocalOutput(jobs, "w1").read()).startswith(b"the last words\n")
    assert b"root" not in b"".join(LocalOutput(jobs, "w1").read())
    assert caplog.messages.count("unreadable") == 1


def test_a_job_folder_that_is_a_link_is_unknown(jobs: Jobs, tmp_path: Path) -> None:
    elsewhere = made(jobs, "w1", end=json.dumps(END)).rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    (jobs.path / "w1").symlink_to(elsewhere)
    assert (jobs.state("w1"), jobs.ids(), jobs.record("w1")) == ("unknown", [], None)


def test_a_job_folder_that_cannot_be_looked_into_is_unknown(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that root made. It is not forgotten: that would settle its bead."""
    folder = made(jobs, "w1", end=json.dumps(END))
    real = Path.lstat

    def refuse(path: Path) -> os.stat_result:
        if folder in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "lstat", refuse)
    denied(folder / "")
    assert (jobs.state("w1"), jobs.record("w1"), jobs.ids()) == ("unknown", None, ["w1"])
    assert (job_end(folder, NOW).result, [*LocalOutput(jobs, "w1").read()]) == (Result.lost, [])
    assert caplog.messages.count("unreadable") == 1


def test_output_of_any_size_is_read_within_bounds(jobs: Jobs) -> None:
    folder = made(jobs, "w1", end=json.dumps(END))
    for number in range(40):
        with (folder / f"output.{number}").open("wb") as file:
            file.truncate(1 << 40)
    assert segments(folder) == [*range(HEAD), *range(39 - TAIL, 40)]
    assert job_end(folder, NOW).words == ""
    assert sum(map(len, LocalOutput(jobs, "w1").read())) < (HEAD + TAIL + 2) * SEGMENT


@pytest.mark.parametrize("name", ["output.007", "output.٧", "output.", "output.-1", f"output.{'9' * 200}"])
def test_what_no_supervisor_has_named_is_no_output(jobs: Jobs, name: str) -> None:
    folder = made(jobs, "w1")
    (folder / name).mkdir()
    assert segments(folder) == []


def test_a_living_job_with_rubbish_for_its_end_is_running(jobs: Jobs) -> None:
    folder = made(jobs, "w1", end="rubbish")
    with alive(folder):
        assert jobs.running() == ["w1"]


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), Path.touch])
def test_a_control_pipe_that_is_none_is_not_written_to(jobs: Jobs, put: Put) -> None:
    folder = made(jobs, "w1")
    (folder / "control").unlink()
    put(folder / "control")
    with alive(folder):
        assert not jobs.stop("w1", "somebody")
    assert (folder / "control").is_fifo() or (folder / "control").read_bytes().count(b"somebody") == 0


def test_an_unknown_job_goes_by_age(jobs: Jobs) -> None:
    hostile(jobs, "end.json", os.mkfifo)
    agent = LocalAgent(LocalAgentSettings(agent_jobs=jobs.path), Path("/p/.beads"), "agent", {})
    own = {"bdauto.attempt": "w1", "bdauto.job": "w1", "bdauto.jobs_folder": "f-1"}
    for age, action in ((timedelta(minutes=5), Action.keep), (timedelta(hours=1), Action.block)):
        claimed = bead(status="in_progress", metadata=own, updated_at=(NOW - age).isoformat())
        decision = decide_reap(claimed, agent.evidence([claimed])[0], ReapSettings(), NOW)
        assert (decision.action, "job w1 is unknown" in decision.evidence) == (action, True)


def test_a_jobs_folder_that_cannot_be_read_is_said_and_nothing_is_concluded(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "lstat", refuse)
    agent = LocalAgent(LocalAgentSettings(agent_jobs=jobs.path), Path("/p/.beads"), "agent", {})
    claimed = bead(status="in_progress", metadata={"bdauto.attempt": "w1", "bdauto.jobs_folder": "f-1"})
    assert agent.evidence([claimed])[0].states == {claimed.id: "unknown"}
    assert "Permission denied" in str(agent.status().error)
    assert (agent.checking, agent.has_jobs()) == (True, True)
    with pytest.raises(ServiceDown, match="--agent-jobs"):
        agent.jobs_of(claimed)


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")], ids=["pipe", "link"])
def test_the_supervisor_waits_for_no_pipe_of_the_agents(tmp_path: Path, put: Put) -> None:
    put(tmp_path / "output.1")
    put(tmp_path / "end.json.new")
    output = Output(str(tmp_path))
    output.write(b"x" * SEGMENT + b"lost")
    supervisor.write_end(str(tmp_path), dict(END), output)
    assert json.loads((tmp_path / "end.json").read_text())["state"] == "completed"
    assert output.lost == 4


def test_an_end_that_cannot_be_written_leaves_the_output(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.write(b"kept")
    (tmp_path / "end.json").mkdir()
    with pytest.raises(OSError, match=r"end\.json"):
        supervisor.write_end(str(tmp_path), dict(END), output)
    assert job_end(tmp_path, NOW).words == "kept"
