"""Changing a bead: status, note and metadata together, and only if the bead still is what was seen.

On a Dolt server one `bd sql` does it all (see bd/sql.py). On an embedded database, which is one host's, a file lock
holds off other bdauto processes while the bead is read again and updated.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from bdauto.bd.change import MARK, NOW, Change, Moment
from bdauto.bd.client import Bd
from bdauto.bd.prefetch import Prefetch
from bdauto.bd.running import no_guards, no_sql
from bdauto.bd.sql import NOT_WRITTEN, NOTES_BYTES, OVERTAKEN, swap_to_sql, to_sql
from bdauto.bd.versions import check_version, may_have_guards
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdConflict, BdFailed, BdMoved, BdTimeout
from bdauto.common.lock import locked
from bdauto.domain.bead import Bead
from bdauto.domain.notes import CLAIM_NOTE, WRITTEN
from bdauto.domain.record import PENDING_NOTE
from bdauto.domain.record_values import guarded

T = TypeVar("T")

CONFLICT_TRIES = 8


class BdWriter:
    """Applies changes through bd, in the way that the database's mode allows."""

    def __init__(self, bd: Bd, runtime: Runtime) -> None:
        self._bd = bd
        self._runtime = runtime
        self._version = Prefetch(bd.version, runtime.now, ages=False)
        self._checked = False
        self._guards = False  # whether `bd update` may know them
        self._folder: Path | None = None  # set once the database is known to be embedded

    def prepare(self) -> None:
        """Start asking bd for its version, which must be known before the first write."""
        if not self._checked:
            self._version.start()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply each change whose expectations hold. Applying it once more, after an error, never writes it twice.

        Several changes are applied together or not at all: if one cannot be, this raises BdFailed. An embedded database
        has no such transaction and refuses several changes.
        """
        written = self._by_sql(lambda: self._on_server(changes))
        if written is not None:
            return written
        if len(changes) > 1:
            raise BdFailed("an embedded database takes one bead's change at a time")
        return [self._embedded(change) for change in changes]

    def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Set or clear a key of the key-value store if it still has the value `old`: see Writer."""
        written = self._by_sql(lambda: self._swap_on_server(key, old, new))
        if written is not None:
            return written
        with self._locked():
            if (self._bd.kv_list().result().get(key) or None) != old:
                return False
            self._bd.kv_set(key, new)
            self._bd.commit(f"bdauto: set {key} by {self._bd.settings.actor}")
            return True

    def check(self) -> None:
        """Refuse a bd whose version must not write here. It is asked once. Raises BdUnsupported."""
        if not self._checked:
            version = self._version.result()
            check_version(version, lambda: self._embedded_folder() is None)
            self._guards = may_have_guards(version)
        self._checked = True

    def _by_sql(self, write: Callable[[], T]) -> T | None:
        """Write on a Dolt server. None: the database is embedded, and nothing is written yet."""
        self.check()
        if self._folder is None:
            try:
                return write()
            except BdFailed as error:
                self._folder = self._embedded_folder() if no_sql(error) else None
                if self._folder is None:
                    raise
        return None

    def _swap_on_server(self, key: str, old: str | None, new: str | None) -> bool:
        try:
            self._patiently(lambda: self._bd.sql(swap_to_sql(key, old, new, self._bd.settings.actor)))
        except BdFailed as error:
            if NOT_WRITTEN not in error.message:
                raise
            return False
        return True

    def _on_server(self, changes: Sequence[Change]) -> list[bool]:
        crossing = [change for change in changes if change.crosses_closed]
        if not crossing:
            return self._by_sql_alone(changes)
        if len(changes) > 1:
            raise BdFailed("a bead is closed, or a closed one opened, by itself")
        [change] = crossing
        written = self._by_sql_alone([msgspec.structs.replace(change, status=None)])
        if written == [True]:
            self._patiently(lambda: self._set_status(change))
        return written

    def _set_status(self, change: Change) -> None:
        if change.status == "closed":
            self._bd.close(change.bead.id, change.reason, change.bead.assignee)
        else:
            self._bd.update(change.bead.id, ["--status", str(change.status)])

    def _by_sql_alone(self, changes: Sequence[Change]) -> list[bool]:
        statements = to_sql(changes, self._bd.settings.actor)
        try:
            self._patiently(lambda: self._bd.sql(statements))
        except BdFailed as error:
            overtaken = OVERTAKEN in error.message
            if not overtaken and NOT_WRITTEN not in error.message:
                raise
            if len(changes) > 1:
                raise BdFailed("a bead changed since it was read: none of them was written") from None
            if overtaken:
                self._undo(changes[0])
            return [False]
        self._bd.touch()
        return [True] * len(changes)

    def _undo(self, change: Change) -> None:
        """Take back what Dolt merged with somebody else's change of the same moment."""
        log.warning("overtaken", bead=change.bead.id, attempt=change.if_attempt or "", detail="undone")
        self.apply([change.undone(self._runtime.unique())])

    def _patiently(self, write: Callable[[], None]) -> None:
        """Repeat a write that another transaction pushed aside, so that it had no effect."""
        for attempt in range(1, CONFLICT_TRIES):
            try:
                write()
            except BdConflict as error:
                log.debug("conflict", attempt=attempt, error=error)
                self._runtime.sleep(self._runtime.rng.uniform(0.02, 0.1) * attempt)
            else:
                return
        write()

    def _embedded_folder(self) -> Path | None:
        """Return the folder of an embedded database, None on a server."""
        folder, database = self._bd.folders()
        return folder if database.name == "embeddeddolt" else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Path]:
        """Hold an exclusive lock on the folder of the embedded database. Raises BdTimeout and BdFailed."""
        folder = self._folder
        assert folder
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(locked(folder, self._bd.settings.bd_timeout.total_seconds(), self._runtime))
            except TimeoutError:
                raise BdTimeout(f"{folder} is locked by another bdauto", hint="see what holds it") from None
            except OSError as error:
                words = f"{folder} cannot be locked: {error.strerror}"
                raise BdFailed(words, hint="an embedded database needs a local folder that can be read") from None
            yield folder

    def _embedded(self, change: Change) -> bool:
        with self._locked() as folder:
            beads = self._bd.read([change.bead.id]).result().beads
            if len(beads) != 1:
                return False
            if change.applied_to(beads[0]):
                return True
            if not change.holds(beads[0]):
                return False
            if change.if_store and not change.allowed_by(self._bd.kv_list().result()):
                return False
            with _last_touched_kept(folder, change.bead.id):
                written = self._update(change, to_options(change, beads[0], self._runtime.now()))
                if written and change.status == "closed":
                    self._set_status(change)
                return written

    def _update(self, change: Change, options: list[str]) -> bool:
        """Change a bead that was just read. Where bd has guards, it looks once more itself, in its own transaction."""
        try:
            self._bd.update(change.bead.id, [*(to_guards(change) if self._guards else ()), *options])
        except BdMoved:
            return False
        except BdFailed as error:
            if not self._guards or not no_guards(error):
                raise
            self._guards = False
            self._bd.update(change.bead.id, options)
        return True


