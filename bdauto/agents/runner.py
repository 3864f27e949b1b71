"""What runs the agent on a bead, as the controllers and the views see it.

A kind of agent is a subclass of `Runner` (docs/architecture.md). Whoever takes a `Runner` does not know which.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from bdauto.agents.answers import Answer, NotStarted
from bdauto.agents.runner_status import RunnerStatus
from bdauto.common.errors import ServiceDrift, ServiceError
from bdauto.domain.bead import Bead
from bdauto.domain.lanes import Lanes
from bdauto.domain.reaping import ALIVE, ELSEWHERE, JobEvidence
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Run


class Place(msgspec.Struct, frozen=True):
    """Where the job of a claim will run: the `id` of a jobs folder, which alone can be asked about the job.

    `host` is the machine's name, for people. The job has ended after `longest` at the latest, counted from its start.
    `checked`: its agent's work is checked, and only then bdauto closes the bead.
    """

    id: str
    host: str
    longest: timedelta
    checked: bool = False


class LastEvent(msgspec.Struct, frozen=True):
    """The last thing that a running job's agent did, on one line, and when its output last grew."""

    text: str
    at: datetime

    @property
    def tool(self) -> bool:
        """Whether it is the call of a tool, whose result has not come yet."""
        return self.text.startswith(("▸ ", "$ "))


class Project(msgspec.Struct, frozen=True):
    """The project that an agent works on: its `.beads` folder, whose beads, the environment of the agent.

    `beads` is None with --metadata, which names no folder that stays. `tracker` is the tracker's id, `home` the folder
    of the project, `bd` how bdauto calls bd.
    """

    beads: Path | None
    assignee: str
    environment: Mapping[str, str]
    tracker: str
    home: Path | None
    bd: tuple[str, ...] = ()
    lanes: Lanes = Lanes()


class CheckContext(msgspec.Struct, frozen=True):
    """What the checks of a kind of agent may need: this host's clock, the bd program, and the assignee's beads.

    `beads` is None without a tracker, and raises BdError.
    """

    now: Callable[[], datetime]
    bd: str = "bd"
    beads: Callable[[], Sequence[Bead]] | None = None


class JobOutput(Protocol):
    """The output of one job, as it comes. `agent` is the adapter that reads it, "" if each line tells its form."""

    @property
    def agent(self) -> str:
        """The adapter's name."""

    def read(self) -> Iterator[bytes]:
        """Yield what came since the last call. Raises ServiceError."""

    def state(self) -> str:
        """Return the job's state in one word. Raises ServiceError."""


