"""The pause switch and the breaker as `bdauto run` follows them: changes are logged, counted and sent."""

from collections.abc import Callable
from datetime import datetime

from bdauto.bd.client import Bd
from bdauto.common import log
from bdauto.controllers.gate import TrackerGate
from bdauto.controllers.hold import Hold
from bdauto.domain.settings import DispatchSettings
from bdauto.telemetry.families import PAUSED, SUSPENDED
from bdauto.telemetry.recorder import Telemetry


class PauseMonitor(TrackerGate):
    """The switch and the breaker, kept from cycle to cycle."""

    def __init__(
        self,
        bd: Bd,
        now: Callable[[], datetime],
        settings: DispatchSettings,
        telemetry: Telemetry,
        off: Callable[[], None],
    ) -> None:
        """`off` is called when a pause or a suspension ends."""
        super().__init__(bd, now, settings)
        self._telemetry = telemetry
        self._off = off
        self._suspended = False

    def hold(self) -> Hold | None:
        """Return the current pause, or the open breaker. Raises BdError."""
        if not self.reads:
            return None
        before = self.paused
        hold = super().hold()
        self._telemetry.set(PAUSED, self.paused is not None)
        if self.paused:
            if self.paused != before:
                log.event("paused", detail=self.paused.describe())
            return hold
        if before:
            log.event("resumed")
            self._off()
        self._note_breaker(hold)
        return hold

    def _note_breaker(self, hold: Hold | None) -> None:
        suspended = hold is not None or self.half_open
        if self._suspended and not suspended:
            self._off()
        self._suspended = suspended
        self._telemetry.set(SUSPENDED, suspended)
