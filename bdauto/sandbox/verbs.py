"""The verbs of the stand-in for bd: one function each, in the real bd's words."""

import json
import re
import time
import uuid
from collections.abc import Callable

from bdauto.sandbox.bd import DATABASE, ROLE_WARNING, BdError, Call
from bdauto.sandbox.store import TIMES, Row, issue_json, plain_time, rfc3339, split_list, stamp

STATUSES = ("open", "in_progress", "blocked", "deferred", "closed", "pinned", "hooked")
TYPES = ("bug", "feature", "task", "epic", "chore", "decision", "gate", "message", "molecule", "merge-request", "event")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def version(call: Call) -> None:
    """`bd version`."""
    call.say({"version": call.version, "build": "sandbox"}, f"bd version {call.version} (sandbox)")


def where(call: Call) -> None:
    """`bd where`: the beads folder, and the database in it."""
    folder = call.find_folder()
    if folder is None:
        hint = "check BEADS_DIR/worktree setup, or run 'bd init' to create a new database"
        message = "No active beads workspace found."
        call.failed = True
        if call.json:
            call.say({"error": "no_beads_directory", "message": message, "hint": hint}, "")
        else:
            call.warn(f"Error: {message}\nHint: {hint}")
        return
    database = folder / ("dolt" if call.server else "embeddeddolt")
    call.say({"path": str(folder), "database_path": str(database)}, f"{folder}\n  database: {database}")


def init(call: Call) -> None:
    """`bd init`: a workspace in the current folder, embedded or (--server) playing a shared server."""
    call.check_writable()
    folder = call.cwd / ".beads"
    folder.mkdir(mode=0o700)
    prefix = call.flags.last("prefix") or call.cwd.name
    mode = "server" if "server" in call.flags else "embedded"
    metadata = {
        "database": "dolt",
        "backend": "dolt",
        "dolt_mode": mode,
        "dolt_database": prefix,
        "project_id": str(uuid.uuid4()),
        "sandbox_database": str(folder / DATABASE),
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2))
    (folder / "metadata.json").chmod(0o600)
    (folder / ("dolt" if mode == "server" else "embeddeddolt")).mkdir()
    call.store.insert("config", {"key": "issue_prefix", "value": prefix})
    call.out += f"✓ bd initialized successfully!\n  Mode: {mode}\n  Issue prefix: {prefix}\n"


def _priority(text: str) -> int:
    found = re.fullmatch(r"[Pp]?([0-4])", text)
    if not found:
        raise BdError(f'invalid priority "{text}" (expected 0-4 or P0-P4, not words like high/medium/low)')
    return int(found[1])


def _moment(call: Call, flag: str) -> str | None:
    """The time given by --defer or --due: `+6h` or ISO 8601; None for the empty text, which clears it."""
    text = call.flags.last(flag) or ""
    if not text:
        return None
    relative = re.fullmatch(r"\+(\d+)([hdwm])", text)
    if relative:
        return stamp(ago=-int(relative[1]) * UNITS[relative[2]])
    try:
        return plain_time(text)
    except ValueError:
        examples = "+1h, tomorrow, next monday, 2025-01-15"
        raise BdError(f'invalid --{flag} format "{text}". Examples: {examples}') from None


