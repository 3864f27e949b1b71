"""Reads of bd that start before their answers are needed."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from bdauto.bd.running import RunningCommand

T = TypeVar("T")

MAX_AGE = timedelta(seconds=2)
"""Answers older than this are not acted upon, because the tracker may have changed (docs/reliability.md)."""


def too_old(began: datetime, now: datetime) -> bool:
    """True: a read that began then is older than MAX_AGE, or in the future because the clock was set back."""
    return not timedelta() <= now - began <= MAX_AGE


class Prefetch(Generic[T]):
    """A read that may be started before it is needed. With `ages`, an answer older than MAX_AGE is read anew."""

    def __init__(
        self, read: Callable[[], RunningCommand[T]], now: Callable[[], datetime], *, ages: bool = True
    ) -> None:
        self._read = read
        self._now = now
        self._ages = ages
        self._call: RunningCommand[T] | None = None
        self.began = datetime.min
        """When the read of the last answer began."""

    def start(self) -> None:
        """Start the read, unless a recent one is under way. Raises BdError."""
        if self._call is None:
            self._begin()
        if self._ages and too_old(self.began, self._now()):  # as one of `process.start_ahead` may be at once
            self.close()
            self._begin()

    def result(self) -> T:
        """Return the answer of a recent read, started now if need be. Raises BdError."""
        self.start()
        call, self._call = self._call, None
        assert call is not None
        return call.result()

    def close(self) -> None:
        """Kill a read that is under way."""
        if self._call:
            self._call.kill()
            self._call = None

    def _begin(self) -> None:
        began = self._now()
        self._call = self._read()
        self.began = began - timedelta(seconds=self._call.ahead)
