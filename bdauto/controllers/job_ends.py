"""The ends of runs, written on their beads: each once, by whoever sees first that the job is over.

The end of a job is written together with what a sweep decides about its bead. Where the agent has closed or blocked
the bead itself, a later sweep finds the bead by its metadata, which says that the job still runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.agents.runner import job_evidence
from bdauto.bd.change import Change, Moment, mark_of, rewrite
from bdauto.bd.client import Bd
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError
from bdauto.controllers.returned_beads import Kind, Returned, ReturnedBeads
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.controllers.unstoppable import note_unstoppable
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import FINISHED
from bdauto.domain.history import History, RunResult, result_of
from bdauto.domain.life import sign_of_life
from bdauto.domain.outcome import BeadOutcome, BeadReport
from bdauto.domain.reaping import ALIVE, ELSEWHERE, FORGOTTEN, NOT_ASKED, NOT_STARTED, JobEvidence
from bdauto.domain.record import RUNNING, Result, Run, metadata_of
from bdauto.domain.results import describe_end, ended_run, finish_note, lost, since_claim

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

LOST_AFTER = timedelta(days=1)
"""A job that nobody could be asked about for so long is lost: the agent service forgets a job after an hour."""

_End = tuple[Bead, Run, Run]
"""A bead, one of its runs as it is recorded, and that run's end."""


