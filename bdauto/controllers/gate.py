"""What may hold a dispatcher back from a further bead: a pause, the circuit breaker, a signal to stop."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from bdauto.bd.client import Bd, RunningCommand
from bdauto.domain import breaker, pause
from bdauto.domain.outcome import Outcome


class Hold(msgspec.Struct, frozen=True):
    """Why no further bead is taken up: what the cycle comes to because of it, and in words."""

    outcome: Outcome
    detail: str = ""
    until: datetime | None = None
    """When it ends by itself, if that is known."""


class Gate(Protocol):
    """Asked before each bead whether it may be taken up."""

    @property
    def half_open(self) -> bool:
        """Whether the circuit breaker lets exactly one bead through, as of the last `hold`."""

    @property
    def died(self) -> frozenset[str]:
        """The beads whose agents died, as far as the breaker knew at the last `hold`."""

    def look(self) -> None:
        """Start finding out: `hold` will be asked soon."""

    def hold(self) -> Hold | None:
        """Return why not to go on, None to go on. Raises BdError."""

    def close(self) -> None:
        """End what was started for an answer that nobody asks for any more."""


class StoreReader:
    """Reads the tracker's shared key-value store anew for each question. `look` starts the read ahead of it."""

    def __init__(self, bd: Bd) -> None:
        self._bd = bd
        self._call: RunningCommand[Mapping[str, Any]] | None = None

    def look(self) -> None:
        """Start the read, unless one is under way."""
        self._call = self._call or self._bd.kv_list()

    def result(self) -> Mapping[str, Any]:
        """Read the store and return it. Raises BdError."""
        self.look()
        call, self._call = self._call, None
        assert call is not None
        return call.result()

    def close(self) -> None:
        """End a read that is under way."""
        if self._call:
            self._call.kill()
            self._call = None


class BreakerView(msgspec.Struct, frozen=True):
    """What the breaker says: why nothing goes while it is open, whether it is half open, whose agents died."""

    hold: Hold | None = None
    half_open: bool = False
    died: frozenset[str] = frozenset()


def view_breaker(store: Mapping[str, Any], now: datetime) -> BreakerView:
    """Return what the breaker in the key-value store says."""
    found = breaker.read(store)
    state = found.state(now)
    hold = Hold(Outcome.suspended, found.describe(), found.until) if state == "open" else None
    return BreakerView(hold, state == "half-open", frozenset(death.bead for death in found.deaths))


class TrackerGate:
    """The pause switch and the breaker in the tracker, unless ignored, and whether this process is asked to stop."""

    half_open = False
    died: frozenset[str] = frozenset()

    def __init__(
        self,
        bd: Bd,
        now: Callable[[], datetime],
        *,
        ignore_pause: bool = False,
        ignore_breaker: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._now = now
        self._stopping = stopping
        self._ignore_pause = ignore_pause
        self._ignore_breaker = ignore_breaker
        self._store = None if ignore_pause and ignore_breaker else StoreReader(bd)

    def look(self) -> None:
        """Start reading the switch."""
        if self._store:
            self._store.look()

    def hold(self) -> Hold | None:
        """Return the pause, the open breaker or the wish to stop. Raises BdError."""
        if self._stopping():
            return Hold(Outcome.idle)
        if self._store is None:
            return None
        store, now = self._store.result(), self._now()
        paused = None if self._ignore_pause else pause.read(store, now)
        if paused:
            return Hold(Outcome.paused, paused.words(), paused.until)
        view = BreakerView() if self._ignore_breaker else view_breaker(store, now)
        self.half_open, self.died = view.half_open, view.died
        return view.hold

    def close(self) -> None:
        """End a read that is under way."""
        if self._store:
            self._store.close()
