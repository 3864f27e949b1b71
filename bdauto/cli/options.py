"""The options of a command, derived from the settings structs that its function takes.

They are defined in `bdauto.domain.settings` and in `bdauto.agents`, and `bdauto.cli.validation` checks their values.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import typer

from bdauto.agents import kinds
from bdauto.cli import completers
from bdauto.cli.config_file import path_in_force
from bdauto.cli.fields import Field, as_text, fields_of
from bdauto.cli.validation import CHECKS
from bdauto.common.errors import UsageError
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.settings import OUTPUT, TRACKER


class Offer(msgspec.Struct, frozen=True):
    """Which fields of a settings struct a command offers: `Annotated[ReapSettings, Offer(only=("grace",))]`.

    Without this mark a command offers every field, and the values are checked.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    check: bool = True


ELIGIBILITY = Offer(
    only=("exclude_types", "types", "priorities", "acceptance", "trusted_creators", "labels", "exclude_labels")
)
"""The options that decide which beads are eligible, for commands that only read."""
DISPATCHING = Offer(only=(*ELIGIBILITY.only, "max_per_day", "max_cost_per_day", "cost_per_run", "active_hours"))
"""Those, and the limits on dispatching."""

LOOKING, SWEEPING, JOBS = Offer(only=kinds.LOOKING), Offer(only=kinds.SWEEPING), Offer(only=kinds.JOBS)
"""The options of agents for commands that only look, for a sweep, and for commands that look for a job."""


class Part(NamedTuple):
    """Settings that each lane has, and which of their options a command offers: a mark of a parameter of `PerLane`."""

    kind: type[msgspec.Struct]
    offer: Offer = Offer()
    default: Any = inspect.Parameter.empty


class Group(NamedTuple):
    """A settings struct that a command takes, and those of its fields that the command offers."""

    default: Any
    fields: list[Field]
    check: bool


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the settings structs among its parameters.

    The function declares `settings: ReapSettings`. Typer sees one option per field, and the function gets the struct
    with the values given. A default of the parameter replaces the defaults of the type. With
    `lanes: Annotated[PerLane, Part(ReapSettings)]` it gets the settings of each lane. Typer gets other parameters as
    they are.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Group] = {}
    per_lane: dict[str, tuple[Any, dict[type, Group]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if parts := [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Part)]:
            per_lane[parameter.name] = get_args(hint)[0], {part.kind: _part(part) for part in parts}
            parameters.append(inspect.Parameter("lane", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=_LANE))
        elif group := _group(hint, parameter.default):
            groups[parameter.name] = group
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    offered = [*groups.values(), *(group for _, parts in per_lane.values() for group in parts.values())]
    fields: dict[str, Field] = {}
    for field in (field for group in offered for field in group.fields):
        known = fields.setdefault(field.name, field)  # two structs may inherit one field, such as --dry-run
        assert known == field, f"two options are called {field.name}"
    parameters += map(_parameter, fields.values())
    parameters += _configured(fields, {parameter.name for parameter in parameters})

    def called(**values: Any) -> None:
        ctx, chosen = values["ctx"], values.pop("lane", ())
        try:
            values |= _lines(ctx, fields)
            given: dict[str, Any] = {name: values[name] for name in hints if name in values and name not in groups}
            given |= {name: _struct(group, values) for name, group in groups.items()}
            for name, (kind, parts) in per_lane.items():
                given[name] = _per_lane(kind, parts, values, chosen, ctx)
            command(**given)
        except UsageError as error:
            raise _located(error, ctx, fields) from None

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _lines(ctx: typer.Context, fields: dict[str, Field]) -> dict[str, list[str]]:
    """Return the values of variables that hold commands, one a line. Typer splits them into words."""
    commands = [field for field in fields.values() if field.repeatable and field.option.parse]
    given = {field.name: field.variable or "" for field in commands if source(ctx, field.name) == "variable"}
    return {name: os.environ[variable].splitlines() for name, variable in given.items()}


_LANE = Annotated[
    list[str],
    typer.Option(
        "--lane",
        help="Only this lane of the configuration file. Repeatable. (default: all)",
        metavar="NAME",
        rich_help_panel=TRACKER,
        autocompletion=completers.lanes,
    ),
]


def _part(part: Part) -> Group:
    group = _group(Annotated[part.kind, part.offer], part.default)
    assert group
    return group


def _per_lane(
    kind: Any, parts: Mapping[type, Group], values: Mapping[str, Any], chosen: Sequence[str], ctx: Any
) -> Any:
    """Return the `PerLane` of the chosen lanes. Without lanes in the file it has the one lane."""
    if ctx.obj is not None and ctx.obj.lanes:
        given = {name: source(ctx, name) for name in values if source(ctx, name) in ("flag", "variable")}
        return kind.of_file(ctx.obj, parts, values, given, chosen)
    if unknown := [name for name in chosen if name != DEFAULT_LANE]:
        raise UsageError(f"there is no lane {unknown[0]!r}", hint="the configuration file has no lanes")
    return kind.only({one: _struct(group, values) for one, group in parts.items()})


def config_option(**more: Any) -> Any:
    """Return the option that names the configuration file."""
    text = "Read this configuration file. /dev/null: none. (default: $XDG_CONFIG_HOME/bdauto/config.toml if it exists)"
    return typer.Option("--config", help=text, envvar="BDAUTO_CONFIG", metavar="FILE", rich_help_panel=OUTPUT, **more)


def argument(metavar: str, text: str, **more: Any) -> Any:
    """Return a positional argument. Typer would show the type of it as `<str>`."""

    def word(value: str) -> str:
        return value

    return typer.Argument(metavar=metavar, help=text, parser=word, **more)


def _configured(fields: dict[str, Field], known: set[str]) -> list[inspect.Parameter]:
    """Return the parameters by which a command reads the configuration file before its other options."""

    def read(ctx: typer.Context, config: str | None) -> str | None:
        if path := path_in_force(config, os.environ):
            from bdauto.cli.config_keys import load

            ctx.obj = load(path)
            ctx.default_map = dict(ctx.obj.defaults(fields))
        return config

    kind = Annotated[str | None, config_option(is_eager=True, callback=read)]
    named = [
        inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None),
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
    ]
    return [parameter for parameter in named if parameter.name not in known]


