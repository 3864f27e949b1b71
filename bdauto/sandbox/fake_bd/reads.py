"""The verbs of the stand-in for bd that read, in the real bd's words."""

import json
import re
from collections.abc import Callable

from bdauto.sandbox.fake_bd.call import DAYS, STATUSES, FakeBdError, FakeCall, priority_of
from bdauto.sandbox.fake_bd.store import TIMES, Row, issue_json, plain_time, rfc3339, stamp


def version(call: FakeCall) -> None:
    """`bd version`."""
    call.say({"version": call.version, "build": "sandbox"}, f"bd version {call.version} (sandbox)")


def where(call: FakeCall) -> None:
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
    database = f"{folder}/{'dolt' if call.server else 'embeddeddolt'}"
    call.say({"path": folder, "database_path": database}, f"{folder}\n  database: {database}")


def _counted(call: FakeCall, row: Row) -> Row:
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


def _say_list(call: FakeCall, rows: list[Row]) -> None:
    call.say([_counted(call, row) for row in rows] if call.json else [], _text(rows))


def _by_priority(rows: list[Row]) -> list[Row]:
    """bd's order: most urgent first, then the youngest."""
    rows = sorted(rows, key=lambda row: str(row["id"]))
    rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
    return sorted(rows, key=lambda row: int(str(row["priority"])))


def ready(call: FakeCall) -> None:
    """`bd ready`: beads that can be worked on.

    Of its filters, bd 1.0.3 heeds --exclude-type on a server only, and --exclude-label in an embedded database only.
    """
    flags = call.flags
    limit, excluded = call.number("limit", 10), flags.listed("exclude-type")
    priority = call.number("priority", -1)
    wanted, unwanted = set(flags.listed("label")), set(flags.listed("exclude-label"))
    descendants = call.store.descendants(flags.last("parent") or "") if flags.last("parent") else None

    def keep(row: Row) -> bool:
        labels = set(call.store.labels(str(row["id"]))) if wanted or unwanted else set()
        return (
            flags.last("assignee") in (None, "", row["assignee"])
            and priority in (-1, row["priority"])
            and flags.last("type") in (None, "", row["issue_type"])
            and not (call.server and row["issue_type"] in excluded)
            and wanted <= labels
            and (call.server or not unwanted & labels)
            and all(_has(row, *field.partition("=")[::2]) for field in flags.all("metadata-field"))
            and (descendants is None or row["id"] in descendants)
        )

    order = flags.last("sort") or "priority"
    if order not in ("priority", "oldest", "hybrid"):
        raise FakeBdError(f"invalid sort policy '{order}'. Valid values: hybrid, priority, oldest", stdout=False)
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


def listing(call: FakeCall) -> None:
    """`bd list`."""
    flags = call.flags
    limit, statuses = call.number("limit", 50), flags.listed("status")
    for status in statuses:
        if status not in STATUSES and status != "all":
            text = f'invalid status "{status}" (valid: {", ".join(STATUSES)})'
            raise FakeBdError(text, stdout=False)
    hidden = () if "all" in flags or statuses else ("closed", "pinned")
    pins = "all" in flags or flags.last("status") in ("pinned", "hooked")
    before, after, ids = flags.last("updated-before"), flags.last("updated-after"), flags.listed("id")
    unlisted = {"gate"} if "include-gates" not in flags else set()
    unlisted |= {"agent", "role", "rig", "message"} if "include-infra" not in flags else set()
    rows = [
        row
        for row in call.store.rows("SELECT * FROM issues")
        if row["status"] not in hidden
        and (not ids or row["id"] in ids)
        and ("include-templates" in flags or not row["is_template"])
        and row["issue_type"] not in unlisted
        and (pins or not row["pinned"])
        and (not statuses or "all" in statuses or row["status"] in statuses)
        and flags.last("assignee") in (None, "", row["assignee"])
        and flags.last("type") in (None, "", row["issue_type"])
        and row["issue_type"] not in flags.listed("exclude-type")
        and (flags.last("priority") is None or row["priority"] == priority_of(flags.last("priority") or ""))
        and (before is None or str(row["updated_at"]) < plain_time(before))
        and (after is None or str(row["updated_at"]) > plain_time(after))
        and set(flags.listed("label")) <= set(call.store.labels(str(row["id"])))
        and all(_has(row, *field.partition("=")[::2]) for field in flags.all("metadata-field"))
    ]
    rows = _by_priority(rows)
    _sort(call, rows)
    if 0 < limit < len(rows):
        hint = f"\nShowing {limit} issues; more results matched but were hidden by --limit."
        call.warn(f"{hint} Use --limit 0 for all, or --limit N to raise the cap.", failed=False)
    _say_list(call, rows[:limit] if limit > 0 else rows)


def _has(row: Row, key: str, value: str) -> bool:
    """Whether a row's metadata has this text, or a value that reads so, under a key."""
    metadata = json.loads(str(row["metadata"] or "{}"))
    held = metadata.get(key) if isinstance(metadata, dict) else None
    return held is not None and (held if isinstance(held, str) else json.dumps(held)) == value


