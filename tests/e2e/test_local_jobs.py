"""The supervisor and its starter as processes: bounds, kills at each step, full disks, slots and their races.

Whatever is killed, a job is `running` only while something watches its agent, and no agent outlives its supervisor.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.answers import AtCapacity, NotStarted, Started
from bdauto.agents.local import supervisor
from bdauto.agents.local.job_output import LocalOutput, job_end
from bdauto.agents.local.jobs import EndRecord, Jobs, is_locked, read_end
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import CommandLine
from tests.support.cli import running
from tests.support.fakes import bead
from tests.support.jobs import supervisor_of
from tests.support.patience import seconds

PATIENCE = 30.0


def until(true: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class Place:
    """A project folder, a jobs' folder, and agents that are shell scripts."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        (self.project / ".beads").mkdir(parents=True)
        self.jobs = Jobs(folder / "jobs")

    def settings(self, script: str, **settings: Any) -> LocalAgentSettings:
        return LocalAgentSettings(
            agent_command=CommandLine(("sh", "-c", script, "agent")),
            agent_jobs=self.jobs.path,
            **{f"agent_{name}": value for name, value in settings.items()},
        )

    def agent(self, script: str, *, env: Mapping[str, str] | None = None, **settings: Any) -> LocalAgent:
        """An agent command; `sh -c script agent`."""
        environment = {"PATH": os.environ["PATH"], **(env or {})}
        return LocalAgent(self.settings(script, **settings), self.project / ".beads", "agent", environment)

    def start(self, script: str, job: str = "w1", *, of: str = "x-1", slots: int = 8, **settings: Any) -> Path:
        """Start a job of a bead and return its folder. While it runs, the bead gets no other."""
        assert self.agent(script, slots=slots, **settings).start(bead(of, title="A $(title)"), job) == Started(job)
        return self.jobs.path / job

    def end(self, job: str = "w1") -> EndRecord:
        """Wait until the supervisor has written the end and is gone."""
        folder = self.jobs.path / job
        until(lambda: not is_locked(folder / "lock"))
        assert (folder / "supervisor.log").read_text() == ""
        end = read_end(folder)
        assert end, "no end was written"
        return end

    def output(self, job: str = "w1") -> str:
        return b"".join(LocalOutput(self.jobs, job).read()).decode()

    def pids(self, job: str = "w1") -> list[int]:
        """The process ids that the script wrote into the project's folder, one a line."""
        file = self.project / f"pids.{job}"
        return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for job in made.jobs.running():
        made.jobs.stop(job, "the test's end")


def alive(pids: list[int]) -> list[int]:
    """Those that still run; the dead that nobody has collected do not count."""
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
        except FileNotFoundError:
            continue
    return found


def checks(*scripts: str) -> tuple[CommandLine, ...]:
    """Checks that are shell scripts."""
    return tuple(CommandLine(("sh", "-c", script)) for script in scripts)


def gates(end: EndRecord) -> list[tuple[str, str]]:
    return [(gate.text, gate.state) for gate in end.gates]


def test_the_check_runs_where_the_agent_ran_and_its_end_is_recorded(place: Place) -> None:
    script = 'pwd; env | grep BEAD | sort; cat; echo "1 failed"; exit 3'
    place.start("echo agent", check=checks(script))
    end = place.end()
    assert (end.state, end.exit_code, gates(end)) == ("completed", 0, [("check (sh)", "failed")])
    told = ["BEADS_ACTOR=bdauto-check", f"BEADS_DIR={place.project}/.beads", "BEAD_ACCEPTANCE=it works", "BEAD_ID=x-1"]
    assert end.gates[0].output == "\n".join([str(place.project), *told, "1 failed", ""])
    assert place.output() == f"agent\n{end.gates[0].output}"
    found = job_end(place.jobs.path / "w1", datetime.now(UTC))
    assert (found.result, found.why, found.checked) == ("failed", "check", False)
    assert found.words.startswith("check (sh): exit status 3: ")


def test_of_several_checks_the_first_that_fails_is_named_and_ends_them(place: Place) -> None:
    place.start("true", check=checks("echo one", "echo two; exit 1", "echo three"))
    end = place.end()
    assert gates(end) == [("check 1 of 3 (sh)", "completed"), ("check 2 of 3 (sh)", "failed")]
    assert job_end(place.jobs.path / "w1", datetime.now(UTC)).words == "check 2 of 3 (sh): exit status 1: two"


