"""What the API server knows of the Jobs of one tracker and assignee."""

import contextlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.agents.kubernetes import template
from bdauto.agents.kubernetes.evidence import (
    JobView,
    PodView,
    by_attempt,
    deleted_job,
    end_of,
    event_words,
    read_job,
    read_pod,
    state_of,
    waits,
)
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.runner import Runner
from bdauto.agents.runner_status import RunnerStatus
from bdauto.common.clock import Runtime
from bdauto.common.errors import ServiceError
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import FORGOTTEN, NO_ANSWER, NOT_STARTED, JobEvidence
from bdauto.domain.record import Run

if TYPE_CHECKING:
    from bdauto.agents.kubernetes.cluster import Cluster

LOOK_AGE = 5.0
"""Seconds for which a look serves those who need no fresh one: whether a job of the loop has ended."""
SHORT = 2.0
"""Seconds for which the list of a bead's Jobs serves the questions about each of them."""
NO_POD = timedelta(seconds=30)
"""A Job without a pod for so long has events that say why."""


class Look(msgspec.Struct, frozen=True):
    """Two lists of the API: the Jobs whose ends are not recorded, and the pods that may run, both by attempt."""

    at: float
    jobs: dict[str, JobView]
    pods: Mapping[str, PodView]


class KubernetesJobs(Runner):
    """Knows about the Jobs of one tracker in one namespace. Subclasses create, follow and end them."""

    def __init__(
        self,
        settings: KubernetesSettings,
        cluster: "Cluster",
        tracker: str,
        assignee: str,
        *,
        runtime: Runtime | None = None,
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self._tracker = tracker
        self._assignee = assignee
        self._runtime = runtime or Runtime()
        self._labels = {template.TRACKER: template.short_hash(tracker)}
        self._looked: Look | None = None
        self._of_bead: tuple[float, Mapping[str, JobView]] = (-SHORT, {})
        self._ends: dict[str, Run] = {}
        self._taken: dict[str, PodView] = {}
        self._ended_pods: dict[str, PodView] = {}
        self._told: set[str] = set()

    @property
    def knows_jobs(self) -> bool:
        """True: the API knows its Jobs."""
        return True

    @property
    def longest_call(self) -> timedelta:
        """The time limits of a request's steps, and of the one that may follow."""
        return timedelta(seconds=20)

    @property
    def _host(self) -> str:
        return f"namespace {self.cluster.namespace}"

    def _jobs(self) -> list[JobView]:
        """Return the Jobs of this tracker whose ends are not recorded. Raises ServiceError."""
        return [view for job in self.cluster.jobs(self._labels, template.RECORDED) if (view := read_job(job))]

    def _look(self, age: float = 0.0) -> Look:
        """Return a look that is not older than `age` seconds. Raises ServiceError."""
        looked = self._looked
        if looked and age and self._runtime.monotonic() - looked.at <= age:
            return looked
        at = self._runtime.monotonic()
        jobs = {job.attempt: job for job in self._jobs()}
        found = self.cluster.pods(self._labels, unfinished=True) if any(not job.over for job in jobs.values()) else ()
        pods = by_attempt(view for pod in found if (view := read_pod(pod)))
        self._looked = Look(at, jobs, pods)
        known = {**self._taken, **{pod.attempt: pod for pod in pods.values() if pod.disrupted}}
        self._taken = {attempt: pod for attempt, pod in known.items() if attempt in jobs}
        return self._looked

    def _view(self, attempt: str, look: Look | None = None) -> JobView | None:
        """Return one Job, also one that a look leaves out since its end is recorded. Raises ServiceError."""
        if look and attempt in look.jobs:
            return look.jobs[attempt]
        if not template.may_have_job(attempt):
            return None
        found = self.cluster.job(template.job_name(attempt))
        return read_job(found) if found else None

    def evidence(
        self, beads: Collection[Bead], status: RunnerStatus | None = None
    ) -> tuple[JobEvidence, ServiceError | None]:
        """Return what the API knows of the beads' Jobs. While any Job of a bead runs, the bead is not settled."""
        states: dict[str, str] = {}
        ends: dict[str, Run] = {}
        others: dict[str, str] = {}
        words: dict[str, str] = {}
        try:
            look = self._look() if beads else Look(0.0, {}, {})
            for bead in beads:
                job = bead.record.job or bead.record.attempt
                view = self._view(job, look) if job else None
                if view is None and bead.record.job and template.may_have_job(job):  # it was started
                    view = deleted_job(job, bead.id, self._pods(job))
                other = next((one for one in self._at_work(look, bead.id) if one.attempt != job), None)
                if other and not (view and not view.over):
                    states[bead.id], others[bead.id] = state_of(other, look.pods.get(other.attempt)), other.attempt
                elif view and not view.tombstone:
                    states[bead.id] = state_of(view, look.pods.get(job))
                    words[bead.id] = self._waits(view, look.pods.get(job))
                    if view.over:
                        ends[bead.id] = self._end(view)
                elif job:
                    states[bead.id] = FORGOTTEN if bead.record.job else NOT_STARTED
        except ServiceError as error:
            unasked = {bead.id: NO_ANSWER for bead in beads if bead.id not in states}
            return JobEvidence({**states, **unasked}, ends=ends, others=others, waits=words), error
        return JobEvidence(states, ends=ends, others=others, waits=words), None

    def _at_work(self, look: Look, bead_id: str) -> list[JobView]:
        return [job for job in look.jobs.values() if job.bead == bead_id and not job.over and not job.tombstone]

    def _waits(self, job: JobView, pod: PodView | None) -> str:
        """Return in words what a Job waits for. The events are asked for where neither Job nor pod says it."""
        told = waits(job, pod)
        old = job.since and self._runtime.now() - job.since > NO_POD
        if told or job.over or not old or (pod.phase != "Pending" if pod else job.began):
            return told
        kind, name = ("Pod", pod.name) if pod else ("Job", job.name)
        with contextlib.suppress(ServiceError):
            return event_words(self.cluster.events(kind, name)) or f"no {'container' if pod else 'pod'} yet"
        return ""

    def _end(self, job: JobView) -> Run:
        """Return how a Job has ended. Its pods are asked for once. Raises ServiceError."""
        if job.attempt not in self._ends:
            pods = self._pods(job.attempt)
            self._ended_pods |= by_attempt(pods)
            taken = self._taken.get(job.attempt)  # seen while it ended, for it is gone with its reason then
            last = pods or ([taken] if taken else [])
            self._ends[job.attempt] = end_of(job, last, self._runtime.now())
        return self._ends[job.attempt]

    def _pods(self, attempt: str) -> list[PodView]:
        pods = self.cluster.pods({template.ATTEMPT: attempt, **self._labels})
        return [view for pod in pods if (view := read_pod(pod))]

    def job_state(self, job: str) -> str | None:
        """Return the state of a Job as it is now, None if there is none. Raises ServiceError.

        The pod of a Job that somebody has deleted may take some time to end. Until then the Job runs.
        """
        at, known = self._of_bead
        view = known.get(job) if self._runtime.monotonic() - at <= SHORT else None
        view = view or self._view(job)
        if view is None and template.may_have_job(job) and (pods := self._pods(job)):
            view = deleted_job(job, "", pods)
        return None if view is None or view.tombstone else state_of(view, None)

    def ended(self, jobs: Collection[str]) -> set[str]:
        """Return those of these jobs that have ended, and once those that cannot begin. The look may be seconds old."""
        with contextlib.suppress(ServiceError):
            look = self._look(LOOK_AGE)
            over = {job for job in jobs if (view := look.jobs.get(job)) is None or view.over}
            hopeless = {job for job in jobs if (pod := look.pods.get(job)) and pod.hopeless} - self._told
            self._told |= hopeless
            return over | hopeless
        return set()

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the attempts of the bead that have Jobs, the oldest first."""
        with contextlib.suppress(ServiceError):
            return self.jobs_here(bead.id)
        return []

    def jobs_here(self, bead_id: str) -> list[str]:
        """Return the attempts of the bead that have Jobs, or logs that are kept, the oldest first.

        Raises ServiceError.
        """
        labels, at = {**self._labels, template.BEAD_HASH: template.short_hash(bead_id)}, self._runtime.monotonic()
        found = [view for job in self.cluster.jobs(labels) if (view := read_job(job)) and view.bead == bead_id]
        views = {view.attempt: view for view in sorted(found, key=lambda view: view.name, reverse=True)}
        self._of_bead = at, views  # of a Job and what is kept of its log, the Job
        return [view.attempt for view in sorted(views.values(), key=created) if not view.tombstone]

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the attempts of the bead whose Jobs have not ended, the oldest first."""
        found = self.jobs_of(bead)
        return [job for job in found if not self._of_bead[1][job].over]

    def pod_of(self, job: str) -> PodView | None:
        """Return the pod of a Job, None if there is none. Raises ServiceError."""
        return by_attempt(self._pods(job)).get(job)

    def _run(self, job: JobView) -> Run:
        return Run(attempt=job.attempt, job=job.attempt, runner=self._host, claimed_at=job.created)

    def _is_mine(self, job: JobView) -> bool:
        return job.assignee == self._assignee and bool(job.bead)


def created(job: JobView) -> datetime:
    """Return when a Job was created, to sort by."""
    return job.created or datetime.min.replace(tzinfo=UTC)
