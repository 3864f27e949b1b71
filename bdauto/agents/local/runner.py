"""Start the agent command for a bead, and say how its jobs are.

Nothing here waits for a job: a supervisor runs it, in a session of its own, and outlives whoever started it.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bdauto.agents.answers import Answer, AtCapacity, NotStarted, Started
from bdauto.agents.capacity import Capacity
from bdauto.agents.cli_adapters.permissions import lacks_permission
from bdauto.agents.local import supervisor
from bdauto.agents.local.jobs import (
    DELETED,
    DIED,
    NEW,
    RECORDED,
    RUNNING,
    JobRecord,
    Jobs,
    default_folder,
    only_one,
    private_folder,
)
from bdauto.agents.local.output import LocalOutput, heard_at, job_end, job_run, last_event
from bdauto.agents.local.preflight import (
    LONGEST_WORD,
    branch_state,
    check_folder,
    check_repository,
    check_utf8,
    program_version,
    try_folder,
    worktree_problem,
)
from bdauto.agents.local.settings import LocalAgentSettings, silence_of
from bdauto.agents.local.words import check_words, fill, wants_stdin
from bdauto.agents.local.worktree import Worktree, repository_of, worktree_of
from bdauto.agents.prompt import read_template, render
from bdauto.agents.runner import CheckContext, JobOutput, LastEvent, Place, Project, Runner
from bdauto.agents.runner_status import AGENT, Part, RunnerStatus
from bdauto.domain.bead import Bead
from bdauto.domain.earlier_attempts import describe_earlier
from bdauto.domain.findings import Check
from bdauto.domain.reaping import FORGOTTEN, NOT_STARTED, OVER, FailedCheck, JobEvidence, who_knows
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Result, Run
from bdauto.domain.results import JobEnd
from bdauto.environment import LEAVE_INDEX, foreign
from bdauto.errors import BdautoError, ServiceDown, ServiceDrift, ServiceError, UsageError
from bdauto.sanitize import clean

TOOL_SILENCE = timedelta(hours=2)
"""How long a tool of an agent may run without a word: builds and test suites print nothing until their end."""
PATIENCE = 10.0
"""Seconds to wait, beyond the time between SIGTERM and SIGKILL, for a job that is cancelled."""
SETTINGS_CHARACTERS = 1 << 20
"""So much of an agent's own settings is looked at."""
LATELY = 86_400.0
"""Seconds after a job's end. Until then each sweep looks at it, unless it is marked as recorded."""
DETACHED = ["/bin/sh", "-c", '"$@" &', "sh"]
"""Starts a program and ends at once, so that the program is nobody's child: `bdauto run` need not wait for it."""
BD_NAMES = ("BD_ACTOR", "BD_DB", "BEADS_DB")
"""Variables that override BEADS_ACTOR and BEADS_DIR in bd: another writer, or another tracker."""


def open_runner(settings: LocalAgentSettings, project: Callable[[], Project]) -> "LocalAgent":
    """Return what runs the agent. Raises UsageError and BdError, as `project` does."""
    found = project()
    return LocalAgent(settings, found.beads, found.assignee, found.environment, tracker=found.tracker, home=found.home)


def machine_part(capacity: Capacity | None = None, error: BdautoError | None = None) -> Part:
    """Return this machine as a part of the runner."""
    text = ""
    if capacity:
        text = (
            f"{capacity.active} of {capacity.total} slots taken" if capacity.counted else f"{capacity.active} running"
        )
    return Part(AGENT, "this machine", capacity, error, text)


