"""What a cycle or a sweep came to: the values that reports, metrics and exit statuses are made from."""

import logging
from enum import StrEnum

import msgspec

from bdauto.errors import BdautoError, PartlyDone


class Outcome(StrEnum):
    """What became of a whole cycle or sweep."""

    dispatched = "dispatched"
    reaped = "reaped"
    idle = "idle"
    busy = "busy"
    paused = "paused"
    suspended = "suspended"
    limited = "limited"
    partial = "partial"
    failed = "failed"


class BeadOutcome(StrEnum):
    """What became of one bead in a dispatch cycle or in a reaper's sweep."""

    dispatched = "dispatched"
    lost = "lost"
    busy = "busy"
    adopted = "adopted"
    reverted = "reverted"
    not_visible = "not_visible"
    refused = "refused"
    quarantined = "quarantined"
    unavailable = "unavailable"
    misconfigured = "misconfigured"
    unknown = "unknown"
    failed = "failed"
    kept = "kept"
    released = "released"
    requeued = "requeued"
    blocked = "blocked"
    asks = "asks"
    closed = "closed"
    stopping = "stopping"
    unclear = "unclear"

    @property
    def level(self) -> int:
        """Return the log level that this outcome deserves."""
        if self in (BeadOutcome.unknown, BeadOutcome.failed, BeadOutcome.misconfigured):
            return logging.ERROR
        ordinary = (
            BeadOutcome.dispatched,
            BeadOutcome.adopted,
            BeadOutcome.lost,
            BeadOutcome.busy,
            BeadOutcome.kept,
            BeadOutcome.asks,
            BeadOutcome.closed,
            BeadOutcome.stopping,
        )
        return logging.INFO if self in ordinary else logging.WARNING


class BeadReport(msgspec.Struct, frozen=True):
    """One bead's part in a cycle: what became of it, its job if it has one, and why.

    `lives` marks a bead that a sweep kept and that its agent has written on. A sweep tells the `title`.
    """

    id: str
    outcome: BeadOutcome
    job: str = ""
    detail: str = ""
    attempt: str = ""
    lives: bool = False
    title: str = ""


class Report(msgspec.Struct, frozen=True):
    """One cycle or sweep. `error` decides the exit status. None is success.

    `waits` has, for each POST, the seconds since its bead became eligible, as far as that is known. `unrecorded` tells
    of a sweep that some jobs, whose beads are no longer in progress, have not ended yet. `ended` has the status of each
    such bead whose job has ended, as its agent left it. `cost_usd` is what the runs cost whose end was recorded, as far
    as it is known.
    """

    command: str
    outcome: Outcome
    dry_run: bool
    beads: tuple[BeadReport, ...] = ()
    detail: str = ""
    malformed: tuple[str, ...] = ()
    error: BdautoError | None = None
    waits: tuple[float, ...] = ()
    ended: tuple[str, ...] = ()
    unrecorded: bool = False
    cost_usd: float = 0.0

    @property
    def exit_code(self) -> int:
        """Return the exit status for this report."""
        return self.error.exit_code if self.error else 0


def partly(beads: tuple[BeadReport, ...], malformed: tuple[str, ...]) -> PartlyDone | None:
    """Return the error of a cycle in which some beads failed or were malformed, or None."""
    failed = [bead.id for bead in beads if bead.outcome is BeadOutcome.failed]
    parts = []
    if failed:
        parts.append(f"{len(failed)} failed ({', '.join(failed[:5])})")
    if malformed:
        parts.append(f"{len(malformed)} malformed ({malformed[0]})")
    return PartlyDone(f"partly done: {'; '.join(parts)}; the others were handled") if parts else None
