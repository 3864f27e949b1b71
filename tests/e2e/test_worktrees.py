"""Worktrees of beads, on real repositories of git: no work is lost, nothing half-made is used, no lock is missed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdauto.agents.local.worktree import Worktree
from tests.support.patience import seconds

IDENTITY = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always")


class Repository:
    """A repository with one commit, a place for worktrees, and bead x-1's worktree."""

    def __init__(self, folder: Path) -> None:
        self.root, self.trees = folder / "repo", folder / "jobs" / "worktrees" / "repo"
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.root)], check=True)
        (self.root / "file").write_text("one\n")
        (self.root / ".gitignore").write_text("*.o\n")
        (self.root / "sub").mkdir()
        (self.root / "sub" / "file").write_text("one\n")
        self.git("add", ".")
        self.git("commit", "-qm", "first")
        self.tree = self.of("x-1")

    def of(self, bead: str) -> Worktree:
        return Worktree(self.root, self.trees / bead, f"agent/{bead}")

    def git(self, *words: str, at: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *IDENTITY, *words], cwd=at or self.root, capture_output=True, text=True, check=True
        )
        return done.stdout

    def do(self, script: str) -> None:
        """What an agent does in the worktree; `$git` is git with a name."""
        setting = f'git="git {" ".join(IDENTITY)}"; set -e; {script}'
        subprocess.run(["sh", "-c", setting], cwd=self.tree.path, capture_output=True, check=True)

    def hook(self, script: str) -> None:
        hook = self.root / ".git" / "hooks" / "post-checkout"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(script)
        hook.chmod(0o700)

    def branches(self) -> list[str]:
        return self.git("for-each-ref", "--format=%(refname:short)", "refs/heads/agent").split()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def call(words: list[str], code: int = 0) -> str:
    """Run a command of a worktree, and return what it says."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    return done.stderr


def test_an_unused_worktree_is_removed_with_its_branch(repository: Repository) -> None:
    call(repository.tree.prepare)
    assert (repository.tree.path / "file").read_text() == "one\n"
    repository.do("mkdir empty; echo x > new; $git stash -u")
    call(repository.tree.remove)
    assert os.listdir(repository.trees) == []  # noqa: PTH208
    assert repository.branches() == []
    assert "agent/x-1" in repository.git("stash", "list")  # a stash belongs to the repository
    assert repository.git("worktree", "list").count("\n") == 1


WORK = {
    "a commit on a detached HEAD": "git checkout --detach; $git commit --allow-empty -m work",
    "a commit that only the reflog has": "git checkout --detach; $git commit --allow-empty -m x; git checkout -",
    "a commit that was taken back": "$git commit --allow-empty -m work; git reset --hard HEAD~1",
    "a branch without a commit": "git checkout --orphan other; git rm -rf .",
    "a change": "echo two > file",
    "a staged change": "echo two > file; git add file; git checkout HEAD -- . ; echo two > file; git add file",
    "a new file": "echo work > new",
    "an ignored file": "echo work > built.o",
    "a file that this clone ignores": 'echo work >> "$(git rev-parse --git-path info/exclude)"; touch work',
    "a file, and status hides new ones": "git config status.showUntrackedFiles no; touch new",
    "an edit that git assumes away": "git update-index --assume-unchanged file; echo two > file",
    "an edit that git skips": "git update-index --skip-worktree file; echo two > file",
    "a new nested repository": "git init new",
    "a nested repository": "git init new; cd new; $git commit --allow-empty -m work",
    "an ignored nested repository": "git init new.o; cd new.o; $git commit --allow-empty -m work",
    "a repository in a folder of the outer one": "git init sub; git -C sub add .; cd sub; $git commit -m inner",
    "a folder .git in a folder": "mkdir sub/.git; echo work > sub/.git/work",
    "a file .git in a folder": "echo gitdir: elsewhere > sub/.git",
    "a file whose name differs by case": "git config core.ignoreCase true; echo work > FILE",
    "an edit that leaves size and time": "git config core.trustctime false; git config core.checkStat minimal; "
    "touch -d 2001-01-01 file; git update-index --refresh; sleep 1.1; echo two > file; touch -d 2001-01-01 file",
    "a commit that only the branch's reflog has": "c=$($git commit-tree -p HEAD -m x HEAD^{tree}); git checkout -b o; "
    "git branch -f agent/x-1 $c; git branch -f agent/x-1 o",
    "a commit that a replacement joins": "git checkout --detach; $git commit --allow-empty -m x; "
    "git replace --graft main HEAD; git checkout -",
    "a bisection": "git bisect start",
    "a merge": "git checkout -b o; $git commit --allow-empty -m o; git checkout -; $git merge --no-commit --no-ff o",
    "a rebase": "GIT_SEQUENCE_EDITOR='sed -i 1ibreak' $git rebase -i --root",
    "a ref of this worktree alone": "git update-ref refs/worktree/note HEAD",
    "a lock": "git worktree lock .",
}


@pytest.mark.parametrize("script", WORK.values(), ids=WORK.keys())
def test_a_worktree_with_work_in_it_is_kept(repository: Repository, script: str) -> None:
    call(repository.tree.prepare)
    repository.do(script)
    head = repository.git("rev-parse", "--git-dir", at=repository.tree.path)
    assert "is kept: " in call(repository.tree.remove, code=1)
    call(repository.tree.prepare)  # a second attempt finds it as it was
    assert repository.git("rev-parse", "--git-dir", at=repository.tree.path) == head
    assert repository.tree.path.is_dir()


def test_the_commits_of_an_agent_are_kept_on_its_branch(repository: Repository) -> None:
    call(repository.tree.prepare)
    repository.do("$git commit --allow-empty -m work")
    assert call(repository.tree.remove) == ""
    assert (repository.tree.path.is_dir(), repository.branches()) == (True, ["agent/x-1"])
    repository.git("merge", "-q", "agent/x-1")
    call(repository.tree.prepare)
    call(repository.tree.remove)
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])


def test_work_on_another_branch_stays_there(repository: Repository) -> None:
    call(repository.tree.prepare)
    repository.do("git checkout -b fix; $git commit --allow-empty -m work")
    call(repository.tree.remove)
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])
    assert repository.git("log", "-1", "--format=%s", "fix") == "work\n"


def test_submodules_are_not_checked_out_and_stay_where_an_agent_did(repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    repository.git("submodule", "add", str(library.root), "library")
    repository.git("commit", "-qm", "library")
    call(repository.tree.prepare)
    assert list((repository.tree.path / "library").iterdir()) == []
    call(repository.tree.remove)
    assert not repository.tree.path.exists()
    for script in ("$git submodule update --init", "rm -rf .git/none; echo work > library/work"):
        call(repository.tree.prepare)
        repository.do(script)
        assert "is kept: " in call(repository.tree.remove, code=1)
        repository.git("worktree", "remove", "-f", "-f", str(repository.tree.path))


def test_no_other_worktree_is_touched(repository: Repository, tmp_path: Path) -> None:
    """One on a disk that is not mounted looks as if its folder had been removed."""
    repository.git("worktree", "add", "-q", "-b", "mine", str(tmp_path / "disk" / "mine"))
    (tmp_path / "disk").rename(tmp_path / "away")
    call(repository.tree.prepare)
    call(repository.tree.remove)
    (tmp_path / "away").rename(tmp_path / "disk")
    assert repository.git("status", "--porcelain", "--branch", at=tmp_path / "disk" / "mine") == "## mine\n"


def test_a_worktree_whose_folder_somebody_removed_is_made_anew(repository: Repository) -> None:
    call(repository.tree.prepare)
    subprocess.run(["rm", "-rf", str(repository.tree.path)], check=True)
    call(repository.tree.prepare)
    repository.do("git checkout --detach; $git commit --allow-empty -m work")
    subprocess.run(["rm", "-rf", str(repository.tree.path)], check=True)
    assert "no other branch has its commit" in call(repository.tree.prepare, code=1)


@pytest.mark.parametrize(
    "script",
    [
        "rm .git",
        "rm .git; $git init",
        "cd ..; mv x-1 y; ln -s ../../../repo x-1",
        "git config extensions.worktreeConfig true; git config --worktree core.worktree /",
    ],
)
def test_what_is_no_worktree_any_more_is_neither_used_nor_removed(repository: Repository, script: str) -> None:
    """The jobs' folder may lie in a repository, which git finds where a worktree has lost its link."""
    subprocess.run(["git", "init", "-q", str(repository.root.parent)], check=True)
    call(repository.tree.prepare)
    repository.do(f"echo work > work; {script}")
    for command in (repository.tree.remove, repository.tree.prepare, repository.tree.remove):
        assert "is not a worktree of" in call(command, code=1)
    assert [*repository.trees.glob("*/work")] or (repository.trees / "y" / "work").exists()
    assert repository.git("status", "--porcelain") == ""


