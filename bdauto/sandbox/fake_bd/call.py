"""One call of the stand-in for bd: its environment, what it has printed, and how it fails."""

# Paths are strings: pathlib alone would take a tenth of the start.
# ruff: noqa: PTH100, PTH110, PTH112, PTH116, PTH118, PTH120, PTH123

import json
import os
import re
from collections.abc import Mapping

from bdauto.sandbox.fake_bd.flags import Flags
from bdauto.sandbox.fake_bd.store import Store

VERSION = "1.0.3"
DATABASE = "sandbox.db"
NOMS = "embeddeddolt/{}/.dolt/noms"
"""The folder of an embedded database that holds its journal, under the beads folder."""
STATUSES = ("open", "in_progress", "blocked", "deferred", "closed", "pinned", "hooked")
DAYS = {"h": 1 / 24, "d": 1, "w": 7, "m": 30, "y": 365}  # in a bd duration, "m" is a month


class BdResult:
    """What a process left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}{self.err}"


class FakeBdError(Exception):
    """bd fails with exit code 1. With --json the text is an object, on stdout or stderr as the real verb does it."""

    def __init__(self, text: str, *, stdout: bool = True, plain: bool = False) -> None:
        super().__init__(text)
        self.stdout = stdout
        self.plain = plain


def dumps(value: object) -> str:
    """JSON as bd writes it: indented by two, `<`, `>` and `&` escaped. Objects are sorted and have a schema_version."""
    is_object = isinstance(value, dict)
    if isinstance(value, dict):
        value = value | {"schema_version": 1}
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=is_object)
    for letter in "<>&\u2028\u2029":
        if letter in text:
            text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text + "\n"


class FakeCall:
    """One call under way: its flags and surroundings, and what it printed so far."""

    def __init__(self, flags: Flags, env: Mapping[str, str], cwd: str, *, lose_writes: bool, version: str) -> None:
        self.flags, self.env, self.cwd, self.lose_writes, self.version = flags, env, cwd, lose_writes, version
        self.out, self.err = "", ""
        self.failed = False
        self.code = 1
        self.touched = ""
        self._store: Store | None = None

    @property
    def json(self) -> bool:
        """Whether JSON was asked for."""
        return "json" in self.flags

    @property
    def actor(self) -> str:
        """Who writes."""
        return self.flags.last("actor") or self.env.get("BEADS_ACTOR") or self.env.get("USER") or "unknown"

    def find_folder(self) -> str | None:
        """The beads folder: --db (its parent when it is missing), then BEADS_DIR, then `.beads` here or above.

        Links are followed, and so is the redirect of a folder that --db does not name. A linked git worktree without a
        database has the folder of the main checkout.
        """
        named = self.flags.last("db")
        if named:
            path = os.path.abspath(os.path.join(self.cwd, named))
            return path if os.path.isdir(path) else os.path.dirname(path)
        if self.env.get("BEADS_DIR"):
            return _redirected(os.path.join(self.cwd, self.env["BEADS_DIR"]))
        above = self.cwd
        while True:
            found, main = os.path.join(above, ".beads"), _main_checkout(above)
            if main and not os.path.isdir(os.path.join(found, "embeddeddolt")):
                found = os.path.join(main, ".beads")
            if self._is_project(found):
                return _redirected(found)
            if above == os.path.dirname(above):
                return None
            above = os.path.dirname(above)

    def _is_project(self, folder: str) -> bool:
        """Whether bd takes a folder for its own, and does not look further up."""
        files = ("metadata.json", "config.yaml", "embeddeddolt", "dolt", "redirect", DATABASE)
        return any(os.path.exists(os.path.join(folder, name)) for name in files)

    @property
    def folder(self) -> str:
        """The beads folder. Raises FakeBdError when there is none."""
        found = self.find_folder()
        if found is None:
            raise FakeBdError(
                "no beads database found\nHint: run 'bd where' to inspect the resolved workspace, or 'bd init'"
                " to create a new database\n      or set BEADS_DIR to point to your .beads directory",
                plain=True,
            )
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """metadata.json of the beads folder, which says where the database is."""
        try:
            with open(os.path.join(self.folder, "metadata.json"), encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            return {}

    @property
    def server(self) -> bool:
        """Whether this workspace plays a Dolt server, with or without a proxy, and not an embedded database."""
        return self.proxied or self.metadata.get("dolt_mode") == "server"

    @property
    def proxied(self) -> bool:
        """Whether this workspace plays the proxied server of bd 1.3."""
        return self.metadata.get("dolt_mode") == "proxied-server"

    @property
    def store(self) -> Store:
        """The database."""
        if self._store is None:
            path = self.metadata.get("sandbox_database") or os.path.join(self.folder, DATABASE)
            self._store = Store(path, lose_writes=self.lose_writes)
        return self._store

    def touch(self) -> None:
        """Write into `last-touched` which bead a bare `bd close` means from now on."""
        if self.touched:
            with open(os.path.join(self.folder, "last-touched"), "w", encoding="utf-8") as file:
                file.write(f"{self.touched}\n")

    def grow(self) -> None:
        """Let the journal of an embedded database grow if this call has written."""
        if self._store and self._store.db.total_changes and not self.server:
            noms = os.path.join(self.folder, NOMS.format(self.metadata.get("dolt_database", "")))
            if os.path.isdir(noms):
                with open(f"{noms}/{'v' * 32}", "a", encoding="utf-8") as file:
                    file.write("a change\n")

    def close(self) -> None:
        """Close what was opened."""
        if self._store:
            self._store.close()

    def say(self, value: object, text: str) -> None:
        """Print a result: `value` as JSON, or `text` for people."""
        self.out += dumps(value) if self.json else text + "\n"

    def warn(self, text: str, *, failed: bool = True) -> None:
        """Print a line on stderr and go on. The exit code is 1 unless something else succeeds."""
        self.err += text + "\n"
        self.failed = self.failed or failed

    def check_writable(self) -> None:
        """Refuse to write under --readonly."""
        if "readonly" in self.flags:
            raise FakeBdError(f"operation '{self.flags.verb}' is not allowed in read-only mode", stdout=False)

    @property
    def modern(self) -> bool:
        """Whether this is bd 1.3: it has guards, and refuses to close or take away others' beads."""
        found = re.match(r"\d+\.\d+", self.version)
        return self.proxied or (found is not None and tuple(map(int, found[0].split("."))) >= (1, 3))

    def check_readonly(self) -> None:
        """Refuse --readonly itself, as a proxied server does."""
        if "readonly" in self.flags and self.proxied:
            raise FakeBdError(
                "strict readonly is unavailable for dolt proxied-server backend;"
                " refusing to open a store that cannot guarantee mutation-free access",
                plain=True,
            )

    def need(self, text: str) -> str:
        """The id meant by `text`. Raises FakeBdError."""
        found = self.store.resolve(text)
        if found is None:
            raise FakeBdError(f'no issue found matching "{text}"')
        return found

    def resolving(self, text: str, what: str = "resolving") -> str:
        """As `need`, with an error that names what could not be resolved."""
        try:
            return self.need(text)
        except FakeBdError as problem:
            raise FakeBdError(f"{what} {text}: {problem}") from None

    def number(self, flag: str, default: int) -> int:
        """The value of a flag that takes a number. Raises FakeBdError."""
        text = self.flags.last(flag)
        try:
            return default if text is None else int(text)
        except ValueError:
            why = f'invalid argument "{text}" for "--{flag}" flag: strconv.ParseInt: parsing "{text}": invalid syntax'
            raise FakeBdError(why, plain=True) from None

    def warn_of_folder(self) -> None:
        """Warn on stderr, as bd does even on success, when others may read the beads folder, or it has no metadata."""
        if not self.metadata:
            self.err += f"warning: no beads configuration found in {self.folder}; using default database name"
            self.err += ' "beads"\n'
        mode = os.stat(self.folder).st_mode & 0o777
        if mode & 0o077:
            self.err += f"Warning: {self.folder} has permissions 0{mode:o} (recommended: 0700)."
            self.err += f" Run: chmod 700 {self.folder}\n"


def priority_of(text: str) -> int:
    """A priority as people write it: 0 to 4, or P0 to P4. Raises FakeBdError."""
    found = re.fullmatch(r"[Pp]?([0-4])", text)
    if not found:
        raise FakeBdError(f'invalid priority "{text}" (expected 0-4 or P0-P4, not words like high/medium/low)')
    return int(found[1])


def _redirected(folder: str) -> str:
    """The folder that a beads folder redirects to, or itself, without links."""
    folder = os.path.realpath(folder)
    try:
        with open(os.path.join(folder, "redirect"), encoding="utf-8") as file:
            return os.path.realpath(os.path.join(os.path.dirname(folder), file.read().strip()))
    except FileNotFoundError:
        return folder


def _main_checkout(folder: str) -> str:
    """The main checkout of a linked git worktree whose root this is, or ""."""
    try:
        with open(os.path.join(folder, ".git"), encoding="utf-8") as file:
            return file.read().removeprefix("gitdir:").strip().partition("/.git/worktrees/")[0]
    except OSError:
        return ""
