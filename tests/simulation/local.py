"""An agent command on the machine of a process, as `bdauto.agents.local` runs it: the job's id is the attempt's."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from bdauto.agents.answers import Answer, AtCapacity, NotStarted, Started
from bdauto.agents.local.runner import machine_part
from bdauto.agents.runner import Place, Runner
from bdauto.agents.runner_status import Capacity, RunnerStatus
from bdauto.common.errors import ServiceError
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import FORGOTTEN, NOT_STARTED, OVER, JobEvidence
from bdauto.domain.record import RESULTS, Result, Run
from tests.simulation.agents import LOCAL_TIME_LIMIT, begin_job
from tests.simulation.checker import check_post
from tests.simulation.plan import START
from tests.simulation.process import Process
from tests.simulation.world import Job


class SimLocal(Runner):
    """The agents of one host, as a process on it sees them. See `bdauto.agents.runner.Runner`."""

    def __init__(self, process: Process) -> None:
        self._of = process
        self.host = process.host

    @property
    def knows_jobs(self) -> bool:
        """True: a host can look up its jobs."""
        return True

    def status(self) -> RunnerStatus:
        """Return how many slots are free."""
        self._of.step(0.05)
        capacity = self._capacity()
        self._of.free = capacity.free
        return RunnerStatus((machine_part(capacity),))

    def evidence(
        self, beads: Collection[Bead], status: RunnerStatus | None = None
    ) -> tuple[JobEvidence, ServiceError | None]:
        """Return what this host knows of its jobs."""
        self._of.step(0.05)
        states: dict[str, str] = {}
        ends: dict[str, Run] = {}
        for bead in beads:
            running, job = self.jobs_at_work(bead), bead.record.job or bead.record.attempt
            if running and job not in running:
                states[bead.id] = "running"
                self._of.jobs_told[job] = "running"
            elif job:
                states[bead.id] = self._state(job) or (FORGOTTEN if bead.record.job else NOT_STARTED)
                if states[bead.id] in OVER:
                    ended = START + timedelta(seconds=self._of.world.jobs[job].ended)
                    ends[bead.id] = self._end(self._of.world.jobs[job], ended)
                self._of.jobs_told[job] = states[bead.id]
                self._of.tell("sees of the job of {}: {}", bead.id, states[bead.id])
        return JobEvidence(states, ends=ends), None

    def _end(self, job: Job, ended: datetime) -> Run:
        failed = job.checked and job.check_failed and job.state == "completed"
        result = Result.failed if failed else RESULTS.get(job.state, Result.lost)
        return Run(result=result, why=Why.check if failed else None, ended_at=ended, checked=self._has_passed(job.id))

    def place(self) -> Place:
        """Return this host: each has one jobs folder."""
        return Place(self.host, self.host, timedelta(seconds=LOCAL_TIME_LIMIT), self._of.world.plan.checked)

    def owns(self, bead: Bead) -> bool:
        """Return whether the claim was made on this host."""
        return bead.jobs_folder == self.host or bool(self.jobs_at_work(bead))

    @property
    def checking(self) -> bool:
        """Whether a job runs on this host."""
        return self._capacity().active > 0

    def recent_runs(self, since: datetime) -> Sequence[tuple[str, Run]]:
        """Return the runs of this host's jobs since then."""
        runs = [
            (
                job.bead,
                Run(
                    attempt=job.attempt,
                    job=job.id,
                    claimed_at=START + timedelta(seconds=job.begun),
                    ended_at=None if job.alive else START + timedelta(seconds=job.ended),
                ),
            )
            for job in self._jobs()
        ]
        return [(bead, run) for bead, run in runs if run.ended_at is None or run.ended_at > since]

    def unchecked(self) -> dict[str, str]:
        """Return the beads whose last job on this host is to be checked and has not passed."""
        last = {job.bead: job for job in self._jobs()}
        return {bead: job.id for bead, job in last.items() if job.checked and not self._has_passed(job.id)}

    def passed(self, job: str) -> bool:
        """Return whether a job has passed its check."""
        passed = self._has_passed(job)
        (self._of.not_passed.discard if passed else self._of.not_passed.add)(job)
        return passed

    def _has_passed(self, job: str) -> bool:
        known = next((one for one in self._jobs() if one.id == job), None)
        return known is not None and known.checked and known.state == "completed" and not known.check_failed

    def job_state(self, job: str) -> str | None:
        """Return the state of a job."""
        self._of.step(0.05)
        state = self._state(job)
        if state or self._of.jobs_told.get(job) != NOT_STARTED:  # asked again, it was still not started
            self._of.jobs_told[job] = state or FORGOTTEN
        return state

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Start the agent, unless this attempt's was started."""
        process, world = self._of, self._of.world
        process.step(0.05)
        claim = check_post(world, process, bead.id)
        assert claim is not None
        process.tell("starts an agent on {}", bead.id)
        world.count("posts")
        world.moment("POST")
        process.posted_at, process.looked_at = world.scheduler.now, None
        if process.happens("cannot connect"):
            process.hear(claim, "not started")
            return NotStarted("cannot start the agent")
        if self._capacity().free == 0 or self.jobs_at_work(bead):
            process.hear(claim, "busy")
            return AtCapacity()
        begin_job(world, bead.id, attempt, self.host)
        process.step(0.05)
        process.hear(claim, "started")
        return Started(attempt)

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the jobs of the bead on this host, the oldest first."""
        return [job.id for job in self._jobs() if job.bead == bead.id]

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the jobs of the bead that run on this host."""
        return [job.id for job in self._jobs() if job.bead == bead.id and job.state == "running"]

    def _capacity(self) -> Capacity:
        slots = self._of.world.plan.capacity
        running = sum(job.alive for job in self._jobs())
        return Capacity(max(slots - running, 0), True, running, 0, slots)

    def _jobs(self) -> list[Job]:
        return [job for job in self._of.world.jobs.values() if job.host == self.host]

    def _state(self, job: str) -> str | None:
        return next((known.state for known in self._jobs() if known.id == job), None)
