"""Changing a bead: status, note and metadata together, and only if the bead still is what was seen.

On a Dolt server one `UPDATE … WHERE` does it all; on an embedded database, which is one host's, a file lock holds off
other bdauto processes while the bead is read again and updated.
"""

import contextlib
import fcntl
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from bdauto import log
from bdauto.bd import Bd, Call, check_version, checked_id, no_sql
from bdauto.errors import BdConflict, BdDrift, BdError, BdFailed, BdTimeout
from bdauto.models import Bead, guarded
from bdauto.runtime import Runtime

CONFLICT_TRIES = 8
NOTES_BYTES = 65_535
"""What bd's notes column holds; a note that would not fit is left out rather than failing the change it describes."""
MARK = "bdauto.write"
"""Metadata key with a unique id of the last write: identical concurrent writes would merge silently in Dolt."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one bead, and what must still be true of it: the `if_…` fields, where given."""

    bead: Bead
    status: str | None = None
    note: str = ""
    retract: str = ""
    """A line that an earlier change wrote and this one takes back."""
    put: Mapping[str, str | int] = msgspec.field(default_factory=dict)
    drop: tuple[str, ...] = ()
    if_status: str | None = None
    if_assignee: str | None = None
    if_attempt: str | None = None
    if_updated_at: datetime | None = None

    def holds(self, bead: Bead) -> bool:
        """Whether the bead still is what this change expects."""
        return (
            self.if_status in (None, bead.status)
            and self.if_assignee in (None, bead.assignee)
            and self.if_attempt in (None, bead.attempt)
            and self.if_updated_at in (None, bead.updated_at)
        )


class Writer(Protocol):
    """Applies changes."""

    def prepare(self) -> None:
        """Say that a change is coming: what has to be found out before the first one may start now."""

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply each change whose expectations hold; return for each whether it was applied. Raises BdError."""


class DryWriter:
    """A writer that writes nothing and says that everything was applied."""

    def prepare(self) -> None:
        """Do nothing."""

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Return True for each change."""
        return [True for _ in changes]


class BdWriter:
    """Applies changes through bd, in the way that the database's mode allows."""

    def __init__(self, bd: Bd, runtime: Runtime) -> None:
        self._bd = bd
        self._runtime = runtime
        self._version: Call[str] | None = None
        self._checked = False
        self._folder: Path | None = None  # set once the database is known to be embedded

    def prepare(self) -> None:
        """Start asking bd for its version, which must be known before the first write."""
        if not self._checked and self._version is None:
            self._version = self._bd.version()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply each change whose expectations hold. When it raises, none of them is: several are one transaction.

        An embedded database has no such transaction, so several changes at once are refused with BdFailed.
        """
        if not self._checked:
            self.check()
        if self._folder is None:
            try:
                return self._on_server(changes)
            except BdFailed as error:
                if not no_sql(error):
                    raise
                self._folder = self._embedded_folder()
                if self._folder is None:
                    raise
        if len(changes) > 1:
            raise BdFailed("an embedded database takes one bead's change at a time")
        return [self._embedded(self._folder, change) for change in changes]

    def check(self) -> None:
        """Refuse a bd whose version must not write here; asked once. Raises BdUnsupported."""
        self.prepare()
        asked, self._version = self._version, None
        if asked:
            check_version(asked.result(), lambda: self._embedded_folder() is None)
        self._checked = True

    def _on_server(self, changes: Sequence[Change]) -> list[bool]:
        mark, now = self._runtime.unique(), self._runtime.now()
        statement = to_sql(changes, mark, now)
        rows = self._patiently(lambda: self._bd.sql(statement))
        if rows > len(changes):
            raise BdDrift(f"bd sql changed {rows} rows for {len(changes)} beads; check `bd version`")
        if rows in (0, len(changes)):
            return [rows > 0] * len(changes)
        after = self._bd.show([change.bead.id for change in changes]).beads
        written = {bead.id for bead in after if (bead.metadata or {}).get(MARK) == mark}
        return [change.bead.id in written for change in changes]

    def _patiently(self, write: Callable[[], int]) -> int:
        """Repeat a write that another transaction pushed aside; it had no effect."""
        for attempt in range(1, CONFLICT_TRIES):
            try:
                return write()
            except BdConflict as error:
                log.debug("conflict", attempt=attempt, error=error)
                self._runtime.sleep(self._runtime.rng.uniform(0.02, 0.1) * attempt)
        return write()

    def _embedded_folder(self) -> Path | None:
        """Return the folder of an embedded database, None on a server."""
        where = self._bd.where()
        path, database = where.get("path"), where.get("database_path")
        if not isinstance(path, str) or not isinstance(database, str):
            raise BdDrift("bd where: no text `path` and `database_path` in the answer; check `bd version`")
        return Path(path) if Path(database).name == "embeddeddolt" else None

    def _embedded(self, folder: Path, change: Change) -> bool:
        with _locked(folder, self._bd.settings.bd_timeout, self._runtime):
            beads = self._bd.show([change.bead.id]).beads
            if len(beads) != 1 or not change.holds(beads[0]):
                return False
            self._bd.update(change.bead.id, to_options(change, beads[0].notes, self._runtime.unique()))
            return True


def apply_each(writer: Writer, changes: Sequence[Change]) -> list[bool | BdError]:
    """Apply the changes together, or where that fails one by one, so that one bead's failure is its own."""
    if not changes:
        return []
    try:
        return list(writer.apply(changes))
    except BdTimeout:
        raise
    except BdError as error:
        if len(changes) == 1:
            return [error]
    results: list[bool | BdError] = []
    for change in changes:
        results += apply_each(writer, [change])
    return results


