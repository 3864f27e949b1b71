"""A git worktree for each bead: what a job runs before and after its agent.

The supervisor runs it after bdauto itself has ended, so it is a program of its own: `worktree_program`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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
Action = Literal["prepare", "check", "seal", "land", "describe", "fetch", "remove"]


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
    def directory(self) -> str:
        """Where the agent runs."""
        return os.path.normpath(self.path / self.folder)

    def words(self, action: Action, **more: object) -> list[str]:
        """Return the command line that does something with it, see `worktree_program`. It fails if that cannot be done.

        `check` fails if `prepare` is known to fail. `seal` remembers the commit that is to be landed. `land` takes the
        `command` that lands it and how long to `wait` for others, in seconds. `describe` prints a JSON object. `remove`
        does nothing where something would be lost, or where a job in the folder `jobs` uses the worktree.
        """
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
