"""The beads of a sandbox, in SQLite: tables, times, readiness.

Column names, defaults and one-second times are those of bd's Dolt database, so that one SQL statement means the same on
both. The stand-in loads this at every call, hence no pathlib, dataclasses, typing: together they take as long as the
rest of its start.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Row = dict[str, object]

# In the order in which bd writes an issue's fields.
TEXTS = ("title", "description", "design", "acceptance_criteria", "notes")
TIMES = ("created_at", "updated_at", "started_at", "closed_at", "due_at", "defer_until")
SCHEMA = """
CREATE TABLE issues (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, description TEXT NOT NULL DEFAULT '', design TEXT NOT NULL DEFAULT '',
    acceptance_criteria TEXT NOT NULL DEFAULT '', notes TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'open',
    priority INTEGER NOT NULL DEFAULT 2, issue_type TEXT NOT NULL DEFAULT 'task', assignee TEXT, owner TEXT DEFAULT '',
    created_at TEXT COLLATE stamp, created_by TEXT DEFAULT '', updated_at TEXT COLLATE stamp,
    started_at TEXT COLLATE stamp, closed_at TEXT COLLATE stamp, close_reason TEXT DEFAULT '',
    due_at TEXT COLLATE stamp, defer_until TEXT COLLATE stamp, metadata TEXT DEFAULT '{}',
    ephemeral INTEGER DEFAULT 0, pinned INTEGER DEFAULT 0, is_template INTEGER DEFAULT 0);
CREATE TABLE labels (issue_id TEXT, label TEXT, PRIMARY KEY (issue_id, label));
CREATE TABLE dependencies (issue_id TEXT, depends_on_id TEXT, type TEXT, created_at TEXT, created_by TEXT,
    PRIMARY KEY (issue_id, depends_on_id));
CREATE TABLE comments (id TEXT PRIMARY KEY, issue_id TEXT, author TEXT, text TEXT, created_at TEXT);
CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE events (id TEXT PRIMARY KEY, issue_id TEXT NOT NULL, event_type TEXT NOT NULL, actor TEXT NOT NULL,
    old_value TEXT, new_value TEXT, comment TEXT, created_at TEXT DEFAULT (datetime()));
CREATE TABLE schema_migrations (version INTEGER);
INSERT INTO schema_migrations VALUES (32);
CREATE TABLE dolt_status (table_name TEXT, staged INTEGER, status TEXT);
CREATE TABLE leases (issue_id TEXT PRIMARY KEY, holder TEXT, lease_expires_at TEXT);
CREATE TABLE dolt_log (commit_order INTEGER PRIMARY KEY, committer TEXT, email TEXT, message TEXT);
CREATE TABLE dolt_ignore (pattern TEXT PRIMARY KEY, ignored INTEGER);
"""
NOT_WORK = ("merge-request", "gate", "molecule", "message", "agent", "role", "rig")
BUSY_SECONDS = 30.0


def stamp(ago: float = 0.0) -> str:
    """The time `ago` seconds ago as the database keeps it: UTC, rounded to the nearest second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - ago + 0.5))


def unique() -> str:
    """A new random UUID."""
    digits = os.urandom(16).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def rfc3339(text: object) -> str:
    """A time from the database as bd prints it."""
    return str(text).replace(" ", "T") + "Z"


def plain_time(text: str) -> str:
    """Any ISO 8601 time as the database keeps it: UTC, rounded to the nearest second. Raises ValueError."""
    from datetime import UTC, datetime, timedelta

    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return (moment + timedelta(microseconds=500_000)).strftime("%Y-%m-%d %H:%M:%S")


def _order(left: str, right: str) -> int:
    one, two = (text.replace("T", " ").removesuffix("Z") for text in (left, right))
    return (one > two) - (one < two)


