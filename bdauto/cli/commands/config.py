"""`bdauto config init`, `config show` and `config check`: the configuration file (docs/configuration.md)."""

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from bdauto.agents.kinds import AgentSettings
from bdauto.cli import config_file, config_keys, config_lanes
from bdauto.cli.fields import Field, as_text
from bdauto.cli.lane_settings import KINDS, LaneSettings, PerLane
from bdauto.cli.options import Offer, Part, argument, config_option, source, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import align, envelope
from bdauto.common.errors import UsageError
from bdauto.domain.settings import (
    BdSettings,
    DispatchSettings,
    ReapSettings,
    RunSettings,
    Secret,
    TelemetrySettings,
    describe,
)

config = typer.Typer(help="Write, show and check the configuration file.")
UNCHECKED = Offer(check=False)
HEAD = """\
# The configuration file of bdauto. docs/configuration.md has the rules.
# A flag goes before its variable, that before this file, and that before the default.
# Secrets are not written here: name a variable, "$NAME", or a file, "file:PATH".
"""
LANE = """
# Lanes
#
# With lanes, a bead goes to the first one whose conditions it meets. A lane has what stands above, under what stands
# in its table. Without lanes, everything above is for the one lane `default`.
#
# [lanes.docs]
# labels = ["docs"]
# model = "haiku"
# max_cost_per_day = 5
#
# [lanes.rest]
# fallback = "docs"
"""
WIDTH = 110


