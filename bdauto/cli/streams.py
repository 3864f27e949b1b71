"""Standard streams that never fail, so that output never decides what happens to beads.

The imports here are cheap, because `bdauto.__main__` needs this module first.
"""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

PATIENCE = 2.0
"""Seconds without progress after which a terminal counts as stuck."""
_failed: dict[int, OSError] = {}


class _Forgiving(io.FileIO):
    """A standard stream that drops what cannot be written, and remembers why.

    `patience` is how many seconds it waits for a reader that takes nothing, None for as long as it takes. What is
    written after that is dropped until the reader goes on.
    """

    number = 0
    patience: float | None = None
    _stuck = False

    def write(self, data: Any, /) -> int:
        """Write the data, or drop it if that fails. Wait for a slow reader."""
        while self.number not in _failed:
            try:
                written = super().write(data)
                if written is not None:
                    self._stuck = False
                    return written
                ready = select.select([], [self], [], 0 if self._stuck else self.patience)[1]
                self._stuck = not ready
            except OSError as error:
                _failed[self.number] = error
            if self._stuck:
                break
        return len(data)


def drop_when_stuck() -> None:
    """From now on, drop what a terminal does not take: one that nobody reads must not hold up what goes on for long.

    The terminal is opened once more, because others share the file that was inherited, and must not find it
    non-blocking.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        with contextlib.suppress(OSError):  # no terminal, or one that cannot be opened again
            flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
            terminal, before = os.open(os.ttyname(number), flags), getattr(sys, name)
            before.flush()
            setattr(sys, name, _stream(number, before.encoding, before.errors, terminal, PATIENCE))


def protect() -> None:
    """Open the standard streams that are closed on the null device, and make stdout and stderr forgiving."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    sys.stdout, sys.stderr = _stream(1, encoding, "replace"), _stream(2, encoding, "backslashreplace")


def lost() -> bool:
    """Return True if nobody receives what is written to stdout."""
    return 1 in _failed


def close() -> None:
    """Write what is still buffered. Say on stderr why stdout failed, unless its reader just went away."""
    sys.stdout.flush()
    error = _failed.get(1)
    if error and error.errno != errno.EPIPE:
        sys.stderr.write(f"bdauto: cannot write to stdout: {error.strerror}\n")
    sys.stderr.flush()


def _stream(
    number: int, encoding: str, errors: str, opened: int | None = None, patience: float | None = None
) -> io.TextIOWrapper:
    file = _Forgiving(number if opened is None else opened, "w", closefd=False)
    file.number, file.patience = number, patience
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=number == 2 or file.isatty())
