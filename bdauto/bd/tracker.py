"""Which tracker bd uses, and which folder is its project's."""

import contextlib
import os
import re
from pathlib import Path

import msgspec

from bdauto.bd.command import nearest_folder
from bdauto.bd.server_address import read_object
from bdauto.domain.settings import BdSettings

REDIRECT = "redirect"
"""The file in a `.beads` folder that names another one, whose database is used instead."""
_ID = re.compile(r"[A-Za-z0-9-]{8,64}", re.ASCII)


class Tracker(msgspec.Struct, frozen=True):
    """The `.beads` folder, the tracker's own id, and the `home` folder of the project as the user sees it."""

    folder: Path
    id: str
    home: Path


def tracker_at(folder: Path, metadata: object, db: Path | None) -> Tracker:
    """Return the tracker whose folder bd has named. `metadata` is what its metadata.json holds, `db` is `--db`.

    The id stays when the project is moved, and several folders of one server database share it. An old tracker has
    none, and is known by its folder.
    """
    found = metadata.get("project_id") if isinstance(metadata, dict) else None
    known = isinstance(found, str) and _ID.fullmatch(found)
    return Tracker(folder, str(found) if known else str(folder.resolve()), _home(folder, db))


def tracker_of(bd: BdSettings) -> str:
    """Return what tells the tracker of these settings from others, as far as its folder says. Runs no bd."""
    if bd.metadata is not None:
        return tracker_at(bd.metadata.parent, read_object(bd.metadata), None).id
    found = str(bd.db) if bd.db else nearest_folder()
    if not found:
        return ""
    folder = redirected(Path(found))
    return tracker_at(folder, read_object(folder / "metadata.json"), bd.db).id


def redirected(folder: Path) -> Path:
    """Return the folder that a `.beads` folder redirects to, or the folder itself.

    bd follows the redirect of a folder that it finds. In a folder that `--db` names, 1.0.3 ignores it, and makes an
    empty database there. So bdauto names the other folder. The rules are those of bd: one line, relative to the
    project, and no second redirect.
    """
    lines: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = [line.strip() for line in (folder / REDIRECT).read_text(encoding="utf-8").splitlines()]
    named = next((line for line in lines if line and not line.startswith("#")), "")
    target = folder.resolve().parent / named if named else folder
    return target if target.is_dir() else folder


def _home(tracker: Path, db: Path | None) -> Path:
    """Return the project's folder: the one with the named `.beads`, or with a `.beads` that leads to the tracker.

    The `.beads` may be a link. In a linked git worktree without one it is the worktree's root.
    """
    named = db or os.environ.get("BEADS_DIR")
    if named:
        return Path(named).absolute().parent
    here = Path.cwd()
    for folder in (here, *here.parents):
        beads = folder / ".beads"
        if beads.resolve() == tracker.resolve() or (beads / REDIRECT).exists() or (folder / ".git").exists():
            return folder
    return tracker.parent
