"""The commands of bdauto, put together as `bdauto.cli.commands` does, and what is compared with their reports."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from bdauto.agents.runner import Runner
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate, Known
from bdauto.controllers.reaper import Reaper
from bdauto.domain import breaker
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.domain.reaping import NO_ANSWER, TOKEN_REFUSED
from bdauto.domain.settings import RunSettings, TelemetrySettings, Watch
from bdauto.loop.loop import Loop
from bdauto.loop.loop_context import Lane
from bdauto.loop.shutdown import ShieldedWriter, Stop
from bdauto.loop.watcher import Watcher
from bdauto.telemetry.families import DISPATCHES
from bdauto.telemetry.recorder import Telemetry
from tests.simulation.local import SimLocal
from tests.simulation.plan import MINUTE
from tests.simulation.process import Process
from tests.simulation.services import SimServices
from tests.simulation.tracker import BD_TIMEOUT, SimBd, SimRevision, SimWriter
from tests.simulation.world import ASSIGNEE

UNREPORTED = (
    "accept",
    "give back the charge of",
    "record the result of",
    "note the record of",
    "note the going job of",
)
"""Changes that no report names, but the log: they leave the status of the bead as it is.

The note of a record may be written in a later cycle than the one that reports the record.
"""
RECORD_RETRY = MINUTE
WRITTEN = frozenset(
    {
        BeadOutcome.released,
        BeadOutcome.requeued,
        BeadOutcome.blocked,
        BeadOutcome.quarantined,
        BeadOutcome.refused,
        BeadOutcome.adopted,
        BeadOutcome.reverted,
    }
)
"""Outcomes that say that the status of a bead was written."""
NEEDS_A_LOOK = frozenset(
    {BeadOutcome.unknown, BeadOutcome.unavailable, BeadOutcome.refused, BeadOutcome.misconfigured, BeadOutcome.failed}
)


class SimStop(Stop):
    """The signals of one process, which come where its task could be switched."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._of = process
        process.interrupt = lambda: self._handle(signal.SIGTERM, None)

    def wait(self, seconds: float) -> None:
        """Wait, unless a signal comes first."""
        self._of.step()
        if not self.asked:
            self._of.wait(seconds)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Begin a cycle or a sweep."""
        self._of.begin()
        with super().interruptible():
            yield

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._reader)
        os.close(self._writer)


class SimTelemetry(Telemetry):
    """The metrics of a loop, whose reports are compared with what is true."""

    def __init__(self, process: Process) -> None:
        super().__init__(TelemetrySettings(), "dispatch", "reap", counting=process.world.plan.counting)
        self._of = process
        self._dispatched = 0

    def report(self, report: Report, seconds: float, now: datetime) -> None:
        """Compare a report, and the counter of dispatched beads, with what is true."""
        super().report(report, seconds, now)
        check_report(self._of, report)
        self._dispatched += sum((bead.id, "record") in self._of.changed for bead in _dispatched(report))
        if self.metrics is None or not report.beads:
            return
        counted = self.metrics.registry.get_sample_value(DISPATCHES, {"outcome": "dispatched"})
        if counted != self._dispatched:
            words = f"{self._of.name} counts {counted} dispatched beads, and recorded {self._dispatched} jobs"
            self._of.world.violate("metrics", words)


def dispatch(process: Process) -> None:
    """`bdauto dispatch`."""
    world, bd = process.world, SimBd(process)
    settings, runner = world.dispatch_settings, _runner(process, agent=process.world.plan.agent_service)

    def work(stop: Stop) -> Report:
        gate = Gate(bd, runner, settings, process.runtime.now, Known(stopping=lambda: stop.asked))
        writer = ShieldedWriter(SimWriter(process), stop.enter_critical_section)
        return Dispatcher(bd, writer, runner, settings, process.runtime, gate).cycle()

    _once(process, work)


def reap(process: Process) -> None:
    """`bdauto reap`."""
    world = process.world
    runner = _runner(process, agent=True) if world.plan.agent_service or world.plan.hosts else None

    def work(stop: Stop) -> Report:
        writer = ShieldedWriter(SimWriter(process), stop.enter_critical_section)
        return Reaper(SimBd(process), writer, runner, world.reap_settings, process.runtime).sweep()

    _once(process, work)


def run(process: Process) -> None:
    """`bdauto run`, until it is killed or asked to stop."""
    world = process.world
    settings = RunSettings(
        dispatch_every=timedelta(minutes=1),
        reap_every=timedelta(seconds=world.plan.reap_every),
        watch=Watch.auto if world.plan.watching else Watch.off,
    )
    runner = _runner(process, agent=world.plan.agent_service)
    lanes = [Lane(SimBd(process), runner, world.dispatch_settings, world.reap_settings)]
    stop = SimStop(process)
    runtime = process.runtime
    watcher = Watcher(settings, lambda: SimRevision(process), stop.wait, runtime.monotonic, runtime.rng)
    watcher.interval = 15.0  # with many histories, every second would be too often
    telemetry = SimTelemetry(process)
    with contextlib.closing(stop):
        counting = world.plan.counting
        Loop(lanes, lambda: SimWriter(process), settings, runtime, stop, telemetry, watcher, counting).run()
    process.tell("stops")


def _once(process: Process, work: Callable[[Stop], Report]) -> None:
    stop = SimStop(process)
    with contextlib.closing(stop):
        try:
            report = stop.run(lambda: work(stop))
        except KeyboardInterrupt:
            process.tell("is interrupted")
            if process.changed and process.signals == 1:
                process.world.violate("signal", f"{process.name} is interrupted after it has changed a bead")
            return
    check_report(process, report)


def _runner(process: Process, *, agent: bool) -> Callable[[], Runner]:
    made: Runner = SimLocal(process) if process.world.plan.hosts else SimServices(process, agent=agent)
    return lambda: made


def check_report(process: Process, report: Report) -> None:
    """Compare what a cycle or sweep reports with what it did."""
    world = process.world
    if report.beads or report.error or report.outcome not in ("idle", "dispatched"):
        words = " ".join(f"{bead.id}={bead.outcome}" for bead in report.beads)
        process.tell("reports {} {} {}", report.outcome, words, report.error or report.detail)
    reported = {bead.id for bead in report.beads}
    if world.plan.counting:
        outcomes = {outcome.value for outcome in BeadOutcome}
        logged = sorted(entry for entry in world.logged.get(process.task.name, []) if entry[0] in outcomes)
        if logged != sorted((bead.outcome.value, bead.id) for bead in report.beads):
            world.violate("log", f"{process.name} logs {logged} and reports {report.beads}")
    for bead, act in process.changed:
        if bead not in reported and report.error is None and act not in UNREPORTED:
            world.violate("silent", f"{process.name} has changed {bead} ({act}) and does not report it")
    if unnamed := set(process.status_written) - reported:
        world.violate("silent", f"{process.name} has changed the status of {unnamed}, and no report names it")
    for bead_report in report.beads:
        if bead_report.outcome in WRITTEN and bead_report.id not in process.status_written:
            world.violate("report", f"{process.name} reports {bead_report}, and has not written it")
    _check_unknown(process, report)
    if report.command == "reap" and report.exit_code != 3 and report.outcome is not Outcome.paused:
        _check_asked(process)
    for dispatched in _dispatched(report):
        if (dispatched.id, "record") not in process.changed:
            world.violate("report", f"{process.name} reports {dispatched.id} as dispatched, which it did not record")
    for failed in report.beads:
        if failed.outcome is BeadOutcome.failed and failed.job and "is gone" not in failed.detail:
            _check_patience(process, failed.id)
    _check_exit(process, report)
    if report.command == "reap" and report.error is None and report.outcome is not Outcome.paused:
        _check_life(process)


def _check_unknown(process: Process, report: Report) -> None:
    """An unknown outcome is counted by the breaker, and charged to no bead once that opens it."""
    world = process.world
    resumed = world.resumed_at is not None and world.resumed_at >= process.begun
    if report.command != "dispatch" or not world.plan.trip_after or process.bd_failed or resumed:
        return
    stores = breaker.read(process.swapped), breaker.read(world.store)
    deaths = {death.attempt for store in stores for death in store.deaths}
    for bead in report.beads:
        attempt = world.attempts.get(bead.attempt)
        if bead.outcome is not BeadOutcome.unknown or attempt is None or attempt.touched is not None:
            continue
        if attempt.id not in deaths and world.last_life < attempt.before.updated_at:
            world.violate("breaker", f"{process.name} does not count the unknown outcome of {bead.id}")
        row = world.rows[bead.id].bead
        if process.opened and row.record.died == attempt.id and row.status in ("open", "in_progress"):
            world.violate("charge", f"{process.name} opens the breaker, and {bead.id} stays charged")


def _check_asked(process: Process) -> None:
    """An answer speaks of its job alone: only a silent service, or no time, keeps others unasked."""
    world = process.world
    late = world.scheduler.now - process.begun > MINUTE or process.stood_still >= process.begun
    if process.service_silent or late or world.plan.hosts or not world.plan.agent_service:
        return
    for bead in process.listed:
        if bead.record.job and bead.record.job not in process.jobs_told:
            world.violate("evidence", f"{process.name} has not asked about {bead.record.job}, the job of {bead.id}")


def _dispatched(report: Report) -> list[BeadReport]:
    return [bead for bead in report.beads if bead.outcome is BeadOutcome.dispatched]


def _check_exit(process: Process, report: Report) -> None:
    """The exit status is 0 exactly when nothing needs a look (docs/decisions.md). A failing bd is 3 whatever else."""
    code, found = report.exit_code, {bead.outcome for bead in report.beads}
    rows = [process.world.rows[bead.id] for bead in report.beads if bead.job]
    still = [row for row in rows if row.changed_at < process.begun]  # of others the sweep asks again, for their results
    told = {process.jobs_told.get(row.bead.record.job) for row in still}
    bad = found & NEEDS_A_LOOK or (report.command == "reap" and told & {NO_ANSWER, TOKEN_REFUSED})
    opened = report.command == "reap" and process.opened
    expected = {0, 5} if report.command == "reap" else {0}
    if BeadOutcome.unknown in found or opened:
        expected = {4}
    elif bad:
        expected = {4, 5}
        if found & NEEDS_A_LOOK == {BeadOutcome.refused}:
            expected = {5} if _dispatched(report) else {4}
    elif process.troubled:
        expected = {0, 4, 5}
    failed = process.troubled or BeadOutcome.failed in found
    if code not in expected and not (code == 3 and failed):
        words = f"{process.name} exits {code}, not {sorted(expected)}: {report.error or report.outcome} {sorted(found)}"
        process.world.violate("exit", words)


def _check_life(process: Process) -> None:
    """A sweep that could see that the agent of the trial lives has closed the breaker."""
    world = process.world
    trial = world.attempts.get(breaker.read(world.store).trial)
    if trial is None or trial.touched is None:
        return
    row = world.rows[trial.bead]
    shown = row.bead.status == "closed" or (row.bead.status == "in_progress" and row.bead.assignee == ASSIGNEE)
    if shown and row.bead.record.attempt == trial.id and row.changed_at < process.begun:
        world.violate("breaker", f"{process.name} leaves the breaker half open, and the agent of {trial.bead} lives")


def _check_patience(process: Process, bead: str) -> None:
    waited = process.world.scheduler.now - (process.posted_at or 0.0)
    if waited < RECORD_RETRY - BD_TIMEOUT / 2 and (bead, "record") not in process.changed:
        process.world.violate("patience", f"{process.name} gives up the record of {bead} after {waited:.0f} s")
