"""A private `.beads` folder: a copy of a metadata.json, which is restored if a cleaner of /tmp has removed it."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bdauto.bd.command import is_database
from bdauto.common.errors import BdFailed, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED


@contextlib.contextmanager
def private_db(metadata: Path) -> Iterator[Path]:
    """Copy a metadata.json into a new private folder, yield the folder, and remove it at the end."""
    import shutil
    import tempfile

    try:
        content = metadata.read_bytes()
    except OSError as error:
        raise UsageError(f"--metadata {metadata}: {error.strerror}", hint="name a readable metadata.json") from None
    try:
        mode = msgspec.json.decode(content, type=dict[str, Any]).get("dolt_mode")
    except MALFORMED as error:
        raise UsageError(f"--metadata {metadata}: {clean(str(error))}", hint="expected bd's metadata.json") from None
    if mode in ("embedded", "proxied-server"):  # bd would silently make an empty database beside the copy
        words = f"--metadata {metadata}: the database ({mode}) is in the folder of this file, not on a server"
        raise UsageError(words, hint="name the .beads folder with --db")
    folder: Path | None = None
    try:
        try:
            folder = Path(tempfile.mkdtemp(prefix="bdauto-"))
            beads = folder / ".beads"
            beads.mkdir(mode=0o700)
            copy = os.open(beads / "metadata.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(copy, "wb") as file:
                file.write(content)
        except OSError as error:
            words = f"--metadata {metadata} cannot be copied: {error.strerror or error}"
            raise UsageError(words, hint="set TMPDIR to a writable folder") from None
        yield beads
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def read_metadata(db: Path) -> bytes | None:
    """Return the content of the metadata.json in a folder, None if it cannot be read."""
    try:
        return (db / "metadata.json").read_bytes()
    except OSError:
        return None


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
