"""One sweep of the reaper: list the beads in progress, weigh the evidence, settle each that is over or stalled."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from bdauto import log
from bdauto.bd.change import NOW, Change, Moment, Writer, as_read, rewrite
from bdauto.bd.client import Bd
from bdauto.clock import Runtime
from bdauto.controllers.early_deaths import EarlyDeaths
from bdauto.controllers.job_ends import JobEnds, end_note, end_of_run, log_end, runs_elsewhere
from bdauto.controllers.reconciler import Reconciler
from bdauto.controllers.returned_beads import ReturnedBeads
from bdauto.controllers.signed_jobs import SignedJobs
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.domain import pause
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import backoff
from bdauto.domain.life import sign_of_life
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report, partly
from bdauto.domain.questions import blockers, in_words
from bdauto.domain.reaping import (
    Action,
    JobEvidence,
    ReapDecision,
    asking,
    decide_check,
    decide_reap,
    lies_ahead,
    too_many,
)
from bdauto.domain.record import Record, Run
from bdauto.domain.results import JobEnd, asks, ended_run
from bdauto.domain.settings import ReapSettings
from bdauto.domain.times import format_time
from bdauto.errors import BdautoError, BdError, PartlyDone, ServiceError
from bdauto.sanitize import clean

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


NOTE_DELAY = timedelta(seconds=30)
"""How long after a claim its dispatcher may still write the note of its record."""
SETTLED = frozenset({BeadOutcome.released, BeadOutcome.requeued, BeadOutcome.blocked, BeadOutcome.asks})
TITLE_LIMIT = 80
"""Characters of a title that the log has."""


@dataclass
class Reaper:
    """Runs sweeps. `runner` is None when nobody can be asked about jobs: then they are no evidence.

    A process that sweeps more than once keeps `reconciler`.
    """

    bd: Bd
    writer: Writer
    runner: "Callable[[], Runner] | None"
    settings: ReapSettings
    runtime: Runtime
    reconciler: Reconciler | None = None
    _ended: tuple[str, ...] = field(default=(), init=False)
    _reconciled: tuple[BeadReport, ...] = field(default=(), init=False)
    _returned: tuple[BeadReport, ...] = field(default=(), init=False)
    _unrecorded: bool = field(default=False, init=False)
    _writes: SweepWrites = field(init=False)

    def sweep(self) -> Report:
        """Reap the beads that are over or stalled. The report holds any error. Nothing expected is raised."""
        try:
            return self._sweep()
        except BdautoError as error:
            return Report("reap", Outcome.failed, self.settings.dry_run, error=error)

    def _sweep(self) -> Report:
        listing = self.bd.in_progress()
        try:
            switch = None if self.settings.ignore_pause else self.bd.kv_list()
            store = switch.result() if switch else None
            paused = pause.read(store, self.runtime.now()) if store is not None else None
            if paused:
                if self.runner and paused.stop:
                    self._reconcile(self.runner(), paused.stops)
                self._log(self._reconciled)
                return Report("reap", Outcome.paused, self.settings.dry_run, self._reconciled, detail=paused.describe())
            page = listing.result()
        finally:
            listing.kill()
        if self.runner:
            self._reconcile(self.runner())
        self._writes = SweepWrites(self.writer, self.bd, self.runtime, store)
        signed = SignedJobs(self.bd, self._writes, self.runtime, self.settings.dry_run)
        listed, evidence, unanswered = signed.ask(self.runner() if self.runner else None, page.beads)
        if unanswered:
            log.warning("no-evidence", error=unanswered)
        decisions = self._decide(listed, evidence)
        aged = too_many(decisions, self.settings)
        if aged:
            beads = tuple(_kept(decision, "not settled: ") for decision in decisions)
            return self._report(beads, page.malformed, unanswered or _suspicious(aged, self.settings.max_reap))
        self._rewrite_lost_notes(decisions)
        if self.runner and not self.settings.dry_run:
            ends = JobEnds(self.bd, self._writes, self.runtime, self._opened)
            self._ended, self._unrecorded = ends.record_missing(self.runner())
            self._returned = tuple(ends.reports)
        decisions = [self._asking(decision) for decision in decisions]
        decisions += self._failed_checks()
        early = EarlyDeaths(self.bd, self._writes, self.settings, self.runtime)
        try:
            decisions, tripped = early.settle(decisions, evidence, store)
        except BdError as error:  # without the breaker nobody knows what to charge
            return self._report(tuple(_outcome(decision, error) for decision in decisions), page.malformed, error)
        return self._report(self._settle(decisions, evidence), page.malformed, unanswered or tripped)

    def _reconcile(self, runner: "Runner", stop_all: str = "") -> None:
        """Stop the jobs whose beads others have changed, or all. Their ends are recorded by a later sweep."""
        settings = self.settings
        reconciler = self.reconciler or Reconciler(
            self.bd, None, settings.agent_linger, self.runtime, dry_run=settings.dry_run
        )
        with contextlib.suppress(ServiceError):  # the evidence names it
            self._reconciled = tuple(reconciler.look(runner, stop_all=stop_all))

    def _report(
        self, beads: tuple[BeadReport, ...], malformed: tuple[str, ...], error: BdautoError | None = None
    ) -> Report:
        told = {bead.id for bead in self._reconciled}
        beads = tuple(bead for bead in beads if bead.outcome is not BeadOutcome.kept or bead.id not in told)
        failures = {bead: failure for bead, failure in self._writes.failures.items() if bead not in _touched(beads)}
        beads = (*(bead for bead in beads if bead.id not in failures), *failures.values())
        beads += self._reconciled + self._returned
        self._log(beads)
        error = self._writes.error or error or partly(beads, malformed)
        reaped = any(bead.outcome in SETTLED for bead in beads)
        paused = self._writes.paused
        outcome = Outcome.partial if error else Outcome.reaped if reaped else Outcome.paused if paused else Outcome.idle
        detail = f"{paused.describe()}: the rest is left as it is" if paused else ""
        return Report(
            "reap",
            outcome,
            self.settings.dry_run,
            beads,
            detail,
            malformed,
            error,
            ended=self._ended,
            unrecorded=self._unrecorded,
            cost_usd=self._writes.cost_usd,
        )

    def _log(self, beads: Iterable[BeadReport]) -> None:
        for bead in beads:
            facts = {"bead": bead.id, "job": bead.job, "attempt": bead.attempt, "detail": bead.detail}
            if bead.outcome in SETTLED:
                facts["title"] = clean(bead.title, TITLE_LIMIT)
            if self.settings.dry_run and bead.outcome in (*SETTLED, BeadOutcome.stopping):
                log.event("would-reap", outcome=bead.outcome, **facts)
            else:
                log.event(bead.outcome, bead.outcome.level, **facts)

    def _decide(self, beads: Sequence[Bead], evidence: JobEvidence) -> list[ReapDecision]:
        """Decide by this host's clock, and where age would settle a bead again by the database server's."""
        now = self.runtime.now()
        decisions = [decide_reap(bead, evidence, self.settings, now) for bead in beads]
        if any(decision.by_age or lies_ahead(decision.bead, self.settings, now) for decision in decisions):
            server = self.bd.server_time()
            if server is not None:
                log.debug("server-time", seconds=(server - now).total_seconds())
                now = server
                decisions = [decide_reap(bead, evidence, self.settings, now) for bead in beads]
        for bead in beads:
            if lies_ahead(bead, self.settings, now):
                log.warning(
                    "time-ahead", bead=bead.id, detail=f"updated at {format_time(bead.updated_at)}: not believed"
                )
        return decisions

    @property
    def _opened(self) -> ReturnedBeads:
        return ReturnedBeads(self.bd, self.runtime, self.settings.max_attempts)

    def _asking(self, decision: ReapDecision) -> ReapDecision:
        """Return the decision about a bead in progress. If its job is over and its agent asks a person, it opens it."""
        over = decision.action is not Action.keep and decision.charged and not (decision.by_age or decision.early_death)
        if not over or decision.bead.record.adopted or not blockers(decision.bead):
            return decision
        try:
            question = self._opened.question_of(decision.bead)
        except BdError as error:
            self._writes.unread = error
            return ReapDecision(decision.bead, Action.keep, f"its questions could not be read: {error}")
        return asking(decision, in_words(question)) if question else decision

    def _failed_checks(self) -> Iterator[ReapDecision]:
        """Decide about the closed beads whose job's check failed."""
        failed = {check.attempt: check for check in (self.runner().failed_checks() if self.runner else ())}
        try:
            beads = self.bd.read(sorted({check.bead for check in failed.values()})).result().beads if failed else ()
        except BdError as error:
            self._writes.unread, beads = error, ()
        for bead in beads:
            if bead.record.attempt in failed and (
                decision := decide_check(bead, failed[bead.record.attempt], self.settings)
            ):
                yield decision

    def _settle(self, decisions: list[ReapDecision], evidence: JobEvidence) -> tuple[BeadReport, ...]:
        """Write what was decided. The failure of one bead does not affect the others."""
        decided = [decision for decision in decisions if decision.action is not Action.keep]
        ends = [
            asks(end) if end and decision.action is Action.ask else end
            for decision in decided
            for end in [end_of_run(decision.bead, evidence, self.runtime.now())]
        ]
        elsewhere = [runs_elsewhere(decision.bead, evidence) for decision in decided]
        written = self._writes.each([*map(self._change, decided, ends, elsewhere)])
        for decision, end, result in zip(decided, ends, written, strict=True):
            if end and result is True and not self.settings.dry_run:
                log_end(decision.bead, _run(decision), end)
                self._writes.cost_usd += end.cost_usd or 0.0
        results = dict(zip((decision.bead.id for decision in decided), written, strict=True))
        paused = self._writes.paused is not None
        return tuple(_outcome(decision, results.get(decision.bead.id), paused=paused) for decision in decisions)

    def _change(self, decision: ReapDecision, end: JobEnd | None, elsewhere: bool) -> Change:
        """Turn a decision into a change, with the end of the job, that holds only for the bead as it was seen.

        A run of another place stays in the list without an end, so that this place can record it.
        """
        bead, record = decision.bead, decision.bead.record
        times: dict[str, Moment] = {}
        if end:
            record = record.with_end(ended_run(_run(decision), end))
        elif elsewhere or bead.status == "closed":  # its job ran, but its end is not recorded yet
            record = record.with_runs(record.all_runs)
        if decision.gives_up:
            record = record.change(given_up=bead.record.job)
        if decision.action is Action.block:
            record = record.blocked(decision.evidence)
        else:
            failures, record = _released(decision, record)
            times = {"released_at": NOW} if record.place else {}
            if decision.action is not Action.ask:
                times["retry_at"] = Moment(backoff(failures, self.runtime.rng))
        return rewrite(
            bead,
            record,
            times=times,
            act=decision.action.name,
            mark=self.runtime.unique(),
            status="blocked" if decision.action is Action.block else "open",
            note="\n".join(
                filter(None, [end_note(bead, _run(decision), end) if end else bead.missing_note, decision.note])
            ),
            if_status=bead.status,
            if_assignee=bead.assignee,
            **as_read(bead),
        )

    def _rewrite_lost_notes(self, decisions: list[ReapDecision]) -> None:
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
        for change, result in zip(changes, self._writes.each(changes), strict=True):
            again = result is True and not self.settings.dry_run
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


