"""What a long-running dispatcher remembers of the jobs that it started.

The tracker is the record. But a bd that reverts committed rows forgets a claim whose job runs, and then only the
process that made the claim knows better.
"""

from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from bdauto.domain.bead import Bead

MOST_JOBS = 1_000
"""So many jobs are remembered, the youngest."""


class StartedJob(msgspec.Struct, frozen=True):
    """A job that this process started, for which attempt, and how many attempts were charged by then."""

    attempt: str
    attempts: int
    job: str


@dataclass
class StartedJobs:
    """The jobs that this process started, by bead. `told` has the last reason for which each bead was passed over.

    `idle_at` is when it last read the queue and found nothing eligible in it.
    """

    jobs: dict[str, StartedJob] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    idle_at: datetime | None = None

    def started(self, bead_id: str, job: StartedJob) -> None:
        """Remember a job."""
        self.jobs.pop(bead_id, None)
        self.told.pop(bead_id, None)
        self.jobs[bead_id] = job
        if len(self.jobs) > MOST_JOBS:
            del self.jobs[next(iter(self.jobs))]

    def is_news(self, bead_id: str, reason: str) -> bool:
        """Remember why a bead was passed over. Return True if the reason differs from the last one."""
        news = self.told.pop(bead_id, None) != reason
        self.told[bead_id] = reason
        if len(self.told) > MOST_JOBS:
            del self.told[next(iter(self.told))]
        return news

    def eligible_since(self, bead: Bead) -> datetime:
        """Return when a bead became eligible, as far as is known: bd does not tell when a blocker was closed."""
        moments = (bead.updated_at, bead.record.retry_at, bead.defer_until, self.idle_at)
        return max(moment for moment in moments if moment)

    def claim_was_reverted(self, bead: Bead) -> StartedJob | None:
        """Return the job that this process started for an open bead which bears no trace of that attempt.

        A bead that somebody sets `open` keeps its attempt. One that a reaper settled has none, but its job is over.
        """
        known = self.jobs.get(bead.id)
        return known if known and bead.record.attempt != known.attempt else None
