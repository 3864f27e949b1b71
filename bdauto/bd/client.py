"""The `bd` program: one method per bd verb.

A verb that reads returns a `RunningCommand`: the child runs from the moment the method is called, and `result()` waits
for it, so that several commands, an import or an HTTP request can share the wait.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bdauto.bd import command
from bdauto.bd.bead_lists import BeadLists, checked_id
from bdauto.bd.parsing import parse_object, unwrap
from bdauto.bd.running import RunningCommand, no_sql
from bdauto.bd.server_address import read_object
from bdauto.bd.tracker import Tracker, tracker_at
from bdauto.common.errors import BdautoError, BdDrift, BdFailed, UsageError
from bdauto.domain.bead import MALFORMED, Bead
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.lanes import Lanes
from bdauto.domain.times import parse_time

T = TypeVar("T")

EVENTS = 200
"""Recorded changes that are read at most, the last ones."""
SERVER_TIME = "SELECT UTC_TIMESTAMP() AS moment"
_NO_TRACKER = "no_beads_directory"
_NO_EVENTS = "unknown flag: --events"


class Bd(BeadLists):
    """One way to run `bd`: the binary, the database, the actor and the time limit."""

    lane = DEFAULT_LANE
    """The lane of its assignee's beads."""
    lanes = Lanes()
    """The lanes of its tracker."""

    def comments(self, bead_id: str) -> list[str]:
        """Return the texts of a bead's comments, the oldest first. Raises BdError."""
        rows = self._start(["comments", checked_id(bead_id)], "comments", _parse_rows).result()
        return [text for row in rows if isinstance(text := row.get("text"), str)]

    def update(self, bead_id: str, options: Sequence[str]) -> Bead:
        """Change one bead and return it as it is afterwards."""
        answer = self._write(lambda: self._beads(["update", checked_id(bead_id), *options])).beads
        if len(answer) != 1:
            raise BdDrift(
                f"bd update {bead_id}: expected the one updated issue, got {len(answer)}", hint="check `bd version`"
            )
        return answer[0]

    def close(self, bead_id: str, reason: str, actor: str) -> None:
        """Close a bead in the name of `actor`."""
        words = ["close", checked_id(bead_id), f"--reason={reason}", f"--actor={actor}"]
        self._write(lambda: self._start(words, "close", lambda _answer: None))

    def comment(self, bead_id: str, text: str) -> None:
        """Add a comment to a bead."""
        words = ["comment", checked_id(bead_id), text]
        self._write(lambda: self._start(words, "comment", lambda _answer: None))

    def sql(self, statements: str) -> None:
        """Run statements that write on a Dolt server. Raises BdFailed when one of them fails.

        bd answers with the rows that the last one changed, or just that all is well.
        """
        answer = self._write(lambda: self._object(["sql", statements], "sql"))
        rows = answer.get("rows_affected")
        if answer.get("status") != "ok" and (not isinstance(rows, int) or isinstance(rows, bool)):
            raise BdDrift("bd sql: neither `rows_affected` nor `status` in the answer", hint="check `bd version`")

    def select(self, query: str) -> list[Mapping[str, Any]]:
        """Return what a query gives on a Dolt server. Raises BdError."""
        return self._start(["sql", query], "sql", _parse_rows).result()

    def events(self, ids: Sequence[str]) -> list[Mapping[str, Any]] | None:
        """Return the rows in which a Dolt server has the changes of these beads, None on an embedded database.

        Raises BdError.
        """
        listed = ", ".join(f"'{checked_id(bead)}'" for bead in ids)
        columns = "issue_id, actor, event_type, new_value, comment, created_at"
        query = f"SELECT {columns} FROM events WHERE issue_id IN ({listed}) ORDER BY created_at DESC LIMIT {EVENTS}"  # noqa: S608
        return self._on_server(query, _parse_rows)

    def history_events(self, bead_id: str) -> list[Mapping[str, Any]] | None:
        """Return the last recorded changes of a bead, None where bd is older than 1.3. Raises BdError."""
        words = ["history", checked_id(bead_id), "--events", "--limit", str(EVENTS)]
        try:
            return self._start(words, "history", _parse_rows).result()
        except BdFailed as error:
            if _NO_EVENTS in str(error):
                return None
            raise

    def has_guards(self) -> bool:
        """Whether this bd's `update` knows `--if-status`, as from 1.3 on. Raises BdError."""
        return self._start(["update", "--help"], "update", lambda answer: b"--if-status" in answer).result()

    def server_time(self) -> datetime | None:
        """Return the Dolt server's clock, None on an embedded database, which has this host's. Raises BdError."""
        return self._on_server(SERVER_TIME, _parse_moment)

    def can_sql(self) -> bool:
        """Return whether `bd sql` works here, as on a Dolt server. Raises BdFailed when it fails otherwise."""
        return self._on_server("SELECT 1", lambda _answer: True) is not None

    def _on_server(self, query: str, parse: Callable[[bytes], T]) -> T | None:
        """Return what a query gives, None on an embedded database. Raises BdError."""
        try:
            return self._start(["sql", query], "sql", parse).result()
        except BdFailed as error:
            if no_sql(error):
                return None
            raise

    def refuses_writes(self) -> bool:
        """Whether bd, opened readonly, refuses a write: of a bead that cannot exist, so nothing is ever written."""
        try:
            self._beads(["update", "no.such.bead", "-s", "open"]).result()
        except BdFailed as error:
            return "read-only" in str(error)
        return False

    @property
    def takes_readonly(self) -> bool:
        """Whether bd takes --readonly here, as far as it has been seen. On a proxied server it refuses the option."""
        return not self._readonly or "--readonly" in self._prefix

    def kv_list(self) -> RunningCommand[Mapping[str, Any]]:
        """Return the shared key-value store."""
        return self._object(command.KV_LIST, "kv list")

    def kv_set(self, key: str, value: str | None) -> None:
        """Set a key of the shared key-value store, or clear it. bd leaves that uncommitted: see `commit`."""
        words = ["kv", "clear", key] if value is None else ["kv", "set", key, value]
        self._write(lambda: self._object(words, " ".join(words[:2])))

    def commit(self, message: str) -> None:
        """Commit what bd has left uncommitted. It is fine if there is nothing."""
        self._write(lambda: self._start(["dolt", "commit", "-m", message], "dolt commit", lambda _answer: None))

    def version(self) -> RunningCommand[str]:
        """Return bd's version, e.g. `1.0.3`."""
        return self._start(["version"], "version", _parse_version)

    def touch(self) -> None:
        """Move the time of `last-touched` in the folder that bd says it uses: BeadBoard reads anew when it moves.

        Its content stays, because a bare `bd close` closes the bead that it names. `bd update` moves it by itself.
        """
        with contextlib.suppress(OSError, BdautoError):
            self._folder = self._folder or self.tracker().folder
            (self._folder / "last-touched").touch(mode=0o600)

    def where(self) -> Mapping[str, Any]:
        """Return where the database is: `path` is its folder, and `database_path` ends in `embeddeddolt` if embedded.

        The folder is named by BEADS_DIR, too: bd 1.0.2's `where` does not heed `--db`.
        """
        named = {} if self._db is None else {"BEADS_DIR": str(self._db.absolute())}
        return self._object(["where"], "where", **named).result()

    def folders(self) -> tuple[Path, Path]:
        """Return bd's folder and the database's, which is called `embeddeddolt` if embedded. Raises BdError."""
        where = self.where()
        path, database = where.get("path"), where.get("database_path")
        if not isinstance(path, str) or not isinstance(database, str):
            raise BdDrift("bd where: no text `path` and `database_path` in the answer", hint="check `bd version`")
        return Path(path), Path(database)

    def tracker(self) -> Tracker:
        """Return the tracker that bd uses. Raises UsageError if there is none, and BdError."""
        try:
            path = self.where().get("path")
        except BdFailed as error:
            if _NO_TRACKER not in error.message:
                raise
            hint = "run `bd init`, or name it with --db or BDAUTO_DB"
            raise UsageError(f"no .beads folder in {Path.cwd()} or above", hint=hint) from None
        if not isinstance(path, str):
            raise BdDrift("bd where: no text `path` in the answer", hint="check `bd version`")
        return tracker_at(Path(path), read_object(Path(path) / "metadata.json"), self.settings.db)


def _parse_rows(answer: bytes) -> list[Mapping[str, Any]]:
    try:
        return list(msgspec.json.decode(unwrap(answer, "bd sql"), type=list[dict[str, Any]] | None) or ())
    except MALFORMED:
        raise BdDrift("bd sql: expected a list of rows", hint="check `bd version`") from None


def _parse_version(answer: bytes) -> str:
    version = parse_object(answer, "bd version").get("version")
    if not isinstance(version, str):
        raise BdDrift("bd version: no text `version` in the answer", hint="check what `bd` on PATH is")
    return version


def _parse_moment(answer: bytes) -> datetime:
    try:
        [row] = msgspec.json.decode(unwrap(answer, "bd sql"), type=list[dict[str, str]])
        return parse_time(row["moment"])
    except (*MALFORMED, KeyError):
        raise BdDrift("bd sql: expected one row with the server's time", hint="check `bd version`") from None
