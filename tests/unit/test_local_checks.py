"""What `doctor` finds of an agent on this machine, each check made to fail."""

import fcntl
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from bdauto.agents.local.agent_command import AgentCommand
from bdauto.agents.local.checks import checks
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import CommandLine
from bdauto.agents.runner import CheckContext
from bdauto.common.errors import UsageError
from bdauto.domain.findings import Check, Level
from bdauto.domain.record import Run

NOW = datetime.fromtimestamp(1_800_000_000, UTC)
DAY = 86_400.0


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".beads").mkdir()
    (tmp_path / "jobs").mkdir(mode=0o700)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bd").touch(mode=0o700)
    monkeypatch.chdir(tmp_path)


def found(
    command: str = "sh",
    check: str = "true",
    words: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    **settings: object,
) -> dict[str, Check]:
    chosen = LocalAgentSettings(
        agent_command=CommandLine((command, *words)),
        agent_check=(CommandLine((check,)),),
        agent_jobs=Path("jobs"),
        **settings,  # type: ignore[arg-type]
    )
    path = os.pathsep.join([f"{Path.cwd()}/bin", os.environ["PATH"]])
    agent = LocalAgent(chosen, Path(".beads"), "agent", {**os.environ, "PATH": path} | (env or {}))
    return {check.name: check for check in checks(agent, CheckContext(lambda: NOW, f"{Path.cwd()}/bin/bd"))}


def bad(checks: dict[str, Check]) -> dict[str, Level]:
    return {name: check.level for name, check in checks.items() if check.level is not Level.ok}


def test_all_is_well() -> None:
    checks = found()
    assert (list(checks), bad(checks)) == (["agent command", "checks", "agent's bd", "jobs", "disk", "worktrees"], {})
    assert "0 of 1 slots taken" in checks["jobs"].detail


def agent_found(monkeypatch: pytest.MonkeyPatch, command: str = "claude", **settings: object) -> dict[str, Check]:
    (Path("bin") / command).touch(mode=0o700)
    monkeypatch.setattr(AgentCommand, "version", lambda _: "2.1.34 (Claude Code)")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    return found(command, **settings)  # type: ignore[arg-type]


def test_the_version_of_an_agent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    check = agent_found(monkeypatch, agent="claude")["claude version"]
    assert check.detail == "2.1.34 (Claude Code); bdauto was written for 1.0 to 2.1"


def test_an_agent_that_does_not_say_its_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: AgentCommand) -> str:
        raise UsageError("`claude --version` ended with status 1")

    agent_found(monkeypatch)
    monkeypatch.setattr(AgentCommand, "version", fails)
    assert bad(found("claude", words=("--yolo", "--dangerously-skip-permissions"))) == {"claude version": Level.warn}


def test_a_claude_that_may_not_run_bd_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check = agent_found(monkeypatch, words=("-p",))["agent's permissions"]
    assert check.level is Level.warn
    assert "claude may not run bd" in check.detail
    assert "--agent claude" in check.hint
    (Path(".claude")).mkdir()
    Path(".claude/settings.json").write_text('{"permissions": {"allow": ["Bash(bd:*)"]}}')
    assert "agent's permissions" not in agent_found(monkeypatch, words=("-p",))
    assert "agent's permissions" not in agent_found(monkeypatch, "aider")


def test_a_folder_that_is_not_there_yet_will_be_made() -> None:
    Path("jobs").rmdir()
    assert (bad(found()), found()["jobs"].detail) == ({}, f"{Path.cwd()}/jobs will be made")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": "no-such-agent"}, "--agent-command 'no-such-agent' is not a program"),
        ({"command": "./agent"}, "/agent' is not a program"),
        ({"check": "no-such-check"}, "--agent-check 'no-such-check' is not a program"),
        ({"agent_dir": Path("none")}, "none is not a folder"),
        ({"agent_prompt": Path("none")}, "--agent-prompt none"),
        ({"command": "sh", "words": ("-c", "claude -p {prompt}")}, "a bead's text would be run as code"),
        ({"agent_worktree": True}, "is not in a git repository"),
    ],
)
def test_a_command_that_cannot_be_run(options: dict[str, object], words: str) -> None:
    checks = found(**options)  # type: ignore[arg-type]
    assert bad(checks) == {"agent command": Level.fail}
    assert words in checks["agent command"].detail


def test_a_jobs_folder_that_others_may_write_to() -> None:
    Path("jobs").chmod(0o777)
    checks = found()
    assert bad(checks) == {"jobs": Level.fail}
    assert checks["jobs"].hint.startswith(f"chmod 700 {Path.cwd()}/jobs")


def test_a_disk_on_which_locks_do_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("jobs/.lock").touch()
    assert bad(found()) == {}
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    checks = found()
    assert bad(checks) == {"jobs": Level.fail}
    assert "--agent-jobs" in checks["jobs"].hint


