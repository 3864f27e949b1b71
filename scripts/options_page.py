"""Write docs/options.md, and the lists of variables, from the command line itself: `make docs`."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from bdauto.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
INTRODUCTION = """\
# Options

Generated from the command line by `make docs`. Do not edit it by hand: change `bdauto/domain/settings.py`,
`bdauto/agents/local/settings.py` or `bdauto/agents/beadboard/settings.py`.

A flag goes before its environment variable, that before the [configuration file](configuration.md), and that before the
default. Durations are `500ms`, `90s`, `30m`, `1h30m`, `2d`. Repeatable options may also hold several values separated
by commas, in the flag and in the variable. URLs for notifications are separated by spaces in the variable.

A variable is named after its option. Each option with a variable is also a key of the configuration file: the flag's
name with underscores, so `--max-per-day` is `max_per_day`. `BEADBOARD_URL`, `API_BEARER_TOKEN` and `BEADS_ACTOR` are
those of other programs. Any other variable that begins with `BDAUTO_` is refused with exit status 2 and the nearest
name. What Kubernetes gives a container beside a Service called bdauto (`BDAUTO_PORT`, `BDAUTO_SERVICE_HOST`, …) and
what agents are given (`BDAUTO_JOB`, in a pod also `BDAUTO_CHECKS`, `BDAUTO_POD`, `BDAUTO_PROMPT`,
`BDAUTO_TERMINATION_LOG`) is no mistake.

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


OWN_VALUES = {"BDAUTO_CONFIG", "BDAUTO_NOTIFY_URL"}
"""Variables that the chart and the module set from values of their own. Notification URLs are secrets."""


def variables(*commands: str) -> list[str]:
    """Return the variables that begin with BDAUTO_: of all commands, or what these take as settings in a cluster."""
    rows = [row for row, names in _rows().items() if not commands or set(commands) & set(names)]
    found = {row.variable.strip("`") for row in rows if row.variable.startswith("`BDAUTO_")}
    return sorted(found - OWN_VALUES if commands else found)


def with_names(file: Path, names: list[str]) -> str:
    """Return the text of a file with these names where it lists them: between two marks, or as the enum of a schema."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return re.sub(r'("propertyNames": )\{.*\}', lambda found: f'{found[1]}{{"enum": {json.dumps(names)}}}', text)
    indent = re.search(r"^( *)# names: begin$", text, re.MULTILINE)
    assert indent
    lines = "".join(f'{indent[1]}"{name}",\n' for name in names)
    return re.sub(
        r"(# names: begin\n).*?( *# names: end)", lambda found: f"{found[1]}{lines}{found[2]}", text, flags=re.DOTALL
    )


ROOT = PAGE.parents[1]
IN_CLUSTER = ("dispatch", "reap", "run")
LISTS = {
    ROOT / "deploy" / "helm" / "bdauto" / "values.schema.json": IN_CLUSTER,
    ROOT / "deploy" / "terraform" / "variables.tf": IN_CLUSTER,
}
"""The files that list variables, and of which commands."""


def main() -> None:
    """Write the page and the lists."""
    PAGE.write_text(page(), encoding="utf-8")
    for file, commands in LISTS.items():
        file.write_text(with_names(file, variables(*commands)), encoding="utf-8")


if __name__ == "__main__":
    main()
