"""When to look at the tracker: at once when it has changed, and by the clock where that cannot be known."""

import random
from collections.abc import Callable
from datetime import timedelta

from bdauto.bd.revision import TIMEOUT, Revision
from bdauto.common import log
from bdauto.common.errors import BdError
from bdauto.domain.settings import RunSettings, Watch

RETRY = timedelta(seconds=15)
"""How soon watching is tried again after it failed. Each further failure doubles it, up to SLOWEST_RETRY."""
SLOWEST_RETRY = timedelta(minutes=5)


class Watcher:
    """Follows the tracker's revision. Where that fails, `works` is False, and it just lets the time pass."""

    interval = 1.0
    """Seconds between two questions whether the tracker has changed."""

    def __init__(
        self,
        settings: RunSettings,
        open_revision: Callable[[], Revision],
        pause: Callable[[float], None],
        monotonic: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """`open_revision` raises BdError. `pause` waits for so many seconds, or less when there is a reason to stop."""
        self._off = settings.watch is Watch.off
        self._open = open_revision
        self._pause = pause
        self._monotonic = monotonic
        self._rng = rng
        self._revision: Revision | None = None
        self._seen: dict[str, str | None] = {}
        self._told: set[str] = set()
        self.behind: set[str] = set()
        """For whom the last `wait` has found a change."""
        self._look_at = float("-inf")
        self._failures = 0
        self._retry_at = float("-inf")

    @property
    def works(self) -> bool:
        """Whether a change would be noticed."""
        return self._revision is not None

    @property
    def longest(self) -> float:
        """How many seconds one question may take."""
        return 0.0 if self._off else TIMEOUT

    def now(self) -> str | None:
        """Return the tracker's revision, None if it is not known."""
        if self._revision is None:
            return None
        try:
            return self._revision.read()
        except BdError as error:
            log.debug("watch-lost", error=error)
            self.close()
            return None

    def seen(self, who: str = "") -> str | None:
        """Take note that somebody is about to read the tracker: only what changes from now on is a change for them.

        Return the revision, None if it is not known. Where watching has failed it is tried again, which may take as
        long as a call of bd.
        """
        revision = self.now()
        if revision is None and not self._off and self._monotonic() >= self._retry_at:
            self._reopen()
            revision = self.now()
        self._seen[who] = revision
        self._told.discard(who)
        return revision

    @property
    def left(self) -> float:
        """How many seconds it is until a change can be noticed. Infinite if it cannot, or has been said."""
        open_to = {who for who, seen in self._seen.items() if seen is not None or self.works} - self._told
        return self._look_at - self._monotonic() if open_to else float("inf")

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or for less. Return True if the tracker may have changed since somebody last saw it.

        `behind` says who. Until they see it again, that is said once.
        """
        left = self.left
        if left == float("inf"):
            self._pause(seconds)
            return False
        if left > 0:
            self._pause(min(seconds, left))
        if self._monotonic() < self._look_at:
            return False
        self._look_at = self._monotonic() + self.interval * self._rng.uniform(0.9, 1.0)
        revision = self.now()
        self.behind = {who for who, seen in self._seen.items() if seen != revision} - self._told
        self._told |= self.behind
        return bool(self.behind)

    def close(self) -> None:
        """Let go of what is open."""
        if self._revision:
            self._revision.close()
        self._revision = None

    def _reopen(self) -> None:
        try:
            self._revision = self._open()
        except BdError as error:
            if not self._failures:
                log.warning("watch-failed", error=error, detail="the tracker is read at intervals instead")
            wait = min(RETRY * (1 << min(self._failures, 10)), SLOWEST_RETRY)
            self._retry_at = self._monotonic() + wait.total_seconds()
            self._failures += 1
        else:
            log.event("watching", detail=str(self._revision))
            self._failures = 0
