"""Runs the `bd` program: one binary, one database, one actor, one time limit."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bdauto.bd import command, process
from bdauto.bd.folder import read_metadata, restore_copy
from bdauto.bd.parsing import parse_beads, parse_object
from bdauto.bd.running import RunningCommand, not_started
from bdauto.bd.tracker import redirected
from bdauto.common import log
from bdauto.common.errors import BdFailed, BdUnsupported
from bdauto.common.sanitize import clean, hide_secrets
from bdauto.domain.bead import BeadList
from bdauto.domain.settings import BdSettings

T = TypeVar("T")

MOST_NAMED = 1_000
"""Each invalid value, and each line that bd wrote on stderr, is logged once, up to this many."""
_WARNING = re.compile(r"\s*warn(?!.* has permissions 0|.*beads\.role not configured)", re.IGNORECASE)
"""Matches a warning of bd, except two that bd repeats at each call, which are logged at debug.

`doctor` reports the folder's permissions. The role matters only to people who create beads.
"""
_NO_CONFIGURATION = re.compile(rb"no beads configuration found in .{0,600}using default", re.DOTALL)
SAID_BYTES = 1 << 14
"""Bytes of one call's stderr that are logged, line by line."""
_REIMPORT = re.compile(rb"auto-importing .{0,600} into empty database", re.DOTALL)


class BdProgram:
    """Starts `bd` and hears what it says. A subclass has its verbs. `readonly` is for a dry run.

    `call_ended` is called when a call has ended, answered or not.
    """

    call_ended: Callable[[], None] = staticmethod(lambda: None)

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
        self._copied = read_metadata(settings.db) if private and settings.db else None
        self._named: set[str] = set()
        self._reimports = False

    def _write(self, start: Callable[[], RunningCommand[T]]) -> T:
        """Run a command that writes. Raises BdUnsupported once bd has been seen to undo others' changes."""
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
        """Log once what is read as absent, because a bead is read many times."""
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
                raise not_started(self.settings.bd_path, error) from None
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
