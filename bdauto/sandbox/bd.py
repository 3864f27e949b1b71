"""A stand-in for the `bd` binary, 1.0.3: the verbs that bdauto, its tests and its demo use, on a SQLite database.

Answers, errors, streams and exit codes are those of the real bd; `tests/contract` holds it to that. `install` writes
the executable; `run` does one call inside this process; `main` is what the executable runs.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bdauto.sandbox.faults import Control, Fault, happen
from bdauto.sandbox.flags import Flags, UsageError, find_verb, parse
from bdauto.sandbox.store import Store

VERSION = "1.0.3"
DATABASE = "sandbox.db"
CONFLICT = (
    "Error 1213 (40001): serialization failure: this transaction conflicts with a committed transaction"
    " from another client, try restarting transaction."
)
ROLE_WARNING = (
    "warning: beads.role not configured (GH#2950).\n"
    "  Fix: git config beads.role maintainer\n  Or:  git config beads.role contributor\n"
)


@dataclass(frozen=True)
class Answer:
    """What a process left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


class BdError(Exception):
    """bd fails with exit code 1. With --json the text is an object, on stdout or stderr as the real verb does it."""

    def __init__(self, text: str, *, stdout: bool = True, plain: bool = False) -> None:
        super().__init__(text)
        self.stdout = stdout
        self.plain = plain


def dumps(value: object) -> str:
    """JSON as bd writes it: two spaces, `<`, `>` and `&` escaped; objects sorted and with their schema_version."""
    is_object = isinstance(value, dict)
    if isinstance(value, dict):
        value = value | {"schema_version": 1}
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=is_object)
    for letter in "<>&\u2028\u2029":
        if letter in text:
            text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text + "\n"


@dataclass
class Call:
    """One call under way: its flags and surroundings, and what it printed so far."""

    flags: Flags
    env: Mapping[str, str]
    cwd: Path
    lose_writes: bool = False
    version: str = VERSION
    out: str = ""
    err: str = ""
    failed: bool = False
    _store: Store | None = None

    @property
    def json(self) -> bool:
        """Whether JSON was asked for."""
        return "json" in self.flags

    @property
    def actor(self) -> str:
        """Who writes."""
        return self.flags.last("actor") or self.env.get("BEADS_ACTOR") or self.env.get("USER") or "unknown"

    def find_folder(self) -> Path | None:
        """The beads folder: --db (its parent when it is missing), then BEADS_DIR, then `.beads` here or above."""
        named = self.flags.last("db") or self.env.get("BEADS_DIR")
        if named:
            path = (self.cwd / named).absolute()
            return path if path.is_dir() else path.parent
        return next((up / ".beads" for up in (self.cwd, *self.cwd.parents) if (up / ".beads").is_dir()), None)

    @property
    def folder(self) -> Path:
        """The beads folder. Raises BdError when there is none."""
        found = self.find_folder()
        if found is None:
            raise BdError(
                "no beads database found\nHint: run 'bd where' to inspect the resolved workspace, or 'bd init'"
                " to create a new database\n      or set BEADS_DIR to point to your .beads directory",
                plain=True,
            )
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """metadata.json of the beads folder, which says where the database is."""
        file = self.folder / "metadata.json"
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    @property
    def server(self) -> bool:
        """Whether this workspace plays a shared Dolt server, and not an embedded database."""
        return self.metadata.get("dolt_mode") == "server"

    @property
    def store(self) -> Store:
        """The database."""
        if self._store is None:
            named = self.metadata.get("sandbox_database")
            self._store = Store(Path(named) if named else self.folder / DATABASE, lose_writes=self.lose_writes)
        return self._store

    def close(self) -> None:
        """Close what was opened."""
        if self._store:
            self._store.close()

    def say(self, value: object, text: str) -> None:
        """Print a result: `value` as JSON, or `text` for people."""
        self.out += dumps(value) if self.json else text + "\n"

    def warn(self, text: str, *, failed: bool = True) -> None:
        """Print a line on stderr and go on; the exit code will be 1 unless something else succeeds."""
        self.err += text + "\n"
        self.failed = self.failed or failed

    def check_writable(self, name: str | None = None) -> None:
        """Refuse to write under --readonly."""
        if "readonly" in self.flags:
            text = f"operation '{name or self.flags.verb}' is not allowed in read-only mode"
            raise BdError(text, stdout=False)

    def need(self, text: str) -> str:
        """The id meant by `text`. Raises BdError."""
        found = self.store.resolve(text)
        if found is None:
            raise BdError(f'no issue found matching "{text}"')
        return found


