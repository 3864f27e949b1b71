"""Defects of `bdauto run`: what it remembers, waits for, heeds and counts."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from bdauto.controllers.hold import Hold
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import BeadOutcome, BeadReport, Report
from bdauto.loop.pause_monitor import PauseMonitor
from bdauto.loop.probation import Probation
from bdauto.loop.shutdown import Stop
from bdauto.telemetry.metrics import Metrics
from tests.simulation.mutations.registry import Replacement, mutation

Replaced = Sequence[Replacement]


@mutation("a loop forgets the jobs that it started")
def _memory() -> Replaced:
    return [Replacement(StartedJobs, "claim_was_reverted", lambda self, bead: None)]


@mutation("a signal breaks off a bead that is being changed")
def _unshielded() -> Replaced:
    return [Replacement(Stop, "enter_critical_section", lambda self: None)]


@mutation("a loop reads the pause switch once")
def _switch_once() -> Replaced:
    original = PauseMonitor.hold

    def hold(self: PauseMonitor) -> Hold | None:
        if getattr(self, "asked", False):
            return None
        self.asked = True  # type: ignore[attr-defined]
        return original(self)

    return [Replacement(PauseMonitor, "hold", hold)]


@mutation("a loop does not wait for a sign of life")
def _no_probation() -> Replaced:
    return [Replacement(Probation, "holds", lambda self, now: False)]


@mutation("a loop takes a bead that somebody took over for a sign of life")
def _taken_lives() -> Replaced:
    original = Probation.swept

    def swept(self: Probation, report: Report, others: Collection[Bead] = ()) -> None:
        original(self, report, [msgspec.structs.replace(bead, status="closed") for bead in others])

    return [Replacement(Probation, "swept", swept)]


@mutation("the metrics count a bead that was not dispatched")
def _metrics() -> Replaced:
    original = Metrics.count

    def count(self: Metrics, report: Report, *args: Any) -> None:
        lost = msgspec.structs.replace(report, beads=tuple(map(_as_dispatched, report.beads)))
        original(self, lost if report.command == "dispatch" else report, *args)

    return [Replacement(Metrics, "count", count)]


def _as_dispatched(bead: BeadReport) -> BeadReport:
    lost = bead.outcome is BeadOutcome.lost
    return msgspec.structs.replace(bead, outcome=BeadOutcome.dispatched) if lost else bead
