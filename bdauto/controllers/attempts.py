"""Takes one bead at a time: the claim, the POST, and what its answer does to the bead."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bdauto.agents.answers import Answer, Started, Unknown
from bdauto.bd.change import LookBack, Writer, apply_each
from bdauto.bd.client import Bd
from bdauto.bd.prefetch import MAX_AGE
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import AgentsDie, BdConflict, BdError, BdFailed
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.breaker_store import BreakerStore
from bdauto.controllers.claim_writes import Claim
from bdauto.controllers.claims import Claims
from bdauto.controllers.gate import Gate, Step
from bdauto.controllers.hold import Hold
from bdauto.controllers.started_jobs import StartedJob, StartedJobs
from bdauto.domain.bead import Bead
from bdauto.domain.constants import IN_A_ROW
from bdauto.domain.outcome import BeadOutcome, Outcome
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.values import format_age

if TYPE_CHECKING:
    from bdauto.agents.runner import Place, Runner

CLAIM_TRIES = 3
"""How often a claim is tried in all, if a change of the breaker may have prevented it."""


@dataclass
class Attempts:
    """The attempts of one cycle. Every method may raise BdautoError."""

    bd: Bd
    writer: Writer
    runner: "Callable[[], Runner]"
    settings: DispatchSettings
    runtime: Runtime
    gate: Gate
    claims: Claims
    answers: AnswerHandler
    started_jobs: StartedJobs
    held: Hold | None = field(default=None, init=False)
    """Why the cycle ends, if a claim or a POST was held back."""
    tripped: AgentsDie | None = field(default=None, init=False)
    """The error if an attempt has opened the circuit breaker."""
    waits: list[float] = field(default_factory=list, init=False)
    """For each bead that was posted, how many seconds it was eligible before."""
    _claims_failed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._breaker = BreakerStore(self.bd, self.writer, self.runtime)

    def take(self, bead: Bead, ahead: Callable[[], None]) -> bool:
        """Claim and post a bead. Return whether to go on with the next.

        While the breaker is half open, only the dispatcher that takes its one place does. `ahead` is called before the
        answer is recorded, to start the reads that decide on the next bead.
        """
        attempt, trial = self.runtime.unique(), self.gate.switch.half_open
        if trial and not self.settings.dry_run and not self._breaker.take_trial(attempt, bead.id):
            words = f"{bead.id} is passed over: another bead tries whether the agent works again"
            self.held = Hold(Outcome.suspended, words)
            return False
        try:
            return self._attempt(bead, attempt, ahead)
        finally:
            if trial and not self.answers.may_run(attempt):
                self._breaker.return_trial(attempt)

    def _attempt(self, bead: Bead, attempt: str, ahead: Callable[[], None]) -> bool:
        since, at = self.runtime.monotonic(), self.runtime.now()
        claim = self._claim(bead, attempt)
        if claim is None:
            return self.held is None
        if self._taken(since, at) > MAX_AGE / 2:  # the start may wait for a lock as long again
            self.held = self._hold(attempt)
        taken = self._taken(since, at)  # the last check before the POST: `hold` may be slow
        if taken > self.settings.grace / 2:
            self.answers.too_late(claim, f"its claim took {format_age(taken)}, a reaper may release it: not posted")
            return self.held is None
        if self.held:
            self.answers.too_late(claim, f"{self.held.detail or 'asked to stop'}: not posted")
            return False
        waited = at + taken - self.started_jobs.eligible_since(bead)
        self.waits.append(max(waited.total_seconds(), 0.0))
        answer = self._start(claim)
        log.debug("answered", bead=bead.id, attempt=claim.attempt, answer=type(answer).__name__)
        if isinstance(answer, Started):
            self.started_jobs.started(bead.id, StartedJob(claim.attempt, claim.attempts, answer.job))
        ahead()
        go_on = self.answers.apply(claim, answer)
        if isinstance(answer, Unknown) and self.settings.trip_after:
            self._count_unknown(claim, answer.error)
        return go_on

    def _taken(self, since: float, at: datetime) -> timedelta:
        """Return the time since then: the larger of what the monotonic clock and the wall clock of this host say."""
        return max(timedelta(seconds=self.runtime.monotonic() - since), self.runtime.now() - at)

    def _claim(self, bead: Bead, attempt: str) -> Claim | None:
        """Claim a bead. If the switch or the breaker prevents it, `held` is set and the report has no entry."""
        for _ in range(CLAIM_TRIES):
            expected = self.gate.switch.expected
            try:
                claim = self.claims.claim(bead, attempt, self._place(), expected)
            except (BdFailed, BdConflict) as error:
                self._claims_failed += 1
                if self._claims_failed == IN_A_ROW:
                    raise
                self.answers.report(bead, BeadOutcome.failed, str(error))
                return None
            self._claims_failed = 0
            if claim or not expected:
                break
            self.held = self._hold(attempt)
            if self.held or self.gate.switch.expected == expected:
                break
        if claim is None and self.held is None:
            self.answers.report(bead, BeadOutcome.lost, "it changed since it was read: somebody else has it")
        return claim

    def _hold(self, attempt: str) -> Hold | None:
        """Return the reason not to post, or None. That this very attempt is the breaker's trial is no reason."""
        hold = self.gate.hold(Step.post)
        return None if hold and hold.trial == attempt else hold

    def _place(self) -> "Place | None":
        """Return where the job of a claim will run. A dry run makes no jobs folder, so it names none."""
        return None if self.settings.dry_run else self.runner().place()

    def _start(self, claim: Claim) -> Answer:
        """Start the agent. In a dry run, only show what it would be asked."""
        if not self.settings.dry_run:
            return self.runner().start(claim.bead, claim.attempt)
        if prompt := self.runner().prompt(claim.bead, claim.attempt):
            log.debug("prompt", bead=claim.bead.id, prompt=log.Text(prompt))
        return Started("")

    def _count_unknown(self, claim: Claim, error: str) -> None:
        """Count a POST with an unknown outcome in the breaker, which gives charges back when it opens."""
        found, self.tripped = self._breaker.count_unknown(claim.bead.id, claim.attempt, error, self.settings.trip_after)
        charges = self._breaker.refunds(found)
        for change, result in zip(charges, apply_each(self.writer, charges, LookBack(self.bd.read)), strict=True):
            if isinstance(result, BdError):
                self.answers.report(change.bead, BeadOutcome.failed, f"{change.act}: {result}")
