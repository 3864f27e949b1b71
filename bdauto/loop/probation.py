"""Holds dispatching back while the agents of the last beads have given no sign of life."""

from datetime import timedelta

from bdauto.domain.outcome import BeadOutcome, Outcome, Report

LONGEST = timedelta(minutes=2)
"""An agent that has neither written nor died for this long is no longer waited for."""


class Probation:
    """The beads that were dispatched since an agent last gave a sign of life.

    Without it a loop would hand out the whole queue, at once where there is room, before the reaper's next sweep finds
    that every agent died. `most` is how many beads may be out without a sign. 0 holds nothing back.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._trial = False
        self._since: dict[str, float] = {}

    def holds(self, now: float) -> bool:
        """Return whether a sign of life is waited for. `now` is the monotonic clock, in seconds."""
        self._since = {bead: at for bead, at in self._since.items() if now - at < LONGEST.total_seconds()}
        return self._most > 0 and len(self._since) >= (1 if self._trial else self._most)

    def dispatched(self, report: Report, now: float, *, trial: bool) -> None:
        """Note what a cycle dispatched. A `trial` of a half-open breaker is waited for alone."""
        if not report.dry_run:
            started = [bead.id for bead in report.beads if bead.outcome is BeadOutcome.dispatched]
            self._since |= dict.fromkeys(started, now)
            self._trial = self._trial or (trial and bool(started))

    def swept(self, report: Report) -> None:
        """Learn from a sweep: an agent that wrote, or whose bead is no longer in progress, lives; others have died."""
        if report.outcome in (Outcome.paused, Outcome.failed) or report.malformed:
            return
        found = {bead.id: bead for bead in report.beads}
        if any(bead not in found or found[bead].lives for bead in self._since):
            self._since.clear()
        self._since = {bead: at for bead, at in self._since.items() if found[bead].outcome is BeadOutcome.kept}
        self._trial = self._trial and bool(self._since)

    def words(self) -> str:
        """Say what is waited for."""
        return f"waiting for a sign of life of the agents of {', '.join(sorted(self._since)[:5])}"
