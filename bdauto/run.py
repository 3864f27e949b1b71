"""The long-running mode: both jobs in one process, one at a time, until it is asked to stop."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from bdauto import log, process
from bdauto.bd import Bd
from bdauto.census import Census
from bdauto.changes import Writer
from bdauto.dispatch import Dispatcher
from bdauto.errors import BdautoError, BdError, ServiceError
from bdauto.metrics import STARVED
from bdauto.outages import Complaints, Outages
from bdauto.outcome import Outcome, Report
from bdauto.pace import INTERVALS, Hunger, Pace
from bdauto.reap import Reaper
from bdauto.runtime import Runtime
from bdauto.settings import DispatchSettings, ReapSettings, RunSettings
from bdauto.stop import Stop, Stopped, TakingInHand
from bdauto.switch import Switch
from bdauto.vitals import Vitals
from bdauto.watch import Watch

if TYPE_CHECKING:
    from bdauto.beadboard import Capacity, Services

REFRESH = timedelta(minutes=1)
"""How often the pause switch and the whole queue are looked at when no bead makes it necessary."""
PUBLISH = timedelta(seconds=15)
"""How often the metrics are written to a file or pushed: as often as they are usually read."""

Job = Literal["dispatch", "reap"]


@dataclass(frozen=True)
class Jobs:
    """The settings of the loop and of its two jobs; `counting` says that somebody reads the queue's metrics."""

    run: RunSettings
    dispatch: DispatchSettings
    reap: ReapSettings
    counting: bool = False