def _new_id(call: Call, parent: str | None) -> str:
    if parent:
        count = call.store.rows("SELECT COUNT(*) AS n FROM issues WHERE id LIKE ?", f"{parent}.%")[0]["n"]
        return f"{parent}.{int(str(count)) + 1}"
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    wisp = "wisp-" if "ephemeral" in call.flags else ""
    while True:
        number = uuid.uuid4().int
        tail = "".join(digits[number // 36**place % 36] for place in range(4 if wisp else 3))
        bead = f"{call.store.config('issue_prefix')}-{wisp}{tail}"
        if not call.store.issue(bead):
            return bead


def _new_issue(call: Call) -> Row:
    flags = call.flags
    title = flags.last("title") or " ".join(flags.words[:1])
    if not flags.words and "title" not in flags:
        raise BdError("title required (or use --file to create from markdown)", stdout=False)
    try:
        priority = _priority(flags.last("priority") or "2")
    except BdError as problem:
        raise BdError(str(problem), stdout=False) from None
    kind = flags.last("type") or "task"
    if not title.strip() or kind not in TYPES:
        why = "title is required" if not title.strip() else f"invalid issue type: {kind}"
        raise BdError(f"validation failed for issue : {why}", stdout=False)
    row: Row = {"title": title, "priority": priority, "issue_type": kind, "created_by": call.actor}
    for flag, column in {"acceptance": "acceptance_criteria", "assignee": "", "description": "", "notes": ""}.items():
        row[column or flag] = flags.last(flag) or ""
    row["metadata"] = flags.last("metadata") or "{}"
    row["ephemeral"] = int("ephemeral" in flags)
    row |= {"due_at": _moment(call, "due"), "defer_until": _moment(call, "defer")}
    return row | {"created_at": stamp(), "updated_at": stamp(), "status": "open"}


def create(call: Call) -> None:
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
    call.say(shown, human)


def _counted(call: Call, row: Row) -> Row:
    """A bead as lists show it: with labels, its dependencies' records, and counts."""
    bead = row["id"]
    shown = issue_json(row, labels=call.store.labels(str(bead)))
    records = call.store.rows("SELECT * FROM dependencies WHERE issue_id = ? ORDER BY created_at", bead)
    if records:
        shown["dependencies"] = [
            record | {"created_at": rfc3339(record["created_at"]), "metadata": "{}"} for record in records
        ]
    blocks = "SELECT COUNT(*) AS n FROM dependencies WHERE type = 'blocks' AND "
    shown["dependency_count"] = call.store.rows(blocks + "issue_id = ?", bead)[0]["n"]
    shown["dependent_count"] = call.store.rows(blocks + "depends_on_id = ?", bead)[0]["n"]
    shown["comment_count"] = call.store.rows("SELECT COUNT(*) AS n FROM comments WHERE issue_id = ?", bead)[0]["n"]
    parents = [record["depends_on_id"] for record in records if record["type"] == "parent-child"]
    return shown | ({"parent": parents[0]} if parents else {})


def _text(rows: list[Row]) -> str:
    return "\n".join(f"{row['id']} [P{row['priority']}] [{row['status']}] {row['title']}" for row in rows)


def _say_list(call: Call, rows: list[Row]) -> None:
    call.say([_counted(call, row) for row in rows] if call.json else [], _text(rows))


def _number(call: Call, flag: str, default: int) -> int:
    text = call.flags.last(flag)
    try:
        return default if text is None else int(text)
    except ValueError:
        problem = f'invalid argument "{text}" for "--{flag}" flag: strconv.ParseInt: parsing "{text}": invalid syntax'
        raise BdError(problem, plain=True) from None


def _by_priority(rows: list[Row]) -> list[Row]:
    """bd's order: most urgent first, then the youngest."""
    rows = sorted(rows, key=lambda row: str(row["id"]))
    rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
    return sorted(rows, key=lambda row: int(str(row["priority"])))


def ready(call: Call) -> None:
    """`bd ready`: beads that can be worked on."""
    flags = call.flags
    limit, excluded = _number(call, "limit", 10), flags.listed("exclude-type")
    priority = _number(call, "priority", -1)
    wanted, unwanted = set(flags.listed("label")), set(flags.listed("exclude-label"))

    def keep(row: Row) -> bool:
        labels = set(call.store.labels(str(row["id"]))) if wanted or unwanted else set()
        return (
            flags.last("assignee") in (None, "", row["assignee"])
            and priority in (-1, row["priority"])
            and flags.last("type") in (None, "", row["issue_type"])
            and row["issue_type"] not in excluded
            and wanted <= labels
            and not unwanted & labels
        )

    order = flags.last("sort") or "priority"
    if order not in ("priority", "oldest", "hybrid"):
        raise BdError(f"invalid sort policy '{order}'. Valid values: hybrid, priority, oldest", stdout=False)
    rows = _by_priority(call.store.ready(keep))
    if order == "oldest":
        rows.sort(key=lambda row: (str(row["created_at"]), str(row["id"])))
    elif order == "hybrid":
        rows.sort(key=lambda row: _hybrid(row, stamp(ago=48 * 3600)))
    _say_list(call, rows[:limit] if limit > 0 else rows)


def _hybrid(row: Row, young: str) -> tuple[bool, int, str, str]:
    """Beads of the last two days by priority, then the older ones by age."""
    old = str(row["created_at"]) < young
    return old, 999 if old else int(str(row["priority"])), str(row["created_at"]), str(row["id"])


def listing(call: Call) -> None:
    """`bd list`."""
    flags = call.flags
    limit, statuses = _number(call, "limit", 50), flags.listed("status")
    for status in statuses:
        if status not in STATUSES and status != "all":
            text = f'invalid status "{status}" (valid: {", ".join(STATUSES)})'
            raise BdError(text, stdout=False)
    hidden = () if "all" in flags or statuses else ("closed", "pinned")
    before, after = flags.last("updated-before"), flags.last("updated-after")
    rows = [
        row
        for row in call.store.rows("SELECT * FROM issues WHERE NOT ephemeral AND NOT is_template")
        if row["status"] not in hidden
        and (not statuses or "all" in statuses or row["status"] in statuses)
        and flags.last("assignee") in (None, "", row["assignee"])
        and flags.last("type") in (None, "", row["issue_type"])
        and row["issue_type"] not in flags.listed("exclude-type")
        and (flags.last("priority") is None or row["priority"] == _priority(flags.last("priority") or ""))
        and (before is None or str(row["updated_at"]) < plain_time(before))
        and (after is None or str(row["updated_at"]) > plain_time(after))
        and set(flags.listed("label")) <= set(call.store.labels(str(row["id"])))
    ]
    rows = _by_priority(rows)
    _sort(call, rows)
    if 0 < limit < len(rows):
        hint = f"\nShowing {limit} issues; more results matched but were hidden by --limit."
        call.warn(f"{hint} Use --limit 0 for all, or --limit N to raise the cap.", failed=False)
    _say_list(call, rows[:limit] if limit > 0 else rows)


def _sort(call: Call, rows: list[Row]) -> None:
    """Apply --sort; times count from the youngest, as in bd."""
    field = call.flags.last("sort")
    names = {"created": "created_at", "updated": "updated_at", "closed": "closed_at", "type": "issue_type"}
    if field:
        column = names.get(field, field)
        rows.sort(key=lambda row: (row[column] is None, row[column]), reverse=column in TIMES)
    if "reverse" in call.flags:
        rows.reverse()


def query(call: Call) -> None:
    """`bd query`: field=value joined by AND; `updated>30m` means older than 30 minutes."""
    limit = _number(call, "limit", 50)
    tests = []
    for term in re.split(r"\s+AND\s+", " ".join(call.flags.words)):
        found = re.fullmatch(r"\s*(\w+)\s*(!=|[=<>])\s*(\S+)\s*", term)
        if not found:
            raise BdError(f"parsing query: expected field name, got {term.strip()}", stdout=False)
        tests.append((found[1], found[2], found[3].strip("\"'")))
    columns = {"type": "issue_type", "status": "status", "assignee": "assignee", "priority": "priority", "id": "id"}
    rows = _by_priority(call.store.rows("SELECT * FROM issues WHERE NOT ephemeral"))
    if "status" not in {name for name, _, _ in tests}:
        rows = [row for row in rows if row["status"] != "closed"]
    for name, sign, value in tests:
        if name in columns and sign in ("=", "!="):
            rows = [row for row in rows if (str(row[columns[name]] or "") == value) is (sign == "=")]
        elif name in ("updated", "created") and sign in "<>" and re.fullmatch(r"\d+[smhdw]", value):
            edge = stamp(ago=int(value[:-1]) * UNITS[value[-1]])
            rows = [row for row in rows if (str(row[f"{name}_at"]) < edge) is (sign == ">")]
        else:
            raise BdError(f"evaluating query: unknown field: {name}", stdout=False)
    _say_list(call, rows[:limit] if limit > 0 else rows)


def show(call: Call) -> None:
    """`bd show`: the beads found; the others are named on stderr."""
    names = [*call.flags.words, *call.flags.all("id")]
    if not names:
        raise BdError("at least one issue ID is required (use positional args, --id flag, or --current)")
    beads = []
    for name in names:
        found = call.store.resolve(name)
        if found:
            beads.append(_shown(call, found))
        else:
            call.warn(f'Error fetching {name}: no issue found matching "{name}"', failed=False)
    if not beads:
        raise BdError("no issues found matching the provided IDs")
    call.say(beads, _text(beads))


def _shown(call: Call, bead: str) -> Row:
    row = call.store.issue(bead) or {}
    shown = issue_json(row, labels=call.store.labels(bead))
    parents = []
    for name, here, there in (
        ("dependencies", "issue_id", "depends_on_id"),
        ("dependents", "depends_on_id", "issue_id"),
    ):
        found = []
        for record in call.store.rows(f"SELECT {there} AS other, type FROM dependencies WHERE {here} = ?", bead):  # noqa: S608
            other = call.store.issue(str(record["other"]))
            if other:
                found.append(issue_json(other) | {"dependency_type": record["type"]})
                parents += [record["other"]] if (name, record["type"]) == ("dependencies", "parent-child") else []
        shown |= {name: found} if found else {}
    comments = call.store.rows("SELECT * FROM comments WHERE issue_id = ? ORDER BY created_at, id", bead)
    if comments:
        shown["comments"] = [comment | {"created_at": rfc3339(comment["created_at"])} for comment in comments]
    return shown | ({"parent": parents[0]} if parents else {})


def _metadata_value(text: str) -> object:
    """A --set-metadata value: numbers, true, false and null are parsed, the rest stays text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, str | dict | list) else value


def _edit_metadata(call: Call, bead: str, row: Row) -> str:
    data = json.loads(str(row["metadata"] or "{}"))
    if call.flags.last("metadata"):
        data |= json.loads(call.flags.last("metadata") or "{}")
    for pair in call.flags.all("set-metadata"):
        key, equals, value = pair.partition("=")
        problem = f'invalid --set-metadata: expected key=value, got "{pair}"' if not (equals and key) else ""
        if not problem and not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.]*", key):
            problem = f'invalid metadata key "{key}": must match [a-zA-Z_][a-zA-Z0-9_.]*'
        if problem:
            raise BdError(f"metadata edit failed for {bead}: {problem}")
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


def _changes(call: Call, bead: str, row: Row) -> Row:
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
        changes["priority"] = _priority(flags.last("priority") or "")
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


def _claim(call: Call, bead: str, row: Row) -> bool:
    """`--claim`: takes an unassigned bead; the same actor's second claim is a silent success, whatever the status."""
    with call.store.writing():
        now = call.store.issue(bead) or row
        if not now["assignee"]:
            taken: Row = {"assignee": call.actor, "status": "in_progress", "updated_at": stamp()}
            call.store.write(bead, taken | ({} if now["started_at"] else {"started_at": stamp()}))
        elif now["assignee"] != call.actor:
            call.warn(f"Error claiming {bead}: issue already claimed by {now['assignee']}")
            return False
    return True


def _update_one(call: Call, bead: str) -> bool:
    row = call.store.issue(bead) or {}
    if "claim" in call.flags and not _claim(call, bead, row):
        return False
    changes = _changes(call, bead, row)
    if "issue_type" in changes and changes["issue_type"] not in TYPES:
        call.warn(f"Error updating {bead}: invalid issue type: {changes['issue_type']}")
        return False
    if changes:
        call.store.write(bead, changes | {"updated_at": stamp()})
    for label in call.flags.listed("add-label"):
        call.store.insert("labels", {"issue_id": bead, "label": label})
    for label in call.flags.listed("remove-label"):
        call.store.db.execute("DELETE FROM labels WHERE issue_id = ? AND label = ?", (bead, label))
    return True


def update(call: Call) -> None:
    """`bd update`: reads each bead, then writes it; on a server another writer may come in between, as with bd."""
    call.check_writable()
    status = call.flags.last("status")
    if status is not None and status not in STATUSES:
        names = ", ".join(STATUSES)
        hint = "or configure custom statuses via 'bd config set status.custom'"
        raise BdError(f'invalid status "{status}" (built-in: {names}; {hint})')
    if "notes" in call.flags and "append-notes" in call.flags:
        raise BdError("cannot specify both --notes and --append-notes")
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
    rows = [call.store.issue(bead) or {} for bead in done]
    if call.json and done:
        call.say([issue_json(row, labels=call.store.labels(str(row["id"]))) for row in rows], "")
    elif not call.json:
        call.out += "".join(f"✓ Updated issue: {row['id']} — {row['title']}\n" for row in rows)


def note(call: Call) -> None:
    """`bd note`: append a line to the notes."""
    call.check_writable()
    text = " ".join(call.flags.words[1:])
    if not call.flags.words[1:]:
        raise BdError("no note text provided (use positional args, --stdin, or --file)")
    if not text:
        raise BdError("note text is empty")
    bead = _resolving(call, call.flags.words[0])
    call.flags.values["append-notes"] = [text]
    if call.server:
        _update_one(call, bead)
    else:
        with call.store.writing():
            _update_one(call, bead)
    row = call.store.issue(bead) or {}
    call.say(issue_json(row, labels=call.store.labels(bead)), f"✓ Note added to {bead} — {row['title']}")


def _resolving(call: Call, name: str, what: str = "resolving") -> str:
    try:
        return call.need(name)
    except BdError as problem:
        raise BdError(f"{what} {name}: {problem}") from None


def comment(call: Call) -> None:
    """`bd comment`: comments never overwrite each other."""
    call.check_writable()
    bead = _resolving(call, call.flags.words[0])
    row: Row = {"id": str(uuid.uuid4()), "issue_id": bead, "author": call.actor, "text": " ".join(call.flags.words[1:])}
    call.store.insert("comments", row | {"created_at": stamp()})
    title = (call.store.issue(bead) or {}).get("title")
    call.say(row | {"created_at": rfc3339(stamp())}, f"✓ Comment added to {bead} — {title}")


def close(call: Call) -> None:
    """`bd close`."""
    call.check_writable()
    reason = call.flags.last("reason") or "Closed"
    done = []
    for bead in [_resolving(call, name, "resolving ID") for name in call.flags.words]:
        changes: Row = {"status": "closed", "closed_at": stamp(), "close_reason": reason, "updated_at": stamp()}
        if call.store.write(bead, changes):
            done.append(call.store.issue(bead) or {})
        else:
            call.warn(f"Error closing {bead}: issue not found: {bead}", failed=False)
    call.failed = not done
    if call.json and done:
        call.say([issue_json(row, labels=call.store.labels(str(row["id"]))) for row in done], "")
    elif not call.json:
        call.out += "".join(f"✓ Closed {row['id']} — {row['title']}: {reason}\n" for row in done)


def _depend(call: Call, bead: str, other: str, kind: str) -> None:
    row: Row = {"issue_id": bead, "depends_on_id": other, "type": kind}
    call.store.insert("dependencies", row | {"created_at": stamp(), "created_by": call.actor})


def dep_add(call: Call) -> None:
    """`bd dep add A B`: A waits for B."""
    call.check_writable()
    words = call.flags.words + call.flags.all("blocked-by") + call.flags.all("depends-on")
    bead = _resolving(call, words[0], "resolving issue ID")
    other, kind = call.store.resolve(words[1]) or words[1], call.flags.last("type") or "blocks"
    _depend(call, bead, other, kind)
    row: Row = {"status": "added", "issue_id": bead, "depends_on_id": other, "type": kind}
    call.say(row, f"✓ Added dependency: {bead} depends on {other} ({kind})")


def kv_get(call: Call) -> None:
    """`bd kv get`: exit 1 when the key is not set."""
    key = call.flags.words[0]
    value = call.store.config(f"kv.{key}")
    call.failed = not value
    if value or call.json:
        call.say({"key": key, "value": value, "found": bool(value)}, value)
    else:
        call.warn(f"{key} (not set)")


def kv_set(call: Call) -> None:
    """`bd kv set`."""
    call.check_writable()
    key, value = call.flags.words
    if not key.strip() or key.startswith("kv."):
        why = "cannot start with 'kv.' (would create nested prefix)" if key.strip() else "cannot be empty"
        raise BdError(f"invalid key: key {why}")
    call.store.insert("config", {"key": f"kv.{key}", "value": value})
    call.say({"key": key, "value": value}, f"Set {key} = {value}")


def kv_clear(call: Call) -> None:
    """`bd kv clear`: also a success when the key is not set."""
    call.check_writable()
    key = call.flags.words[0]
    call.store.db.execute("DELETE FROM config WHERE key = ?", (f"kv.{key}",))
    call.say({"key": key, "deleted": "true"}, f"Cleared {key}")


def kv_list(call: Call) -> None:
    """`bd kv list`."""
    rows = call.store.rows("SELECT key, value FROM config WHERE key LIKE 'kv.%' ORDER BY key")
    pairs: Row = {str(row["key"]).removeprefix("kv."): row["value"] for row in rows}
    lines = "".join(f"\n  {key} = {value}" for key, value in pairs.items())
    call.say(pairs, f"\nKey-Value Store:{lines}" if pairs else "No key-value pairs set")


def sql(call: Call) -> None:
    """`bd sql`: SELECT, and `UPDATE issues SET … WHERE …` in the subset that means the same on Dolt and SQLite."""
    if not call.server:
        raise BdError("'bd sql' is not yet supported in embedded mode", plain=True)
    if len(call.flags.words) != 1:
        raise BdError(f"accepts 1 arg(s), received {len(call.flags.words)}", plain=True)
    import sqlite3

    statement = call.flags.words[0].strip()
    reading = statement.upper().startswith("SELECT")
    if not reading:
        call.check_writable()
    try:
        if reading:
            call.store.sql_functions()
            call.say([_sql_row(row) for row in call.store.rows(statement)], "")
        else:
            changed = _sql_update(call, statement)
            call.say({"rows_affected": changed}, f"OK, {changed} rows affected")
    except (sqlite3.Error, ValueError) as problem:
        raise BdError(f"{'query' if reading else 'exec'} error: {_sql_problem(str(problem))}") from None


def _sql_update(call: Call, statement: str) -> int:
    found = re.fullmatch(r"UPDATE\s+issues\s+SET\s+(.+?)\s+WHERE\s+(.+)", statement, re.IGNORECASE | re.DOTALL)
    if not found or ";" in re.sub(r"'[^']*'", "", statement):
        raise ValueError("syntax error: the sandbox knows only UPDATE issues SET … WHERE … and SELECT")
    pairs = []
    for assignment in split_list(found[1]):
        column, equals, expression = assignment.partition("=")
        if not equals:
            raise ValueError(f"syntax error near '{assignment.strip()}'")
        pairs.append((column.strip().strip("`"), expression))
    return call.store.update(pairs, found[2])


def _sql_problem(text: str) -> str:
    column = text.partition("no such column: ")[2]
    if column:
        return f'Error 1105 (HY000): column "{column}" could not be found in any table in scope'
    table = text.partition("no such table: ")[2]
    return f"Error 1146 (HY000): table not found: {table}" if table else f"Error 1105 (HY000): {text}"


def _sql_row(row: Row) -> Row:
    """A row as `bd sql` prints it: columns in alphabetical order, times in RFC 3339."""
    return {name: rfc3339(value) if name in TIMES and value else value for name, value in sorted(row.items())}


HANDLERS: dict[str, Callable[[Call], None]] = {
    "version": version,
    "where": where,
    "init": init,
    "create": create,
    "ready": ready,
    "list": listing,
    "query": query,
    "show": show,
    "update": update,
    "note": note,
    "comment": comment,
    "close": close,
    "dep add": dep_add,
    "kv get": kv_get,
    "kv set": kv_set,
    "kv clear": kv_clear,
    "kv list": kv_list,
    "sql": sql,
}
