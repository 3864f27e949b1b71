"""Which `.beads` folder bd uses, and a private one that is made anew where a cleaner of /tmp removes it."""

import os
import stat
import threading
from pathlib import Path

from bdauto.bd.command import is_database
from bdauto.errors import BdFailed


def beads_folder(db: Path | None) -> Path | None:
    """Return the folder that bd uses: `--db`, BEADS_DIR, or the nearest from the working folder upwards, or None."""
    named = db or os.environ.get("BEADS_DIR")
    if named:
        return Path(named).absolute()
    here = Path.cwd()
    return next((folder / ".beads" for folder in (here, *here.parents) if (folder / ".beads").is_dir()), None)


def restore_copy(db: Path, metadata: bytes) -> None:
    """Make what is missing of a private `.beads` folder: itself, the folder that it is in, its metadata.json.

    Raises BdFailed where that fails, or somebody else has taken the place meanwhile.
    """
    try:
        if is_database(str(db)) and is_private(db):
            return
        db.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (db.parent, db):
            folder.mkdir(mode=0o700, exist_ok=True)
            if not is_private(folder):
                raise BdFailed(f"{folder}, the private copy of --metadata, is not this user's alone", hint="remove it")
        new = db / f"metadata.json.{threading.get_ident()}"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as copy:
            copy.write(metadata)
        new.replace(db / "metadata.json")
    except OSError as error:
        words = f"the private copy of --metadata was removed and cannot be made anew in {db}: {error.strerror}"
        raise BdFailed(words, hint="let TMPDIR name a folder that can be written") from None


def is_private(folder: Path) -> bool:
    """Whether this is a folder, not a link, of this user, in which nobody else may write."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
