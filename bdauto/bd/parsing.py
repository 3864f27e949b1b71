"""What bdauto reads from bd, as frozen types, and the strict parsing of it.

Unknown fields and statuses are accepted, and absent means empty. A wrong type, an impossible time or a broken id makes
a bead malformed. One bead's content never decides whether another can be read.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from bdauto.common.errors import BdDrift
from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED, Bead, BeadList
from bdauto.domain.times import check_time

_entries = msgspec.json.Decoder(list[msgspec.Raw])
_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
_bead = msgspec.json.Decoder(Bead)

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
"""What delimits the members of a JSON array or object: strings, which may hold anything, and punctuation."""


class _Shape(msgspec.Struct):
    """The fields that every bead has, with any content: an entry without them comes from a bd that has changed."""

    id: str
    status: str
    priority: int
    updated_at: str
    created_at: str


_shape = msgspec.json.Decoder(_Shape)


def parse_beads(answer: bytes, command: str, *, understood: bool = False) -> BeadList:
    """Parse a JSON list of issues. A malformed entry is left out and named.

    Raises BdDrift when the answer is not a list, or no entry of it has the shape of a bead: then bd has changed, unless
    an earlier answer was `understood`.
    """
    try:
        entries = _members_of(unwrap(answer, command))
    except MALFORMED as error:
        raise BdDrift(
            f"{command}: {clean(str(error))}: expected a JSON list of issues", hint="check `bd version`"
        ) from None
    beads, malformed, invalid_metadata = [], [], []
    for index, entry in enumerate(entries):
        try:
            bead = _bead.decode(entry)
            for moment in (bead.updated_at, bead.created_at, bead.closed_at, bead.defer_until):
                check_time(moment)
        except (*MALFORMED, OverflowError) as error:
            malformed.append(f"{command}: entry {index}{_name(entry)}: {clean(str(error))}")
        else:
            beads.append(bead)
            invalid_metadata += [
                f"{bead.id}: {key}={clean(str(bead.metadata[key]), 60)!r}" for key in bead.invalid_metadata
            ]
    if malformed and not beads and not understood and not any(map(_has_shape, entries)):
        raise BdDrift(
            f"{malformed[0]} (none of {len(entries)} can be read)", hint="check `bd version` against bdauto's"
        )
    return BeadList(tuple(beads), tuple(malformed), tuple(invalid_metadata))


def _members_of(answer: bytes) -> list[bytes]:
    """Split a list into its entries. Raises ValueError or RecursionError if it is not a list."""
    try:
        return [bytes(entry) for entry in _entries.decode(answer)]
    except RecursionError:  # one entry is nested too deeply; the others are fine
        return _split(answer, b"[")


def _split(container: bytes, opening: bytes) -> list[bytes]:
    """Split a JSON array or object into its members without descending into them, however deep they are.

    Raises ValueError if it does not open so, or is not balanced.
    """
    depth, start, members = 0, 0, list[bytes]()
    if not container.lstrip().startswith(opening):
        raise ValueError(f"no {opening.decode()} at the start")
    for token in _TOKEN.finditer(container):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            start = token.end() if depth == 1 else start
        elif mark in (b"]", b"}", b","):
            if depth == 1:
                members.append(container[start : token.start()].strip())
                start = token.end()
            depth -= mark != b","
    if depth:
        raise ValueError("a bracket is not closed")
    return [member for member in members if member]


def _has_shape(entry: bytes) -> bool:
    try:
        _shape.decode(entry)
    except RecursionError:
        return True  # bd nests what people wrote, never its own fields
    except ValueError:
        return False
    return True


def _name(entry: bytes) -> str:
    match = re.search(rb'"id"\s*:\s*"([A-Za-z0-9._-]{1,80})"', entry)
    return f" ({match[1].decode()})" if match else ""


def unwrap(answer: bytes, command: str) -> bytes:
    """Return the payload of an answer that later versions of bd wrap as `{"schema_version": …, "data": …}`."""
    if not answer.lstrip().startswith(b"{"):
        return answer
    try:
        return bytes(_envelope.decode(answer).get("data", answer))
    except RecursionError:
        fields = (re.match(rb'"data"\s*:', member) for member in _split(answer, b"{"))
        return next((field.string[field.end() :] for field in fields if field), answer)
    except ValueError as error:
        raise BdDrift(f"{command}: {clean(str(error))}: expected a JSON object", hint="check `bd version`") from None


def parse_object(answer: bytes, command: str) -> Mapping[str, Any]:
    """Parse a JSON object, without bd's envelope if it has one. Raises BdDrift."""
    try:
        value = msgspec.json.decode(answer, type=dict[str, Any])
    except MALFORMED as error:
        raise BdDrift(f"{command}: {clean(str(error))}: expected a JSON object", hint="check `bd version`") from None
    inner = value.get("data")
    return inner if isinstance(inner, dict) else value
