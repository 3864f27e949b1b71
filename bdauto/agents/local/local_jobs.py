"""What is known of the jobs of one queue on this machine, from the jobs' folder. Nothing here waits for a job."""

import contextlib
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bdauto.agents.local.job_output import (
    LocalOutput,
    heard_at,
    job_end,
    job_run,
    last_event,
    running_step,
    started_run,
)
from bdauto.agents.local.jobs import DELETED, PASSED, RECORDED, RUNNING, JobRecord, Jobs, read_end
from bdauto.agents.local.review import read_review
from bdauto.agents.runner import JobOutput, LastEvent, Runner
from bdauto.agents.runner_status import RunnerStatus
from bdauto.common.errors import ServiceDown, ServiceError
from bdauto.common.sanitize import without_secrets
from bdauto.domain.bead import Bead
from bdauto.domain.lanes import Lanes
from bdauto.domain.reaping import FORGOTTEN, NOT_STARTED, OVER, JobEvidence
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Result, Run
from bdauto.domain.results import ended_run

LATELY = 86_400.0
"""Seconds after a job's end. Until then each sweep looks at it, unless it is marked as recorded."""


class Origin(msgspec.Struct, frozen=True):
    """The queue that jobs are started from: the tracker's id, the assignee, the `.beads` folder, and the lane."""

    tracker: str
    assignee: str
    beads: str
    lanes: Lanes = Lanes()

    def is_of(self, record: JobRecord) -> bool:
        """Return whether a job was started from this queue, or from a copy of it."""
        whose = record.assignee or self.assignee
        return whose == self.assignee and self.of_any_lane(record) and self.lanes.took(record.lane, whose, local=True)

    def of_any_lane(self, record: JobRecord) -> bool:
        """Return whether a job was started from a queue of one of the lanes."""
        assignees = {"", self.assignee, *(rule.assignee for rule in self.lanes.rules)}
        return record.tracker == self.tracker and record.assignee in assignees

    def has_bead(self, record: JobRecord) -> bool:
        """Return whether a job of this queue is one of these beads, and not of a copy.

        A copy of the project's folder has the same tracker id and other beads. Its jobs are left to a sweep there,
        unless that folder is gone: it was renamed.
        """
        return self.is_of(record) and (record.beads in ("", self.beads) or not Path(record.beads).is_dir())


