"""The jobs that an open bead names, and what is known of them: before a POST each of them is asked about."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.agents.service_status import job_evidence
from bdauto.domain.bead import MOST_JOBS, Bead
from bdauto.domain.notes import FINISH_NOTE, format_age
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
from bdauto.errors import ServiceDown, ServiceError, TokenRefused
from bdauto.sanitize import clean

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

STATE_LIMIT = 40
"""Characters of a job's state, which may be one that nobody knows."""
IN_A_ROW = 3
"""So many jobs one after another without an answer speak against the agent service, and not against the jobs."""
MOST_SILENT = 6
"""So many jobs without an answer take up the time of one cycle."""
UNTOLD = timedelta(minutes=30)
"""So long after its claim a job may run that nobody can name. It is the default of --threshold."""


@dataclass
class Patience:
    """How many jobs had no answer in a cycle, at all and since the last answer. Then nobody is asked any more."""

    silent: int = 0
    in_a_row: int = 0

    @property
    def over(self) -> bool:
        """Whether to ask about no further job."""
        return self.in_a_row >= IN_A_ROW or self.silent >= MOST_SILENT

    def count(self, error: ServiceError | None) -> None:
        """Count a question. A refusal and a failure are answers, too."""
        silent = isinstance(error, ServiceDown) and error.silent
        self.silent += silent
        self.in_a_row = self.in_a_row + 1 if silent else 0


class NamedJob(msgspec.Struct, frozen=True):
    """A job that may run, its state, and why the state is not known, or None.

    `owner` is another bead that records the job. `place` says who alone can be asked about it, where that is not here,
    and `until` when it has ended at the latest. `untold` is how long ago a claim was made whose job, if there is one,
    nobody can name.
    """

    job: str
    state: str
    error: ServiceError | None = None
    owner: str = ""
    place: str = ""
    until: datetime | None = None
    untold: timedelta | None = None

    @property
    def runs(self) -> bool:
        """Whether the job runs for certain."""
        return self.state in ALIVE

    def fix(self, bead: Bead) -> str:
        """Say what a person can do, "" where the next dispatch claims the bead for the job."""
        if self.untold is not None:
            return f"bd update {bead.id} --unset-metadata {ATTEMPT}, if no agent works on it"
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
        if self.untold is not None:
            return f"it was claimed {format_age(self.untold)} ago and may have been posted: nobody knows of its job"
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
    grace: timedelta,
    extra: str = "",
    patience: Patience,
) -> NamedJob | None:
    """Return the first job named by an open bead that may run and that belongs to this bead. None: it may be posted.

    `owner` returns the id of another bead that records a job, or "". A job of another bead is no reason, unless this
    bead records it as well. `extra` is a job that the bead does not name, or "". Once `patience` is over nobody is
    asked. A claim that somebody has opened and whose job is not known may have been posted, see `_may_be_posted`.
    Where nobody can be asked about jobs, one whose claim was gone counts for LONGEST_BELIEF.
    """
    if until := _elsewhere_until(runner, bead, now):
        return NamedJob(bead.record.job or bead.record.attempt, ELSEWHERE, place=who_knows(bead), until=until)
    if runner is None or not runner.knows_jobs:
        unclaimed = bead.record.unclaimed
        return NamedJob(unclaimed, "not known") if unclaimed and now - bead.updated_at <= LONGEST_BELIEF else None
    for job in _jobs(runner, bead, extra):
        state, error = _asked(runner, job, patience)
        if not _may_run(bead, job, state):
            continue
        other = owner(job)
        if not other or job == bead.record.job:
            return NamedJob(job, state, error, other)
    if _may_be_posted(runner, bead, now, grace):
        return NamedJob("", "not known", untold=now - (bead.record.claimed_at or now))
    return None


def _elsewhere_until(runner: "Runner | None", bead: Bead, now: datetime) -> datetime | None:
    """Return how long a job of an open bead's claim may run in a place that is not asked here, None if it does not.

    Somebody has opened the bead since. A claim that does not say when its job ends counts for LONGEST_BELIEF.
    """
    if bead.record.current is None or (runner.owns(bead) if runner else not bead.local):
        return None
    until = bead.ends_by or (bead.record.claimed_at or bead.updated_at) + LONGEST_BELIEF
    return until if now <= until else None


def _asked(runner: "Runner", job: str, patience: Patience) -> tuple[str, ServiceError | None]:
    if patience.over:
        return NO_ANSWER, ServiceError("the agent service does not answer")
    state, error = ask_job(runner, job)
    patience.count(error)
    return state, error


def _may_be_posted(runner: "Runner", bead: Bead, now: datetime, grace: timedelta) -> bool:
    """Whether somebody has opened a claim of a service that may have a job which nobody can name.

    The POST's outcome is unknown, or its dispatcher was killed before the record, and the agent has not signed. It is
    over after UNTOLD, or after `grace` if the agent service runs nothing at all.
    """
    claimed_at = bead.record.claimed_at
    if bead.record.current is None or claimed_at is None or bead.record.job or bead.signed_job or bead.local:
        return False
    age = abs(now - claimed_at)
    return age <= UNTOLD and (age <= grace or not job_evidence(runner, [bead])[0].runs_nothing)


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
    """Whether a job may run. The agent service lets a `timeout` run on.

    The reaper has waited for one that it has noted, unless somebody has opened the bead before it was settled.
    """
    if state == "timeout":
        unsettled = bead.record.attempt != "" and bead.record.job == job
        return unsettled or f"{FINISH_NOTE}{job} timeout" not in bead.notes
    return state not in OVER and state not in (FORGOTTEN, NOT_STARTED)
