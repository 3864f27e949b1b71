"""The verbs of the stand-in for bd that write, in the real bd's words."""

# Paths are strings: pathlib alone would take a tenth of the start.
# ruff: noqa: PTH102, PTH103, PTH118, PTH119, PTH123

import json
import os
import re
import time
from collections.abc import Callable

from bdauto.sandbox.fake_bd.call import DATABASE, DAYS, NOMS, STATUSES, FakeBdError, FakeCall, priority_of
from bdauto.sandbox.fake_bd.events import record
from bdauto.sandbox.fake_bd.statements import sql
from bdauto.sandbox.fake_bd.store import TEXTS, TIMES, Row, issue_json, plain_time, rfc3339, stamp, unique

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPES = ("bug", "feature", "task", "epic", "chore", "decision", "gate", "message", "molecule", "merge-request", "event")
GUARD_MISMATCH = 13
ROLE_WARNING = (
    "warning: beads.role not configured (GH#2950).\n"
    "  Fix: git config beads.role maintainer\n  Or:  git config beads.role contributor\n"
)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def init(call: FakeCall) -> None:
    """`bd init`: a workspace in the current folder, embedded or (--server, --proxied-server) playing a server."""
    call.check_writable()
    folder = f"{call.cwd}/.beads"
    os.mkdir(folder, 0o700)
    prefix = call.flags.last("prefix") or os.path.basename(call.cwd)
    mode = next((mode for mode in ("server", "proxied-server") if mode in call.flags), "embedded")
    metadata = {
        "database": "dolt",
        "backend": "dolt",
        "dolt_mode": mode,
        "dolt_database": prefix,
        "project_id": unique(),
    }
    if mode != "embedded":
        metadata["sandbox_database"] = f"{folder}/{DATABASE}"
    with open(f"{folder}/metadata.json", "w", encoding="utf-8", opener=_private) as file:
        json.dump(metadata, file, indent=2)
    if mode != "embedded":
        os.mkdir(f"{folder}/dolt")
    else:
        noms = f"{folder}/{NOMS.format(prefix)}"
        os.makedirs(noms)
        with open(f"{noms}/manifest", "w", encoding="utf-8") as file:
            file.write("the sandbox's")
    call.store.insert("config", {"key": "issue_prefix", "value": prefix})
    call.out += f"✓ bd initialized successfully!\n  Mode: {mode}\n  Issue prefix: {prefix}\n"


def _moment(call: FakeCall, flag: str) -> str | None:
    """The time given by --defer or --due: `+6h` or ISO 8601. None for the empty text, which clears it."""
    text = call.flags.last(flag) or ""
    if not text:
        return None
    relative = re.fullmatch(r"\+(\d+)([hdwmy])", text)
    if relative:
        return stamp(ago=-int(relative[1]) * DAYS[relative[2]] * 86400)
    try:
        return plain_time(text)
    except ValueError:
        examples = "+1h, tomorrow, next monday, 2025-01-15"
        raise FakeBdError(f'invalid --{flag} format "{text}". Examples: {examples}') from None


