"""Who changed what on a bead, as bd has recorded it.

Notes can be written by anybody in any name. bd records for each change of a field the actor that its writer gave, so
these records tell the agent's own changes from those of others.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED

CHECKER = "bdauto-check"
"""Whom a check writes as. Its changes are neither the agent's nor a person's."""
FIELDS = ("status", "assignee", "issue_type")
"""Fields of a bead whose changes count."""
_LABELS = {"label_added": ("Added label: ", "+"), "label_removed": ("Removed label: ", "-")}
"""How bd records a change of labels: the start of its comment, and the sign that `Edit.value` begins with."""


class Edit(msgspec.Struct, frozen=True):
    """One recorded change of one field. `at` is bd's time of it, as text.

    For a label `field` is "label", and `value` is the label with "+" or "-" before it.
    """

    bead: str
    actor: str
    field: str
    value: str
    at: str


def shown_name(who: str | None) -> str:
    """Return a name that somebody gave to bd, on one line."""
    return clean(who or "", 60)


def author(edits: Collection[Edit], bead: str, field: str, value: str) -> str | None:
    """Return who gave this field of the bead this value last, None if that is not known.

    bd's times have a resolution of a second. Two writers of the same value within one cannot be told apart.
    """
    found = [edit for edit in edits if (edit.bead, edit.field, edit.value) == (bead, field, value)]
    last = max((edit.at for edit in found), default="")
    actors = {edit.actor for edit in found if edit.at == last}
    return actors.pop() if len(actors) == 1 else None


def read_events(rows: Iterable[Mapping[str, Any]]) -> list[Edit]:
    """Read rows of bd's table `events`, or of `bd history --events`. Rows about other fields are left out."""
    return [edit for row in rows for edit in _edits(row)]


def _edits(row: Mapping[str, Any]) -> list[Edit]:
    bead, actor, kind, at = (str(row.get(key) or "") for key in ("issue_id", "actor", "event_type", "created_at"))
    if kind in _LABELS:
        start, sign = _LABELS[kind]
        return [Edit(bead, actor, "label", sign + str(row.get("comment") or "").removeprefix(start), at)]
    values = _object(row.get("new_value"))
    if kind == "closed":  # `bd close` has the reason in place of the values, in the words of its writer
        values = {"status": "closed"}
    elif kind == "reopened":
        values = {"status": "open", **values}
    elif kind == "updated":  # bd changes no status by these, and bdauto records in them the status that it found
        values = {name: value for name, value in values.items() if name != "status"}
    return [Edit(bead, actor, name, str(values[name] or ""), at) for name in FIELDS if name in values]


def read_log(lines: Iterable[bytes]) -> list[Edit]:
    """Read lines of the file `interactions.jsonl`, in which some versions of bd record changes of fields."""
    entries = [_object(line) for line in lines if line.startswith(b"{")]
    return [
        Edit(
            str(entry.get("issue_id")),
            str(entry.get("actor")),
            str(extra.get("field")),
            str(extra.get("new_value")),
            str(entry.get("created_at")),
        )
        for entry in entries
        if entry.get("kind") == "field_change" and isinstance(extra := entry.get("extra"), dict)
    ]


def _object(text: object) -> Mapping[str, Any]:
    """Return a JSON object, empty for anything else."""
    if isinstance(text, dict):
        return text
    try:
        value = msgspec.json.decode(text) if isinstance(text, str | bytes) else None
    except MALFORMED:
        return {}
    return value if isinstance(value, dict) else {}
