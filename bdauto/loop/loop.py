"""The long-running mode: both jobs in one process, one at a time, until it is asked to stop."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from bdauto import log
from bdauto.agents.runner_status import RunnerStatus
from bdauto.bd import process
from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.clock import Runtime
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate, Known
from bdauto.controllers.late_notes import LateNotes
from bdauto.controllers.reaper import Reaper
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.diagnostics.snapshot import gather_queue
from bdauto.domain.bead import BeadList
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.settings import DispatchSettings, ReapSettings, RunSettings
from bdauto.errors import AgentsDie, BdautoError, BdError, ServiceError
from bdauto.loop.dependency_health import DependencyHealth
from bdauto.loop.outages import Outages, RateLimitedWarnings
from bdauto.loop.pause_monitor import PauseMonitor
from bdauto.loop.polling import PollSchedule, at_rest
from bdauto.loop.probation import Probation
from bdauto.loop.shutdown import ShieldedWriter, Stop, Stopped
from bdauto.loop.starvation import INTERVALS, StarvationDetector
from bdauto.loop.watcher import Watcher
from bdauto.telemetry.families import LAST_SUCCESS, STARVED
from bdauto.telemetry.recorder import Telemetry

if TYPE_CHECKING:
    from bdauto.agents.capacity import Capacity
    from bdauto.agents.runner import Runner

REFRESH = timedelta(minutes=1)
"""How often the loop reads the pause switch and the whole queue if no bead makes it necessary."""
SWEEP = timedelta(hours=1)
"""How often the loop sweeps though it knows of no bead in progress."""
PUBLISH = timedelta(seconds=15)
"""How often the metrics are written or pushed: as often as scrapers usually read them."""

Job = Literal["dispatch", "reap"]


@dataclass(frozen=True)
class Jobs:
    """The settings of the loop and of its two jobs. `counting` is True if somebody reads the queue's metrics."""

    run: RunSettings
    dispatch: DispatchSettings
    reap: ReapSettings
    counting: bool = False