def to_guards(change: Change) -> list[str]:
    """Write what a change expects as the guards of `bd update`, which has none for the attempt and the last update."""
    status = [] if change.if_status is None else ["--if-status", change.if_status]
    return status + ([] if change.if_assignee is None else ["--if-assignee", change.if_assignee])


def to_options(change: Change, bead: Bead, now: datetime) -> list[str]:
    """Write a change as options of `bd update`, for the bead as it is.

    bd appends to notes or replaces them. To take out the note of a claim that came to nothing would lose what somebody
    else notes at that moment. So it waits in the metadata, and is written with the first change after the claim.
    """
    options: list[str] = []
    if change.status not in (None, "closed"):
        options += ["--status", str(change.status)]
    pending = "" if change.retracts_claim_note or change.quiet else bead.pending_note
    note, notes = "\n".join(filter(None, [pending, change.note])), bead.notes
    if note and len(bead.notes.encode()) + len(note.encode()) < NOTES_BYTES:
        options += ["--append-notes", note]
        notes = "\n".join(filter(None, [notes, note]))
    put, drop = {**change.put, MARK: change.mark}, list(change.drop)
    if change.writes_claim_note:
        put[PENDING_NOTE] = (
            f"{len(notes)} {CLAIM_NOTE}{NOW.at(now)}"  # after the note of an earlier claim, if it waited
        )
    elif PENDING_NOTE in bead.metadata:
        if change.ends_claim:
            drop.append(PENDING_NOTE)
        elif pending:  # the agent may have noted before the claim's note is written: its place still counts
            put[PENDING_NOTE] = f"{str(bead.metadata[PENDING_NOTE]).partition(' ')[0]} {WRITTEN}"
    for key, value in put.items():
        text = value.at(now) if isinstance(value, Moment) else guarded(value) if isinstance(value, str) else value
        options += ["--set-metadata", f"{key}={text}"]
    for key in drop:
        options += ["--unset-metadata", key]
    return options


@contextlib.contextmanager
def _last_touched_kept(folder: Path, bead_id: str) -> Iterator[None]:
    """Take back the id that `bd update` writes into `last-touched`: a bare `bd close` closes the bead that it names."""
    file = folder / "last-touched"
    before = _content(file)
    try:
        yield
    finally:
        if _content(file).strip() == bead_id.encode():  # nobody else has touched a bead meanwhile
            with contextlib.suppress(OSError):
                file.write_bytes(before)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
