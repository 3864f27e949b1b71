"""Who may hold a bead back, asked in one place and in one order.

The order goes from what this process knows to what the tracker and the services have to be asked. Each is asked at the
steps of a cycle at which its answer matters:

| who | start | queue | first | further | claim | post |
|---|---|---|---|---|---|---|
| a signal to stop | | x | | x | | x |
| agents that have given no sign of life (`bdauto run`) | x | | | | | |
| the active hours | x | | x | | x | |
| the limits of a day | | | x | | x | |
| an agent that cannot be started on this machine, with an error | | | x | | | |
| room for a job: asked once in a cycle | if polled | | x | | | |
| POSTs that fail (`bdauto run`) | | | | x | | |
| the pause switch and the circuit breaker | if paused | x | | x | | x |
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bdauto.bd.client import Bd
from bdauto.bd.prefetch import Prefetch
from bdauto.controllers.day_limits import DayLimits
from bdauto.controllers.hold import Hold
from bdauto.controllers.room import Room
from bdauto.domain import breaker, pause
from bdauto.domain.limits import outside_hours
from bdauto.domain.outcome import Outcome
from bdauto.domain.pause import Pause
from bdauto.domain.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner
    from bdauto.agents.runner_status import RunnerStatus

Expected = dict[str, str | None]
"""Values that keys of the key-value store should have. None: no value."""


class Step(Enum):
    """A step of a dispatch cycle at which the gate is asked."""

    start = auto()
    """Nothing has been read yet."""
    queue = auto()
    """A bead of the queue may be eligible."""
    first = auto()
    """The first eligible bead is known."""
    further = auto()
    """A further bead is about to be taken up."""
    claim = auto()
    """A bead that was read some time ago is about to be claimed."""
    post = auto()
    """A claim took long, or the switch or the breaker prevented it."""


class _Link(Protocol):
    """One that may hold beads back."""

    def prefetch(self) -> None:
        """Start the read that `hold` needs."""

    def hold(self) -> Hold | None:
        """Return the reason to stop, or None. Raises BdautoError."""

    def close(self) -> None:
        """Stop a read that is under way."""


class _Ask:
    """A link that needs no read."""

    def __init__(self, hold: Callable[[], Hold | None]) -> None:
        self.hold = hold

    def prefetch(self) -> None:
        """Start nothing."""

    def close(self) -> None:
        """Stop nothing."""


class TrackerGate:
    """The pause switch and the circuit breaker in the tracker, unless the settings ignore them."""

    def __init__(self, bd: Bd, now: Callable[[], datetime], settings: DispatchSettings) -> None:
        self._now = now
        self._lane = bd.lane
        self._ignore_pause = settings.ignore_pause
        self._ignore_breaker = settings.trip_after == 0
        self._store = None if self._ignore_pause and self._ignore_breaker else Prefetch(bd.kv_list, now)
        self.paused: Pause | None = None
        """The pause, as of the last `hold`."""
        self.half_open = False
        """True: the breaker lets exactly one bead through, as of the last `hold`."""
        self.died: frozenset[str] = frozenset()
        """The beads whose agents died, as far as the breaker knew at the last `hold`."""
        self.expected: Expected = {}
        """What the key-value store said at the last `hold`. A claim holds only while it still says so."""

    @property
    def reads(self) -> bool:
        """Whether the tracker is read: not if the settings ignore both."""
        return self._store is not None

    def prefetch(self) -> None:
        """Start reading both."""
        if self._store:
            self._store.start()

    def hold(self) -> Hold | None:
        """Return the pause or the open breaker. Raises BdError."""
        if self._store is None:
            return None
        store, now = self._store.result(), self._now()
        self.paused = None if self._ignore_pause else pause.read(store, now)
        if self.paused:
            return Hold(Outcome.paused, self.paused.describe(), self.paused.until)
        self.expected = {} if self._ignore_pause else expected_values(store, pause.KEY)
        if self._ignore_breaker:
            return None
        found = breaker.read(store, self._lane)
        state = found.state(now)
        self.half_open, self.died = state == "half-open", frozenset(death.bead for death in found.deaths)
        if state == "closed":  # half open, a write of its own guards the one bead
            self.expected |= expected_values(store, breaker.key_of(self._lane))
        return Hold(Outcome.suspended, found.describe(), found.until, found.trial) if state == "open" else None

    def close(self) -> None:
        """Stop a read that is under way."""
        if self._store:
            self._store.close()


def expected_values(store: Mapping[str, Any], key: str) -> Expected:
    """Return what the store says under a key, as a change may expect it."""
    value = store.get(key) or None
    return {key: value} if value is None or isinstance(value, str) else {}


class Known(msgspec.Struct, frozen=True):
    """What a long-running process knows beyond one cycle. The defaults are those of a one-shot command."""

    stopping: Callable[[], bool] = lambda: False
    """Whether a signal asks to stop."""
    waiting_for_life: Callable[[], str] = lambda: ""
    """Which agents a sign of life is waited for, or ""."""
    posts_fail: Callable[[], bool] = lambda: False
    """Whether only a further POST can tell if beads are started again: one bead of a cycle tries it."""
    polled: Callable[[], bool] = lambda: False
    """Whether the services are asked before anything is read. Busy, they cost no process of bd."""
    asked: "Callable[[RunnerStatus], None]" = lambda _status: None
    """Called with what the services say, each time they are asked."""


class Gate:
    """The gate of one cycle."""

    def __init__(
        self,
        bd: Bd,
        runner: "Callable[[], Runner]",
        settings: DispatchSettings,
        now: Callable[[], datetime],
        known: Known | None = None,
        switch: TrackerGate | None = None,
    ) -> None:
        """`switch` is passed on from cycle to cycle where there are several."""
        known = known or Known()
        self.switch = switch or TrackerGate(bd, now, settings)
        self.room = Room(runner, settings, known.asked)
        self._order: tuple[tuple[_Link, set[Step]], ...] = (
            (_Ask(lambda: Hold(Outcome.idle) if known.stopping() else None), {Step.queue, Step.further, Step.post}),
            (_Ask(lambda: _busy(known.waiting_for_life())), {Step.start}),
            (_Ask(lambda: _outside_hours(settings, now())), {Step.start, Step.first, Step.claim}),
            (DayLimits(bd, runner, settings, now), {Step.first, Step.claim}),
            (_Ask(lambda: _check_start(runner, settings)), {Step.first}),
            (_Ask(lambda: self.room.hold() if known.polled() else None), {Step.start}),
            (self.room, {Step.first}),
            (_Ask(lambda: Hold(Outcome.idle) if known.posts_fail() else None), {Step.further}),
            (_Ask(lambda: self.switch.hold() if self.switch.paused else None), {Step.start}),
            (self.switch, {Step.queue, Step.further, Step.post}),
        )

    def prefetch(self, *steps: Step) -> None:
        """Start the reads that `hold` needs at these steps. Raises BdError."""
        for step in steps:
            for link, asked in self._order:
                if step in asked:
                    link.prefetch()

    def hold(self, step: Step) -> Hold | None:
        """Return the first reason to stop, or None. Raises BdautoError."""
        return next(filter(None, (link.hold() for link, asked in self._order if step in asked)), None)

    def close(self) -> None:
        """Stop the reads that are under way."""
        for link, _ in self._order:
            link.close()


def _busy(reason: str) -> Hold | None:
    return Hold(Outcome.busy, reason) if reason else None


def _check_start(runner: "Callable[[], Runner]", settings: DispatchSettings) -> Hold | None:
    runner().check_start(dry_run=settings.dry_run)
    return None


def _outside_hours(settings: DispatchSettings, now: datetime) -> Hold | None:
    limit = outside_hours(settings, now)
    return Hold(Outcome.limited, limit.describe(), limit.until) if limit else None