def test_a_branch_that_the_agent_renamed_stays(repository: Repository) -> None:
    call(repository.tree.prepare)
    repository.do("$git commit --allow-empty -m work; git branch -m fix")
    call(repository.tree.remove)
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])
    assert repository.git("log", "-1", "--format=%s", "fix") == "work\n"


def test_a_folder_that_is_no_worktree_is_not_used(repository: Repository) -> None:
    repository.tree.path.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(repository.tree.path)], check=True)
    assert "is not a worktree of" in call(repository.tree.prepare, code=1)


@pytest.mark.parametrize("kept", [False, True])
def test_a_hook_that_fails_leaves_nothing(repository: Repository, kept: bool) -> None:
    if kept:
        repository.git("branch", "agent/x-1")
    repository.hook("#!/bin/sh\necho no room\nexit 7\n")
    assert "no room" in call(repository.tree.prepare, code=1)
    assert os.listdir(repository.trees) == []  # noqa: PTH208
    assert repository.branches() == (["agent/x-1"] if kept else [])
    repository.hook("#!/bin/sh\n")
    call(repository.tree.prepare)


@pytest.mark.parametrize("moment", ["checkout", "hook"])
def test_what_was_killed_while_it_was_made_is_made_anew(repository: Repository, tmp_path: Path, moment: str) -> None:
    """By a filter while git writes the files, and by the hook when they are all there."""
    begun = tmp_path / "begun"
    if moment == "checkout":
        (repository.root / ".gitattributes").write_text("file filter=slow\n")
        repository.git("add", ".gitattributes")
        repository.git("commit", "-qm", "filter")
        repository.git("config", "filter.slow.smudge", f"[ -e {begun} ] || (touch {begun}; sleep 60); cat")
    else:
        repository.hook(f"#!/bin/sh\n[ -e {begun} ] || (touch {begun}; sleep 60)\ntouch made\n")
    process = subprocess.Popen(repository.tree.prepare, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds(30)
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    call(repository.tree.prepare)
    assert (repository.tree.path / "file").read_text() == "one\n"
    assert repository.git("status", "--porcelain", at=repository.tree.path) == (
        "" if moment == "checkout" else "?? made\n"
    )


def test_a_removal_that_was_killed_leaves_no_half_of_it(repository: Repository) -> None:
    call(repository.tree.prepare)
    code = (
        "import os, signal, sys, runpy, shutil\n"
        "def rmtree(path, **_):\n"
        "    if os.path.exists(path):\n"
        "        os.unlink(path + '/file'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.rmtree = rmtree\n"
        f"sys.argv = {repository.tree.remove[3:]!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not repository.tree.path.exists()
    call(repository.tree.prepare)
    assert repository.git("status", "--porcelain", "--ignored", at=repository.tree.path) == ""
    assert os.listdir(repository.trees) == ["x-1"]  # noqa: PTH208


def test_worktrees_that_are_made_and_removed_at_once(repository: Repository) -> None:
    """git alone fails in some of a hundred: one looks at what another has half made."""
    trees = [repository.of(f"x-{number}") for number in range(40)]
    for step in ("prepare", "remove"):
        started = [subprocess.Popen(getattr(tree, step), stderr=subprocess.DEVNULL) for tree in trees]
        assert [process.wait() for process in started] == [0] * len(trees)
    assert (repository.branches(), os.listdir(repository.trees)) == ([], [])  # noqa: PTH208
