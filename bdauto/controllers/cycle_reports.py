"""What a dispatch cycle reports of its beads, and the error that it amounts to."""

import contextlib
import logging
from collections.abc import Iterator

from bdauto.common import log
from bdauto.common.errors import BdautoError, BdError, BdFailed, PartlyDone, ServiceDown, ServiceDrift
from bdauto.controllers.claim_writes import Claim
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.bead import Bead
from bdauto.domain.notes import UNKNOWN
from bdauto.domain.outcome import BeadOutcome, BeadReport


class CycleReports:
    """Keeps and logs a report of each bead of a cycle."""

    def __init__(self, started_jobs: StartedJobs, *, dry_run: bool = False) -> None:
        self.reports: list[BeadReport] = []
        self._started_jobs = started_jobs
        self._dry_run = dry_run
        self._passed_over: BdautoError | None = None

    @property
    def dispatched(self) -> int:
        """How many beads were dispatched."""
        return sum(report.outcome is BeadOutcome.dispatched for report in self.reports)

    def may_run(self, attempt: str) -> bool:
        """Return whether a job of this attempt runs or may run."""
        running = (BeadOutcome.dispatched, BeadOutcome.unknown, BeadOutcome.failed)
        return any(report.attempt == attempt and report.outcome in running for report in self.reports)

    @property
    def at_capacity(self) -> bool:
        """Whether the service said that it takes no further bead."""
        return any(report.outcome is BeadOutcome.busy for report in self.reports)

    @property
    def moved(self) -> bool:
        """Whether the bead that was reported last is somebody else's."""
        return self.reports[-1].outcome is BeadOutcome.lost

    def failure(self) -> BdautoError | None:
        """Return the error that the beads' outcomes amount to: partly done when any bead was dispatched."""
        seen = {report.outcome: report for report in self.reports}
        unknown = seen.get(BeadOutcome.unknown)
        if unknown:
            return ServiceDrift(
                f"{unknown.id}: {UNKNOWN}: {unknown.detail}; it may run: it stays claimed until the reaper settles it"
            )
        if self._passed_over:
            return self._passed_over
        bad = seen.get(BeadOutcome.unavailable) or seen.get(BeadOutcome.refused)
        if not bad:
            failed = seen.get(BeadOutcome.failed)
            return BdFailed(f"nothing was dispatched: {failed.detail}") if failed and not self.dispatched else None
        again = " again" if bad.attempt else ""  # it was claimed
        if self.dispatched:
            return PartlyDone(f"partly done: {bad.id} is open{again}: {bad.detail}")
        return ServiceDown(f"nothing was dispatched: {bad.id} is open{again}: {bad.detail}")

    def pass_over(self, bead: Bead, words: str, job: str = "", error: BdautoError | None = None) -> None:
        """Leave a bead alone in this cycle, and report why. `error` becomes the cycle's error.

        The same reason as in the cycle before is logged as info, not as a warning.
        """
        self._passed_over = self._passed_over or error
        level = logging.WARNING if self._started_jobs.is_news(bead.id, words) else logging.INFO
        self.report(bead, BeadOutcome.kept, words, job, level)

    @contextlib.contextmanager
    def naming(self, what: Claim | Bead) -> Iterator[None]:
        """Report the bead as failed if bd fails in the block, unless the block has reported it."""
        bead_id = what.bead.id if isinstance(what, Claim) else what.id
        try:
            yield
        except BdError as error:
            if all(report.id != bead_id for report in self.reports):
                self.report(what, BeadOutcome.failed, str(error))
            raise

    def report(
        self, what: Claim | Bead, outcome: BeadOutcome, detail: str = "", job: str = "", level: int | None = None
    ) -> None:
        """Report and log what became of a bead, at the outcome's log level unless `level` is given."""
        bead, attempt = (what.bead, what.attempt) if isinstance(what, Claim) else (what, "")
        self.reports.append(BeadReport(bead.id, outcome, job, detail, attempt))
        if self._dry_run and outcome is BeadOutcome.dispatched:
            log.event("would-dispatch", bead=bead.id, title_=bead.title)
        elif self._dry_run and outcome in (BeadOutcome.adopted, BeadOutcome.reverted):
            log.event("would-adopt", bead=bead.id, job=job, title_=bead.title)
        else:
            level = level or outcome.level
            log.event(outcome, level, bead=bead.id, job=job, attempt=attempt, detail=detail, title_=bead.title)
