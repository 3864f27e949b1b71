"""SIGTERM and SIGINT in a long-running command: the first asks it to stop, the second stops it at once."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from bdauto.changes import Change, Writer


class Stopped(BaseException):
    """The work was broken off by a first signal, with no bead in hand."""


class Stop:
    """Whether to stop. Installed as a context manager, it listens to the two signals.

    A signal ends a wait at once. It breaks off work inside `interruptible` by raising Stopped, as long as no bead is in
    hand: one that is is finished first. The second signal raises KeyboardInterrupt wherever the program is.
    """

    def __init__(self) -> None:
        self.signal = ""
        self._in_hand = False
        self._interruptible = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return bool(self.signal)

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal comes."""
        select.select([self._reader], [], [], max(seconds, 0.0))

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal break off the block, also one that came just before, as long as no bead is in hand."""
        self._in_hand, self._interruptible = False, True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def take_in_hand(self) -> None:
        """Say that a bead is about to be changed: from here on it is finished first."""
        self._in_hand = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        os.write(self._writer, b".")
        if self._interruptible and not self._in_hand:
            self._interruptible = False
            raise Stopped


class TakingInHand:
    """A writer whose first change takes a bead in hand."""

    def __init__(self, writer: Writer, take: Callable[[], None]) -> None:
        self._writer = writer
        self._take = take

    def prepare(self) -> None:
        """Say that a change is coming."""
        self._writer.prepare()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply the changes; see Writer."""
        self._take()
        return self._writer.apply(changes)
