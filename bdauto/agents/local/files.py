"""Read the files of a job's folder. The agent can write there, so any file may be missing, replaced or damaged."""

import errno
import os
import stat
from pathlib import Path

from bdauto.common import log

MOST_NAMED = 100
"""Each job with an unreadable file is named in the log once, up to this many jobs."""
_named: set[Path] = set()
"""The folders of those jobs."""


def open_file(file: Path) -> int:
    """Open a regular file for reading. Raises OSError for anything else. It follows no link and never waits."""
    found = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(found).st_mode):
        return found
    os.close(found)
    raise OSError(errno.EINVAL, "not a regular file", str(file))


def read_file(file: Path, limit: int, *, end: bool = False) -> bytes:
    """Return the first `limit` bytes of a regular file, or with `end` the last. Raises OSError."""
    with os.fdopen(open_file(file), "rb") as source:
        if end:
            source.seek(max(source.seek(0, os.SEEK_END) - limit, 0))
        return source.read(limit)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder, False when there is nothing or a file. Raises OSError for a link."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return stat.S_ISDIR(mode)


def name_once(folder: Path, error: OSError) -> None:
    """Log that a file in a job's folder cannot be read and is ignored: once for each job in each process."""
    if folder not in _named and len(_named) < MOST_NAMED:
        _named.add(folder)
        reason = "a symbolic link" if error.errno == errno.ELOOP else error.strerror or error
        log.warning("unreadable", error=f"{error.filename or folder}: {reason}")
