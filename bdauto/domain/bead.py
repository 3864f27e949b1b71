"""A bead as bdauto reads it: frozen types, and bdauto's own metadata."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from bdauto.domain.notes import (
    ADOPTED,
    AGENT_SIGN,
    CLAIM_NOTE,
    DEATHS,
    DIED,
    GIVEN_UP,
    JOB_NOTE,
    PENDING_NOTE,
    UNCLAIMED,
)
from bdauto.sanitize import clean

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z"
"""Matches the ids that bd makes (prefix, hash, dotted children). They are safe in arguments and in SQL."""

JOB_PATTERN = r"^[A-Za-z0-9._-]{1,100}\Z"
"""Matches the ids of jobs and attempts."""

MOST_JOBS = 20
"""Jobs that a bead is believed to name, the youngest: notes are written by anybody, and each job is asked about."""
_JOB_ID = r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?)"
_SIGNED_JOB = re.compile(rf"^{AGENT_SIGN} {_JOB_ID}(?![A-Za-z0-9_-])", re.MULTILINE)
_NAMED_JOB = re.compile(rf"^(?:{AGENT_SIGN} |{JOB_NOTE}){_JOB_ID}(?![A-Za-z0-9_-])", re.MULTILINE)

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Dependency(msgspec.Struct, frozen=True):
    """One dependency of a bead. `status` is that of the other bead where it was looked up, or ""."""

    type: str = ""
    depends_on_id: str = ""
    status: str = ""


OWN = (
    "attempt", "attempts", "failures", "job", "error", "quarantined", "died", "deaths",
    "claimed_at", "armed_at", "retry_at", "unclaimed", "given_up",
)  # fmt: skip
"""bdauto's own metadata: each key is `bdauto.` and the name of the property that reads it."""
LARGEST_COUNT = 1_000_000
"""The largest believable count: bdauto adds one per dispatch."""


