"""The pause switch as `bdauto run` follows it: read when it matters, and reported when it changes."""

from collections.abc import Callable
from datetime import datetime

from bdauto import log
from bdauto.bd.client import Bd
from bdauto.bd.prefetch import Prefetch
from bdauto.controllers.gate import BreakerView, Expected, Hold, expected_values, view_breaker
from bdauto.domain.outcome import Outcome
from bdauto.domain.pause import KEY, Pause, read
from bdauto.telemetry.families import PAUSED, SUSPENDED
from bdauto.telemetry.recorder import Telemetry


class PauseMonitor:
    """What is known of the switch and of the circuit breaker."""

    def __init__(
        self,
        bd: Bd,
        now: Callable[[], datetime],
        telemetry: Telemetry,
        off: Callable[[], None],
        *,
        ignore_pause: bool = False,
        ignore_breaker: bool = False,
    ) -> None:
        """`off` is called when a pause or a suspension ends."""
        self._ignore_pause = ignore_pause
        self._ignore_breaker = ignore_breaker
        self._store = Prefetch(bd.kv_list, now)
        self.expected: Expected = {}
        self._now = now
        self._telemetry = telemetry
        self._off = off
        self._pause: Pause | None = None
        self._suspended = False
        self.half_open = False
        self.died: frozenset[str] = frozenset()

    @property
    def on(self) -> bool:
        """Whether it was on when last read."""
        return self._pause is not None

    def prefetch(self) -> None:
        """Start reading it."""
        self._store.start()

    def hold(self) -> Hold | None:
        """Return the current pause, or the open breaker. Raises BdError."""
        store, now = self._store.result(), self._now()
        before, self._pause = self._pause, None if self._ignore_pause else read(store, now)
        words = self._pause.describe() if self._pause else ""
        self._telemetry.set(PAUSED, self.on)
        if self._pause and self._pause != before:
            log.event("paused", detail=words)
        elif before and not self._pause:
            log.event("resumed")
            self._off()
        if self.on:
            return Hold(Outcome.paused, words, self._pause.until if self._pause else None)
        view = BreakerView() if self._ignore_breaker else view_breaker(store, now)
        suspended, self.half_open, self.died = view.hold, view.half_open, view.died
        self.expected = view.expected(store) | ({} if self._ignore_pause else expected_values(store, KEY))
        open_now = suspended is not None or self.half_open
        if suspended and not self._suspended:
            self._telemetry.tell("suspended", suspended.detail)
        elif self._suspended and not open_now:
            self._telemetry.tell("no longer suspended", "an agent works again, or somebody resumed dispatching")
            self._off()
        self._suspended = open_now
        self._telemetry.set(SUSPENDED, open_now)
        return suspended

    def close(self) -> None:
        """End a read that is under way."""
        self._store.close()
