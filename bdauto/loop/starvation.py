"""Detects a loop that has work and capacity but dispatches nothing."""

from bdauto.domain.constants import STARVED_INTERVALS
from bdauto.domain.outcome import BeadOutcome, Outcome, Report
from bdauto.domain.settings import RunSettings


def dispatched(report: Report) -> int:
    """Return how many beads a cycle dispatched."""
    return sum(bead.outcome is BeadOutcome.dispatched for bead in report.beads)


class StarvationDetector:
    """Detects starvation: the state in which a broken dispatcher looks idle."""

    def __init__(self, settings: RunSettings) -> None:
        self._patience = STARVED_INTERVALS * settings.dispatch_every.total_seconds()
        self._since: float | None = None
        self._starved = False
        self.eligible = 0
        """How many beads were eligible when they were last counted, less what was dispatched since."""

    def seconds(self, now: float) -> float:
        """Return how long there has been work and capacity but nothing dispatched."""
        return 0.0 if self._since is None else now - self._since

    def doubts(self, report: Report) -> bool:
        """Whether a cycle that found nothing contradicts the last count."""
        return (
            report.command == "dispatch" and self.eligible > 0 and report.outcome is Outcome.idle and not report.beads
        )

    def after(self, report: Report, now: float) -> bool:
        """Record the result of a cycle at `now` on the monotonic clock. Return True if the loop starves."""
        self.eligible = max(self.eligible - dispatched(report), 0)
        if report.error and not report.beads:
            return self._starved
        no_room = report.outcome in (Outcome.busy, Outcome.paused, Outcome.suspended, Outcome.limited)
        if no_room or dispatched(report) or not (report.beads or self.eligible):
            self._since = None
        elif self._since is None:
            self._since = now
        self._starved = self._since is not None and self.seconds(now) >= self._patience
        return self._starved
