"""One sweep of the reaper: list the beads in progress, weigh the evidence, settle each that is over or stalled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdauto import log, pause
from bdauto.bd import Bd
from bdauto.changes import Change, Writer, apply_each
from bdauto.claims import COUNTERS
from bdauto.errors import BdautoError, BdError, PartlyDone, ServiceError
from bdauto.models import Bead, format_time
from bdauto.outcome import BeadOutcome, BeadReport, Outcome, Report, partly
from bdauto.policy import Action, Settlement, backoff, settle, too_many
from bdauto.runtime import Runtime
from bdauto.settings import ReapSettings

if TYPE_CHECKING:
    from bdauto.beadboard import Services  # imports httpx, which a sweep without an agent service does not need


NOTED = "bdauto.noted"
"""Metadata key: the attempt whose lost note was written again."""
SETTLED = frozenset({BeadOutcome.released, BeadOutcome.requeued, BeadOutcome.blocked})


@dataclass
class Reaper:
    """Runs sweeps. `services` is None when the agent service is not configured: then jobs are no evidence."""

    bd: Bd
    writer: Writer
    services: "Callable[[], Services] | None"
    settings: ReapSettings
    runtime: Runtime

    def sweep(self) -> Report:
        """Settle the beads that are over or stalled; what goes wrong is in the report, not raised."""
        try:
            return self._sweep()
        except BdautoError as error:
            return Report("reap", Outcome.failed, self.settings.dry_run, error=error)

    def _sweep(self) -> Report:
        listing = self.bd.in_progress()
        try:
            switch = None if self.settings.ignore_pause else self.bd.kv_list()
            paused = pause.read(switch.result(), self.runtime.now()) if switch else None
            if paused:
                return Report("reap", Outcome.paused, self.settings.dry_run, detail=paused.words())
            page = listing.result()
        finally:
            listing.kill()
        settlements = [self._weigh(bead) for bead in page.beads]
        aged = too_many(settlements, self.settings)
        if aged:
            beads = tuple(_kept(settlement, "not settled: ") for settlement in settlements)
            return self._report(beads, page.malformed, _suspicious(aged, self.settings.max_reap))
        self._rewrite_lost_notes(settlements)
        return self._report(self._settle(settlements), page.malformed)

    def _report(
        self, beads: tuple[BeadReport, ...], malformed: tuple[str, ...], error: BdautoError | None = None
    ) -> Report:
        for bead in beads:
            log.event(
                bead.outcome,
                bead.outcome.level,
                bead=bead.id,
                job=bead.job,
                attempt=bead.attempt,
                detail=bead.detail,
            )
        error = error or partly(beads, malformed)
        reaped = any(bead.outcome in SETTLED for bead in beads)
        outcome = Outcome.partial if error else Outcome.reaped if reaped else Outcome.idle
        return Report("reap", outcome, self.settings.dry_run, beads, "", malformed, error)

    def _weigh(self, bead: Bead) -> Settlement:
        return settle(bead, self._job_state(bead), self.settings, self.runtime.now())

    def _job_state(self, bead: Bead) -> str | None:
        """Return the agent service's word on the bead's job; a service that does not answer is no evidence."""
        if self.services is None or not bead.job:
            return None
        try:
            return self.services().job_state(bead.job)
        except ServiceError as error:
            log.warning("no-evidence", bead=bead.id, job=bead.job, error=error)
            return None

    def _settle(self, settlements: list[Settlement]) -> tuple[BeadReport, ...]:
        """Write what was decided; one bead's failure is its own."""
        decided = [settlement for settlement in settlements if settlement.action is not Action.keep]
        results = dict(
            zip((s.bead.id for s in decided), apply_each(self.writer, [*map(self._change, decided)]), strict=True)
        )
        return tuple(_outcome(settlement, results.get(settlement.bead.id)) for settlement in settlements)

    def _change(self, settlement: Settlement) -> Change:
        """Write a settlement as a change that holds only for the bead as it was seen."""
        bead = settlement.bead
        put: dict[str, str | int] = {}
        drop: tuple[str, ...] = COUNTERS
        if settlement.action is Action.block:
            put["bdauto.blocked"] = settlement.evidence
        else:
            put["bdauto.attempts"] = bead.attempts
            put["bdauto.failures"] = bead.failures + 1
            put["bdauto.retry_at"] = format_time(self.runtime.now() + backoff(bead.failures + 1, self.runtime.rng))
            drop = tuple(key for key in COUNTERS if key not in put)
        return Change(
            bead=bead,
            status="blocked" if settlement.action is Action.block else "open",
            note=settlement.note,
            put=put,
            drop=drop,
            if_status="in_progress",
            if_assignee=bead.assignee,
            if_updated_at=bead.updated_at,
        )

    def _rewrite_lost_notes(self, settlements: list[Settlement]) -> None:
        """Write a dispatch's note again, once, where a concurrent writer made bd lose it; metadata is the record."""
        changes = [
            Change(
                bead=bead,
                note=f"dispatched: job={bead.job}",
                put={NOTED: bead.attempt},
                if_attempt=bead.attempt,
                if_updated_at=bead.updated_at,
            )
            for bead in (settlement.bead for settlement in settlements if settlement.action is Action.keep)
            if bead.job and f"job={bead.job}" not in bead.notes and (bead.metadata or {}).get(NOTED) != bead.attempt
        ]
        for change, result in zip(changes, apply_each(self.writer, changes), strict=True):
            log.warning("note-lost", bead=change.bead.id, job=change.bead.job, written_again=result is True)


def _kept(settlement: Settlement, prefix: str = "") -> BeadReport:
    return BeadReport(settlement.bead.id, BeadOutcome.kept, settlement.bead.job, prefix + settlement.evidence)


def _outcome(settlement: Settlement, result: bool | BdError | None) -> BeadReport:
    bead = settlement.bead
    if result is None:
        return _kept(settlement)
    if isinstance(result, BdError):
        return BeadReport(bead.id, BeadOutcome.failed, bead.job, str(result), bead.attempt)
    if not result:
        detail = "it changed since it was read: left as it is"
        return BeadReport(bead.id, BeadOutcome.lost, bead.job, detail, bead.attempt)
    return BeadReport(bead.id, BeadOutcome(settlement.action), bead.job, settlement.evidence, bead.attempt)


def _suspicious(aged: int, limit: int) -> PartlyDone:
    return PartlyDone(
        f"{aged} beads look stalled at once, more than --max-reap {limit}, so nothing was written: more likely this "
        "host's clock is wrong, or the database is stale; check both, then reap with --force"
    )
