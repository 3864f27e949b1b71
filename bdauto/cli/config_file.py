"""The configuration file: where it is, whether it can be trusted, and what it holds.

Imports little, because `bdauto.__main__` asks whether there is a file.
"""

import os
import stat
from collections.abc import Collection, Mapping
from typing import Any

from bdauto.common.errors import UsageError

LARGEST = 64 * 1024
"""Bytes of a configuration file, and of a file that it names for a secret."""


def default_path(environment: Mapping[str, str]) -> str:
    """Return the path of the user's own file, "" if there is no home.

    A relative XDG_CONFIG_HOME is ignored, as the specification of base directories says. It could lie in a repository.
    """
    folder = environment.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # noqa: PTH117 - pathlib takes time to import
        folder = os.path.expanduser("~/.config")  # noqa: PTH111
    return os.path.join(folder, "bdauto", "config.toml") if os.path.isabs(folder) else ""  # noqa: PTH117, PTH118


def path_in_force(named: str | None, environment: Mapping[str, str]) -> str:
    """Return the path of the file that is read, "" for none: the `named` one, else the user's own if it exists."""
    if named:
        return "" if named == os.devnull else named
    path = default_path(environment)
    return path if path and os.path.lexists(path) else ""


class ConfigFile:
    """A configuration file that was read: its path, and the values of its keys."""

    def __init__(self, path: str, text: str) -> None:
        """Parse the text. Raises UsageError with the line."""
        import tomllib

        self.path = path
        self._lines = text.split("\n")
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
            str(self.values)  # raises ValueError for a number like 0xfff… that is too long to be shown
        except (ValueError, RecursionError) as error:
            raise UsageError(_syntax(path, str(error), len(self._lines))) from None

    def place(self, *keys: str) -> str:
        """Return `FILE:LINE` of a key or a table: of `keys`, each but the first is a key of the table before it.

        A statement starts on a line if all lines before it are valid TOML. The key's is the last such line before the
        key is known.
        """
        import tomllib

        found = 1
        for number, line in enumerate(self._lines):
            if keys[-1] not in line:
                continue
            try:
                before: Any = tomllib.loads("\n".join(self._lines[:number]))
            except ValueError:
                continue
            for key in keys:
                before = before.get(key) if isinstance(before, dict) else None
            if before is not None:
                break
            found = number + 1
        return f"{self.path}:{found}"


def read(path: str) -> ConfigFile:
    """Read a configuration file. Raises UsageError, also for a file that somebody else can change."""
    data = _contents(path, trusted=True)
    try:
        return ConfigFile(path, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: not UTF-8") from None


def may_set(keys: Collection[str], environment: Mapping[str, str]) -> bool:
    """Return whether the file in force has one of these keys, or is refused later.

    Also for one that may name a variable: it holds a secret, which bd does not get once the file's keys are known.
    """
    path = path_in_force(environment.get("BDAUTO_CONFIG"), environment)
    try:
        values = read(path).values if path else {}
    except UsageError:
        return True
    return any(key in values for key in keys) or "$" in str(values)


def read_secret(path: str) -> str:
    """Return the text of a file that holds a secret. Raises UsageError, which does not show it."""
    try:
        return _contents(path, trusted=False).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8") from None


def _contents(path: str, *, trusted: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path}: not a file")
            if trusted:
                _check_trust(path, status)
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST:
        raise UsageError(f"{path}: larger than {LARGEST // 1024} KiB")
    return data


def _check_trust(path: str, status: os.stat_result) -> None:
    """Raise UsageError if somebody else than this user and root can change the file."""
    if status.st_uid not in (0, os.geteuid()):
        raise UsageError(
            f"{path}: belongs to another user (uid {status.st_uid}), and it names programs to run",
            hint="give it to the user who runs bdauto, or to root",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise UsageError(
            f"{path}: others can write it (mode {mode}), and it names programs to run", hint="run `chmod go-w` on it"
        )


def _syntax(path: str, message: str, last: int) -> str:
    import re

    from bdauto.common.sanitize import clean

    found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message, re.DOTALL)
    line, what = (found[2], found[1]) if found else (last, message.removesuffix(" (at end of document)"))
    return f"{path}:{line}: not TOML: {clean(what, 100)}"