def _handler(verb: str) -> Callable[[Call], None]:
    from bdauto.sandbox import verbs

    return verbs.HANDLERS[verb]


def _failure(call: Call, problem: BdError) -> Answer:
    text = f"Error: {problem}\n"
    if call.json and not problem.plain:
        text = dumps({"error": str(problem)})
        if problem.stdout:
            return Answer(1, call.out + text, call.err)
    return Answer(1, call.out, call.err + text)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    lose_writes: bool = False,
    version: str = VERSION,
) -> Answer:
    """Do one call of bd in this process. `env` and `cwd` are the surroundings it sees."""
    try:
        call = Call(parse(argv), env, cwd, lose_writes, version)
    except UsageError as problem:
        return Answer(1, "", f"Error: {problem}\n")
    try:
        if call.flags.verb not in ("version", "where", "init"):
            warn_of_permissions(call)
        _handler(call.flags.verb)(call)
    except BdError as problem:
        return _failure(call, problem)
    finally:
        call.close()
    return Answer(1 if call.failed else 0, call.out, call.err)


def warn_of_permissions(call: Call) -> None:
    """Warn on stderr, as bd does even on success, when others may read the beads folder."""
    mode = call.folder.stat().st_mode & 0o777
    if mode & 0o077:
        call.err += f"Warning: {call.folder} has permissions 0{mode:o} (recommended: 0700)."
        call.err += f" Run: chmod 700 {call.folder}\n"


def _conflict(argv: Sequence[str]) -> Answer:
    """Dolt's serialization failure, as each verb reports it."""
    flags = parse(argv)
    if flags.verb == "update":
        return Answer(1, "", f"Error updating {flags.words[0]}: dolt commit: {CONFLICT}\n")
    text = (
        f"exec error: {CONFLICT}"
        if flags.verb == "sql"
        else f"updating {' '.join(flags.words[:1])}: dolt commit: {CONFLICT}"
    )
    return Answer(1, dumps({"error": text}), "") if "json" in flags else Answer(1, "", f"Error: {text}\n")


def _faulty(argv: Sequence[str], fault: Fault, version: str) -> Answer:
    """One call with a fault."""
    if fault.when == "before" and fault.kind in ("hang", "die", "pause", "slow"):
        happen(fault)
    if fault.when == "before" and fault.kind == "exit":
        return Answer(fault.code, "", fault.text)
    if fault.when == "before" and fault.kind == "conflict":
        return _conflict(argv)
    answer = run(argv, env=os.environ, cwd=Path.cwd(), lose_writes=fault.kind == "lost", version=version)
    if fault.kind == "replace":
        return Answer(fault.code, fault.text, answer.err)
    if fault.kind == "half":
        return Answer(0, answer.out[: len(answer.out) // 2], answer.err)
    if fault.when == "after":
        happen(fault)
        if fault.kind == "exit":
            return Answer(fault.code, "", fault.text)
        if fault.kind == "conflict":
            return _conflict(argv)
    return answer


def main(control: str) -> None:
    """The executable: one call, with the faults that the control file orders."""
    argv = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    actor = argv[argv.index("--actor") + 1] if "--actor" in argv[:-1] else os.environ.get("BEADS_ACTOR", "")
    state = Control(Path(control))
    fault = state.begin(find_verb(argv), actor, argv)
    version = state.get("version", VERSION)
    state.close()
    answer = _faulty(argv, fault, version) if fault else run(argv, env=os.environ, cwd=Path.cwd(), version=version)
    sys.stderr.write(answer.err)
    sys.stdout.write(answer.out)
    sys.exit(answer.code)


def install(directory: Path) -> Path:
    """Write the executable `bd` and its control file into `directory`; answers the executable's path.

    The interpreter starts isolated and without `site`, which halves its start.
    """
    from shlex import quote

    control = directory / "bd-control.db"
    state = Control(control)
    state.create()
    state.close()
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.append({str(root)!r}); from bdauto.sandbox.bd import main; main({str(control)!r})"
    launcher = directory / "bd"
    launcher.write_text(f'#!/bin/sh\nexec {quote(sys.executable)} -I -S -c {quote(code)} "$@"\n')
    launcher.chmod(0o755)
    return launcher
