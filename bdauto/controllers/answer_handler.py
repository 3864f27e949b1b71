"""How the attempts of one cycle end: what the answer to each POST does to its bead.

docs/decisions.md has the table.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import assert_never

from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started, Unknown
from bdauto.common.errors import BdError, BdFailed, BdTimeout, PartlyDone, ServiceDown, ServiceDrift
from bdauto.controllers.claim_writes import Claim, ReleaseResult
from bdauto.controllers.claims import Claims
from bdauto.controllers.cycle_reports import CycleReports
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.bead import Bead
from bdauto.domain.constants import EXPORT_DELAY, IN_A_ROW
from bdauto.domain.outcome import BeadOutcome

NOT_VISIBLE_RETRY = timedelta(minutes=1)
"""A bead that the service does not see yet is tried again after this long: its export is at most a minute old then."""


class AnswerHandler(CycleReports):
    """Ends attempts, and reports each bead. Every method but `report` may raise BdError."""

    def __init__(
        self,
        claims: Claims,
        started_jobs: StartedJobs,
        max_attempts: int,
        now: Callable[[], datetime],
        *,
        dry_run: bool = False,
    ) -> None:
        super().__init__(started_jobs, dry_run=dry_run)
        self._claims = claims
        self._max_attempts = max_attempts
        self._now = now
        self._refused: list[tuple[Claim, str]] = []
        self._not_started = 0

    def apply(self, claim: Claim, answer: Answer) -> bool:
        """Apply the answer to the claimed bead. Return whether to go on with the next.

        Raises ServiceError if the answer is a fault of the service.
        """
        self._not_started = self._not_started + 1 if isinstance(answer, NotStarted) else 0
        go_on = self._apply(claim, answer)  # comes first: a running job must be recorded, whatever else fails
        if not isinstance(answer, Refused):
            self.charge_refused()
        return go_on

    def _apply(self, claim: Claim, answer: Answer) -> bool:
        match answer:
            case Started(job):
                self._record(claim, job)
            case AtCapacity(words):
                self._release(claim, BeadOutcome.busy, f"{words}; the bead is open again")
                return False
            case Refused():
                return self._refuse(claim, answer)
            case NotStarted(error):
                if not self._release(claim, BeadOutcome.unavailable, error, error=error, back_off=True):
                    return False
                if self._not_started == IN_A_ROW:
                    raise ServiceDown(f"{IN_A_ROW} beads in a row were not started: {error}")
            case Misconfigured(error, service, hint):
                again = bool(claim.bead.record.error)  # this bead may be the cause, so the others go before it
                if self._release(claim, BeadOutcome.misconfigured, error, error=error, back_off=again):
                    opened = f"; {claim.bead.id} is open again"
                    raise ServiceDrift(
                        f"{service} is misconfigured: {error}{'' if self.moved else opened}",
                        hint=hint,
                    )
                return False
            case Unknown(error):
                self._unknown(claim, error)
                return False
            case _:
                assert_never(answer)
        return True

    def too_late(self, claim: Claim, words: str) -> None:
        """Give a bead back that was claimed so long ago that a reaper may soon release it."""
        self._release(claim, BeadOutcome.released, words)

    def charge_refused(self) -> None:
        """End the refused beads that are held back: by now it is they that were refused, and not every bead."""

        def end(claim: Claim, error: str) -> None:
            if claim.attempts < self._max_attempts:
                self._release(claim, BeadOutcome.refused, error, error=error, charged=True, back_off=True)
            else:
                self._ended(claim, self._claims.quarantine(claim, error), BeadOutcome.quarantined, error)

        self._end_held(end)

    def is_exhausted(self, bead: Bead) -> bool:
        """Block a bead that has had all its attempts and was opened since, say by its agent. Return whether it had."""
        if bead.record.attempts < self._max_attempts:
            return False
        why = f"opened again after {bead.record.attempts} attempts"
        if self._dry_run:
            self.report(bead, BeadOutcome.kept, f"{why}: it would be quarantined")
        else:
            written = self._claims.exhaust(bead, why)
            self.report(bead, BeadOutcome.quarantined if written else BeadOutcome.lost, why)
        return True

    def _record(self, claim: Claim, job: str) -> None:
        try:
            if self._claims.record(claim, job):
                self.report(claim, BeadOutcome.dispatched, job=job)
                return
            if not self._claims.mark_unclaimed(claim, job):
                words = f"was deleted; its job {job} runs on, and its end will be in the log"
                self.report(claim, BeadOutcome.failed, words, job)
                raise PartlyDone(f"{claim.bead.id} {words}", hint="tell the agent to close its bead, not delete it")
            problem: BdError = BdFailed("its claim is gone: bd, or somebody, has undone it")
        except BdError as error:
            problem = error
        words = f"runs as job {job}, which could not be recorded: {problem}"
        self.report(claim, BeadOutcome.failed, words, job)
        raise type(problem)(f"{claim.bead.id} {words}") from None

    def _refuse(self, claim: Claim, refusal: Refused) -> bool:
        error = refusal.error
        if refusal.unseen and abs(self._now() - claim.bead.created_at) < EXPORT_DELAY:
            words = f"not visible to {refusal.service} yet: {error}"
            return self._release(claim, BeadOutcome.not_visible, words, error=words, again=NOT_VISIBLE_RETRY)
        self._refused.append((claim, error))
        if len(self._refused) == IN_A_ROW:
            self._misdirected(refusal)
        return True

    def _misdirected(self, refusal: Refused) -> None:
        """Release the beads refused in a row without a charge: the service seems to refuse every bead.

        They back off: if it is these beads after all, the next cycle goes on with others.
        """
        self._end_held(
            lambda claim, error: self._release(claim, BeadOutcome.misconfigured, error, error=error, back_off=True)
        )
        raise ServiceDrift(
            f"{refusal.service} refused {IN_A_ROW} beads in a row ({refusal.error}); they wait and are not charged",
            hint=refusal.hint,
        )

    def _end_held(self, end: Callable[[Claim, str], object]) -> None:
        """End each of the refused beads. A failed write does not stop the others, but a bd that hangs does."""
        held, self._refused = self._refused, []
        failed: BdError | None = None
        for claim, refusal in held:
            try:
                with self.naming(claim):
                    if isinstance(failed, BdTimeout):
                        raise BdFailed(f"not tried, since bd failed before: {failed}")
                    end(claim, refusal)
            except BdError as error:
                failed = failed or error
        if failed:
            raise failed

    def _release(
        self,
        claim: Claim,
        outcome: BeadOutcome,
        detail: str,
        *,
        error: str = "",
        charged: bool = False,
        back_off: bool = False,
        again: timedelta | None = None,
    ) -> bool:
        """Open the bead again and report it. Return False if the agent has written on it, so that it may run."""
        ended = self._claims.release(claim, error=error, charged=charged, back_off=back_off, again=again)
        return self._ended(claim, ended, outcome, detail)

    def _ended(self, claim: Claim, ended: ReleaseResult, outcome: BeadOutcome, detail: str) -> bool:
        """Report what became of the claim. Return False if a job of it may run."""
        if ended is ReleaseResult.alive:
            self._unknown(claim, detail)
        elif ended is ReleaseResult.moved:
            self.report(claim, BeadOutcome.lost, f"it was changed meanwhile and is left as it is: {detail}")
        else:
            self.report(claim, outcome, detail)
        return ended is not ReleaseResult.alive

    def _unknown(self, claim: Claim, error: str) -> None:
        self.report(claim, BeadOutcome.unknown, error)
        self._claims.unknown(claim, error)
