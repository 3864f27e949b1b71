"""What is known before a claim, and what a start gives back that fails all the same. Git is a stand-in."""

import errno
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdauto.agents.answers import NotStarted
from bdauto.agents.local import preflight
from bdauto.agents.local.jobs import Jobs
from bdauto.agents.local.preflight import worktree_problem
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings, parse_base
from bdauto.agents.local.worktree import Worktree
from bdauto.agents.prompt_settings import CommandLine
from bdauto.common.errors import UsageError
from bdauto.domain.reaping import Action, JobEvidence, decide_reap
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import ReapSettings
from tests.support.fakes import NOW, bead

NOT_UTF8 = os.fsdecode(b"caf\xe9")


def agent(folder: Path, *words: str, **settings: Any) -> LocalAgent:
    """An agent whose project is `folder`."""
    (folder / ".beads").mkdir(exist_ok=True)
    chosen = LocalAgentSettings(agent_command=CommandLine(words or ("true",)), agent_jobs=folder / "jobs", **settings)
    return LocalAgent(chosen, folder / ".beads", "agent", {"PATH": os.environ["PATH"]})


def test_a_start_is_tried_and_leaves_nothing_behind(tmp_path: Path) -> None:
    agent(tmp_path).check_start()
    assert [*(tmp_path / "jobs").iterdir()] == []


def test_a_dry_run_makes_no_folder(tmp_path: Path) -> None:
    agent(tmp_path).check_start(dry_run=True)
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_jobs_folder_that_others_may_write_to_is_refused(tmp_path: Path, dry_run: bool) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs").chmod(0o777)
    with pytest.raises(UsageError, match=r"others may write to .*chmod 700"):
        agent(tmp_path).check_start(dry_run=dry_run)


@pytest.mark.parametrize("failing", ["mkdir", "write_bytes"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE])
def test_a_jobs_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, number: int
) -> None:
    refused = agent(tmp_path)

    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, failing, fail)
    with pytest.raises(UsageError, match=f"{os.strerror(number)}; .*--agent-jobs"):
        refused.check_start()


@pytest.mark.parametrize(
    ("words", "settings", "option"),
    [
        (("sh", NOT_UTF8), {}, "--agent-command"),
        ((), {"agent_check": (CommandLine(("sh", NOT_UTF8)),)}, "--agent-check"),
        ((), {"agent_prepare": CommandLine(("sh", NOT_UTF8))}, "--agent-prepare"),
        ((), {"agent_dir": Path(NOT_UTF8)}, "the folder"),
    ],
)
def test_what_is_not_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], settings: dict[str, Any], option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NOT_UTF8).mkdir()
    with pytest.raises(UsageError, match=f"{option} .*is not UTF-8"):
        agent(tmp_path, *words, **settings).check_start()


@pytest.mark.parametrize(("text", "words"), [(b"caf\xe9 {id}", "is not UTF-8"), (b"a\0b", "null character")])
def test_a_template_that_cannot_be_used_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "prompt").write_bytes(text)
    with pytest.raises(UsageError, match=f"--agent-prompt .*{words}"):
        agent(tmp_path, agent_prompt=tmp_path / "prompt").check_start()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"agent_base": "main"}, "--agent-base goes with --agent-worktree"),
        ({"agent_prepare": CommandLine(("true",))}, "--agent-prepare goes with --agent-worktree"),
        ({"agent_land": CommandLine(("true",))}, "--agent-land goes with --agent-worktree"),
        ({"agent_prepare": CommandLine(("no-such-program",))}, "--agent-prepare 'no-such-program' is not a program"),
    ],
)
def test_what_cannot_be_done_in_a_worktree_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        agent(tmp_path, **settings).check()


