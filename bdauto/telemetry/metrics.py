"""The metrics of one process, held by prometheus_client. docs/metrics.md says what each means.

prometheus_client is an optional extra: this module is imported only where somebody reads the metrics. No label holds
anything of a bead.
"""

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bdauto.domain.outcome import Report
from bdauto.telemetry.families import (
    COMPLETIONS,
    COST,
    DISPATCHES,
    DURATION,
    FAMILIES,
    LAST_SUCCESS,
    OUTCOMES,
    READY_TO_DISPATCH,
    REAPS,
    Command,
)

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
WAITS = (0.5, 1.0, 1.5, 2.5, 5.0, 15.0, 60.0, 120.0, 300.0, 1_800.0, 7_200.0)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics in a registry of their own. Counters begin at 0, and a gauge exists once its value is known."""

    def __init__(self, *commands: Command) -> None:
        """Begin the counters of these commands."""
        self.registry = CollectorRegistry()
        names = {command: DISPATCHES if command == "dispatch" else REAPS for command in commands}
        self._beads: dict[str, Counter] = {command: self._counter(name) for command, name in names.items()}
        self._completions = self._counter(COMPLETIONS) if "reap" in commands else None
        self._cost = Counter(COST, FAMILIES[COST][1], registry=self.registry) if "reap" in commands else None
        self._durations = Histogram(
            DURATION, FAMILIES[DURATION][1], ["command"], registry=self.registry, buckets=BUCKETS
        )
        for command in commands:
            self._durations.labels(command=command)
        self._waits = (
            Histogram(READY_TO_DISPATCH, FAMILIES[READY_TO_DISPATCH][1], registry=self.registry, buckets=WAITS)
            if "dispatch" in commands
            else None
        )
        self._gauges: dict[str, Gauge] = {}

    def count(self, report: Report, seconds: float, now: datetime) -> None:
        """Count one cycle or sweep: its beads by outcome, its duration, its success."""
        for bead in report.beads:
            self._beads[report.command].labels(outcome=bead.outcome).inc()
        self._durations.labels(command=report.command).observe(seconds)
        for status in report.ended:
            if self._completions:
                self._completions.labels(outcome=status if status in OUTCOMES[COMPLETIONS] else "other").inc()
        if self._cost:
            self._cost.inc(report.cost_usd)
        for wait in report.waits:
            if self._waits:
                self._waits.observe(wait)
        if report.error is None:
            self.set(LAST_SUCCESS, now.timestamp(), command=report.command)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        known = self._gauges.get(name)
        gauge = known or Gauge(name, FAMILIES[name][1], sorted(labels), registry=None)
        (gauge.labels(**labels) if labels else gauge).set(value)
        if not known:
            self._gauges[name] = gauge
            self.registry.register(gauge)

    def _counter(self, name: str) -> Counter:
        counter = Counter(name, FAMILIES[name][1], ["outcome"], registry=self.registry)
        for outcome in OUTCOMES[name]:
            counter.labels(outcome=outcome)
        return counter
