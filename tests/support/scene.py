"""A loop on a clock on which waiting takes no time, and all that is around it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from bdauto.bd.change import DryWriter, Writer
from bdauto.bd.running import RunningCommand
from bdauto.common.errors import BdFailed
from bdauto.domain.bead import BeadList
from bdauto.domain.settings import DispatchSettings, ReapSettings, RunSettings, Secret, TelemetrySettings, Watch
from bdauto.loop.loop import Loop
from bdauto.loop.loop_context import Lane
from bdauto.loop.shutdown import Stop
from bdauto.loop.watcher import Watcher
from bdauto.telemetry.recorder import Telemetry
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker


class Queue(Tracker):
    """The tracker, which also lists by status."""

    def assigned(self, statuses: Sequence[str]) -> RunningCommand[BeadList]:
        return self._answer(
            "assigned", [r for r in self.rows.values() if r["status"] in statuses and r["assignee"] == self.assignee]
        )


class Revision:
    """The tracker's revision: all that it holds. `broken` says why it cannot be read."""

    def __init__(self, tracker: Queue) -> None:
        self.tracker = tracker
        self.broken = ""
        self.opened: list[float] = []
        self.asked = 0

    def open(self) -> "Revision":
        self.opened.append(self.tracker.clock.monotonic() - NOW.timestamp())
        self.read()
        return self

    def read(self) -> str:
        self.asked += 1
        if self.broken:
            raise BdFailed(self.broken)
        return repr((self.tracker.rows, self.tracker.store))

    def close(self) -> None:
        pass


class Script(Stop):
    """Waits on the clock, does what is planned for a moment, and asks to stop at the end."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.plans: list[tuple[float, Callable[[], None]]] = []
        self.waits: list[float] = []

    def at(self, seconds: float, plan: Callable[[], None]) -> None:
        self.plans.append((NOW.timestamp() + seconds, plan))
        self.plans.sort(key=lambda plan: plan[0])

    def end_at(self, seconds: float) -> None:
        self.at(seconds, lambda: setattr(self, "signal", "SIGTERM"))

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.waits.append(seconds)
        self.clock.time += timedelta(seconds=seconds, microseconds=1)  # else the clock's rounding could stop it
        while self.plans and self.plans[0][0] <= self.clock.monotonic():
            self.plans.pop(0)[1]()


class Recorder(logging.Handler):
    """Keeps the log's events with the time on the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.events: list[tuple[float, str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelno, **getattr(record, "fields", {})}
        self.events.append((self.clock.monotonic() - NOW.timestamp(), record.getMessage(), fields))


@dataclass
class Scene:
    """A loop and all that is around it."""

    tracker: Queue
    board: Board
    clock: Clock
    stop: Script
    log: Recorder
    told: list[tuple[str, str]] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)
    sweeps: list[float] = field(default_factory=list)
    loop: Loop | None = None

    def __post_init__(self) -> None:
        self.revision = Revision(self.tracker)

    def run(
        self,
        seconds: float,
        *,
        agent: bool = False,
        counting: bool = False,
        watch: bool = False,
        notify: bool = False,
        writers: list[int] | None = None,
        others: Sequence[Lane] = (),
        **o: Any,
    ) -> Loop:
        """Run the loop for so long, with `others` beside its lane."""
        options = ("dispatch_every", "reap_every")
        run = RunSettings(watch=Watch.auto if watch else Watch.off, **{k: o.pop(k) for k in options if k in o})
        reap = ReapSettings(**{k: o.pop(k) for k in ("threshold",) if k in o})
        urls = (Secret("json://hook.test"),) if notify else ()
        telemetry = Telemetry(TelemetrySettings(notify_urls=urls), "dispatch", "reap", counting=True)
        assert telemetry.metrics
        telemetry.tell = lambda topic, title, text: self.told.append((title, text))  # type: ignore[method-assign]
        count = telemetry.metrics.count

        def counted(report: Any, took: float, now: Any) -> None:
            (self.cycles if report.command == "dispatch" else self.sweeps).append(self.now)
            count(report, took, now)

        telemetry.metrics.count = counted  # type: ignore[method-assign, assignment]

        def writer() -> Writer:
            if writers is not None:
                writers.append(1)
            return DryWriter() if o.get("dry_run") else self.tracker

        lanes = [Lane(self.tracker, self.board.services(agent=agent), DispatchSettings(**o), reap), *others]
        runtime = self.clock.runtime()
        watcher = Watcher(run, self.revision.open, self.stop.wait, runtime.monotonic, runtime.rng)
        self.loop = Loop(lanes, writer, run, runtime, self.stop, telemetry, watcher, counting)
        self.stop.end_at(seconds)
        self.loop.run()
        return self.loop

    @property
    def now(self) -> float:
        return self.clock.monotonic() - NOW.timestamp()

    def said(self, *names: str) -> list[tuple[float, str, dict[str, Any]]]:
        """The events of these names."""
        return [event for event in self.log.events if event[1] in names]

    def metric(self, name: str, **labels: str) -> float | None:
        assert self.loop
        assert self.loop.telemetry.metrics
        return self.loop.telemetry.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def make() -> Iterator[Callable[..., Scene]]:
    """What makes scenes with these beads."""
    recorders = []
    logger = logging.getLogger("bdauto")
    level = logger.level

    def made(*rows: dict[str, Any], script: list[Reply] | None = None, **board: Any) -> Scene:
        clock = Clock()
        recorder = Recorder(clock)
        recorders.append(recorder)
        logger.addHandler(recorder)
        logger.setLevel(logging.DEBUG)
        return Scene(Queue(clock, *rows), Board(script=script or [], **board), clock, Script(clock), recorder)

    yield made
    for recorder in recorders:
        logger.removeHandler(recorder)
    logger.setLevel(level)


Make = Callable[..., Scene]


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(moments)]