NO_COMMITS = ["", "--upload-pack=touch x", "-f", "^main", "main..other", "main...", "a b", "a\nb", "a\0b", "main:file"]
NO_COMMITS += ["refs/heads/*", "a?", "a[b", "a\\b", "HEAD^@", "HEAD^!", "HEAD^-", ":/fix", "a\u202eb", "x" * 256]


@pytest.mark.parametrize("ref", NO_COMMITS)
def test_what_is_no_name_of_a_commit_is_no_base(ref: str) -> None:
    with pytest.raises(UsageError, match="not the name of a commit"):
        parse_base(ref)


def test_a_base_that_git_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: object) -> SimpleNamespace:
        bad = "origin/nope^{commit}" in argv
        return SimpleNamespace(
            returncode=128 * bad, stdout=b".git", stderr=b"fatal: bad revision 'origin/nope^{commit}'"
        )

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        UsageError, match=r"--agent-base: git refuses in .*: bad revision 'origin/nope.*run `git fetch`"
    ):
        preflight.check_repository(tmp_path, {}, "origin/nope")


def test_a_prompt_too_long_for_a_word_concerns_its_bead_alone(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("{description}" * 4)
    tried = agent(tmp_path, "true", "{prompt}", agent_prompt=tmp_path / "prompt")
    assert "standard input" in tried.problem_with(bead(description="x" * 39_000))
    assert tried.problem_with(bead(description="short")) == ""


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), ValueError("null byte"), UsageError("no"), MemoryError(), KeyError("x")]
)
def test_whatever_a_start_raises_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("bdauto.agents.local.runner.supervise", fail)
    answer = agent(tmp_path).start(bead(), "w1")
    assert isinstance(answer, NotStarted)
    assert answer.error.startswith("cannot start the agent: ")
    assert Jobs(tmp_path / "jobs").ids() == []


class Git:
    """A git that answers by its verb: an exit status, what it prints, and what it says on stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: tuple[int, str, str]) -> None:
        self.answers = {verb.replace("_", "-"): answer for verb, answer in answers.items()}
        monkeypatch.setattr(subprocess, "run", self._run)

    def _run(self, argv: list[str], **_: object) -> SimpleNamespace:
        code, out, err = self.answers.get(argv[3], (0, "", ""))
        return SimpleNamespace(returncode=code, stdout=out.encode(), stderr=err.encode())


def test_git_that_is_missing_or_hangs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "git")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UsageError, match=r"git: .*No such file"):
        preflight.check_repository(tmp_path, {})


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"show_ref": (1, "", ""), "update_ref": (128, "", "fatal: invalid ref format")}, "invalid ref format"),
        ({"show_ref": (1, "", ""), "update_ref": (128, "", "fatal: unknown command: start")}, ""),
        ({"show_ref": (1, "", "")}, ""),
        ({"worktree": (0, "worktree /elsewhere\nHEAD 1\nbranch refs/heads/agent/x-1\n", "")}, "checked out in /else"),
        ({"worktree": (0, "worktree /elsewhere\nHEAD 1\nbranch refs/heads/agent/x-2\n", "")}, ""),
    ],
)
def test_what_git_says_of_the_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, str, str]], words: str
) -> None:
    Git(monkeypatch, **answers)
    found = worktree_problem(Worktree(tmp_path, tmp_path / "tree", "agent/x-1"), {})
    assert words in found
    assert bool(found) == bool(words)


def test_a_job_that_could_not_be_prepared_charges_nobody() -> None:
    claimed = bead(
        status="in_progress",
        metadata={"bdauto.attempt": "w1", "bdauto.attempts": 3, "bdauto.job": "w1"},
        updated_at=NOW.isoformat(),
    )
    end = Run(result=Result.error, ended_at=NOW, words="HEAD is no commit")
    found = decide_reap(claimed, JobEvidence({claimed.id: "unprepared"}, ends={claimed.id: end}), ReapSettings(), NOW)
    assert (found.action, found.charged, found.early_death) == (Action.release, False, False)
    assert "HEAD is no commit" in found.note
