"""The metrics of one process, held by prometheus_client. docs/metrics.md says what each means.

prometheus_client is an optional extra: this module is imported only where somebody reads the metrics. No label holds
anything of a bead.
"""

from collections.abc import Sequence
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
    """The metrics in a registry of their own. Counters begin at 0, and a gauge exists once its value is known.

    Where there are several lanes, each series has the label `lane`.
    """

    def __init__(self, *commands: Command, lanes: Sequence[str] = ()) -> None:
        """Begin the counters of these commands, for each of several `lanes`."""
        self._lane = ["lane"] if lanes else []
        self._each: list[dict[str, str]] = [{"lane": lane} for lane in lanes] or [{}]
        self.registry = CollectorRegistry()
        names = {command: DISPATCHES if command == "dispatch" else REAPS for command in commands}
        self._beads: dict[str, Counter] = {command: self._counter(name) for command, name in names.items()}
        self._completions = self._counter(COMPLETIONS) if "reap" in commands else None
        self._cost = (
            Counter(COST, FAMILIES[COST][1], self._lane, registry=self.registry) if "reap" in commands else None
        )
        self._durations = Histogram(
            DURATION, FAMILIES[DURATION][1], ["command", *self._lane], registry=self.registry, buckets=BUCKETS
        )
        words = FAMILIES[READY_TO_DISPATCH][1]
        self._waits = (
            Histogram(READY_TO_DISPATCH, words, self._lane, registry=self.registry, buckets=WAITS)
            if "dispatch" in commands
            else None
        )
        for lane in self._each:
            for command in commands:
                self._durations.labels(command=command, **lane)
            for single in (self._cost, self._waits) if lane else ():
                if single:
                    single.labels(**lane)
        self._gauges: dict[str, Gauge] = {}

    def count(self, report: Report, seconds: float, now: datetime, **lane: str) -> None:
        """Count one cycle or sweep: its beads by outcome, its duration, its success."""
        for bead in report.beads:
            self._beads[report.command].labels(outcome=bead.outcome, **lane).inc()
        self._durations.labels(command=report.command, **lane).observe(seconds)
        for status in report.ended:
            if self._completions:
                known = status if status in OUTCOMES[COMPLETIONS] else "other"
                self._completions.labels(outcome=known, **lane).inc()
        if self._cost:
            (self._cost.labels(**lane) if lane else self._cost).inc(report.cost_usd)
        for wait in report.waits:
            if self._waits:
                (self._waits.labels(**lane) if lane else self._waits).observe(wait)
        if report.error is None:
            self.set(LAST_SUCCESS, now.timestamp(), command=report.command, **lane)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        known = self._gauges.get(name)
        gauge = known or Gauge(name, FAMILIES[name][1], sorted(labels), registry=None)
        (gauge.labels(**labels) if labels else gauge).set(value)
        if not known:
            self._gauges[name] = gauge
            self.registry.register(gauge)

    def _counter(self, name: str) -> Counter:
        counter = Counter(name, FAMILIES[name][1], ["outcome", *self._lane], registry=self.registry)
        for lane in self._each:
            for outcome in OUTCOMES[name]:
                counter.labels(outcome=outcome, **lane)
        return counter