class JobEnds(msgspec.Struct, frozen=True):
    """Records the ends that are missing. `reports` has the beads whose agents have opened them again.

    `unchecked` has those that were closed before their check, which has not passed by now. Such an end is not recorded
    before the bead is open again, or somebody has been found to have closed it rightly.
    """

    bd: Bd
    writes: SweepWrites
    runtime: Runtime
    returned: ReturnedBeads
    reports: list[BeadReport] = msgspec.field(default_factory=list)
    unchecked: list[str] = msgspec.field(default_factory=list)

    def record_missing(self, runner: "Runner") -> tuple[tuple[str, ...], bool]:
        """Record the ends of runs that are over: of beads that are no longer in progress, or were claimed again.

        Return the status of each bead whose job's end was recorded, as its agent left it, and whether ends are left to
        record. If bd cannot list the runs, the sweep goes on and reports that. The next one tries again.
        """
        try:
            listed = self.bd.with_metadata(result=RUNNING, assignee=self.bd.assignee).result().beads
            runs = [(bead, run) for bead in listed if (run := _unrecorded(bead, self.bd.assignee)) and self._ran(run)]
            asked = [_during(bead, run) for bead, run in runs]
            evidence = job_evidence(runner, asked)[0] if runs else JobEvidence()
            ended = [*_ended(runs, evidence, self.runtime.now())]
            note_unstoppable(self.bd, self.writes, self.runtime, runs, evidence)
            recorded = self._record(ended)
            more = self._record(self._unmarked(runner))
        except BdError as error:
            log.warning("results-failed", error=error)
            self.writes.unread = error
            return (), True
        statuses = tuple(status for status in (*recorded, *more) if status != "in_progress")
        return statuses, len(recorded) < len(runs)

    def _ran(self, run: Run) -> bool:
        return self.bd.lanes.ran(run, self.bd.assignee)

    def _unmarked(self, runner: "Runner") -> list[_End]:
        """Mark the jobs whose end is recorded on their bead. Log once the end of a job whose bead was deleted.

        Return one unrecorded job for each other bead, whose agent has changed bdauto's metadata. The current attempt of
        a bead in progress is left out, because a sweep settles it.
        """
        if not (jobs := runner.unrecorded()):
            return []
        left: dict[str, _End] = {}
        found = self.bd.read(sorted({bead_id for bead_id, _ in jobs})).result()
        beads = {bead.id: bead for bead in found.beads}
        for bead_id, end in jobs:
            bead, job = beads.get(bead_id), end.attempt
            if bead is None:
                if not found.malformed and not self.bd.recorder_of(job, bead_id):  # `bd rename` gives a bead another id
                    log_result(bead_id, job, "deleted", end, result_of(end, None))
                    self.writes.cost_usd += end.cost_usd or 0.0
                    runner.mark_recorded(job, deleted=True)
                continue
            run = next((run for run in bead.record.all_runs if run.attempt == job), end)
            if run is not end and run.ended_at and (run.result, run.cost_usd) == (end.result, end.cost_usd):
                runner.mark_recorded(job, deleted=False)
            elif (bead.status, bead.assignee, bead.record.attempt) != ("in_progress", self.bd.assignee, job):
                left.setdefault(bead_id, (bead, run, end))
        return [*left.values()]

    def _record(self, found: Sequence[_End]) -> tuple[str, ...]:
        """Record these ends, and return the status of each such bead."""
        self.unchecked.extend(bead.id for bead, run, end in found if _closed_unchecked(bead, run, end))
        ended = [one for one in found if not _closed_unchecked(*one)]
        returned = [self._returned(bead, run) for bead, run, _ in ended]
        changes = [self._change(*each, why) for each, why in zip(ended, returned, strict=True)]
        results = self.writes.each(changes)
        for (bead, run, end), why, result in zip(ended, returned, results, strict=True):
            if result is True:
                log_end(bead, run, end)
                self.writes.recorded.append((bead.id, run.attempt))
                self.writes.cost_usd += end.cost_usd or 0.0
                self._report(bead, run, why)
        return tuple(bead.status for (bead, _, _), result in zip(ended, results, strict=True) if result is True)

    def _returned(self, bead: Bead, run: Run) -> Returned | None:
        """Say why the bead of this run is open, if its claim ends with the run."""
        current = run.attempt == bead.record.attempt and bead.assignee == self.bd.assignee
        return self.returned.look(bead) if current else None

    def _report(self, bead: Bead, run: Run, returned: Returned | None) -> None:
        """Report an agent that asks a person, and one that has given its bead back."""
        job = run.job or run.attempt
        if returned and returned.asks:
            self.reports.append(
                BeadReport(bead.id, BeadOutcome.asks, job, returned.asks, run.attempt, title=bead.title)
            )
        elif returned and returned.kind is Kind.agent:
            self.reports.append(
                BeadReport(bead.id, BeadOutcome.requeued, job, returned.words, run.attempt, title=bead.title)
            )

    def _change(self, bead: Bead, run: Run, end: Run, returned: Returned | None) -> Change:
        """Write an end as a change that holds if bdauto has not changed the bead since: so each is counted once.

        The claim of a bead that was opened ends with it.
        """
        record = bead.record.change(assignee=bead.record.assignee or self.bd.assignee)
        record = record.with_end(ended_run(run, end, _left(bead, run)))
        if end.checked and bead.status == "closed":  # by its agent, and rightly
            record = record.change(check="")
        times: Mapping[str, Moment] = {}
        note, status = end_note(bead, run, end), None
        if returned:
            record, times = self.returned.settled(record, returned, bead)
            note, status = f"{note}\nreaper: {returned.words}", bead.status
        return rewrite(
            bead,
            record,
            times=times,
            act="record the result of",
            mark=self.runtime.unique(),
            note=note,
            if_status=status,
            if_attempt=bead.record.attempt or None,
            if_mark=mark_of(bead),
        )


def comment_reviews(bd: Bd, writes: SweepWrites, runner: "Runner | None") -> None:
    """Put what the reviews of the recorded runs say on their beads. It is said once, or never if bd fails now."""
    for bead_id, job in writes.recorded if runner else ():
        if runner and (text := runner.review(job)):
            try:
                bd.comment(bead_id, text)
            except BdError as error:
                log.warning("comment-failed", bead=bead_id, job=job, error=error)


def end_of_run(bead: Bead, evidence: JobEvidence, now: datetime) -> Run | None:
    """Return how the current run of a bead ended. The bead is in progress and settled now.

    None if it never ran, its end is recorded, or only another place knows the end and may record it later.
    """
    run = bead.record.current
    if bead.status != "in_progress" or run is None or runs_elsewhere(bead, evidence):
        return None
    end = evidence.ends.get(bead.id) or (lost(now) if _ran(bead) else None)
    return since_claim(run, end) if end else None


