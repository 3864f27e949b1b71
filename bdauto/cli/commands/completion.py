"""`bdauto completion`."""

import sys
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # it exports nothing


class Shell(StrEnum):
    """The shells whose completion is tested."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="The shell.", show_choices=False)],
) -> None:
    """Print the completion script of a shell: of commands, options, and the ids of beads."""
    script = get_completion_script(prog_name="bdauto", complete_var="_BDAUTO_COMPLETE", shell=shell.value)
    sys.stdout.write(f"{script}\n")
