"""The fields of settings structs that are options: their names, and how their values are read from text."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from bdauto.domain.settings import Option, Secret
from bdauto.domain.since import Since, parse_since
from bdauto.domain.values import format_duration, parse_count, parse_dollars, parse_duration, parse_names

METAVARS: dict[Any, str] = {
    timedelta: "DURATION",
    Since: "DURATION|DATE",
    int: "NUMBER",
    float: "USD",
    str: "NAME",
    Path: "FILE",
    bool: "",
    Secret: "URL",
    tuple[Secret, ...]: "URL",
}
PARSERS: dict[Any, Callable[[Any], Any]] = {
    timedelta: parse_duration,
    Since: parse_since,
    int: parse_count,
    float: parse_dollars,
    Path: Path,
    Secret: Secret,
    tuple[str, ...]: parse_names,
    tuple[Secret, ...]: lambda texts: tuple(Secret(text) for text in texts),
}


class Field(NamedTuple):
    """A field that is an option. `kind` is its type without `None`."""

    name: str
    kind: Any
    option: Option
    default: Any

    @property
    def flag(self) -> str:
        """The long flag. That of an option which may be repeated is in the singular: `priorities` is `--priority`."""
        name = re.sub(r"(ie)?s$", lambda end: "y" if end[1] else "", self.name) if self.repeatable else self.name
        return self.option.flag or f"--{name.replace('_', '-')}"

    @property
    def variable(self) -> str | None:
        """The environment variable, or None."""
        if self.option.env is None or (self.kind is bool and not self.option.env):
            return None
        return self.option.env or f"BDAUTO_{self.flag.removeprefix('--').replace('-', '_').upper()}"

    @property
    def key(self) -> str | None:
        """The key in the configuration file. None for an option without a variable."""
        return (self.option.key or (self.name if self.repeatable else self.flag_key)) if self.variable else None

    @property
    def flag_key(self) -> str:
        """The flag with underscores, which is a key, too."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def repeatable(self) -> bool:
        """True: the option may be given several times."""
        return get_args(self.kind)[1:] == (...,)

    @property
    def choices(self) -> list[str]:
        """The values that are accepted, if they are few."""
        return list(self.kind) if isinstance(self.kind, type) and issubclass(self.kind, Enum) else []

    @property
    def metavar(self) -> str:
        """What stands for the value in help."""
        known = self.option.metavar or "|".join(self.choices) or METAVARS.get(self.kind)
        return self.flag.rpartition("-")[2].upper() if known is None else known

    def parse(self, raw: Any) -> Any:
        """Convert text, or a list of texts, to the field's type. Raises UsageError, which does not name the option."""
        parse = self.option.parse or PARSERS.get(self.kind)
        return parse(raw) if parse else raw


def fields_of(kind: type[msgspec.Struct], default: Any) -> Iterator[Field]:
    """Yield the options of a settings struct, its own before those that it inherits."""
    hints = get_type_hints(kind, include_extras=True)
    inherited = kind.__mro__[1].__struct_fields__ if issubclass(kind.__mro__[1], msgspec.Struct) else ()
    for name in sorted(kind.__struct_fields__, key=lambda name: name in inherited):
        marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else ()
        for option in marks[1:]:
            if isinstance(option, Option):
                kinds = [each for each in get_args(marks[0]) if each is not type(None)]
                optional = type(None) in get_args(marks[0])
                yield Field(name, kinds[0] if optional else marks[0], option, getattr(default, name))


def as_text(value: Any) -> str | None:
    """Return a default as help shows it."""
    if value is None:
        return None
    return format_duration(value) if isinstance(value, timedelta) else str(value)
