"""The keys of the configuration file: each option with a variable is one, by its flag's name with underscores.

Every key is checked by every command, whichever options the command has. Secrets are named in the file, not written
into it: `"$NAME"` is a variable, `"file:PATH"` a file.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.command import OWN_VARIABLES
from bdauto.cli import config_lanes, validation
from bdauto.cli.config_file import ConfigFile, read, read_secret
from bdauto.cli.fields import Field, fields_of
from bdauto.cli.output_settings import OutputSettings
from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings, RunSettings, TelemetrySettings
from bdauto.domain.values import redact

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
T = TypeVar("T", bound=msgspec.Struct)


@cache
def keys() -> dict[str, Field]:
    """Return the keys and their options."""
    return {field.key: field for kind in STRUCTS for field in fields_of(kind, kind()) if field.key}


@cache
def _also() -> dict[str, Field]:
    """Return the flags' names that are keys, too, beside those of `keys`."""
    return {field.flag_key: field for field in keys().values() if field.flag_key != field.key}


class Config:
    """A configuration file whose keys were checked."""

    def __init__(self, file: ConfigFile) -> None:
        """Check the keys. Raises UsageError for the first mistake."""
        if found := [*mistakes(file)]:
            more = f" (and {len(found) - 1} more: see `bdauto config check`)" if len(found) > 1 else ""
            raise UsageError(f"{found[0].message}{more}", hint=found[0].hint)
        self.file = file
        self.top = section(file)
        self.lanes = {name: section(file, name) for name in config_lanes.tables(file)}
        named = {match[1] for match in map(_VARIABLE.fullmatch, self._texts()) if match}
        self._variables = {name: os.environ.get(name) for name in named}
        for name in named:
            if not name.startswith(OWN_VARIABLES):  # neither bd nor an agent shall inherit it
                os.environ.pop(name, None)

    def defaults(self, fields: dict[str, Field]) -> dict[str, Callable[[], Any]]:
        """Return, by parameter, what gives the file's value for it in the form in which Typer takes a default."""
        return {
            name: lambda field=field: self.given(field, self.top)  # type: ignore[misc]
            for name, field in fields.items()
            if field.key in self.top.values
        }

    def given(self, field: Field, part: "Section") -> Any:
        """Return the value of an option. Raises UsageError for a secret that is not where the file says."""
        key = field.key or ""
        value = raw(field, part.values[key], self.file.path)
        if field.metavar != "URL":
            return value
        texts = [self._revealed(part, key, text) for text in (value if field.repeatable else [value])]
        return [word for text in texts for word in text.split()] if field.repeatable else texts[0]

    def _revealed(self, part: "Section", key: str, text: str) -> str:
        if match := _VARIABLE.fullmatch(text):
            found, what = self._variables[match[1]], f"the variable {match[1]}, which is not set"
        elif text.startswith(_FILE):
            path = _path(text.removeprefix(_FILE), self.file.path)
            found, what = read_secret(path), f"the file {path}, which is empty"
        else:
            return text
        if not found:
            raise UsageError(f"{part.place(key)}: {part.where[key][-1]} names {what}")
        return found

    def _texts(self) -> Iterator[str]:
        for value in (value for part in (self.top, *self.lanes.values()) for value in part.values.values()):
            yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


class Section(msgspec.Struct, frozen=True):
    """What a file says at the top, or for one lane: the value of each key, as `Field.key`, and where it stands."""

    values: dict[str, Any]
    where: dict[str, tuple[str, ...]]
    file: Any
    fallback: str = ""
    top: Mapping[str, Any] = {}
    """The values at the top of the file, of a lane's."""

    def place(self, key: str) -> str:
        """Return `FILE:LINE` of a key."""
        return str(self.file.place(*self.where[key]))

    def own(self, key: str) -> bool:
        """Whether the table of the lane itself has the key."""
        return len(self.where.get(key, ())) > 1


def section(file: ConfigFile, lane: str = "") -> Section:
    """Return what a checked file says at the top, or what holds for a lane."""
    top, where = _named({key: value for key, value in file.values.items() if key != config_lanes.LANES})
    if not lane:
        return Section(top, where, file)
    table, own = _named(config_lanes.tables(file)[lane], config_lanes.LANES, lane)
    values = config_lanes.inherited(top, table)
    fallback = table.get(config_lanes.FALLBACK, "")
    return Section(values, {key: own.get(key, where.get(key, ())) for key in values}, file, fallback, top)


