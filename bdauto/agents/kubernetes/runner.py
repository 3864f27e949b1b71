"""One Kubernetes Job for each attempt. The API server is the lock: of two Jobs of one name it creates one."""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.agents.answers import Answer, NotStarted
from bdauto.agents.capacity import Capacity
from bdauto.agents.kubernetes import template
from bdauto.agents.kubernetes.evidence import (
    PENDING,
    JobView,
    PodView,
    by_attempt,
    end_of,
    event_words,
    overdue,
    read_job,
    read_pod,
    state_of,
    waits,
)
from bdauto.agents.kubernetes.output import PodOutput, figures
from bdauto.agents.kubernetes.settings import NAME, KubernetesSettings
from bdauto.agents.kubernetes.start import start
from bdauto.agents.kubernetes.template import Object
from bdauto.agents.prompt import read_template, render
from bdauto.agents.runner import JobOutput, Place, Project, Runner
from bdauto.agents.runner_status import AGENT, Part, RunnerStatus
from bdauto.clock import Runtime
from bdauto.domain.bead import Bead
from bdauto.domain.earlier_attempts import describe_earlier
from bdauto.domain.reaping import ALIVE, FORGOTTEN, NO_ANSWER, NOT_STARTED, JobEvidence, who_knows
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Run
from bdauto.domain.results import ended_run
from bdauto.errors import BdautoError, ServiceDown, ServiceDrift, ServiceError, ServiceRefusal, UsageError
from bdauto.extras import EXTRAS, how_to_install, missing

if TYPE_CHECKING:
    from bdauto.agents.kubernetes.cluster import Cluster

LOOK_AGE = 5.0
"""Seconds for which a look serves those who need no fresh one: whether a job of the loop has ended."""
SHORT = 2.0
"""Seconds for which the list of a bead's Jobs serves the questions about each of them."""
NO_POD = timedelta(seconds=30)
"""A Job without a pod for so long has events that say why."""
CANCEL = 60.0
"""Seconds to wait for a Job that is cancelled: its pod has 30 to end, unless the template says otherwise."""
SHORTEST_KEEP = timedelta(hours=1)
"""A Job is kept for so long after its end at least: a look that began before must not find its name free."""


def open_runner(settings: KubernetesSettings, project: Callable[[], Project]) -> "KubernetesAgent":
    """Return what runs the agent. Raises UsageError and BdError, as `project` does."""
    if missing("kubernetes"):
        words = f"--kubernetes-template needs {' and '.join(EXTRAS['kubernetes'])}"
        raise UsageError(words, hint=f"run `{how_to_install('kubernetes')}`")
    from bdauto.agents.kubernetes.cluster import Cluster

    cluster = Cluster(settings.kubernetes_namespace, settings.kubernetes_context)
    found = project()
    return KubernetesAgent(settings, cluster, found.tracker, found.assignee)


class Look(msgspec.Struct, frozen=True):
    """Two lists of the API: the Jobs whose ends are not recorded, and the pods that may run, both by attempt."""

    at: float
    jobs: Mapping[str, JobView]
    pods: Mapping[str, PodView]