@config.command(epilog="Examples: bdauto config init · bdauto config init --config team.toml --force")
def init(
    *,
    config: Annotated[str | None, config_option()] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a file with all keys, commented out, with their meaning and default."""
    path = config or config_file.default_path(os.environ)
    if not path:
        raise UsageError("there is no home for the file", hint="name it with --config")
    try:
        _write(Path(os.path.realpath(path)), template(), force)
    except FileExistsError:
        raise UsageError(f"{path} exists", hint="give --force to overwrite it") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    sys.stdout.write(f"{path}\n")


@config.command(epilog="Examples: bdauto config check · bdauto config check deploy/bdauto.toml")
def check(
    *,
    file: Annotated[str, argument("[FILE]", "The file. (default: the one in force)", show_default=False)] = "",
    config: Annotated[str | None, config_option()] = None,
) -> None:
    """Check a file: its keys, their values, and whether these go together. No variable and no service is asked."""
    path = file or config_file.path_in_force(config, os.environ)
    if not path:
        raise UsageError("there is no configuration file", hint="`bdauto config init` writes one")
    found = config_file.read(path)
    wrong = [*config_keys.mistakes(found)] or [*config_keys.contradictions(found)]
    for error in wrong[1:]:
        sys.stdout.write(f"{' '.join(str(error).split())}\n")
    if wrong:
        more = f" (and {len(wrong) - 1} more, on stdout)" if wrong[1:] else ""
        raise UsageError(f"{wrong[0].message}{more}", hint=wrong[0].hint)
    lanes = config_lanes.tables(found)
    more = f", lanes: {len(lanes)}" if lanes else ""
    sys.stdout.write(f"{path}: no mistake found; keys: {len(found.values) - bool(lanes)}{more}\n")


@config.command(epilog="Examples: bdauto config show · bdauto config show --json")
@with_options
def show(
    ctx: typer.Context,
    agent: Annotated[AgentSettings, UNCHECKED],
    bd: Annotated[BdSettings, UNCHECKED],
    dispatch: Annotated[DispatchSettings, UNCHECKED],
    reap: Annotated[ReapSettings, UNCHECKED],
    lanes: Annotated[PerLane, *(Part(kind, UNCHECKED) for kind in KINDS)],
    loop: Annotated[RunSettings, UNCHECKED],
    telemetry: Annotated[TelemetrySettings, UNCHECKED],
    output: OutputSettings,
) -> None:
    """Show the value of each key that is in force, and where it comes from. Secrets show as ***.

    Of a lane, show what is different from what stands at the top.
    """
    values = describe(agent, bd, dispatch, reap, loop, telemetry, output)
    rows = [(key, values.get(field.name, ""), *_origin(ctx, key, field)) for key, field in config_keys.keys().items()]
    of_lanes = {lane.name: _lane_rows(ctx, lane, values) for lane in lanes.serves if lanes.known}
    if output.json:
        path = ctx.obj.file.path if ctx.obj else None
        shown: dict[str, Any] = {"file": path, "settings": _named(rows)}
        shown |= {"lanes": {name: _named(found) for name, found in of_lanes.items()}} if of_lanes else {}
        sys.stdout.write(envelope("config show", shown) + "\n")
        return
    _print(rows)
    for name, found in of_lanes.items():
        sys.stdout.write(f"\nlane {name}\n")
        _print(found)


_Row = tuple[str, str, str, str]
"""A key, its value, its source and the place of that."""


def _named(rows: list[_Row]) -> dict[str, Any]:
    named = ("value", "source", "place")
    return {key: dict(zip(named, [value or None for value in rest], strict=True)) for key, *rest in rows}


def _print(rows: list[_Row]) -> None:
    lines = align([(key, value or "-", place or origin) for key, value, origin, place in rows])
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _lane_rows(ctx: Any, lane: LaneSettings, top: Mapping[str, str]) -> list[_Row]:
    """Return what holds for a lane and is different from what stands at the top, or stands in its table."""
    values, part = describe(lane.agent, lane.bd, lane.dispatch, lane.reap), ctx.obj.lanes[lane.name]
    rows = [
        (key, values.get(field.name, ""), *_origin(ctx, key, field, part))
        for kind in KINDS
        for key, field in config_keys.keys().items()
        if field.name in kind.__struct_fields__
        if part.own(key) or (values.get(field.name) != top.get(field.name) and key not in config_lanes.LIMITS)
    ]
    place = ctx.obj.file.place(config_lanes.LANES, lane.name, config_lanes.FALLBACK)
    return [*dict.fromkeys(rows), *([("fallback", lane.fallback, "file", place)] if lane.fallback else [])]


def _origin(ctx: Any, key: str, field: Field, part: Any = None) -> tuple[str, str]:
    """Return where an option's value comes from, at the top or in a lane, and the flag, the variable or the line."""
    origin = source(ctx, field.name)
    places = {"flag": field.flag, "variable": field.variable or ""}
    if origin in places:
        return origin, places[origin]
    part = part or (ctx.obj and ctx.obj.top)
    return ("file", part.place(key)) if part and key in part.values else ("default", "")


def template() -> str:
    """Return the text of a configuration file in which every key is commented out."""
    by_panel = sorted(config_keys.keys().items(), key=lambda item: item[1].option.panel or "")
    parts: list[str] = [HEAD]
    for panel, items in groupby(by_panel, key=lambda item: item[1].option.panel or ""):
        parts += [f"\n# {panel}\n", *("".join(f"{line}\n" for line in _lines(*item)) for item in items)]
    return "".join([*parts, LANE])


def _lines(key: str, field: Field) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(field.option.help, WIDTH, initial_indent="# ", subsequent_indent="# ")
    if field.choices:
        yield f"# One of: {', '.join(field.choices)}."
    yield f"#{key} = {_example(field)}"


def _example(field: Field) -> str:
    """Return the default as TOML, or what stands for a value where there is none."""
    if field.metavar == "URL" and (field.repeatable or field.kind is Secret):
        return '["$NAME"]' if field.repeatable else '"$NAME"'
    if field.kind is bool:
        return str(field.default).lower()
    if field.kind == tuple[int, ...]:
        return "[0, 1]"
    if field.repeatable:
        return f"[{', '.join(_quoted(text) for text in field.default or [field.metavar])}]"
    if field.kind is int:
        return str(field.default if field.default is not None else 1)
    if field.kind is float:
        return "7.5"
    if field.metavar == "DURATION" and field.default is None:
        return _quoted("30m")
    return _quoted(as_text(field.default) or (field.choices or [field.metavar])[0])


def _quoted(text: str) -> str:
    return f'"{text}"'


def _write(path: Path, text: str, force: bool) -> None:
    """Write a file that only this user reads. Raises FileExistsError unless `force` replaces a file, and OSError."""
    if path.exists() and not (force and path.is_file()):  # not /dev/null
        raise FileExistsError
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = path.with_name(f".{path.name}.{os.getpid()}") if force else path
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if force:
        target.replace(path)
