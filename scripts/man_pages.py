"""Write the manual pages from the command line itself, as docs/options.md is: `make man`."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from bdauto import __version__
from bdauto.cli import app

EXIT = "0 is done, or nothing to do. 2 is usage or configuration, 3 bd, 4 what runs the agent, 5 partly done."


def pages() -> Iterator[tuple[str, str]]:
    """Yield the file name and the text of each page: one for bdauto and one for each command."""
    group: Any = typer.main.get_command(app.application())
    commands = {name: command for name, command in group.commands.items() if not command.hidden}
    listed = "".join(f".TP\n.BR bdauto\\-{_text(name)} (1)\n{_text(_help(one))}\n" for name, one in commands.items())
    head = f"{_head('bdauto', _help(group))}.B bdauto\n.I COMMAND\n[options]\n.SH COMMANDS\n{listed}"
    yield "bdauto.1", f"{head}{_foot()}"
    for name, command in commands.items():
        yield f"bdauto-{name}.1", _page(name, command, group)


def _page(name: str, command: Any, group: Any) -> str:
    context = command.make_context(
        name, [], parent=group.make_context("bdauto", [name], resilient_parsing=True), resilient_parsing=True
    )
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = " ".join(_text(one.make_metavar(context)) for one in arguments)
    subcommands = "".join(
        f".TP\n.B {_text(key)}\n{_text(_help(one))}\n" for key, one in getattr(command, "commands", {}).items()
    )
    options = "".join(_option(one, context) for one in command.params if one.param_type_name == "option")
    return "".join(
        (
            _head(f"bdauto-{name}", _help(command)),
            f".B bdauto {_text(name)}\n[options] {words}\n",
            f".SH COMMANDS\n{subcommands}" if subcommands else "",
            f".SH OPTIONS\n{options}" if options else "",
            _foot(command.epilog),
        )
    )


def _option(option: Any, context: Any) -> str:
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    variable = f" Variable: {option.envvar}." if option.envvar else ""
    default = option.default if isinstance(option.default, str) and option.default else ""
    shown = f" Default: {default}." if default and option.name != "actor" else ""
    return f".TP\n.B {_text(', '.join(option.opts) + value)}\n{_text(f'{option.help or str()}{variable}{shown}')}\n"


def _head(name: str, words: str) -> str:
    version = _text(f"bdauto {__version__}")
    return f'.TH {_text(name).upper()} 1 "" "{version}"\n.SH NAME\n{_text(name)} \\- {_text(words)}\n.SH SYNOPSIS\n'


def _foot(examples: str | None = None) -> str:
    lines = "".join(f".TP\n{_text(one)}\n" for one in (examples or "").removeprefix("Examples: ").split(" · ") if one)
    return (f".SH EXAMPLES\n{lines}" if lines else "") + f".SH EXIT STATUS\n{EXIT}\n"


def _help(command: Any) -> str:
    return " ".join((command.help or "").split())


def _text(text: str) -> str:
    """Return text that roff takes for nothing else."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    plain = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in plain)
    return re.sub(r"^(?=[.'])", "\\\\&", plain, flags=re.MULTILINE)


def main() -> None:
    """Write the pages into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
