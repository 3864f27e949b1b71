"""What is written on a claimed bead: the job that was started, or that nobody knows whether one was."""

from collections.abc import Callable
from datetime import timedelta

from bdauto.bd.change import Change, as_read, rewrite
from bdauto.common import log
from bdauto.common.errors import BdError, BdUnsupported
from bdauto.controllers.claim_writes import END_TRIES, Claim, ClaimWrites
from bdauto.domain.bead import Bead
from bdauto.domain.notes import JOB_NOTE, UNKNOWN

RECORD_RETRY = timedelta(seconds=60)
"""How long a record that bd cannot write just now is tried again, before it is left to the log."""


class Claims(ClaimWrites, frozen=True):
    """Makes claims, undoes them, and records what became of them. Every method may raise BdError."""

    def record(self, claim: Claim, job: str) -> bool:
        """Write the job on the bead, and queue its note. Return False if the bead was changed meanwhile.

        The job already runs, so a failing bd is retried until RECORD_RETRY is over. Then its error is raised.
        """
        change = rewrite(
            claim.bead,
            claim.record.change(job=job, waited=claim.waited, error="", failures=0),
            before=claim.record,
            act="record",
            mark=self.runtime.unique(),
            quiet=True,
            comment=f"{JOB_NOTE}{job}",
            if_attempt=claim.attempt,
        )
        return self._record(change, job)

    def mark_unclaimed(self, claim: Claim, job: str) -> bool:
        """Write a running job on its bead if the claim is gone and the bead looks as if it was never posted.

        Retries as `record` does. Returns False if the bead no longer exists. If a reaper settled the attempt, its
        charge stays. If bd undid the claim, the charge is gone with it.
        """
        return self._insist(lambda: self._mark_unclaimed(claim, job), claim.bead, claim.attempt, job)

    def _mark_unclaimed(self, claim: Claim, job: str) -> bool:
        for _ in range(END_TRIES):
            found = self.bd.read([claim.bead.id]).result()
            if not found.beads:
                return bool(found.malformed)
            [bead] = found.beads
            if (
                bead.status != "open"
                or bead.record.attempt
                or bead.rearmed
                or bead.record.attempts >= claim.attempts
                or self._apply(
                    rewrite(
                        bead,
                        bead.record.change(unclaimed=job),
                        act="note unclaimed job of",
                        mark=self.runtime.unique(),
                        if_status="open",
                        **as_read(bead),
                    )
                )
            ):
                break
        return True

    def unknown(self, claim: Claim, error: str) -> None:
        """Leave the bead claimed and say that it may run: the reaper settles it. As insistent as `record`."""
        words = f"{UNKNOWN}: {error}"
        change = rewrite(
            claim.bead,
            claim.record.change(error=words, died=claim.attempt),
            before=claim.record,
            act="note unknown outcome of",
            mark=self.runtime.unique(),
            quiet=True,
            comment=words,
            if_attempt=claim.attempt,
        )
        self._record(change)

    def _record(self, change: Change, job: str = "") -> bool:
        """Write a record. If it was written, queue its comment as a note."""
        written = self._insist(lambda: self._apply(change), change.bead, change.if_attempt, job)
        if written:
            late = Change(
                bead=change.bead,
                act="note the record of",
                mark=self.runtime.unique(),
                note=change.comment,
                if_attempt=change.if_attempt,
                if_mark=change.mark,  # otherwise a sweep has written it meanwhile
            )
            self.notes.add(late, self.runtime.monotonic())
        return written

    def _insist(self, write: Callable[[], bool], bead: Bead, attempt: str | None, job: str = "") -> bool:
        deadline, wait = self.runtime.monotonic() + RECORD_RETRY.total_seconds(), 0.5
        while True:
            try:
                return write()
            except BdUnsupported:
                raise
            except BdError as error:
                if self.runtime.monotonic() + wait > deadline:
                    raise
                log.warning("record-retry", bead=bead.id, job=job, attempt=attempt, error=error)
            self.runtime.sleep(wait)
            wait = min(wait * 2, 5.0)