def _named(values: Mapping[str, Any], *above: str) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Return the values by `Field.key`, and by it where each stands."""
    names = {key: (_also()[key].key or key) if key in _also() else key for key in values}
    return {names[key]: value for key, value in values.items()}, {names[key]: (*above, key) for key in values}


def load(path: str) -> Config:
    """Read and check a configuration file. Raises UsageError with the file and the line."""
    return Config(read(path))


def mistakes(file: ConfigFile) -> Iterator[UsageError]:
    """Yield what is wrong with the keys and values of a file, each with its line."""
    yield from _mistakes(file, {key: value for key, value in file.values.items() if key != config_lanes.LANES})
    yield from config_lanes.name_mistakes(file)
    for name, table in config_lanes.tables(file).items():
        yield from _mistakes(file, table, config_lanes.LANES, name)
    yield from config_lanes.fallback_mistakes(file)


def _mistakes(file: ConfigFile, values: Mapping[str, Any], *above: str) -> Iterator[UsageError]:
    """Yield what is wrong with these keys and values, which stand in a table of a lane, or at the top."""
    for key, value in values.items():
        if above and key == config_lanes.FALLBACK:
            continue
        try:
            raw(_field(key, values, lane=bool(above)), value, file.path, key)
        except UsageError as error:
            yield UsageError(f"{file.place(*above, key)}: {error.message}", hint=error.hint)


def contradictions(file: ConfigFile) -> Iterator[UsageError]:
    """Yield what is wrong with the values of a file together. It looks at no variable and at no other file."""
    lanes = {name: section(file, name) for name in config_lanes.tables(file)}
    for part in lanes.values() if lanes else [section(file)]:
        yield from _contradictions(part)
    yield from overlaps(lanes)


def _contradictions(part: Section) -> Iterator[UsageError]:
    settings: Any = {kind: settings_of(kind, part) for kind in STRUCTS}
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
            yield located(error, part, keys().values())


def overlaps(lanes: Mapping[str, Section]) -> Iterator[UsageError]:
    """Yield the lanes that can never get a bead, and those whose fallback has another assignee or another tracker."""
    found = [
        (name, part, settings_of(BdSettings, part), settings_of(DispatchSettings, part)) for name, part in lanes.items()
    ]
    queues = {name: (bd.assignee, bd.db, bd.metadata) for name, _, bd, _ in found}
    for number, (name, part, _, wants) in enumerate(found):
        before = (one for one in found[:number] if queues[one[0]] == queues[name] and _takes_all(one[3], wants))
        if first := next(before, None):
            words = (
                f"{part.file.place(config_lanes.LANES, name)}: lane {name} never gets a bead: lane {first[0]} takes all"
            )
            yield UsageError(words, hint="put it first, or give the other conditions, such as labels")
        if part.fallback and queues[part.fallback] != queues[name]:
            place = part.file.place(config_lanes.LANES, name, config_lanes.FALLBACK)
            yield UsageError(f"{place}: lane {part.fallback} has another assignee or another tracker than lane {name}")


def _takes_all(first: DispatchSettings, later: DispatchSettings) -> bool:
    """Whether a lane takes all beads that a later one may have."""
    if first.labels or first.exclude_labels or first.types or first.priorities or first.trusted_creators:
        return False
    return {*first.exclude_types} <= {*later.exclude_types} and not later.types


def located(error: UsageError, part: Section, fields: Any) -> UsageError:
    """Return the error with the places in the file of those options that it names."""
    named = [field.key for field in fields if re.search(rf"{field.flag}(?![\w-])", error.message)]
    places = [f"{part.where[key][-1]} at {part.place(key)}" for key in named if key in part.values]
    return UsageError(f"{error.message} ({', '.join(places)})", hint=error.hint) if places else error


def settings_of(kind: type[T], part: Section, default: T | None = None) -> T:
    """Return settings as the file has them, over the default. A secret that it only names is left out."""
    given: dict[str, Any] = {}
    default = kind() if default is None else default
    for field in fields_of(kind, default):
        if field.key in part.values:
            value = raw(field, part.values[field.key], part.file.path)
            if field.metavar != "URL" or not _reference(value):
                given[field.name] = field.parse(value)
        for name in (one for one, like in config_lanes.OF_ALL.items() if like == field.name and field.key in part.top):
            given[name] = field.parse(raw(field, part.top[field.key or ""], part.file.path))
    return msgspec.structs.replace(default, **given)


def raw(field: Field, value: Any, path: str, key: str = "") -> Any:
    """Return the value of a key in the form in which Typer takes a default. Raises UsageError without the place."""
    key = key or field.key or ""
    found = _typed(field, value, key)
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


def _typed(field: Field, value: Any, key: str) -> Any:
    """Return the value as a bool, a text or a list of texts. Raises UsageError for another type of TOML."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.kind is bool:
        good, form = isinstance(value, bool), "true"
    elif field.repeatable and int in get_args(field.kind):
        good, form = isinstance(value, list) and all(type(one) is int for one in value), "[0, 1]"
        value = [*map(str, value)] if good else value
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
        raise UsageError(f"{key} has a value of the wrong type", hint=f"write it as {key} = {form}")
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


def _field(key: str, values: Mapping[str, Any], *, lane: bool = False) -> Field:
    """Return the option of a key among these values, at the top or in a lane. Raises UsageError."""
    if key in keys() or key in _also():
        field = keys().get(key) or _also()[key]
        if field.key != key and field.key in values:
            raise UsageError(f"{key} and {field.key} are the same key", hint="write one of them")
        if lane and field.key in config_lanes.of_the_process():
            raise UsageError(f"{key} is for the whole process", hint="write it above the first table")
        return field
    known = [*keys(), *([config_lanes.FALLBACK] if lane else [])]
    meant = key.lower().replace("-", "_").removeprefix("bdauto_")
    near = difflib.get_close_matches(meant, sorted({*known, *_also()}), n=1, cutoff=0.6)
    guess = f" (did you mean {near[0]}?)" if near else ""
    if key == config_lanes.FALLBACK:
        raise UsageError("fallback is a key of lanes", hint="write it into a table [lanes.NAME]")
    raise UsageError(f"{clean(key, 60)!r} is no key{guess}", hint="`bdauto config init` writes a file with all keys")
