"""The command line: routes to a command and turns each of its ends into an exit status.

Only the module of the command that was given is imported.
"""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer

from bdauto import __version__
from bdauto.cli.variables import check_variables
from bdauto.common.errors import BdautoError, UsageError


class Command(msgspec.Struct, frozen=True):
    """Where a command's function is, `bdauto.cli.commands.MODULE:NAME`, and two examples for its help.

    A module may set COMMAND_CLASS to parse its command line in its own way.
    """

    module: str
    examples: tuple[str, str]


COMMANDS = {
    "dispatch": Command("dispatch", ("bdauto dispatch --dry-run", "bdauto dispatch --max 5 --json")),
    "reap": Command("reap", ("bdauto reap --threshold 30m", "bdauto reap --dry-run --on-stall requeue")),
    "run": Command("run", ("bdauto run", "bdauto run --dispatch-every 15s --listen 9464")),
    "pause": Command("pause_resume", ("bdauto pause", "bdauto pause 'database migration' --for 2h")),
    "resume": Command("pause_resume", ("bdauto resume", "bdauto resume --json")),
    "status": Command("status", ("bdauto status --watch", "bdauto status --check --json")),
    "explain": Command("explain", ("bdauto explain bd-a1b2", "bdauto explain bd-a1b2 --json")),
    "report": Command("report", ("bdauto report --since 1d", "bdauto report --by label --html week.html")),
    "runs": Command("runs", ("bdauto runs --since 'last monday'", "bdauto runs --bead bd-a1b2 --json")),
    "worktrees": Command("worktrees", ("bdauto worktrees", "bdauto worktrees --remove --agent-base origin/main")),
    "logs": Command("logs", ("bdauto logs bd-a1b2 --follow", "bdauto logs bd-a1b2 --attempt 1")),
    "cancel": Command("cancel", ("bdauto cancel bd-a1b2", "bdauto cancel bd-a1b2 --json")),
    "doctor": Command("doctor", ("bdauto doctor", "bdauto doctor --metadata /etc/beads-metadata/metadata.json")),
    "config": Command("config", ("bdauto config init", "bdauto config check")),
    "agent-entry": Command("agent_entry", ("bdauto agent-entry -- claude -p", "bdauto agent-entry -- my-agent {id}")),
    "completion": Command("completion", ("bdauto completion zsh", "source <(bdauto completion bash)")),
    "demo": Command("demo", ("bdauto demo", "bdauto demo --real-bd")),
}


def application(only: str = "") -> typer.Typer:
    """Return the command line with the command `only`, or with all commands if there is none of that name."""
    app = typer.Typer(
        name="bdauto",
        help="Dispatch ready beads to a headless coding agent, and reap those whose agent died. "
        "`bdauto help COMMAND` explains a command.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_root)
    for name in [only] if only in COMMANDS else COMMANDS:
        command = COMMANDS[name]
        module: Any = importlib.import_module(f"bdauto.cli.commands.{command.module}")
        epilog = f"Examples: {' · '.join(command.examples)}"
        found = getattr(module, name.replace("-", "_"))
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, epilog=epilog)
        else:
            app.command(name, epilog=epilog, cls=getattr(module, "COMMAND_CLASS", None))(found)
    return app


def run() -> int:
    """Run the command line and return the exit status that docs/cli.md lists."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    words = sys.argv[1:] or ["--help"]
    if words[0] == "help":
        words = [*words[1:], "--help"]
    try:
        if words[0] in COMMANDS and not {"--help", "-h"}.intersection(words):
            check_variables(os.environ)
        status = application(only=words[0])(words, standalone_mode=False)
    except BdautoError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: an unknown option, a value out of range
            command = f"bdauto {words[0]}" if words[0] in COMMANDS else "bdauto"
            _complain(f"{error.format_message()} (see `{command} --help`)")
            return UsageError.exit_code
        return _defect(error)
    return status if isinstance(status, int) else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(error: object) -> None:
    sys.stderr.write(f"bdauto: {' '.join(str(error).split())}\n")


def _defect(error: Exception) -> int:
    import platform
    import traceback

    traceback.print_exception(error)
    versions = f"bdauto {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    _complain(f"this is a defect in bdauto ({versions}); please report it with the lines above and `bd version`")
    return 1


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"bdauto {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass
