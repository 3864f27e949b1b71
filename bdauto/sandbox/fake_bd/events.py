"""What the stand-in records of each change, as bd does: who changed which field of a bead.

On a server, and from 1.3 on everywhere, it is a row of the table `events`. Before that an embedded bd only appends the
changes of status and assignee to a file.
"""

# Paths are strings: pathlib alone would take a tenth of the start.
# ruff: noqa: PTH118, PTH123

import json
import os
from collections.abc import Sequence

from bdauto.sandbox.fake_bd.call import FakeBdError, FakeCall
from bdauto.sandbox.fake_bd.store import Row, rfc3339, stamp, unique

FIELDS = ("status", "assignee", "issue_type")
LOG = "interactions.jsonl"


def record(call: FakeCall, bead: str, before: Row, changes: Row, labels: Sequence[str] = ()) -> None:
    """Record the fields that a change gives other values, and its labels: `+x` was added, `-x` was removed."""
    new = {name: changes[name] for name in FIELDS if name in changes and changes[name] != before.get(name)}
    if not call.server and not call.modern:
        for name in ("status", "assignee"):
            if name in new:
                _append(call, bead, name, before.get(name) or "", new[name])
        return
    rows: list[Row] = []
    if new:
        rows += [{"event_type": _kind(before, new), "new_value": json.dumps(new)}]
    for label in labels:
        done = ("label_added", "Added") if label[0] == "+" else ("label_removed", "Removed")
        rows += [{"event_type": done[0], "new_value": "", "comment": f"{done[1]} label: {label[1:]}"}]
    for row in rows:
        plain: Row = {"id": unique(), "issue_id": bead, "actor": call.actor, "old_value": "", "created_at": stamp()}
        call.store.insert("events", plain | row)


def _kind(before: Row, new: Row) -> str:
    if "status" not in new:
        return "updated"
    if new["status"] == "closed":
        return "closed"
    return "reopened" if before.get("status") == "closed" else "status_changed"


def _append(call: FakeCall, bead: str, field: str, old: object, new: object) -> None:
    entry = {
        "id": f"int-{unique()[:8]}",
        "kind": "field_change",
        "created_at": rfc3339(stamp()),
        "actor": call.actor,
        "issue_id": bead,
        "extra": {"field": field, "new_value": new, "old_value": old},
    }
    with open(os.path.join(call.folder, LOG), "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def history(call: FakeCall) -> None:
    """`bd history ID --events`, of bd 1.3: the recorded changes, the newest first."""
    if not call.modern:
        raise FakeBdError("unknown flag: --events", plain=True)
    rows = call.store.rows("SELECT * FROM events WHERE issue_id = ? ORDER BY created_at DESC", call.flags.words[0])
    call.say([row | {"created_at": rfc3339(row["created_at"])} for row in rows], "")
