"""How long `bdauto run` waits: decisions on numbers alone."""

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from bdauto.common.errors import PartlyDone
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.settings import RunSettings
from bdauto.loop.starvation import dispatched

if TYPE_CHECKING:
    from bdauto.agents.runner_status import Capacity

SLOWEST = 4.0
"""The longest wait while idle or while a service is down, in intervals."""
COSTLY_BACKOFF = timedelta(minutes=10)
"""The longest wait if each try uses a bead, because the service answers but starts none."""
STATUS_CACHE = timedelta(seconds=2)
"""How long a service may cache its status: a dispatch does not show in it for so long."""

FIRST_RETRY = timedelta(seconds=1)
"""How soon a busy service is asked again after the tracker has changed, doubling up to the interval.

The agent closes its bead some seconds before its job ends.
"""
QUIET = timedelta(minutes=5)
"""The longest wait while there is nothing to do and a change would be noticed: time alone makes some beads ready."""
BURST = 8
"""So many looks at a changed tracker may follow each other before one is allowed in each interval."""


def at_rest(report: Report) -> bool:
    """Return whether a cycle found nothing to do that another cycle would find, if nothing changes."""
    nothing = report.outcome in (Outcome.idle, Outcome.paused, Outcome.suspended, Outcome.limited)
    return not report.beads and (nothing or isinstance(report.error, PartlyDone))


class PollSchedule:
    """The seconds until a job's next turn, with jitter so that several loops do not run in step."""

    def __init__(self, settings: RunSettings, rng: random.Random) -> None:
        self._every = settings.dispatch_every.total_seconds()
        self._reap_every = settings.reap_every.total_seconds()
        self._rng = rng
        self._slack = 1.0
        self._soon = self._every
        self._looks = float(BURST)
        self._looked = float("-inf")

    def reset(self) -> None:
        """Return to the interval: there is a sign of work, or of life."""
        self._slack = 1.0

    def after_dispatch(self, report: Report, capacity: "Capacity | None", down: bool, costly: bool) -> float:
        """Return the wait after a cycle. `down`: a dependency is down. `costly`: and each try uses a bead."""
        started = dispatched(report)
        if started and not report.dry_run and not report.error:
            self.reset()
            self._looks = BURST
            if capacity is None or not capacity.counted:
                return min(self._every, STATUS_CACHE.total_seconds())
            return 0.0 if capacity.free > started else self._jittered(self._every)
        if down:
            longest = COSTLY_BACKOFF.total_seconds() / self._every if costly else SLOWEST
            self._slack = min(self._slack * 2, max(longest, SLOWEST))
        elif report.outcome in (Outcome.idle, Outcome.paused, Outcome.suspended, Outcome.limited) and not report.beads:
            self._slack = min(self._slack * 1.5, SLOWEST)
        else:
            self.reset()
        if report.outcome is Outcome.busy and self._soon < self._every:
            soon, self._soon = self._soon, min(2 * self._soon, self._every)
            return soon
        return self._jittered(self._every * self._slack)

    def quiet(self, timer: float) -> float:
        """Return the wait while nothing but a change, or the end of a known `timer` in seconds, can make work."""
        return max(min(QUIET.total_seconds() * self._rng.uniform(0.95, 1.0), timer), 0.0)

    def after_change(self, now: float) -> float:
        """Return the wait until a changed tracker is looked at.

        It is 0 at first. A tracker that changes all the time, and never by a bead to dispatch, is looked at once in
        each interval, as if it were polled.
        """
        earned = (now - self._looked) / self._every
        self._looks, self._looked = min(self._looks + earned, BURST) - 1, now
        self._soon = min(FIRST_RETRY.total_seconds(), self._every)
        return max(-self._looks, 0.0) * self._every

    def after_reap(self, report: Report) -> float:
        """Return the wait after a sweep. A failed one is repeated soon."""
        failed = report.outcome is Outcome.failed
        return self._jittered(min(self._reap_every, SLOWEST * self._every) if failed else self._reap_every)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.8, 1.0)
