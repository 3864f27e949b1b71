"""Holds dispatching back while the agents of the last beads have given no sign of life."""

from collections.abc import Collection
from datetime import timedelta

from bdauto.domain.bead import Bead
from bdauto.domain.life import sign_of_life
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
        self._forget_old(now)
        return self._most > 0 and len(self._since) >= (1 if self._trial else self._most)

    def dispatched(self, report: Report, now: float, *, trial: bool) -> None:
        """Note what a cycle dispatched. A `trial` of a half-open breaker is waited for alone.

        The cycle may have taken long. What is no longer waited for by then says nothing of these beads.
        """
        self._forget_old(now)
        if not report.dry_run:
            started = [bead.id for bead in report.beads if bead.outcome is BeadOutcome.dispatched]
            self._since |= dict.fromkeys(started, now)
            self._trial = self._trial or (trial and bool(started))

    def unlisted(self, report: Report) -> list[str]:
        """Return the beads that are waited for and that a sweep did not find in progress, if it could tell."""
        found = {bead.id for bead in report.beads}
        return [bead for bead in self._since if bead not in found and _tells(report)]

    def swept(self, report: Report, others: Collection[Bead] = ()) -> None:
        """Learn from a sweep: an agent that wrote or finished its bead lives, and what was settled has died.

        `others` are the beads that were `unlisted`, as far as they could be read. Agents may have finished those. But
        one that somebody took over is waited for, because its job runs.
        """
        if not _tells(report):
            return
        lives = {bead.id for bead in report.beads if bead.lives} | {bead.id for bead in others if _lives(bead)}
        over = {bead.id for bead in report.beads if bead.outcome is not BeadOutcome.kept}
        over |= {bead.id for bead in others if bead.status != "in_progress"}
        if not lives.isdisjoint(self._since):
            self._since.clear()
        self._since = {bead: at for bead, at in self._since.items() if bead not in over}
        self._trial = self._trial and bool(self._since)

    def _forget_old(self, now: float) -> None:
        self._since = {bead: at for bead, at in self._since.items() if now - at < LONGEST.total_seconds()}

    def describe(self) -> str:
        """Say what is waited for."""
        return f"waiting for a sign of life of the agents of {', '.join(sorted(self._since)[:5])}"


def _tells(report: Report) -> bool:
    """Whether a sweep has listed every bead in progress."""
    return report.outcome not in (Outcome.paused, Outcome.failed) and not report.malformed


def _lives(bead: Bead) -> bool:
    """Whether the agent of a bead has finished it, or has written on it since its claim."""
    finished = bead.status in ("closed", "blocked") and not bead.record.quarantined
    return finished or (bool(bead.record.attempt) and sign_of_life(bead))