def to_options(change: Change, notes: str, mark: str) -> list[str]:
    """Write a change as options of `bd update`, for a bead with these notes."""
    options: list[str] = []
    if change.status is not None:
        options += ["--status", change.status]
    fits = len(notes.encode()) + len(change.note.encode()) < NOTES_BYTES
    if change.retract:
        options += ["--notes", _edited(notes, change.retract, change.note if fits else "")]
    elif change.note and fits:
        options += ["--append-notes", change.note]
    for key, value in {**change.put, MARK: mark}.items():
        options += ["--set-metadata", f"{key}={guarded(value) if isinstance(value, str) else value}"]
    for key in change.drop:
        options += ["--unset-metadata", key]
    return options


def _edited(notes: str, retract: str, note: str) -> str:
    lines = notes.split("\n") if notes else []
    if retract in lines:
        lines.remove(retract)
    return "\n".join([*lines, note] if note else lines)


def to_sql(changes: Sequence[Change], mark: str, now: datetime) -> str:
    """Write changes of different beads as one UPDATE.

    Every text in it is a hex literal, so nothing of a bead, a note or an error can be read as SQL.
    """
    ids = [_text(checked_id(change.bead.id)) for change in changes]

    def each(expression: Callable[[Change], str]) -> str:
        if len(changes) == 1:
            return expression(changes[0])
        cases = (f"WHEN {bead_id} THEN {expression(change)}" for bead_id, change in zip(ids, changes, strict=True))
        return f"CASE id {' '.join(cases)} END"

    moment = _text(_sql_time(now))
    columns = [
        f"updated_at = {moment}",
        f"metadata = {each(lambda change: _metadata(change, mark))}",
        f"notes = {each(_notes)}",
        f"status = {each(lambda change: 'status' if change.status is None else _text(change.status))}",
    ]
    if any(change.status == "in_progress" for change in changes):
        columns.append(f"started_at = COALESCE(started_at, {moment})")
    where = " OR ".join(
        f"({' AND '.join([f'id = {bead_id}', *_expectations(change)])})"
        for bead_id, change in zip(ids, changes, strict=True)
    )
    # Every value in it is a hex literal or an integer, every name is in this file.
    return f"UPDATE issues SET {', '.join(columns)} WHERE id IN ({', '.join(ids)}) AND ({where})"  # noqa: S608


def _expectations(change: Change) -> Iterator[str]:
    if change.if_status is not None:
        yield f"status = {_text(change.if_status)}"
    if change.if_assignee is not None:
        yield f"assignee = {_text(change.if_assignee)}"
    if change.if_attempt is not None:
        yield f"JSON_UNQUOTE(JSON_EXTRACT(metadata, {_path('bdauto.attempt')})) = {_text(change.if_attempt)}"
    if change.if_updated_at is not None:
        yield f"updated_at = {_text(_sql_time(change.if_updated_at))}"


def _metadata(change: Change, mark: str) -> str:
    pairs = ", ".join(f"{_path(key)}, {_value(value)}" for key, value in {**change.put, MARK: mark}.items())
    expression = f"JSON_SET(COALESCE(metadata, JSON_OBJECT()), {pairs})"
    return f"JSON_REMOVE({expression}, {', '.join(map(_path, change.drop))})" if change.drop else expression


def _notes(change: Change) -> str:
    newline = _text("\n")
    notes = "COALESCE(notes, '')"
    if change.retract:
        notes = f"SUBSTR(REPLACE(CONCAT({newline}, {notes}), {_text(chr(10) + change.retract)}, ''), 2)"
    if not change.note:
        return notes
    note, room = _text(change.note), NOTES_BYTES - 1 - len(change.note.encode())
    return (
        f"CASE WHEN {notes} = '' THEN {note} WHEN LENGTH({notes}) > {room} THEN {notes} "
        f"ELSE CONCAT({notes}, {newline}, {note}) END"
    )


def _text(value: str) -> str:
    return f"CAST(X'{value.encode('utf-8', 'replace').hex()}' AS CHAR)"


def _value(value: str | int) -> str:
    return str(value) if isinstance(value, int) else _text(value)


def _path(key: str) -> str:
    if not all(c.isalnum() or c in "._" for c in key):
        raise ValueError(f"not a metadata key: {shlex.quote(key)}")
    return f"'$.\"{key}\"'"


def _sql_time(moment: datetime) -> str:
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") if moment.microsecond else text[:-7]


@contextlib.contextmanager
def _locked(folder: Path, timeout: timedelta, runtime: Runtime) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which the kernel drops when the process dies; raises BdTimeout."""
    deadline = runtime.monotonic() + timeout.total_seconds()
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if runtime.monotonic() > deadline:
                    raise BdTimeout(f"{folder} is locked by another bdauto; see what holds it") from None
                runtime.sleep(0.05)
        yield
    finally:
        os.close(lock)
