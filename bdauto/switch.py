"""The pause switch as `bdauto run` follows it: looked at only when it matters, told of when it changes."""

from collections.abc import Callable
from datetime import datetime

from bdauto import log
from bdauto.bd import Bd
from bdauto.metrics import PAUSED, Metrics
from bdauto.pause import Pause, read


class Switch:
    """What is known of the switch; `fresh` says that it was looked at in this cycle."""

    def __init__(self, bd: Bd, now: Callable[[], datetime], metrics: Metrics, off: Callable[[], None]) -> None:
        """`off` is called when a pause ends."""
        self._bd = bd
        self._now = now
        self._metrics = metrics
        self._off = off
        self._pause: Pause | None = None
        self.fresh = False

    @property
    def on(self) -> bool:
        """Whether it was on when last looked at."""
        return self._pause is not None

    @property
    def words(self) -> str:
        """The pause in words, or ""."""
        return self._pause.words() if self._pause else ""

    def known(self) -> bool:
        """Return whether it is on, as this cycle knows; raises BdError."""
        return self.on if self.fresh else self.look()

    def look(self) -> bool:
        """Return whether it is on now; raises BdError."""
        before, self._pause = self._pause, read(self._bd.kv_list().result(), self._now())
        self.fresh = True
        if self._pause and self._pause != before:
            log.event("paused", detail=self.words)
        elif before and not self._pause:
            log.event("resumed")
            self._off()
        self._metrics.set(PAUSED, self.on)
        return self.on
