"""One sweep of the reaper: list the beads in progress, weigh the evidence, settle each that is over or stalled."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.bd.edit_log import written_by
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, BdError, PartlyDone, ServiceError
from bdauto.controllers.early_deaths import EarlyDeaths
from bdauto.controllers.job_ends import JobEnds, comment_reviews
from bdauto.controllers.reconciler import Reconciler
from bdauto.controllers.returned_beads import ReturnedBeads
from bdauto.controllers.settlement import SETTLED, Settlement, kept, log_reports, outcome, touched
from bdauto.controllers.signed_jobs import SignedJobs
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.controllers.unchecked_beads import Opened, UncheckedBeads
from bdauto.domain import pause
from bdauto.domain.bead import Bead
from bdauto.domain.edits import CHECKER
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report, partly
from bdauto.domain.pause import Pause
from bdauto.domain.questions import blockers, in_words
from bdauto.domain.reaping import (
    NOT_STARTED,
    Action,
    JobEvidence,
    ReapDecision,
    asking,
    decide_reap,
    lies_ahead,
    too_many,
)
from bdauto.domain.settings import ReapSettings
from bdauto.domain.times import format_time

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

CHECK_WROTE = f"a check of it has written on the bead as {CHECKER}, which counts as nobody's"
NAMED = 5
"""Beads whose recorded ends a report names at most."""


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
    _opened_again: tuple[BeadReport, ...] = field(default=(), init=False)
    _unrecorded: bool = field(default=False, init=False)
    _writes: SweepWrites = field(init=False)

    def __post_init__(self) -> None:
        self._writes = SweepWrites(self.writer, self.bd, self.runtime, None)
        self._opened = ReturnedBeads(self.bd, self.runtime, self.settings.max_attempts)

    def sweep(self) -> Report:
        """Reap the beads that are over or stalled. The report holds any error. Nothing expected is raised."""
        try:
            return self._sweep()
        except BdautoError as error:
            done = self._report((), (), error)  # what it had done before
            return done if done.beads else Report("reap", Outcome.failed, self.settings.dry_run, error=error)

    def _sweep(self) -> Report:
        listing = self.bd.in_progress()
        try:
            store = None if self.settings.ignore_pause else self.bd.kv_list().result()
            if paused := None if store is None else pause.read(store, self.runtime.now()):
                return self._paused(paused)
            page = listing.result()
        finally:
            listing.kill()
        if self.runner:
            self._reconcile(self.runner())
        self._writes = SweepWrites(self.writer, self.bd, self.runtime, store)
        self._opened_again = ()
        if self.runner and self._open_unchecked(lambda unchecked, runner: unchecked.open_here(runner)):
            page = self.bd.in_progress().result()
        beads, error = self._reap(page.beads, store)
        return self._report(beads, page.malformed, error)

    def _open_unchecked(self, open_: "Callable[[UncheckedBeads, Runner], list[Opened]]") -> bool:
        """Open beads again whose agents have closed them unchecked. Return whether there were any."""
        opened: list[Opened] = []
        try:
            if self.runner and not self.settings.dry_run:
                unchecked = UncheckedBeads(self.bd, self._writes, self.runtime, self._writes.naming)
                opened = open_(unchecked, self.runner())
        except BdError as error:
            self._writes.unread = error
        except ServiceError as error:
            log.warning("no-evidence", error=error)
        self._opened_again += tuple(
            BeadReport(bead.id, BeadOutcome.reverted, bead.record.job, words, title=bead.title)
            for bead, words in opened
        )
        return bool(opened)

    def _paused(self, paused: Pause) -> Report:
        """Report that dispatching is paused. Jobs are stopped if the pause says so."""
        if self.runner and paused.stop:
            self._reconcile(self.runner(), paused.stops)
        log_reports(self._reconciled, dry_run=self.settings.dry_run)
        return Report("reap", Outcome.paused, self.settings.dry_run, self._reconciled, detail=paused.describe())

    def _reap(
        self, found: Sequence[Bead], store: Mapping[str, Any] | None
    ) -> tuple[tuple[BeadReport, ...], BdautoError | None]:
        """Decide about the beads in progress, and settle them. Also return what was wrong, or None."""
        settlement = Settlement(self._writes, self.runtime, self.settings.dry_run)
        signed = SignedJobs(self.bd, self._writes, self.runtime, self.settings.dry_run)
        claimed = [bead for bead in found if self.bd.lanes.claimed(bead)]
        listed, evidence, unanswered = signed.ask(self.runner() if self.runner else None, claimed)
        if unanswered:
            log.warning("no-evidence", error=unanswered)
        decisions = self._decide(listed, evidence)
        if aged := too_many(decisions, self.settings):
            beads = tuple(kept(decision, "not settled: ") for decision in decisions)
            return beads, unanswered or _suspicious(aged, self.settings.max_reap)
        settlement.rewrite_lost_notes(decisions)
        if self.runner and not self.settings.dry_run:
            ends = JobEnds(self.bd, self._writes, self.runtime, self._opened)
            self._ended, self._unrecorded = ends.record_missing(self.runner())
            self._returned = tuple(ends.reports)
            if ends.unchecked:
                self._open_unchecked(lambda unchecked, runner: unchecked.open(ends.unchecked, runner))
        decisions = [self._asking(self._unstartable(decision, evidence)) for decision in decisions]
        decisions = _checks_that_wrote(self.bd, self._writes, decisions)
        early = EarlyDeaths(self.bd, self._writes, self.settings, self.runtime)
        try:
            decisions, tripped = early.settle(decisions, evidence, store)
        except BdError as error:  # without the breaker nobody knows what to charge
            return tuple(outcome(decision, error) for decision in decisions), error
        settled = settlement.settle(decisions, evidence)
        comment_reviews(self.bd, self._writes, self.runner() if self.runner else None)
        return settled, unanswered or tripped

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
        told = {bead.id for bead in self._reconciled + self._opened_again}
        beads = tuple(bead for bead in beads if bead.outcome is not BeadOutcome.kept or bead.id not in told)
        settled = {bead.id for bead in beads}
        beads += tuple(bead for bead in self._opened_again if bead.id not in settled)
        failures = {bead: failure for bead, failure in self._writes.failures.items() if bead not in touched(beads)}
        beads = (*(bead for bead in beads if bead.id not in failures), *failures.values())
        beads += self._reconciled + self._returned
        log_reports(beads, dry_run=self.settings.dry_run)
        error = self._writes.error or error or partly(beads, malformed)
        reaped = {bead.id for bead in beads if bead.outcome in SETTLED}
        recorded = sorted({bead for bead, _ in self._writes.recorded} - reaped)
        done = Outcome.reaped if reaped or recorded else Outcome.paused if self._writes.paused else Outcome.idle
        found = Outcome.partial if error else done
        detail = _detail(recorded, self._writes.paused)
        return Report(
            *("reap", found, self.settings.dry_run, beads, detail, malformed, error),
            ended=self._ended,
            unrecorded=self._unrecorded,
            cost_usd=self._writes.cost_usd,
        )

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

    def _unstartable(self, decision: ReapDecision, evidence: JobEvidence) -> ReapDecision:
        """Return the decision about a claim without a job: it ends only once its job cannot be started any more."""
        bead = decision.bead
        settled = decision.action is not Action.keep and evidence.states.get(bead.id) == NOT_STARTED
        if not settled or self.runner is None or self.settings.dry_run:
            return decision
        try:
            self.runner().forbid_start(bead)
            started = self.runner().job_state(bead.record.attempt) is not None
        except ServiceError as error:
            return ReapDecision(bead, Action.keep, f"a late dispatcher may yet start its job: {error}")
        return ReapDecision(bead, Action.keep, "its job was started meanwhile") if started else decision

    def _asking(self, decision: ReapDecision) -> ReapDecision:
        """Return the decision about a bead in progress. If its job is over and its agent asks a person, it opens it."""
        over = decision.action is not Action.keep and (decision.charged or decision.failed_check)
        over = over and not (decision.by_age or decision.early_death)
        if not over or decision.bead.record.adopted or not blockers(decision.bead):
            return decision
        try:
            question = self._opened.question_of(decision.bead)
        except BdError as error:
            self._writes.unread = error
            return ReapDecision(decision.bead, Action.keep, f"its questions could not be read: {error}")
        return asking(decision, in_words(question)) if question else decision


def _detail(recorded: Sequence[str], paused: Pause | None) -> str:
    """Say for which beads a sweep has recorded the end of a run, and that a pause ended it."""
    ends = f"how the last run of {', '.join(recorded[:NAMED])} ended is recorded" if recorded else ""
    rest = f"{paused.describe()}: the rest is left as it is" if paused else ""
    return "; ".join(filter(None, [ends, rest]))


def _suspicious(aged: int, limit: int) -> PartlyDone:
    return PartlyDone(
        f"{aged} beads look stalled at once, more than --max-reap {limit}, so nothing was written: more likely this "
        "host's clock is wrong, or the database is stale",
        hint="check both, then reap with --max-reap 0",
    )


def _checks_that_wrote(bd: Bd, writes: SweepWrites, decisions: list[ReapDecision]) -> list[ReapDecision]:
    """Tell of the beads that were checked, and on which a check has written: what it wrote is nobody's."""
    checked = [one.bead.id for one in decisions if one.action is Action.close or one.failed_check]
    try:
        wrote = written_by(bd, checked, CHECKER) if checked else set()
    except BdError as error:
        writes.unread, wrote = error, set()
    new = {one.bead.id for one in decisions if one.bead.id in wrote and CHECK_WROTE not in one.bead.notes}
    for bead in sorted(new):
        log.warning("check-wrote", bead=bead, detail=CHECK_WROTE)
    return [
        msgspec.structs.replace(one, note=f"{one.note}; {CHECK_WROTE}") if one.bead.id in new else one
        for one in decisions
    ]
