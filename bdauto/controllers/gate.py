"""What may hold a dispatcher back from a further bead: a pause, the circuit breaker, a signal to stop."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from bdauto.bd.client import Bd
from bdauto.bd.prefetch import Prefetch
from bdauto.domain import breaker, pause
from bdauto.domain.outcome import Outcome

Expected = dict[str, str | None]
"""Values that keys of the key-value store should have. None: no value."""


class Hold(msgspec.Struct, frozen=True):
    """Why no further bead is taken up: what the cycle comes to because of it, and in words."""

    outcome: Outcome
    detail: str = ""
    until: datetime | None = None
    """When it ends by itself, if that is known."""


class Gate(Protocol):
    """Asked before each bead whether it may be taken up."""

    @property
    def expected(self) -> Expected:
        """What the key-value store said at the last `hold`. A claim holds only while it still says so."""

    @property
    def half_open(self) -> bool:
        """Whether the circuit breaker lets exactly one bead through, as of the last `hold`."""

    @property
    def died(self) -> frozenset[str]:
        """The beads whose agents died, as far as the breaker knew at the last `hold`."""

    def prefetch(self) -> None:
        """Start finding out: `hold` will be asked soon."""

    def hold(self, *, again: bool = False) -> Hold | None:
        """Return the reason to stop, or None. `again`: the question is repeated for the same bead. Raises BdError."""

    def close(self) -> None:
        """Stop reads that were started for an answer that is no longer needed."""


class BreakerView(msgspec.Struct, frozen=True):
    """What the breaker says: why nothing goes while it is open, whether it is half open, whose agents died."""

    hold: Hold | None = None
    half_open: bool = False
    died: frozenset[str] = frozenset()
    closed: bool = False

    def expected(self, store: Mapping[str, Any]) -> Expected:
        """Return what a claim expects of the breaker. Nothing if it is half open: then a separate write guards it."""
        return expected_values(store, breaker.KEY) if self.closed else {}


def view_breaker(store: Mapping[str, Any], now: datetime) -> BreakerView:
    """Return what the breaker in the key-value store says."""
    found = breaker.read(store)
    state = found.state(now)
    hold = Hold(Outcome.suspended, found.describe(), found.until) if state == "open" else None
    died = frozenset(death.bead for death in found.deaths)
    return BreakerView(hold, state == "half-open", died, state == "closed")


def expected_values(store: Mapping[str, Any], key: str) -> Expected:
    """Return what the store says under a key, as a change may expect it."""
    value = store.get(key) or None
    return {key: value} if value is None or isinstance(value, str) else {}


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
        self._store = None if ignore_pause and ignore_breaker else Prefetch(bd.kv_list, now)
        self.expected: Expected = {}

    def prefetch(self) -> None:
        """Start reading the switch."""
        if self._store:
            self._store.start()

    def hold(self, *, again: bool = False) -> Hold | None:  # noqa: ARG002
        """Return the pause, the open breaker or the wish to stop. Raises BdError."""
        if self._stopping():
            return Hold(Outcome.idle)
        if self._store is None:
            return None
        store, now = self._store.result(), self._now()
        paused = None if self._ignore_pause else pause.read(store, now)
        if paused:
            return Hold(Outcome.paused, paused.describe(), paused.until)
        view = BreakerView() if self._ignore_breaker else view_breaker(store, now)
        self.half_open, self.died = view.half_open, view.died
        self.expected = view.expected(store) | ({} if self._ignore_pause else expected_values(store, pause.KEY))
        return view.hold

    def close(self) -> None:
        """End a read that is under way."""
        if self._store:
            self._store.close()
