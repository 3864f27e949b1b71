"""The jobs that an open bead names. Before a POST, bdauto asks about each of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.agents.runner import job_evidence
from bdauto.agents.runner_status import STATE_LIMIT, state_after
from bdauto.common.errors import ServiceDown, ServiceError
from bdauto.common.sanitize import clean
from bdauto.domain.bead import MOST_JOBS, Bead
from bdauto.domain.constants import IN_A_ROW
from bdauto.domain.notes import FINISH_NOTE
from bdauto.domain.reaping import (
    ALIVE,
    ELSEWHERE,
    FORGOTTEN,
    LONGEST_BELIEF,
    NO_ANSWER,
    NOT_STARTED,
    OVER,
    who_knows,
)
from bdauto.domain.record import ATTEMPT
from bdauto.domain.times import format_time
from bdauto.domain.values import format_age

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

MOST_SILENT = 6
"""After this many jobs without an answer in all, a cycle asks about no further job: each takes a whole timeout."""
UNTOLD = timedelta(minutes=30)
"""How long after a claim its job may run without being known to anyone. It is the default of --threshold."""


@dataclass
class Patience:
    """Counts a cycle's jobs without an answer, in all and since the last answer. Either can end the questions."""

    silent: int = 0
    in_a_row: int = 0

    @property
    def over(self) -> bool:
        """True: ask about no further job."""
        return self.in_a_row >= IN_A_ROW or self.silent >= MOST_SILENT

    def count(self, error: ServiceError | None) -> None:
        """Count the result of a question. A refusal and a failure are answers, too."""
        silent = isinstance(error, ServiceDown) and error.silent
        self.silent += silent
        self.in_a_row = self.in_a_row + 1 if silent else 0


class NamedJob(msgspec.Struct, frozen=True):
    """A job that may run, its state, and the error if the state could not be asked for.

    `owner` is another bead that records the job. If only another place can be asked about the job, `place` names it and
    `until` is the latest end of the job. `untold` is the age of a claim that may have a job of which no id is known.
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
        """True: the job is known to run."""
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
    """Return the first job of an open bead that may run and belongs to this bead. None: the bead may be posted.

    `owner` returns the id of another bead that records a job, or "". A job of another bead does not count, unless this
    bead records it as well. `extra` is a job that the bead does not name, or "". No question is asked once `patience`
    is over. A re-opened claim without a known job may have been posted, see `_may_be_posted`. If no service can be
    asked, an unclaimed job counts for LONGEST_BELIEF.
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
    """Return the time until which a job may run in a place that cannot be asked here, or None.

    The job is that of a claim which somebody has opened since. A claim without `ends_by` counts for LONGEST_BELIEF.
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
    """True: somebody opened a bead that may have been posted, and no id of a job is known.

    The POST's outcome is unknown, or its dispatcher was killed before the record, and the agent has not signed. The
    doubt ends after UNTOLD, or after `grace` if the agent service runs nothing at all, or the jobs folder has no job of
    the claim: within it, the dispatcher may still start one.
    """
    claimed_at = bead.record.claimed_at
    if bead.record.current is None or claimed_at is None or bead.record.job or bead.signed_job:
        return False
    age = abs(now - claimed_at)
    if bead.local:
        return age <= grace and bead.record.attempt not in runner.jobs_of(bead)
    return age <= UNTOLD and (age <= grace or not job_evidence(runner, [bead])[0].runs_nothing)


def _jobs(runner: "Runner", bead: Bead, extra: str) -> Iterator[str]:
    given_up = {bead.record.given_up}.difference(runner.jobs_at_work(bead))  # what runs on this machine is certain
    for job in dict.fromkeys((extra, *bead.named_jobs, *runner.jobs_of(bead)[: -MOST_JOBS - 1 : -1])):
        if job and job not in given_up:
            yield job


def ask_job(runner: "Runner", job: str) -> tuple[str, ServiceError | None]:
    """Return the state of a job, or one of `domain.reaping` and the error if it is not known."""
    try:
        return clean(runner.job_state(job) or FORGOTTEN, STATE_LIMIT), None
    except ServiceError as error:
        return state_after(error), error


def _may_run(bead: Bead, job: str, state: str) -> bool:
    """True: a job may run. The agent service does not end the process of a job in state `timeout`.

    If the reaper has noted the timeout, it has also waited for the job, unless somebody opened the bead before that.
    """
    if state == "timeout":
        unsettled = bead.record.attempt != "" and bead.record.job == job
        return unsettled or f"{FINISH_NOTE}{job} timeout" not in bead.notes
    return state not in OVER and state not in (FORGOTTEN, NOT_STARTED)