@dataclass
class Loop:
    """Dispatches and reaps by turns. An outage does not end it: it waits, warns now and then, and goes on.

    `writer` returns a new writer. It is called again after an outage of bd, because bd may have another version then.
    """

    bd: Bd
    writer: Callable[[], Writer]
    runner: "Callable[[], Runner]"
    jobs: Jobs
    runtime: Runtime
    stop: Stop
    telemetry: Telemetry
    watcher: Watcher
    _due: dict[Job, float] = field(default_factory=dict, init=False)
    _alive_until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Begin with both jobs due."""
        self._every = self.jobs.run.dispatch_every.total_seconds()
        self._starved = self._limited = False
        self.telemetry.begin("dispatch", "reap", now=self.runtime.now())
        self._writer: Writer | None = None
        self._capacity: Capacity | None = None
        self._started_jobs, self._notes = StartedJobs(), LateNotes()
        self._probation = Probation(self.jobs.dispatch.trip_after)
        self._schedule = PollSchedule(self.jobs.run, self.runtime.rng)
        self._pauses = PauseMonitor(self.bd, self.runtime.now, self.jobs.dispatch, self.telemetry, self._schedule.reset)
        self._warnings = RateLimitedWarnings(self.runtime.monotonic)
        outages = Outages(self.runtime.monotonic, self.telemetry.tell)
        self._health = DependencyHealth(self.telemetry, outages, self.runtime.now, self._schedule.reset)
        self._starvation = StarvationDetector(self.jobs.run)
        self._resting = False
        self._next_at: datetime | None = None
        self._found: Runner | None = None
        self._nothing_to_reap: tuple[str | None, float] = (None, 0.0)
        self._refreshed = self._published = float("-inf")
        self._refreshed_at: str | None = None
        now = self.runtime.monotonic()
        self._due = {"dispatch": now, "reap": now}
        self._moved()
        self.bd.call_ended = self._call_ended

    def run(self) -> None:
        """Work until a signal comes. A bead that is being changed is finished first."""
        while not self.stop.asked:
            job = min(self._due, key=lambda job: self._due[job])
            if self._wait(self._due[job]):
                self._turn(job)
                process.reap_orphans()
        self._notes.write(self._writing(), self.runtime, at_once=True)
        self.telemetry.publish()
        self.watcher.close()

    def alive(self) -> bool:
        """Return True unless the loop is stalled. Other threads may call this."""
        return self.runtime.monotonic() <= self._alive_until

    def ready(self) -> bool:
        """Return True if bd, and what starts beads, answered when last asked. Other threads may call this."""
        return self._health.ready

    def known(self) -> str:
        """Say what is known of bd and the services, and how old that is. Other threads may call this."""
        return self._health.describe()

    def _wait(self, until: float) -> bool:
        """Wait until a job is due. Return False before that, on a signal or when another job may be due earlier."""
        while not self.stop.asked:
            self._moved(self.watcher.longest)
            now = self.runtime.monotonic()
            if now >= self._notes.due:
                self._moved(self._longest_call())
                self._notes.write(self._writing(), self.runtime)
            elif now >= until:
                return True
            elif self.watcher.wait(min(until - now, self._notes.due - now, self._every)):
                self._changed()
                return False
        return False

    def _changed(self) -> None:
        """Look at the tracker soon, because it has changed: that may also be the sign of life that is waited for."""
        now = self.runtime.monotonic()
        at = now + self._schedule.after_change(now)
        jobs: tuple[Job, ...] = ("dispatch", "reap") if self._probation.holds(now) else ("dispatch",)
        for job in jobs:
            self._due[job] = min(self._due[job], at)

    def _moved(self, longest: float = 0.0) -> None:
        """Note that the loop is not stalled. The next time may be three intervals or three long calls away."""
        self._alive_until = self.runtime.monotonic() + INTERVALS * max(self._every, longest)

    def _call_ended(self) -> None:
        """Note a sign of life within a cycle or sweep. The threads that ask about jobs call this, too."""
        self._moved(self._longest_call())

    def _turn(self, job: Job) -> None:
        started = self.runtime.monotonic()
        self._call_ended()
        if job == "reap" and self._may_skip_sweep():
            report = Report("reap", Outcome.idle, self.jobs.reap.dry_run)
            if not report.dry_run:
                self.telemetry.set(LAST_SUCCESS, self.runtime.now().timestamp(), command="reap")
            self._due[job] = started + self._schedule.after_reap(report)
            return
        try:
            with self.stop.interruptible():
                report = self._failed_start(job) or (self._sweep() if job == "reap" else self._cycle())
        except Stopped:
            return
        self._note(report, self.runtime.monotonic() - started)
        self._due[job] = self.runtime.monotonic() + self._delay(report)
        self._refresh(report)
        self._publish()

    def _failed_start(self, job: Job) -> Report | None:
        """Open the runner if it is not open yet. Return a failed report if bd cannot name the tracker."""
        if self._found:
            return None
        try:
            self._found = self.runner()
        except BdError as error:
            self._bd(job, error)
            dry_run = self.jobs.reap.dry_run if job == "reap" else self.jobs.dispatch.dry_run
            return Report(job, Outcome.failed, dry_run, error=error)
        self._found.call_ended = self._call_ended
        self._call_ended()
        return None

    def _delay(self, report: Report) -> float:
        if report.command == "reap":
            return self._schedule.after_reap(report)
        self._resting = at_rest(report) and not self._health.down
        if self._resting and self.watcher.works:
            return self._schedule.quiet(self._timer())
        return self._schedule.after_dispatch(report, self._capacity, self._health.down, self._health.posts_fail)

    def _timer(self) -> float:
        """Return the seconds until time alone, as far as is known, makes it worth looking again."""
        return (self._next_at - self.runtime.now()).total_seconds() if self._next_at else float("inf")

    def _longest_call(self) -> float:
        timeouts = (self.bd.settings.bd_timeout, self._found.longest_call if self._found else timedelta())
        return max(timeouts).total_seconds()

    # The two jobs

    def _cycle(self) -> Report:
        """Ask what runs the agent first: busy, it costs no process of bd, and down, it leaves the beads alone.

        While there is nothing to do it is bd that is asked, and the services only if bd has a bead for them.
        """
        self._next_at = None
        self.watcher.seen()
        known = Known(
            stopping=lambda: self.stop.asked,
            waiting_for_life=self._waiting_for_life,
            posts_fail=lambda: self._health.posts_fail,
            polled=lambda: not (self._resting and self.watcher.works) or self._timer() <= 0,
            asked=self._services,
        )
        settings = self.jobs.dispatch
        gate = Gate(self.bd, self.runner, settings, self.runtime.now, known, self._pauses)
        dispatcher = Dispatcher(
            self.bd, self._writing(), self.runner, settings, self.runtime, gate, self._started_jobs, self._notes
        )
        report = dispatcher.cycle()
        self._next_at = dispatcher.next_at
        if dispatcher.queue_read or isinstance(report.error, BdError):
            self._bd("dispatch", report.error)
        self._health.posts(report)
        self._probation.dispatched(report, self.runtime.monotonic(), trial=self._pauses.half_open)
        return report

    def _waiting_for_life(self) -> str:
        """Return which agents are waited for, or "". Then a sweep comes soon, which sees their signs of life."""
        now = self.runtime.monotonic()
        if not self._probation.holds(now):
            return ""
        self._due["reap"] = min(self._due["reap"], now + self._every)
        return self._probation.describe()

    def _services(self, status: RunnerStatus) -> None:
        self._health.services(status)
        self._capacity = status.capacity

    def _may_skip_sweep(self) -> bool:
        """Whether nothing was in progress in the last sweep, not long ago, and the tracker has not changed since."""
        revision, swept = self._nothing_to_reap
        lately = self.runtime.monotonic() - swept < SWEEP.total_seconds()
        return revision is not None and lately and self.watcher.now() == revision

    def _sweep(self) -> Report:
        revision, began = self.watcher.now(), self.runtime.monotonic()
        runner = self.runner if self.runner().knows_jobs else None
        checking = self.runner().checking
        settings = self.jobs.reap
        report = Reaper(self.bd, self._writing(), runner, settings, self.runtime).sweep()
        self._bd("reap", report.error)
        self._wait_for_life(report)
        empty = report.outcome is Outcome.idle and not report.beads and not report.unrecorded
        self._nothing_to_reap = (revision if empty and not checking else None, began)
        if runner and report.outcome is not Outcome.paused and not isinstance(report.error, AgentsDie):
            self._health.jobs(report.error)
        return report

    def _wait_for_life(self, report: Report) -> None:
        """Learn from a sweep which agents live. The beads that it did not find in progress are read for that."""
        unlisted, others = self._probation.unlisted(report), BeadList(())
        try:
            others = self.bd.read(unlisted).result() if unlisted else others
        except BdError as error:
            self._bd("reap", error)
        self._probation.swept(report, others.beads)

    def _bd(self, user: str, error: BdautoError | None) -> None:
        self._health.bd(user, error)
        if isinstance(error, BdError):
            self._writer = None  # a bd that comes back may be another version

    def _writing(self) -> Writer:
        if self._writer is None:
            self._writer = self.writer()
        return ShieldedWriter(self._writer, self.stop.enter_critical_section)

    # What is told

    def _note(self, report: Report, seconds: float) -> None:
        self.telemetry.report(report, seconds, self.runtime.now())
        if report.command == "dispatch":
            self._starve(report)
            limited, self._limited = self._limited, report.outcome is Outcome.limited
            if self._limited and not limited:
                log.event("limited", detail=report.detail)
        counts: dict[str, int] = {}
        for bead in report.beads:
            counts[bead.outcome] = counts.get(bead.outcome, 0) + 1
        told = report.error is None or isinstance(report.error, BdError | ServiceError)  # outages speak for themselves
        log.event(
            "cycle",
            logging.INFO if report.beads else logging.DEBUG,
            command=report.command,
            outcome=report.outcome,
            **counts,
            seconds=seconds,
            detail=report.detail,
        )
        if not told:
            self._warnings.say(report.command, str(report.error))

    def _starve(self, report: Report) -> None:
        now = self.runtime.monotonic()
        before, self._starved = self._starved, self._starvation.after(report, now)
        if self._starved and not before:
            log.error("starved", seconds=self._starvation.seconds(now), detail=str(report.error or ""))
            self.telemetry.tell("starved", "work is eligible and there is room, but nothing is dispatched")
        self.telemetry.set(STARVED, self._starved)

    def _refresh(self, report: Report) -> None:
        """Look at the switch and count the queue: once a minute, and when an idle cycle contradicts the last count.

        Where the tracker is watched, that waits until it has changed, or a sweep has found beads in progress.
        """
        now, doubts = self.runtime.monotonic(), self._starvation.doubts(report)
        if self._health.bd_fails or self.stop.asked or (now - self._refreshed < REFRESH.total_seconds() and not doubts):
            return
        revision = self.watcher.now()
        aged = doubts or (report.command == "reap" and report.beads)
        if revision is not None and revision == self._refreshed_at and not aged:
            return
        self._refreshed, self._refreshed_at = now, revision
        try:
            with self.stop.interruptible():
                self._pauses.hold()
                if self.jobs.counting:
                    self._count()
        except Stopped:
            return
        except BdError as error:
            self._health.bd("refresh", error)
        else:
            self._health.bd("refresh", None)

    def _count(self) -> None:
        """Count the queue; raises BdError."""
        found = gather_queue(self.bd, self.runner(), self.jobs.dispatch, self.jobs.reap, self.runtime.now())
        self._starvation.eligible = found.eligible
        self.telemetry.queue(found.counts, found.oldest)

    def _publish(self) -> None:
        now = self.runtime.monotonic()
        if now - self._published >= PUBLISH.total_seconds():
            self._published = now
            self.telemetry.publish()
