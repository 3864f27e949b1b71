"""A git worktree for each bead: what a job runs before and after its agent.

The supervisor runs it after bdauto itself has ended, so it is shell and not Python. The text is fixed. The paths and
the branch come as arguments.
"""

from pathlib import Path

import msgspec

from bdauto.errors import UsageError

PREPARE = """
if [ -e "$2/.git" ]
then
  own=$(git -C "$2" rev-parse --absolute-git-dir) || exit
  grep -qs "^initializing" "$own/locked" || exit 0  # kept by an earlier attempt
  git -C "$1" worktree remove --force --force "$2" || exit  # git was killed while it made it
fi
git -C "$1" worktree prune
made=
if git -C "$1" show-ref --quiet --verify "refs/heads/$3"
then git -C "$1" worktree add "$2" "$3" && exit
else git -C "$1" worktree add -b "$3" "$2" && exit; made=yes
fi
# a hook may have failed once the worktree was there
git -C "$1" worktree remove --force "$2" 2>/dev/null && [ "$made" ] && git -C "$1" branch --quiet -D "$3"
echo "git worktree add failed, or the hook post-checkout did"
exit 1
"""
"""Make the worktree $2 of the repository $1 on the branch $3. One that was not made to its end is not kept."""
REMOVE = """
git -C "$1" merge-base --is-ancestor "$3" HEAD && git -C "$1" worktree remove "$2" && git -C "$1" branch -d "$3"
"""
"""Remove worktree and branch, unless the branch has commits of its own or the worktree has changes."""


class Worktree(msgspec.Struct, frozen=True):
    """A bead's worktree of the repository `root`."""

    root: Path
    path: Path
    branch: str

    @property
    def prepare(self) -> list[str]:
        """The command that makes it."""
        return ["sh", "-c", PREPARE, "sh", str(self.root), str(self.path), self.branch]

    @property
    def remove(self) -> list[str]:
        """The command that removes it if nothing would be lost."""
        return ["sh", "-c", REMOVE, "sh", str(self.root), str(self.path), self.branch]


def worktree_of(bead_id: str, root: Path, jobs: Path) -> Worktree:
    """Return the worktree of a bead. It lies beside the jobs, so that the repository itself stays as it is."""
    import hashlib  # few need it, and it takes time

    name = f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    return Worktree(root, jobs / "worktrees" / name / bead_id, f"agent/{bead_id}")


def repository_of(directory: Path) -> Path:
    """Return the root of the git repository that a folder is in. Raises UsageError if there is none."""
    for folder in (directory, *directory.parents):
        if (folder / ".git").exists():
            return folder
    raise UsageError(
        f"--agent-worktree: {directory} is not in a git repository", hint="run `git init`, or leave it out"
    )