@pytest.mark.parametrize("script", ["exit 1", "kill -9 $$"])
def test_an_agent_that_failed_is_not_checked(place: Place, script: str) -> None:
    place.start(script, check=checks("true"))
    assert (place.end().gates, place.output()) == ([], "")


def test_a_check_is_told_the_commit_that_the_work_starts_from(place: Place) -> None:
    git = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m"
    subprocess.run(["sh", "-c", f"git init -q && {git} first"], cwd=place.project, check=True)
    place.start(
        f"{git} second", check=checks('git log --format=%s "$BEAD_BASE"..HEAD; git log -1 --format=%s $BEAD_BASE')
    )
    assert place.end().gates[0].output == "second\nfirst\n"


CLAUDE = '{"result": "Fixed it.", "total_cost_usd": %s, "num_turns": 12}'


def test_the_cost_is_the_agents_and_the_words_name_the_check_that_failed(place: Place) -> None:
    """Whatever the check prints is quoted as the check's, and counts as nobody's cost."""
    noise = f"head -c 60000000 /dev/zero; echo; echo '{CLAUDE % 99}'; exit 1"
    folder = place.start(f"echo '{CLAUDE % 0.42}'", check=checks(noise))
    place.end()
    end = job_end(folder, datetime.now(UTC))
    assert (end.cost_usd, end.turns) == (0.42, 12)
    assert end.words.startswith("check (sh): exit status 1:")
    shown = place.output()
    assert shown.startswith(f"{CLAUDE % 0.42}\n\0")
    assert shown.endswith(f"{CLAUDE % 99}\n")


def test_the_words_of_a_silent_agent_are_not_those_of_its_check(place: Place) -> None:
    folder = place.start("true", check=checks(f"echo '{CLAUDE % 99}'; sleep 0.5; kill -9 $PPID"))
    until(lambda: not is_locked(folder / "lock"))
    end = job_end(folder, datetime.now(UTC))
    assert (place.jobs.state("w1"), end.cost_usd, end.words) == ("died", None, "")
    assert place.output() == f"{CLAUDE % 99}\n"


def test_a_silent_agent_leaves_the_time_of_its_start(place: Place) -> None:
    """From then on it may be silent for --agent-silence. Its worktree may have taken longer."""
    folder = place.start("sleep 60")
    until((folder / "output.0").exists)
    assert (place.jobs.state("w1"), place.output()) == ("running", "")
    assert place.agent("true").stop("w1", "the test")
    place.end()


def test_a_job_whose_checks_pass_has_passed(place: Place) -> None:
    place.start("true", check=checks("true"))
    assert place.agent("true").unchecked() == {"x-1": "w1"}
    assert gates(place.end()) == [("check (sh)", "completed")]
    assert (place.agent("true").passed("w1"), place.agent("true").unchecked()) == (True, {})


def test_a_check_that_hangs_or_is_no_program_has_failed(place: Place) -> None:
    place.start("sleep 1", "w1", check=checks("sleep 300"), check_timeout=timedelta(seconds=0.5))
    place.start("true", "w2", of="x-2", check=(CommandLine(("./no-such-check",)),))
    place.end("w1"), place.end("w2")
    words = [job_end(place.jobs.path / job, datetime.now(UTC)).words for job in ("w1", "w2")]
    assert "timed out after" in words[0]
    assert "No such file" in words[1]


def test_a_check_that_is_cancelled_has_not_failed(place: Place) -> None:
    place.start("true", check=checks(WAIT + "sleep 300", "true"))
    until(place.pids)
    step = place.agent("true").last_event("w1")
    assert step
    assert step.text == "check 1 of 2 (sh) runs"
    until(lambda: place.jobs.stop("w1", "me"))
    end = place.end()
    assert (end.state, end.by, alive(place.pids())) == ("cancelled", "me", [])
    assert gates(end) == [("check 1 of 2 (sh)", "cancelled")]
    assert job_end(place.jobs.path / "w1", datetime.now(UTC)).result == "stopped"


def test_of_much_output_of_a_check_the_end_is_kept(place: Place) -> None:
    place.start("true", check=checks("head -c 100000 /dev/zero | tr '\\0' x; echo end; exit 1"))
    [gate] = place.end().gates
    assert len(gate.output) == supervisor.LAST
    assert gate.output.endswith("xend\n")