def _new_id(call: FakeCall, parent: str | None) -> str:
    if parent:
        count = call.store.rows("SELECT COUNT(*) AS n FROM issues WHERE id LIKE ?", f"{parent}.%")[0]["n"]
        return f"{parent}.{int(str(count)) + 1}"
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    wisp = "wisp-" if "ephemeral" in call.flags else ""
    while True:
        number = int.from_bytes(os.urandom(8))
        tail = "".join(digits[number // 36**place % 36] for place in range(4 if wisp else 3))
        bead = f"{call.store.config('issue_prefix')}-{wisp}{tail}"
        if not call.store.issue(bead):
            return bead


def _new_issue(call: FakeCall) -> Row:
    flags = call.flags
    title = flags.last("title") or " ".join(flags.words[:1])
    if not flags.words and "title" not in flags:
        raise FakeBdError("title required (or use --file to create from markdown)", stdout=False)
    try:
        priority = priority_of(flags.last("priority") or "2")
    except FakeBdError as problem:
        raise FakeBdError(str(problem), stdout=False) from None
    kind = flags.last("type") or "task"
    if not title.strip() or kind not in TYPES:
        why = "title is required" if not title.strip() else f"invalid issue type: {kind}"
        raise FakeBdError(f"validation failed for issue : {why}", stdout=False)
    row: Row = {"title": title, "priority": priority, "issue_type": kind, "created_by": call.actor}
    for flag, column in {"acceptance": "acceptance_criteria", "assignee": "", "description": "", "notes": ""}.items():
        row[column or flag] = flags.last(flag) or ""
    row["metadata"] = flags.last("metadata") or "{}"
    row["ephemeral"] = int("ephemeral" in flags)
    row |= {"due_at": _moment(call, "due"), "defer_until": _moment(call, "defer")}
    return row | {"created_at": stamp(), "updated_at": stamp(), "status": "open"}


def create(call: FakeCall) -> None:
    """`bd create`."""
    call.check_writable()
    row = _new_issue(call)
    parent = call.need(call.flags.last("parent") or "") if call.flags.last("parent") else None
    with call.store.writing():
        bead = _new_id(call, parent)
        call.store.insert("issues", {"id": bead} | row)
        for label in call.flags.listed("labels", "label"):
            call.store.insert("labels", {"issue_id": bead, "label": label})
        if parent:
            _depend(call, bead, parent, "parent-child")
    shown = issue_json(
        row
        | {
            "id": bead,
            "owner": "",
            "design": "",
            "started_at": "",
            "closed_at": "",
            "close_reason": "",
            "pinned": 0,
            "is_template": 0,
        }
    )
    now = time.time_ns()
    fine = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09}".rstrip("0") + "Z"
    shown |= {"created_at": fine, "updated_at": fine}
    human = f"✓ Created issue: {bead} — {row['title']}\n  Priority: P{row['priority']}\n  Status: open"
    call.err += ROLE_WARNING
    call.touched = bead
    call.say(shown, bead if "silent" in call.flags else human)


def _metadata_value(text: str) -> object:
    """A --set-metadata value: numbers, true, false and null are parsed, the rest stays text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, str | dict | list) else value


def _edit_metadata(call: FakeCall, bead: str, row: Row) -> str:
    data = json.loads(str(row["metadata"] or "{}"))
    if call.flags.last("metadata"):
        data |= json.loads(call.flags.last("metadata") or "{}")
    for pair in call.flags.all("set-metadata"):
        key, equals, value = pair.partition("=")
        problem = f'invalid --set-metadata: expected key=value, got "{pair}"' if not (equals and key) else ""
        if not problem and not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.]*", key):
            problem = f'invalid metadata key "{key}": must match [a-zA-Z_][a-zA-Z0-9_.]*'
        if problem:
            raise FakeBdError(f"metadata edit failed for {bead}: {problem}")
        data[key] = _metadata_value(value)
    for key in call.flags.all("unset-metadata"):
        data.pop(key, None)
    return json.dumps(data, ensure_ascii=False)


def _status_changes(row: Row, status: str) -> Row:
    """Columns that follow the status: started_at on the first start, closed_at and its reason on close and reopen."""
    if status == "in_progress" and not row["started_at"]:
        return {"started_at": stamp()}
    if status == "closed":
        return {"closed_at": stamp()}
    return {"closed_at": None, "close_reason": ""} if row["status"] == "closed" else {}


def _changes(call: FakeCall, bead: str, row: Row) -> Row:
    """The columns that an `update` sets, from the bead as it was read."""
    flags, changes = call.flags, Row()
    for flag, column in {
        "assignee": "",
        "description": "",
        "design": "",
        "notes": "",
        "type": "issue_type",
        "acceptance": "acceptance_criteria",
        "title": "",
    }.items():
        if flag in flags:
            changes[column or flag] = flags.last(flag)
    if "priority" in flags:
        changes["priority"] = priority_of(flags.last("priority") or "")
    if "due" in flags:
        changes["due_at"] = _moment(call, "due")
    status = flags.last("status")
    if "defer" in flags:
        changes["defer_until"] = moment = _moment(call, "defer")
        if status is None and (moment or row["status"] == "deferred"):
            status = "deferred" if moment and moment > stamp() else "open" if not moment else None
    if status is not None:
        changes |= {"status": status} | _status_changes(row, status)
    if "append-notes" in flags:
        changes["notes"] = f"{row['notes']}\n" * bool(row["notes"]) + (flags.last("append-notes") or "")
    if any(name in flags for name in ("metadata", "set-metadata", "unset-metadata")):
        changes["metadata"] = _edit_metadata(call, bead, row)
    return changes


def _claim(call: FakeCall, bead: str, row: Row) -> bool:
    """`--claim`: takes an unassigned bead. The same actor's second claim succeeds silently, whatever the status."""
    with call.store.writing():
        now = call.store.issue(bead) or row
        if not now["assignee"]:
            taken: Row = {"assignee": call.actor, "status": "in_progress", "updated_at": stamp()}
            call.store.write(bead, taken | ({} if now["started_at"] else {"started_at": stamp()}))
        elif now["assignee"] != call.actor:
            call.warn(f"Error claiming {bead}: issue already claimed by {now['assignee']}")
            return False
    return True


def _mismatch(call: FakeCall, row: Row) -> str:
    """What a guard of bd 1.3 finds of the bead that is not as expected, or ""."""
    for name in ("status", "assignee"):
        expected = call.flags.last(f"if-{name}")
        if expected is not None and not call.modern:
            raise FakeBdError(f"unknown flag: --if-{name}", plain=True)
        if expected not in (None, row[name] or ""):
            return f'{name} mismatch: {row["id"]} has {name} "{row[name]}", expected "{expected}"'
    return ""


def _is_stolen(call: FakeCall, row: Row, changes: Row) -> bool:
    """Whether an update takes a bead in progress from somebody else, which bd 1.3 refuses."""
    if not call.modern or "force" in call.flags or row["status"] != "in_progress" or "assignee" not in changes:
        return False
    return row["assignee"] not in ("", None, call.actor, changes["assignee"])


def _update_one(call: FakeCall, bead: str) -> bool:
    row = call.store.issue(bead) or {}
    if "claim" in call.flags and not _claim(call, bead, row):
        return False
    changes = _changes(call, bead, row)
    if mismatch := _mismatch(call, row):
        call.warn(f"Error updating {bead}: {mismatch}")
        call.err += json.dumps({"error": "1 of 1 issues failed to update", "failed": [{"guard_mismatch": True}]}) + "\n"
        call.code = GUARD_MISMATCH
        return False
    if _is_stolen(call, row, changes):
        call.warn(f'cannot reassign {bead}: held by "{row["assignee"]}" (in_progress)')
        return False
    if "issue_type" in changes and changes["issue_type"] not in TYPES:
        call.warn(f"Error updating {bead}: invalid issue type: {changes['issue_type']}")
        return False
    if changes:
        call.store.write(bead, changes | {"updated_at": stamp()})
    for label in call.flags.listed("add-label"):
        call.store.insert("labels", {"issue_id": bead, "label": label})
    for label in call.flags.listed("remove-label"):
        call.store.db.execute("DELETE FROM labels WHERE issue_id = ? AND label = ?", (bead, label))
    labels = (("+", "add-label"), ("-", "remove-label"))
    record(call, bead, row, changes, [sign + label for sign, flag in labels for label in call.flags.listed(flag)])
    return True


def update(call: FakeCall) -> None:
    """`bd update`: reads each bead, then writes it. On a server another writer may come in between, as with bd."""
    call.check_writable()
    status = call.flags.last("status")
    if status is not None and status not in STATUSES:
        names = ", ".join(STATUSES)
        hint = "or configure custom statuses via 'bd config set status.custom'"
        raise FakeBdError(f'invalid status "{status}" (built-in: {names}; {hint})')
    if "notes" in call.flags and "append-notes" in call.flags:
        raise FakeBdError("cannot specify both --notes and --append-notes")
    if not set(call.flags.values) - {"json", "db", "actor", "quiet", "verbose", "sandbox"}:
        call.out += "No updates specified\n"
        return
    done = []
    for name in call.flags.words:
        bead = call.store.resolve(name)
        if not bead:
            call.warn(f'Error resolving {name}: no issue found matching "{name}"', failed=False)
        elif call.server:
            done += [bead] if _update_one(call, bead) else []
        else:
            with call.store.writing():
                done += [bead] if _update_one(call, bead) else []
    call.failed = not done
    call.touched = next(iter(done), "")
    rows = [call.store.issue(bead) or {} for bead in done]
    if call.json and done:
        call.say([issue_json(row, labels=call.store.labels(str(row["id"]))) for row in rows], "")
    elif not call.json:
        call.out += "".join(f"✓ Updated issue: {row['id']} — {row['title']}\n" for row in rows)


def note(call: FakeCall) -> None:
    """`bd note`: append a line to the notes."""
    call.check_writable()
    text = " ".join(call.flags.words[1:])
    if not call.flags.words[1:]:
        raise FakeBdError("no note text provided (use positional args, --stdin, or --file)")
    if not text:
        raise FakeBdError("note text is empty")
    bead = call.resolving(call.flags.words[0])
    call.flags.values["append-notes"] = [text]
    if call.server:
        _update_one(call, bead)
    else:
        with call.store.writing():
            _update_one(call, bead)
    row = call.store.issue(bead) or {}
    call.touched = bead
    call.say(issue_json(row, labels=call.store.labels(bead)), f"✓ Note added to {bead} — {row['title']}")


def comment(call: FakeCall) -> None:
    """`bd comment`: comments never overwrite each other."""
    call.check_writable()
    bead = call.resolving(call.flags.words[0])
    row: Row = {"id": unique(), "issue_id": bead, "author": call.actor, "text": " ".join(call.flags.words[1:])}
    call.store.insert("comments", row | {"created_at": stamp()})
    title = (call.store.issue(bead) or {}).get("title")
    call.touched = bead
    call.say(row | {"created_at": rfc3339(stamp())}, f"✓ Comment added to {bead} — {title}")


def close(call: FakeCall) -> None:
    """`bd close`."""
    call.check_writable()
    reason = call.flags.last("reason") or "Closed"
    done = []
    for name in call.flags.words if call.modern and "force" not in call.flags else ():
        row = call.store.issue(call.resolving(name, "resolving ID")) or {}
        if row.get("assignee") not in ("", None, call.actor):
            holder = f'assignee is "{row["assignee"]}", actor is "{call.actor}"'
            call.warn(f"cannot close {row['id']}: {holder}; reclaim or use --force to override")
            return
    for bead in [call.resolving(name, "resolving ID") for name in call.flags.words]:
        changes: Row = {"status": "closed", "closed_at": stamp(), "close_reason": reason, "updated_at": stamp()}
        before = call.store.issue(bead) or {}
        if call.store.write(bead, changes):
            record(call, bead, before, changes)
            done.append(call.store.issue(bead) or {})
        else:
            call.warn(f"Error closing {bead}: issue not found: {bead}", failed=False)
    call.failed = not done
    if call.json and done:
        call.say([issue_json(row, labels=call.store.labels(str(row["id"]))) for row in done], "")
    elif not call.json:
        call.out += "".join(f"✓ Closed {row['id']} — {row['title']}: {reason}\n" for row in done)


def _depend(call: FakeCall, bead: str, other: str, kind: str) -> None:
    row: Row = {"issue_id": bead, "depends_on_id": other, "type": kind}
    call.store.insert("dependencies", row | {"created_at": stamp(), "created_by": call.actor})


def delete(call: FakeCall) -> None:
    """`bd delete`, which without --force shows only what it would do."""
    call.check_writable()
    bead = call.resolving(call.flags.words[0])
    if "force" not in call.flags:
        call.out += f"DELETE PREVIEW\n\nIssue to delete:\n  {bead}\n"
        return
    call.store.delete(bead)
    call.say({"deleted": bead, "dependencies_removed": 0, "references_updated": 0}, f"Deleted {bead}")


def dep_add(call: FakeCall) -> None:
    """`bd dep add A B`: A waits for B."""
    call.check_writable()
    words = call.flags.words + call.flags.all("blocked-by") + call.flags.all("depends-on")
    bead = call.resolving(words[0], "resolving issue ID")
    other, kind = call.store.resolve(words[1]) or words[1], call.flags.last("type") or "blocks"
    epics = [(call.store.issue(name) or {"issue_type": ""})["issue_type"] == "epic" for name in (bead, other)]
    if kind == "blocks" and call.store.issue(other) and epics[0] != epics[1]:
        one, two = ("epics", "tasks") if epics[0] else ("tasks", "epics")
        raise FakeBdError(f"{one} can only block other {one}, not {two}")
    _depend(call, bead, other, kind)
    row: Row = {"status": "added", "issue_id": bead, "depends_on_id": other, "type": kind}
    call.say(row, f"✓ Added dependency: {bead} depends on {other} ({kind})")


def import_(call: FakeCall) -> None:
    """`bd import FILE`: adds or overwrites beads, one JSON object per line, with any id, times and flags."""
    call.check_writable()
    name = call.flags.words[0]
    with open(os.path.join(call.cwd, name), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    with call.store.writing():
        for line in lines:
            _import_one(call, line)
    done = {"created": len(lines), "ids": [line["id"] for line in lines], "skipped": 0, "source": name}
    call.say(done, f"Imported {len(lines)} issues from {name}")


def _import_one(call: FakeCall, line: "dict[str, Any]") -> None:
    bead = str(line["id"])
    row: Row = {"status": "open", "priority": 0, "issue_type": "task", "created_at": stamp(), "updated_at": stamp()}
    row |= {
        name: line[name] for name in (*TEXTS, *row, "assignee", "owner", "created_by", "close_reason") if line.get(name)
    }
    row |= {name: plain_time(str(line[name])) for name in TIMES if line.get(name)}
    row |= {name: int(bool(line.get(name))) for name in ("pinned", "ephemeral", "is_template")}
    if row["issue_type"] not in TYPES or row["status"] not in STATUSES:
        what = ("type", "issue_type") if row["issue_type"] not in TYPES else ("status", "status")
        problem = f"import failed: validation failed for issue {bead}: invalid issue {what[0]}: {row[what[1]]}"
        raise FakeBdError(problem, plain=True)
    call.store.insert("issues", {"id": bead, "metadata": json.dumps(line.get("metadata") or {})} | row)
    for label in line.get("labels") or ():
        call.store.insert("labels", {"issue_id": bead, "label": label})
    for other in line.get("dependencies") or ():
        _depend(call, bead, other["depends_on_id"], other["type"])


def kv_set(call: FakeCall) -> None:
    """`bd kv set`."""
    call.check_writable()
    key, value = call.flags.words
    if not key.strip() or key.startswith("kv."):
        why = "cannot start with 'kv.' (would create nested prefix)" if key.strip() else "cannot be empty"
        raise FakeBdError(f"invalid key: key {why}")
    call.store.insert("config", {"key": f"kv.{key}", "value": value})
    call.say({"key": key, "value": value}, f"Set {key} = {value}")


def kv_clear(call: FakeCall) -> None:
    """`bd kv clear`: also a success when the key is not set."""
    call.check_writable()
    key = call.flags.words[0]
    call.store.db.execute("DELETE FROM config WHERE key = ?", (f"kv.{key}",))
    call.say({"key": key, "deleted": "true"}, f"Cleared {key}")


def dolt_commit(call: FakeCall) -> None:
    """`bd dolt commit`: plain text, also with --json."""
    call.check_writable()
    call.out += "Nothing to commit.\n"


WRITES: dict[str, Callable[[FakeCall], None]] = {
    "init": init,
    "create": create,
    "update": update,
    "note": note,
    "comment": comment,
    "close": close,
    "delete": delete,
    "dep add": dep_add,
    "dolt commit": dolt_commit,
    "import": import_,
    "kv set": kv_set,
    "kv clear": kv_clear,
    "sql": sql,
}
