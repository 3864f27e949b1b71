"""Open and close what every command uses: the log, bd, the services, the report."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto import __version__, log
from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.bd import process
from bdauto.bd.change import DryWriter, Writer
from bdauto.bd.client import Bd, private_db
from bdauto.bd.writer import BdWriter
from bdauto.cli.printing import show
from bdauto.cli.validation import exclude_each_other
from bdauto.clock import Runtime
from bdauto.domain.outcome import Report
from bdauto.domain.settings import BdSettings, OutputSettings, TelemetrySettings, describe
from bdauto.errors import BdError, UsageError

if TYPE_CHECKING:
    from bdauto.agents.beadboard.runner import BeadBoardRunner
    from bdauto.agents.local.local_agent import LocalAgent
    from bdauto.agents.local.settings import LocalAgentSettings
    from bdauto.agents.runner import Runner


@contextlib.contextmanager
def opened(settings: BdSettings, *, readonly: bool = False) -> Iterator[Bd]:
    """Yield bd with these settings. A private copy of `--metadata` lives as long as the block."""
    if settings.metadata is None:
        yield Bd(settings, readonly=readonly)
        return
    with private_db(settings.metadata) as db:
        yield Bd(msgspec.structs.replace(settings, db=db, metadata=None), readonly=readonly, private=True)


def writer(bd: Bd, runtime: Runtime, dry_run: bool) -> Writer:
    """Return the writer: bd, or in a dry run one that writes nothing."""
    return DryWriter() if dry_run else BdWriter(bd, runtime)


class LazyServices:
    """BeadBoard and the agent service, opened on first use: an idle cycle needs neither."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._services: BeadBoardRunner | None = None

    def __call__(self) -> "BeadBoardRunner":
        """Return the open services."""
        if self._services is None:
            from bdauto.agents.beadboard.runner import BeadBoardRunner

            self._services = BeadBoardRunner(self._settings)
        return self._services


class LazyLocalAgent:
    """The agent command of this machine, looked at when first asked for, and `checked` then."""

    def __init__(self, settings: "LocalAgentSettings", bd: BdSettings, *, checked: bool = True) -> None:
        self._settings = settings
        self._bd = bd
        self._checked = checked and settings.agent_command is not None
        self._agent: LocalAgent | None = None

    def __call__(self) -> "LocalAgent":
        """Return the agent. Raises UsageError when it cannot be run here."""
        if self._agent is None:
            from bdauto.cli.local_context import local_agent

            self._agent = local_agent(self._settings, self._bd)
            if self._checked:
                self._agent.check()
        return self._agent

    def at_work(self) -> int:
        """Return how many jobs run on this machine, 0 if no agent of this machine was opened."""
        return self._agent.capacity().active if self._agent else 0


def wait_for_jobs(runner: "LazyServices | LazyLocalAgent", runtime: Runtime) -> None:
    """As process 1 of a container, wait for the jobs: they would end with it. A second signal ends the wait."""
    while os.getpid() == 1 and isinstance(runner, LazyLocalAgent) and (active := runner.at_work()):
        log.debug("waiting", jobs=active)
        runtime.sleep(1)
        process.reap_orphans()


def lazy_runner(
    services: ServiceSettings, local: "LocalAgentSettings", bd: BdSettings
) -> LazyServices | LazyLocalAgent:
    """Return what runs the agent: the services where they are configured, else this machine."""
    if services.beadboard_url or services.agent_url:
        return LazyServices(services)
    return LazyLocalAgent(local, bd)


def has_jobs(local: "LocalAgentSettings", bd: BdSettings) -> bool:
    """Return whether this machine may know of jobs: an agent command is given, or there is a folder of jobs."""
    if bd.metadata is not None and not local.agent_command:
        return False
    from bdauto.agents.local.jobs import default_folder

    return bool(local.agent_command) or os.path.isdir(local.agent_jobs or default_folder(os.environ))  # noqa: PTH112 - Path.is_dir raises PermissionError


def open_runner(services: ServiceSettings, local: "LocalAgentSettings", bd: BdSettings) -> "Runner | None":
    """Return what runs the agent, or None if nothing is configured that does. Raises UsageError.

    Where nothing is named, it is this machine if it has jobs of this tracker.
    """
    exclude_each_other(services, local)
    if local.agent_command or services.beadboard_url or services.agent_url:
        return lazy_runner(services, local, bd)()
    if has_jobs(local, bd):
        with contextlib.suppress(UsageError, BdError):  # no tracker, or bd fails: the next use asks again
            agent = LazyLocalAgent(local, bd)()
            return agent if agent.has_jobs() else None
    return None


def finish(
    started: float, run: Callable[[], Report], as_json: bool, tell: Callable[[Report, float], None] | None = None
) -> None:
    """Run a cycle or sweep and report it. `tell` gets the report and the seconds. Raises the report's error."""
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


def telling(settings: TelemetrySettings, *about: Any, **job: Any) -> Callable[[Report, float], None] | None:
    """Return a function that sends a one-shot command's metrics and notifications, or None if none are configured.

    It takes what `OneShot` takes.
    """
    if settings == TelemetrySettings():
        return None
    from bdauto.cli.one_shot import OneShot

    return OneShot(settings, *about, **job)


def begin(command: str, output: OutputSettings, *settings: msgspec.Struct) -> float:
    """Start the log with the version and the settings. Return the monotonic clock's reading, in seconds."""
    start_log(output, brief=command != "run")
    log.event("start", command=command, version=__version__, **describe(*settings))
    return time.monotonic()


def start_log(output: OutputSettings, *, brief: bool = False) -> None:
    """Start the log: text on a terminal, key=value elsewhere, unless a format is asked for.

    A `brief` log on a terminal has warnings only: what people want to see is in the result.
    """
    terminal = sys.stderr.isatty()
    default = log.LogFormat.text if terminal else log.LogFormat.keyvalue
    log.configure(output.log_format or default, output.verbose, brief=brief and terminal and not output.log_format)