class Runner:
    """Starts the agent on beads, and knows about its jobs. What a kind of agent does not define, it cannot do."""

    call_ended: Callable[[], None] = staticmethod(lambda: None)
    """Called when a call of a service has ended, answered or not, in any thread."""

    @property
    def knows_jobs(self) -> bool:
        """True: the state of jobs can be looked up."""
        return False

    @property
    def checking(self) -> bool:
        """True: a job runs whose check may yet fail, whatever its bead says by now."""
        return False

    @property
    def longest_call(self) -> timedelta:
        """How long a call of a method may take. `cancel` may take longer."""
        return timedelta(seconds=1)

    def status(self) -> RunnerStatus:
        """Return how everything is that takes part in starting agents. Raises nothing."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise UsageError if the settings cannot work on this machine. Called when a command begins."""

    def has_jobs(self) -> bool:
        """Return True if this machine may have jobs of this tracker."""
        return False

    def count_running(self) -> int:
        """Return how many jobs run on this machine."""
        return 0

    def check_start(self, *, dry_run: bool = False) -> None:
        """Raise UsageError if no bead could be started. Called before a claim."""

    def problem_with(self, bead: Bead) -> str:
        """Return why this bead could not be started, or "" if no reason is known. Called before a claim."""
        return ""

    def place(self) -> Place | None:
        """Return where the job of a claim made now will run, None if a service runs it. Raises UsageError."""
        return None

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt of the agent, or "" if another program writes it."""
        return ""

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Start the agent once on a bead that was claimed under the id `attempt`. Return the result."""
        return NotStarted(f"no agent can be started on {bead.id}")

    def owns(self, bead: Bead) -> bool:
        """Return True if the bead's claim was made for this runner. Only then does it know whether a job runs."""
        return not bead.local

    def evidence(
        self, beads: Collection[Bead], status: RunnerStatus | None = None
    ) -> tuple[JobEvidence, ServiceError | None]:
        """Return what is known of the jobs of beads in progress, and why more could not be asked, or None.

        `status` is the answer of `status`, if that is known already.
        """
        return JobEvidence(), None

    def job_state(self, job: str) -> str | None:
        """Return the state of a job, None if nobody knows the job. Raises ServiceError."""
        return None

    def ended(self, jobs: Collection[str]) -> set[str]:
        """Return those of these jobs that have ended, or must be. Asked twice a second. Raises ServiceError."""
        return {job for job in jobs if self.job_state(job) not in ALIVE}

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the ids of the bead's jobs that are known, the oldest first."""
        return []

    def jobs_here(self, bead_id: str) -> list[str]:
        """Return the ids of a bead's jobs on this machine, the oldest first. The bead may be deleted."""
        return []

    def last_event(self, job: str) -> LastEvent | None:
        """Return the last event of a job that runs on this machine, None if there is none. Asks no service."""
        return None

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the bead's jobs that run on this machine, the oldest first. Asks no service. Raises nothing."""
        return []

    def output(self, job: str) -> JobOutput:
        """Return the output of a job. Raises ServiceError."""
        raise ServiceDrift(f"the output of job {job} cannot be read")

    def recent_runs(self, since: datetime) -> Sequence[tuple[str, Run]]:
        """Return bead and run of those that still run or ended after `since`, if they are known without the beads.

        They are of all lanes of the tracker.
        """
        return ()

    def unrecorded(self) -> Sequence[tuple[str, Run]]:
        """Return bead and run of jobs that ended lately and are not marked as recorded. An attempt is its job's id."""
        return ()

    def mark_recorded(self, job: str, *, deleted: bool) -> None:
        """Mark a job of `unrecorded`: its end was written to its bead, or its bead is `deleted`."""

    def unchecked(self) -> Mapping[str, str]:
        """Return the beads whose last job here is to be checked after its agent, and has not passed, with that job.

        Raises ServiceError.
        """
        return {}

    def passed(self, job: str) -> bool:
        """Return whether a job has ended and passed all its checks. Raises ServiceError."""
        return False

    def review(self, job: str) -> str:
        """Return what a second agent says of a job's work, a line for each criterion, "" if it was not asked."""
        return ""

    def running_jobs(self) -> Sequence[RunningJob]:
        """Return the jobs that run and can be stopped from here. Raises ServiceError."""
        return ()

    def stop(self, job: str, why: str) -> bool:
        """Ask for the end of a job, for this reason, and wait for nothing. Return False if it does not run."""
        return False

    def check_cancel(self, bead: Bead) -> None:
        """Raise ServiceError if the job of the bead's claim cannot be ended here."""
        raise ServiceDrift(f"the job of {bead.id} cannot be ended")

    def forbid_start(self, bead: Bead) -> None:
        """Keep the job of the bead's claim from being started, if it has not been yet. Raises ServiceError."""

    def cancel(self, job: str, who: str) -> str:
        """End a job, wait for its end, and return its state then. Raises ServiceError."""
        raise ServiceDrift(f"job {job} cannot be ended")


def check_services(runner: Runner | None) -> RunnerStatus:
    """Ask what runs the agent how it is. None is nothing that is configured."""
    return runner.status() if runner else RunnerStatus()


def job_evidence(
    runner: Runner | None, beads: Collection[Bead], status: RunnerStatus | None = None
) -> tuple[JobEvidence, ServiceError | None]:
    """Ask what runs the agent about the jobs of its own beads: see `Runner.evidence`. The others are ELSEWHERE."""
    owned = {bead.id: runner.owns(bead) if runner else not bead.local for bead in beads}
    mine = [bead for bead in beads if owned[bead.id]]
    evidence, error = runner.evidence(mine, status) if runner else (JobEvidence(), None)
    others = {bead: ELSEWHERE for bead, own in owned.items() if not own}
    return msgspec.structs.replace(evidence, states={**evidence.states, **others}), error
