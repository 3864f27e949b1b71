"""Restores a private `.beads` folder that a cleaner of /tmp has removed."""

import os
import stat
import threading
from pathlib import Path

from bdauto.bd.command import is_database
from bdauto.errors import BdFailed


def restore_copy(db: Path, metadata: bytes) -> None:
    """Restore what is missing of a private `.beads` folder: its parent, the folder, its metadata.json.

    Raises BdFailed if that fails, or if somebody else has made the folder meanwhile.
    """
    try:
        if is_database(str(db)) and is_private(db):
            return
        db.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (db.parent, db):
            folder.mkdir(mode=0o700, exist_ok=True)
            if not is_private(folder):
                raise BdFailed(f"others can write to {folder}, the private copy of --metadata", hint="remove it")
        new = db / f"metadata.json.{threading.get_ident()}"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as copy:
            copy.write(metadata)
        new.replace(db / "metadata.json")
    except OSError as error:
        words = f"the private copy of --metadata was removed and cannot be made anew in {db}: {error.strerror}"
        raise BdFailed(words, hint="set TMPDIR to a writable folder") from None


def is_private(folder: Path) -> bool:
    """True: this is a folder and no link, it belongs to this user, and nobody else can write to it."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