def runs_elsewhere(bead: Bead, evidence: JobEvidence) -> bool:
    """True: the bead's current attempt ran, and only another place knows how it ended."""
    return evidence.states.get(bead.id) == ELSEWHERE and bead.record.current is not None and _ran(bead)


def _ran(bead: Bead) -> bool:
    """Return whether a job of the bead's attempt is known to have begun."""
    return bool(bead.record.job or sign_of_life(bead))


def _unrecorded(bead: Bead, assignee: str) -> Run | None:
    """Return the oldest run without a recorded end. The current run of a bead in progress is left to the sweep.

    A sweep does not settle beads that were given to somebody else.
    """
    record, running = bead.record, bead.status == "in_progress" and bead.assignee == assignee
    return next((run for run in record.unended if not running or run.attempt != record.attempt), None)


def _closed_unchecked(bead: Bead, run: Run, end: Run) -> bool:
    current = run.attempt == bead.record.attempt
    return current and bool(bead.record.check) and bead.status in FINISHED and not end.checked


def _during(bead: Bead, run: Run) -> Bead:
    """Return a bead as it was during one of its runs, to ask about its job."""
    record = bead.record.change(attempt=run.attempt, job=run.job, claimed_at=run.claimed_at)
    record = record.change(jobs_folder=run.jobs_folder, host=run.runner or "")
    return msgspec.structs.replace(bead, metadata=metadata_of(record))


def end_note(bead: Bead, run: Run, end: Run) -> str:
    """Write the note of a job's end, after that of its record if that is missing.

    It quotes the agent's last words unless the bead was closed, and always why the job was stopped.
    """
    note = finish_note(run.job or run.attempt, end, words=bead.status != "closed" or end.result is Result.stopped)
    missing = bead.missing_note if run.attempt == bead.record.attempt else ""
    return "\n".join(filter(None, [missing, note]))


def _left(bead: Bead, run: Run) -> str:
    """Return the status in which a run has left its bead, "" if a later claim, or bdauto, has changed it since."""
    last = bead.record.all_runs[-1:]
    return bead.status if last and last[0].attempt == run.attempt and not bead.record.quarantined else ""


def log_end(bead: Bead, run: Run, end: Run, status: str = "") -> None:
    """Log the end of a run that was recorded, and the `status` of its bead if a sweep closes it."""
    ended = ended_run(run, end, status or _left(bead, run))
    result = result_of(ended, History(bead, [ended]))
    log_result(bead.id, run.job or run.attempt, bead.status, end, result, bead.title)


def log_result(bead_id: str, job: str, status: str, end: Run, result: RunResult, title: str = "") -> None:
    """Log what came of a run, with the status of its bead when its job had ended."""
    log.event(
        "result",
        bead=bead_id,
        job=job,
        status=status,
        result=result,
        seconds=end.seconds,
        cost_usd=end.cost_usd,
        title_=title,
        how_=describe_end(end),
    )


def _ended(runs: Sequence[tuple[Bead, Run]], evidence: JobEvidence, now: datetime) -> Iterator[_End]:
    """Yield the runs that are over, each with its end. The end of a job that no place knows is `lost`."""
    for bead, run in runs:
        end, state = evidence.ends.get(bead.id), evidence.states.get(bead.id, "")
        before = None if run == bead.record.current else run.claimed_at  # the bead was claimed anew since
        silent = now - (before or bead.updated_at) > LOST_AFTER
        unknown = not run.job and not run.local and before is not None  # nobody can be asked about it, now or later
        gone = unknown or state in (FORGOTTEN, NOT_STARTED) or (state not in (*ALIVE, NOT_ASKED) and silent)
        if end or gone:
            yield bead, run, since_claim(run, end or lost(min(before or bead.closed_at or bead.updated_at, now)))
