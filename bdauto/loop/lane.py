"""What a loop does for one lane, and what it keeps of it between its turns."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bdauto.agents.runner_status import RunnerStatus
from bdauto.bd.command import PAGE
from bdauto.common.errors import AgentsDie, BdError
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate, Known
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.bead import BeadList
from bdauto.domain.outcome import Outcome, Report
from bdauto.loop.job_watch import JobWatch
from bdauto.loop.lane_sweeps import LaneSweeps
from bdauto.loop.lane_telemetry import LaneTelemetry
from bdauto.loop.loop_context import Lane, LoopContext, Turn
from bdauto.loop.pause_monitor import PauseMonitor
from bdauto.loop.polling import PollSchedule, at_rest
from bdauto.loop.probation import Probation
from bdauto.loop.starvation import dispatched

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner
    from bdauto.agents.runner_status import Capacity


class LaneWorker:
    """Does the cycles and sweeps of one lane, by turns."""

    def __init__(self, lane: Lane, context: LoopContext) -> None:
        runtime, now = context.runtime, context.runtime.monotonic()
        self.dispatching, self.reaping = Turn(self._dispatch, now), Turn(self._reap, now)
        self.schedule = PollSchedule(context.settings, runtime.rng)
        self._lane = lane
        self._context = context
        self._every = context.settings.dispatch_every.total_seconds()
        self._started_jobs = StartedJobs()
        self._probation = Probation(lane.dispatch.trip_after)
        self._pauses = PauseMonitor(lane.bd, runtime.now, lane.dispatch, context.telemetry, self.schedule.reset)
        self._telemetry = LaneTelemetry(lane, context, self._pauses)
        self._jobs = JobWatch(lane, context, self._pauses)
        self._sweeps = LaneSweeps(lane, context, self._jobs, self._probation)
        self._runner: Runner | None = None
        self._capacity: Capacity | None = None
        self._resting = False
        self._next_at: datetime | None = None
        self._looked = datetime.min.replace(tzinfo=UTC)
        self._freed = False

    @property
    def resting(self) -> bool:
        """Whether the last cycle has found nothing to do."""
        return self._resting

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What this lane does by turns. Of two that are due at once, the first is taken."""
        return self.dispatching, self.reaping

    @property
    def longest_call(self) -> timedelta:
        """How long one call of bd or of the runner may take."""
        return max(self._lane.bd.settings.bd_timeout, self._runner.longest_call if self._runner else timedelta())

    def changed(self, now: float) -> None:
        """Look at the tracker soon, because it has changed: that may also be the sign of life that is waited for."""
        at = now + self.schedule.after_change(now)
        self.dispatching.by(at)
        if self._probation.holds(now):
            self.reaping.by(at)

    @property
    def follows_jobs(self) -> bool:
        """Whether a job of this lane is known to run on this machine."""
        return self._jobs.on_this_machine

    def job_ended(self) -> bool:
        """Return whether a job has ended on this machine since the last look. Then a sweep is due."""
        if self._runner is None or not self._jobs.ended(self._runner):
            return False
        self._freed = True
        self.reaping.by(self._context.runtime.monotonic())
        return True

    def _failed_start(self, command: str, dry_run: bool) -> Report | None:
        """Open the runner if it is not open yet. Return a failed report if bd cannot name the tracker."""
        if self._runner:
            return None
        try:
            self._runner = self._lane.agent()
        except BdError as error:
            self._context.bd_used(command, error)
            return Report(command, Outcome.failed, dry_run, error=error)
        self._runner.call_ended = self._context.call_ended
        self._context.call_ended()
        return None

    # Dispatching

    def _dispatch(self) -> None:
        runtime, started = self._context.runtime, self._context.runtime.monotonic()
        with self._context.stop.interruptible():
            report = self._failed_start("dispatch", self._lane.dispatch.dry_run) or self._cycle()
        self._telemetry.note(report, runtime.monotonic() - started)
        self.dispatching.due = runtime.monotonic() + min(self._delay(report), self._jobs.next_look)
        self._telemetry.refresh(report)

    def _cycle(self) -> Report:
        """Dispatch once.

        While there is nothing to do and changes are noticed, bd is asked first, and the services only if bd has a bead
        for them. Else the services are asked first: busy, they cost no process of bd, and down, no bead is touched.
        """
        lane, context, runtime = self._lane, self._context, self._context.runtime
        since, self._next_at = max(self._looked, self._next_at or self._looked), None
        revision = context.watcher.seen(lane.bd.lane)
        if (error := self._look_at_jobs()) and not context.alone:
            return Report("dispatch", Outcome.failed, lane.dispatch.dry_run, error=error)
        known = Known(
            stopping=lambda: context.stop.asked,
            waiting_for_life=self._waiting_for_life,
            posts_fail=lambda: context.health.posts_fail,
            polled=lambda: not (self._resting and context.watcher.works),
            asked=self._services,
        )
        gate = Gate(lane.bd, lane.agent, lane.dispatch, runtime.now, known, self._pauses)
        dispatcher = Dispatcher(
            *(lane.bd, context.writer(), lane.agent, lane.dispatch, runtime, gate, self._started_jobs, context.notes),
            first_page=lambda: self._first_page(revision, since),
        )
        report = dispatcher.cycle()
        self._next_at = dispatcher.next_at
        if dispatcher.queue_read or isinstance(report.error, BdError):
            context.bd_used("dispatch", report.error)
        context.health.posts(report)
        self._probation.dispatched(report, runtime.monotonic(), trial=self._pauses.half_open)
        self._jobs.dispatched(report, lane.agent())
        if dispatched(report):
            self.dispatching.served = runtime.monotonic()
        if report.outcome in (Outcome.suspended, Outcome.limited) or isinstance(report.error, AgentsDie):
            context.held()
        return report

    def _first_page(self, revision: str | None, since: datetime) -> tuple[BeadList, datetime]:
        """Read the first page, or take one that another lane has read after `since`, when this lane looked last."""
        now, bd = self._context.runtime.now(), self._lane.bd
        page, self._looked = self._context.pages.read(lambda: bd.ready(limit=PAGE).result(), revision, now, since)
        return page, self._looked

    def _look_at_jobs(self) -> BdError | None:
        try:
            if self._jobs.look(self._lane.agent()):
                self.reaping.by(self._context.runtime.monotonic())
        except BdError as error:
            self._context.bd_used("jobs", error)
            return error
        self._context.bd_used("jobs", None)
        return None

    def _waiting_for_life(self) -> str:
        """Return which agents are waited for, or "". Then a sweep comes soon, which sees their signs of life."""
        now = self._context.runtime.monotonic()
        if not self._probation.holds(now):
            return ""
        self.reaping.by(now + self._every)
        return self._probation.describe()

    def _services(self, status: RunnerStatus) -> None:
        self._context.health.services(status)
        self._capacity = status.capacity

    def _delay(self, report: Report) -> float:
        health, now = self._context.health, self._context.runtime.now()
        self._resting = at_rest(report) and not health.down
        if self._resting and self._context.watcher.works:
            return self.schedule.quiet((self._next_at - now).total_seconds() if self._next_at else float("inf"))
        return self.schedule.after_dispatch(report, self._capacity, health.down, health.posts_fail)

    # Reaping

    def _reap(self) -> None:
        runtime, started = self._context.runtime, self._context.runtime.monotonic()
        if self._sweeps.may_skip():
            report = Report("reap", Outcome.idle, self._lane.reap.dry_run)
            self._telemetry.swept(report)
            self.reaping.due = started + self.schedule.after_reap(report)
            return
        with self._context.stop.interruptible():
            report = self._failed_start("reap", self._lane.reap.dry_run) or self._sweeps.sweep()
        self._telemetry.note(report, runtime.monotonic() - started)
        usual = self.schedule.after_reap(report)
        self.reaping.due = runtime.monotonic() + min(usual, usual if self._sweeps.soon is None else self._sweeps.soon)
        if self._freed:  # a slot is free
            self._freed = False
            self.dispatching.by(runtime.monotonic())
            self._context.slot_freed()
        self.dispatching.by(runtime.monotonic() + self._jobs.next_look)
        self._telemetry.refresh(report)
