"""Worktrees of beads, on real repositories of git: no work is lost, nothing half-made is used, no lock is missed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.local.settings import parse_base
from bdauto.agents.local.worktree import Action, Worktree
from bdauto.agents.local.worktree_program import unfinished
from bdauto.sandbox import Sandbox
from tests.e2e.test_local_agent import Machine, until
from tests.support.jobs import supervisor_of
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

    def of(self, bead: str, base: str = "", command: str = "") -> Worktree:
        """A bead's worktree. `command` is a script for a shell that prepares it."""
        words = ("sh", "-c", command) if command else ()
        return Worktree(self.root, self.trees / bead, f"agent/{bead}", base, words)

    def remote(self) -> Path:
        """Give the repository a bare remote, with the branch main."""
        remote = self.root.parent / "remote.git"
        subprocess.run(["git", "clone", "-q", "--bare", str(self.root), str(remote)], check=True)
        self.git("remote", "add", "origin", str(remote))
        self.git("fetch", "-q", "origin")
        return remote

    def elsewhere(self, remote: Path, script: str) -> None:
        """What somebody else does in a clone of the remote, and pushes."""
        clone = self.root.parent / "clone"
        subprocess.run(["rm", "-rf", str(clone)], check=True)
        subprocess.run(["git", "clone", "-q", "-b", "main", str(remote), str(clone)], check=True)
        script = f'git="git {" ".join(IDENTITY)}"; set -e; {script}; git push -q origin HEAD:main'
        subprocess.run(["sh", "-c", script], cwd=clone, capture_output=True, check=True)

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
    call(repository.tree.words("prepare"))
    assert (repository.tree.path / "file").read_text() == "one\n"
    repository.do("mkdir empty; echo x > new; $git stash -u")
    call(repository.tree.words("remove"))
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
    call(repository.tree.words("prepare"))
    repository.do(script)
    head = repository.git("rev-parse", "--git-dir", at=repository.tree.path)
    assert "is kept: " in call(repository.tree.words("remove"), code=1)
    call(repository.tree.words("prepare"))  # a second attempt finds it as it was
    assert repository.git("rev-parse", "--git-dir", at=repository.tree.path) == head
    assert repository.tree.path.is_dir()


def test_the_commits_of_an_agent_are_kept_on_its_branch(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    repository.do("$git commit --allow-empty -m work")
    assert call(repository.tree.words("remove")) == ""
    assert (repository.tree.path.is_dir(), repository.branches()) == (True, ["agent/x-1"])
    repository.git("merge", "-q", "agent/x-1")
    call(repository.tree.words("prepare"))
    call(repository.tree.words("remove"))
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])


def test_work_on_another_branch_stays_there(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    repository.do("git checkout -b fix; $git commit --allow-empty -m work")
    call(repository.tree.words("remove"))
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])
    assert repository.git("log", "-1", "--format=%s", "fix") == "work\n"


@pytest.fixture
def with_library(repository: Repository, tmp_path: Path) -> Repository:
    """A repository with a submodule."""
    library = Repository(tmp_path / "library")
    repository.git("submodule", "add", str(library.root), "library")
    repository.git("commit", "-qm", "library")
    return repository


def test_submodules_are_not_checked_out_unless_a_command_does(with_library: Repository) -> None:
    update = " ".join(["git", *IDENTITY, "submodule update --init"])
    for tree, names in ((with_library.tree, []), (with_library.of("x-2", command=update), [".git", ".gitignore"])):
        call(tree.words("prepare"))
        assert sorted(path.name for path in (tree.path / "library").iterdir())[:2] == names
        assert call(tree.words("remove")) == ""
        assert not tree.path.exists()


@pytest.mark.parametrize(
    "script",
    [
        "echo work > library/work",
        "$git submodule update --init; echo work > library/work",
        "$git submodule update --init; echo work > library/work.o",
        "$git submodule update --init; cd library; $git commit --allow-empty -m work",
        "$git submodule update --init; cd library; $git commit --allow-empty -m work; git checkout HEAD~1",
        "$git submodule update --init; cd library; $git checkout -b b; $git commit --allow-empty -m w; git checkout -",
        "$git submodule update --init; cd library; echo work > work; $git stash -u",
    ],
)
def test_work_in_a_submodule_is_kept(with_library: Repository, script: str) -> None:
    call(with_library.tree.words("prepare"))
    with_library.do(script)
    assert "is kept: " in call(with_library.tree.words("remove"), code=1)


