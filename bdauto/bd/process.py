"""Child processes: the one place that starts them, each in a process group of its own.

A child may be started ahead of time, while this program is still importing what it needs: whoever then starts the very
same command gets that child instead of a second one.
"""

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO
from weakref import WeakSet

TimeoutExpired = subprocess.TimeoutExpired


class Process:
    """A running command. Its stdout is an unnamed file, so it never waits to be read.

    A pipe holds 64 KiB. On an embedded database, a `bd` that waits for its reader keeps the lock, and another `bd`
    that is read first waits for the lock.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command. Raises OSError, and ValueError for a word that no command line can hold."""
        self.began = time.monotonic()
        self._output = _unnamed_file()
        try:
            with _starting:
                self.child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
                _running.add(self)
        except BaseException:  # also a ValueError, for a null character among the words
            self._output.close()
            raise

    def wait(self, seconds: float) -> tuple[int, bytes, bytes]:
        """Wait for its end and return its exit status, stdout and stderr. Raises TimeoutExpired."""
        _, errors = self.child.communicate(timeout=seconds)
        self._output.seek(0)
        return self.child.returncode, self._output.read(), errors

    def end(self) -> None:
        """End it with its whole process group, if it still runs, and close what it wrote to."""
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        _running.discard(self)
        self._output.close()
        if self.child.stderr:
            self.child.stderr.close()


_starting = threading.Lock()
_running = WeakSet[Process]()
"""The children whose exit status somebody may still ask for, in any thread."""
_ahead: dict[tuple[str, ...], Process] = {}


def start(argv: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command, or take it over if it was started ahead. Raises OSError."""
    return _ahead.pop(tuple(argv), None) or Process(argv, environment)


def start_ahead(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Prefetch: start a command that will likely be needed. If it cannot be started, `start` reports that later."""
    with contextlib.suppress(OSError):
        _ahead[tuple(argv)] = Process(argv, environment)


def reap_orphans() -> None:
    """As process 1 of a container, collect the zombies of grandchildren. Call it often.

    It does nothing while a child of some other thread runs, whose exit status it could take away.
    """
    with _starting:
        while os.getpid() == 1 and not _running:
            try:
                found, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not found:
                return


def end_unwanted() -> None:
    """End the children that were started ahead and that nobody took over."""
    while _ahead:
        _ahead.popitem()[1].end()


def _unnamed_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):  # Linux
        try:
            return os.fdopen(os.memfd_create("bd"), "w+b")
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):  # not what a sandbox's filter answers
                raise
    import tempfile

    try:
        return tempfile.TemporaryFile()
    except FileNotFoundError as error:  # no folder can be written
        raise OSError(errno.ENOSPC, error.strerror) from None
