"""The jobs that an open bead names, and what is known of them: before a POST each of them is asked about."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from bdauto.domain.bead import MOST_JOBS, Bead
from bdauto.domain.notes import FINISH_NOTE
from bdauto.domain.reaping import (
    ALIVE,
    ELSEWHERE,
    FORGOTTEN,
    LONGEST_BELIEF,
    NO_ANSWER,
    NOT_STARTED,
    OVER,
    TOKEN_REFUSED,
    who_knows,
)
from bdauto.domain.record import ATTEMPT
from bdauto.domain.times import format_time
from bdauto.errors import ServiceError, TokenRefused
from bdauto.sanitize import clean

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

STATE_LIMIT = 40
"""Characters of a job's state, which may be one that nobody knows."""


class NamedJob(msgspec.Struct, frozen=True):
    """A job that may run, its state, and why the state is not known, or None.

    `owner` is another bead that records the job. `place` says who alone can be asked about it, where that is not here,
    and `until` when it has ended at the latest.
    """

    job: str
    state: str
    error: ServiceError | None = None
    owner: str = ""
    place: str = ""
    until: datetime | None = None

    @property
    def runs(self) -> bool:
        """Whether the job runs for certain."""
        return self.state in ALIVE

    def fix(self, bead: Bead) -> str:
        """Say what a person can do, "" where the next dispatch claims the bead for the job."""
        if self.owner:
            return f"bdauto explain {self.owner}"
        if self.place:
            return f"wait, or `bd update {bead.id} --unset-metadata {ATTEMPT}` once it is over"
        if self.error:
            return "bdauto doctor"
        return "" if self.runs else f"bd update {bead.id} --unset-metadata bdauto.unclaimed, once it is over"

    def describe(self) -> str:
        """Say why the bead cannot be posted."""
        if self.until:
            return (
                f"its job {self.job} may run until {format_time(self.until)}: only {self.place} can be asked about it"
            )
        if self.owner:
            return f"job {self.job} is recorded here and on {self.owner}, and it may run"
        if self.error:
            return f"nobody can be asked about its job {self.job}, which may run: {self.error}"
        return f"its job {self.job} is {self.state}" + ("" if self.runs else ", and may run")


def job_in_the_way(
    runner: "Runner | None",
    bead: Bead,
    owner: Callable[[str], str],
    now: datetime,
    *,
    extra: str = "",
    asks: bool = True,
) -> NamedJob | None:
    """Return the first job named by an open bead that may run and that belongs to this bead. None: it may be posted.

    `owner` returns the id of another bead that records a job, or "". A job of another bead is no reason, unless this
    bead records it as well. `extra` is a job that the bead does not name, or "". With `asks` False nobody is asked.
    Where nobody can be asked about jobs, one whose claim was gone counts for LONGEST_BELIEF.
    """
    if until := _elsewhere_until(runner, bead, now):
        return NamedJob(bead.record.job or bead.record.attempt, ELSEWHERE, place=who_knows(bead), until=until)
    if runner is None or not runner.knows_jobs:
        unclaimed = bead.record.unclaimed
        return NamedJob(unclaimed, "not known") if unclaimed and now - bead.updated_at <= LONGEST_BELIEF else None
    for job in _jobs(runner, bead, extra):
        state, error = ask_job(runner, job) if asks else (NO_ANSWER, ServiceError("the agent service does not answer"))
        if not _may_run(bead, job, state):
            continue
        other = owner(job)
        if not other or job == bead.record.job:
            return NamedJob(job, state, error, other)
    return None


def _elsewhere_until(runner: "Runner | None", bead: Bead, now: datetime) -> datetime | None:
    """Return how long a job of an open bead's claim may run in a place that is not asked here, None if it does not.

    Somebody has opened the bead since. A claim that does not say when its job ends counts for LONGEST_BELIEF.
    """
    if bead.record.current is None or (runner.owns(bead) if runner else not bead.local):
        return None
    until = bead.ends_by or (bead.record.claimed_at or bead.updated_at) + LONGEST_BELIEF
    return until if now <= until else None


def _jobs(runner: "Runner", bead: Bead, extra: str) -> Iterator[str]:
    for job in dict.fromkeys((extra, *bead.named_jobs, *runner.jobs_of(bead)[: -MOST_JOBS - 1 : -1])):
        if job and job != bead.record.given_up:
            yield job


def ask_job(runner: "Runner", job: str) -> tuple[str, ServiceError | None]:
    """Return the state of a job, and why it is not known, or None. See `domain.reaping` for what is no state."""
    try:
        return clean(runner.job_state(job) or FORGOTTEN, STATE_LIMIT), None
    except TokenRefused as error:
        return TOKEN_REFUSED, error
    except ServiceError as error:
        return NO_ANSWER, error


def _may_run(bead: Bead, job: str, state: str) -> bool:
    """Whether a job may run. The agent service lets a `timeout` run on, but the reaper has waited for a noted one."""
    if state == "timeout":
        return f"{FINISH_NOTE}{job} timeout" not in bead.notes
    return state not in OVER and state not in (FORGOTTEN, NOT_STARTED)