class LocalJobs(Runner):
    """Knows about jobs in the jobs' folder. A subclass starts and ends them."""

    def __init__(self, jobs: Path, origin: Origin) -> None:
        self.jobs = Jobs(jobs.absolute())
        self.origin = origin
        self._ended: dict[str, Run] = {}
        self._ends: dict[str, Run] = {}

    @property
    def knows_jobs(self) -> bool:
        """True: jobs on this machine can be looked up."""
        return True

    def has_jobs(self) -> bool:
        """Return whether there may be a job of this tracker in the jobs' folder."""
        try:
            return any(
                record.tracker == self.origin.tracker for job in self.jobs.ids() if (record := self.jobs.record(job))
            )
        except ServiceDown:
            return True

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
        ends: dict[str, Run] = {}
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

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the ids of the bead's jobs in the jobs' folder, the oldest first."""
        return self.jobs_here(bead.id)

    def jobs_here(self, bead_id: str) -> list[str]:
        """Return the ids of the bead's jobs in the jobs' folder, the oldest first, even if the bead is deleted."""
        return self.jobs.of_bead(bead_id, self.origin.tracker)

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the bead's jobs that run on this machine, including those that its claim does not name."""
        own, found = bead.record.job or bead.record.attempt, []
        with contextlib.suppress(ServiceDown):  # `status` says that the folder cannot be read
            found = self.jobs.at_work(bead.id, self.origin.tracker)
        return [*found, *([own] if own not in found and self.job_state(own) == RUNNING else [])]

    def output(self, job: str) -> JobOutput:
        """Return the output of a job."""
        return LocalOutput(self.jobs, job)

    def last_event(self, job: str) -> LastEvent | None:
        """Return the last event in the output of a job."""
        return last_event(self.jobs, job)

    def recent_runs(self, since: datetime) -> list[tuple[str, Run]]:
        """Return the lanes' runs on this machine that still run or ended after `since`, even if their beads are gone.

        They come from the jobs' folder, so an agent that edits or deletes its bead hides no run.
        """
        records = {job: record for job in self.jobs.ids() if (record := self.jobs.record(job))}
        beads = {job: record.bead for job, record in records.items() if self.origin.of_any_lane(record)}
        now = datetime.now(UTC)
        runs = [(bead, self._ended.get(job) or job_run(self.jobs, job, now)) for job, bead in beads.items()]
        self._ended = {run.attempt: run for _, run in runs if run and run.ended_at}
        return [(bead, run) for bead, run in runs if run and (run.ended_at is None or run.ended_at > since)]

    def unrecorded(self) -> list[tuple[str, Run]]:
        """Return bead and run of each job of these beads that ended within a day and has no mark."""
        now = datetime.now(UTC)
        try:
            return [
                (record.bead, ended_run(started_run(record, now), self._end(record.attempt)))
                for record, end in self.jobs.ends_of(self.origin.tracker)
                if now.timestamp() - end.ended < LATELY and self.origin.has_bead(record)
                if not self.jobs.marked(record.attempt, RECORDED, DELETED)
            ]
        except ServiceDown:
            return []

    def _end(self, job: str) -> Run:
        """Return the end of a job that is over. Its output, up to 50 MiB, is read once."""
        end = self._ends.get(job) or job_end(self.jobs.path / job, datetime.now(UTC))
        if end.result is not Result.lost:  # a supervisor may yet write the end
            self._ends[job] = end
        return end

    def mark_recorded(self, job: str, *, deleted: bool) -> None:
        """Mark a job's folder: a recorded one is kept for --agent-keep, another for longer."""
        if not deleted and self.passed(job):
            self.jobs.mark(job, PASSED)
        self.jobs.mark(job, DELETED if deleted else RECORDED)

    def unchecked(self) -> dict[str, str]:
        """Return beads whose last job here is to be checked and has not passed: it runs, or ended within a day."""
        last: dict[str, JobRecord] = {}
        try:
            for job in self.jobs.ids():
                record = self.jobs.record(job)
                if record and self.origin.has_bead(record):
                    last[record.bead] = max(last.get(record.bead, record), record, key=lambda one: one.started)
        except ServiceDown:
            return {}
        gated = (record for record in last.values() if record.gates)
        due = (record for record in gated if self._is_late(record) and not self._has_passed(record))
        return {record.bead: record.attempt for record in due}

    def _has_passed(self, record: JobRecord) -> bool:
        """Return what `passed` does. It reads the agent's output only if all checks passed, and nothing says so yet."""
        job, end = record.attempt, read_end(self.jobs.path / record.attempt)
        if end is None or self.job_state(job) != end.state or not end.has_passed(record):
            return False
        return self.jobs.marked(job, PASSED) or self.passed(job)

    def _is_late(self, record: JobRecord) -> bool:
        """Return whether a job runs, or ended lately."""
        return time.time() - record.started < LATELY + record.longest

    def passed(self, job: str) -> bool:
        """Return whether a job has ended and passed all its checks."""
        return self.job_state(job) == "completed" and self._end(job).checked

    def review(self, job: str) -> str:
        """Return what the review of a job says, a line for each criterion, or ""."""
        review = read_review(self.jobs.path / job) if self.job_state(job) not in (None, RUNNING) else None
        if review is None or not (review.lines or review.problem):
            return ""
        lines = [f"Review of job {job}: {'all criteria are met' if review.met else 'not all criteria are met'}"]
        return "\n".join(without_secrets(line, 1000) for line in [*lines, *review.lines, review.problem] if line)

    def running_jobs(self) -> list[RunningJob]:
        """Return the jobs of these beads that run on this machine. Raises ServiceDown."""
        records = [
            record for job in self.jobs.running() if (record := self.jobs.record(job)) and self.origin.has_bead(record)
        ]
        return [running_job(self.jobs, record) for record in records]


def running_job(jobs: Jobs, record: JobRecord) -> RunningJob:
    """Describe a running job. While its worktree is prepared or a check runs it may be silent."""
    job, heard, silence = record.attempt, None, None
    if record.silence and running_step(jobs.path / job) is None:
        heard = heard_at(jobs, job)
        prepares = heard is None and record.steps[:1] and record.steps[0].kind == "prepare"
        silence = None if prepares else timedelta(seconds=record.silence)
    quiet = datetime.now(UTC) - heard if heard else timedelta()
    # long before it counts, because whoever decides about the job does so a moment later
    in_tool = bool(silence and quiet >= silence / 2 and (last := last_event(jobs, job)) and last.tool)
    started, checked = datetime.fromtimestamp(record.started, UTC), bool(record.gates)
    return RunningJob(record.bead, job, started, heard, silence, checked=checked, in_tool=in_tool)
