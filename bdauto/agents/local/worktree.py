"""A git worktree for each bead: what a job runs before and after its agent.

The supervisor runs it after bdauto itself has ended, so it is a program of its own: `worktree_program`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bdauto.agents.local import worktree_program
from bdauto.common.errors import UsageError

PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from bdauto.agents.local.worktree_program import main; sys.exit(main())"
)
"""Runs the program without the environment's Python settings and without other packages, which takes less time."""
PACKAGES = str(Path(worktree_program.__file__).parents[3])
"""The folder that holds bdauto."""


class Worktree(msgspec.Struct, frozen=True):
    """A bead's worktree of the repository `root`.

    Its branch starts at `base`, "" for the HEAD of `root`. `command` prepares a new worktree, in `folder` of it.
    """

    root: Path
    path: Path
    branch: str
    base: str = ""
    command: tuple[str, ...] = ()
    folder: str = "."

    @property
    def prepare(self) -> list[str]:
        """The command that makes it."""
        return self._command("prepare")

    @property
    def check(self) -> list[str]:
        """The command that fails if `prepare` is known to fail. It writes nothing."""
        return self._command("check")

    @property
    def seal(self) -> list[str]:
        """The command that fails unless all work is committed, and remembers the commit that is to be landed."""
        return self._command("seal")

    def land(self, command: Sequence[str], wait: float) -> list[str]:
        """Return the command that lands the sealed commit. Others of the repository are waited for, in seconds."""
        return self._command("land", command=command, wait=wait)

    @property
    def describe(self) -> list[str]:
        """The command that prints what is in it, as one JSON object."""
        return self._command("describe")

    @property
    def remove(self) -> list[str]:
        """The command that removes it if nothing would be lost."""
        return self._command("remove")

    @property
    def fetch(self) -> list[str]:
        """The command that fetches what the branch may have been merged into."""
        return self._command("fetch")

    def remove_unless_used(self, jobs: Path) -> list[str]:
        """Return the command that removes it if nothing would be lost, and if no job in this folder uses it."""
        return self._command("remove", jobs=str(jobs))

    @property
    def is_unfinished(self) -> bool:
        """Whether an earlier command left a half-made worktree at the path. The next one makes it anew."""
        return os.path.lexists(worktree_program.unfinished(str(self.path)))

    @property
    def directory(self) -> str:
        """Where the agent runs."""
        return os.path.normpath(self.path / self.folder)

    def _command(self, action: str, **more: object) -> list[str]:
        task = {name: str(getattr(self, name)) for name in ("root", "path", "branch", "base")}
        text = msgspec.json.encode({**task, "command": self.command, "folder": self.directory, **more}).decode()
        return [sys.executable, "-I", "-S", "-c", PROGRAM, PACKAGES, action, text]


def worktree_of(bead_id: str, directory: Path, jobs: Path, base: str = "", command: Sequence[str] = ()) -> Worktree:
    """Return the worktree of a bead, where its agent runs as if in `directory`. Raises UsageError.

    It lies beside the jobs, so that the repository itself stays as it is.
    """
    import hashlib  # few need it, and it takes time

    root = repository_of(directory)
    name = f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    path, folder = jobs / "worktrees" / name / bead_id, str(directory.relative_to(root))
    return Worktree(root, path, f"agent/{bead_id}", base, tuple(command), folder)


def repository_of(directory: Path) -> Path:
    """Return the root of the git repository that a folder is in. Raises UsageError if there is none."""
    for folder in (directory, *directory.parents):
        if os.path.lexists(folder / ".git"):
            return folder
    raise UsageError(
        f"--agent-worktree: {directory} is not in a git repository", hint="run `git init`, or leave it out"
    )
