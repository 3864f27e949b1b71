"""The sweeps of one lane: whether one is needed, and what it tells of jobs and agents."""

from datetime import timedelta

from bdauto.common.errors import AgentsDie, BdError
from bdauto.controllers.reaper import Reaper
from bdauto.domain.bead import BeadList
from bdauto.domain.outcome import Outcome, Report
from bdauto.loop.job_watch import JobWatch
from bdauto.loop.loop_context import Lane, LoopContext
from bdauto.loop.probation import Probation

SWEEP = timedelta(hours=1)
"""How often a lane is swept though no bead of it is known to be in progress."""


class LaneSweeps:
    """Sweeps a lane, and keeps what the next sweep needs."""

    def __init__(self, lane: Lane, context: LoopContext, jobs: JobWatch, probation: Probation) -> None:
        self.soon: float | None = None
        """Seconds until the next sweep should come, None for as usual."""
        self._lane = lane
        self._context = context
        self._jobs = jobs
        self._probation = probation
        self._nothing_to_reap: tuple[str | None, float] = (None, 0.0)

    def may_skip(self) -> bool:
        """Whether nothing was in progress in the last sweep, not long ago, and the tracker has not changed since."""
        revision, swept = self._nothing_to_reap
        lately = self._context.runtime.monotonic() - swept < SWEEP.total_seconds()
        return revision is not None and lately and self._context.watcher.now() == revision

    def sweep(self) -> Report:
        """Sweep once."""
        lane, context = self._lane, self._context
        revision, began = context.watcher.now(), context.runtime.monotonic()
        runner, checking = lane.agent if lane.agent().knows_jobs else None, lane.agent().checking
        report = Reaper(lane.bd, context.writer(), runner, lane.reap, context.runtime, self._jobs.reconciler).sweep()
        context.bd_used("reap", report.error)
        self._wait_for_life(report)
        empty = report.outcome is Outcome.idle and not report.beads and not report.unrecorded
        self._nothing_to_reap = (revision if empty and not checking else None, began)
        if runner and report.outcome is not Outcome.paused and not isinstance(report.error, AgentsDie):
            context.health.jobs(report.error)
        self.soon = self._jobs.swept(report, lane.agent())
        return report

    def _wait_for_life(self, report: Report) -> None:
        """Learn from a sweep which agents live. The beads that it did not find in progress are read for that."""
        unlisted, others = self._probation.unlisted(report), BeadList(())
        try:
            others = self._lane.bd.read(unlisted).result() if unlisted else others
        except BdError as error:
            self._context.bd_used("reap", error)
        self._probation.swept(report, others.beads)
