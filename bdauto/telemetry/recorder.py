"""Reports what a cycle or sweep did: to the metrics, and to whoever wants notifications."""

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from bdauto.domain.messages import Topic
from bdauto.domain.outcome import Outcome, Report, of_lane
from bdauto.domain.settings import TelemetrySettings
from bdauto.telemetry.background import Background
from bdauto.telemetry.families import BEADS, CAPACITY, LAST_SUCCESS, LIMITED, OLDEST, STARVED, UP, Command
from bdauto.telemetry.notify import Notifier

if TYPE_CHECKING:
    from bdauto.telemetry.metrics import Metrics

PATIENCE = 10.0
"""Seconds to wait at the end for notifications and pushed metrics."""


class Telemetry:
    """The metrics of one process, if somebody reads them, and the ways out for them and for events."""

    def __init__(
        self,
        settings: TelemetrySettings,
        *commands: Command,
        counting: bool = False,
        show: Callable[[Report], None] | None = None,
        lanes: Sequence[str] = (),
    ) -> None:
        """Count for these commands. Metrics that belong to none of them are pushed with the first's.

        `counting` is True if somebody reads the metrics in another way than by the settings. `show` gets the reports
        that mention a bead. `lanes` are named where there are several: see `of`.
        """
        self._lanes = lanes
        self._lane: dict[str, str] = {}
        self._show = show
        self._background = Background()
        self._notifier = Notifier(settings, self._background)
        self.metrics = _metrics(*commands, lanes=lanes) if settings.pushgateway or counting else None
        self._gateway = None
        if settings.pushgateway:
            from bdauto.telemetry.export import Pushgateway

            instance, namespace = settings.pushgateway_instance, settings.pushgateway_namespace
            self._gateway = Pushgateway(settings.pushgateway, commands[0], instance=instance, namespace=namespace)

    def of(self, lane: str) -> "Telemetry":
        """Return the same for one lane. If there are several, it is named wherever something is told or counted."""
        if lane not in self._lanes:
            return self
        view = copy.copy(self)
        view._lane = {"lane": lane}
        return view

    def begin(self, *commands: Command, now: datetime) -> None:
        """Begin as a long-running process, whose last success is its start: one that never comes is then missed."""
        self.set(STARVED, 0)
        for command in commands:
            self.set(LAST_SUCCESS, now.timestamp(), command=command)

    def report(self, report: Report, seconds: float, now: datetime) -> None:
        """Count a cycle or sweep. A dry run changes nothing here."""
        if self._lane:
            report = of_lane(report, self._lane["lane"])
        if self._show and report.beads:
            self._show(report)
        if report.dry_run:
            return
        if self.metrics:
            self.metrics.count(report, seconds, now, **self._lane)
        if report.command == "dispatch":
            self.set(LIMITED, report.outcome is Outcome.limited)

    def set(self, gauge: str, value: float, **labels: str) -> None:
        """Set a gauge, if somebody reads it."""
        if self.metrics:
            self.metrics.set(gauge, value, **labels, **self._lane)

    def services(self, up: Mapping[str, bool], free: int | None) -> None:
        """Set the gauges of the services: whether each that was asked is up, and the free capacity if it is known."""
        for target, is_up in up.items():
            self.set(UP, is_up, target=target)
        if free is not None:
            self.set(CAPACITY, free)

    def queue(self, counts: Mapping[str, int], oldest: timedelta | None = None) -> None:
        """Set the gauges of the queue: beads by state, and the age of the oldest eligible one if it is known."""
        for state, number in counts.items():
            self.set(BEADS, number, state=state)
        if oldest is not None:
            self.set(OLDEST, max(oldest.total_seconds(), 0.0))

    @property
    def tells_people(self) -> bool:
        """Whether there is somebody to send messages to."""
        return self._notifier.has_urls

    def tells(self, topic: Topic) -> bool:
        """Whether messages on this topic are sent."""
        return self._notifier.tells(topic)

    def digest_day(self, now: datetime) -> date | None:
        """Return the last day whose digest is due by now, None if nobody wants one."""
        return self._notifier.digest_day(now)

    def tell(self, topic: Topic, title: str, text: str) -> None:
        """Send a message, soon, if messages on this topic are sent."""
        title = f"lane {self._lane['lane']}: {title}" if self._lane else title
        self._notifier.send(topic, title, text)

    def publish(self) -> None:
        """Push the metrics soon."""
        if self.metrics and self._gateway:
            gateway, registry = self._gateway, self.metrics.registry
            self._background.put(lambda: gateway.push(registry))

    def close(self) -> None:
        """Wait a while for what is still to be sent."""
        self._background.close(PATIENCE)


def _metrics(*commands: Command, lanes: Sequence[str]) -> "Metrics":
    from bdauto.telemetry.metrics import Metrics  # takes an optional library

    return Metrics(*commands, lanes=lanes)
