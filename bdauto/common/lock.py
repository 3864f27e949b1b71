"""A lock that the kernel drops when its holder dies."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from bdauto.common.clock import Runtime


@contextlib.contextmanager
def locked(path: Path, timeout: float, runtime: Runtime | None = None, *, create: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on a folder, or with `create` on a file, which is made if there is none.

    Raises TimeoutError when another process holds the lock for longer than `timeout` seconds, and OSError where the
    path cannot be locked.
    """
    runtime = runtime or Runtime()
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY | os.O_DIRECTORY
    deadline = runtime.monotonic() + timeout
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(file):
            if runtime.monotonic() > deadline:
                raise TimeoutError(f"another process has held {path} for {timeout:.0f} s")
            runtime.sleep(0.05)
        yield
    finally:
        os.close(file)


def _taken(file: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
