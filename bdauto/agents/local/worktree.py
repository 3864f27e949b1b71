"""A git worktree for each bead: what a job runs before and after its agent.

The supervisor runs it after bdauto itself has ended, so it is a program of its own: `worktree_program`.
"""

import os
import sys
from pathlib import Path

import msgspec

from bdauto.agents.local import worktree_program
from bdauto.errors import UsageError


class Worktree(msgspec.Struct, frozen=True):
    """A bead's worktree of the repository `root`."""

    root: Path
    path: Path
    branch: str

    @property
    def prepare(self) -> list[str]:
        """The command that makes it."""
        return self._command("prepare")

    @property
    def remove(self) -> list[str]:
        """The command that removes it if nothing would be lost."""
        return self._command("remove")

    @property
    def is_unfinished(self) -> bool:
        """Whether an earlier command left a half-made worktree at the path. The next one makes it anew."""
        return os.path.lexists(worktree_program.unfinished(str(self.path)))

    def _command(self, action: str) -> list[str]:
        program = [sys.executable, "-I", "-S", worktree_program.__file__, action]
        return [*program, str(self.root), str(self.path), self.branch]


def worktree_of(bead_id: str, root: Path, jobs: Path) -> Worktree:
    """Return the worktree of a bead. It lies beside the jobs, so that the repository itself stays as it is."""
    import hashlib  # few need it, and it takes time

    name = f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    return Worktree(root, jobs / "worktrees" / name / bead_id, f"agent/{bead_id}")


def repository_of(directory: Path) -> Path:
    """Return the root of the git repository that a folder is in. Raises UsageError if there is none."""
    for folder in (directory, *directory.parents):
        if os.path.lexists(folder / ".git"):
            return folder
    raise UsageError(
        f"--agent-worktree: {directory} is not in a git repository", hint="run `git init`, or leave it out"
    )