class Bead(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a bead that bdauto reads. Times are aware. `metadata` that is no object is read as absent.

    The properties are bdauto's own metadata. A value that makes no sense is read as absent and listed in `nonsense`.
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

    def __post_init__(self) -> None:
        """Make `metadata` a dictionary. bd stores any JSON there."""
        if not isinstance(self.metadata, dict):
            msgspec.structs.force_setattr(self, "metadata", {})

    @property
    def attempt(self) -> str:
        """The unique id of the current attempt, or "" when bdauto has not claimed this bead."""
        return self._word("bdauto.attempt")

    @property
    def attempts(self) -> int:
        """Dispatches charged since the bead was last re-armed."""
        return 0 if self.rearmed else self._count("bdauto.attempts")

    @property
    def failures(self) -> int:
        """Failed dispatches in a row, which the backoff grows with."""
        return self._count("bdauto.failures")

    @property
    def job(self) -> str:
        """The agent service's job of the current attempt, or ""."""
        return self._word("bdauto.job")

    @property
    def host(self) -> str:
        """The host that runs the agent of the current attempt, or "" when a service does."""
        return self._text("bdauto.host")

    @property
    def error(self) -> str:
        """What the last failed dispatch answered, or ""."""
        return self._text("bdauto.error")

    @property
    def quarantined(self) -> str:
        """Why bdauto blocked this bead, or "", also once somebody has re-armed it."""
        return "" if self.rearmed else self._text("bdauto.quarantined")

    @property
    def rearmed(self) -> bool:
        """Whether bdauto blocked this bead and somebody has opened it again since. The next claim forgets it."""
        return self.status not in ("blocked", "closed") and bool(self._text("bdauto.quarantined"))

    @property
    def died(self) -> str:
        """The attempt that ended in an early death and is charged for it, or ""."""
        return self._text(DIED)

    @property
    def deaths(self) -> int:
        """How often in a row an agent died early on this bead."""
        return self._count(DEATHS)

    @property
    def claimed_at(self) -> datetime | None:
        """When bdauto claimed the bead."""
        return self._time("bdauto.claimed_at")

    @property
    def armed_at(self) -> datetime | None:
        """When the bead began to wait, across failed dispatches. None for a bead that was never claimed."""
        return self._time("bdauto.armed_at")

    @property
    def retry_at(self) -> datetime | None:
        """Before this time the bead is not dispatched again."""
        return self._time("bdauto.retry_at")

    @property
    def unclaimed(self) -> str:
        """The job that was started under a claim which was gone before the job could be recorded, or ""."""
        return self._word(UNCLAIMED)

    @property
    def adopted(self) -> str:
        """The current attempt if it claims the bead for a job that bdauto did not start, or ""."""
        adopted = self._word(ADOPTED)
        return adopted if adopted == self.attempt else ""

    @property
    def given_up(self) -> str:
        """The job that the reaper has given up though the agent service called it alive, or ""."""
        return self._word(GIVEN_UP)

    @property
    def named_jobs(self) -> tuple[str, ...]:
        """The jobs that metadata and notes name, whoever wrote them: the youngest first, MOST_JOBS at most."""
        noted = reversed(_NAMED_JOB.findall(self.notes))
        return tuple(dict.fromkeys(job for job in (self.unclaimed, self.job, *noted) if job))[:MOST_JOBS]

    @property
    def signed_job(self) -> str:
        """The job that the agent has signed for in a note since the claim, or ""."""
        jobs = _SIGNED_JOB.findall(self.notes_since_claim)
        return jobs[-1] if jobs else ""

    @property
    def pending_note(self) -> str:
        """The note of the current claim, if it is not yet among the notes (embedded databases)."""
        note = self._text(PENDING_NOTE).partition(" ")[2]
        return note if re.match(rf"{CLAIM_NOTE}[0-9TZ:-]{{1,40}}\Z", note) else ""

    @property
    def claim_place(self) -> int:
        """The length of the notes at the current claim, or where the claim's note begins among them."""
        place = re.match(r"[0-9]{1,9} ", self._text(PENDING_NOTE))
        if place:
            return int(place[0])
        claims = list(re.finditer(rf"^{CLAIM_NOTE}[0-9TZ:-]+$", self.notes, re.MULTILINE))
        return claims[-1].start() if claims else 0

    @property
    def notes_since_claim(self) -> str:
        """The notes since the current claim, or all notes of a bead without a claim."""
        return self.notes[self.claim_place :]

    @property
    def nonsense(self) -> tuple[str, ...]:
        """The keys of bdauto's own metadata whose values make no sense. A re-armed bead's are forgotten."""
        if self.rearmed:
            return ()
        own = ((f"bdauto.{name}", getattr(self, name)) for name in OWN)
        return tuple(key for key, read in own if not read and self.metadata.get(key) not in (None, "", 0, "0"))

    def _text(self, key: str) -> str:
        value = self.metadata.get(key, "")
        if isinstance(value, str):
            return unguarded(value)
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""

    def _word(self, key: str) -> str:
        """Return an id, which goes into notes and URLs. What is no id is absent."""
        text = self._text(key)
        return text if re.match(JOB_PATTERN, text) else ""

    def _count(self, key: str) -> int:
        value = self.metadata.get(key, 0)  # some builds of bd store a number as text
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}", value):
            value = int(value)
        return value if type(value) is int and 0 <= value <= LARGEST_COUNT else 0

    def _time(self, key: str) -> datetime | None:
        text = self._text(key)
        if not text:  # as on most beads
            return None
        try:
            moment = parse_time(text)
            check_time(moment)
        except (ValueError, OverflowError):
            return None
        return moment


class BeadList(msgspec.Struct, frozen=True):
    """The beads of one answer, and one line for each malformed entry.

    `nonsense` has one line for each value of bdauto's own metadata that makes no sense and was read as absent.
    """

    beads: tuple[Bead, ...]
    malformed: tuple[str, ...] = ()
    nonsense: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the answer had no entries at all."""
        return not self.beads and not self.malformed


MALFORMED = (ValueError, RecursionError)
"""What msgspec raises for bytes that are not the JSON asked for: also broken UTF-8, and nesting without end."""

_JSON = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null", re.ASCII)


def guarded(text: str) -> str:
    """Protect a text from `bd update --set-metadata`, which would store `12e3` as the number 12000."""
    return f"{text}." if _JSON.fullmatch(text.rstrip(".")) else text


def unguarded(text: str) -> str:
    """Undo `guarded`."""
    return text[:-1] if text.endswith(".") and _JSON.fullmatch(text.rstrip(".")) else text


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 time. It is UTC if it has no offset. Raises ValueError, also at either end of the calendar."""
    try:
        value = datetime.fromisoformat(text)
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        check_time(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{clean(text, 40)!r} is not an ISO 8601 time: {error}") from None
    return value


def check_time(moment: datetime | None) -> None:
    """Raise OverflowError for a time at either end of the calendar, where arithmetic would overflow."""
    _ = moment and moment.astimezone(UTC) + timedelta(days=1)


def format_time(moment: datetime) -> str:
    """Write a time as notes and metadata hold it, e.g. `2026-04-18T22:35:46Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
