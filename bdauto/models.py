"""What bdauto reads from bd, as frozen types, and the strict parsing of it.

Unknown fields and statuses are fine, absent means empty; a wrong type, an impossible time stamp or a broken id is not.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from bdauto.errors import BdDrift
from bdauto.text import clean

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z"
"""Bead ids: what bd makes (prefix, hash, dotted children), and nothing that an argv or SQL could misread."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Dependency(msgspec.Struct, frozen=True):
    """One dependency of a bead: as in `bd ready` (ids only) or as in `bd show` (the other bead, with its status)."""

    type: str = ""
    dependency_type: str = ""
    depends_on_id: str = ""
    id: str = ""
    status: str = ""


class Bead(msgspec.Struct, frozen=True, kw_only=True):
    """A bead, as far as bdauto reads it; times are aware. The properties are bdauto's own metadata."""

    id: Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
    status: str
    priority: Annotated[int, msgspec.Meta(ge=0, le=4)]
    updated_at: Time
    created_at: Time
    title: str = ""
    acceptance_criteria: str = ""
    notes: str = ""
    issue_type: str = "task"
    assignee: str = ""
    created_by: str = ""
    defer_until: Time | None = None
    metadata: dict[str, Any] | None = None
    labels: list[str] | None = None
    dependencies: list[Dependency] | None = None
    pinned: bool = False
    is_template: bool = False
    ephemeral: bool = False

    @property
    def attempt(self) -> str:
        """The unique id of the current attempt, or "" when bdauto has not claimed this bead."""
        return self._text("bdauto.attempt")

    @property
    def attempts(self) -> int:
        """Dispatches charged since the bead was last re-armed."""
        return self._count("bdauto.attempts")

    @property
    def failures(self) -> int:
        """Failed dispatches in a row, which the backoff grows with."""
        return self._count("bdauto.failures")

    @property
    def job(self) -> str:
        """The agent service's job of the current attempt, or ""."""
        return self._text("bdauto.job")

    @property
    def error(self) -> str:
        """What the last failed dispatch answered, or ""."""
        return self._text("bdauto.error")

    @property
    def set_aside(self) -> str:
        """Why bdauto blocked this bead, or ""."""
        return self._text("bdauto.blocked")

    @property
    def claimed_at(self) -> datetime | None:
        """When bdauto claimed the bead."""
        return self._time("bdauto.claimed_at")

    @property
    def retry_at(self) -> datetime | None:
        """Before this time the bead is not dispatched again."""
        return self._time("bdauto.retry_at")

    def _text(self, key: str) -> str:
        value = (self.metadata or {}).get(key, "")
        return unguarded(value) if isinstance(value, str) else str(value)

    def _count(self, key: str) -> int:
        value = (self.metadata or {}).get(key, 0)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0

    def _time(self, key: str) -> datetime | None:
        value = self._text(key)
        return parse_time(value) if value else None


class BeadList(msgspec.Struct, frozen=True):
    """The beads of one answer, and one line for each entry that could not be read."""

    beads: tuple[Bead, ...]
    malformed: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the answer had no entries at all."""
        return not self.beads and not self.malformed


UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises for bytes that are not the JSON asked for: also broken UTF-8, and nesting without end."""

_entries = msgspec.json.Decoder(list[msgspec.Raw])
_bead = msgspec.json.Decoder(Bead)


def parse_beads(answer: bytes, command: str, *, understood: bool = False) -> BeadList:
    """Parse a JSON list of issues; an entry that is malformed is left out and named.

    Raises BdDrift when the answer is not a list, or no entry of it can be read: then bd has changed its shape, unless
    an earlier answer was `understood`.
    """
    try:
        entries = _entries.decode(unwrap(answer, command))
    except UNREADABLE as error:
        raise BdDrift(f"{command}: {clean(str(error))}: expected a JSON list of issues; check `bd version`") from None
    beads, malformed = [], []
    for index, entry in enumerate(entries):
        try:
            bead = _bead.decode(entry)
            _check_times(bead)
        except (*UNREADABLE, OverflowError) as error:
            malformed.append(f"{command}: entry {index}{_name(entry)}: {clean(str(error))}")
        else:
            beads.append(bead)
    if malformed and not beads and not understood:
        raise BdDrift(f"{malformed[0]} (none of {len(entries)} can be read); check `bd version` against bdauto's")
    return BeadList(tuple(beads), tuple(malformed))


def _check_times(bead: Bead) -> None:
    """Raise OverflowError or ValueError for a time at the end of the calendar, which cannot be reckoned with."""
    for moment in (bead.updated_at, bead.created_at, bead.defer_until, bead.claimed_at, bead.retry_at):
        _ = moment and moment.astimezone(UTC) + timedelta(days=1)


def _name(entry: msgspec.Raw) -> str:
    match = re.search(rb'"id"\s*:\s*"([A-Za-z0-9._-]{1,80})"', bytes(entry))
    return f" ({match[1].decode()})" if match else ""


def unwrap(answer: bytes, command: str) -> bytes:
    """Return the payload of an answer that later versions of bd wrap as `{"schema_version": …, "data": …}`."""
    if not answer.lstrip().startswith(b"{"):
        return answer
    envelope = parse_object(answer, command)
    return msgspec.json.encode(envelope["data"]) if "data" in envelope else answer


_JSON = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null", re.ASCII)


def guarded(text: str) -> str:
    """Return a text as `bd update --set-metadata` must get it to keep it one: `12e3` would become 12000."""
    return f"{text}." if _JSON.fullmatch(text.rstrip(".")) else text


def unguarded(text: str) -> str:
    """Undo `guarded`."""
    return text[:-1] if text.endswith(".") and _JSON.fullmatch(text.rstrip(".")) else text


def parse_object(answer: bytes, command: str) -> Mapping[str, Any]:
    """Parse a JSON object, taking it out of bd's envelope if it is in one; raises BdDrift."""
    try:
        value = msgspec.json.decode(answer, type=dict[str, Any])
    except UNREADABLE as error:
        raise BdDrift(f"{command}: {clean(str(error))}: expected a JSON object; check `bd version`") from None
    inner = value.get("data")
    return inner if isinstance(inner, dict) else value


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 time with an offset; raises ValueError. One without an offset is taken as UTC."""
    from dateutil.parser import isoparse  # takes as long to import as msgspec; few beads have a time in their metadata

    try:
        value = isoparse(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{clean(text, 40)!r} is not an ISO 8601 time: {error}") from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """Write a time as notes and metadata hold it, e.g. `2026-04-18T22:35:46Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
