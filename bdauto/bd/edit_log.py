"""Reads from bd who changed a bead. Where it is recorded depends on bd's version and on the kind of database."""

import os
from collections.abc import Sequence
from pathlib import Path

from bdauto.bd.client import Bd
from bdauto.domain.edits import Edit, read_events, read_log

LOG = "interactions.jsonl"
"""The file in the `.beads` folder in which bd 1.0 records changes of status, assignee and priority."""
LOG_BYTES = 1 << 20
"""Bytes of the end of LOG that are read."""


def recorded_edits(bd: Bd, beads: Sequence[str]) -> list[Edit]:
    """Return the recorded changes of these beads, as far as this database tells. Raises BdError.

    A Dolt server has them in a table. On an embedded database bd 1.3 lists them by `bd history --events`, and older
    versions leave them in LOG.
    """
    if not beads:  # MySQL refuses an empty list
        return []
    rows = bd.events(beads)
    if rows is not None:
        return read_events(rows)
    found: list[Edit] = []
    for bead in beads:
        if (rows := bd.history_events(bead)) is None:
            return read_log(_last_lines(bd.tracker().folder / LOG))
        found += read_events(rows)
    return found


def written_by(bd: Bd, beads: Sequence[str], actor: str) -> set[str]:
    """Return those of these beads that somebody has changed in this name, as far as this database tells."""
    rows = bd.events(beads) if beads else []
    if rows is not None:
        return {str(row.get("issue_id")) for row in rows if row.get("actor") == actor}
    return {edit.bead for edit in recorded_edits(bd, beads) if edit.actor == actor}


def _last_lines(file: Path) -> list[bytes]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as log:
            log.seek(max(os.fstat(descriptor).st_size - LOG_BYTES, 0))
            return log.read(LOG_BYTES).splitlines()
    except OSError:
        return []