class Store:
    """One connection to a sandbox's database file, which is created when missing. Safe for many processes."""

    def __init__(self, path: str, *, lose_writes: bool = False) -> None:
        """`lose_writes` rolls every change back: the silently lost write that a real Dolt server can produce."""
        self.lose_writes = lose_writes
        self.db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.create_collation("stamp", _order)
        if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name='config'").fetchone():
            self._create()
        self.db.execute("PRAGMA synchronous=OFF")

    def _create(self) -> None:
        self.db.execute("PRAGMA journal_mode=WAL")
        with self.writing():
            if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name='config'").fetchone():
                for statement in SCHEMA.split(";"):
                    self.db.execute(statement)

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A write transaction: waits for its turn, then excludes all other writers until it ends."""
        if self.db.in_transaction:
            yield
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("ROLLBACK" if self.lose_writes else "COMMIT")

    def rows(self, query: str, *values: object) -> list[Row]:
        """The rows of a query, as dictionaries."""
        return [dict(row) for row in self.db.execute(query, values)]

    def issue(self, bead: str) -> Row | None:
        """The row of one bead."""
        found = self.rows("SELECT * FROM issues WHERE id = ?", bead)
        return found[0] if found else None

    def resolve(self, text: str) -> str | None:
        """The id meant by `text`: itself, or without the prefix, or the one id that contains it."""
        prefix = self.config("issue_prefix") or "bd"
        for guess in (text, f"{prefix}-{text}"):
            if self.issue(guess):
                return guess
        part = text.removeprefix(f"{prefix}-").replace("%", "")
        found = self.rows("SELECT id FROM issues WHERE id LIKE ?", f"{prefix}-%{part}%") if "-" not in part else []
        return str(found[0]["id"]) if len(found) == 1 else None

    def write(self, bead: str, changes: Row) -> bool:
        """Set columns of a bead. Answers whether anything changed."""
        columns = ", ".join(f"{column} = ?" for column in changes)
        with self.writing():
            before = self.issue(bead)
            self.db.execute(f"UPDATE issues SET {columns} WHERE id = ?", (*changes.values(), bead))  # noqa: S608
            return self.issue(bead) != before

    def insert(self, table: str, row: Row) -> None:
        """Insert or replace one row."""
        marks = ", ".join("?" * len(row))
        with self.writing():
            self.db.execute(f"REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", (*row.values(),))  # noqa: S608

    def delete(self, bead: str) -> None:
        """Delete an issue and what belongs to it."""
        with self.writing():
            self.db.execute("DELETE FROM issues WHERE id = ?", (bead,))
            for table in ("labels", "dependencies", "comments", "events"):
                self.db.execute(f"DELETE FROM {table} WHERE issue_id = ?", (bead,))  # noqa: S608

    def log_commit(self, name: str, email: str, message: str) -> None:
        """Add a Dolt commit to the log."""
        row = (name, email, message)
        self.db.execute("INSERT INTO dolt_log (committer, email, message) VALUES (?, ?, ?)", row)

    def config(self, key: str) -> str:
        """A configuration value, "" when there is none."""
        found = self.rows("SELECT value FROM config WHERE key = ?", key)
        return str(found[0]["value"]) if found else ""

    def labels(self, bead: str) -> list[str]:
        """A bead's labels in alphabetical order."""
        return [str(row["label"]) for row in self.rows("SELECT label FROM labels WHERE issue_id=? ORDER BY 1", bead)]

    def blocked(self) -> set[str]:
        """The beads with an open blocker, those whose parent has one, and the children of a deferred parent.

        Only the direct children, and any status but `closed` and `pinned` blocks, as in bd 1.0.3.
        """
        active = "(SELECT id FROM issues WHERE status NOT IN ('closed', 'pinned'))"
        waiting = {
            str(row["issue_id"])
            for row in self.rows(
                f"SELECT issue_id FROM dependencies WHERE type IN ('blocks', 'conditional-blocks')"  # noqa: S608
                f" AND issue_id IN {active} AND depends_on_id IN {active}"
            )
        }
        deferred = {str(row["id"]) for row in self.rows("SELECT id FROM issues WHERE defer_until > ?", stamp())}
        children = self.rows("SELECT issue_id, depends_on_id FROM dependencies WHERE type = 'parent-child'")
        return waiting | {str(row["issue_id"]) for row in children if row["depends_on_id"] in waiting | deferred}

    def descendants(self, parent: str) -> set[str]:
        """The beads below this one, by their dependencies."""
        children = self.rows("SELECT issue_id, depends_on_id FROM dependencies WHERE type = 'parent-child'")
        found = {parent}
        while more := {str(row["issue_id"]) for row in children if row["depends_on_id"] in found} - found:
            found |= more
        return found - {parent}

    def ready(self, where: Callable[[Row], bool]) -> list[Row]:
        """What `bd ready` lists, unsorted: open, not waiting, not deferred, not pinned or ephemeral, and real work."""
        waiting = self.blocked()
        return [
            row
            for row in self.rows(
                "SELECT * FROM issues WHERE status = 'open' AND NOT pinned AND NOT ephemeral"
                " AND (defer_until IS NULL OR defer_until <= ?)",
                stamp(),
            )
            if row["issue_type"] not in NOT_WORK and row["id"] not in waiting and where(row)
        ]


def issue_json(row: Row, *, labels: Sequence[str] = ()) -> Row:
    """A bead as bd's JSON has it: empty fields are absent, times are RFC 3339, labels come last."""
    metadata = json.loads(str(row["metadata"] or "{}"))
    fields: Row = {"id": row["id"]} | {name: row[name] for name in TEXTS if row[name]}
    fields |= {"status": row["status"], "priority": row["priority"], "issue_type": row["issue_type"]}
    fields |= {name: row[name] for name in ("assignee", "owner") if row[name]}
    for name in ("created_at", "created_by", "updated_at", "started_at", "closed_at", "close_reason", *TIMES[4:]):
        if row[name]:
            fields[name] = rfc3339(row[name]) if name in TIMES else row[name]
    if metadata:
        fields["metadata"] = metadata
    if labels:
        fields["labels"] = list(labels)
    return fields | {name: True for name in ("ephemeral", "pinned", "is_template") if row[name]}