def _sort(call: FakeCall, rows: list[Row]) -> None:
    """Apply --sort. Times sort from the youngest, as in bd."""
    field = call.flags.last("sort")
    names = {"created": "created_at", "updated": "updated_at", "closed": "closed_at", "type": "issue_type"}
    if field:
        column = names.get(field, field)
        rows.sort(key=lambda row: (row[column] is None, row[column]), reverse=column in TIMES)
    if "reverse" in call.flags:
        rows.reverse()


def query(call: FakeCall) -> None:
    """`bd query`: comparisons joined by AND. An age means the moment that long ago, and its `m` are months."""
    limit = call.number("limit", 50)
    rows = _by_priority(call.store.rows("SELECT * FROM issues"))
    terms = re.split(r"\s+AND\s+", " ".join(call.flags.words))
    if not any(term.strip().startswith("status") for term in terms):
        rows = [row for row in rows if row["status"] != "closed"]
    for term in terms:
        found = re.fullmatch(r"""\s*(\w+)\s*(!=|[=<>])\s*("[^"]*"|'[^']*'|\S+)\s*""", term)
        if not found:
            raise FakeBdError(f"parsing query: expected field name, got {term.strip()}", stdout=False)
        keep = _comparison(found[1], found[2], found[3].strip("\"'"))
        rows = [row for row in rows if keep(row)]
    _say_list(call, rows[:limit] if limit > 0 else rows)


def _comparison(name: str, sign: str, value: str) -> Callable[[Row], bool]:
    columns = {"type": "issue_type", "status": "status", "assignee": "assignee", "priority": "priority", "id": "id"}
    if name in columns and sign in ("=", "!="):
        column = columns[name]
        return lambda row: (str("" if row[column] is None else row[column]) == value) is (sign == "=")
    if name not in ("updated", "created") or sign not in "<>":
        raise FakeBdError(f"evaluating query: unknown field: {name}", stdout=False)
    age = re.fullmatch(r"(\d+)([hdwmy])", value)
    try:
        edge = stamp(ago=int(age[1]) * DAYS[age[2]] * 86400) if age else plain_time(value)
    except ValueError:
        raise FakeBdError(f"evaluating query: invalid {name} time: {value}", stdout=False) from None
    return lambda row: str(row[f"{name}_at"]) > edge if sign == ">" else str(row[f"{name}_at"]) < edge


def show(call: FakeCall) -> None:
    """`bd show`: the beads found. The others are named on stderr."""
    names = [*call.flags.words, *call.flags.all("id")]
    if not names:
        raise FakeBdError("at least one issue ID is required (use positional args, --id flag, or --current)")
    beads = []
    for name in names:
        found = call.store.resolve(name)
        if found:
            call.touched = call.touched or found
            beads.append(_shown(call, found))
        else:
            call.warn(f'Error fetching {name}: no issue found matching "{name}"', failed=False)
    if not beads:
        raise FakeBdError("no issues found matching the provided IDs")
    call.say(beads, _text(beads))


def comments(call: FakeCall) -> None:
    """`bd comments ID`."""
    said = _comments(call, call.resolving(call.flags.words[0]))
    call.say(said, "\n".join(str(row["text"]) for row in said))


def _comments(call: FakeCall, bead: str) -> list[Row]:
    rows = call.store.rows("SELECT * FROM comments WHERE issue_id = ? ORDER BY created_at, id", bead)
    return [row | {"created_at": rfc3339(row["created_at"])} for row in rows]


def _shown(call: FakeCall, bead: str) -> Row:
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
    if said := _comments(call, bead):
        shown["comments"] = said
    return shown | ({"parent": parents[0]} if parents else {})


def kv_get(call: FakeCall) -> None:
    """`bd kv get`: exit 1 when the key is not set."""
    key = call.flags.words[0]
    value = call.store.config(f"kv.{key}")
    call.failed = not value
    if value or call.json:
        call.say({"key": key, "value": value, "found": bool(value)}, value)
    else:
        call.warn(f"{key} (not set)")


def kv_list(call: FakeCall) -> None:
    """`bd kv list`."""
    rows = call.store.rows("SELECT key, value FROM config WHERE key LIKE 'kv.%' ORDER BY key")
    pairs: Row = {str(row["key"]).removeprefix("kv."): row["value"] for row in rows}
    lines = "".join(f"\n  {key} = {value}" for key, value in pairs.items())
    call.say(pairs, f"\nKey-Value Store:{lines}" if pairs else "No key-value pairs set")


READS: dict[str, Callable[[FakeCall], None]] = {
    "version": version,
    "where": where,
    "ready": ready,
    "list": listing,
    "query": query,
    "show": show,
    "comments": comments,
    "kv get": kv_get,
    "kv list": kv_list,
}