@dataclass
class Loop:
    """Dispatches and reaps by turns. Nothing that is down ends it: it waits, says so now and then, and goes on.

    `writer` makes what changes beads; it is made anew after an outage of bd, which may be another version then.
    """

    bd: Bd
    writer: Callable[[], Writer]
    services: "Callable[[], Services]"
    jobs: Jobs
    runtime: Runtime
    stop: Stop
    watch: Watch
    _due: dict[Job, float] = field(default_factory=dict, init=False)
    _alive_until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Begin with both jobs due."""
        self._every = self.jobs.run.dispatch_every.total_seconds()
        self._metrics = self.watch.metrics
        self._metrics.set(STARVED, 0)
        self._writer: Writer | None = None
        self._capacity: Capacity | None = None
        self._asked = 0
        self._pace = Pace(self.jobs.run, self.runtime.rng)
        self._switch = Switch(self.bd, self.runtime.now, self._metrics, self._pace.reset)
        self._complaints = Complaints(self.runtime.monotonic)
        outages = Outages(self.runtime.monotonic, self.watch.tell)
        self._vitals = Vitals(self._metrics, outages, self._pace.reset)
        self._hunger = Hunger(self.jobs.run)
        self._refreshed = self._published = float("-inf")
        now = self.runtime.monotonic()
        self._due = {"dispatch": now, "reap": now}
        self._moved()

    def run(self) -> None:
        """Work until a signal comes; the bead in hand is finished."""
        while not self.stop.asked:
            job = min(self._due, key=lambda job: self._due[job])
            self._wait(self._due[job])
            if not self.stop.asked:
                self._turn(job)
                process.reap_orphans()
        self.watch.publish()

    def alive(self) -> bool:
        """Whether the loop moved lately; safe to ask from another thread."""
        return self.runtime.monotonic() <= self._alive_until

    def ready(self) -> bool:
        """Whether bd and BeadBoard answered when last asked; safe to ask from another thread."""
        return self._vitals.ready

    def _wait(self, until: float) -> None:
        while not self.stop.asked:
            self._moved()
            left = until - self.runtime.monotonic()
            if left <= 0:
                return
            self.stop.wait(min(left, self._every))

    def _moved(self, longest: float = 0.0) -> None:
        """Note that the loop moves; the next time may be three intervals away, or three of the longest calls."""
        self._alive_until = self.runtime.monotonic() + INTERVALS * max(self._every, longest)

    def _turn(self, job: Job) -> None:
        started = self.runtime.monotonic()
        self._moved(self._longest_call())
        try:
            with self.stop.interruptible():
                report = self._sweep() if job == "reap" else self._cycle()
        except Stopped:
            return
        self._note(report, self.runtime.monotonic() - started)
        self._due[job] = self.runtime.monotonic() + self._delay(report)
        self._refresh(report)
        self._publish()

    def _delay(self, report: Report) -> float:
        if report.command == "reap":
            return self._pace.after_reap(report)
        return self._pace.after_dispatch(report, self._capacity, self._vitals.down, self._vitals.posts_fail)

    def _longest_call(self) -> float:
        timeouts = (self.bd.settings.bd_timeout, self.services().settings.timeout)
        return max(timeout.total_seconds() for timeout in timeouts)

    # The two jobs

    def _cycle(self) -> Report:
        """Ask the services first: a busy one costs no process of bd, and one that is down leaves the beads alone."""
        dry_run = self.jobs.dispatch.dry_run
        self._switch.fresh, self._asked = False, 0
        try:
            capacity = self._capacity = self._vitals.probe(self.services())
            if capacity.free == 0:
                return Report("dispatch", Outcome.busy, dry_run, detail="the agent service is at capacity")
            if self._switch.on and self._switch.look():
                return self._paused_report()
        except BdautoError as error:
            if isinstance(error, BdError):
                self._bd("dispatch", error)
            return Report("dispatch", Outcome.failed, dry_run, error=error)
        settings = msgspec.structs.replace(
            self.jobs.dispatch, ignore_pause=True
        )  # looked at here, and only when a bead is eligible
        report = Dispatcher(self.bd, self._writing(), self.services, settings, self.runtime, self._enough).cycle()
        self._bd("dispatch", report.error)
        self._vitals.posts(report)
        return self._paused_report() if self._switch.on and not report.beads and not report.error else report

    def _sweep(self) -> Report:
        services = self.services if self.services().settings.agent_url else None
        settings = self.jobs.reap
        report = Reaper(self.bd, self._writing(), services, settings, self.runtime).sweep()
        self._bd("reap", report.error)
        return report

    def _bd(self, user: str, error: BdautoError | None) -> None:
        self._vitals.bd(user, error)
        if isinstance(error, BdError):
            self._writer = None  # a bd that comes back may be another version

    def _writing(self) -> Writer:
        if self._writer is None:
            self._writer = self.writer()
        return TakingInHand(self._writer, self.stop.take_in_hand)

    def _enough(self) -> bool:
        """Whether to take up no further bead: asked to stop, paused, or trying with one whether posts work again."""
        self._asked += 1
        if self.stop.asked or (self._asked > 1 and self._vitals.posts_fail):
            return True
        self._moved(self._longest_call())
        return not self.jobs.dispatch.ignore_pause and self._switch.known()

    def _paused_report(self) -> Report:
        return Report("dispatch", Outcome.paused, self.jobs.dispatch.dry_run, detail=self._switch.words)

    # What is told

    def _note(self, report: Report, seconds: float) -> None:
        self.watch.report(report, seconds, self.runtime.now())
        if report.command == "dispatch":
            self._starve(report)
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
            self._complaints.say(report.command, str(report.error))

    def _starve(self, report: Report) -> None:
        now = self.runtime.monotonic()
        starved = self._hunger.after(report, now)
        if starved and not self._metrics.get(STARVED):
            log.error("starved", seconds=self._hunger.seconds(now), detail=str(report.error or ""))
            self.watch.tell("starved", "work is eligible and there is room, but nothing is dispatched")
        self._metrics.set(STARVED, starved)

    def _refresh(self, report: Report) -> None:
        """Look at the switch and count the queue: once a minute, and when an idle cycle contradicts the last count."""
        now = self.runtime.monotonic()
        fresh = now - self._refreshed < REFRESH.total_seconds() and not self._hunger.doubts(report)
        if self._vitals.bd_fails or self.stop.asked or fresh:
            return
        self._refreshed = now
        try:
            with self.stop.interruptible():
                if not self.jobs.dispatch.ignore_pause:
                    self._switch.known()
                if self.jobs.counting:
                    census = Census(self.bd, self.services, self.jobs.dispatch, self.jobs.reap)
                    self._hunger.eligible = census.take(self._metrics, self.runtime.now())
        except Stopped:
            return
        except BdError as error:
            self._vitals.bd("refresh", error)
        else:
            self._vitals.bd("refresh", None)

    def _publish(self) -> None:
        now = self.runtime.monotonic()
        if now - self._published >= PUBLISH.total_seconds():
            self._published = now
            self.watch.publish()
