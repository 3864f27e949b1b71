"""Time and chance, as arguments: what a test replaces."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec


def utc_now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


class Runtime(msgspec.Struct, frozen=True):
    """The clock, the stop watch (seconds), the way to wait (seconds) and the source of chance."""

    now: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = msgspec.field(default_factory=random.Random)

    def unique(self) -> str:
        """Return a new unique id for an attempt or a write; never one that bd would store as a number and so round."""
        return f"w{self.rng.getrandbits(64):016x}"
