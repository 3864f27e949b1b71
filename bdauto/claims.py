"""A claim on a bead, and the ways it can end: recorded, unknown, released, set aside.

Each is one compare-and-set, fenced by the attempt's unique id: whoever moved the bead meanwhile keeps it as it is.
"""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from bdauto import log
from bdauto.changes import Change, Writer
from bdauto.errors import BdError
from bdauto.models import Bead, format_time
from bdauto.policy import CLAIM_NOTE, UNKNOWN, backoff
from bdauto.runtime import Runtime

RECORD_RETRY = timedelta(seconds=60)
"""How long a record that bd cannot write just now is tried again, before it is left to the log."""
COUNTERS = (
    "bdauto.attempt",
    "bdauto.attempts",
    "bdauto.claimed_at",
    "bdauto.job",
    "bdauto.retry_at",
    "bdauto.error",
    "bdauto.failures",
)
"""What a blocked bead forgets, so that whoever re-arms it starts afresh."""


class Claim(msgspec.Struct, frozen=True):
    """A bead as it was before it was claimed, the attempt's unique id, and the note that says so."""

    bead: Bead
    attempt: str
    note: str

    @property
    def attempts(self) -> int:
        """Attempts charged to the bead, this one included."""
        return self.bead.attempts + 1


class Claims(msgspec.Struct, frozen=True):
    """Makes claims and ends them. Every method may raise BdError."""

    writer: Writer
    assignee: str
    runtime: Runtime

    def claim(self, bead: Bead) -> Claim | None:
        """Claim a bead that still is as it was read, and charge the attempt; None when somebody was faster."""
        now = self.runtime.now()
        claim = Claim(bead, self.runtime.unique(), f"{CLAIM_NOTE}{format_time(now)}")
        stale = ["bdauto.job", "bdauto.retry_at", "bdauto.blocked"]
        if bead.error.startswith(UNKNOWN):
            stale.append("bdauto.error")
        change = Change(
            bead=bead,
            status="in_progress",
            note=claim.note,
            put={
                "bdauto.attempt": claim.attempt,
                "bdauto.attempts": claim.attempts,
                "bdauto.claimed_at": format_time(now),
            },
            drop=tuple(stale),
            if_status="open",
            if_assignee=self.assignee,
            if_updated_at=bead.updated_at,
        )
        return claim if self._apply(change) else None

    def record(self, claim: Claim, job: str) -> bool:
        """Write the job on the bead; False when the bead was changed meanwhile.

        The job runs by now, so a bd that fails is asked again until RECORD_RETRY is over; then its error is raised.
        """
        change = Change(
            bead=claim.bead,
            note=f"dispatched: job={job}",
            put={"bdauto.job": job},
            drop=("bdauto.error", "bdauto.failures"),
            if_attempt=claim.attempt,
        )
        return self._insist(change, job)

    def unknown(self, claim: Claim, error: str) -> None:
        """Leave the bead claimed and say that it may run: the reaper settles it. As insistent as `record`."""
        words = f"{UNKNOWN}: {error}"
        self._insist(Change(bead=claim.bead, note=words, put={"bdauto.error": words}, if_attempt=claim.attempt))

    def _insist(self, change: Change, job: str = "") -> bool:
        deadline, wait = self.runtime.monotonic() + RECORD_RETRY.total_seconds(), 0.5
        while True:
            try:
                return self._apply(change)
            except BdError as error:
                if self.runtime.monotonic() + wait > deadline:
                    raise
                log.warning("record-retry", bead=change.bead.id, job=job, attempt=change.if_attempt, error=error)
            self.runtime.sleep(wait)
            wait = min(wait * 2, 5.0)

    def release(self, claim: Claim, *, error: str = "", charged: bool = False, back_off: bool = False) -> None:
        """Undo the claim: open again, the claim's note taken back, one note for an error that is new.

        A bead that is not `charged` gets its attempt back; with `back_off` it waits before the next.
        """
        bead = claim.bead
        put: dict[str, str | int] = {}
        drop = ["bdauto.attempt", "bdauto.claimed_at"]
        if not charged:
            put, drop = _with_attempts(bead.attempts, drop)
        if error:
            put["bdauto.error"] = error
        if back_off:
            put["bdauto.failures"] = bead.failures + 1
            put["bdauto.retry_at"] = format_time(self.runtime.now() + backoff(bead.failures + 1, self.runtime.rng))
        note = failure_note(error) if error and error != bead.error else ""
        self._end(claim, "open", note, put, drop)

    def set_aside(self, claim: Claim, error: str) -> None:
        """Block the bead and say why and how to re-arm it."""
        note = (
            f"{failure_note(error)} — set aside after {claim.attempts} attempts; "
            f"mend the bead, then re-arm it: bd update {claim.bead.id} -s open"
        )
        self._end(claim, "blocked", note, {"bdauto.blocked": error}, COUNTERS)

    def _end(self, claim: Claim, status: str, note: str, put: dict[str, str | int], drop: Sequence[str]) -> None:
        change = Change(
            bead=claim.bead,
            status=status,
            note=note,
            retract=claim.note,
            put=put,
            drop=tuple(drop),
            if_status="in_progress",
            if_attempt=claim.attempt,
        )
        if not self._apply(change):
            log.warning("moved", bead=claim.bead.id, attempt=claim.attempt, detail="changed meanwhile; left as it is")

    def _apply(self, change: Change) -> bool:
        [written] = self.writer.apply([change])
        return written


def _with_attempts(attempts: int, drop: list[str]) -> tuple[dict[str, str | int], list[str]]:
    return ({"bdauto.attempts": attempts}, drop) if attempts else ({}, [*drop, "bdauto.attempts"])


def failure_note(error: str) -> str:
    """Write the note of a failed dispatch, e.g. `dispatch failed HTTP 502: …`."""
    return f"dispatch failed {error}" if error.startswith("HTTP ") else f"dispatch failed: {error}"
