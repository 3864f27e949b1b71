"""The results of jobs, written on their beads: each once, by whoever sees first that the job is over.

The end of a job is written together with what a sweep decides about its bead. Where the agent has closed or blocked
the bead itself, a later sweep finds the bead by its metadata, which says that the job still runs.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto import log
from bdauto.agents.service_status import job_evidence
from bdauto.bd.change import Change, Writer, apply_each, mark_of
from bdauto.bd.client import Bd
from bdauto.clock import Runtime
from bdauto.domain.bead import Bead
from bdauto.domain.notes import sign_of_life
from bdauto.domain.reaping import ALIVE, FORGOTTEN, NOT_ASKED, NOT_STARTED, JobEvidence
from bdauto.domain.results import RUNNING, JobEnd, finish_note, is_recorded, lost, since_claim, with_result
from bdauto.errors import BdError

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

UNANSWERED = timedelta(days=1)
"""A job that nobody could be asked about for so long is lost: the agent service forgets a job after an hour."""


class Results(msgspec.Struct, frozen=True):
    """Records the results that are missing."""

    bd: Bd
    writer: Writer
    runtime: Runtime

    def record_missing(self, runner: "Runner") -> tuple[tuple[str, ...], bool]:
        """Record the ends of jobs whose beads are no longer in progress.

        Return the status of each bead whose job's end was recorded, as its agent left it, and whether some ends are
        left to record. A bd that fails is a warning: the next sweep tries again.
        """
        try:
            listed = self.bd.with_metadata(result=RUNNING, assignee=self.bd.settings.assignee).result().beads
            beads = [bead for bead in listed if bead.status != "in_progress"]
            mine = [bead for bead in beads if bead.host == runner.host]  # another runner knows nothing of a job
            recorded = self._record(beads, job_evidence(runner, mine)[0]) if beads else ()
        except BdError as error:
            log.warning("results-failed", error=error)
            return (), True
        return recorded, len(recorded) < len(beads)

    def _record(self, beads: Sequence[Bead], evidence: JobEvidence) -> tuple[str, ...]:
        """Record the ends that are known, and return the status of each such bead."""
        ended = [*_ended(beads, evidence, self.runtime.now())]
        changes = [self._change(bead, end) for bead, end in ended]
        results = apply_each(self.writer, changes)
        for (bead, end), result in zip(ended, results, strict=True):
            if result is True:
                log_end(bead, end)
            elif isinstance(result, BdError):
                log.warning("results-failed", bead=bead.id, error=result)
        return tuple(bead.status for (bead, _), result in zip(ended, results, strict=True) if result is True)

    def _change(self, bead: Bead, end: JobEnd) -> Change:
        """Write an end as a change that holds if bdauto has not changed the bead since: so each is counted once."""
        return Change(
            bead=bead,
            act="record the result of",
            mark=self.runtime.unique(),
            note=end_note(bead, end),
            put=with_result(bead, end),
            if_attempt=bead.attempt or None,
            if_mark=mark_of(bead),
        )


def end_of_run(bead: Bead, evidence: JobEvidence, now: datetime) -> JobEnd | None:
    """Return how the run of a bead in progress ended that is settled now. None if it never ran, or that is recorded."""
    if bead.status != "in_progress" or not bead.attempt or is_recorded(bead):
        return None
    ran = bead.job or sign_of_life(bead.notes_since_claim)
    end = evidence.ends.get(bead.id) or (lost(now) if ran else None)
    return since_claim(bead, end) if end else None


def end_note(bead: Bead, end: JobEnd) -> str:
    """Write the note of a job's end. What the agent said last is in it where the bead was not closed."""
    return finish_note(bead.job or bead.attempt or "unknown", end, words=bead.status != "closed")


def log_end(bead: Bead, end: JobEnd) -> None:
    """Log a result that was recorded."""
    job = bead.job or bead.attempt
    log.event(
        "result",
        bead=bead.id,
        job=job,
        status=bead.status,
        result=end.result,
        seconds=end.seconds,
        cost_usd=end.cost_usd,
    )


def _ended(beads: Sequence[Bead], evidence: JobEvidence, now: datetime) -> Iterator[tuple[Bead, JobEnd]]:
    """Yield the beads whose job is over, with its end. A job that nobody knows any more is lost."""
    for bead in beads:
        end, state = evidence.ends.get(bead.id), evidence.states.get(bead.id, "")
        gone = state in (FORGOTTEN, NOT_STARTED) or (
            state not in (*ALIVE, NOT_ASKED) and now - bead.updated_at > UNANSWERED
        )
        if end or gone:
            yield bead, since_claim(bead, end or lost(min(bead.closed_at or bead.updated_at, now)))
