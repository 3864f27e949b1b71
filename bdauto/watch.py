"""Telling the world: what a cycle or sweep came to goes into the metrics, and to whoever wants to be notified."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from bdauto import log, pause
from bdauto.background import Background
from bdauto.census import Census
from bdauto.errors import BdError, ServiceError
from bdauto.export import MetricsFile, Pushgateway
from bdauto.metrics import CAPACITY, OLDEST, PAUSED, STARVED, UP, Command, Metrics
from bdauto.notify import Notifier
from bdauto.outcome import BeadOutcome, Report
from bdauto.runtime import Runtime
from bdauto.settings import WatchSettings

if TYPE_CHECKING:
    from bdauto.beadboard import Capacity, Services

Answer = TypeVar("Answer")

PATIENCE = 10.0
"""Seconds that notifications and pushed metrics are waited for at the end."""
LONG_WAIT = 360.0
"""Seconds after which a one-shot command calls an eligible bead starved: three ticks of the CronJob."""


class Watch:
    """The metrics of one process, and the ways out for them and for events."""

    def __init__(
        self, settings: WatchSettings, *commands: Command, show: Callable[[Report], None] | None = None
    ) -> None:
        """Count for these commands; metrics that belong to none of them are pushed with the first's.

        `show` is given the reports that say something of a bead.
        """
        self._show = show
        self.metrics = Metrics(*commands)
        self._background = Background()
        self._notifier = Notifier(settings.notify_urls, self._background)
        self._file = MetricsFile(settings.metrics_file) if settings.metrics_file else None
        self._gateway = Pushgateway(settings.pushgateway, commands[0]) if settings.pushgateway else None

    def report(self, report: Report, seconds: float, now: datetime) -> None:
        """Count a cycle or sweep, and tell of the beads that a person should know of; a dry run is not told of."""
        if self._show and report.beads:
            self._show(report)
        if report.dry_run:
            return
        self.metrics.count(report, seconds, now)
        self._notifier.report(report)

    def tell(self, title: str, text: str) -> None:
        """Notify of something else."""
        self._notifier.send(title, text)

    def publish(self) -> None:
        """Write the metrics to the file, and push them soon."""
        if self._file:
            self._file.save(self.metrics)
        if self._gateway:
            gateway, samples = self._gateway, self.metrics.samples()
            self._background.put(lambda: gateway.push(samples))

    def close(self) -> None:
        """Wait a while for what is still to be sent."""
        self._background.close(PATIENCE)


def probe(services: "Services", metrics: Metrics) -> "Capacity":
    """Ask the services what they would take, and keep the answer in the metrics; raises ServiceError."""
    from bdauto.beadboard import Capacity

    busy = _ask(metrics, "beadboard", services.beadboard_busy) if services.settings.beadboard_url else False
    capacity = Capacity(0 if busy else 1)
    if services.settings.agent_url and not busy:
        capacity = _ask(metrics, "agent", services.agent_capacity)
    metrics.set(CAPACITY, capacity.free)
    return capacity


def _ask(metrics: Metrics, target: str, question: Callable[[], Answer]) -> Answer:
    try:
        answer = question()
    except ServiceError:
        metrics.set(UP, 0, target=target)
        raise
    metrics.set(UP, 1, target=target)
    return answer


def after_one_shot(settings: WatchSettings, census: Census, runtime: Runtime) -> Callable[[Report, float], None]:
    """Return what a one-shot command does with its report and its duration in seconds; it raises nothing expected."""

    def tell(report: Report, seconds: float) -> None:
        if report.dry_run:
            return
        watch = Watch(settings, "reap" if report.command == "reap" else "dispatch")
        watch.report(report, seconds, runtime.now())
        if settings.metrics:
            _look(watch.metrics, report, census, runtime)
        watch.publish()
        watch.close()

    return tell


def _look(metrics: Metrics, report: Report, census: Census, runtime: Runtime) -> None:
    """Set the gauges after a one-shot command, from what it saw and from a look at bd and the services."""
    free, eligible = 0, 0
    try:
        free = probe(census.services(), metrics).free if census.services else 0
    except ServiceError as error:
        log.debug("not-asked", detail=error)
    metrics.set(UP, not isinstance(report.error, BdError), target="bd")
    if isinstance(report.error, BdError):
        return
    try:
        paused = pause.read(census.bd.kv_list().result(), runtime.now())  # an idle cycle did not look
        metrics.set(PAUSED, paused is not None)
        eligible = census.take(metrics, runtime.now())
    except BdError as error:
        log.warning("metrics-failed", target="bd", error=error)
    if report.command == "dispatch":
        dispatched = any(bead.outcome is BeadOutcome.dispatched for bead in report.beads)
        waits = eligible and (metrics.get(OLDEST) or 0.0) > LONG_WAIT
        metrics.set(STARVED, bool(waits and free and not dispatched and not metrics.get(PAUSED)))
