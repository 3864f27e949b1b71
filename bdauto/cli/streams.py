"""Standard streams that never fail, so that output never decides what happens to beads.

The imports here are cheap, because `bdauto.__main__` needs this module first.
"""

import errno
import io
import os
import select
import sys
from typing import Any

_failed: dict[int, OSError] = {}


class _Forgiving(io.FileIO):
    """A standard stream that drops what cannot be written, and remembers why."""

    def write(self, data: Any, /) -> int:
        """Write the data, or drop it if that fails. Wait for a slow reader."""
        while self.fileno() not in _failed:
            try:
                written = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])  # somebody made the stream non-blocking
            except OSError as error:
                _failed[self.fileno()] = error
        return len(data)


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


def _stream(number: int, encoding: str, errors: str) -> io.TextIOWrapper:
    file = _Forgiving(number, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=number == 2 or file.isatty())
