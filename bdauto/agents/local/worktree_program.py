"""Make, describe, land or remove a bead's git worktree: a program, run as `Worktree` in `worktree.py` says.

The supervisor runs it before and after the agent. It removes nothing if work could be lost. It touches no other
worktree of the repository: `git worktree prune` would remove one on a disk that is not mounted. It holds one lock for
each repository, because git fails when several commands make worktrees at once.

It imports nothing of bdauto but its neighbours.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from bdauto.agents.local.supervisor import JOB, LOCK
from bdauto.agents.local.worktree_state import GENERATED, SEALED, START, Refused, WorktreeState, git

UNFINISHED = ".unfinished-"
"""How the name of the file begins that is there while a worktree is being made."""
HOLDER = 200
"""Characters of the name of a lock's holder that are shown."""
BUSY = "a job runs in it"
"""Why a worktree is not touched."""
FETCH_TIMEOUT = 120.0
"""Seconds that git may take to fetch the branch that a worktree starts from."""


class Worktree(WorktreeState):
    """A worktree that can be made and removed."""

    def __init__(self, root: str, path: str, branch: str, base: str = "") -> None:
        super().__init__(root, path, branch, base)
        folder, name = os.path.split(self.path)
        self._unfinished = unfinished(self.path)
        self._removed = os.path.join(folder, f".removed-{name}")

    def prepare(self, command: Sequence[str], folder: str) -> None:
        """Make the worktree and run a command in a folder of it, or reuse the one of an earlier attempt.

        Until the command has succeeded the worktree is half made, and the next attempt makes it anew. Raises Refused.
        """
        with self._only_one():
            if self._is_there():
                return
            self._make()
        try:
            if command:
                _run(command, folder, "--agent-prepare")
                with open(os.path.join(self.admin(), GENERATED), "w", encoding="utf-8") as file:
                    json.dump(self.untracked(), file)
        except (Refused, OSError, subprocess.SubprocessError):
            with self._only_one():
                self._discard()
            raise
        os.unlink(self._unfinished)

    def seal(self) -> None:
        """Remember the commit that is to be checked and landed. Raises Refused if there is work in no commit."""
        if reason := self.uncommitted():
            raise Refused(f"{reason}: commit it, or remove it")
        with open(os.path.join(self.admin(), SEALED), "w", encoding="ascii") as file:
            file.write(git(self.path, "rev-parse", "--verify", "HEAD^{commit}"))

    def land(self, command: Sequence[str], folder: str, wait: float) -> None:
        """Run the command that lands the sealed commit, while no other job of the repository lands. Raises Refused.

        Another job is waited for, in seconds.
        """
        with self._landing(wait):
            with open(os.path.join(self.admin(), SEALED), encoding="ascii") as file:
                if git(self.path, "rev-parse", "--verify", "HEAD^{commit}") != file.read():
                    raise Refused("nothing was landed: HEAD is not the commit that was checked")
            options = ("--name-only", "-z", "--no-ext-diff", "--ignore-submodules=untracked")
            if changed := git(self.path, "diff", *options, "HEAD", "--"):
                raise Refused(f"nothing was landed: {changed.partition(chr(0))[0]!r} has changed since it was checked")
            _run(command, folder, "--agent-land")

    def describe(self) -> dict[str, object]:
        """Return what is known of it. Nothing can be lost with a half-made one."""
        if os.path.lexists(self._unfinished):
            return {"branch": self.branch, "ahead": 0, "changes": "it is half made", "kept": ""}
        return super().describe()

    def fetch(self) -> None:
        """Fetch what the branch may have been merged into. Raises Refused."""
        for name in (self.base, f"{self.base}@{{upstream}}"):
            if self.ref(name):
                _fetch(self.root, name)

    def remove(self, jobs: str = "") -> None:
        """Remove the worktree, and its branch if another branch has its commits. Raises Refused if work would be lost.

        An agent usually leaves commits on its branch. Then the worktree stays, and nothing is printed. With the jobs'
        folder, nothing is done while a job uses the worktree.
        """
        with self._only_one():
            if jobs and _is_used(self.path, jobs):
                raise Refused(BUSY)
            if jobs and os.path.lexists(self._unfinished):
                self._discard()
                return
            if self.not_elsewhere(self.common, self._refs(f"refs/heads/{self.branch}")):
                return
            if reason := self.unsaved(self.admin(), self.branch) or self.changes():
                raise Refused(f"{self.path} is kept: {reason}")
            shutil.rmtree(self._removed, ignore_errors=True)
            os.rename(self.path, self._removed)  # at once, so that no half of it is ever used
            git(self.root, "worktree", "remove", "--force", self.path)  # its folder is gone: forgets this one alone
            shutil.rmtree(self._removed)
            if self.ref(f"refs/heads/{self.branch}"):
                git(self.root, "branch", "--quiet", "-D", self.branch)  # refused where it is checked out

    def check(self) -> None:
        """Raise Refused if `prepare` would, as far as that can be known without writing."""
        if os.path.lexists(self._unfinished):
            return
        if self._is_taken():
            admin = self.admin()
            for name in ("index.lock", "HEAD.lock"):
                if os.path.lexists(os.path.join(admin, name)):
                    raise Refused(f"{self.path} is in use: remove {admin}/{name} if no git works there any more")
        for admin in self._admins() if not self._is_taken() else ():
            if reason := self.unsaved(admin):
                raise Refused(f"{self.path} is gone, and git's record of it is kept: {reason}")

    def _is_there(self) -> bool:
        """Return whether an earlier attempt left the worktree. Remove a half-made one. Raises Refused.

        Where somebody removed its folder, git forgets the worktree.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        shutil.rmtree(self._removed, ignore_errors=True)
        if os.path.lexists(self._unfinished):
            self._discard()
        self.check()
        if self._is_taken():
            return True
        for _ in self._admins():
            git(self.root, "worktree", "remove", "--force", self.path)
        return False

    def _is_taken(self) -> bool:
        return os.path.lexists(self.path) and (not os.path.isdir(self.path) or bool(os.listdir(self.path)))

    def _make(self) -> None:
        """Make the worktree on its branch, which begins at the base unless an earlier attempt made it."""
        start = "" if self.ref(f"refs/heads/{self.branch}") else self._start()
        with open(self._unfinished, "w", encoding="ascii") as file:
            file.write(start)
        try:
            new = ["--no-track", "-b", self.branch, self.path, start]
            git(self.root, "worktree", "add", *(new if start else [self.path, self.branch]))
        except subprocess.CalledProcessError:
            self._discard()
            raise Refused("git worktree add failed, or the hook post-checkout did") from None
        with open(os.path.join(self.admin(), START), "w", encoding="ascii") as file:
            file.write(start)

    def _start(self) -> str:
        """Return the commit of the base. A branch of a remote is fetched first. Raises Refused."""
        _fetch(self.root, self.base)
        if start := self.ref(self.base):
            return start
        raise Refused(f"--agent-base {self.base} is no commit")

    def _discard(self) -> None:
        """Remove what was half made, and its branch if that was new. No agent has ever run in it."""
        with open(self._unfinished, encoding="ascii") as file:
            start = file.read()
        with contextlib.suppress(subprocess.CalledProcessError):
            git(self.root, "worktree", "remove", "--force", "--force", self.path, quiet=True)
        shutil.rmtree(self.path, ignore_errors=True)
        if start and self.ref(f"refs/heads/{self.branch}") == start:
            git(self.root, "branch", "--quiet", "-D", self.branch)
        os.unlink(self._unfinished)

    @contextlib.contextmanager
    def _landing(self, wait: float) -> Iterator[None]:
        """Hold the lock under which work lands in this repository. Raises Refused after so many seconds."""
        deadline, waits = time.monotonic() + wait, False
        with open(os.path.join(self.common, "bdauto-landing.lock"), "a+", encoding="utf-8", errors="replace") as lock:
            while not _taken(lock.fileno()):
                if not waits:
                    lock.seek(0)
                    print(f"waits until {lock.read(HOLDER) or 'another job'} has landed", flush=True)
                waits = True
                if time.monotonic() > deadline:
                    raise Refused(f"nothing was landed: another job of this repository lands for {wait:.0f}s already")
                time.sleep(0.1)
            lock.truncate(0)
            lock.write(f"job {os.environ.get('BDAUTO_JOB', '')} of {os.environ.get('BEAD_ID', '')}")
            lock.flush()
            yield

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the lock under which worktrees of this repository are made and removed."""
        with open(os.path.join(self.common, "bdauto.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _run(command: Sequence[str], folder: str, option: str) -> None:
    """Run a command of the operator in a folder. Raises Refused unless it succeeds."""
    os.environ["PWD"] = folder
    try:
        code = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        raise Refused(f"{option}: cannot run {command[0]} in {folder}: {error.strerror}") from None
    if code:
        raise Refused(f"{option} failed: " + (f"exit status {code}" if code > 0 else f"killed by signal {-code}"))


def _fetch(root: str, name: str) -> None:
    """Fetch a branch of a remote, and ask nobody for a password. Raises Refused with the first thing git says."""
    full = git(root, "rev-parse", "--symbolic-full-name", name)
    remotes = [one for one in git(root, "remote").splitlines() if full.startswith(f"refs/remotes/{one}/")]
    if not remotes:
        return
    remote = max(remotes, key=len)
    options = ("--quiet", "--no-tags", "--no-prune", "--no-recurse-submodules", "--no-write-fetch-head")
    branch = f"refs/heads/{full.removeprefix(f'refs/remotes/{remote}/')}"
    argv = ["git", "-C", root, "fetch", *options, "--", remote, branch]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"git could not fetch {name} within {FETCH_TIMEOUT:.0f}s") from None
    if done.returncode:
        said = os.fsdecode(done.stderr).strip().partition("\n")[0]  # what follows is advice
        raise Refused(f"git could not fetch {name}: {said}")


def _is_used(path: str, jobs: str) -> bool:
    """Return whether a job runs in the worktree. One whose record cannot be read may."""
    for entry in os.scandir(jobs):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open(f"{entry.path}/{LOCK}", "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if _may_run_here(path, f"{entry.path}/{JOB}"):
                    return True
    return False


def _may_run_here(path: str, record: str) -> bool:
    try:
        with open(record, encoding="utf-8") as file:
            folders = [os.path.realpath(step["directory"]) for step in json.load(file)["steps"]]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return any(os.path.commonpath([folder, path]) == path for folder in folders)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unfinished(path: str) -> str:
    """Return the file that is there while a worktree is being made."""
    return os.path.join(os.path.dirname(path), f"{UNFINISHED}{os.path.basename(path)}")


def main() -> int:
    """Do what the command line says: an action, and a JSON object. Return the exit status."""
    action, task = sys.argv[1], json.loads(sys.argv[2])
    try:
        worktree = Worktree(task["root"], task["path"], task["branch"], task["base"])
        if action == "prepare":
            worktree.prepare(task["command"], task["folder"])
        elif action == "check":
            worktree.check()
        elif action == "seal":
            worktree.seal()
        elif action == "land":
            worktree.land(task["command"], task["folder"], task["wait"])
        elif action == "describe":
            print(json.dumps(worktree.describe()))
        elif action == "fetch":
            worktree.fetch()
        else:
            worktree.remove(task.get("jobs", ""))
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"git {' '.join(error.cmd[4:7])} failed", file=sys.stderr)
        return 1
    return 0
