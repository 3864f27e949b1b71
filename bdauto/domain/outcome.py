"""What a cycle or a sweep came to: the values that reports, metrics and exit statuses are made from."""

import logging
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from bdauto.common.errors import BdautoError, PartlyDone
from bdauto.common.sanitize import clean

TITLE_LIMIT = 80
"""Characters of a title that the log has."""


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

    `lives` marks a bead that a sweep kept and that its agent has written on. A sweep tells the `title`. `lane` is told
    where there are several.
    """

    id: str
    outcome: BeadOutcome
    job: str = ""
    detail: str = ""
    attempt: str = ""
    lives: bool = False
    title: str = ""

    @property
    def short_title(self) -> str:
        """The title as the log has it."""
        return clean(self.title, TITLE_LIMIT)

    lane: str = ""


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


def of_lane(report: Report, lane: str) -> Report:
    """Return a report whose beads name the lane."""
    return msgspec.structs.replace(report, beads=tuple(msgspec.structs.replace(b, lane=lane) for b in report.beads))


def merged(reports: Sequence[tuple[str, Report]]) -> Report:
    """Return the report of several lanes together, each given with its name. A lane may have several, in order.

    Its error is the first, with the name of its lane.
    """
    beads = tuple(bead for lane, report in reports for bead in of_lane(report, lane).beads)
    errors = [_in_lane(report.error, lane) for lane, report in reports if report.error]
    outcomes = {report.outcome for _, report in reports}
    done = outcomes & {Outcome.dispatched, Outcome.reaped}
    outcome = next(iter(done or (outcomes if len(outcomes) == 1 else {Outcome.idle})))
    if errors:
        outcome = Outcome.failed if outcomes == {Outcome.failed} else Outcome.partial
    details = {lane: report.detail for lane, report in reports if report.detail}
    first = reports[0][1]
    return Report(
        first.command,
        outcome,
        first.dry_run,
        beads,
        "; ".join(f"{lane}: {detail}" for lane, detail in details.items()),
        tuple(dict.fromkeys(entry for _, report in reports for entry in report.malformed)),
        errors[0] if errors else None,
    )


def _in_lane(error: BdautoError, lane: str) -> BdautoError:
    return type(error)(f"lane {lane}: {error.message}", hint=error.hint)


def partly(beads: tuple[BeadReport, ...], malformed: tuple[str, ...]) -> PartlyDone | None:
    """Return the error of a cycle in which some beads failed or were malformed, or None."""
    failed = [bead.id for bead in beads if bead.outcome is BeadOutcome.failed]
    parts = []
    if failed:
        parts.append(f"{len(failed)} failed ({', '.join(failed[:5])})")
    if malformed:
        parts.append(f"{len(malformed)} malformed ({malformed[0]})")
    return PartlyDone(f"partly done: {'; '.join(parts)}; the others were handled") if parts else None
