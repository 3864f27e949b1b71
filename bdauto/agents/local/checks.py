"""What `bdauto doctor` checks of an agent on this machine. Reads only."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bdauto.agents.cli_adapters.table import ADAPTERS
from bdauto.agents.local.preflight import check_folder, try_folder
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.runner import CheckContext
from bdauto.common.errors import ServiceDown, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.findings import Check, fail, ok, warn
from bdauto.domain.values import format_duration

ROOM = 1 << 30
"""With less free disk than this a job's output, let alone its work, may not fit."""


def checks(agent: LocalAgent, context: CheckContext) -> Iterator[Check]:
    """Check the command, the folders, the disk and what earlier jobs left."""
    if agent.settings.agent_command is None:
        yield _earlier_agents(agent)
    else:
        yield from _command(agent)
    yield _bd(agent, context.bd)
    if agent.dropped:
        yield ok("environment", f"the agent does not get {', '.join(agent.dropped)}")
    yield _jobs(agent)
    yield _disk(agent.jobs.path)
    yield _worktrees(agent, context.now().timestamp())


def _earlier_agents(agent: "LocalAgent") -> Check:
    """Name the agents that ran here, where none is configured for this command."""
    known = sorted({run.agent for _, run in agent.recent_runs(datetime.fromtimestamp(0, UTC)) if run.agent})
    words = f"none is configured for this command; jobs of this tracker ran here: {', '.join(known) or 'agents'}"
    name = next((name for name in known if name in ADAPTERS), "NAME")
    hint = f'write agent = "{name}" into the file that `bdauto config init` makes, or give --agent {name}'
    return warn("agent command", words, hint)


def _command(agent: "LocalAgent") -> Iterator[Check]:
    """Check the command and the folder where it runs."""
    try:
        agent.check()
        yield ok("agent command", agent.command.program())
    except UsageError as error:
        yield fail("agent command", error)
    else:
        gates = [*agent.command.checks, *([agent.command.review_words] if agent.command.review_words else [])]
        if words := ", ".join(clean(gate[0], 60) for gate in gates):
            yield ok("checks", f"{words}; each ends after {format_duration(agent.settings.agent_check_timeout)}")
        yield from _agent(agent)
        yield from _repository(agent)


def _agent(agent: LocalAgent) -> Iterator[Check]:
    """Ask a known agent for its version, and check that it may run bd without asking."""
    adapter = ADAPTERS.get(agent.settings.agent or Path(agent.command.program()).name)
    if adapter:
        try:
            written = f"bdauto was written for {adapter.versions}"
            yield ok(f"{adapter.program} version", f"{agent.command.version() or 'not told'}; {written}")
        except UsageError as error:
            yield warn(f"{adapter.program} version", error.message, "see whether it works by hand")
    if name := agent.command.lacks_permission():
        words = f"{name} may not run bd as it is started, and nobody is there to allow it: it will lose its bead"
        hint = f"give --agent {name}, or allow bd in the command or in the settings of {name} (docs/agents.md)"
        yield warn("agent's permissions", words, hint)


def _bd(agent: LocalAgent, bd: str) -> Check:
    """Look for bd on the PATH that the agent gets, which is short under cron."""
    name = "agent's bd"
    found, own = shutil.which("bd", path=agent.command.search_path), shutil.which(bd)
    if found is None:
        hint = f"add {Path(own).absolute().parent} to PATH" if own else "install bd on its PATH"
        return warn(
            name,
            f"the agent finds no bd on its PATH ({clean(agent.command.search_path)}), so it cannot close its bead",
            hint,
        )
    if own and not Path(found).samefile(own):
        return warn(name, f"the agent runs {found}, and bdauto runs {own}", "let both use the same bd")
    return ok(name, found)


def _repository(agent: LocalAgent) -> Iterator[Check]:
    """Check that git would make a worktree and its branch."""
    try:
        if root := agent.check_repository():
            yield ok("repository", f"git makes branches in {root}")
            if (root / ".gitmodules").is_file() and not agent.settings.agent_prepare:
                hint = "give --agent-prepare 'git submodule update --init'"
                yield warn("submodules", "they are not checked out in a bead's worktree", hint)
    except UsageError as error:
        yield fail("repository", error)


def _jobs(agent: LocalAgent) -> Check:
    """Check that a job could be started in the jobs' folder, that it is private, and that locks work there."""
    name, path = "jobs", agent.jobs.path
    try:
        check_folder(path)
        if not path.exists():
            return ok(name, f"{path} will be made")
        try_folder(path)
        capacity = agent.capacity()
    except (UsageError, ServiceDown) as error:
        return fail(name, error)
    if not _locks_work(path / ".lock"):
        return fail(name, UsageError(f"locks do not work in {path}"), "name a folder on a local disk with --agent-jobs")
    named = f", jobs folder {agent.jobs.place()}" if agent.jobs.place() else ""
    taken = f"{capacity.active} of {capacity.total} slots taken" if capacity.total else f"{capacity.active} running"
    return ok(name, f"{taken}, {path}{named}")


def _locks_work(file: Path) -> bool:
    """Return whether a lock held through one open file is seen through another. On some network disks it is not."""
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
    place = next(folder for folder in (path, *path.parents) if os.path.exists(folder))  # noqa: PTH110 - Path.exists raises PermissionError
    free = shutil.disk_usage(place).free
    words = f"{free / (1 << 30):.1f} GiB free for jobs"
    return ok("disk", words) if free >= ROOM else warn("disk", words, "a job keeps up to 50 MiB of output")


def _worktrees(agent: LocalAgent, now: float) -> Check:
    """Look for worktrees that were kept for longer than jobs are."""
    name, keep = "worktrees", agent.settings.agent_keep
    kept = [tree for tree in (agent.jobs.path / "worktrees").glob("*/*") if os.path.exists(tree / ".git")]  # noqa: PTH110 - as above
    stale = [tree for tree in kept if tree.stat().st_mtime < now - keep.total_seconds()]
    if stale:
        words = f"{len(stale)} not touched for {format_duration(keep)}, such as {stale[0]}"
        return warn(name, words, "merge what is worth it, then run `bdauto worktrees --remove`")
    return ok(name, f"{len(kept)} kept")
