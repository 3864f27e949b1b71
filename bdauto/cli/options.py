"""The options of a command, derived from the settings structs that its function takes.

They are defined in `bdauto.domain.settings` and in `bdauto.agents`, and `bdauto.cli.validation` checks their values.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import typer

from bdauto.agents import kinds
from bdauto.cli.validation import CHECKS
from bdauto.domain.settings import BdSettings, Option, Secret
from bdauto.domain.values import format_duration, parse_count, parse_duration, parse_names
from bdauto.errors import UsageError


class Offer(msgspec.Struct, frozen=True):
    """Which fields of a settings struct a command offers: `Annotated[ReapSettings, Offer(only=("grace",))]`.

    Without this mark a command offers every field, and the values are checked.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    check: bool = True


ELIGIBILITY = Offer(only=("exclude_types", "trusted_creators", "labels", "exclude_labels"))
"""The options that decide which beads are eligible, for commands that only read."""
DISPATCHING = Offer(only=(*ELIGIBILITY.only, "max_per_day", "max_cost_per_day", "cost_per_run", "active_hours"))
"""Those, and the limits on dispatching."""

LOOKING, SWEEPING, JOBS = Offer(only=kinds.LOOKING), Offer(only=kinds.SWEEPING), Offer(only=kinds.JOBS)
"""The options of agents for commands that only look, for a sweep, and for commands that look for a job."""


class _Field(NamedTuple):
    """A field that is an option. `kind` is its type without `None`."""

    name: str
    kind: Any
    option: Option
    default: Any

    @property
    def flag(self) -> str:
        return self.option.flag or f"--{self.name.replace('_', '-')}"


class _Group(NamedTuple):
    """A settings struct that a command takes, and those of its fields that the command offers."""

    default: Any
    fields: list[_Field]
    check: bool


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the settings structs among its parameters.

    The function declares `settings: ReapSettings`. Typer sees one option per field, and the function gets the struct
    with the values given. A default of the parameter replaces the defaults of the type. Typer gets other parameters as
    they are.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, _Group] = {}
    fields: dict[str, _Field] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = _group(hints[parameter.name], parameter.default)
        if group is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = group
        for field in group.fields:  # two structs may inherit one field: --dry-run is for dispatch and for reap
            known = fields.setdefault(field.name, field)
            assert known == field, f"two options are called {field.name}"
    parameters += map(_parameter, fields.values())

    def called(**values: Any) -> None:
        structs = {name: _struct(group, values) for name, group in groups.items()}
        command(**structs, **{name: values[name] for name in hints if name in values and name not in groups})

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def bd_settings(values: Mapping[str, Any]) -> BdSettings:
    """Return the settings of bd from what Typer has parsed so far, for completion. Raises UsageError."""
    group = _group(BdSettings, BdSettings())
    assert group
    settings: BdSettings = _struct(group, values)
    return settings


def argument(metavar: str, text: str, **more: Any) -> Any:
    """Return a positional argument. Typer would show the type of it as `<str>`."""

    def word(value: str) -> str:
        return value

    return typer.Argument(metavar=metavar, help=text, parser=word, **more)


def _group(annotation: Any, default: Any) -> _Group | None:
    kind, *marks = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    offer = next((mark for mark in marks if isinstance(mark, Offer)), Offer())
    default = kind() if default is inspect.Parameter.empty else default
    fields = {field.name: field for field in _fields(kind, default)}
    unknown = {*offer.only, *offer.without} - fields.keys()
    assert not unknown, f"{kind.__name__} has no option {unknown}"
    offered = [field for name, field in fields.items() if name not in offer.without and name in (offer.only or fields)]
    return _Group(default, offered, offer.check)


def _fields(kind: type[msgspec.Struct], default: Any) -> Iterator[_Field]:
    hints = get_type_hints(kind, include_extras=True)
    inherited = kind.__mro__[1].__struct_fields__ if issubclass(kind.__mro__[1], msgspec.Struct) else ()
    for name in sorted(kind.__struct_fields__, key=lambda name: name in inherited):  # a struct's own fields first
        marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else ()
        for option in marks[1:]:
            if isinstance(option, Option):
                kinds = [each for each in get_args(marks[0]) if each is not type(None)]
                optional = type(None) in get_args(marks[0])
                yield _Field(name, kinds[0] if optional else marks[0], option, getattr(default, name))


def _parameter(field: _Field) -> inspect.Parameter:
    """Return the parameter for Typer, which parses flags, choices and paths. `_value` parses the rest."""
    option: Any = field.option
    flags = [field.flag, *([option.short] if option.short else [])]
    valued: Any = {} if field.kind is bool else {"metavar": _metavar(field)}
    info = typer.Option(*flags, help=option.help, rich_help_panel=option.panel, envvar=_variable(field), **valued)
    kind, default = field.kind, field.default
    if _repeatable(field):
        kind, default = list[str], [str(value) for value in default]
    elif not (isinstance(kind, type) and issubclass(kind, bool | Enum | Path)):
        kind, default = str, _text(default)
    annotation: Any = Annotated[kind if default is not None else kind | None, info]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _variable(field: _Field) -> str | None:
    if field.option.env is None or (field.kind is bool and not field.option.env):
        return None
    return field.option.env or f"BDAUTO_{field.flag.removeprefix('--').replace('-', '_').upper()}"


METAVARS = {timedelta: "DURATION", int: "NUMBER", Path: "FILE", Secret: "URL"}


def _metavar(field: _Field) -> str:
    if field.option.metavar:
        return field.option.metavar
    if isinstance(field.kind, type) and issubclass(field.kind, Enum):
        return "|".join(field.kind)
    return METAVARS[field.kind]


def _repeatable(field: _Field) -> bool:
    return get_args(field.kind)[1:] == (...,)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return format_duration(value) if isinstance(value, timedelta) else str(value)


PARSERS: dict[Any, Callable[[Any], Any]] = {
    timedelta: parse_duration,
    int: parse_count,
    Path: Path,
    Secret: Secret,
    tuple[str, ...]: parse_names,
    tuple[Secret, ...]: lambda texts: tuple(Secret(text) for text in texts),
}


def _struct(group: _Group, values: Mapping[str, Any]) -> Any:
    given = {field.name: _value(field, values[field.name]) for field in group.fields if field.name in values}
    settings = msgspec.structs.replace(group.default, **given)
    return CHECKS.get(type(settings), lambda settings: settings)(settings) if group.check else settings


def _value(field: _Field, raw: Any) -> Any:
    """Convert an option's value to the field's type. Raises UsageError, which names the option."""
    if raw is None or raw == _text(field.default):
        return field.default
    parse = field.option.parse or PARSERS.get(field.kind)
    try:
        return parse(raw) if parse else raw
    except UsageError as error:
        variable = _variable(field) or ""
        given = f"{field.flag} ({variable})" if os.environ.get(variable) == raw else field.flag
        raise UsageError(f"{given} {error.message}", hint=error.hint) from None