def test_no_other_worktree_is_touched(repository: Repository, tmp_path: Path) -> None:
    """One on a disk that is not mounted looks as if its folder had been removed."""
    repository.git("worktree", "add", "-q", "-b", "mine", str(tmp_path / "disk" / "mine"))
    (tmp_path / "disk").rename(tmp_path / "away")
    call(repository.tree.words("prepare"))
    call(repository.tree.words("remove"))
    (tmp_path / "away").rename(tmp_path / "disk")
    assert repository.git("status", "--porcelain", "--branch", at=tmp_path / "disk" / "mine") == "## mine\n"


def test_a_worktree_whose_folder_somebody_removed_is_made_anew(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    subprocess.run(["rm", "-rf", str(repository.tree.path)], check=True)
    call(repository.tree.words("prepare"))
    repository.do("git checkout --detach; $git commit --allow-empty -m work")
    subprocess.run(["rm", "-rf", str(repository.tree.path)], check=True)
    assert "no other branch has its commit" in call(repository.tree.words("prepare"), code=1)


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
    call(repository.tree.words("prepare"))
    repository.do(f"echo work > work; {script}")
    for command in (repository.tree.words("remove"), repository.tree.words("prepare"), repository.tree.words("remove")):
        assert "is not a worktree of" in call(command, code=1)
    assert [*repository.trees.glob("*/work")] or (repository.trees / "y" / "work").exists()
    assert repository.git("status", "--porcelain") == ""


def test_a_branch_that_the_agent_renamed_stays(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    repository.do("$git commit --allow-empty -m work; git branch -m fix")
    call(repository.tree.words("remove"))
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])
    assert repository.git("log", "-1", "--format=%s", "fix") == "work\n"


def test_a_folder_that_is_no_worktree_is_not_used(repository: Repository) -> None:
    repository.tree.path.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(repository.tree.path)], check=True)
    assert "is not a worktree of" in call(repository.tree.words("prepare"), code=1)


