"""The signals that end a command that changes beads: the first asks it to stop, the second stops it at once."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TypeVar

from bdauto.bd.change import Change, Writer

T = TypeVar("T")


class Stopped(BaseException):
    """A first signal broke off the work outside a critical section."""


class Stop:
    """Handles SIGTERM, SIGINT and SIGHUP while it is open as a context manager.

    The first signal ends a wait at once. Inside `interruptible` it raises Stopped, unless a bead is being changed: that
    critical section is finished first. The second signal raises KeyboardInterrupt anywhere.
    """

    def __init__(self) -> None:
        self.signal = ""
        self._in_hand = False
        self._interruptible = False
        self._reader, self._writer = os.pipe()  # not pipe2, which macOS lacks
        os.set_blocking(self._writer, False)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return bool(self.signal)

    def __enter__(self) -> "Stop":
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float) -> None:
        """Wait for this long, or until a signal comes."""
        select.select([self._reader], [], [], max(seconds, 0.0))

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal break off the block outside its critical section, even one that came just before it."""
        self._in_hand, self._interruptible = False, True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def run(self, work: Callable[[], T]) -> T:
        """Run the one cycle or sweep of a command. Raises KeyboardInterrupt if a signal broke it off."""
        try:
            with self.interruptible():
                return work()
        except Stopped:
            raise KeyboardInterrupt from None

    def enter_critical_section(self) -> None:
        """Begin to change a bead. From here on the block is finished first."""
        self._in_hand = True

    def shield(self, writer: Writer) -> "ShieldedWriter":
        """Return a writer whose first change begins the critical section."""
        return ShieldedWriter(writer, self.enter_critical_section)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        os.write(self._writer, b".")
        if self._interruptible and not self._in_hand:
            self._interruptible = False
            raise Stopped


class ShieldedWriter:
    """A writer whose first change begins the critical section."""

    def __init__(self, writer: Writer, take: Callable[[], None]) -> None:
        self._writer = writer
        self._take = take

    def prepare(self) -> None:
        """Prepare the writer for a change."""
        self._writer.prepare()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply the changes, as Writer says."""
        self._take()
        return self._writer.apply(changes)

    def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Set or clear a key of the key-value store, as Writer says."""
        return self._writer.swap(key, old, new)
