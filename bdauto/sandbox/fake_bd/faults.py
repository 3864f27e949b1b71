"""The faults that a test orders from the stand-in for `bd`, and the calls that the stand-in records for the test.

Both go through one small SQLite file beside the launcher, so that they work across processes and without a database.
"""

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Sequence

LIFETIME = 300  # seconds after which a hanging stand-in ends by itself, so that a failed test leaves nothing behind
SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS call (n INTEGER PRIMARY KEY, at REAL, pid INTEGER, actor TEXT, verb TEXT, argv TEXT);
CREATE TABLE IF NOT EXISTS fault (n INTEGER PRIMARY KEY, verb TEXT, kind TEXT, moment TEXT, skip INTEGER,
    times INTEGER, match TEXT, text TEXT, code INTEGER);
"""


class Fault:
    """One thing to do wrong.

    kind: `hang` with a child process, `text` on stderr · `exit` with `code`, `text` on stderr · `die` by SIGKILL ·
    `conflict`: Dolt's error 1213 · `pause` until released (`text`: the folder with the two FIFOs) · `slow`: wait `text`
    seconds, go on · `replace` stdout by `text` · `half`: only the first half of stdout · `lost`: report success, write
    nothing.
    when: before the verb does its work, or after it (the last three ignore it).
    """

    def __init__(self, verb: str, kind: str, when: str, text: str, code: int) -> None:
        self.verb, self.kind, self.when, self.text, self.code = verb, kind, when, text, code


class RecordedCall:
    """One call that was made: when (seconds since 1970), by which process and actor, and its arguments.

    `text` is the arguments in one string, the texts in SQL (`X'6162'`) made readable.
    """

    def __init__(self, at: float, pid: int, actor: str, verb: str, argv: Sequence[str]) -> None:
        self.at, self.pid, self.actor, self.verb, self.argv = at, pid, actor, verb, tuple(argv)
        self.text = readable(argv)

    def __repr__(self) -> str:
        return f"<bd {self.text}>"


def readable(argv: Sequence[str]) -> str:
    """Arguments joined by spaces, with SQL's hexadecimal texts decoded."""
    return re.sub(r"X''?([0-9A-Fa-f]*)''?", lambda found: repr(bytes.fromhex(found[1]).decode()), " ".join(argv))


class Control:
    """The control file: faults to come, the version to report, calls seen."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.db.execute("PRAGMA synchronous=OFF")

    def create(self) -> None:
        """Create the tables."""
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def add(self, fault: Fault, *, skip: int, times: int, match: str) -> None:
        """Do `fault` at the calls of its verb after the first `skip`, `times` times (-1: for ever)."""
        row = (fault.verb, fault.kind, fault.when, skip, times, match, fault.text, fault.code)
        names = "verb, kind, moment, skip, times, match, text, code"
        self.db.execute(f"INSERT INTO fault ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608

    def clear(self) -> None:
        """Forget all faults that are still to come."""
        self.db.execute("DELETE FROM fault")

    def set(self, key: str, value: str) -> None:
        """Change a setting. `version` is what `bd version` reports."""
        self.db.execute("REPLACE INTO setting VALUES (?, ?)", (key, value))

    def get(self, key: str, default: str) -> str:
        """A setting."""
        found = self.db.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else default

    def calls(self) -> list[RecordedCall]:
        """All calls made so far, in order."""
        rows = self.db.execute("SELECT at, pid, actor, verb, argv FROM call ORDER BY n").fetchall()
        return [RecordedCall(at, pid, actor, verb, json.loads(argv)) for at, pid, actor, verb, argv in rows]

    def begin(self, verb: str, actor: str, argv: Sequence[str]) -> Fault | None:
        """Record a call and return the fault that is due."""
        self.db.execute("BEGIN IMMEDIATE")
        row = (time.time(), os.getpid(), actor, verb, json.dumps(argv))
        self.db.execute("INSERT INTO call (at, pid, actor, verb, argv) VALUES (?, ?, ?, ?, ?)", row)
        due = self._due(verb, argv)
        self.db.execute("COMMIT")
        return due

    def _due(self, verb: str, argv: Sequence[str]) -> Fault | None:
        query = "SELECT n, kind, moment, skip, times, match, text, code FROM fault WHERE verb IN (?, '*') ORDER BY n"
        for n, kind, when, skip, times, match, text, code in self.db.execute(query, (verb,)).fetchall():
            if match and match not in readable(argv):
                continue
            if skip:
                self.db.execute("UPDATE fault SET skip = skip - 1 WHERE n = ?", (n,))
                continue
            if times > 0:
                self.db.execute("UPDATE fault SET times = times - 1 WHERE n = ?", (n,))
                self.db.execute("DELETE FROM fault WHERE n = ? AND times = 0", (n,))
            return Fault(verb, kind, when, text, code)
        return None


def happen(fault: Fault) -> None:
    """Let a fault happen that stops or delays the process: hang, die, pause, slow."""
    if fault.kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.alarm(LIFETIME)
    if fault.kind == "hang":
        if os.fork():  # a child that outlives a parent killed alone
            os.write(2, fault.text.encode())
        signal.alarm(LIFETIME)
        while True:
            signal.pause()
    if fault.kind == "pause":
        reached, release = (os.open(f"{fault.text}/{name}", os.O_RDWR) for name in ("reached", "release"))
        os.write(reached, b".")
        os.read(release, 1)
    if fault.kind == "slow":
        time.sleep(float(fault.text))