class LocalAgent(Runner):
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
    ) -> None:
        """Take the settings. The agent inherits from `environment`, which has none of bdauto's secrets.

        `tracker` is the tracker's own id, by default its folder. The agent runs in `home`, the folder of the project,
        unless the settings name another.
        """
        self.settings = settings
        self.jobs = Jobs((settings.agent_jobs or default_folder(environment)).absolute())
        self._assignee = assignee
        self._ended: dict[str, Run] = {}
        self._ends: dict[str, JobEnd] = {}
        folder = str(beads.resolve())
        self._tracker = tracker or folder
        self.dropped = sorted(foreign(environment) | {name for name in environment if name in BD_NAMES})
        kept = {name: value for name, value in environment.items() if name not in self.dropped}
        self._environment = LEAVE_INDEX | kept | {"BEADS_ACTOR": assignee, "BEADS_DIR": folder}
        self._directory = (settings.agent_dir or home or beads.parent).absolute()

    @property
    def knows_jobs(self) -> bool:
        """True: jobs on this machine can be looked up."""
        return True

    def status(self) -> RunnerStatus:
        """Return how many slots are free, or why that cannot be told."""
        try:
            return RunnerStatus((machine_part(self.capacity()),))
        except ServiceDown as error:
            return RunnerStatus((machine_part(error=error),))

    def count_running(self) -> int:
        """Return how many jobs run on this machine."""
        return self.capacity().active

    def checks(self, context: CheckContext) -> Iterator[Check]:
        """Check the command, the folders, the disk and what earlier jobs left."""
        from bdauto.agents.local.checks import checks

        yield from checks(self, context)

    def job_state(self, job: str) -> str | None:
        """Return the state of a job, None if the jobs' folder does not know it."""
        state = self.jobs.state(job)
        return "timed out" if state == "timeout" else state  # the supervisor has ended it: see `domain.reaping.OVER`

    def evidence(
        self, beads: Collection[Bead], status: RunnerStatus | None = None
    ) -> tuple[JobEvidence, ServiceError | None]:
        """Return what the jobs' folder knows of the beads that it owns.

        A claim that names this folder and no job, and has no job here, was never started. While any job of a bead runs,
        the bead is not settled.
        """
        states: dict[str, str] = {}
        ends: dict[str, JobEnd] = {}
        others: dict[str, str] = {}
        for bead in beads:
            job = bead.record.job or bead.record.attempt
            running = self.jobs_at_work(bead)
            if running and job not in running:
                states[bead.id], others[bead.id] = RUNNING, running[-1]
            elif job:
                states[bead.id] = self.job_state(job) or (FORGOTTEN if bead.record.job else NOT_STARTED)
                if states[bead.id] in OVER:
                    ends[bead.id] = self._end(job)
        return JobEvidence(states, ends=ends, others=others), None

    def place(self) -> Place:
        """Return the jobs' folder, with an id of its own. Makes both if need be. Raises UsageError.

        Each step of a job has the same time limit: making its worktree, its agent, its check.
        """
        limits = 1 + self.settings.agent_worktree + (self.settings.agent_check is not None)
        grace = timedelta(seconds=supervisor.GRACE)
        longest = limits * (self.settings.agent_timeout + grace)
        return Place(self.jobs.make_place(), os.uname().nodename, longest)

    def owns(self, bead: Bead) -> bool:
        """Return whether the claim names this jobs' folder, or a job of the bead runs in it.

        Where the claim names no folder, its job is enough. A job of a claim on another folder may be a copy.
        """
        if self.jobs_at_work(bead):
            return True
        if bead.jobs_folder:
            return bead.jobs_folder == self.jobs.place()
        with contextlib.suppress(OSError):
            return bool(self.jobs.folder(bead.record.job or bead.record.attempt))
        return False

    @property
    def checking(self) -> bool:
        """Whether a job runs on this machine: a check may follow, or be under way."""
        try:
            return bool(self.jobs.running())
        except ServiceDown:
            return True

    def recent_runs(self, since: datetime) -> list[tuple[str, Run]]:
        """Return this queue's runs on this machine that still run or ended after `since`, even if their beads are gone.

        They come from the jobs' folder, so an agent that edits or deletes its bead hides no run.
        """
        records = {job: record for job in self.jobs.ids() if (record := self.jobs.record(job))}
        beads = {job: record.bead for job, record in records.items() if self._is_mine(record)}
        now = datetime.now(UTC)
        runs = [(bead, self._ended.get(job) or job_run(self.jobs, job, now)) for job, bead in beads.items()]
        self._ended = {run.attempt: run for _, run in runs if run and run.ended_at}
        return [(bead, run) for bead, run in runs if run and (run.ended_at is None or run.ended_at > since)]

    def _is_mine(self, record: JobRecord) -> bool:
        return record.tracker == self._tracker and record.assignee in ("", self._assignee)

    def _has_bead(self, record: JobRecord) -> bool:
        """Return whether a job of this queue is one of these beads, and not of a copy.

        A copy of the project's folder has the same tracker id and other beads. Its jobs are left to a sweep there,
        unless that folder is gone: it was renamed.
        """
        own = self._environment["BEADS_DIR"]
        return self._is_mine(record) and (record.beads in ("", own) or not Path(record.beads).is_dir())

    def unrecorded(self) -> list[tuple[str, str, JobEnd]]:
        """Return bead, job and end of each job of these beads that ended within a day and has no mark."""
        now = datetime.now(UTC)
        try:
            return [
                (record.bead, record.attempt, self._end(record.attempt))
                for record, end in self.jobs.ends_of(self._tracker)
                if now.timestamp() - end.ended < LATELY and self._has_bead(record)
                if not self.jobs.marked(record.attempt, RECORDED, DELETED)
            ]
        except ServiceDown:
            return []

    def _end(self, job: str) -> JobEnd:
        """Return the end of a job that is over. Its output, up to 50 MiB, is read once."""
        end = self._ends.get(job) or job_end(self.jobs.path / job, datetime.now(UTC))
        if end.result is not Result.lost:  # a supervisor may yet write the end
            self._ends[job] = end
        return end

    def mark_recorded(self, job: str, *, deleted: bool) -> None:
        """Mark a job's folder: a recorded one is kept for --agent-keep, another for longer."""
        self.jobs.mark(job, DELETED if deleted else RECORDED)

    def failed_checks(self) -> list[FailedCheck]:
        """Return the jobs on this machine whose check failed."""
        return [
            FailedCheck(record.bead, record.attempt, datetime.fromtimestamp(end.ended, UTC), end.check.words)
            for record, end in self.jobs.ends_of(self._tracker)
            if end.check and end.check.state != "completed" and not self.jobs.at_work(record.bead, self._tracker)
        ]

    def capacity(self) -> Capacity:
        """Return how many of the slots are free on this machine. Without a command nobody knows how many there are."""
        running = len(self.jobs.running())
        if self.settings.agent_command is None:
            return Capacity(1, active=running)
        return Capacity(max(self.settings.agent_slots - running, 0), True, running, 0, self.settings.agent_slots)

    def check(self) -> None:
        """Raise UsageError when the command must not be run.

        It is not found, has no folder to run in, no readable prompt, or would run a bead's text as code.
        """
        if self.settings.agent_command is None:  # this machine's jobs are looked at, and none is started
            return
        where = self._directory
        if not where.is_dir():
            raise UsageError(f"{where} is not a folder", hint="name one with --agent-dir")
        for word, option in (
            (self.program(), self._option),
            *((word, "--agent-check") for word in self._check()[:1]),
        ):
            if shutil.which(word, path=self._environment.get("PATH")) is None:
                raise UsageError(f"{option} {clean(word)!r} is not a program", hint="name one that is on PATH")
        check_utf8("--agent-command", self._words)
        check_utf8("--agent-check", self._check())
        check_utf8("the folder", [str(where), str(self.jobs.path), self._environment["BEADS_DIR"]])
        check_words(self._words)
        if self.settings.agent_worktree:
            repository_of(where)
        self._template()

    def check_start(self, *, dry_run: bool = False) -> None:
        """Raise UsageError if no job could be started here for any bead. A dry run makes no folder."""
        self.program()
        self.check()
        self.check_repository()
        (check_folder if dry_run else try_folder)(self.jobs.path)

    def problem_with(self, bead: Bead) -> str:
        """Return why no job of this bead could be started, or "" if no reason is known."""
        if any(len(os.fsencode(word)) >= LONGEST_WORD for word in self._filled(bead, self.prompt(bead, bead.id))):
            return "its prompt is too long for a word of the command: leave {prompt} out, and read standard input"
        return worktree_problem(self._worktree(bead), self._environment) if self.settings.agent_worktree else ""

    @property
    def search_path(self) -> str:
        """Where the agent looks for programs: its PATH."""
        return self._environment.get("PATH") or os.defpath

    def check_repository(self) -> Path | None:
        """Return the repository that worktrees are made of, None without --agent-worktree. Raises UsageError."""
        if not self.settings.agent_worktree:
            return None
        check_repository(root := repository_of(self._directory), self._environment)
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

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt for a bead, with what is known of its earlier attempts."""
        return render(self._template(), bead, attempt, self._earlier(bead))

    def _earlier(self, bead: Bead) -> str:
        if not bead.record.runs:
            return ""
        checks = {
            record.attempt: end.check.words
            for record, end in self.jobs.ends_of(self._tracker)
            if record.bead == bead.id and end.check and end.check.state != "completed"
        }
        branch = branch_state(self._worktree(bead), self._environment) if self.settings.agent_worktree else ""
        return describe_earlier(bead, checks, branch)

    def has_jobs(self) -> bool:
        """Return whether there may be a job of this tracker in the jobs' folder."""
        try:
            return any(record.tracker == self._tracker for job in self.jobs.ids() if (record := self.jobs.record(job)))
        except ServiceDown:
            return True

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the ids of the bead's jobs in the jobs' folder, the oldest first."""
        return self.jobs_here(bead.id)

    def jobs_here(self, bead_id: str) -> list[str]:
        """Return the ids of the bead's jobs in the jobs' folder, the oldest first, even if the bead is deleted."""
        return self.jobs.of_bead(bead_id, self._tracker)

    def output(self, job: str) -> JobOutput:
        """Return the output of a job."""
        return LocalOutput(self.jobs, job)

    def last_event(self, job: str) -> LastEvent | None:
        """Return the last event in the output of a job."""
        return last_event(self.jobs, job)

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the bead's jobs that run on this machine, including those that its claim does not name."""
        own, found = bead.record.job or bead.record.attempt, []
        with contextlib.suppress(ServiceDown):  # `status` says that the folder cannot be read
            found = self.jobs.at_work(bead.id, self._tracker)
        return [*found, *([own] if own not in found and self.job_state(own) == RUNNING else [])]

    def running_jobs(self) -> list[RunningJob]:
        """Return the jobs of these beads that run on this machine. Raises ServiceDown."""
        records = [
            record for job in self.jobs.running() if (record := self.jobs.record(job)) and self._has_bead(record)
        ]
        return [self._running_job(record) for record in records]

    def _running_job(self, record: JobRecord) -> RunningJob:
        """Describe a running job. Within a tool call an agent may be silent for TOOL_SILENCE."""
        job, heard, silence = record.attempt, None, None
        if record.silence:
            silence, heard = timedelta(seconds=record.silence), heard_at(self.jobs, job)
            if heard and datetime.now(UTC) - heard > silence and (last := self.last_event(job)) and last.tool:
                silence = max(silence, TOOL_SILENCE)
        return RunningJob(record.bead, job, datetime.fromtimestamp(record.started, UTC), heard, silence)

    def stop(self, job: str, why: str) -> bool:
        """Ask the job's supervisor to end it, for this reason. Waits for nothing. Return False if it does not run."""
        return self.jobs.stop(job, why)

    def check_cancel(self, bead: Bead) -> None:
        """Raise ServiceDrift where the bead's claim names another place."""
        if bead.status == "in_progress" and bead.record.attempt and not self.owns(bead):
            if not bead.local:
                raise ServiceDrift(f"{bead.id} was handed to an agent service", hint="give --agent-url")
            words = f"{bead.id} was claimed by {who_knows(bead)}, which alone can be asked"
            raise ServiceDrift(words, hint="cancel it there, or name that folder with --agent-jobs")

    def forbid_start(self, bead: Bead) -> None:
        """Keep the claim's job from being started, if it has not been yet. Raises ServiceDown."""
        if bead.status == "in_progress" and bead.record.attempt and self.owns(bead):
            try:
                self.jobs.forbid(bead.record.attempt)
            except OSError as error:
                words = f"a job of {bead.id} may yet be started: {error.strerror or error}"
                raise ServiceDown(words, hint=f"run `bdauto cancel {bead.id}` again") from None

    def cancel(self, job: str, who: str) -> str:
        """Ask the job's supervisor to end it, and wait until it has. Raises ServiceDown when it does not."""
        deadline, asked = time.monotonic() + supervisor.GRACE + PATIENCE, False
        why = f"cancelled by {who}"
        while (state := self.jobs.state(job) or DIED) == RUNNING:
            asked = asked or self.jobs.stop(job, why)
            if time.monotonic() > deadline:
                raise ServiceDown(f"job {job} does not end", hint=f"see {self.jobs.path / job}")
            time.sleep(0.05)
        return state

    def _start(self, bead: Bead, attempt: str) -> None:
        """Make the job's folder, locked from the beginning, and hand it with its lock to a supervisor."""
        new, folder = self.jobs.path / f"{NEW}{attempt}", self.jobs.path / attempt
        prompt = self.prompt(bead, attempt)
        shutil.rmtree(new, ignore_errors=True)  # half-made by a dispatcher that was killed
        new.mkdir(mode=0o700)
        try:
            (new / supervisor.PROMPT).write_text(prompt, encoding="utf-8")
            (new / supervisor.JOB).write_bytes(msgspec.json.encode(self._record(bead, attempt, prompt)))
            os.mkfifo(new / supervisor.CONTROL, 0o600)
            lock = os.open(new / supervisor.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                new.rename(folder)
                self._supervise(folder, lock, bead.id)
            finally:
                os.close(lock)
        except Exception:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _supervise(self, folder: Path, lock: int, bead_id: str) -> None:
        with (folder / "supervisor.log").open("wb") as log:
            subprocess.run(
                [*DETACHED, sys.executable, "-I", "-S", supervisor.__file__, str(folder), str(lock)],
                env={**self._environment, "BEAD_ID": bead_id, "BDAUTO_JOB": folder.name},
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                start_new_session=True,
                check=True,
            )

    def _record(self, bead: Bead, attempt: str, prompt: str) -> JobRecord:
        settings, directory = self.settings, self._directory
        before, after = [], []
        if settings.agent_worktree:
            worktree = self._worktree(bead)
            before, after = [worktree.prepare], [worktree.remove]
            directory = worktree.path / directory.relative_to(worktree.root)
        return JobRecord(
            bead=bead.id,
            attempt=attempt,
            tracker=self._tracker,
            beads=self._environment["BEADS_DIR"],
            host=os.uname().nodename,
            assignee=self._assignee,
            agent=settings.agent or "",
            started=time.time(),
            words=self._filled(bead, prompt, attempt),
            directory=str(directory),
            home=str(self._directory),
            timeout=settings.agent_timeout.total_seconds(),
            silence=silence.total_seconds() if (silence := silence_of(settings)) else None,
            stdin=wants_stdin(self._words),
            max_cost=settings.max_cost_per_run,
            before=before,
            check=self._check(),
            after=after,
        )

    def _filled(self, bead: Bead, prompt: str, attempt: str = "") -> list[str]:
        return fill(self._located(self._words), bead.id, attempt, prompt)

    def _worktree(self, bead: Bead) -> Worktree:
        return worktree_of(bead.id, repository_of(self._directory), self.jobs.path)

    @property
    def _words(self) -> tuple[str, ...]:
        if self.settings.agent_command is None:
            raise UsageError("no agent command", hint="give --agent-command or BDAUTO_AGENT_COMMAND")
        return self.settings.agent_command.words

    @property
    def _option(self) -> str:
        """The option that the command comes from."""
        return "--agent" if self.settings.agent == self._words[0] else "--agent-command"

    def program(self) -> str:
        """Return the command's first word. A relative path starts where the agent runs."""
        return self._located(self._words)[0]

    def version(self) -> str:
        """Return the first line of what `AGENT --version` prints. Raises UsageError."""
        return program_version(self.program(), self._environment)

    def lacks_permission(self) -> str:
        """Return the agent that the command starts and that may not run `bd`, or ""."""

        def read(file: str) -> str:
            path = self._directory / Path(file).expanduser()
            try:
                return path.read_text(encoding="utf-8", errors="replace")[:SETTINGS_CHARACTERS]
            except (OSError, ValueError):
                return ""

        return lacks_permission(self._words, read)

    def _check(self) -> list[str]:
        return self._located(self.settings.agent_check.words) if self.settings.agent_check else []

    def _located(self, words: Sequence[str]) -> list[str]:
        return [str(self._directory / words[0]) if "/" in words[0] else words[0], *words[1:]]

    def _template(self) -> str:
        return read_template(self.settings.agent_prompt)
