"""Settle beads: write what a sweep has decided, with the ends of their runs."""

from collections.abc import Iterable
from datetime import timedelta

import msgspec

from bdauto.bd.change import NOW, Change, Moment, as_read, rewrite
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError
from bdauto.controllers.job_ends import end_note, end_of_run, log_end, runs_elsewhere
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.domain.eligibility import backoff
from bdauto.domain.life import sign_of_life
from bdauto.domain.outcome import BeadOutcome, BeadReport
from bdauto.domain.reaping import Action, JobEvidence, ReapDecision
from bdauto.domain.record import Record, Run
from bdauto.domain.results import asks, ended_run

NOTE_DELAY = timedelta(seconds=30)
"""How long after a claim its dispatcher may still write the note of its record."""

_STATUS = {Action.block: "blocked", Action.close: "closed"}
"""The statuses of beads after what was decided, where it is not `open`."""
SETTLED = frozenset(
    {BeadOutcome.released, BeadOutcome.requeued, BeadOutcome.blocked, BeadOutcome.asks, BeadOutcome.closed}
)


class Settlement(msgspec.Struct, frozen=True):
    """Writes the decisions of one sweep. The failure of one bead does not affect the others."""

    writes: SweepWrites
    runtime: Runtime
    dry_run: bool

    def settle(self, decisions: list[ReapDecision], evidence: JobEvidence) -> tuple[BeadReport, ...]:
        """Write what was decided. The failure of one bead does not affect the others."""
        decided = [decision for decision in decisions if decision.action is not Action.keep]
        ends = [
            asks(end) if end and decision.action is Action.ask else end
            for decision in decided
            for end in [end_of_run(decision.bead, evidence, self.runtime.now())]
        ]
        elsewhere = [runs_elsewhere(decision.bead, evidence) for decision in decided]
        written = self.writes.each([*map(self._change, decided, ends, elsewhere)])
        for decision, end, result in zip(decided, ends, written, strict=True):
            if end and result is True and not self.dry_run:
                log_end(decision.bead, _run(decision), end, _left(decision))
                self.writes.recorded.append((decision.bead.id, decision.bead.record.attempt))
                self.writes.cost_usd += end.cost_usd or 0.0
        results = dict(zip((decision.bead.id for decision in decided), written, strict=True))
        paused = self.writes.paused is not None
        return tuple(outcome(decision, results.get(decision.bead.id), paused=paused) for decision in decisions)

    def _change(self, decision: ReapDecision, end: Run | None, elsewhere: bool) -> Change:
        """Turn a decision into a change, with the end of the job, that holds only for the bead as it was seen.

        A run of another place stays in the list without an end, so that this place can record it.
        """
        bead, record = decision.bead, decision.bead.record
        times: dict[str, Moment] = {}
        if end:
            record = record.with_end(ended_run(_run(decision), end, _left(decision)))
        elif elsewhere:  # its job ran, but its end is not recorded yet
            record = record.with_runs(record.all_runs)
        if decision.gives_up:
            record = record.change(given_up=bead.record.job)
        if decision.failed_check:
            record = record.change(failed_checks=record.failed_checks + 1)
        if decision.action is Action.close:
            record = record.change(check="", error="")
        elif decision.action is Action.block:
            record = record.blocked(decision.evidence)
        else:
            failures, record = _released(decision, record)
            times = {"released_at": NOW} if record.place else {}
            if decision.action is not Action.ask:
                times["retry_at"] = Moment(backoff(failures, self.runtime.rng))
        again = decision.action is Action.close and not end  # bd has refused it before
        note = "" if again else decision.note
        return rewrite(
            bead,
            record,
            times=times,
            act=decision.action.name,
            mark=self.runtime.unique(),
            status=_STATUS.get(decision.action, "open"),
            reason=end.words or f"job {bead.record.job} has passed its checks" if end else "",
            note="\n".join(filter(None, [end_note(bead, _run(decision), end) if end else bead.missing_note, note])),
            if_status=bead.status,
            if_assignee=bead.assignee,
            **as_read(bead),
        )

    def rewrite_lost_notes(self, decisions: list[ReapDecision]) -> None:
        """Write the note of a record once if it is missing. The metadata is the record itself.

        The dispatcher was killed before it wrote the note, or bd lost the note to a concurrent writer.
        """
        now = self.runtime.now()
        changes = [
            rewrite(
                bead,
                bead.record.change(noted=bead.record.attempt),
                act="note job of",
                mark=self.runtime.unique(),
                note=bead.missing_note,
                if_attempt=bead.record.attempt,
                **as_read(bead),
            )
            for bead in (decision.bead for decision in decisions if decision.action is Action.keep)
            if bead.missing_note and (bead.record.claimed_at is None or now - bead.record.claimed_at > NOTE_DELAY)
        ]
        for change, result in zip(changes, self.writes.each(changes), strict=True):
            again = result is True and not self.dry_run
            log.warning("note-lost", bead=change.bead.id, job=change.bead.record.job, written_again=again)


