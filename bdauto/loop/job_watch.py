"""Follows the jobs of a lane: their ends wake the loop, and those whose beads others have changed are stopped."""

import contextlib
from typing import TYPE_CHECKING

from bdauto.common import log
from bdauto.common.errors import ServiceError
from bdauto.controllers.reconciler import Reconciler
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.loop.loop_context import Lane, LoopContext
from bdauto.loop.pause_monitor import PauseMonitor

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

INTERVAL = 0.5
"""Seconds between two looks whether a job of this machine has ended. A look costs a few system calls."""
SOONEST = 1.0
"""Seconds between two looks at jobs because of the time alone, at least."""
FIRST_ASK = 2.0
"""Seconds after which a job is asked about again whose agent has closed its bead and has not ended, and after which a
look that failed is repeated. It doubles."""


class JobWatch:
    """The jobs that run for a lane, as far as its process knows.

    Jobs on this machine are known by their ids. A service is not asked about jobs to find out whether one has ended:
    that a bead is no longer in progress tells it.
    """

    def __init__(self, lane: Lane, context: LoopContext, pauses: PauseMonitor) -> None:
        reap = lane.reap
        self.reconciler = Reconciler(lane.bd, lane.dispatch, reap.agent_linger, context.runtime, dry_run=reap.dry_run)
        self._lane = lane
        self._context = context
        self._pauses = pauses
        self._running: frozenset[str] = frozenset()
        self._in_progress: frozenset[str] = frozenset()
        self._seen: str | None = None
        self._ask = FIRST_ASK
        self._failures = 0

    @property
    def next_look(self) -> float:
        """In how many seconds the jobs are looked at again, whatever happens until then."""
        if self._failures:
            return min(FIRST_ASK * 2.0**self._failures, self._context.settings.dispatch_every.total_seconds())
        return max(self._due_in, SOONEST)

    @property
    def _due_in(self) -> float:
        due, now = self.reconciler.due, self._context.runtime.now()
        return (due - now).total_seconds() if due and self._running else float("inf")

    @property
    def on_this_machine(self) -> bool:
        """Whether a job is known to run on this machine."""
        return bool(self._running)

    def dispatched(self, report: Report, runner: "Runner") -> None:
        """Take note of the jobs that a cycle has started."""
        started = {bead.id for bead in report.beads if bead.outcome is BeadOutcome.dispatched and bead.job}
        if started:
            self._in_progress |= started
            self._find(runner)

    def swept(self, report: Report, runner: "Runner") -> float | None:
        """Take note of what a sweep has found. Return after how many seconds the next should come, None for as usual.

        A job whose agent has closed its bead ends soon. An agent that closed its bead while the sweep judged it has
        ended: the next sweep records that.
        """
        self._in_progress = frozenset(bead.id for bead in report.beads if bead.outcome is BeadOutcome.kept)
        self._find(runner)
        changed = any(bead.outcome is BeadOutcome.lost for bead in report.beads)
        if not changed and (not report.unrecorded or self._running or not runner.knows_jobs):
            self._ask = FIRST_ASK
            return None
        ask, self._ask = self._ask, 2 * self._ask
        return ask

    def _find(self, runner: "Runner") -> None:
        with contextlib.suppress(ServiceError):  # status names it
            self._running |= {one.job for one in runner.running_jobs()}  # an end that is not told yet stays

    def ended(self, runner: "Runner") -> bool:
        """Return whether a job that is known to run on this machine has ended. Each end is told once."""
        over = runner.ended(self._running)
        self._running -= over
        return bool(over)

    def look(self, runner: "Runner") -> bool:
        """Look at the beads of running jobs if the tracker has changed. Return whether a sweep should come at once.

        Jobs whose beads others have changed are asked to end. Raises BdError.
        """
        revision = self._context.watcher.now()
        if revision is not None and revision == self._seen and not self._failures and self._due_in > 0:
            return False
        self._failures = min(self._failures + 1, 30)
        left = self._left(runner)
        self._failures = 0
        self._seen = revision  # a look that failed is repeated
        return left

    def _left(self, runner: "Runner") -> bool:
        """Stop what must be stopped. Return whether a bead with a job of a service is no longer in progress."""
        if self._running:
            self._stop(runner)
            return False
        if not self._in_progress or not runner.knows_jobs:
            return False
        listed = {bead.id for bead in self._lane.bd.in_progress().result().beads}
        left, self._in_progress = self._in_progress - listed, self._in_progress & listed
        return bool(left)

    def _stop(self, runner: "Runner") -> None:
        self._pauses.prefetch()
        self._pauses.hold()
        paused = self._pauses.paused
        with contextlib.suppress(ServiceError):  # status names it
            for told in self.reconciler.look(runner, stop_all=paused.stops if paused else ""):
                log.event(told.outcome, told.outcome.level, bead=told.id, job=told.job, detail=told.detail)
