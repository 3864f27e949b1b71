"""What a one-shot command reports after its work: metrics and notifications."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bdauto.agents.runner import check_services
from bdauto.agents.runner_status import AGENT
from bdauto.bd.client import Bd
from bdauto.bd.writer import BdWriter
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError, ServiceError
from bdauto.diagnostics.snapshot import gather_queue
from bdauto.domain import breaker, pause
from bdauto.domain.constants import STARVED_AFTER
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.domain.settings import DispatchSettings, ReapSettings, TelemetrySettings
from bdauto.loop.messenger import Messenger
from bdauto.telemetry.families import PAUSED, STARVED, SUSPENDED, UP, Command
from bdauto.telemetry.recorder import Telemetry

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

COMMON = ("in_progress", "quarantined", "cancelled", "blocked")
"""The states of beads that every command counts."""


class OneShot:
    """The telemetry of one command. `runner` is None if nothing can be asked about jobs.

    The settings of its own job say which states of the queue the command can count.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        runtime: Runtime,
        bd: Bd,
        runner: "Callable[[], Runner] | None",
        *,
        dispatch: DispatchSettings | None = None,
        reap: ReapSettings | None = None,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._bd = bd
        self._runner = runner
        self._dispatch = dispatch or DispatchSettings()
        self._reap = reap or ReapSettings()

    def __call__(self, report: Report, seconds: float) -> None:
        """Count and publish the command's report. Raises nothing expected."""
        if report.dry_run:
            return
        telemetry = Telemetry(self._settings, "reap" if report.command == "reap" else "dispatch")
        self.note(telemetry, report, seconds)
        telemetry.publish()
        telemetry.close()

    def note(self, telemetry: Telemetry, report: Report, seconds: float) -> None:
        """Count a report, and notify of it."""
        telemetry.report(report, seconds, self._runtime.now())
        self._tell_people(telemetry, report)
        if telemetry.metrics:
            self._look(telemetry, report)

    def _tell_people(self, telemetry: Telemetry, report: Report) -> None:
        """Tell what needs a person. A sweep always looks for that, a dispatch if its report makes it necessary."""
        writer = lambda: BdWriter(self._bd, self._runtime)  # noqa: E731
        messenger = Messenger(self._bd, writer, self._runtime, telemetry)
        if not (messenger.note(report, self._dispatch) or report.command == "reap"):
            return
        try:
            if not isinstance(report.error, BdError):
                messenger.look()
        except BdError as error:
            log.warning("notify-failed", service="bd", subject="who needs a person", error=error)

    def _look(self, telemetry: Telemetry, report: Report) -> None:
        """Set the gauges from a look at the services and at bd, because an idle command saw neither."""
        runner, now = self._runner() if self._runner else None, self._runtime.now()
        status = check_services(runner)
        telemetry.services(status.up, status.free)
        if report.command == "reap" and isinstance(report.error, ServiceError):
            telemetry.set(UP, 0, target=AGENT)  # its health needs no token, its jobs do
        telemetry.set(UP, not isinstance(report.error, BdError), target="bd")
        if isinstance(report.error, BdError):
            return
        try:
            store = self._bd.kv_list().result()
            found = gather_queue(self._bd, runner, self._dispatch, self._reap, now)
        except BdError as error:
            log.warning("metrics-failed", target="bd", error=error)
            return
        paused = pause.read(store, now)
        suspended = breaker.read(store, self._bd.lane).state(now) != "closed"
        telemetry.set(PAUSED, paused is not None)
        telemetry.set(SUSPENDED, suspended)
        if report.command == "reap":
            telemetry.queue({state: found.counts[state] for state in ("stalled", *COMMON)})
            return
        telemetry.queue({state: found.counts[state] for state in ("eligible", "waiting", *COMMON)}, found.oldest)
        dispatched = any(bead.outcome is BeadOutcome.dispatched for bead in report.beads)
        held = paused or suspended or dispatched
        telemetry.set(STARVED, bool(found.oldest > STARVED_AFTER and status.free and not held))


def tell_each(
    settings: TelemetrySettings, shots: Mapping[str, OneShot], reports: Sequence[tuple[str, Report]], seconds: float
) -> None:
    """Count and publish the reports of several lanes. Raises nothing expected."""
    if any(report.dry_run for _, report in reports):
        return
    command: Command = "reap" if reports[0][1].command == "reap" else "dispatch"
    telemetry = Telemetry(settings, command, lanes=[*shots])
    for lane, report in reports:
        shots[lane].note(telemetry.of(lane), report, seconds)
    telemetry.publish()
    telemetry.close()