def _run(decision: ReapDecision) -> Run:
    run = decision.bead.record.current
    assert run is not None  # its end would not be known
    return run


def _released(decision: ReapDecision, record: Record) -> tuple[int, Record]:
    """Return the number of failures for the backoff, and the record of the re-opened bead."""
    failures = record.failures + 1
    deaths = record.deaths + 1 if decision.early_death else 0
    after = record.released().change(
        attempts=record.attempts if decision.charged else max(record.attempts - 1, 0),
        failures=failures,
        deaths=deaths,
        died=record.attempt if decision.charged and (decision.early_death or record.died == record.attempt) else "",
    )
    unknown = record.attempt and record.died == record.attempt  # nobody knows what became of its POST
    if not decision.charged or not (record.job or unknown):  # it has not had its turn
        after = after.in_place(record.armed_at)
    elif decision.early_death or unknown:  # its charge may yet be given back, and its place with it
        after = after.change(armed_at=record.armed_at)
    return max(failures, deaths), after  # a started job has reset the failures


def kept(decision: ReapDecision, prefix: str = "") -> BeadReport:
    """Report a bead that is left as it is. `prefix` says why, before what was decided."""
    bead = decision.bead
    lives = sign_of_life(bead)
    return BeadReport(
        bead.id, BeadOutcome.kept, bead.record.job, prefix + decision.evidence, lives=lives, title=bead.title
    )


def touched(beads: Iterable[BeadReport]) -> set[str]:
    """Return the ids of the beads that were changed, or were to be."""
    return {bead.id for bead in beads if bead.outcome is not BeadOutcome.kept}


def _left(decision: ReapDecision) -> str:
    """Return the status in which a run counts to have left its bead."""
    return "closed" if decision.action is Action.close else decision.bead.status


def outcome(decision: ReapDecision, result: bool | BdError | None, *, paused: bool = False) -> BeadReport:
    """Report a decision and the result of its write. None: nothing was written."""
    bead = decision.bead
    if result is None or decision.action is Action.keep:
        return kept(decision)
    if paused and result is False:
        return kept(decision, "not settled, since dispatching is paused: ")
    if isinstance(result, BdError):
        outcome, detail = BeadOutcome.failed, str(result)
    elif not result:
        outcome, detail = (
            BeadOutcome.lost,
            "it changed while it was judged, say because its agent closed it: left as it is",
        )
    else:
        outcome, detail = BeadOutcome(decision.action), decision.evidence
    return BeadReport(bead.id, outcome, bead.record.job, detail, bead.record.attempt, title=bead.title)


def log_reports(beads: Iterable[BeadReport], *, dry_run: bool) -> None:
    """Log what became of beads, or in a dry run would have."""
    for bead in beads:
        facts = {"bead": bead.id, "job": bead.job, "attempt": bead.attempt, "detail": bead.detail}
        if bead.outcome in SETTLED:
            facts["title"] = bead.short_title
        if dry_run and bead.outcome in (*SETTLED, BeadOutcome.stopping):
            log.event("would-reap", outcome=bead.outcome, title_=bead.title, **facts)
        else:
            log.event(bead.outcome, bead.outcome.level, title_=bead.title, **facts)
