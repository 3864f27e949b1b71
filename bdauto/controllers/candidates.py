"""Decides on one bead of the queue at a time, as the last level before its claim."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.bd.prefetch import too_old
from bdauto.common.clock import Runtime
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.earlier_jobs import EarlierJobs
from bdauto.controllers.gate import Gate, Step
from bdauto.controllers.hold import Hold
from bdauto.controllers.ready_queue import Queue
from bdauto.controllers.returned_beads import Kind, ReturnedBeads
from bdauto.controllers.unchecked_beads import UncheckedBeads
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import BeadOutcome
from bdauto.domain.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


@dataclass
class Candidates:
    """The eligible beads of one cycle. Every method may raise BdautoError."""

    bd: Bd
    writer: Writer
    runner: "Callable[[], Runner]"
    settings: DispatchSettings
    runtime: Runtime
    gate: Gate
    answers: AnswerHandler
    earlier_jobs: EarlierJobs
    held: Hold | None = field(default=None, init=False)
    """Why the cycle ends, if the gate holds a bead back that was read again."""

    def __post_init__(self) -> None:
        self._returned = ReturnedBeads(self.bd, self.runtime, self.settings.max_attempts)

    def claimable(self, queue: Queue, listed: Bead, looked: datetime | None) -> Bead | None:
        """Return the bead as it is to be claimed. None if it must not be, which has been reported.

        `looked` is when the queue was read. None: the bead is read again in any case.
        """
        if self.earlier_jobs.hold_back(listed, self.runner()):
            return None
        bead = self._judged_again(queue, listed, looked)
        if bead is None or (_names(bead) != _names(listed) and self.earlier_jobs.hold_back(bead, self.runner())):
            return None
        bead = self._settled(queue, bead)
        if bead is None or self.answers.is_exhausted(bead):
            return None
        bead = self._checked(queue, bead)
        if bead is None:
            return None
        bead = self._returned.answered(bead)
        if problem := self.runner().problem_with(bead):
            self.answers.report(bead, BeadOutcome.unavailable, f"it was not claimed: {problem}")
            return None
        return bead

    def _judged_again(self, queue: Queue, bead: Bead, looked: datetime | None) -> Bead | None:
        """Return the bead as a recent read shows it. None if it is no longer eligible, or a limit is reached.

        The queue may have been read some time ago: slow questions, or the POST of another bead, lie in between.
        """
        if looked and not too_old(looked, self.runtime.now()):
            return bead
        self.gate.prefetch(Step.claim)
        read = queue.read_again(bead, self.runtime.now)
        read.start()
        self.held = self.gate.hold(Step.claim)
        return None if self.held else queue.judged_again(bead, read.result())

    def _settled(self, queue: Queue, bead: Bead) -> Bead | None:
        """End the claim of a bead that was opened since. Return it as it is then, None if it must wait.

        A sweep ends most such claims. This is for a bead that is ready before the end of its job is recorded.
        """
        returned = None if self.settings.dry_run else self._returned.look(bead)
        if returned is None or (returned.kind is Kind.agent and bead.record.attempts >= self.settings.max_attempts):
            return bead
        change = self._returned.change(bead, returned, self.gate.switch.expected or {})
        [written] = self.writer.apply([change])
        if returned.kind is Kind.agent or not written:
            self.answers.pass_over(bead, f"{returned.words}: it waits" if written else "it changed since it was read")
            return None
        return queue.judged_anew(bead)

    def _checked(self, queue: Queue, bead: Bead) -> Bead | None:
        """Open what its agents have closed before it was checked. Return None if the bead waits for that.

        This is the last look before the claim, so that no dependent starts.
        """
        store = self.gate.switch.expected or {}
        unchecked = UncheckedBeads(self.bd, self.writer, self.runtime, self.answers.naming, store)
        due, opened = unchecked.in_the_way(bead, self.runner())
        for one, words in opened:
            self.answers.report(one, BeadOutcome.reverted, words, one.record.job)
        if due:
            self.answers.pass_over(bead, f"it waits for the check of {', '.join(due)}")
            return None
        return queue.judged_anew(bead) if opened else bead


def _names(bead: Bead) -> tuple[str, ...]:
    """Return what finds the jobs that may run on a bead."""
    return (bead.record.attempt, *bead.named_jobs)
