"""Open and close what every command uses: the log, bd, the services, the report."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings, Kind
from bdauto.bd import process
from bdauto.bd.change import DryWriter, Writer
from bdauto.bd.client import Bd
from bdauto.bd.command import without_own
from bdauto.bd.folder import private_db
from bdauto.bd.server_address import read_object
from bdauto.bd.tracker import tracker_at, tracker_of
from bdauto.bd.writer import BdWriter
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import show
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError, UsageError
from bdauto.domain.lanes import Lanes
from bdauto.domain.outcome import Report
from bdauto.domain.settings import BdSettings, TelemetrySettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Project, Runner


@contextlib.contextmanager
def opened(settings: BdSettings, lanes: Lanes | None = None, *, readonly: bool = False) -> Iterator[Bd]:
    """Yield bd with these settings, for the own lane of `lanes`.

    A private copy of `--metadata` lives as long as the block.
    """
    with contextlib.ExitStack() as stack:
        if settings.metadata is None:
            bd = Bd(settings, readonly=readonly)
        else:
            db = stack.enter_context(private_db(settings.metadata))
            bd = Bd(msgspec.structs.replace(settings, db=db, metadata=None), readonly=readonly, private=True)
        bd.lanes = lanes or Lanes()
        bd.lane = bd.lanes.own
        yield bd


def writer(bd: Bd, runtime: Runtime, dry_run: bool) -> Writer:
    """Return the writer: bd, or in a dry run one that writes nothing."""
    return DryWriter() if dry_run else BdWriter(bd, runtime)


class LazyRunner:
    """What runs the agent, opened on first use, because an idle cycle does not need it. Then it is checked."""

    def __init__(
        self, kind: Kind, settings: AgentSettings, bd: BdSettings, lanes: Lanes | None = None, *, checked: bool = True
    ) -> None:
        self._kind = kind
        self._lanes = lanes or Lanes()
        self._settings = settings
        self._bd = bd
        self._checked = checked
        self._runner: Runner | None = None

    def __call__(self) -> "Runner":
        """Return the runner. Raises UsageError if it cannot work, and BdError if it needs bd and bd fails."""
        if self._runner is None:
            self._runner = self._kind.open(self._settings, lambda: _project(self._bd, self._lanes))
            if self._checked:
                self._runner.check()
        return self._runner

    def at_work(self) -> int:
        """Return how many jobs run on this machine, 0 if the runner was not opened."""
        return self._runner.count_running() if self._runner else 0


def _project(bd: BdSettings, lanes: Lanes) -> "Project":
    """Return the project that an agent works on. Raises UsageError and BdError."""
    from bdauto.agents.runner import Project

    if bd.metadata is not None:
        known = tracker_at(bd.metadata.parent, read_object(bd.metadata), None)
        return Project(None, bd.assignee, without_own(), known.id, None)
    found = Bd(bd, readonly=True).tracker()
    program = (os.path.abspath(shutil.which(bd.bd_path) or bd.bd_path),)  # noqa: PTH100 - the job runs elsewhere
    return Project(found.folder, bd.assignee, without_own(), found.id, found.home, program, lanes)


def wait_for_jobs(runners: Sequence[LazyRunner], runtime: Runtime) -> None:
    """As process 1 of a container, wait for the jobs: they would end with it. A second signal ends the wait."""
    while os.getpid() == 1 and (active := sum(runner.at_work() for runner in runners)):
        log.debug("waiting", jobs=active)
        runtime.sleep(1)
        process.reap_orphans()


def runner_with_jobs(settings: AgentSettings, bd: BdSettings, lanes: Lanes | None = None) -> LazyRunner | None:
    """Return the kind of agent that is chosen, else the one that may have left jobs on this machine, or None."""
    kind = kinds.chosen(settings) or (None if bd.metadata else kinds.with_jobs(settings))
    return LazyRunner(kind, settings, bd, lanes) if kind else None


def open_runner(settings: AgentSettings, bd: BdSettings, lanes: Lanes | None = None) -> "Runner | None":
    """Return what runs the agent, or None if nothing is configured that does. Raises UsageError.

    Where nothing is named, it is what a `bdauto run` of this machine was given for the queue, if that can be used here,
    else this machine if it has jobs of this tracker.
    """
    from bdauto.cli.running_loops import given_to_run  # a dispatch needs none of it

    given = given_to_run(settings, tracker_of(bd), bd, lanes.own if lanes else "")
    if given is not settings:
        with contextlib.suppress(UsageError):  # nobody gave it to this command: its program is not on this PATH, say
            return _open(given, bd, lanes)
    return _open(settings, bd, lanes)


def _open(settings: AgentSettings, bd: BdSettings, lanes: Lanes | None) -> "Runner | None":
    kinds.exclude_each_other(settings)
    found = runner_with_jobs(settings, bd, lanes)
    if found is None or kinds.chosen(settings):
        return found() if found else None
    with contextlib.suppress(UsageError, BdError):  # no tracker, or bd fails: the next use asks again
        runner = found()
        return runner if runner.has_jobs() else None
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


def telling(
    settings: TelemetrySettings,
    runtime: Runtime,
    lanes: Sequence[tuple[Bd, "LazyRunner | None", Mapping[str, Any]]],
    reports: Sequence[tuple[str, Report]],
) -> Callable[[Report, float], None] | None:
    """Return a function that sends a one-shot command's metrics and notifications, or None if none are configured.

    Each of the `lanes` has what `OneShot` takes. If there are several, `reports` has theirs by then.
    """
    if settings == TelemetrySettings():
        return None
    from bdauto.cli.one_shot import OneShot, tell_each

    shots = {bd.lane: OneShot(settings, runtime, bd, runner, **job) for bd, runner, job in lanes}
    if len(shots) > 1:
        return lambda _report, seconds: tell_each(settings, shots, reports, seconds)
    return next(iter(shots.values()))


def start_log(output: OutputSettings, *, brief: bool = False) -> None:
    """Start the log: text on a terminal, key=value elsewhere, unless a format is asked for.

    A `brief` log on a terminal has warnings only: what people want to see is in the result.
    """
    terminal = sys.stderr.isatty()
    default = log.LogFormat.text if terminal else log.LogFormat.keyvalue
    log.configure(output.log_format or default, output.verbose, brief=brief and terminal and not output.log_format)
