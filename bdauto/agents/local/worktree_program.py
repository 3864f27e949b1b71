"""Make or remove a bead's git worktree: a program, run as `python -I -S worktree_program.py ACTION ROOT PATH BRANCH`.

The supervisor runs it before and after the agent. It removes nothing if work could be lost. It touches no other
worktree of the repository: `git worktree prune` would remove one on a disk that is not mounted. It holds one lock for
each repository, because git fails when several commands make worktrees at once.

It imports nothing of bdauto.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

UNDER_WAY = (
    *("rebase-merge", "rebase-apply", "sequencer", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG"),
    *("locked", "modules", "index.lock"),
)
"""Files in a worktree's git folder: an operation under way, a lock of git or of a person, submodules."""
OWN_REFS = ("refs/bisect", "refs/worktree", "refs/rewritten")
"""Refs that each worktree has of its own. All others, refs/stash too, belong to the repository and stay."""
GITLINK = "160000"
"""The mode of a submodule in git's index."""
EXACT = ("core.fsmonitor=false", "core.ignoreCase=false", "core.trustctime=true", "core.checkStat=default")
"""Settings with which `git status` overlooks no file. The repository or its user may have others."""


class Refused(Exception):
    """Raised with the reason when nothing is done."""


class Worktree:
    """A worktree at `path` of the repository that `root` is in, on a branch of its own."""

    def __init__(self, root: str, path: str, branch: str) -> None:
        folder, name = os.path.split(path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        folder = os.path.realpath(folder)
        self.root, self.path, self.branch = root, os.path.join(folder, name), branch
        self.common = self._common(root)
        self._unfinished = unfinished(self.path)
        self._removed = os.path.join(folder, f".removed-{name}")

    def prepare(self) -> None:
        """Make the worktree, or reuse the one of an earlier attempt. Make a half-made one anew. Raises Refused."""
        shutil.rmtree(self._removed, ignore_errors=True)
        if os.path.lexists(self._unfinished):
            self._discard()
        if os.path.lexists(self.path) and (not os.path.isdir(self.path) or os.listdir(self.path)):
            self._admin()
            return
        self._forget_missing()
        is_new = not self._ref(f"refs/heads/{self.branch}")
        with open(self._unfinished, "w"):
            pass
        try:
            git(
                self.root,
                "worktree",
                "add",
                *(["--no-track", "-b", self.branch, self.path] if is_new else [self.path, self.branch]),
            )
        except subprocess.CalledProcessError:
            self._discard()
            if is_new and self._ref(f"refs/heads/{self.branch}"):
                git(self.root, "branch", "--quiet", "-D", self.branch)
            raise Refused("git worktree add failed, or the hook post-checkout did") from None
        os.unlink(self._unfinished)

    def remove(self) -> None:
        """Remove the worktree, and its branch if another branch has its commits. Raises Refused if work would be lost.

        An agent usually leaves commits on its branch. Then the worktree stays, and nothing is printed.
        """
        if self._not_elsewhere(self.common, filter(None, [self._ref(f"refs/heads/{self.branch}")])):
            return
        if reason := self._unsaved(self._admin(), self.branch) or self._changes():
            raise Refused(f"{self.path} is kept: {reason}")
        shutil.rmtree(self._removed, ignore_errors=True)
        os.rename(self.path, self._removed)  # at once, so that no half of it is ever used
        git(self.root, "worktree", "remove", "--force", self.path)  # its folder is gone: forgets this one and no other
        shutil.rmtree(self._removed)
        if self._ref(f"refs/heads/{self.branch}"):
            git(self.root, "branch", "--quiet", "-D", self.branch)  # refused where it is checked out

    def _admin(self) -> str:
        """Return the git folder of the worktree. Raises Refused if the path holds no worktree of this repository."""
        found = self._absolute(self.path, git(self.path, "rev-parse", "--git-dir"))
        # core.worktree may say otherwise
        top = self._absolute(self.path, git(self.path, "rev-parse", "--show-toplevel"))
        if {self._tree_of(found), top} != {self.path} or self._common(self.path) != self.common:
            raise Refused(f"{self.path} is not a worktree of {self.root}: move it away")
        return found

    def _discard(self) -> None:
        """Remove what was half made. No agent has ever run in it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            git(self.root, "worktree", "remove", "--force", "--force", self.path, quiet=True)
        shutil.rmtree(self.path, ignore_errors=True)
        os.unlink(self._unfinished)

    def _forget_missing(self) -> None:
        """Let git forget the worktree where somebody removed its folder. Raises Refused if work would be lost."""
        for admin in self._admins():
            if reason := self._unsaved(admin):
                raise Refused(f"{self.path} is gone, and git's record of it is kept: {reason}")
            git(self.root, "worktree", "remove", "--force", self.path)

    def _admins(self) -> list[str]:
        folder = os.path.join(self.common, "worktrees")
        found = [os.path.join(folder, name) for name in (os.listdir(folder) if os.path.isdir(folder) else [])]
        return [admin for admin in found if self._tree_of(admin) == self.path]

    def _tree_of(self, admin: str) -> str:
        try:
            with open(
                os.path.join(admin, "gitdir"), encoding=sys.getfilesystemencoding(), errors="surrogateescape"
            ) as file:
                return os.path.realpath(os.path.dirname(os.path.join(admin, file.read().rstrip("\n"))))
        except OSError:
            return ""

    def _unsaved(self, admin: str, branch: str = "") -> str:
        """Return what would be lost with the worktree's git folder, and with `branch`, or "" if nothing would be."""
        for name in UNDER_WAY:
            if os.path.lexists(os.path.join(admin, name)):
                return f"it has {name}"
        own = f"--git-dir={admin}"
        if refs := git(self.root, own, "for-each-ref", "--format=%(refname)", *OWN_REFS):
            return f"it has {refs.splitlines()[0]}"
        try:
            head = git(self.root, own, "rev-parse", "--verify", "HEAD^{commit}", quiet=True)
            names = ["HEAD", *([f"refs/heads/{branch}"] if branch and self._ref(f"refs/heads/{branch}") else [])]
            seen = git(self.root, own, "reflog", "show", "--format=%H", *names, "--").split()
            lost = self._not_elsewhere(admin, [head, *dict.fromkeys(seen)])
        except subprocess.CalledProcessError:
            return "its commits cannot be looked up"
        return f"no other branch has its commit {lost[:12]}" if lost else ""

    def _not_elsewhere(self, gitdir: str, commits: Iterable[str]) -> str:
        """Return a commit that neither a branch but this one nor the HEAD of `root` has, "" if there is none."""
        stays = ["--not", f"--exclude={self.branch}", "--branches", *filter(None, [self._ref("HEAD")])]
        own = ("--no-replace-objects", f"--git-dir={gitdir}")  # a replacement can join what nothing else joins
        return git(self.root, *own, "rev-list", "--max-count=1", *commits, *stays, "--")

    def _changes(self) -> str:
        """Return what in the worktree's files is in no commit, or "" if everything is."""
        options = ("--porcelain", "--ignored", "--untracked-files=all", "--ignore-submodules=none")
        exact = [word for setting in EXACT for word in ("-c", setting)]
        if changed := git(self.path, *exact, "status", "-z", *options):
            return f"{changed.split(chr(0))[0][3:]!r} is in no commit"
        for entry in filter(None, git(self.path, "ls-files", "-v", "--stage", "-z").split("\0")):
            facts, _, name = entry.partition("\t")
            tag, mode = facts.split(" ")[:2]
            file = os.path.join(self.path, name)
            if tag.islower():
                return f"git was told to assume {name!r} unchanged"
            if tag == "S" and os.path.lexists(file):
                return f"git was told to skip {name!r}"
            if mode == GITLINK and os.path.isdir(file) and os.listdir(file):
                return f"the submodule {name!r} has files"
        for folder, folders, files in os.walk(self.path):
            if folder != self.path and ".git" in (*folders, *files):  # `git status` never looks at it
                return f"{os.path.relpath(folder, self.path)!r} has a .git of its own"
        return ""

    def _ref(self, name: str) -> str:
        try:
            return git(self.root, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}", quiet=True)
        except subprocess.CalledProcessError:
            return ""

    def _common(self, path: str) -> str:
        return self._absolute(path, git(path, "rev-parse", "--git-common-dir"))

    @staticmethod
    def _absolute(path: str, answer: str) -> str:
        return os.path.realpath(os.path.join(path, answer))


def unfinished(path: str) -> str:
    """Return the file that is there while a worktree is being made."""
    return os.path.join(os.path.dirname(path), f".unfinished-{os.path.basename(path)}")


def git(path: str, *words: str, quiet: bool = False) -> str:
    """Return what git prints in a folder. Raises CalledProcessError."""
    errors = subprocess.DEVNULL if quiet else None
    argv = ["git", "-C", path, "--no-optional-locks", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, check=True)
    return os.fsdecode(done.stdout).removesuffix("\n")


def main() -> int:
    """Do what the words of the command line say. Return the exit status."""
    action, *words = sys.argv[1:]
    try:
        worktree = Worktree(*words)
        with open(os.path.join(worktree.common, "bdauto.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            worktree.prepare() if action == "prepare" else worktree.remove()
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"git {' '.join(error.cmd[4:7])} failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