class KubernetesAgent(Runner):
    """Starts Jobs for the beads of one tracker and assignee in one namespace."""

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
        self._template: Object | None = None
        self._looked: Look | None = None
        self._of_bead: tuple[float, Mapping[str, JobView]] = (-SHORT, {})
        self._ends: dict[str, Run] = {}

    @property
    def name(self) -> str:
        """The name of the template."""
        return self.settings.kubernetes_template or ""

    @property
    def knows_jobs(self) -> bool:
        """True: the API knows its Jobs."""
        return True

    @property
    def longest_call(self) -> timedelta:
        """The time limits of a request's steps, and of the one that may follow."""
        return timedelta(seconds=20)

    def status(self) -> RunnerStatus:
        """Return how many slots are free: the Jobs that have not ended are counted, never remembered."""
        try:
            active = [job for job in self._jobs() if not job.over and not job.tombstone]
        except ServiceError as error:
            return RunnerStatus((Part(AGENT, "Kubernetes", error=error),))
        taken, total = len(active), self.settings.agent_slots
        capacity = Capacity(max(total - taken, 0), True, taken, 0, total)
        return RunnerStatus((Part(AGENT, "Kubernetes", capacity, text=f"{taken} of {total} slots taken"),))

    def check_start(self, *, dry_run: bool = False) -> None:
        """Read the template and the prompt's template. Raises UsageError if no bead could be started with them."""
        self._template = self.read_template()
        read_template(self.settings.agent_prompt)

    def read_template(self) -> Object:
        """Return the template as it is now. Raises UsageError and ServiceDown."""
        words = f"--kubernetes-template {self.name}"
        try:
            found = self.cluster.cron_job(self.name)
        except ServiceDrift as error:
            raise UsageError(
                f"{words} cannot be read: {error.message}", hint="`bdauto doctor` checks the rights"
            ) from None
        if found is None:
            words = f"{words}: there is no such CronJob in namespace {self.cluster.namespace}"
            raise UsageError(words, hint="create it, suspended, or name another namespace")
        template.check_template(found, self.name)
        return found

    @property
    def _host(self) -> str:
        return f"namespace {self.cluster.namespace}"

    def _known_template(self) -> Object:
        if self._template is None:
            self._template = self.read_template()
        return self._template

    def place(self) -> Place:
        """Return the namespace. Its id is the template's uid: another cluster may have a namespace of that name.

        Raises UsageError.
        """
        try:
            found = self._known_template()
        except ServiceDown as error:
            raise UsageError(f"no claim is made: {error.message}", hint=error.hint) from None
        longest = timedelta(seconds=template.deadline_of(found, self.settings.agent_timeout))
        return Place(self._place_id(found), self._host, longest + self.settings.pending_timeout)

    def _place_id(self, found: Object) -> str:
        return f"k8s-{str(found.get('metadata', {}).get('uid') or self.name)[:60]}"

    def owns(self, bead: Bead) -> bool:
        """Return whether the claim names this namespace, or a Job of it is here. One without an answer is not owned."""
        try:
            if bead.jobs_folder == self._place_id(self._known_template()):
                return True
        except (ServiceError, UsageError):
            return bead.jobs_folder.startswith("k8s-")
        job = bead.record.job or bead.record.attempt
        with contextlib.suppress(ServiceError):
            return bool(job) and self._view(job) is not None
        return bead.jobs_folder.startswith("k8s-")

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt for a bead, with what is known of its earlier attempts."""
        text = render(read_template(self.settings.agent_prompt), bead, attempt, describe_earlier(bead, {}))
        return text.replace("\0", "")

    def problem_with(self, bead: Bead) -> str:
        """Return that the bead's prompt is too long, or ""."""
        size = len(self.prompt(bead, bead.id).encode())
        return (
            f"its prompt is too long: {size} of {template.LONGEST_PROMPT} bytes"
            if size > template.LONGEST_PROMPT
            else ""
        )

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Create the attempt's Job. To start it again only says that it was started."""
        try:
            job = self._job(bead, attempt)
        except BdautoError as error:
            return NotStarted(str(error))
        return start(self.cluster, job, self._runtime)

    def _job(self, bead: Bead, attempt: str) -> Object:
        return template.job_of(
            self._known_template(),
            tracker=self._tracker,
            bead=bead.id,
            attempt=attempt,
            assignee=self._assignee,
            prompt=self.prompt(bead, attempt),
            agent_timeout=self.settings.agent_timeout,
        )

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
        return self._looked

    def _view(self, attempt: str, look: Look | None = None) -> JobView | None:
        """Return one Job, also one that a look leaves out since its end is recorded. Raises ServiceError."""
        if look and attempt in look.jobs:
            return look.jobs[attempt]
        if not NAME.fullmatch(template.job_name(attempt)):  # a note may name anything
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
            pods = self.cluster.pods({template.ATTEMPT: job.attempt, **self._labels})
            self._ends[job.attempt] = end_of(
                job, [view for pod in pods if (view := read_pod(pod))], self._runtime.now()
            )
        return self._ends[job.attempt]

    def job_state(self, job: str) -> str | None:
        """Return the state of a Job as it is now, None if there is none. Raises ServiceError."""
        at, known = self._of_bead
        view = known.get(job) if self._runtime.monotonic() - at <= SHORT else None
        view = view or self._view(job)
        return None if view is None or view.tombstone else state_of(view, None)

    def ended(self, jobs: Collection[str]) -> set[str]:
        """Return those of these jobs that have ended, or must be. The look may be some seconds old."""
        with contextlib.suppress(ServiceError):
            look, now = self._look(LOOK_AGE), self._runtime.now()
            seen = {job: look.jobs.get(job) for job in jobs}
            over = {job for job, view in seen.items() if view is None or view.over}
            limit = self.settings.pending_timeout
            late = {job for job, view in seen.items() if view and overdue(view, look.pods.get(job), now, limit)}
            return over | late
        return set()

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the attempts of the bead that have Jobs, the oldest first."""
        with contextlib.suppress(ServiceError):
            return self.jobs_here(bead.id)
        return []

    def jobs_here(self, bead_id: str) -> list[str]:
        """Return the attempts of the bead that have Jobs, the oldest first. Raises ServiceError."""
        labels, at = {**self._labels, template.BEAD_HASH: template.short_hash(bead_id)}, self._runtime.monotonic()
        found = [view for job in self.cluster.jobs(labels) if (view := read_job(job)) and view.bead == bead_id]
        self._of_bead = at, {view.attempt: view for view in found}
        first = datetime.min.replace(tzinfo=UTC)
        return [view.attempt for view in sorted(found, key=lambda view: view.created or first) if not view.tombstone]

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the attempts of the bead whose Jobs have not ended, the oldest first."""
        found = self.jobs_of(bead)
        return [job for job in found if not self._of_bead[1][job].over]

    def output(self, job: str) -> JobOutput:
        """Return the log of a Job's pod."""
        return PodOutput(
            self.cluster, lambda: self.pod_of(job), lambda: self.job_state(job) or "died", self._runtime.monotonic
        )

    def pod_of(self, job: str) -> PodView | None:
        """Return the pod of a Job, None if there is none. Raises ServiceError."""
        pods = self.cluster.pods({template.ATTEMPT: job, **self._labels})
        return by_attempt(view for pod in pods if (view := read_pod(pod))).get(job)

    def unrecorded(self) -> Sequence[tuple[str, Run]]:
        """Return bead and run of each Job of this queue that has ended and is not marked as recorded."""
        with contextlib.suppress(ServiceError):
            jobs = [job for job in self._look(LOOK_AGE).jobs.values() if job.over and not job.tombstone]
            return [(job.bead, ended_run(self._run(job), self._end(job))) for job in jobs if self._is_mine(job)]
        return []

    def _run(self, job: JobView) -> Run:
        return Run(attempt=job.attempt, job=job.attempt, runner=self._host, claimed_at=job.created)

    def _is_mine(self, job: JobView) -> bool:
        return job.assignee == self._assignee and bool(job.bead)

    def mark_recorded(self, job: str, *, deleted: bool) -> None:
        """Let Kubernetes remove the Job after --agent-keep. Only now: its name must be taken until the end is known."""
        keep = max(self.settings.agent_keep, SHORTEST_KEEP)
        patch = {
            "metadata": {"labels": {template.RECORDED: "true"}},
            "spec": {"ttlSecondsAfterFinished": round(keep.total_seconds())},
        }
        with contextlib.suppress(ServiceError):  # the next sweep repeats it
            self.cluster.patch_job(template.job_name(job), patch)
            self._ends.pop(job, None)

    def running_jobs(self) -> list[RunningJob]:
        """Return the Jobs of this queue that have not ended, with why they must. Raises ServiceError."""
        look = self._look(LOOK_AGE)
        jobs = [job for job in look.jobs.values() if not job.over and not job.tombstone and self._is_mine(job)]
        return [self._running_job(job, look.pods.get(job.attempt)) for job in jobs if job.created]

    def _running_job(self, job: JobView, pod: PodView | None) -> RunningJob:
        why = overdue(job, pod, self._runtime.now(), self.settings.pending_timeout)
        if why == PENDING:
            why = f"{PENDING}{self._waits(job, pod)}" if self._late_by_server(job) else ""
        assert job.created is not None
        return RunningJob(job.bead, job.attempt, job.created, give_up=why)

    def _late_by_server(self, job: JobView) -> bool:
        """Return whether a Job waits for too long by the API server's clock as well. That costs a dry run."""
        stone = template.tombstone_of(tracker=self._tracker, bead=job.bead, attempt=f"{job.attempt}-now")
        made = read_job(self.cluster.create_job(stone, dry_run=True))
        now = (made.created if made else None) or self._runtime.now()
        return job.since is not None and now - job.since > self.settings.pending_timeout

    def stop(self, job: str, why: str) -> bool:
        """Ask Kubernetes to end a Job, for this reason. Return False if it does not run."""
        try:
            view = self._view(job)
            if view is None or view.over:
                return False
            return view.stopped != "" or self.cluster.patch_job(view.name, self._ending(view, why))
        except ServiceError:
            return False

    def _ending(self, job: JobView, why: str) -> Object:
        """Return the patch that ends a Job. Its pod is gone then, so what its log says of costs is read before.

        The deadline of a suspended Job does not run, so that is resumed without a pod.
        """
        told = ""
        with contextlib.suppress(ServiceError):
            pod = self.pod_of(job.attempt)
            told = figures(self.cluster, pod, self._runtime.now()) if pod and pod.started else ""
        notes = {template.STOPPED: why, **({template.LAST: told} if told else {})}
        spec = {"activeDeadlineSeconds": 1, **({"suspend": False, "parallelism": 0} if job.suspended else {})}
        return {"metadata": {"annotations": notes}, "spec": spec}

    def check_cancel(self, bead: Bead) -> None:
        """Raise ServiceDrift where the bead's claim names another place."""
        if bead.status == "in_progress" and bead.record.attempt and not self.owns(bead):
            words = f"{bead.id} was claimed by {who_knows(bead)}, which alone can be asked"
            raise ServiceDrift(words, hint="cancel it there")

    def forbid_start(self, bead: Bead) -> None:
        """Take the name of the claim's Job, unless there is one. Raises ServiceError."""
        attempt = bead.record.attempt
        if bead.status != "in_progress" or not attempt or not self.owns(bead):
            return
        try:
            self.cluster.create_job(template.tombstone_of(tracker=self._tracker, bead=bead.id, attempt=attempt))
        except ServiceRefusal as error:
            if error.reason != "AlreadyExists":
                raise

    def cancel(self, job: str, who: str) -> str:
        """Ask Kubernetes to end a Job, and wait until it has. Raises ServiceError when it does not."""
        deadline = self._runtime.monotonic() + CANCEL
        while (state := self._state_now(job)) in ALIVE:
            self.stop(job, f"cancelled by {who}")
            if self._runtime.monotonic() > deadline:
                hint = f"see `kubectl describe job {template.job_name(job)}`"
                raise ServiceDown(f"job {job} does not end", hint=hint)
            self._runtime.sleep(0.5)
        return state

    def _state_now(self, job: str) -> str:
        view = self._view(job)
        return state_of(view, None) if view else "died"
