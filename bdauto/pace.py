"""How long `bdauto run` waits: decisions on numbers alone."""

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from bdauto.outcome import BeadOutcome, Outcome, Report
from bdauto.settings import RunSettings

if TYPE_CHECKING:
    from bdauto.beadboard import Capacity

SLOWEST = 4.0
"""Idle polling, and asking a service that is down, is done at least this often: every 4 intervals."""
LONGEST_BACKOFF = timedelta(minutes=10)
"""The longest wait where each try takes up a bead, because BeadBoard answers but starts none."""
STATUS_CACHE = timedelta(seconds=2)
"""For so long BeadBoard repeats its status, so that a dispatch does not show in it."""
INTERVALS = 3
"""With work and room for so many intervals and nothing dispatched, the loop starves."""


def dispatched(report: Report) -> int:
    """Return how many beads a cycle dispatched."""
    return sum(bead.outcome is BeadOutcome.dispatched for bead in report.beads)


class Pace:
    """The seconds until a job's next turn, jittered so that several loops do not march in step."""

    def __init__(self, settings: RunSettings, rng: random.Random) -> None:
        self._every = settings.dispatch_every.total_seconds()
        self._reap_every = settings.reap_every.total_seconds()
        self._rng = rng
        self._slack = 1.0

    def reset(self) -> None:
        """Return to the interval: there is a sign of work, or of life."""
        self._slack = 1.0

    def after_dispatch(self, report: Report, capacity: "Capacity | None", down: bool, costly: bool) -> float:
        """Return the wait after a cycle. `down`: something is; `costly`: and each try takes up a bead."""
        started = dispatched(report)
        if started and not report.dry_run and not report.error:
            self.reset()
            if capacity is None or not capacity.counted:
                return min(self._every, STATUS_CACHE.total_seconds())
            return 0.0 if capacity.free > started else self._jittered(self._every)
        if down:
            longest = LONGEST_BACKOFF.total_seconds() / self._every if costly else SLOWEST
            self._slack = min(self._slack * 2, max(longest, SLOWEST))
        elif report.outcome in (Outcome.idle, Outcome.paused) and not report.beads:
            self._slack = min(self._slack * 1.5, SLOWEST)
        else:
            self.reset()
        return self._jittered(self._every * self._slack)

    def after_reap(self, report: Report) -> float:
        """Return the wait after a sweep; one that failed is made up for soon."""
        failed = report.outcome is Outcome.failed
        return self._jittered(min(self._reap_every, SLOWEST * self._every) if failed else self._reap_every)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.8, 1.0)


class Hunger:
    """Tells when the loop starves: the state in which a dispatcher is dead and looks idle."""

    def __init__(self, settings: RunSettings) -> None:
        self._patience = INTERVALS * settings.dispatch_every.total_seconds()
        self._since: float | None = None
        self._starved = False
        self.eligible = 0
        """How many beads were eligible when they were last counted, less what was dispatched since."""

    def seconds(self, now: float) -> float:
        """Return for how long there has been work and room, and nothing dispatched."""
        return 0.0 if self._since is None else now - self._since

    def doubts(self, report: Report) -> bool:
        """Whether a cycle that found nothing contradicts the last count."""
        return self.eligible > 0 and report.outcome is Outcome.idle and not report.beads

    def after(self, report: Report, now: float) -> bool:
        """Take in what a cycle came to, at `now` on the stop watch; return whether the loop starves."""
        self.eligible = max(self.eligible - dispatched(report), 0)
        if report.error and not report.beads:
            return self._starved
        no_room = report.outcome in (Outcome.busy, Outcome.paused)
        if no_room or dispatched(report) or not (report.beads or self.eligible):
            self._since = None
        elif self._since is None:
            self._since = now
        self._starved = self._since is not None and self.seconds(now) >= self._patience
        return self._starved
