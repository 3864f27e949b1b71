"""The `bd` program: one method per bd verb.

A verb that reads returns a `RunningCommand`: the child runs from the moment the method is called, and `result()` waits
for it, so that several commands, an import or an HTTP request can share the wait.
"""

import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from bdauto import log
from bdauto.bd import command, process
from bdauto.bd.folder import restore_copy
from bdauto.bd.parsing import parse_beads, parse_object, unwrap
from bdauto.bd.server_address import read_object
from bdauto.bd.tracker import Tracker, redirected, tracker_at
from bdauto.domain.bead import ID_PATTERN, MALFORMED, Bead, BeadList
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.lanes import Lanes
from bdauto.domain.record import PLACE, PREFIX
from bdauto.domain.record_values import guarded
from bdauto.domain.settings import BdSettings
from bdauto.domain.times import format_time, parse_time
from bdauto.domain.values import format_duration
from bdauto.errors import (
    BdautoError,
    BdConflict,
    BdDrift,
    BdError,
    BdFailed,
    BdMissing,
    BdMoved,
    BdTimeout,
    BdUnsupported,
    UsageError,
)
from bdauto.sanitize import clean, hide_secrets

MOST_NAMED = 1_000
"""Each invalid value, and each line that bd wrote on stderr, is logged once, up to this many."""
EVENTS = 200
"""Recorded changes that are read at most, the last ones."""
SERVER_TIME = "SELECT UTC_TIMESTAMP() AS moment"

T = TypeVar("T")

_CONFLICT = re.compile(r"Error 1213|40001|serialization failure", re.IGNORECASE)
_NO_TRACKER = "no_beads_directory"
_NO_SQL = "not yet supported in embedded mode"
SCHEMA_OLDER = "once every bd of this database is as new as this one, run `bd migrate schema` with it"
_SCHEMA = (
    (re.compile("pending schema migrations"), "commit what is uncommitted with the old bd: `bd dolt commit`"),
    (
        re.compile("schema version mismatch: .*knows up to"),
        "install the bd that migrated this database, or a later one",
    ),
    (re.compile("read-only open cannot migrate|table not found|could not be found in any table"), SCHEMA_OLDER),
)
_NO_GUARDS = "unknown flag: --if-"
_NO_EVENTS = "unknown flag: --events"
GUARD_MISMATCH = 13
"""Exit status of `bd update` when the bead is not as `--if-status` and `--if-assignee` say. Nothing was written."""
_NO_READONLY = b"strict readonly is unavailable"
_WARNING = re.compile(r"\s*warn(?!.* has permissions 0|.*beads\.role not configured)", re.IGNORECASE)
"""Matches a warning of bd, except two that bd repeats at each call, which are logged at debug.

`doctor` reports the folder's permissions. The role matters only to people who create beads.
"""
_NO_CONFIGURATION = re.compile(rb"no beads configuration found in .{0,600}using default", re.DOTALL)
SAID_BYTES = 1 << 14
"""Bytes of one call's stderr that are logged, line by line."""
_REIMPORT = re.compile(rb"auto-importing .{0,600} into empty database", re.DOTALL)