def test_little_free_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200 << 20))
    checks = found()
    assert (bad(checks), checks["disk"].detail) == ({"disk": Level.warn}, "0.2 GiB free for jobs")


def test_worktrees_that_nobody_has_touched_for_longer_than_jobs_are_kept() -> None:
    for name, days in (("x-1", 8), ("x-2", 6)):
        tree = Path("jobs/worktrees/project") / name
        tree.mkdir(parents=True)
        (tree / ".git").touch()
        os.utime(tree, (NOW.timestamp() - days * DAY,) * 2)
    checks = found()
    assert bad(checks) == {"worktrees": Level.warn}
    assert checks["worktrees"].detail.startswith("1 not touched for ")
    assert checks["worktrees"].detail.endswith("/x-1")


def test_a_jobs_folder_on_a_read_only_home(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("jobs").rmdir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda _: SimpleNamespace(
            f_flag=os.ST_RDONLY, f_bavail=1 << 30, f_frsize=4096, f_blocks=1 << 31, f_bfree=1 << 30
        ),
    )
    checks = found()
    assert checks["jobs"].level is Level.fail
    assert checks["jobs"].detail == f"{Path.cwd()} cannot be written: Read-only file system"
    assert "--agent-jobs" in checks["jobs"].hint


def test_a_jobs_folder_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    checks = found()
    assert bad(checks) == {"jobs": Level.fail}
    assert "No space left on device" in checks["jobs"].detail
    assert os.listdir("jobs") == []  # noqa: PTH208


def test_bd_is_looked_for_on_the_path_of_the_agent() -> None:
    checks = found(command="/bin/sh", check="/bin/sh", env={"PATH": "/nowhere"})
    assert bad(checks) == {"agent's bd": Level.warn}
    assert checks["agent's bd"].hint == f"add {Path.cwd()}/bin to PATH"
    Path("other").mkdir()
    Path("other/bd").touch(mode=0o700)
    assert (
        "bdauto runs"
        in found(command="/bin/sh", check="/bin/sh", env={"PATH": f"{Path.cwd()}/other"})["agent's bd"].detail
    )


def test_jobs_without_a_command_name_the_agent_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator gave `run` its agent as a flag, and gives `doctor` none."""
    ran = [("x-1", Run(attempt="w1", agent="claude")), ("x-2", Run(attempt="w2", agent="my-agent"))]
    monkeypatch.setattr(LocalAgent, "recent_runs", lambda *_: ran)
    agent = LocalAgent(
        LocalAgentSettings(agent_jobs=Path("jobs")), Path(".beads"), "agent", {"PATH": f"{Path.cwd()}/bin"}
    )
    told = {one.name: one for one in checks(agent, CheckContext(lambda: NOW, f"{Path.cwd()}/bin/bd"))}
    assert bad(told) == {"agent command": Level.warn}
    assert "jobs of this tracker ran here: claude, my-agent" in told["agent command"].detail
    assert 'agent = "claude"' in told["agent command"].hint


def test_a_repository_in_which_git_makes_no_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".git").mkdir()
    answers = {"log": (0, b""), "update-ref": (128, b"fatal: cannot lock ref 'refs/heads/agent/x'\n")}

    def run(argv: list[str], **_: object) -> SimpleNamespace:
        code, said = answers.get(argv[3], (0, b""))
        return SimpleNamespace(returncode=code, stderr=said, stdout=b"")

    monkeypatch.setattr(subprocess, "run", run)
    checks = found(agent_worktree=True)
    assert bad(checks) == {"repository": Level.fail}
    assert checks["repository"].detail.endswith("cannot lock ref 'refs/heads/agent/x'")
    answers["update-ref"] = (0, b"")
    assert bad(found(agent_worktree=True)) == {}
    Path(".gitmodules").touch()
    checks = found(agent_worktree=True)
    assert bad(checks) == {"submodules": Level.warn}
    assert "git submodule update --init" in checks["submodules"].hint
    assert bad(found(agent_worktree=True, agent_prepare=CommandLine(("sh", "setup")))) == {}
    answers["cat-file"] = (128, b"fatal: path 'sub' does not exist in 'HEAD'")
    Path("sub").mkdir()
    checks = found(agent_worktree=True, agent_dir=Path("sub"))
    assert "sub is not in HEAD of" in checks["repository"].detail


def test_what_the_agent_does_not_get_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GIT_DIR",
        "GIT_CONFIG_KEY_0",
        "CLAUDECODE",
        "NOTIFY_SOCKET",
        "BD_ACTOR",
        "CODEX_HOME",
        "ANTHROPIC_API_KEY",
    ):
        monkeypatch.setenv(name, "x")
    checks = found()
    assert bad(checks) == {}
    assert (
        checks["environment"].detail
        == "the agent does not get BD_ACTOR, CLAUDECODE, GIT_CONFIG_KEY_0, GIT_DIR, NOTIFY_SOCKET"
    )
