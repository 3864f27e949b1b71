"""The command line: the commands by name, and the exit status of each end that a command can have.

The only place that ends the process.
"""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from bdauto import __version__
from bdauto.commands.demo import demo
from bdauto.commands.dispatch import dispatch
from bdauto.commands.doctor import doctor
from bdauto.commands.explain import explain
from bdauto.commands.pause import pause, resume
from bdauto.commands.reap import reap
from bdauto.commands.run import run
from bdauto.commands.status import Watchable, status
from bdauto.errors import BdautoError, UsageError

app = typer.Typer(
    name="bdauto",
    help="Dispatch ready beads to a headless coding agent, and reap those whose agent died.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _examples(*commands: str) -> str:
    return "Examples: " + " · ".join(commands)


def main() -> None:
    """Run the command line and exit with the status that docs/cli.md lists."""
    sys.exit(_run())


def _run() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = app(standalone_mode=False)
    except BdautoError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: an unknown option, a value out of range
            _complain(f"{error.format_message()} (see --help)")
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


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command(epilog=_examples("bdauto dispatch --dry-run", "bdauto dispatch --max 5 --json"))(dispatch)
app.command(epilog=_examples("bdauto reap --threshold 30m", "bdauto reap --dry-run --on-stall requeue"))(reap)
app.command(epilog=_examples("bdauto run", "bdauto run --dispatch-every 15s --listen 9464"))(run)
app.command(epilog=_examples("bdauto pause 'database migration' --for 2h"))(pause)
app.command(epilog=_examples("bdauto resume"))(resume)
app.command(epilog=_examples("bdauto demo", "bdauto demo --real-bd"))(demo)
app.command(epilog=_examples("bdauto status --watch", "bdauto status --check --json"), cls=Watchable)(status)
app.command(epilog=_examples("bdauto explain bd-a1b2", "bdauto explain bd-a1b2 --json"))(explain)
app.command(epilog=_examples("bdauto doctor", "bdauto doctor --metadata /etc/beads-metadata/metadata.json"))(doctor)
