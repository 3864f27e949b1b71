"""Whether BeadBoard sees the beads that bdauto would post to it."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.bd.client import Bd

if TYPE_CHECKING:
    from bdauto.agents.beadboard.runner import BeadBoardRunner

YOUNG = timedelta(minutes=2)
"""BeadBoard may read an export that is up to a minute old."""
SHOWN = 3
STATUSES = ("open", "in_progress", "blocked", "deferred")


class Visibility(msgspec.Struct, frozen=True):
    """The assignee's beads that bd lists, those that BeadBoard does not list, and those of them that are not young."""

    listed: int
    missing: tuple[str, ...]
    overdue: tuple[str, ...]

    def describe(self) -> str:
        """Describe it in one line."""
        if not self.missing:
            return f"BeadBoard lists all of the assignee's beads ({self.listed})"
        names = ", ".join(self.missing[:SHOWN]) + (", …" if len(self.missing) > SHOWN else "")
        young = "" if self.overdue else "; they are less than two minutes old"
        return f"BeadBoard does not list {len(self.missing)} of {self.listed} beads of the assignee ({names}){young}"


def compare(bd: Bd, services: "BeadBoardRunner", now: datetime) -> Visibility | None:
    """Compare BeadBoard's list of beads with bd's. None if BeadBoard has no such list.

    Raises BdError or ServiceError.
    """
    beads = bd.assigned(STATUSES).result().beads
    seen: Collection[str] | None = services.listed_beads()
    if seen is None:
        return None
    missing = [bead for bead in beads if bead.id not in seen]
    overdue = tuple(bead.id for bead in missing if now - bead.created_at >= YOUNG)
    return Visibility(len(beads), tuple(bead.id for bead in missing), overdue)
