"""What `bdauto doctor` checks of an agent on this machine. Reads only."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bdauto.diagnostics.findings import Check, fail, ok, warn
from bdauto.domain.values import format_duration
from bdauto.errors import UsageError

if TYPE_CHECKING:
    from bdauto.agents.local.local_agent import LocalAgent

ROOM = 1 << 30
"""With less free disk than this a job's output, let alone its work, may not fit."""


def local_checks(agent: "LocalAgent", now: float) -> Iterator[Check]:
    """Check the command, the folders, the disk and what earlier jobs left; `now` is in seconds since the epoch."""
    try:
        agent.check()
        yield ok("agent command", agent.program())
    except UsageError as error:
        yield fail("agent command", error)
    yield _jobs(agent)
    yield _disk(agent.jobs.path)
    yield _worktrees(agent, now)


def _jobs(agent: "LocalAgent") -> Check:
    """Check that the jobs' folder is the user's alone and on a disk where locks work."""
    name, path = "jobs", agent.jobs.path
    if not path.exists():
        return ok(name, f"{path} will be made")
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        return fail(name, UsageError(f"others may write to {path} (mode {mode:04o})"), f"chmod 700 {path}")
    if not _locks_work(path / ".lock"):
        return fail(name, UsageError(f"locks do not work in {path}"), "name a folder on a local disk with --agent-jobs")
    capacity = agent.capacity()
    return ok(name, f"{capacity.active} of {capacity.total} slots taken, {path}")


def _locks_work(file: Path) -> bool:
    """Return whether a lock held through one open file is seen through another; on some network disks it is not."""
    try:
        with file.open("rb") as one, file.open("rb") as two:
            fcntl.flock(one, fcntl.LOCK_SH)  # shared, so that no dispatcher is held up
            try:
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:  # no job was started yet
        return True
    except OSError:
        return False


def _disk(path: Path) -> Check:
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    words = f"{free / (1 << 30):.1f} GiB free for jobs"
    return ok("disk", words) if free >= ROOM else warn("disk", words, "a job keeps up to 50 MiB of output")


def _worktrees(agent: "LocalAgent", now: float) -> Check:
    """Look for worktrees that were kept for longer than jobs are."""
    name, keep = "worktrees", agent.settings.agent_keep
    kept = [tree for tree in (agent.jobs.path / "worktrees").glob("*/*") if (tree / ".git").exists()]
    stale = [tree for tree in kept if tree.stat().st_mtime < now - keep.total_seconds()]
    if stale:
        words = f"{len(stale)} not touched for {format_duration(keep)}, such as {stale[0]}"
        return warn(name, words, "merge what is worth it, then `git worktree remove` them")
    return ok(name, f"{len(kept)} kept")
