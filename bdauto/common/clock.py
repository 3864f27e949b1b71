"""Time and chance as arguments, so that a test can replace them."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec


def utc_now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


class Runtime(msgspec.Struct, frozen=True):
    """The wall clock, the monotonic clock in seconds, a sleep in seconds, and the random numbers."""

    now: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = msgspec.field(default_factory=random.Random)

    def unique(self) -> str:
        """Return a new unique id for an attempt or a write. bd never mistakes it for a number, which it would round."""
        return f"w{self.rng.getrandbits(64):016x}"
