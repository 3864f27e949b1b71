"""The long-running mode: dispatches and reaps in one process, by turns, until it is asked to stop."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from bdauto.bd import process
from bdauto.bd.change import Writer
from bdauto.clock import Runtime
from bdauto.domain.settings import RunSettings
from bdauto.loop.dependency_health import DependencyHealth
from bdauto.loop.job_watch import INTERVAL
from bdauto.loop.lane import LaneWorker
from bdauto.loop.loop_context import Lane, LoopContext, ShowQueue
from bdauto.loop.shutdown import Stop, Stopped
from bdauto.loop.watcher import Watcher
from bdauto.telemetry.recorder import Telemetry

ALIVE_INTERVALS = 3
"""The loop is stalled after this many intervals, or this many times the longest call, without a sign of life."""
PUBLISH = timedelta(seconds=15)
"""How often the metrics are pushed: as often as scrapers usually read them."""


@dataclass
class Loop:
    """Takes the turns of its lanes, one at a time. An outage does not end it: it waits, warns at times, and goes on.

    `writer` returns a new writer. It is called again after an outage of bd, because bd may have another version then.
    `counting` is True if somebody reads the metrics of the queue. `show_queue` gets the queue when it was counted.
    """

    lanes: Sequence[Lane]
    writer: Callable[[], Writer]
    settings: RunSettings
    runtime: Runtime
    stop: Stop
    telemetry: Telemetry
    watcher: Watcher
    counting: bool = False
    show_queue: "ShowQueue | None" = None
    _alive_until: float = field(default=0.0, init=False)
    _published: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        """Begin with all turns due."""
        self.telemetry.begin("dispatch", "reap", now=self.runtime.now())
        self._every = self.settings.dispatch_every.total_seconds()
        self._health = DependencyHealth(self.telemetry, self.runtime, self._recovered)
        self._context = LoopContext(
            self.settings,
            self.writer,
            self.runtime,
            self.stop,
            self.telemetry,
            self.watcher,
            self._health,
            self._call_ended,
            self.counting,
            self.show_queue,
        )
        self._notes = self._context.notes
        self._workers = [LaneWorker(lane, self._context) for lane in self.lanes]
        self._turns = [turn for worker in self._workers for turn in worker.turns]
        self._moved()
        for lane in self.lanes:
            lane.bd.call_ended = self._call_ended

    def run(self) -> None:
        """Work until a signal comes. A bead that is being changed is finished first."""
        while not self.stop.asked:
            turn = min(self._turns, key=lambda turn: turn.due)
            if self._wait(turn.due):
                self._call_ended()
                with contextlib.suppress(Stopped):
                    turn.take()
                    self._publish()
                process.reap_orphans()
        self._notes.write(self._context.writer(), self.runtime, at_once=True)
        self.telemetry.publish()
        self.watcher.close()

    def alive(self) -> bool:
        """Return True unless the loop is stalled. Other threads may call this."""
        return self.runtime.monotonic() <= self._alive_until

    def ready(self) -> bool:
        """Return True if bd, and what starts beads, answered when last asked. Other threads may call this."""
        return self._health.ready

    def trouble(self) -> str:
        """Say in one line what did not answer when last asked. Other threads may call this."""
        return self._health.trouble()

    def next_look(self) -> float:
        """Return the seconds until the next turn is due. Other threads may call this."""
        return max(min(turn.due for turn in self._turns) - self.runtime.monotonic(), 0.0)

    def known(self) -> str:
        """Say what is known of bd and the services, and how old that is. Other threads may call this."""
        return self._health.describe()

    def _wait(self, until: float) -> bool:
        """Wait until a turn is due. Return False before that, on a signal or when another turn may be due earlier."""
        while not self.stop.asked:
            self._moved(self.watcher.longest)
            now = self.runtime.monotonic()
            if now >= self._notes.due:
                self._call_ended()
                self._notes.write(self._context.writer(), self.runtime)
            elif now >= until:
                return True
            elif any(worker.job_ended() for worker in self._workers):
                return False
            elif self.watcher.wait(min(until - now, self._notes.due - now, self._longest_wait())):
                changed = self.runtime.monotonic()
                for worker in self._workers:
                    worker.changed(changed)
                return False
        return False

    def _longest_wait(self) -> float:
        """Return for how many seconds to wait at a time. The end of a job on this machine is seen soon."""
        return min(self._every, INTERVAL) if any(worker.follows_jobs for worker in self._workers) else self._every

    def _moved(self, longest: float = 0.0) -> None:
        """Note that the loop is not stalled. The next time may be three intervals or three long calls away."""
        self._alive_until = self.runtime.monotonic() + ALIVE_INTERVALS * max(self._every, longest)

    def _call_ended(self) -> None:
        """Note a sign of life within a turn. The threads that ask about jobs call this, too."""
        self._moved(max(worker.longest_call for worker in self._workers).total_seconds())

    def _recovered(self) -> None:
        """Return to the intervals after an outage."""
        for worker in self._workers:
            worker.schedule.reset()

    def _publish(self) -> None:
        now = self.runtime.monotonic()
        if now - self._published >= PUBLISH.total_seconds():
            self._published = now
            self.telemetry.publish()
