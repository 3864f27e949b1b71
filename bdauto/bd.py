"""The `bd` program: one method per bd verb.

A verb that reads returns a `Call`: the child runs from the moment the method is called, and `result()` waits for it, so
that several calls, an import or an HTTP request can share the wait.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from bdauto import argv, log, process
from bdauto.errors import BdConflict, BdDrift, BdError, BdFailed, BdMissing, BdTimeout, BdUnsupported, UsageError
from bdauto.models import ID_PATTERN, UNREADABLE, Bead, BeadList, parse_beads, parse_object, unwrap
from bdauto.settings import BdSettings, format_duration
from bdauto.text import clean

OLDEST_BD = (1, 0, 2)
HARMFUL_BD = {
    (1, 0, 4): "it re-imports a stale issues.jsonl before every write in server mode and so undoes others' changes"
}
"""Versions that must not write in server mode (beads issues 3849, 3948 and 4245; fixed in 1.0.5)."""

T = TypeVar("T")

_CONFLICT = re.compile(r"Error 1213|40001|serialization failure", re.IGNORECASE)
_NO_SQL = "not yet supported in embedded mode"


class Call(Generic[T]):
    """A running `bd`; `result()` waits for its answer."""

    def __init__(self, child: process.Process, verb: str, timeout: timedelta, parse: Callable[[bytes], T]) -> None:
        self._process = child
        self._verb = verb
        self._timeout = timeout
        self._parse = parse

    def result(self) -> T:
        """Return the parsed answer; raises BdTimeout, BdFailed, BdConflict or BdDrift."""
        try:
            out, err = self._process.communicate(timeout=self._timeout.total_seconds())
        except process.TimeoutExpired:
            self.kill()
            words = f"bd {self._verb} did not answer within {format_duration(self._timeout)} and was killed"
            raise BdTimeout(f"{words}; check its database server, or raise --bd-timeout") from None
        except BaseException:
            self.kill()
            raise
        if self._process.returncode != 0:
            raise _failure(self._verb, self._process.returncode, out, err)
        return self._parse(out)

    def kill(self) -> None:
        """End the child with its whole process group, if it still runs."""
        process.end(self._process)


class Bd:
    """One way to run `bd`: the binary, the database, the actor, the timeout; `readonly` for a dry run."""

    def __init__(self, settings: BdSettings, *, readonly: bool = False, private: bool = False) -> None:
        """Take the settings as they are; `private` says that nobody else reads the database's folder.

        In a private folder bd's export of all issues after a write is switched off: it takes seconds.
        """
        self.settings = settings
        db = None if settings.db is None else str(settings.db)
        self._prefix = argv.prefix(settings.bd, db, settings.actor, readonly=readonly)
        self._environment = argv.environment(private=private)

    def ready(self, *, limit: int, priority: int | None = None, oldest: bool = False) -> Call[BeadList]:
        """List the assignee's open beads that bd calls ready; `limit` 0 is all of them.

        One `priority` is asked for only after the first page was read: beads of it that cannot be read are no drift.
        """
        command = argv.ready(self.settings.assignee, limit, priority, oldest=oldest)
        return self._beads(command, understood=priority is not None)

    def in_progress(self) -> Call[BeadList]:
        """List the assignee's beads in progress, all of them."""
        return self._beads(argv.in_progress(self.settings.assignee))

    def assigned(self, statuses: Sequence[str]) -> Call[BeadList]:
        """List all the assignee's beads of these statuses."""
        return self._beads(
            ["list", "--assignee", self.settings.assignee, "--status", ",".join(statuses), "--limit", "0"]
        )

    def newest(self) -> Call[BeadList]:
        """List the one bead that was updated last, whatever its status."""
        return self._beads(["list", "--all", "--sort", "updated", "--limit", "1"])

    def query(self, expression: str, *, limit: int) -> Call[BeadList]:
        """List beads that match an expression of bd's query language; `limit` 0 is all of them."""
        return self._beads(["query", expression, "--limit", str(limit)])

    def show(self, ids: Sequence[str]) -> BeadList:
        """Return these beads; raises BdFailed when none of them exists."""
        return self._beads(["show", *map(checked_id, ids)]).result()

    def update(self, bead_id: str, options: Sequence[str]) -> Bead:
        """Change one bead and return it as it is afterwards."""
        answer = self._beads(["update", checked_id(bead_id), *options]).result().beads
        if len(answer) != 1:
            raise BdDrift(f"bd update {bead_id}: expected the one updated issue, got {len(answer)}; check `bd version`")
        return answer[0]

    def sql(self, statement: str) -> int:
        """Run one UPDATE on a Dolt server and return the number of rows it changed."""
        answer = self._object(["sql", statement], "sql").result()
        rows = answer.get("rows_affected")
        if not isinstance(rows, int) or isinstance(rows, bool):
            raise BdDrift("bd sql: no number `rows_affected` in the answer; check `bd version`")
        return rows

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

    def kv_list(self) -> Call[Mapping[str, Any]]:
        """Return the shared key-value store."""
        return self._object(argv.KV_LIST, "kv list")

    def kv_set(self, key: str, value: str) -> None:
        """Set a key of the shared key-value store."""
        self._object(["kv", "set", key, value], "kv set").result()

    def kv_clear(self, key: str) -> None:
        """Remove a key of the shared key-value store; a key that is not there is fine."""
        self._object(["kv", "clear", key], "kv clear").result()

    def version(self) -> Call[str]:
        """Return bd's version, e.g. `1.0.3`."""
        return self._start(["version"], "version", _parse_version)

    def where(self) -> Mapping[str, Any]:
        """Return where the database is: `path` is its folder; `database_path` ends in `embeddeddolt` if embedded.

        The folder is named by BEADS_DIR, too: bd 1.0.2's `where` does not heed `--db`.
        """
        db = self.settings.db
        named = {} if db is None else {"BEADS_DIR": str(db.absolute())}
        return self._object(["where"], "where", **named).result()

    def _beads(self, command: Sequence[str], *, understood: bool = False) -> Call[BeadList]:
        verb = command[0]
        return self._start(command, verb, lambda answer: parse_beads(answer, f"bd {verb}", understood=understood))

    def _object(self, command: Sequence[str], verb: str, **variables: str) -> Call[Mapping[str, Any]]:
        return self._start(command, verb, lambda answer: parse_object(answer, f"bd {verb}"), **variables)

    def _start(self, command: Sequence[str], verb: str, parse: Callable[[bytes], T], **variables: str) -> Call[T]:
        log.debug("bd-started", verb=verb)
        try:
            child = process.start([*self._prefix, *command], self._environment | variables)
        except OSError as error:
            raise _not_started(self.settings.bd, error) from None
        return Call(child, verb, self.settings.bd_timeout, parse)


