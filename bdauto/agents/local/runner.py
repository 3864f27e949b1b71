"""Start the agent command for a bead on this machine, and end its jobs.

Nothing here waits for a job: a supervisor runs it, in a session of its own, and outlives whoever started it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bdauto.agents.answers import Answer, AtCapacity, NotStarted, Started
from bdauto.agents.local.agent_command import AgentCommand
from bdauto.agents.local.jobs import default_folder, failed_gates, only_one, private_folder
from bdauto.agents.local.local_jobs import Origin
from bdauto.agents.local.preflight import (
    LONGEST_WORD,
    branch_state,
    check_base,
    check_folder,
    check_repository,
    check_utf8,
    try_folder,
    worktree_problem,
)
from bdauto.agents.local.sessions import resume
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.local.start_job import job_record, longest, start_job, supervise
from bdauto.agents.local.stoppable_jobs import StoppableJobs
from bdauto.agents.local.worktree import Worktree, repository_of, worktree_of
from bdauto.agents.local.worktree_list import ListedWorktree, list_worktrees
from bdauto.agents.prompt import read_template, render, render_resumed, text_digest
from bdauto.agents.runner import Place, Project
from bdauto.agents.runner_status import AGENT, Capacity, Part, RunnerStatus
from bdauto.common.environment import LEAVE_INDEX, foreign
from bdauto.common.errors import BdautoError, ServiceDown, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.earlier_attempts import describe_earlier, describe_last
from bdauto.domain.lanes import Lanes

BD_NAMES = ("BD_ACTOR", "BD_DB", "BEADS_DB")
"""Variables that override BEADS_ACTOR and BEADS_DIR in bd: another writer, or another tracker."""

WORKTREE_OPTIONS = ("agent_base", "agent_prepare", "agent_land")
"""The settings that say something about worktrees."""


def open_runner(settings: LocalAgentSettings, project: Callable[[], Project]) -> "LocalAgent":
    """Return what runs the agent. Raises UsageError and BdError, as `project` does."""
    found = project()
    if found.beads is None:
        raise UsageError(
            "--metadata does not go with an agent on this machine, which needs a .beads folder that stays",
            hint="give --db",
        )
    more: dict[str, Any] = {"tracker": found.tracker, "home": found.home, "bd": found.bd, "lanes": found.lanes}
    return LocalAgent(settings, found.beads, found.assignee, found.environment, **more)


def machine_part(capacity: Capacity | None = None, error: BdautoError | None = None) -> Part:
    """Return this machine as a part of the runner."""
    text = ""
    if capacity:
        text = (
            f"{capacity.active} of {capacity.total} slots taken" if capacity.counted else f"{capacity.active} running"
        )
    return Part(AGENT, "this machine", capacity, error, text)


class LocalAgent(StoppableJobs):
    """Runs an agent command on this machine. `beads` is the `.beads` folder, `assignee` whom the agent writes as."""

    def __init__(
        self,
        settings: LocalAgentSettings,
        beads: Path,
        assignee: str,
        environment: Mapping[str, str],
        *,
        tracker: str = "",
        home: Path | None = None,
        bd: tuple[str, ...] = (),
        lanes: Lanes | None = None,
    ) -> None:
        """Take the settings. The agent inherits from `environment`, which has none of bdauto's secrets.

        `tracker` is the tracker's own id, by default its folder. The agent runs in `home`, the folder of the project,
        unless the settings name another. `bd` is how bdauto calls bd.
        """
        folder = str(beads.resolve())
        super().__init__(
            settings.agent_jobs or default_folder(environment),
            Origin(tracker or folder, assignee, folder, lanes or Lanes()),
        )
        self.settings = settings
        self.dropped = sorted(foreign(environment) | {name for name in environment if name in BD_NAMES})
        kept = {name: value for name, value in environment.items() if name not in self.dropped}
        own = LEAVE_INDEX | kept | {"BEADS_ACTOR": assignee, "BEADS_DIR": folder}
        self.command = AgentCommand(settings, (settings.agent_dir or home or beads.parent).absolute(), own, bd)

    def status(self) -> RunnerStatus:
        """Return how many slots are free, or why that cannot be told."""
        try:
            return RunnerStatus((machine_part(self.capacity()),))
        except ServiceDown as error:
            return RunnerStatus((machine_part(error=error),))

    def count_running(self) -> int:
        """Return how many jobs run on this machine."""
        return self.capacity().active

    def capacity(self) -> Capacity:
        """Return how many of the slots are free on this machine. Without a command nobody knows how many there are."""
        jobs, slots = self.jobs.running(), self.settings.agent_slots
        running = len([*filter(self._counts, jobs)])
        if self.settings.agent_command is None:
            return Capacity(1, active=running)
        of_all = self.settings.slots_of_all
        free = min(slots - running, slots if of_all is None else of_all - len(jobs))
        return Capacity(max(free, 0), True, running, 0, slots)

    def _counts(self, job: str) -> bool:
        """Return whether a job takes one of this lane's slots. Without lanes, every job on the machine does."""
        record = self.jobs.record(job) if self.origin.lanes.rules else None
        return record is None or self.origin.is_of(record)

    def place(self) -> Place:
        """Return the jobs' folder, with an id of its own. Makes both if need be. Raises UsageError."""
        settings = self.settings
        return Place(self.jobs.make_place(), os.uname().nodename, longest(settings), settings.is_checked)

    def check(self) -> None:
        """Raise UsageError when the command must not be run.

        It is not found, has no folder to run in, no readable prompt, or would run a bead's text as code.
        """
        if self.settings.agent_command is None:  # this machine's jobs are looked at, and none is started
            return
        self.command.check()
        check_utf8("the folder", [str(self.command.directory), str(self.jobs.path), self.origin.beads])
        if self.settings.agent_worktree:
            repository_of(self.command.directory)
        elif given := next((name for name in WORKTREE_OPTIONS if getattr(self.settings, name)), ""):
            option = f"--{given.replace('_', '-')}"
            raise UsageError(f"{option} goes with --agent-worktree", hint="give both, or neither")
        self._template()

    def check_start(self, *, dry_run: bool = False) -> None:
        """Raise UsageError if no job could be started here for any bead. A dry run makes no folder."""
        self.command.program()
        self.check()
        self.check_repository()
        (check_folder if dry_run else try_folder)(self.jobs.path)

    def problem_with(self, bead: Bead) -> str:
        """Return why no job of this bead could be started, or "" if no reason is known."""
        words = self.command.filled(bead.id, "", self.prompt(bead, bead.id))
        if any(len(os.fsencode(word)) >= LONGEST_WORD for word in words):
            return "its prompt is too long for a word of the command: leave {prompt} out, and read standard input"
        worktree = self._worktree(bead)
        return worktree_problem(worktree, self.command.environment) if worktree else ""

    def check_repository(self) -> Path | None:
        """Return the repository that worktrees are made of, None without --agent-worktree. Raises UsageError."""
        if not self.settings.agent_worktree:
            return None
        root, base = repository_of(self.command.directory), self.settings.agent_base or "HEAD"
        check_repository(root, self.command.environment, base, self.command.directory.relative_to(root))
        return root

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Start the agent on a bead. The attempt's id is the job's: to start it again only says that it was started."""
        try:
            private_folder(self.jobs.path)
            with only_one(self.jobs.path):
                if self.jobs.folder(attempt):
                    return Started(attempt)
                if self.jobs.is_forbidden(attempt):
                    return NotStarted("its claim was cancelled")
                if running := self.jobs_at_work(bead):
                    return AtCapacity(f"job {running[-1]} of it still runs here")
                if self.capacity().free == 0:
                    return AtCapacity()
                self._start(bead, attempt)
        except Exception as error:  # whatever it is, nothing was started, and the claim is given back
            return NotStarted(f"cannot start the agent: {clean(str(error) or type(error).__name__)}")
        with contextlib.suppress(Exception):  # the job runs, whatever becomes of old ones
            self.jobs.prune(time.time() - self.settings.agent_keep.total_seconds())
        return Started(attempt)

    def _start(self, bead: Bead, attempt: str) -> None:
        prompt, environment = self.prompt(bead, attempt), self.command.environment
        cold = job_record(self.command, self.origin, self._worktree(bead), bead, attempt, prompt, self.jobs.path)
        record = resume(cold, bead, self.jobs, self.settings, environment) if bead.record.runs else None
        resumed = self._resumed_prompt(bead, attempt) if record else ""
        run = partial(supervise, {**environment, "BEAD_ID": bead.id, "BDAUTO_JOB": attempt})
        start_job(self.jobs.path, record or cold, prompt, run, resumed)

    def _resumed_prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt for a bead whose agent goes on in the session of its last job."""
        last = bead.record.runs[-1].attempt
        record = self.jobs.record(last)
        previous = describe_last(bead, failed_gates(self.jobs, self.origin.tracker, bead.id).get(last, ""))
        changed = record is None or record.text != text_digest(bead)
        return render_resumed(
            self._template(),
            bead,
            attempt,
            previous,
            changed=changed,
            checked=self.settings.is_checked,
            lands=self.settings.agent_land is not None,
        )

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt for a bead, with what is known of its earlier attempts."""
        checked, lands = self.settings.is_checked, self.settings.agent_land is not None
        return render(self._template(), bead, attempt, self._earlier(bead), checked=checked, lands=lands)

    def _earlier(self, bead: Bead) -> str:
        if not bead.record.runs:
            return ""
        worktree = self._worktree(bead)
        branch = branch_state(worktree, self.command.environment) if worktree else ""
        return describe_earlier(bead, failed_gates(self.jobs, self.origin.tracker, bead.id), branch)

    def _worktree(self, bead: Bead) -> Worktree | None:
        """Return the bead's worktree, None without --agent-worktree. Raises UsageError."""
        if not self.settings.agent_worktree:
            return None
        base, command = self.settings.agent_base or "", self.command.prepare_words
        return worktree_of(bead.id, self.command.directory, self.jobs.path, base, command)

    def worktrees(self, *, remove: bool = False) -> list[ListedWorktree]:
        """Return the worktrees of this repository's beads, and with `remove`, remove those that can be.

        Raises UsageError.
        """
        root, environment = repository_of(self.command.directory), self.command.environment
        if base := self.settings.agent_base or "":
            check_base(root, environment, base)
        return list_worktrees(self.jobs, self.command.directory, base, environment, remove=remove)

    def _template(self) -> str:
        return read_template(self.settings.agent_prompt)