class RunningCommand(Generic[T]):
    """A running `bd`; `result()` waits for its answer."""

    ahead = 0.0
    """Seconds that the child had already run when this object took it over: see `process.start_ahead`."""

    def __init__(
        self,
        child: process.Process,
        verb: str,
        timeout: timedelta,
        parse: Callable[[bytes], T],
        heard: Callable[[bytes], None],
        again: Callable[[], process.Process] | None = None,
    ) -> None:
        """Take the started child. `heard` is called at its end with its stderr.

        `again` starts it once more without --readonly, if bd refuses that option for this database.
        """
        self._process = child
        self.ahead = time.monotonic() - child.began
        self._again = again
        self._verb = verb
        self._timeout = timeout
        self._parse = parse
        self._heard = heard

    def result(self) -> T:
        """Return the parsed answer; raises BdTimeout, BdFailed, BdConflict or BdDrift."""
        code, out, err = self._wait()
        if code != 0 and self._again and lacks_readonly(err):
            self._process = self._again()
            code, out, err = self._wait()
        self._heard(err)
        if code != 0:
            raise _failure(self._verb, code, out, err)
        return self._parse(out)

    def _wait(self) -> tuple[int, bytes, bytes]:
        try:
            return self._process.wait(self._timeout.total_seconds())
        except process.TimeoutExpired:
            self._heard(b"")
            words = f"bd {self._verb} did not answer within {format_duration(self._timeout)} and was killed"
            raise BdTimeout(words, hint="check its database server, or raise --bd-timeout") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End the child with its whole process group, if it still runs."""
        self._process.end()


class Bd:
    """One way to run `bd`: the binary, the database, the actor and the timeout. `readonly` is for a dry run.

    `call_ended` is called when a call has ended, answered or not.
    """

    call_ended: Callable[[], None] = staticmethod(lambda: None)
    lane = DEFAULT_LANE
    """The lane of its assignee's beads."""
    lanes = Lanes()
    """The lanes of its tracker."""

    @property
    def assignee(self) -> str:
        """Whose beads it lists."""
        return self.settings.assignee

    def __init__(self, settings: BdSettings, *, readonly: bool = False, private: bool = False) -> None:
        """Take the settings. `private`: nobody else reads the database's folder.

        A `readonly` bd refuses every write. So does this class itself, because a proxied server takes no --readonly.
        In a private folder bd's export of all issues after a write is switched off: it takes seconds. What a cleaner of
        temporary files removes from it is restored.
        """
        self.settings = settings
        self._db = None if settings.db is None else redirected(settings.db)
        self._folder = self._db  # else asked for once
        self._readonly = readonly
        self._prefix = self._start_of_commands(readonly=readonly)
        self._environment = command.environment(private=private)
        self._copied = _metadata(settings.db) if private and settings.db else None
        self._named: set[str] = set()
        self._reimports = False

    def ready(
        self, *, limit: int, priority: int | None = None, oldest: bool = False, place: str = "", parent: str = ""
    ) -> RunningCommand[BeadList]:
        """List the assignee's open beads that bd calls ready. `limit` 0 lists all of them.

        One `priority` is asked for only after the first page was read: beads of it that cannot be read are no drift.
        With `place` only beads whose PLACE is that, and with `parent` only the descendants of that bead.
        """
        words = command.ready(self.assignee, limit, priority, oldest=oldest)
        words += [f"--metadata-field={PLACE}={place}"] if place else []
        words += ["--parent", checked_id(parent)] if parent else []
        return self._beads(words, understood=priority is not None)

    def in_progress(self) -> RunningCommand[BeadList]:
        """List the assignee's beads in progress, all of them."""
        return self._beads(command.in_progress(self.assignee))

    def assigned(self, statuses: Sequence[str]) -> RunningCommand[BeadList]:
        """List all the assignee's beads of these statuses."""
        return self._beads(["list", "--assignee", self.assignee, "--status", ",".join(statuses), "--limit", "0"])

    def with_metadata(self, **values: str) -> RunningCommand[BeadList]:
        """List all beads whose metadata has these texts under these keys of bdauto, whatever their status.

        `with_metadata(result="running")` asks for `bdauto.result`.
        """
        fields = [f"--metadata-field={PREFIX}{key}={value}" for key, value in values.items()]
        return self._beads(["list", "--all", *fields, "--limit", "0"])

    def recorder_of(self, job: str, besides: str) -> str:
        """Return the id of another bead than `besides` that records this job, or "". Raises BdError."""
        for text in dict.fromkeys((job, guarded(job))):
            others = [bead.id for bead in self.with_metadata(job=text).result().beads if bead.id != besides]
            if others:
                return others[0]
        return ""

    def changed_since(self, moment: datetime) -> RunningCommand[BeadList]:
        """List all beads that were updated after a moment, whoever has them and whatever their status."""
        return self._beads(["list", "--all", "--updated-after", format_time(moment), "--limit", "0"])

    def labelled(self, label: str) -> RunningCommand[BeadList]:
        """List all beads with a label that are not closed, whoever has them."""
        return self._beads(["list", "--label", label, "--limit", "0"])

    def comments(self, bead_id: str) -> list[str]:
        """Return the texts of a bead's comments, the oldest first. Raises BdError."""
        rows = self._start(["comments", checked_id(bead_id)], "comments", _parse_rows).result()
        return [text for row in rows if isinstance(text := row.get("text"), str)]

    def newest(self) -> RunningCommand[BeadList]:
        """List the one bead that was updated last, whatever its status."""
        return self._beads(["list", "--all", "--sort", "updated", "--limit", "1"])

    def recent(self, limit: int) -> RunningCommand[BeadList]:
        """List the assignee's beads that were updated last, whatever their status."""
        return self._beads(["list", "--assignee", self.assignee, "--all", "--sort", "updated", "--limit", str(limit)])

    def query(self, expression: str, *, limit: int) -> RunningCommand[BeadList]:
        """List beads that match an expression of bd's query language; `limit` 0 is all of them."""
        return self._beads(["query", expression, "--limit", str(limit)])

    def read(self, ids: Sequence[str]) -> RunningCommand[BeadList]:
        """Read those of these beads that exist, of any kind and status.

        By `bd list`: `bd show` would make the first of them the one that a person's next bare `bd close` closes.
        """
        everything = ["--all", "--include-gates", "--include-infra", "--include-templates", "--limit", "0"]
        return self._beads(["list", "--id", ",".join(map(checked_id, ids)), *everything])

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

    def sql(self, statements: str) -> None:
        """Run statements that write on a Dolt server; raises BdFailed when one of them fails.

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
        try:
            return self.select(query)
        except BdFailed as error:
            if no_sql(error):
                return None
            raise

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
        try:
            return self._start(["sql", SERVER_TIME], "sql", _parse_moment).result()
        except BdFailed as error:
            if no_sql(error):
                return None
            raise

    def can_sql(self) -> bool:
        """Whether `bd sql` works here, which it does on a Dolt server only; raises BdFailed when it fails otherwise."""
        try:
            return self._start(["sql", "SELECT 1"], "sql", lambda _answer: True).result()
        except BdFailed as error:
            if no_sql(error):
                return False
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
        """Return where the database is: `path` is its folder; `database_path` ends in `embeddeddolt` if embedded.

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

    def _write(self, start: Callable[[], RunningCommand[T]]) -> T:
        """Run a command that writes; raises BdUnsupported once bd has been seen to undo others' changes."""
        if self._readonly:
            raise AssertionError("a readonly bd never writes")
        self._check_harmless()
        try:
            return start().result()
        finally:
            self._check_harmless()

    def _check_folder(self) -> None:
        """Refuse a folder that is gone, as one that is unmounted: bd would make an empty database, which looks idle."""
        db = self._db
        if db is not None and self._copied is not None:
            restore_copy(db, self._copied)
        if db is not None and not command.is_database(str(db)):
            raise BdFailed(f"--db {db}: no metadata.json in it any more", hint="bring the folder back")
        if db is None and (folder := command.unconfigured_folder()):
            raise BdFailed(f"{folder}: no metadata.json in it any more", hint="bring it back")

    def _check_harmless(self) -> None:
        if self._reimports:
            raise BdUnsupported(
                "bd imported issues.jsonl over the database, which undoes others' changes: nothing more is written",
                hint="install bd 1.0.5 or later; if the database really was empty, run this again",
            )

    def _hear(self, stderr: bytes) -> None:
        self.call_ended()
        self._reimports = self._reimports or bool(_REIMPORT.search(stderr))
        for line in stderr[:SAID_BYTES].decode(errors="replace").splitlines():
            if line.strip() and line not in self._named and len(self._named) < MOST_NAMED:
                self._named.add(line)
                level = logging.WARNING if _WARNING.match(line) else logging.DEBUG
                log.event("bd-said", level, detail=hide_secrets(line))
        if _NO_CONFIGURATION.search(stderr):
            raise BdFailed(
                "bd finds no metadata.json in its folder and takes an empty database", hint="see `bd where`, then --db"
            )

    def _beads(self, command: Sequence[str], *, understood: bool = False) -> RunningCommand[BeadList]:
        verb = command[0]

        def parse(answer: bytes) -> BeadList:
            found = parse_beads(answer, f"bd {verb}", understood=understood)
            self._name_once(found.invalid_metadata)
            return found

        return self._start(command, verb, parse)

    def _name_once(self, invalid_metadata: Sequence[str]) -> None:
        """Log what is read as absent; a bead is read many times."""
        for line in invalid_metadata:
            if line not in self._named and len(self._named) < MOST_NAMED:
                self._named.add(line)
                log.warning("invalid-metadata", detail=line)

    def _object(self, command: Sequence[str], verb: str, **variables: str) -> RunningCommand[Mapping[str, Any]]:
        return self._start(command, verb, lambda answer: parse_object(answer, f"bd {verb}"), **variables)

    def _start(
        self, command: Sequence[str], verb: str, parse: Callable[[bytes], T], **variables: str
    ) -> RunningCommand[T]:
        def start() -> process.Process:
            log.debug("bd-started", verb=verb)
            self._check_folder()
            try:
                return process.start([*self._prefix, *command], self._environment | variables)
            except OSError as error:
                raise _not_started(self.settings.bd_path, error) from None
            except ValueError as error:  # a null character, or what this locale cannot write
                raise BdFailed(f"bd {verb} cannot be started: {clean(str(error))}", hint="use a UTF-8 locale") from None

        def again() -> process.Process:
            self._drop_readonly()
            return start()

        return RunningCommand(start(), verb, self.settings.bd_timeout, parse, self._hear, again)

    def _drop_readonly(self) -> None:
        self._prefix = self._start_of_commands(readonly=False)

    def _start_of_commands(self, *, readonly: bool) -> list[str]:
        db = None if self._db is None else str(self._db)
        return command.prefix(self.settings.bd_path, db, self.settings.actor, readonly=readonly)


