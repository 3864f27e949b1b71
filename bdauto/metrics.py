"""The metrics: their names, and the numbers behind them. docs/metrics.md says what each means.

The numbers are plain; prometheus_client, an optional extra, writes and parses the exposition format and is imported
only for that. No label holds anything of a bead.
"""

import math
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from bdauto.outcome import BeadOutcome, Report

if TYPE_CHECKING:
    from prometheus_client import Metric

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series: the sample's name, and its labels in order."""
Samples = dict[Key, float]
Command = Literal["dispatch", "reap"]

DISPATCHES, REAPS = "bdauto_dispatches_total", "bdauto_reaps_total"
DURATION, LAST_SUCCESS = "bdauto_cycle_duration_seconds", "bdauto_last_success_timestamp_seconds"
BEADS, OLDEST = "bdauto_beads", "bdauto_oldest_eligible_age_seconds"
CAPACITY, UP, PAUSED, STARVED = "bdauto_capacity_free", "bdauto_up", "bdauto_paused", "bdauto_starved"

FAMILIES: Mapping[str, tuple[str, str]] = {
    DISPATCHES: ("counter", "Beads that a dispatch cycle took up, by what became of each."),
    REAPS: ("counter", "Beads in progress that a sweep judged, by what became of each."),
    DURATION: ("histogram", "Wall time of one cycle, by job: dispatch or reap."),
    BEADS: ("gauge", "Beads of the assignee, by state: eligible, waiting, in_progress, stalled."),
    OLDEST: ("gauge", "Time since the last update of the eligible bead that has waited longest; 0 without one."),
    CAPACITY: ("gauge", "Beads the agent service would take now; 1 means at least one where it does not count."),
    UP: ("gauge", "Whether bd, beadboard and agent, each a target, answered when last asked."),
    PAUSED: ("gauge", "Whether the pause switch is on."),
    LAST_SUCCESS: ("gauge", "When a cycle of this job last ended without an error."),
    STARVED: ("gauge", "Whether work was eligible and capacity free for three intervals with nothing dispatched."),
}
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OUTCOMES: Mapping[str, tuple[BeadOutcome, ...]] = {
    DISPATCHES: (
        BeadOutcome.dispatched,
        BeadOutcome.lost,
        BeadOutcome.busy,
        BeadOutcome.refused,
        BeadOutcome.set_aside,
        BeadOutcome.unavailable,
        BeadOutcome.misconfigured,
        BeadOutcome.unknown,
        BeadOutcome.failed,
    ),
    REAPS: (
        BeadOutcome.kept,
        BeadOutcome.released,
        BeadOutcome.requeued,
        BeadOutcome.blocked,
        BeadOutcome.lost,
        BeadOutcome.failed,
    ),
}


def key(name: str, **labels: str) -> Key:
    """Return the key of a series."""
    return name, tuple(sorted(labels.items()))


class Metrics:
    """The numbers of one process. Counters begin at 0; a gauge is there once it is known. Safe between threads."""

    def __init__(self, *commands: Command) -> None:
        """Begin the counters of these commands."""
        self._samples: Samples = {}
        self._lock = threading.RLock()
        for command in commands:
            name = DISPATCHES if command == "dispatch" else REAPS
            self._samples |= {key(name, outcome=outcome): 0.0 for outcome in OUTCOMES[name]}
            for bound in (*BUCKETS, math.inf):
                self._samples[key(f"{DURATION}_bucket", job=command, le=_bound(bound))] = 0.0
            self._samples |= {key(f"{DURATION}_{part}", job=command): 0.0 for part in ("sum", "count")}

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._samples[key(name, **labels)] = float(value)

    def get(self, name: str, **labels: str) -> float | None:
        """Return a series' value, None when it is not there."""
        return self._samples.get(key(name, **labels))

    def count(self, report: Report, seconds: float, now: datetime) -> None:
        """Count one cycle or sweep: its beads by outcome, its duration, its success."""
        name = DISPATCHES if report.command == "dispatch" else REAPS
        with self._lock:
            for bead in report.beads:
                self._add(key(name, outcome=bead.outcome), 1)
            for bound in (*BUCKETS, math.inf):
                if seconds <= bound:
                    self._add(key(f"{DURATION}_bucket", job=report.command, le=_bound(bound)), 1)
            self._add(key(f"{DURATION}_sum", job=report.command), seconds)
            self._add(key(f"{DURATION}_count", job=report.command), 1)
        if report.error is None:
            self.set(LAST_SUCCESS, now.timestamp(), job=report.command)

    def samples(self) -> Samples:
        """Return all series as they are now."""
        with self._lock:
            return dict(self._samples)

    def _add(self, series: Key, amount: float) -> None:
        self._samples[series] = self._samples.get(series, 0.0) + amount


def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else str(bound)


def family(name: str) -> str:
    """Return the name of the family that a sample belongs to."""
    head, _, part = name.rpartition("_")
    return head if part in ("bucket", "sum", "count") and head in FAMILIES else name


def counts(series: Key) -> bool:
    """Whether a series only ever grows, so that what two processes counted can be added."""
    return FAMILIES[family(series[0])][0] != "gauge"


def page(samples: Samples) -> bytes:
    """Write series in Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest(Exposition(samples))


class Exposition:
    """Series as prometheus_client wants them: what its registries and writers call a collector."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> "Iterator[Metric]":
        """Yield the families that have series."""
        from prometheus_client import Metric

        for name, (kind, words) in FAMILIES.items():
            metric = Metric(name.removesuffix("_total"), words, kind)
            for sample, labels in sorted((k for k in self._samples if family(k[0]) == name), key=_order):
                metric.add_sample(sample, dict(labels), self._samples[sample, labels])
            if metric.samples:
                yield metric


def _order(series: Key) -> tuple[object, ...]:
    name, labels = series
    return name, [(label, float(value) if label == "le" else value) for label, value in labels]