def checked_id(bead_id: str) -> str:
    """Return the id if it is one; raises UsageError for what could be misread as an option or as SQL."""
    if not re.match(ID_PATTERN, bead_id):
        raise UsageError(f"{clean(bead_id, 60)!r} is not a bead id")
    return bead_id


def check_version(version: str, server_mode: Callable[[], bool]) -> None:
    """Refuse a bd that is too old, or harmful in this mode; `server_mode` is asked only where the answer matters."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not match:
        raise BdDrift(f"bd version: {clean(version, 40)!r} is not a version; check what `bd` on PATH is")
    number = (int(match[1]), int(match[2]), int(match[3]))
    if number < OLDEST_BD:
        oldest = ".".join(map(str, OLDEST_BD))
        raise BdUnsupported(f"bd {version} is too old: install {oldest} or later")
    if number in HARMFUL_BD and server_mode():
        raise BdUnsupported(f"bd {version} must not write here: {HARMFUL_BD[number]}; install 1.0.5 or later")


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
        raise UsageError(f"--metadata {metadata}: {error.strerror}; name a readable metadata.json") from None
    try:
        msgspec.json.decode(content, type=dict[str, Any])
    except UNREADABLE as error:
        raise UsageError(f"--metadata {metadata}: {clean(str(error))}; expected bd's metadata.json") from None
    folder = Path(tempfile.mkdtemp(prefix="bdauto-"))
    try:
        beads = folder / ".beads"
        beads.mkdir(mode=0o700)
        copy = os.open(beads / "metadata.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(copy, "wb") as file:
            file.write(content)
        yield beads
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _not_started(bd: str, error: OSError) -> BdError:
    if error.errno == errno.E2BIG:
        return BdFailed("bd: the command line is too long")
    reason = error.strerror or str(error)
    return BdMissing(f"bd: cannot run {clean(bd, 200)!r}: {reason}; install bd, or name it with --bd or BDAUTO_BD")


def _failure(verb: str, code: int, out: bytes, err: bytes) -> BdError:
    how = f"was killed by signal {-code}" if code < 0 else f"failed (exit {code})"
    message = _message(out) or _message(err) or err.decode(errors="replace") or out[:400].decode(errors="replace")
    text = f"bd {verb} {how}: {clean(message) or 'it said nothing'}"
    return BdConflict(text) if _CONFLICT.search(message) else BdFailed(text)


def _message(answer: bytes) -> str:
    """Return the `error` of the last JSON object in the text, or ""."""
    start = answer.find(b"{")
    if start < 0:
        return ""
    try:
        value = msgspec.json.decode(unwrap(answer[start:].strip(), "bd"))
    except (*UNREADABLE, BdDrift):
        return ""
    message = value.get("error") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def _parse_version(answer: bytes) -> str:
    version = parse_object(answer, "bd version").get("version")
    if not isinstance(version, str):
        raise BdDrift("bd version: no text `version` in the answer; check what `bd` on PATH is")
    return version
