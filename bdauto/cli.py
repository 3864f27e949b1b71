"""The command line: options to settings, settings to a use case, its report to stdout and the exit status.

The only place that ends the process.
"""

import contextlib
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Annotated, Any

import typer

from bdauto import __version__, log, options
from bdauto.bd import Bd, private_db
from bdauto.changes import BdWriter, DryWriter, Writer
from bdauto.errors import BdautoError, UsageError
from bdauto.outcome import Report
from bdauto.report import show
from bdauto.runtime import Runtime
from bdauto.settings import BdSettings, OnStall, ServiceSettings, describe

app = typer.Typer(
    name="bdauto",
    help="Dispatch ready beads to a headless coding agent, and reap those whose agent died.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


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
    traceback.print_exception(error)
    versions = f"bdauto {__version__}, Python {platform.python_version()}, {platform.platform()}"
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


@contextlib.contextmanager
def opened(settings: BdSettings, *, readonly: bool = False) -> Iterator[Bd]:
    """Yield bd as the settings say; a private copy of `--metadata` lives as long as the block."""
    if settings.metadata is None:
        yield Bd(settings, readonly=readonly)
        return
    with private_db(settings.metadata) as db:
        import dataclasses

        yield Bd(dataclasses.replace(settings, db=db, metadata=None), readonly=readonly, private=True)


def writer(bd: Bd, runtime: Runtime, dry_run: bool) -> Writer:
    """Return what changes beads: bd, or in a dry run nothing."""
    return DryWriter() if dry_run else BdWriter(bd, runtime)


class LazyServices:
    """BeadBoard and the agent service, opened when first asked for: an idle cycle asks neither."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._services: Any = None

    def __call__(self) -> Any:
        """Return the open `Services`."""
        if self._services is None:
            from bdauto.beadboard import Services

            self._services = Services(self._settings)
        return self._services


def _finish(started: float, run: Callable[[], Report], as_json: bool) -> None:
    """Run a cycle or sweep, report it, and exit with its status."""
    report = run()
    counts: dict[str, int] = {}
    for bead in report.beads:
        counts[bead.outcome] = counts.get(bead.outcome, 0) + 1
    log.event(
        "end",
        outcome=report.outcome,
        **counts,
        seconds=time.monotonic() - started,
        detail=report.detail,
    )
    show(report, as_json)
    if report.error:
        raise report.error


def _begin(command: str, log_format: log.LogFormat | None, verbose: bool, *settings: object) -> float:
    start_log(log_format, verbose)
    log.event("start", command=command, version=__version__, **describe(*settings))
    return time.monotonic()


def start_log(log_format: log.LogFormat | None, verbose: bool) -> None:
    """Start the log: text on a terminal, key=value elsewhere, unless a format is asked for."""
    default = log.LogFormat.text if sys.stderr.isatty() else log.LogFormat.keyvalue
    log.configure(log_format or default, verbose)


@app.command(epilog="Examples: bdauto dispatch --dry-run · bdauto dispatch --max 5 --json")
def dispatch(
    beadboard_url: options.BeadBoardUrl = None,
    agent_url: options.AgentUrl = None,
    agent_token_file: options.AgentTokenFile = None,
    timeout: options.Timeout = options.TIMEOUT,
    max_beads: options.Max = 1,
    max_attempts: options.MaxAttempts = 3,
    exclude_type: options.ExcludeTypes = ["epic"],  # noqa: B006 - Typer copies it
    trusted_creator: options.TrustedCreators = [],  # noqa: B006
    label: options.Labels = [],  # noqa: B006
    exclude_label: options.ExcludeLabels = [],  # noqa: B006
    ignore_pause: options.IgnorePause = False,
    dry_run: options.DryRun = False,
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    assignee: options.Assignee = "agent",
    actor: options.Actor = "beads-dispatcher",
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """Dispatch the most urgent ready beads: one cycle, then exit."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    service_settings = options.service_settings(beadboard_url, agent_url, agent_token_file, timeout)
    settings = options.dispatch_settings(
        max_beads, max_attempts, exclude_type, trusted_creator, label, exclude_label, ignore_pause, dry_run
    )
    if service_settings.beadboard_url is None:
        raise UsageError("the URL of BeadBoard is not set: give --beadboard-url or BEADBOARD_URL")
    started = _begin("dispatch", log_format, verbose, bd_settings, service_settings, settings)
    runtime, services = Runtime(), LazyServices(service_settings)
    from bdauto.dispatch import Dispatcher

    with opened(bd_settings, readonly=dry_run) as tracker:
        dispatcher = Dispatcher(tracker, writer(tracker, runtime, dry_run), services, settings, runtime)
        _finish(started, dispatcher.cycle, json)


@app.command(epilog="Examples: bdauto reap --threshold 30m · bdauto reap --dry-run --json")
def reap(
    threshold: options.Threshold = options.THRESHOLD,
    grace: options.Grace = options.GRACE,
    on_stall: options.OnStallOption = OnStall.block,
    max_attempts: options.MaxAttempts = 3,
    max_reap: options.MaxReap = 10,
    force: options.Force = False,
    agent_url: options.AgentUrl = None,
    agent_token_file: options.AgentTokenFile = None,
    timeout: options.Timeout = options.TIMEOUT,
    ignore_pause: options.IgnorePause = False,
    dry_run: options.DryRun = False,
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    assignee: options.Assignee = "agent",
    actor: options.Actor = "beads-reaper",
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """Settle the beads in progress whose agent died: one sweep, then exit."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    service_settings = options.service_settings(None, agent_url, agent_token_file, timeout)
    settings = options.reap_settings(threshold, grace, on_stall, max_attempts, max_reap, force, ignore_pause, dry_run)
    started = _begin("reap", log_format, verbose, bd_settings, service_settings, settings)
    runtime = Runtime()
    services = LazyServices(service_settings) if service_settings.agent_url else None
    from bdauto.reap import Reaper

    with opened(bd_settings, readonly=dry_run) as tracker:
        reaper = Reaper(tracker, writer(tracker, runtime, dry_run), services, settings, runtime)
        _finish(started, reaper.sweep, json)
