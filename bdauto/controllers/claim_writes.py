"""A claim on a bead, and its end: released or quarantined.

Each is one compare-and-set, fenced by the attempt's unique id: whoever moved the bead meanwhile keeps it as it is.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum

import msgspec

from bdauto.agents.runner import Place
from bdauto.bd.change import NOW, Change, LookBack, Moment, Writer, as_read, rewrite
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError
from bdauto.controllers.gate import Expected
from bdauto.controllers.late_notes import LateNotes
from bdauto.controllers.started_jobs import StartedJob
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import backoff
from bdauto.domain.lanes import written_name
from bdauto.domain.life import sign_of_life
from bdauto.domain.notes import JOB_NOTE, UNKNOWN, error_kind, failure_note
from bdauto.domain.record import DUE, Record

END_TRIES = 3
"""A bead that is changed between the look at it and its release is looked at again, this often in all."""


class ReleaseResult(Enum):
    """How it went to end a claim: it is `written`, the bead was `moved` by somebody else, or its agent is `alive`."""

    written = "written"
    moved = "moved"
    alive = "alive"


class Claim(msgspec.Struct, frozen=True):
    """A bead as it was before its claim, the seconds that it had waited, and its record since.

    The record lacks the time of the claim, which only the tracker knows.
    """

    bead: Bead
    waited: int
    record: Record

    @property
    def attempt(self) -> str:
        """The attempt's unique id."""
        return self.record.attempt

    @property
    def attempts(self) -> int:
        """Attempts charged to the bead, this one included."""
        return self.record.attempts


class ClaimWrites(msgspec.Struct, frozen=True):
    """Makes claims and undoes them. Every method may raise BdError."""

    bd: Bd
    writer: Writer
    runtime: Runtime
    notes: LateNotes = msgspec.field(default_factory=LateNotes)
    grace: timedelta = timedelta()
    """How long after its claim a job may start."""

    def claim(
        self, bead: Bead, attempt: str, place: Place | None = None, store: Expected | None = None
    ) -> Claim | None:
        """Claim a bead if it is unchanged since it was read, and charge the attempt. None if it was changed.

        `place` is where the job will run, None if a service runs it. `store` is what the key-value store must still
        say. The claim checks it in the same write, so no pause is missed.
        """
        error = "" if bead.record.error.startswith(UNKNOWN) else bead.record.error
        record = _taken(bead, attempt, bead.record.attempts + 1, place, *self._whose).change(
            job="", died="", adopted="", error=error
        )
        claim = Claim(bead, max(int((self.runtime.now() - bead.waiting_since).total_seconds()), 0), record)
        change = rewrite(
            bead,
            record,
            times={"claimed_at": NOW, **_ends_by(place, self.grace)},
            act="claim",
            mark=self.runtime.unique(),
            status="in_progress",
            writes_claim_note=True,
            if_status="open",
            if_assignee=self.bd.assignee,
            **as_read(bead),
            if_store=store or {},
        )
        return claim if self._apply(change) else None

    def restore(self, bead: Bead, known: StartedJob, place: Place | None = None, *, adopt: bool = False) -> bool:
        """Claim a bead for the attempt whose job runs, at `place` or in a service. False if the bead has changed.

        With `adopt`, bdauto did not start the job. A claim that somebody has opened keeps its times.
        """
        noted = f"{JOB_NOTE}{known.job}\n" in f"{bead.notes}\n"
        same = bool(bead.record.claimed_at) and bead.record.attempt == known.attempt
        record = _taken(bead, known.attempt, known.attempts, place, *self._whose)
        change = rewrite(
            bead,
            record.change(
                job=known.job,
                pod=bead.record.pod if same else "",
                claimed_at=bead.record.claimed_at if same else None,
                armed_at=bead.record.armed_at if same else bead.waiting_since,
                ends_by=bead.ends_by if same else None,
                check=bead.record.check if same else record.check,
                adopted=known.attempt if adopt else bead.record.adopted if same else "",
            ),
            times={} if same else {"claimed_at": NOW, **_ends_by(place, self.grace)},
            act="restore claim",
            mark=self.runtime.unique(),
            status="in_progress",
            note="" if noted else f"{JOB_NOTE}{known.job}",
            if_status="open",
            if_assignee=self.bd.assignee,
            **as_read(bead),
        )
        return self._apply(change)

    def release(
        self,
        claim: Claim,
        *,
        error: str = "",
        charged: bool = False,
        back_off: bool = False,
        again: timedelta | None = None,
    ) -> ReleaseResult:
        """Undo the claim: open the bead again, take the claim's note back, and note an error of a new kind.

        A bead that is not `charged` gets its attempt back. With `back_off` it waits before the next attempt, with
        `again` for that long and without a note. It keeps its place in the queue. If somebody else has written a note
        since the claim, the agent may be at work, whatever the answer was: then the bead stays claimed.
        """
        bead, times = claim.bead, {"released_at": NOW}
        if back_off:
            again = backoff(bead.record.failures + 1, self.runtime.rng)
        if again:
            times["retry_at"] = Moment(again)
        attempts = claim.attempts if charged else bead.record.attempts
        noted = error and (back_off or not again) and error_kind(error) != error_kind(bead.record.error)
        note = failure_note(error) if noted else ""
        ended = lambda record: _released(record, bead, attempts, error, back_off=back_off)  # noqa: E731
        return self._end(claim, "release", "open", note, ended, times)

    def quarantine(self, claim: Claim, error: str) -> ReleaseResult:
        """Block the bead and say why and how to re-arm it, as `release` does."""
        note = (
            f"{failure_note(error)} — quarantined after {claim.attempts} attempts; "
            f"fix the bead, then re-arm it: bd update {claim.bead.id} -s open"
        )

        def blocked(record: Record) -> Record:
            return record.blocked(error).change(assignee=claim.bead.record.assignee)

        return self._end(claim, "quarantine", "blocked", note, blocked, {})

    def exhaust(self, bead: Bead, why: str) -> bool:
        """Block an open bead that has had all its attempts. Its runs stay. False if it has moved."""
        change = rewrite(
            bead,
            bead.record.blocked(why).with_runs(bead.record.all_runs),
            act="quarantine",
            mark=self.runtime.unique(),
            status="blocked",
            note=f"{why} — quarantined; re-arm it: bd update {bead.id} -s open",
            if_status="open",
            if_assignee=self.bd.assignee,
            **as_read(bead),
        )
        return self._apply(change)

    def _end(
        self,
        claim: Claim,
        act: str,
        status: str,
        note: str,
        ended: Callable[[Record], Record],
        times: Mapping[str, Moment],
    ) -> ReleaseResult:
        for _ in range(END_TRIES):
            found = self.bd.read([claim.bead.id]).result().beads
            bead = found[0] if found else None
            if bead is None or bead.status != "in_progress" or bead.record.attempt != claim.attempt:
                break
            if bead.assignee != claim.bead.assignee:
                break
            if sign_of_life(bead):
                return ReleaseResult.alive
            change = rewrite(
                bead,
                ended(bead.record),
                times=times,
                act=act,
                mark=self.runtime.unique(),
                status=status,
                note=note,
                retracts_claim_note=True,
                if_status="in_progress",
                if_assignee=bead.assignee,
                if_attempt=claim.attempt,
                **as_read(bead),
            )
            if self._apply(change):
                return ReleaseResult.written
        return ReleaseResult.moved

    @property
    def _whose(self) -> tuple[str, str]:
        """The assignee and the lane that a claim names."""
        return self.bd.assignee, written_name(self.bd.lane)

    def _apply(self, change: Change) -> bool:
        """Apply a change. If bd did not confirm it, read the bead, and count the change if it is there.

        A claim that bd did not confirm is never used, because bd may fail at the record of its job, too.
        """
        try:
            [written] = self.writer.apply([change])
        except BdError as error:
            [found] = LookBack(self.bd.read).after(error, [change])
            if found is True and change.act == "claim":
                raise type(error)(f"{error.message}; the claim was made and is left to the reaper") from None
            if isinstance(found, BdError):
                raise found from None
            return found
        return written