def checked_id(bead_id: str) -> str:
    """Return the id if it is one; raises UsageError for what could be misread as an option or as SQL."""
    if not re.match(ID_PATTERN, bead_id):
        raise UsageError(f"{clean(bead_id, 60)!r} is not a bead id")
    return bead_id


def lacks_readonly(stderr: bytes) -> bool:
    """Whether bd refused --readonly itself, which it does on a proxied server, before it opens the database."""
    return _NO_READONLY in stderr


def no_guards(error: BdError) -> bool:
    """Whether `bd update` does not know its guards. Then it has not written."""
    return _NO_GUARDS in str(error)


def no_sql(error: BdError) -> bool:
    """Whether this failure of `bd sql` says that the database is embedded."""
    return _NO_SQL in str(error)


@contextlib.contextmanager
def private_db(metadata: Path) -> Iterator[Path]:
    """Copy a metadata.json into a new private folder, yield the folder, and remove it at the end."""
    import shutil
    import tempfile

    try:
        content = metadata.read_bytes()
    except OSError as error:
        raise UsageError(f"--metadata {metadata}: {error.strerror}", hint="name a readable metadata.json") from None
    try:
        mode = msgspec.json.decode(content, type=dict[str, Any]).get("dolt_mode")
    except MALFORMED as error:
        raise UsageError(f"--metadata {metadata}: {clean(str(error))}", hint="expected bd's metadata.json") from None
    if mode in ("embedded", "proxied-server"):  # bd would silently make an empty database beside the copy
        words = f"--metadata {metadata}: the database ({mode}) is in the folder of this file, not on a server"
        raise UsageError(words, hint="name the .beads folder with --db")
    folder: Path | None = None
    try:
        try:
            folder = Path(tempfile.mkdtemp(prefix="bdauto-"))
            beads = folder / ".beads"
            beads.mkdir(mode=0o700)
            copy = os.open(beads / "metadata.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(copy, "wb") as file:
                file.write(content)
        except OSError as error:
            words = f"--metadata {metadata} cannot be copied: {error.strerror or error}"
            raise UsageError(words, hint="set TMPDIR to a writable folder") from None
        yield beads
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _metadata(db: Path) -> bytes | None:
    try:
        return (db / "metadata.json").read_bytes()
    except OSError:
        return None


def _not_started(bd: str, error: OSError) -> BdError:
    if error.errno == errno.E2BIG:
        return BdFailed("bd: the command line is too long")
    reason = clean(error.strerror or str(error))
    if error.errno in _NO_PROCESS:
        return BdFailed(f"bd: no process can be started: {reason}", hint=_NO_PROCESS[error.errno])
    return BdMissing(
        f"bd: cannot run {clean(bd, 200)!r}: {reason}", hint="install bd, or name it with --bd or BDAUTO_BD"
    )


_NO_PROCESS = {
    errno.EMFILE: "raise this process's limit of open files (`ulimit -n`)",
    errno.ENFILE: "this host is out of open files: find the processes that hold them",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`, or the container's pids)",
    errno.ENOMEM: "give it more memory",
    errno.ENOSPC: "set TMPDIR to a writable folder with free space",
    errno.EPERM: "a security profile forbids it: check that of the container or the service",
}
"""What to do when no process can be started at all, by errno. bd itself may be fine."""


def _failure(verb: str, code: int, out: bytes, err: bytes) -> BdError:
    how = f"was killed by signal {-code}" if code < 0 else f"failed (exit {code})"
    message = _message(out) or _message(err) or err.decode(errors="replace") or out[:400].decode(errors="replace")
    text = f"bd {verb} {how}: {clean(message)}" if clean(message) else f"bd {verb} {how} with no output"
    if code == GUARD_MISMATCH and verb == "update":
        return BdMoved(text)
    return BdConflict(text) if _CONFLICT.search(message) else BdFailed(text, hint=_schema_hint(message))


def _message(answer: bytes) -> str:
    """Return the `error` of the last JSON object in the text, or ""."""
    start = answer.find(b"{")
    if start < 0:
        return ""
    try:
        value = msgspec.json.decode(unwrap(answer[start:].strip(), "bd"))
    except (*MALFORMED, BdDrift):
        return ""
    message = value.get("error") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def _schema_hint(message: str) -> str:
    """Return what to do where a failure is one of bd's schema, "" where it is not."""
    return next((hint for pattern, hint in _SCHEMA if pattern.search(message)), "")


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
