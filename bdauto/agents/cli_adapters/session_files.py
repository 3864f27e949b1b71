"""Finds the files in which agents keep their sessions. A session can be resumed where its file is, and in its folder.

The agent can write these files, so they are only looked at: their first bytes, and never through a link.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
"""A session's name that is no option, no path and no pattern."""
HEAD = 1 << 16
"""Bytes of the start of a file that are looked at: each agent names the session's folder there."""
_FOLDER = re.compile(rb'"(?:cwd|directory)"\s*:\s*("(?:[^"\\]|\\.){0,4096}")')


def home(environment: Mapping[str, str]) -> Path:
    """Return the agent's home folder."""
    return Path(environment.get("HOME") or Path.home())


def spellings(directory: Path) -> tuple[str, str]:
    """Return how an agent may name the folder that it runs in: as it was given, and without links."""
    return str(directory), os.path.realpath(directory)


def first_bytes(file: Path) -> bytes | None:
    """Return the start of a regular file, None if there is none or it is empty."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source:
            return source.read(HEAD) or None if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None


def is_of_folder(files: Iterable[Path], directory: Path) -> bool:
    """Return whether one of these files is there and names this folder as its session's, or no folder at all."""
    heads = (head for file in files if (head := first_bytes(file)) is not None)
    return any(_folder(head) in (None, *spellings(directory)) for head in heads)


def _folder(head: bytes) -> str | None:
    """Return the folder that the start of a file names first: an agent may go elsewhere later."""
    found = _FOLDER.search(head)
    try:
        return str(json.loads(found[1])) if found else None
    except ValueError:
        return ""