def _ends_by(place: Place | None, grace: timedelta) -> dict[str, Moment]:
    """Return when the job has ended at the latest, for the agent of this machine."""
    return {"ends_by": Moment(place.longest + grace)} if place else {}


def _taken(bead: Bead, attempt: str, attempts: int, place: Place | None, assignee: str, lane: str) -> Record:
    """Return the record of a bead that is claimed. An earlier run without a recorded end stays in the list."""
    return bead.record.change(
        attempt=attempt,
        attempts=attempts,
        claimed_at=None,
        pod="",
        jobs_folder=place.id if place else "",
        host=place.host if place else "",
        ends_by=None,
        armed_at=bead.waiting_since,
        released_at=None,
        place="",
        retry_at=None,
        quarantined="",
        unclaimed="",
        check=DUE if place and place.checked else "",  # an attempt without a check closes its bead itself
        assignee=assignee,
        lane=lane,
    ).with_runs(tuple(run for run in bead.record.all_runs if run.attempt != attempt))


def _released(record: Record, before: Bead, attempts: int, error: str, *, back_off: bool) -> Record:
    """Return the record of a bead whose claim came to nothing. `before` is the bead before its claim."""
    after = record.change(
        attempt="",
        claimed_at=None,
        jobs_folder="",
        host="",
        ends_by=None,
        attempts=attempts,
        assignee=before.record.assignee,
        lane="",
        check=before.record.check,
        error=error or record.error,
        failures=before.record.failures + 1 if back_off else record.failures,
    )
    return after.in_place(before.waiting_since).with_runs(record.runs)
