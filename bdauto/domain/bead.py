"""A bead as bdauto reads it: frozen types."""

import re
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any

import msgspec

from bdauto.domain.notes import AGENT_SIGN, CLAIM_NOTE, JOB_NOTE, UNKNOWN, WRITTEN
from bdauto.domain.record import CLAIMED_AT, KEPT, PENDING_NOTE, Record, invalid_metadata, read_record
from bdauto.domain.record_values import unguarded

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z"
"""Matches the ids that bd makes (prefix, hash, dotted children). They are safe in arguments and in SQL."""

MOST_JOBS = 20
"""How many of a bead's named jobs count, the youngest. Anybody can write notes, and each job costs a question."""
_JOB_ID = r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?)"
_SIGNED_JOB = re.compile(rf"^{AGENT_SIGN} {_JOB_ID}(?![A-Za-z0-9_-])", re.MULTILINE)
_NAMED_JOB = re.compile(rf"^(?:{AGENT_SIGN} |{JOB_NOTE}){_JOB_ID}(?![A-Za-z0-9_-])", re.MULTILINE)

CLAIM_LINE = rf"{CLAIM_NOTE}[0-9TZ:-]{{1,40}}"
"""Matches the note of a claim."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]


OWN_UPDATE = timedelta(minutes=1)
"""An update this soon after `released_at` is the release itself: an embedded bd sets the time when it writes."""


class Dependency(msgspec.Struct, frozen=True):
    """One dependency of a bead. `status` is that of the other bead where it was looked up, or ""."""

    type: str = ""
    depends_on_id: str = ""
    status: str = ""


class Bead(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The fields of a bead that bdauto reads. Times are aware. `metadata` that is no object is read as absent.

    `record` is bdauto's own part of the metadata. `answers` is text for the prompt about its questions, where that was
    looked up.
    """

    id: Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
    status: str
    priority: Annotated[int, msgspec.Meta(ge=0, le=4)]
    updated_at: Time
    created_at: Time
    title: str = ""
    description: str = ""
    acceptance_criteria: str = ""
    notes: str = ""
    issue_type: str = "task"
    assignee: str = ""
    created_by: str = ""
    closed_at: Time | None = None
    close_reason: str = ""
    defer_until: Time | None = None
    metadata: Any = None
    labels: list[str] | None = None
    dependencies: list[Dependency] | None = None
    pinned: bool = False
    is_template: bool = False
    ephemeral: bool = False
    answers: str = ""

    def __post_init__(self) -> None:
        """Make `metadata` a dictionary. bd stores any JSON there."""
        if not isinstance(self.metadata, dict):
            msgspec.structs.force_setattr(self, "metadata", {})

    @cached_property
    def record(self) -> Record:
        """What bdauto has written on the bead. The record of a re-armed bead starts empty."""
        return self._stored.change(attempts=0, failed_checks=0, quarantined="") if self.rearmed else self._stored

    @property
    def rearmed(self) -> bool:
        """True: bdauto blocked this bead and somebody has opened it since. The next claim ends that."""
        return self.status not in ("blocked", "closed") and bool(self._stored.quarantined)

    @cached_property
    def _stored(self) -> Record:
        return read_record(self.metadata)

    @property
    def jobs_folder(self) -> str:
        """See `Record`."""
        return self.record.jobs_folder

    @property
    def ends_by(self) -> datetime | None:
        """See `Record`."""
        return self.record.ends_by

    @property
    def local(self) -> bool:
        """True: the current attempt belongs to an agent command on some machine, not to a service."""
        return bool(self.jobs_folder or self.record.host)

    @property
    def waiting_since(self) -> datetime:
        """When an open bead began to wait, which gives its place in the queue: its last update.

        An update by which bdauto gave it back does not count, unless it is charged for an early death. Any other change
        restarts the wait, such as a new assignment or opening the bead by hand.
        """
        armed_at, released_at = self.record.armed_at, self.record.released_at
        if armed_at is None or self.record.place != KEPT or self.rearmed:
            return self.updated_at
        if released_at and self.updated_at - released_at > OWN_UPDATE:
            return self.updated_at
        return min(armed_at, self.updated_at)

    @property
    def named_jobs(self) -> tuple[str, ...]:
        """The jobs that metadata and notes name, whoever wrote them: the youngest first, MOST_JOBS at most."""
        unended = (run.job for run in reversed(self.record.unended))
        noted = reversed(_NAMED_JOB.findall(self.notes))
        jobs = (self.record.unclaimed, self.record.job, *unended, *noted)
        return tuple(dict.fromkeys(job for job in jobs if job))[:MOST_JOBS]

    @property
    def signed_job(self) -> str:
        """The job that the agent has signed for in a note since the claim, or ""."""
        jobs = _SIGNED_JOB.findall(self.notes_since_claim)
        return jobs[-1] if jobs else ""

    @property
    def pending_note(self) -> str:
        """The note of the current claim, if it is not yet among the notes (embedded databases)."""
        note = self._text(PENDING_NOTE).partition(" ")[2]
        return note if re.fullmatch(CLAIM_LINE, note) else ""

    @property
    def record_note(self) -> str:
        """The note of the current attempt's record: its job, or that its outcome is unknown. Or ""."""
        return (
            f"{JOB_NOTE}{self.record.job}"
            if self.record.job
            else self.record.error
            if self.record.error.startswith(UNKNOWN)
            else ""
        )

    @property
    def missing_note(self) -> str:
        """The note of the current attempt's record if it is not among the notes and was not written a second time."""
        note = self.record_note
        return "" if note in self.notes.splitlines() or self.record.noted == self.record.attempt else note

    @property
    def claim_place(self) -> int:
        """The length of the notes at the current claim. 0 if the notes were rewritten since.

        If the claim did not record the length, the claim's note marks the place: the last one newer than the recorded
        time, else the first of that time.
        """
        recorded = re.match(r"([0-9]{1,9}) (.*)", self._text(PENDING_NOTE))
        if recorded:
            place, since = int(recorded[1]), self.notes[int(recorded[1]) :]
            cut = place > len(self.notes) or (place > 0 and since[:1] not in ("", "\n"))
            return 0 if cut or (recorded[2] == WRITTEN and not since.strip()) else place
        claims = list(re.finditer(rf"^{CLAIM_LINE}$", self.notes, re.MULTILINE))
        recorded_note = f"{CLAIM_NOTE}{self._text(CLAIMED_AT)}"
        newer = [claim for claim in claims if claim[0] > recorded_note]
        exact = [claim for claim in claims if claim[0] == recorded_note]
        return [*newer[-1:], *exact[:1], *claims[-1:]][0].start() if claims else 0

    @property
    def notes_since_claim(self) -> str:
        """The notes since the current claim, or all notes of a bead without a claim."""
        return self.notes[self.claim_place :]

    @property
    def invalid_metadata(self) -> tuple[str, ...]:
        """The keys of bdauto's own metadata whose values make no sense. A re-armed bead's are forgotten."""
        return () if self.rearmed else invalid_metadata(self.metadata, self.record)

    def _text(self, key: str) -> str:
        value = self.metadata.get(key, "")
        return unguarded(value) if isinstance(value, str) else ""


class BeadList(msgspec.Struct, frozen=True):
    """The beads of one answer, and one line for each malformed entry.

    `invalid_metadata` has one line for each value of bdauto's own metadata that makes no sense and was read as absent.
    """

    beads: tuple[Bead, ...]
    malformed: tuple[str, ...] = ()
    invalid_metadata: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the answer had no entries at all."""
        return not self.beads and not self.malformed


MALFORMED = (ValueError, RecursionError)
"""What msgspec raises for bytes that are not the JSON asked for: also broken UTF-8, and nesting without end."""
