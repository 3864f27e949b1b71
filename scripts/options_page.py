"""Write docs/options.md from the command line itself: `make docs`."""

from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from bdauto.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
INTRODUCTION = """\
# Options

Generated from the command line by `make docs`. Do not edit it by hand: change `bdauto/domain/settings.py`,
`bdauto/agents/local/settings.py` or `bdauto/agents/beadboard/settings.py`.

A flag goes before its environment variable, and that before the default. Durations are `500ms`, `90s`, `30m`, `1h30m`,
`2d`. Repeatable options may also hold several values separated by commas, in the flag and in the variable. URLs for
notifications are separated by spaces in the variable.

`bdauto COMMAND --help` shows the options of one command.
"""
PERSON = "your login"
"""The author of `pause` and `resume`, where help shows no default."""


class Row(NamedTuple):
    """One option. Commands that have it with the same default share a row."""

    panel: str
    option: str
    variable: str
    default: str
    help: str


def page() -> str:
    """Return the text of docs/options.md."""
    rows = _rows()
    parts = [INTRODUCTION]
    for panel in dict.fromkeys(sorted((row.panel for row in rows), key=lambda panel: panel != "General")):
        parts.append(f"## {panel}\n\n| option | variable | default | commands | meaning |\n|---|---|---|---|---|\n")
        parts[-1] += "".join(
            f"| {row.option} | {row.variable} | {row.default} | {', '.join(commands)} | {row.help} |\n"
            for row, commands in rows.items()
            if row.panel == panel
        )
    return "\n".join(parts)


def _rows() -> dict[Row, list[str]]:
    rows: dict[Row, list[str]] = {}
    group: Any = typer.main.get_command(app.application())
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                rows.setdefault(_row(parameter, context), []).append(name)
    return rows


def _row(parameter: Any, context: Any) -> Row:
    metavar = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
    default = parameter.default
    if isinstance(default, list | tuple):
        default = ",".join(default)
    if default == "" and parameter.name == "actor":
        default = PERSON
    return Row(
        parameter.rich_help_panel or "General",
        ", ".join(f"`{flag}{metavar}`".replace("|", "\\|") for flag in parameter.opts),
        f"`{parameter.envvar}`" if parameter.envvar else "",
        "" if default in (None, False, "") else default if default == PERSON else f"`{default}`",
        parameter.help,
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
