"""The keys of the configuration file: each option with a variable is one, by its flag's name with underscores.

Every key is checked by every command, whichever options the command has. Secrets are named in the file, not written
into it: `"$NAME"` is a variable, `"file:PATH"` a file.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.command import OWN_VARIABLES
from bdauto.cli import validation
from bdauto.cli.config_file import ConfigFile, read, read_secret
from bdauto.cli.fields import Field, fields_of
from bdauto.domain.settings import (
    BdSettings,
    DispatchSettings,
    OutputSettings,
    ReapSettings,
    RunSettings,
    TelemetrySettings,
)
from bdauto.domain.values import redact
from bdauto.errors import UsageError
from bdauto.sanitize import clean

STRUCTS: tuple[type[msgspec.Struct], ...] = (
    AgentSettings,
    BdSettings,
    DispatchSettings,
    ReapSettings,
    RunSettings,
    TelemetrySettings,
    OutputSettings,
)
"""The settings with options that have a variable."""
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_FILE = "file:"


@cache
def keys() -> dict[str, Field]:
    """Return the keys and their options."""
    return {field.key: field for kind in STRUCTS for field in fields_of(kind, kind()) if field.key}


class Config:
    """A configuration file whose keys were checked."""

    def __init__(self, file: ConfigFile) -> None:
        """Check the keys. Raises UsageError for the first mistake."""
        if found := [*mistakes(file)]:
            more = f" (and {len(found) - 1} more: see `bdauto config check`)" if len(found) > 1 else ""
            raise UsageError(f"{found[0].message}{more}", hint=found[0].hint)
        self.file = file
        named = {match[1] for match in map(_VARIABLE.fullmatch, self._texts()) if match}
        self._variables = {name: os.environ.get(name) for name in named}
        for name in named:
            if not name.startswith(OWN_VARIABLES):  # neither bd nor an agent shall inherit it
                os.environ.pop(name, None)

    def defaults(self, fields: dict[str, Field]) -> dict[str, Callable[[], Any]]:
        """Return, by parameter, what gives the file's value for it in the form in which Typer takes a default."""
        return {
            name: lambda field=field: self._given(field)  # type: ignore[misc]
            for name, field in fields.items()
            if field.key in self.file.values
        }

    def _given(self, field: Field) -> Any:
        """Return the value of an option. Raises UsageError for a secret that is not where the file says."""
        key = field.key or ""
        value = raw(field, self.file.values[key], self.file.path)
        if field.metavar != "URL":
            return value
        texts = [self._revealed(key, text) for text in (value if field.repeatable else [value])]
        return [word for text in texts for word in text.split()] if field.repeatable else texts[0]

    def _revealed(self, key: str, text: str) -> str:
        if match := _VARIABLE.fullmatch(text):
            found, what = self._variables[match[1]], f"the variable {match[1]}, which is not set"
        elif text.startswith(_FILE):
            path = _path(text.removeprefix(_FILE), self.file.path)
            found, what = read_secret(path), f"the file {path}, which is empty"
        else:
            return text
        if not found:
            raise UsageError(f"{self.file.place(key)}: {key} names {what}")
        return found

    def _texts(self) -> Iterator[str]:
        for value in self.file.values.values():
            yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def load(path: str) -> Config:
    """Read and check a configuration file. Raises UsageError with the file and the line."""
    return Config(read(path))


def mistakes(file: ConfigFile) -> Iterator[UsageError]:
    """Yield what is wrong with the keys and values of a file, each with its line."""
    for key, value in file.values.items():
        try:
            raw(_field(key), value, file.path)
        except UsageError as error:
            yield UsageError(f"{file.place(key)}: {error.message}", hint=error.hint)