@pytest.mark.parametrize("kept", [False, True])
def test_a_hook_that_fails_leaves_nothing(repository: Repository, kept: bool) -> None:
    if kept:
        repository.git("branch", "agent/x-1")
    repository.hook("#!/bin/sh\necho no room\nexit 7\n")
    assert "no room" in call(repository.tree.words("prepare"), code=1)
    assert os.listdir(repository.trees) == []  # noqa: PTH208
    assert repository.branches() == (["agent/x-1"] if kept else [])
    repository.hook("#!/bin/sh\n")
    call(repository.tree.words("prepare"))


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
    process = subprocess.Popen(repository.tree.words("prepare"), start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds(30)
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    call(repository.tree.words("prepare"))
    assert (repository.tree.path / "file").read_text() == "one\n"
    assert repository.git("status", "--porcelain", at=repository.tree.path) == (
        "" if moment == "checkout" else "?? made\n"
    )


def test_a_removal_that_was_killed_leaves_no_half_of_it(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    remove = repository.tree.words("remove")
    code = (
        "import os, signal, sys, shutil\n"
        "def rmtree(path, **_):\n"
        "    if os.path.exists(path):\n"
        "        os.unlink(path + '/file'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.rmtree = rmtree\n"
        f"sys.argv = {remove[4:]!r}\n"
        f"exec({remove[4]!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not repository.tree.path.exists()
    call(repository.tree.words("prepare"))
    assert repository.git("status", "--porcelain", "--ignored", at=repository.tree.path) == ""
    assert os.listdir(repository.trees) == ["x-1"]  # noqa: PTH208


def test_worktrees_that_are_made_and_removed_at_once(repository: Repository) -> None:
    """git alone fails in some of a hundred: one looks at what another has half made."""
    trees = [repository.of(f"x-{number}") for number in range(40)]
    steps: tuple[Action, ...] = ("prepare", "remove")
    for step in steps:
        started = [subprocess.Popen(tree.words(step), stderr=subprocess.DEVNULL) for tree in trees]
        assert [process.wait() for process in started] == [0] * len(trees)
    assert (repository.branches(), os.listdir(repository.trees)) == ([], [])  # noqa: PTH208


def test_a_worktree_starts_from_what_the_remote_has_now(repository: Repository) -> None:
    """The commits that the user has not pushed are left out."""
    remote = repository.remote()
    repository.git("commit", "-q", "--allow-empty", "-m", "not pushed")
    repository.elsewhere(remote, "$git commit --allow-empty -m theirs")
    tree = repository.of("x-1", "origin/main")
    call(tree.words("prepare"))
    assert repository.git("log", "--format=%s", at=tree.path) == "theirs\nfirst\n"
    call(tree.words("remove"))
    assert (tree.path.exists(), repository.branches()) == (False, [])


ODD = ["ümläut/'$(touch$IFS)", 'feature/a;b|"c"', "#1&{}"]


@pytest.mark.parametrize("base", ["v1", "main~1", *ODD])
def test_a_worktree_starts_from_any_commit(repository: Repository, base: str) -> None:
    for name in ODD:
        repository.git("branch", name)
    repository.git("tag", "v1")
    repository.git("commit", "-q", "--allow-empty", "-m", "second")
    tree = repository.of("x-1", parse_base(base))
    call(tree.words("prepare"))
    assert repository.git("log", "--format=%s", at=tree.path) == "first\n"


@pytest.mark.parametrize("how", ["gone", "branch"])
def test_a_base_that_cannot_be_fetched_makes_no_worktree(repository: Repository, how: str) -> None:
    remote = repository.remote()
    if how == "gone":
        remote.rename(remote.with_name("away"))
    else:
        repository.git("branch", "-m", "other", at=remote)
    tree = repository.of("x-1", "origin/main")
    said = call(tree.words("prepare"), code=1)
    assert "git could not fetch origin/main" in said
    assert ("does not appear to be a git repository" if how == "gone" else "find remote ref refs/heads/main") in said
    assert (os.listdir(repository.trees), repository.branches()) == ([], [])  # noqa: PTH208


def test_a_new_worktree_is_prepared_once(repository: Repository) -> None:
    tree = repository.of("x-1", command="echo installing; pwd >> made.o; cat file")
    for _ in range(2):
        call(tree.words("prepare"))
        assert (tree.path / "made.o").read_text() == f"{tree.path}\n"
    call(tree.words("remove"))
    assert not tree.path.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_a_worktree_whose_preparation_failed_is_not_used(repository: Repository, kept: bool) -> None:
    if kept:
        repository.git("branch", "agent/x-1")
    said = call(repository.of("x-1", command="touch half; echo no network >&2; exit 3").words("prepare"), code=1)
    assert said.splitlines()[-2:] == ["no network", "--agent-prepare failed: exit status 3"]
    assert os.listdir(repository.trees) == []  # noqa: PTH208
    assert repository.branches() == (["agent/x-1"] if kept else [])
    call(repository.tree.words("prepare"))
    assert not (repository.tree.path / "half").exists()


def test_a_preparation_that_was_killed_is_begun_anew(repository: Repository, tmp_path: Path) -> None:
    """Also from a newer base: the branch goes with the worktree."""
    begun = tmp_path / "begun"
    tree = repository.of("x-1", "main", f"touch half; [ -e {begun} ] || (touch {begun}; sleep 60)")
    process = subprocess.Popen(tree.words("prepare"), start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds(30)
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert os.path.lexists(unfinished(str(tree.path)))
    repository.git("commit", "-q", "--allow-empty", "-m", "newer")
    call(tree.words("prepare"))
    assert repository.git("log", "-1", "--format=%s", at=tree.path) == "newer\n"
    assert (tree.path / "half").exists()


MERGES = {
    "by a merge": "git merge -q --no-ff -m merge agent/x-1",
    "by a rebase": "git commit -q --allow-empty -m other; git cherry-pick -x main..agent/x-1",
    "squashed": "git merge -q --squash agent/x-1; git commit -qm squashed",
    "squashed with more": "git merge -q --squash agent/x-1; echo more > more; git add more; git commit -qm squashed",
}


@pytest.mark.parametrize("where", ["main", "upstream", "base"])
@pytest.mark.parametrize("script", MERGES.values(), ids=MERGES.keys())
def test_a_merged_worktree_is_removed(repository: Repository, script: str, where: str) -> None:
    """Merged into the HEAD of the checkout, into what that follows, or into the base."""
    repository.remote()
    repository.git("branch", "-q", "--set-upstream-to=origin/main")
    tree = repository.of("x-1", "origin/main" if where == "base" else "")
    call(tree.words("prepare"))
    repository.do("echo two >> file; $git commit -qam one; printf 'a\\0b' > binary; git add .; $git commit -qm two")
    names = " ".join(IDENTITY)
    subprocess.run(["sh", "-c", script.replace("git ", f"git {names} ")], cwd=repository.root, check=True)
    if where != "main":
        repository.git("push", "-q", "origin", "HEAD:main")
        repository.git("reset", "-q", "--hard", "HEAD~1" if "-x" not in script else "HEAD~3")
    if where == "base":
        repository.git("branch", "--unset-upstream")
    assert call(tree.words("remove")) == ""
    assert (tree.path.exists(), repository.branches()) == (False, [])


def test_a_commit_without_changes_is_no_work(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    change = "echo x >> file; $git commit -qam change"
    repository.do(f"{change}; $git commit -q --allow-empty -m again; {change}")
    repository.git("commit", "-q", "--allow-empty", "-m", "other")
    repository.git("cherry-pick", "--allow-empty", "main..agent/x-1")
    assert call(repository.tree.words("remove")) == ""
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])


UNMERGED = {
    "half of it": ("echo 2 > b; git add .; $git commit -qm b", "git checkout -q agent/x-1 -- a; git commit -qm a"),
    "other white space": ("true", "printf ' 1\\n' > a; git add a; git commit -qm a"),
    "another binary": ("printf 'a\\0b' > b; git add b; $git commit -qm b", "git checkout -q agent/x-1 -- a; "
    "printf 'a\\0c' > b; git add .; git commit -qm a"),
    "without the change of a mode": ("chmod +x a; $git commit -qam mode", "git cherry-pick agent/x-1~1"),
    "a merge with a change": ("git checkout -q -b o main; echo 3 > c; git add c; $git commit -qm c; "
    "git checkout -q -; $git merge -q --no-commit o; echo evil > d; git add d; $git commit -qm merge; git branch -D o",
    "git cherry-pick main..agent/x-1 --no-merges"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "script"), UNMERGED.values(), ids=UNMERGED.keys())
def test_what_is_merged_in_part_is_kept(repository: Repository, more: str, script: str) -> None:
    call(repository.tree.words("prepare"))
    repository.do(f"echo 1 > a; git add a; $git commit -qm a; {more}")
    names = " ".join(IDENTITY)
    subprocess.run(["sh", "-c", script.replace("git ", f"git {names} ")], cwd=repository.root, check=False)
    call(repository.tree.words("remove"))
    assert (repository.tree.path.is_dir(), repository.branches()) == (True, ["agent/x-1"])


GENERATED = "mkdir -p deps; echo 1 > deps/a.o"
IGNORED = {
    "nothing": ("true", True),
    "bytecode": ("mkdir sub/__pycache__; touch sub/__pycache__/x.pyc", True),
    "a tagged cache": ("mkdir c.o; printf 'Signature: 8a477f597d28d172789f06886806bc55\\n' > c.o/CACHEDIR.TAG", True),
    "a new file": ("echo work > deps/b.o", False),
    "a change": ("echo work > deps/a.o", False),
    "a text beside bytecode": ("mkdir sub/__pycache__; touch sub/__pycache__/x.o", False),
    "a cache without its tag": ("mkdir c.o; touch c.o/CACHEDIR.TAG", False),
}


@pytest.mark.parametrize(("script", "removed"), IGNORED.values(), ids=IGNORED.keys())
def test_ignored_files_that_were_generated_do_not_keep_it(repository: Repository, script: str, removed: bool) -> None:
    (repository.root / ".gitignore").write_text("*.o\n__pycache__\n")
    repository.git("commit", "-qam", "ignore")
    tree = repository.of("x-1", command=GENERATED)
    call(tree.words("prepare"))
    repository.do(script)
    call(tree.words("remove"), code=not removed)
    assert tree.path.exists() != removed


def test_what_is_in_a_worktree_is_described(repository: Repository) -> None:
    call(repository.tree.words("prepare"))
    repository.do("$git commit -q --allow-empty -m one; $git commit -q --allow-empty -m two; touch new")
    done = subprocess.run(repository.tree.words("describe"), capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["branch"], told["ahead"], told["changes"]) == ("agent/x-1", 2, "'new' is in no commit")
    assert "no other branch has its commit" in told["kept"]


class Place:
    """A project with beads and commits, whose agents work in worktrees."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.home = machine, machine.world.db.parent
        self.git("init", "-q")
        self.git("checkout", "-q", "-B", "main")  # `bd init` may have made the repository
        self.git("commit", "-q", "--allow-empty", "-m", "first")

    def git(self, *words: str, at: Path | None = None) -> str:
        argv = ["git", *IDENTITY, *words]
        return subprocess.run(argv, cwd=at or self.home, capture_output=True, text=True, check=True).stdout

    def work(self, script: str, *words: str) -> str:
        """Let an agent do this on a new bead. Return the bead."""
        identity = "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x"
        self.machine.does(f"{identity}; set -e; {script}")
        bead = self.machine.world.create()
        assert self.machine.dispatch("--agent-worktree", *words).outcomes[bead] == "dispatched"
        return bead

    def listed(self, *words: str) -> dict[str, dict[str, Any]]:
        return {one["bead"]: one for one in self.machine.run("worktrees", "--json", *words).json["worktrees"]}

    def tree(self, bead: str) -> Path:
        [found] = (self.machine.jobs.path / "worktrees").glob(f"*/{bead}")
        return found


@pytest.fixture
def place(sandbox: Sandbox) -> Iterator[Place]:
    made = Place(Machine(sandbox))
    yield made
    for job in made.machine.jobs.running():
        made.machine.jobs.stop(job, "the test's end")
    made.machine.ended()


def test_the_worktrees_of_beads_are_listed_and_removed(place: Place) -> None:
    machine = place.machine
    done, open_ = place.work("echo a > a; git add a; git commit -qm a"), None
    machine.ended()
    open_ = place.work("echo b > b; git add b; git commit -qm b; touch c; exit 3")
    machine.ended()
    place.git("merge", "-q", "--squash", f"agent/{done}")
    place.git("commit", "-qm", "squashed")
    found = place.listed()
    names = ("branch", "ahead", "changes", "result")
    assert [found[done][name] for name in names] == [f"agent/{done}", 1, "", "completed"]
    assert [found[open_][name] for name in names] == [f"agent/{open_}", 1, "'c' is in no commit", "failed"]
    assert (found[done]["kept"], "no other branch has" in found[open_]["kept"]) == ("", True)
    said = machine.run("worktrees", "--remove", "--dry-run").out
    assert ("would be removed" in said, "kept: not merged" in " ".join(said.split())) == (True, True)
    assert place.tree(done).is_dir()
    removed = place.listed("--remove")
    assert (removed[done]["removed"], removed[open_]["removed"]) == (True, False)
    assert place.listed().keys() == {open_}
    assert place.git("for-each-ref", "--format=%(refname:short)", "refs/heads/agent") == f"agent/{open_}\n"


def test_the_worktree_of_a_running_job_is_never_removed(place: Place) -> None:
    bead = place.work("sleep 60")
    until(lambda: (place.machine.jobs.path / "worktrees").exists() and place.tree(bead) / ".git")
    [one] = place.listed("--remove").values()
    assert (one["result"], one["kept"], one["removed"]) == ("running", "a job runs in it", False)
    assert place.tree(bead).is_dir()
    [job] = place.machine.jobs.running()
    made = Worktree(place.home, place.tree(bead), f"agent/{bead}")
    assert call(made.words("remove", jobs=str(place.machine.jobs.path)), code=1) == "a job runs in it\n"
    (place.machine.jobs.path / job / "job.json").write_text("{}")  # as its agent could
    assert call(made.words("remove", jobs=str(place.machine.jobs.path)), code=1) == "a job runs in it\n"


def test_what_was_merged_elsewhere_is_fetched_before_removal(place: Place, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote.git", tmp_path / "clone"
    place.git("clone", "-q", "--bare", str(place.home), str(remote))
    place.git("remote", "add", "origin", str(remote))
    place.git("fetch", "-q", "origin")
    bead = place.work(
        "echo a > a; git add a; git commit -qm a; git push -q origin HEAD:x", "--agent-base", "origin/main"
    )
    place.machine.ended()
    base = ("--agent-base", "origin/main")
    assert "no other branch" in place.listed("--remove", *base)[bead]["kept"]
    place.git("clone", "-q", str(remote), str(clone))
    place.git("merge", "-q", "--no-ff", "-m", "merged", "origin/x", at=clone)
    place.git("push", "-q", "origin", "HEAD:main", at=clone)
    assert place.listed("--remove", "--dry-run", *base)[bead]["kept"]
    assert place.listed("--remove", *base)[bead]["removed"]


def test_a_half_made_worktree_is_listed_and_removed(place: Place) -> None:
    bead = place.work("true", "--agent-prepare", "sleep 60")
    until(lambda: [*(place.machine.jobs.path / "worktrees").glob(f"*/{bead}/.git")])
    assert place.listed("--remove")[bead]["kept"] == "a job runs in it"
    [job] = place.machine.jobs.running()
    os.kill(supervisor_of(place.machine.jobs.path / job), signal.SIGKILL)
    place.machine.ended()
    assert place.listed()[bead]["changes"] == "it is half made"
    assert place.listed("--remove")[bead]["removed"]
    assert place.git("branch", "--list", "agent/*") == ""


def test_worktrees_of_another_checkout_of_the_repository_are_listed(place: Place, tmp_path: Path) -> None:
    bead = place.work("touch work")
    place.machine.ended()
    place.git("worktree", "add", "-q", str(tmp_path / "linked\nand spaced"), "-b", "mine")
    assert place.listed("--agent-dir", str(tmp_path / "linked\nand spaced")).keys() == {bead}
    other = Repository(tmp_path / "other")
    assert place.listed("--agent-dir", str(other.root)) == {}
    assert "not in a git repository" in place.machine.run("worktrees", "--agent-dir", "/").complaint
    assert place.machine.run("worktrees", "--agent-base", "nope").code == 2


def test_a_commit_that_the_user_only_looks_at_is_kept(repository: Repository) -> None:
    """The HEAD of a checkout keeps nothing once another commit is checked out."""
    call(repository.tree.words("prepare"))
    repository.do("$git commit -q --allow-empty -m work")
    repository.git("checkout", "-q", "--detach", "agent/x-1")
    call(repository.tree.words("remove"))
    assert (repository.tree.path.is_dir(), repository.branches()) == (True, ["agent/x-1"])


def test_an_unused_worktree_of_a_detached_checkout_is_removed(repository: Repository) -> None:
    repository.git("checkout", "-q", "--detach")
    repository.git("commit", "-q", "--allow-empty", "-m", "on no branch")
    call(repository.tree.words("prepare"))
    assert call(repository.tree.words("remove")) == ""
    assert not repository.tree.path.exists()


@pytest.mark.parametrize("base", ["agent/x-1", "{commit}", "{commit}~0", "refs/heads/agent/x-1"])
def test_a_base_that_is_the_work_itself_merges_nothing(repository: Repository, base: str) -> None:
    call(repository.tree.words("prepare"))
    repository.do("$git commit -q --allow-empty -m work")
    commit = repository.git("rev-parse", "agent/x-1").strip()
    call(repository.of("x-1", base.format(commit=commit)).words("remove"))
    assert (repository.tree.path.is_dir(), repository.branches()) == (True, ["agent/x-1"])


def test_folders_with_odd_names(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "a b\n'$(touch c)\t\"-x")
    remote = repository.remote()
    tree = repository.of("x-1", "origin/main", "pwd > where.o")
    call(tree.words("prepare"))
    repository.do("echo work > 'odd \n name'; git add .; $git commit -q -m work")
    call(tree.words("seal"))
    call(tree.words("land", command=("git", "push", "-q", "origin", "HEAD:main"), wait=10.0))
    assert call(tree.words("remove")) == ""
    assert (tree.path.exists(), repository.branches()) == (False, [])
    assert repository.git("log", "-1", "--format=%s", "main", at=remote) == "work\n"
