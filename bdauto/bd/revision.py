"""The tracker's revision: a text that differs after each write, asked for without starting bd.

It says when to look, never what is there: that is always bd's word. On a Dolt server it is the hash of the database's
working set, over one connection that is kept. Of an embedded database it is the size of Dolt's journal, which grows
with each write, while reads only move its time. `last-touched` alone would not do: `bd close` leaves it as it is.

A server that bd started on this machine has its files here, too. While they stay as they are, it need not be asked: to
wake a server each second costs more than the question.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bdauto.bd.client import Bd
from bdauto.bd.server_address import ServerAddress, database_name, read_object, server_address
from bdauto.common.errors import BdFailed
from bdauto.common.extras import advice, missing

if TYPE_CHECKING:
    from pymysql.connections import Connection

TIMEOUT = 2
"""Seconds that the server may take to accept the connection, and to answer."""
NOMS = Path(".dolt", "noms")
"""Where Dolt has the files of a database."""
MANIFEST, JOURNAL = "manifest", "v" * 32
SERVER_INFO = Path(".dolt", "sql-server.info")
"""The file in which a Dolt server says that it serves a folder: process, port and an id, separated by colons."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ASK_EVERY = 60
"""Of so many readings in a row one asks the server in any case, in case its files are not those on this machine."""


class Revision(Protocol):
    """Reads the revision of one tracker."""

    def read(self) -> str:
        """Return the revision as it is now. Raises BdFailed."""

    def close(self) -> None:
        """Let go of what was opened."""


def open_revision(bd: Bd) -> Revision:
    """Ask bd where the tracker is, and open its revision. Raises BdError."""
    folder, database = bd.folders()
    if database.name == "embeddeddolt":
        metadata = read_object(folder / "metadata.json")
        return EmbeddedRevision(database / database_name(metadata, os.environ), folder)
    return ServerRevision(folder, database)


class EmbeddedRevision:
    """The journal's size, the manifest, which garbage collection replaces, and the time of `last-touched`."""

    def __init__(self, database: Path, folder: Path) -> None:
        """Take the database's folder and .beads. Raises BdFailed if Dolt's files are not where they should be."""
        self._noms = database / NOMS
        self._touched = folder / "last-touched"
        self.read()

    def read(self) -> str:
        """Return the revision as it is now. Raises BdFailed."""
        try:
            manifest = (self._noms / MANIFEST).read_bytes()
            with os.scandir(self._noms) as entries:
                sizes = sorted(f"{entry.name}={entry.stat().st_size}" for entry in entries if entry.is_file())
        except OSError as error:
            raise BdFailed(f"{self._noms}: {error.strerror}") from None
        touched = 0
        with contextlib.suppress(OSError):
            touched = self._touched.stat().st_mtime_ns
        return f"{manifest.hex()} {touched} {' '.join(sizes)}"

    def close(self) -> None:
        """Nothing is open."""

    def __str__(self) -> str:
        """Return what is watched."""
        return "the files of the embedded database"


class ServerRevision:
    """The hash of the database's working set, from the Dolt server that metadata.json names."""

    def __init__(self, folder: Path, data: Path) -> None:
        """Connect to the server of this .beads folder. Raises BdFailed.

        `data` is where a server that bd starts has its databases. It need not exist.
        """
        if missing("watch"):
            raise BdFailed("the library PyMySQL is not installed", hint=advice("watch"))
        self._folder = folder
        self._named_at = self._metadata_time()
        self._address = self._named()
        self._query = f"SELECT @@`{self._address.database}_working`"
        self._noms = self._local_files(data)
        self._files: tuple[int, int] | None = None
        self._hash, self._unasked = "", 0  # what the last answer was, and how many readings ago
        self._connection = self._connect()
        try:
            self.read()
        except BdFailed:
            self.close()
            raise

    def read(self) -> str:
        """Return the revision as it is now. Raises BdFailed, too, when metadata.json has come to name another server.

        A connection that is kept tells the last hash of a database for ever, after that was dropped.
        """
        if self._metadata_time() != self._named_at and self._named() != self._address:
            raise BdFailed("metadata.json names another server or database now")
        files = self._look_at_files()
        self._unasked += 1
        if files and files == self._files and self._unasked < ASK_EVERY:
            return self._hash
        answer = self._ask()
        if files == self._files and answer != self._hash and files == self._look_at_files():
            self._noms = None  # the server writes elsewhere
        self._files, self._hash, self._unasked = files, answer, 0
        return answer

    def _ask(self) -> str:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(self._query)
                row = cursor.fetchone()
        except Exception as error:  # PyMySQL lets many kinds through when a server talks nonsense
            raise self._failed(error) from None
        if not row or not isinstance(row[0], str) or not row[0]:
            raise self._failed(f"no database {self._address.database}")
        return row[0]

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def __str__(self) -> str:
        """Return what is watched."""
        return f"the SQL server at {self._address.where}" + (", and its files here" if self._noms else "")

    def _local_files(self, data: Path) -> Path | None:
        """Return the folder of the database's files if its server runs on this machine and serves `data`."""
        with contextlib.suppress(OSError, ValueError):
            _, port, *_ = (data / SERVER_INFO).read_text().split(":")
            if self._address.host in LOOPBACK and port == str(self._address.port):
                return data / self._address.database / NOMS
        return None

    def _look_at_files(self) -> tuple[int, int] | None:
        """Return what each write changes: the journal's size, and the time of the manifest. None if it is not known."""
        with contextlib.suppress(OSError):
            if self._noms:
                return (self._noms / JOURNAL).stat().st_size, (self._noms / MANIFEST).stat().st_mtime_ns
        return None

    def _named(self) -> ServerAddress:
        return server_address(self._folder, read_object(self._folder / "metadata.json"), os.environ)

    def _metadata_time(self) -> int:
        with contextlib.suppress(OSError):
            return (self._folder / "metadata.json").stat().st_mtime_ns
        return 0

    def _connect(self) -> "Connection[Any]":
        import ssl

        import pymysql

        address = self._address
        secure: Mapping[str, Any] = {"ssl": ssl.create_default_context()} if address.tls else {"ssl_disabled": True}
        try:
            return pymysql.connect(
                host=address.host,
                port=address.port,
                unix_socket=address.socket or None,
                user=address.user,
                password=address.password.value,
                connect_timeout=TIMEOUT,
                read_timeout=TIMEOUT,
                write_timeout=TIMEOUT,
                autocommit=True,
                init_command="SET SESSION TRANSACTION READ ONLY",
                **secure,
            )
        except Exception as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception | str) -> BdFailed:
        words = error.args[-1] if isinstance(error, Exception) and error.args else error
        return BdFailed(f"the SQL server at {self._address.where}: {words}")