def contradictions(file: ConfigFile) -> Iterator[UsageError]:
    """Yield what is wrong with the values of a file together. It looks at no variable and at no other file."""
    settings: Any = {kind: _settings(kind, file) for kind in STRUCTS}
    agent = msgspec.structs.replace(settings[AgentSettings], agent_token_file=None)
    checks: tuple[Callable[[], object], ...] = (
        lambda: validation.exclude_databases(settings[BdSettings]),
        lambda: validation.check_telemetry_urls(settings[TelemetrySettings]),
        lambda: validation.check_dispatch(settings[DispatchSettings], agent),
        lambda: kinds.exclude_each_other(kinds.check(agent)),
    )
    for check in checks:
        try:
            check()
        except UsageError as error:
            yield located(error, file, keys().values())


def located(error: UsageError, file: ConfigFile, fields: Any) -> UsageError:
    """Return the error with the places in the file of those options that it names."""
    named = [field.key for field in fields if re.search(rf"{field.flag}(?![\w-])", error.message)]
    places = [f"{key} at {file.place(key)}" for key in named if key in file.values]
    return UsageError(f"{error.message} ({', '.join(places)})", hint=error.hint) if places else error


def _settings(kind: type[msgspec.Struct], file: ConfigFile) -> msgspec.Struct:
    """Return settings as the file has them. A secret that it only names is left out."""
    given = {}
    for field in fields_of(kind, kind()):
        if field.key in file.values:
            value = raw(field, file.values[field.key], file.path)
            if field.metavar != "URL" or not _reference(value):
                given[field.name] = field.parse(value)
    return kind(**given)


def raw(field: Field, value: Any, path: str) -> Any:
    """Return the value of a key in the form in which Typer takes a default. Raises UsageError without the place."""
    found = _typed(field, value)
    key = field.key
    for text in found if field.repeatable else [found]:
        if text == "" or "\0" in str(text):
            raise UsageError(f"{key} is empty or holds a null character", hint="leave the line out for the default")
        if field.metavar == "URL" and not _reference(text) and (field.repeatable or redact(text) != text):
            raise UsageError(
                f"{key} holds a secret, which does not belong into this file",
                hint=f'name a variable, "$NAME", or a file, "{_FILE}PATH", or set {field.variable}',
            )
    if field.choices and found not in field.choices:
        raise UsageError(f"{key} is one of {', '.join(field.choices)}, not {clean(found, 40)!r}")
    try:
        found = _path(found, path) if field.kind is Path else found
        field.parse(found)
    except UsageError as error:
        raise UsageError(f"{key} {error.message}", hint=error.hint) from None
    return found


def _typed(field: Field, value: Any) -> Any:
    """Return the value as a bool, a text or a list of texts. Raises UsageError for another type of TOML."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.kind is bool:
        good, form = isinstance(value, bool), "true"
    elif field.repeatable:
        good = isinstance(value, list) and all(isinstance(text, str) for text in value)
        form = f'["{field.metavar}"]'
    elif field.kind is int:
        good, form = number and not isinstance(value, float), "1"
    elif field.kind is float:
        good, form = number, "7.5"
    else:
        port = field.kind == tuple[str, int] and isinstance(value, int) and number
        good, form = isinstance(value, str) or port, f'"{field.metavar}"'
    if not good:
        raise UsageError(f"{field.key} has a value of the wrong type", hint=f"write it as {field.key} = {form}")
    return value if isinstance(value, bool | list) else str(value)


def _path(text: str, file: str) -> str:
    """Return a path that the file holds: `~` is the home, and a relative path begins at the file's folder."""
    try:
        return str(Path(file).absolute().parent / Path(text).expanduser())
    except RuntimeError:
        raise UsageError(f"{clean(text, 80)!r}: there is no such home") from None


def _reference(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(_VARIABLE.fullmatch(text) or text.startswith(_FILE) for text in texts)


def _field(key: str) -> Field:
    """Return the option of a key. Raises UsageError."""
    if key in keys():
        return keys()[key]
    if key == "lanes":
        raise UsageError("this version of bdauto has no lanes", hint="remove the tables [lanes.…]")
    meant = key.lower().replace("-", "_").removeprefix("bdauto_")
    near = difflib.get_close_matches(meant, sorted(keys()), n=1, cutoff=0.6)
    guess = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"{clean(key, 60)!r} is no key{guess}", hint="`bdauto config init` writes a file with all keys")
