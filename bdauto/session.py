"""What every command opens and closes: the log, bd, the services, the report."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto import __version__, log
from bdauto.bd import Bd, private_db
from bdauto.changes import BdWriter, DryWriter, Writer
from bdauto.outcome import Report
from bdauto.report import show
from bdauto.runtime import Runtime
from bdauto.settings import BdSettings, ServiceSettings, WatchSettings, describe

if TYPE_CHECKING:
    from bdauto.beadboard import Services


@contextlib.contextmanager
def opened(settings: BdSettings, *, readonly: bool = False) -> Iterator[Bd]:
    """Yield bd as the settings say; a private copy of `--metadata` lives as long as the block."""
    if settings.metadata is None:
        yield Bd(settings, readonly=readonly)
        return
    with private_db(settings.metadata) as db:
        yield Bd(msgspec.structs.replace(settings, db=db, metadata=None), readonly=readonly, private=True)


def writer(bd: Bd, runtime: Runtime, dry_run: bool) -> Writer:
    """Return what changes beads: bd, or in a dry run nothing."""
    return DryWriter() if dry_run else BdWriter(bd, runtime)


class LazyServices:
    """BeadBoard and the agent service, opened when first asked for: an idle cycle asks neither."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._services: Services | None = None

    def __call__(self) -> "Services":
        """Return the open `Services`."""
        if self._services is None:
            from bdauto.beadboard import Services

            self._services = Services(self._settings)
        return self._services


def open_services(settings: ServiceSettings) -> "Services | None":
    """Return the services that are configured, None when none is; raises UsageError for a URL that is none."""
    if not settings.beadboard_url and not settings.agent_url:
        return None
    return LazyServices(settings)()


def finish(
    started: float, run: Callable[[], Report], as_json: bool, tell: Callable[[Report, float], None] | None = None
) -> None:
    """Run a cycle or sweep, report it, `tell` others of it and of its seconds, and exit with its status."""
    report = run()
    for entry in report.malformed:
        log.warning("malformed", detail=entry)
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
    if tell:
        tell(report, time.monotonic() - started)
    if report.error:
        raise report.error


def telling(settings: WatchSettings, runtime: Runtime, *about: Any) -> Callable[[Report, float], None] | None:
    """Return what tells others of a one-shot command's report, None when nobody wants to know.

    `about` are bd, the services, and the settings of dispatch and of reap, as `Census` takes them.
    """
    if settings == WatchSettings():
        return None
    from bdauto.census import Census
    from bdauto.watch import after_one_shot

    return after_one_shot(settings, Census(*about), runtime)


def begin(command: str, log_format: log.LogFormat | None, verbose: bool, *settings: msgspec.Struct) -> float:
    """Start the log with the version and the settings; return the stop watch's reading, in seconds."""
    start_log(log_format, verbose)
    log.event("start", command=command, version=__version__, **describe(*settings))
    return time.monotonic()


def start_log(log_format: log.LogFormat | None, verbose: bool) -> None:
    """Start the log: text on a terminal, key=value elsewhere, unless a format is asked for."""
    default = log.LogFormat.text if sys.stderr.isatty() else log.LogFormat.keyvalue
    log.configure(log_format or default, verbose)