def _located(error: UsageError, ctx: typer.Context, fields: dict[str, Field]) -> UsageError:
    """Return the error with the places of those of its options that the configuration file sets."""
    if ctx.obj is None:
        return error
    from bdauto.cli.config_keys import located

    if ctx.obj.lanes:  # which name their places themselves
        return error
    return located(error, ctx.obj.top, [field for name, field in fields.items() if source(ctx, name) == "file"])


def source(ctx: typer.Context, name: str) -> str:
    """Return where a parameter's value comes from: `flag`, `variable`, `file` or `default`."""
    names = {"COMMANDLINE": "flag", "ENVIRONMENT": "variable", "DEFAULT_MAP": "file"}
    found = ctx.get_parameter_source(name)
    return names.get(found.name, "default") if found else "default"


def _group(annotation: Any, default: Any) -> Group | None:
    kind, *marks = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    offer = next((mark for mark in marks if isinstance(mark, Offer)), Offer())
    default = kind() if default is inspect.Parameter.empty else default
    fields = {field.name: field for field in fields_of(kind, default)}
    unknown = {*offer.only, *offer.without} - fields.keys()
    assert not unknown, f"{kind.__name__} has no option {unknown}"
    offered = [field for name, field in fields.items() if name not in offer.without and name in (offer.only or fields)]
    return Group(default, offered, offer.check)


def _parameter(field: Field) -> inspect.Parameter:
    """Return the parameter for Typer, which parses flags, choices and paths. `_value` parses the rest."""
    option: Any = field.option
    flags = [field.flag, *([option.short] if option.short else [])]
    valued: Any = {} if field.kind is bool else {"metavar": field.metavar}
    if field.metavar == "ID":
        valued["autocompletion"] = completers.known
    info = typer.Option(*flags, help=option.help, rich_help_panel=option.panel, envvar=field.variable, **valued)
    kind, default = field.kind, field.default
    if field.repeatable:
        kind, default = list[str], [str(value) for value in default]
    elif not (isinstance(kind, type) and issubclass(kind, bool | Enum | Path)):
        kind, default = str, as_text(default)
    annotation: Any = Annotated[kind if default is not None else kind | None, info]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _struct(group: Group, values: Mapping[str, Any]) -> Any:
    given = {field.name: value_of(field, values[field.name]) for field in group.fields if field.name in values}
    settings = msgspec.structs.replace(group.default, **given)
    return CHECKS.get(type(settings), lambda settings: settings)(settings) if group.check else settings


def value_of(field: Field, raw: Any) -> Any:
    """Convert an option's value to the field's type. Raises UsageError, which names the option."""
    if raw is None or raw == as_text(field.default):
        return field.default
    try:
        return field.parse(raw)
    except UsageError as error:
        variable = field.variable or ""
        given = f"{field.flag} ({variable})" if os.environ.get(variable) == raw else field.flag
        raise UsageError(f"{given} {error.message}", hint=error.hint) from None
