"""One dispatch cycle: choose, claim, post, record.

The claim excludes every other dispatcher; the POST is made once and never repeated; whatever its answer, the bead ends
recorded, released, set aside, or claimed with an outcome that says "unknown" (docs/reliability.md has the table).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from bdauto import log, pause
from bdauto.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started, Unknown
from bdauto.argv import PAGE
from bdauto.bd import Bd
from bdauto.changes import Writer
from bdauto.claims import Claim, Claims
from bdauto.errors import BdautoError, BdError, BdFailed, PartlyDone, ServiceDown, ServiceDrift
from bdauto.models import Bead
from bdauto.outcome import BeadOutcome, BeadReport, Outcome, Report, partly
from bdauto.policy import UNKNOWN
from bdauto.queue import Queue
from bdauto.runtime import Runtime
from bdauto.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.beadboard import Services  # imports httpx, which an idle cycle does not need

IN_A_ROW = 3
"""So many beads that fail one after another speak against the service, or bd, and not against the beads."""


@dataclass
class Dispatcher:
    """Runs one cycle. `services` is called only when a bead is eligible; `stopping` is asked before each bead."""

    bd: Bd
    writer: Writer
    services: "Callable[[], Services]"
    settings: DispatchSettings
    runtime: Runtime
    stopping: Callable[[], bool] = lambda: False
    _reports: list[BeadReport] = field(default_factory=list, init=False)
    _malformed: set[str] = field(default_factory=set, init=False)
    _refused: list[tuple[Claim, str]] = field(default_factory=list, init=False)
    _not_started: int = field(default=0, init=False)
    _claims_failed: int = field(default=0, init=False)

    def cycle(self) -> Report:
        """Dispatch up to `max_beads` eligible beads; what goes wrong is in the report, not raised."""
        outcome, detail, error = Outcome.idle, "", None
        try:
            outcome, detail = self._cycle()
        except BdautoError as caught:
            error = caught
        beads, malformed = tuple(self._reports), tuple(sorted(self._malformed))
        error = error or self._failures() or partly(beads, malformed)
        if error:
            outcome = Outcome.partial if self._dispatched() or isinstance(error, PartlyDone) else Outcome.failed
        elif self._dispatched():
            outcome = Outcome.dispatched
        return Report("dispatch", outcome, self.settings.dry_run, beads, detail, malformed, error)

    def _cycle(self) -> tuple[Outcome, str]:
        page = self.bd.ready(limit=PAGE).result()
        if page.empty:  # nothing that a pause could hold back
            return Outcome.idle, ""
        queue = Queue(self.bd, self.settings, self.runtime.now(), self._malformed)
        switch = None if self.settings.ignore_pause else self.bd.kv_list()
        try:
            if queue.promising(page):  # what a dispatch needs is got ready beside the look at the switch
                self.writer.prepare()
                self.services()
            paused = pause.read(switch.result(), self.runtime.now()) if switch else None
        finally:
            if switch:
                switch.kill()
        if paused:
            return Outcome.paused, paused.words()
        return self._dispatch(queue.eligible(page, self.settings.max_beads))

    def _dispatch(self, queue: Iterable[Bead]) -> tuple[Outcome, str]:
        """Take beads from the queue until enough are dispatched, capacity ends, or an answer stops the cycle."""
        room = None
        try:
            for bead in queue:
                if self.stopping():
                    break
                capacity = self.services().capacity()
                if capacity.free == 0:
                    return Outcome.busy, "the agent service is at capacity"
                if room is None:
                    room = min(self.settings.max_beads, capacity.free if capacity.counted else self.settings.max_beads)
                if not self._one(bead):
                    break
                if self._dispatched() >= room:
                    break
        finally:
            self._charge_refused()
        at_capacity = any(report.outcome is BeadOutcome.busy for report in self._reports)
        return (Outcome.busy, "the agent service is at capacity") if at_capacity else (Outcome.idle, "")

    def _one(self, bead: Bead) -> bool:
        """Claim and post one bead; return whether to go on with the next."""
        claim = self._claim(bead)
        if claim is None:
            return True
        answer: Answer = Started("") if self.settings.dry_run else self.services().dispatch(bead.id)
        log.debug("answered", bead=bead.id, attempt=claim.attempt, answer=type(answer).__name__)
        self._not_started = self._not_started + 1 if isinstance(answer, NotStarted) else 0
        go_on = self._settle(claim, answer)  # first of all: a job that runs must be recorded, whatever else fails
        if not isinstance(answer, Refused):
            self._charge_refused()
        return go_on

    def _claim(self, bead: Bead) -> Claim | None:
        try:
            claim = self._claims.claim(bead)
        except BdFailed as error:
            self._claims_failed += 1
            if self._claims_failed == IN_A_ROW:
                raise
            self._report(bead, BeadOutcome.failed, str(error))
            return None
        self._claims_failed = 0
        if claim is None:
            self._report(bead, BeadOutcome.lost, "it changed since it was read: somebody else has it")
        return claim

    def _settle(self, claim: Claim, answer: Answer) -> bool:
        """Do to the claimed bead what the answer means; return whether to go on with the next."""
        match answer:
            case Started(job):
                self._record(claim, job)
            case AtCapacity():
                self._claims.release(claim)
                self._report(claim, BeadOutcome.busy, "the agent service is at capacity; the bead is open again")
                return False
            case Refused(error):
                self._refused.append((claim, error))
                if len(self._refused) == IN_A_ROW:
                    self._misdirected()
            case NotStarted(error):
                self._claims.release(claim, error=error, back_off=True)
                self._report(claim, BeadOutcome.unavailable, error)
                if self._not_started == IN_A_ROW:
                    raise ServiceDown(
                        f"BeadBoard did not start {IN_A_ROW} beads in a row; they are open again: {error}"
                    )
            case Misconfigured(error):
                self._claims.release(claim, error=error)
                self._report(claim, BeadOutcome.misconfigured, error)
                hint = "check BeadBoard's configuration and --beadboard-url"
                raise ServiceDrift(f"BeadBoard is misconfigured: {error}; {claim.bead.id} is open again; {hint}")
            case Unknown(error):
                self._report(claim, BeadOutcome.unknown, error)
                self._claims.unknown(claim, error)
                return False
            case _:
                assert_never(answer)
        return True

    def _record(self, claim: Claim, job: str) -> None:
        try:
            written = self._claims.record(claim, job)
        except BdError as error:
            words = f"runs as job {job}, which could not be recorded: {error}"
            self._report(claim, BeadOutcome.failed, words, job)
            raise type(error)(f"{claim.bead.id} {words}") from None
        moved = "" if written else "the bead was changed meanwhile: its job stands only here and in the log"
        self._report(claim, BeadOutcome.dispatched, moved, job)

    def _charge_refused(self) -> None:
        """End the refused beads that are held back: by now it is they that were refused, and not every bead."""
        held, self._refused = self._refused, []
        for claim, error in held:
            if claim.attempts >= self.settings.max_attempts:
                self._claims.set_aside(claim, error)
                self._report(claim, BeadOutcome.set_aside, error)
            else:
                self._claims.release(claim, error=error, charged=True, back_off=True)
                self._report(claim, BeadOutcome.refused, error)

    def _misdirected(self) -> None:
        """Release the beads refused in a row without a charge: BeadBoard would refuse every bead."""
        held, self._refused = self._refused, []
        for claim, error in held:
            self._claims.release(claim, error=error)
            self._report(claim, BeadOutcome.misconfigured, error)
        raise ServiceDrift(
            f"BeadBoard refused {IN_A_ROW} beads in a row ({held[-1][1]}); they are open again and not charged: "
            "check that BeadBoard reads the same database as bd"
        )

    def _failures(self) -> BdautoError | None:
        """Return the error that the beads' outcomes amount to: partly done when any bead was dispatched."""
        seen = {report.outcome: report for report in self._reports}
        unknown = seen.get(BeadOutcome.unknown)
        if unknown:
            return ServiceDrift(
                f"{unknown.id}: {UNKNOWN}: {unknown.detail}; it may run: it stays claimed until the reaper settles it"
            )
        bad = seen.get(BeadOutcome.unavailable) or seen.get(BeadOutcome.refused)
        if not bad:
            failed = seen.get(BeadOutcome.failed)
            return BdFailed(f"nothing was dispatched: {failed.detail}") if failed and not self._dispatched() else None
        if self._dispatched():
            return PartlyDone(f"partly done: {bad.id} is open again: {bad.detail}")
        return ServiceDown(f"nothing was dispatched: {bad.id} is open again: {bad.detail}")

    def _dispatched(self) -> int:
        return sum(report.outcome is BeadOutcome.dispatched for report in self._reports)

    def _report(self, what: Claim | Bead, outcome: BeadOutcome, detail: str = "", job: str = "") -> None:
        bead_id, attempt = (what.bead.id, what.attempt) if isinstance(what, Claim) else (what.id, "")
        self._reports.append(BeadReport(bead_id, outcome, job, detail, attempt))
        log.event(outcome, outcome.level, bead=bead_id, job=job, attempt=attempt, detail=detail)

    @property
    def _claims(self) -> Claims:
        return Claims(self.writer, self.bd.settings.assignee, self.runtime)