WAIT = 'echo $$ >> "pids.$BDAUTO_JOB"; '


def test_a_job_is_run_and_its_end_recorded(place: Place) -> None:
    place.start("cat; echo to stderr >&2; exit 3")
    end = place.end()
    assert (end.state, end.exit_code, end.signal) == ("failed", 3, None)
    assert "Title: A $(title)" in place.output()
    assert place.output().endswith("to stderr\n")
    assert place.jobs.state("w1") == "failed"


def test_the_agents_environment_and_folder(place: Place) -> None:
    place.start("pwd; env", env={"HOME": "/home/me", "PYTHONPATH": "/mine"})
    place.end()
    lines = place.output().splitlines()
    assert lines[0] == str(place.project)
    for line in (
        "BEAD_ID=x-1",
        "BDAUTO_JOB=w1",
        "BEADS_ACTOR=agent",
        f"BEADS_DIR={place.project}/.beads",
        "HOME=/home/me",
        "PYTHONPATH=/mine",
    ):
        assert line in lines


LOCAL_VARIABLES = subprocess.run(
    ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True
).stdout.split()
KEPT = {
    "ANTHROPIC_API_KEY": "k",
    "CLAUDE_CODE_OAUTH_TOKEN": "k",
    "CLAUDE_CODE_USE_BEDROCK": "1",
    "CLAUDE_CONFIG_DIR": "/c",
    "CODEX_HOME": "/c",
    "GEMINI_API_KEY": "k",
    "GIT_CONFIG_GLOBAL": "/g",
    "GIT_SSH_COMMAND": "ssh",
    "OPENCODE_CONFIG": "/c",
}
"""Credentials and settings, which the agent needs."""
DROPPED = (
    *LOCAL_VARIABLES,
    *(
        "GIT_CONFIG_KEY_0",
        "GIT_CONFIG_VALUE_12",
        "GIT_AUTHOR_DATE",
        "GIT_AUTHOR_NAME",
        "GIT_QUARANTINE_PATH",
        "BD_GIT_HOOK",
    ),
    *("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT", "CODEX_SANDBOX", "CODEX_THREAD_ID"),
    *("GEMINI_CLI", "OPENCODE", "OPENCODE_PID", "CURSOR_AGENT"),
    *("NOTIFY_SOCKET", "INVOCATION_ID", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"),
    *("BD_ACTOR", "BD_DB", "BEADS_DB"),
)


def test_agent_check_and_supervisor_get_nothing_of_where_bdauto_was_started(place: Place) -> None:
    environment = {"PATH": os.environ["PATH"], "PWD": "/elsewhere", **KEPT, **dict.fromkeys(DROPPED, "1")}
    show = "tr '\\0' '\\n' < /proc/$PPID/environ; env"  # the parent's are the supervisor's
    place.start(show, env=environment, check=(CommandLine(("env",)),))
    place.end()
    lines = [line.partition("=") for line in place.output().splitlines()]
    assert {name for name, _, _ in lines} & set(DROPPED) == set()
    assert {(name, value) for name, _, value in lines} >= KEPT.items()
    assert [value for name, _, value in lines if name == "PWD"][1:] == [str(place.project)] * 2
    assert place.agent("true", env=environment).dropped == sorted(DROPPED)


def test_it_runs_in_another_folder_where_told(place: Place, tmp_path: Path) -> None:
    place.start("pwd", dir=tmp_path)
    place.end()
    assert place.output() == f"{tmp_path}\n"


def test_a_prompt_in_the_words_leaves_standard_input_empty(place: Place) -> None:
    settings = LocalAgentSettings(
        agent_command=CommandLine(("sh", "-c", 'cat; for w; do echo "<$w>"; done', "sh", "{id}", "{job}", "{prompt}")),
        agent_prompt=place.project / "template",
        agent_jobs=place.jobs.path,
    )
    (place.project / "template").write_text("{title}")
    agent = LocalAgent(settings, place.project / ".beads", "agent", os.environ)
    assert agent.start(bead(title="$(id) \"`x` {job}\\ '"), "w1") == Started("w1")
    place.end()
    assert place.output() == "<x-1>\n<w1>\n<$(id) \"`x` {job}\\ '>\n"


def test_an_attempt_is_started_once(place: Place) -> None:
    script = "echo started >> starts"
    for _ in range(3):
        place.start(script)
    place.end()
    place.start(script)
    assert (place.project / "starts").read_text() == "started\n"


def test_the_timeout_ends_the_whole_group(place: Place) -> None:
    place.start(WAIT + "sleep 300 & sleep 300", timeout=timedelta(seconds=0.5))
    end = place.end()
    assert (end.state, end.signal) == ("timeout", "SIGTERM")
    assert alive(place.pids()) == []


def test_an_agent_that_ignores_sigterm_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _with_grace(monkeypatch, tmp_path, 0.5)
    place.start(
        WAIT + "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & while :; do sleep 0.1; done",
        timeout=timedelta(seconds=0.3),
    )
    end = place.end()
    assert (end.state, end.signal) == ("timeout", "SIGKILL")
    assert end.seconds >= 0.8
    until(lambda: not running(place.pids()))


def test_children_left_behind_are_killed_with_the_group(place: Place) -> None:
    place.start(
        WAIT + '(echo $$; exec sh -c \'echo $$ >> "pids.$BDAUTO_JOB"; trap "" TERM HUP; sleep 300\') & sleep 0.3'
    )
    end = place.end()
    assert end.state == "completed"
    assert len(place.pids()) == 2
    assert alive(place.pids()) == []


APART = "import os, time; os.setsid(); print(os.getpid(), file=open('pids.w1', 'w')); time.sleep(300)"
"""A process that leaves its group and session."""


def test_a_child_in_a_session_of_its_own_does_not_keep_the_job_alive(place: Place) -> None:
    """It is not followed (docs/local-agent.md), and the job ends without it."""
    place.start(f'{sys.executable} -c "{APART}" & until [ -s pids.w1 ]; do sleep 0.1; done')
    assert place.end().state == "completed"
    [pid] = place.pids()
    assert alive([pid]) == [pid]
    os.kill(pid, signal.SIGKILL)


def test_an_agent_in_a_session_of_its_own_is_stopped_all_the_same(place: Place) -> None:
    place.start(f'exec {sys.executable} -c "{APART}"', timeout=timedelta(seconds=1))
    assert place.end().state == "timeout"
    assert alive(place.pids()) == []


def test_a_job_is_cancelled(place: Place) -> None:
    place.start(WAIT + "sleep 300")
    until(place.pids)
    until(lambda: place.jobs.stop("w1", "me: enough\n"))
    end = place.end()
    assert (end.state, end.by) == ("cancelled", "me: enough")
    assert alive(place.pids()) == []


def test_a_stopped_supervisor_ends_its_job_first(place: Place) -> None:
    folder = place.start(WAIT + "sleep 300")
    until(place.pids)
    os.kill(supervisor_of(folder), signal.SIGTERM)
    end = place.end()
    assert (end.state, end.by) == ("cancelled", "SIGTERM")
    assert alive(place.pids()) == []


@pytest.mark.parametrize("group", [False, True])
def test_the_agent_dies_with_its_supervisor(place: Place, group: bool) -> None:
    folder = place.start(WAIT + 'sh -c \'echo $$ >> "pids.$BDAUTO_JOB"; trap "" TERM HUP; sleep 300\' & sleep 300')
    until(lambda: len(place.pids()) == 2)
    assert place.jobs.state("w1") == "running"
    pid = supervisor_of(folder)
    os.killpg(os.getpgid(pid), signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(place.pids()))
    assert place.jobs.state("w1") == "died"
    assert place.jobs.running() == []
    assert not place.jobs.stop("w1", "me")


@pytest.mark.parametrize("group", [False, True])
def test_a_killed_agent_is_seen_to_be_over(place: Place, group: bool) -> None:
    place.start(WAIT + "sleep 300 & sleep 300")
    until(place.pids)
    [pid] = place.pids()
    os.killpg(os.getpgid(pid), signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)
    end = place.end()
    assert (end.state, end.exit_code, end.signal) == ("failed", None, "SIGKILL")
    until(lambda: not alive(place.pids()))


def test_an_agent_that_signals_its_own_group_ends_itself_alone(place: Place) -> None:
    """Scripts do `trap "kill 0" EXIT`: what guards the group stays, and ends it when the supervisor dies."""
    folder = place.start(WAIT + "trap '' TERM; kill -TERM 0; echo survived; sleep 300")
    until(lambda: "survived" in place.output())
    os.kill(supervisor_of(folder), signal.SIGKILL)
    until(lambda: not alive(place.pids()))


def test_a_reboot_ends_every_job(place: Place) -> None:
    folders = [place.start(WAIT + "sleep 300", job, of=f"x-{job}") for job in ("w1", "w2", "w3")]
    until(lambda: all(place.pids(job) for job in ("w1", "w2", "w3")))
    assert len(place.jobs.running()) == 3
    groups = [os.getpgid(pid) for folder in folders for pid in (supervisor_of(folder), *place.pids(folder.name))]
    for group in groups:
        os.killpg(group, signal.SIGKILL)
    until(lambda: place.jobs.running() == [])
    assert {place.jobs.state(job) for job in ("w1", "w2", "w3")} == {"died"}


STEPS = {
    "before the folder": ("os.mkdir", "before"),
    "before the job is named": ("os.rename", "before"),
    "after the job is named": ("os.rename", "after"),
    "before the supervisor": ("subprocess.run", "before"),
    "after the supervisor": ("subprocess.run", "after"),
}
KILLED = """
import os, pathlib, signal, subprocess, sys
from pathlib import Path
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import CommandLine
from tests.support.fakes import bead
from tests.support.jobs import supervisor_of

module, name = {what!r}.split(".")
module = sys.modules[module]
real = getattr(module, name)

def killed(*args, **kwargs):
    if name == "mkdir" and "w1" not in str(args[0]):
        return real(*args, **kwargs)
    if {when!r} == "after":
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(module, name, killed)
settings = LocalAgentSettings(
    agent_command=CommandLine(("sh", "-c", "echo ran >> starts; sleep 1", "sh")), agent_jobs=Path({jobs!r})
)
LocalAgent(settings, Path({beads!r}), "agent", os.environ).start(bead(), "w1")
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_dispatcher_killed_at_each_step_leaves_a_job_that_is_over_or_runs(place: Place, step: str) -> None:
    what, when = STEPS[step]
    code = KILLED.format(what=what, when=when, jobs=str(place.jobs.path), beads=str(place.project / ".beads"))
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    state = place.jobs.state("w1")
    expected = {"before the folder": None, "before the job is named": None, "after the supervisor": "running"}
    assert state == expected.get(step, "died")
    if state == "running":
        assert place.end().state == "completed"
        assert (place.project / "starts").read_text() == "ran\n"
    else:
        assert not (place.project / "starts").exists()
    if state is None:  # the same attempt may begin, and what was left is in nobody's way
        place.start("true")
        assert place.end().state == "completed"


def test_a_command_that_cannot_be_run_is_an_end_with_its_reason(place: Place) -> None:
    settings = LocalAgentSettings(agent_command=CommandLine(("./no-such-agent",)), agent_jobs=place.jobs.path)
    agent = LocalAgent(settings, place.project / ".beads", "agent", os.environ)
    assert agent.start(bead(), "w1") == Started("w1")
    end = place.end()
    assert end.state == "error"
    assert "no-such-agent" in end.detail
    assert "No such file" in end.detail


def test_much_output_is_bounded_and_its_middle_cut(place: Place) -> None:
    place.start("echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert place.end().state == "completed"
    kept = sum(path.stat().st_size for path in (place.jobs.path / "w1").iterdir())
    assert 40 << 20 < kept <= (50 << 20) + 100_000
    output = place.output()
    assert output.startswith("first\nxxx")
    assert output.endswith("xxx\nlast\n")
    assert "bytes cut …]" in output


def test_a_full_disk_costs_output_and_not_the_job(place: Place) -> None:
    """The supervisor may write files of 4 KiB only: the output does not fit, the end does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        place.start("head -c 100000 /dev/zero | tr '\\0' x; exit 0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    end = place.end()
    assert (end.state, end.lost) == ("completed", 100_000 - 4096)


def test_a_job_that_cannot_be_recorded_is_not_started(place: Place) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        answer = place.agent("echo ran >> starts").start(bead(), "w1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(answer, NotStarted)
    assert "File too large" in answer.error
    assert place.jobs.ids() == []
    assert not (place.project / "starts").exists()


def test_there_are_never_more_jobs_than_slots(place: Place) -> None:
    agent = place.agent("sleep 300", slots=2)
    answers = [agent.start(bead(f"x-{job}"), job) for job in ("w1", "w2", "w3")]
    assert answers == [Started("w1"), Started("w2"), AtCapacity()]
    capacity = agent.capacity()
    assert (capacity.free, capacity.active, capacity.total) == (0, 2, 2)
    until(lambda: place.jobs.stop("w1", "me"))
    place.end("w1")
    assert agent.capacity().free == 1
    assert agent.start(bead("x-w2"), "w4") == AtCapacity("job w2 of it still runs here")
    assert agent.start(bead("x-4"), "w4") == Started("w4")


RACER = """
import os, sys, time
from pathlib import Path
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import CommandLine
from tests.support.fakes import bead
from tests.support.jobs import supervisor_of

script = 'echo start $BDAUTO_JOB >> log; sleep 0.3; echo end $BDAUTO_JOB >> log'
settings = LocalAgentSettings(
    agent_command=CommandLine(("sh", "-c", script, "sh")), agent_slots=4, agent_jobs=Path({jobs!r})
)
agent = LocalAgent(settings, Path({beads!r}), "agent", os.environ)
sys.stdin.readline()
for number in range(6):
    job = f"w{{number}}"
    while type(agent.start(bead(f"x-{{number}}"), job)).__name__ != "Started":
        time.sleep(0.02)
"""


def test_eight_dispatchers_and_four_slots(place: Place) -> None:
    """Each wants to start the same six attempts: each runs once, and never more than four at a time."""
    code = RACER.format(jobs=str(place.jobs.path), beads=str(place.project / ".beads"))
    racers = [
        subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdin=subprocess.PIPE)
        for _ in range(8)
    ]
    for racer in racers:
        racer.communicate(b"go\n", timeout=seconds(60))
    for number in range(6):
        assert place.end(f"w{number}").state == "completed"
    lines = [line.split() for line in (place.project / "log").read_text().splitlines()]
    at_a_time, most, starts = 0, 0, []
    for what, job in lines:
        at_a_time += 1 if what == "start" else -1
        most = max(most, at_a_time)
        starts += [job] if what == "start" else []
    assert sorted(starts) == [f"w{number}" for number in range(6)]
    assert 2 <= most <= 4


def test_each_bead_has_a_worktree_which_is_kept_with_what_is_in_it(place: Place) -> None:
    git = ["git", "-C", str(place.project), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    place.start("pwd; git branch --show-current", "w1", worktree=True)
    assert place.end().state == "completed", place.output()
    path = place.output().splitlines()
    assert "agent/x-1" in path
    trees = place.jobs.path / "worktrees"
    assert list(trees.glob("*/x-1")) == []
    place.start("echo work > file", "w2", worktree=True)
    assert place.end("w2").state == "completed"
    [tree] = trees.glob("*/x-1")
    assert (tree / "file").read_text() == "work\n"
    commit = "git add file; git -c user.name=x -c user.email=x@x commit -qm work; cat file"
    place.start(commit, "w3", worktree=True)
    assert place.end("w3").state == "completed"
    assert "work" in place.output("w3")
    subprocess.run([*git, "worktree", "remove", str(tree)], check=True)
    place.start("cat file", "w4", worktree=True)
    assert place.output("w4") is not None
    assert place.end("w4").state == "completed"
    assert place.output("w4").endswith("work\n")


def test_a_worktree_that_cannot_be_made_is_an_error_and_the_agent_does_not_run(place: Place) -> None:
    subprocess.run(["git", "init", "-q", str(place.project)], check=True)  # without a commit
    place.start("echo ran >> ../starts", worktree=True)
    end = place.end()
    assert end.state == "unprepared"
    assert "HEAD" in end.detail
    assert "HEAD" in place.output()
    assert not (place.project.parent / "starts").exists()


def test_what_is_started_has_no_lock_nor_pipe_of_ours(place: Place) -> None:
    place.start("ls /proc/self/fd | wc -l")
    place.end()
    assert place.output().strip() == "4"  # 0, 1, 2 and that of ls


def _with_grace(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float) -> None:
    """A supervisor that waits less long before it kills."""
    source = Path(supervisor.__file__).read_text()
    assert "GRACE = 10.0" in source
    (folder / "supervisor.py").write_text(source.replace("GRACE = 10.0", f"GRACE = {seconds}"))
    monkeypatch.setattr(supervisor, "__file__", str(folder / "supervisor.py"))
