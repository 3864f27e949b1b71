"""What the lanes of one loop do to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from bdauto.common.clock import Runtime
from bdauto.loop.lane import LaneWorker
from bdauto.loop.loop_context import Lane, LoopContext

BACK_OFF = 9
"""How many times as long as a turn that failed its tracker is left alone, where there are others."""


@dataclass(frozen=True)
class LaneGroup:
    """The lanes of a loop, each with its context and its worker."""

    lanes: Sequence[Lane]
    contexts: Sequence[LoopContext]
    workers: Sequence[LaneWorker]
    runtime: Runtime

    def back_off(self, number: int, began: float) -> None:
        """After a turn that bd has failed, leave its tracker alone for a while, so that it does not hold up the others.

        Of its lanes, the one that failed tries it first. It waits nine times as long as the turn took, at least.
        """
        failed = self.contexts[number]
        if failed.alone or not failed.health.bd_fails:
            return
        now = self.runtime.monotonic()
        again = max(self.workers[number].dispatching.due, now + BACK_OFF * (now - began))
        for context, worker in zip(self.contexts, self.workers, strict=True):
            if context.watcher is failed.watcher:
                for turn in worker.turns:
                    turn.due = max(turn.due, again)

    def slot_freed(self) -> None:
        """Let each lane that waits for a slot look at once: they share what stands at the top of the file."""
        now = self.runtime.monotonic()
        for worker in self.workers:
            if not worker.resting:
                worker.dispatching.by(now)

    def held(self, lane: Lane) -> None:
        """Let the fallback of a lane that cannot dispatch look at once."""
        fallback = next((rule.fallback for rule in lane.bd.lanes.rules if rule.name == lane.bd.lane), "")
        for other, worker in zip(self.lanes, self.workers, strict=True):
            if fallback and other.bd.lane == fallback:
                worker.dispatching.by(self.runtime.monotonic())

    def recovered(self, lane: Lane) -> None:
        """Return to the intervals after an outage. Lanes of the same tracker have waited for its end, too."""
        now, own = self.runtime.monotonic(), self.contexts[self.lanes.index(lane)].watcher
        for other, context, worker in zip(self.lanes, self.contexts, self.workers, strict=True):
            if context.watcher is own:
                worker.schedule.reset()
                if other is not lane and not context.alone:
                    worker.dispatching.by(now)
