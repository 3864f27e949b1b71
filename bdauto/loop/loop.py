"""The long-running mode: dispatches and reaps in one process, by turns, until it is asked to stop."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from bdauto.bd import process
from bdauto.bd.change import Writer
from bdauto.common.clock import Runtime
from bdauto.common.log import about
from bdauto.domain.settings import RunSettings
from bdauto.loop.dependency_health import DependencyHealth
from bdauto.loop.job_watch import INTERVAL
from bdauto.loop.lane import LaneWorker
from bdauto.loop.lane_group import LaneGroup
from bdauto.loop.loop_context import Lane, LoopContext, ShowQueue, Turn
from bdauto.loop.shared_page import SharedPage
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

    `writer` and `watcher` are for the lanes that have none of their own. `writer` returns a new writer. It is called
    again after an outage of bd, because bd may have another version then.
    `counting` is True if somebody reads the metrics of the queue. `show_queue` gets the queue when it was
    counted.
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
        self._every = self.settings.dispatch_every.total_seconds()
        watchers = [lane.watcher or self.watcher for lane in self.lanes]
        self._watchers = [*dict.fromkeys(watchers)]
        self._pages: dict[tuple[int, str], SharedPage] = {}
        self._moved()
        self._contexts = [self._context(lane) for lane in self.lanes]
        self._workers = [LaneWorker(lane, context) for lane, context in zip(self.lanes, self._contexts, strict=True)]
        self._group = LaneGroup(self.lanes, self._contexts, self._workers, self.runtime)
        self._turns = [(turn, number) for number, worker in enumerate(self._workers) for turn in worker.turns]
        for lane in self.lanes:
            lane.bd.call_ended = self._call_ended

    def _context(self, lane: Lane) -> LoopContext:
        watcher = lane.watcher or self.watcher
        telemetry = self.telemetry.of(lane.bd.lane)
        telemetry.begin("dispatch", "reap", now=self.runtime.now())
        return LoopContext(
            self.settings,
            lane.writer or self.writer,
            self.runtime,
            self.stop,
            telemetry,
            watcher,
            DependencyHealth(telemetry, self.runtime, lambda: self._group.recovered(lane)),
            self._call_ended,
            self.counting,
            self.show_queue,
            self._pages.setdefault((id(watcher), lane.bd.assignee), SharedPage()),
            alone=len(self._watchers) == 1,
            slot_freed=lambda: self._group.slot_freed(),
            held=lambda: self._group.held(lane),
        )

    def run(self) -> None:
        """Work until a signal comes. A bead that is being changed is finished first."""
        while not self.stop.asked:
            turn, number = self._next_turn()
            if self._wait(turn.due):
                turn, number = self._next_turn()
                self._call_ended()
                with contextlib.suppress(Stopped), about(lane=self._name(number)):
                    began = self.runtime.monotonic()
                    turn.take()
                    self._group.back_off(number, began)
                    self._publish()
                process.reap_orphans()
        for context in self._contexts:
            context.notes.write(context.writer(), self.runtime, at_once=True)
        self.telemetry.publish()
        for watcher in self._watchers:
            watcher.close()

    def _name(self, number: int) -> str:
        return self.lanes[number].bd.lane if len(self.lanes) > 1 else ""

    def _next_turn(self) -> tuple[Turn, int]:
        """Return the turn that is taken next, with the number of its lane: the one that is due first.

        If several lanes may dispatch, it is that of the lane that has not dispatched for the longest time.
        """
        now, first = self.runtime.monotonic(), min(self._turns, key=lambda turn: turn[0].due)
        ready = [(worker.dispatching, number) for number, worker in enumerate(self._workers)]
        if first not in ready or first[0].due > now:
            return first
        return min((turn for turn in ready if turn[0].due <= now), key=lambda turn: (turn[0].served, turn[0].due))

    def alive(self) -> bool:
        """Return True unless the loop is stalled. Other threads may call this."""
        return self.runtime.monotonic() <= self._alive_until

    def ready(self) -> bool:
        """Return True if bd, and what starts beads, answered when last asked. Other threads may call this."""
        return all(context.health.ready for context in self._contexts)

    def trouble(self) -> str:
        """Say in one line what did not answer when last asked. Other threads may call this."""
        return next((words for context in self._contexts if (words := context.health.trouble())), "")

    def next_look(self) -> float:
        """Return the seconds until the next turn is due. Other threads may call this."""
        return max(min(turn.due for turn, _ in self._turns) - self.runtime.monotonic(), 0.0)

    def known(self) -> str:
        """Say what is known of bd and the services, and how old that is. Other threads may call this."""
        return "".join(
            f"lane {self._name(number)}: {line}" if self._name(number) else line
            for number, context in enumerate(self._contexts)
            for line in context.health.describe().splitlines(keepends=True)
        )

    def _wait(self, until: float) -> bool:
        """Wait until a turn is due. Return False before that, on a signal or when another turn may be due earlier."""
        while not self.stop.asked:
            self._moved(sum(watcher.longest for watcher in self._watchers))
            now = self.runtime.monotonic()
            notes = min(context.notes.due for context in self._contexts)
            wait = min(until - now, notes - now, self._longest_wait())
            if now >= notes:
                self._write_notes(now)
            elif now >= until:
                return True
            elif any(worker.job_ended() for worker in self._workers) or self._watch(wait):
                return False
        return False

    def _write_notes(self, now: float) -> None:
        for context in self._contexts:
            if now >= context.notes.due:
                self._call_ended()
                context.notes.write(context.writer(), self.runtime)

    def _watch(self, seconds: float) -> bool:
        """Wait for so long, or until a tracker has changed. Then let those of its lanes look that have not seen it."""
        if len(self._watchers) == 1:
            changed = [watcher for watcher in self._watchers if watcher.wait(seconds)]
        else:
            wait = min(seconds, *(watcher.left for watcher in self._watchers))
            if wait > 0:
                self.stop.wait(wait)
            changed = [watcher for watcher in self._watchers if watcher.left <= 0 and watcher.wait(0)]
        now = self.runtime.monotonic()
        for lane, context, worker in zip(self.lanes, self._contexts, self._workers, strict=True):
            if context.watcher in changed and lane.bd.lane in context.watcher.behind:
                worker.changed(now)
        return bool(changed)

    def _longest_wait(self) -> float:
        """Return for how many seconds to wait at a time. The end of a job on this machine is seen soon."""
        return min(self._every, INTERVAL) if any(worker.follows_jobs for worker in self._workers) else self._every

    def _moved(self, longest: float = 0.0) -> None:
        """Note that the loop is not stalled. The next time may be three intervals or three long calls away."""
        self._alive_until = self.runtime.monotonic() + ALIVE_INTERVALS * max(self._every, longest)

    def _call_ended(self) -> None:
        """Note a sign of life within a turn. The threads that ask about jobs call this, too."""
        self._moved(max(worker.longest_call for worker in self._workers).total_seconds())

    def _publish(self) -> None:
        now = self.runtime.monotonic()
        if now - self._published >= PUBLISH.total_seconds():
            self._published = now
            self.telemetry.publish()
