"""Child processes: the one place that starts them, each in a process group of its own.

A child may be started ahead of time, while this program is still importing what it needs: whoever then starts the very
same command gets that child instead of a second one.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

Process = subprocess.Popen[bytes]
TimeoutExpired = subprocess.TimeoutExpired

_ahead: dict[tuple[str, ...], Process] = {}


def start(argv: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command, or take it over if it was started ahead. Raises OSError."""
    return _ahead.pop(tuple(argv), None) or _start(argv, environment)


def start_ahead(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start a command that will likely be wanted; one that cannot be started is left for `start` to complain of."""
    with contextlib.suppress(OSError):
        _ahead[tuple(argv)] = _start(argv, environment)


def end(process: Process) -> None:
    """End a child with its whole process group, if it still runs, and close its pipes."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def reap_orphans() -> None:
    """As process 1 of a container, collect what children of children left behind; call it between children."""
    while os.getpid() == 1:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            return


def end_unwanted() -> None:
    """End the children that were started ahead and that nobody took over."""
    while _ahead:
        end(_ahead.popitem()[1])


def _start(argv: Sequence[str], environment: Mapping[str, str]) -> Process:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