def _kept(decision: ReapDecision, prefix: str = "") -> BeadReport:
    bead = decision.bead
    lives = sign_of_life(bead)
    return BeadReport(
        bead.id, BeadOutcome.kept, bead.record.job, prefix + decision.evidence, lives=lives, title=bead.title
    )


def _touched(beads: Iterable[BeadReport]) -> set[str]:
    """Return the reports of beads that were changed, or were to be."""
    return {bead.id for bead in beads if bead.outcome is not BeadOutcome.kept}


def _outcome(decision: ReapDecision, result: bool | BdError | None, *, paused: bool = False) -> BeadReport:
    """Report a decision and the result of its write. None: nothing was written."""
    bead = decision.bead
    if result is None or decision.action is Action.keep:
        return _kept(decision)
    if paused and result is False:
        return _kept(decision, "not settled, since dispatching is paused: ")
    if isinstance(result, BdError):
        outcome, detail = BeadOutcome.failed, str(result)
    elif not result:
        outcome, detail = BeadOutcome.lost, "it changed since it was read: left as it is"
    else:
        outcome, detail = BeadOutcome(decision.action), decision.evidence
    return BeadReport(bead.id, outcome, bead.record.job, detail, bead.record.attempt, title=bead.title)


def _suspicious(aged: int, limit: int) -> PartlyDone:
    return PartlyDone(
        f"{aged} beads look stalled at once, more than --max-reap {limit}, so nothing was written: more likely this "
        "host's clock is wrong, or the database is stale",
        hint="check both, then reap with --max-reap 0",
    )
