"""One Kubernetes Job for each attempt. The API server is the lock: of two Jobs of one name it creates one."""

import contextlib
from collections.abc import Callable
from datetime import timedelta

from bdauto.agents.answers import Answer, AtCapacity, NotStarted
from bdauto.agents.kubernetes import template
from bdauto.agents.kubernetes.evidence import JobView
from bdauto.agents.kubernetes.followed_jobs import FollowedJobs
from bdauto.agents.kubernetes.kubernetes_jobs import LOOK_AGE
from bdauto.agents.kubernetes.output import kept, tail
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.kubernetes.start import start
from bdauto.agents.kubernetes.template import Object
from bdauto.agents.prompt import read_template, render
from bdauto.agents.runner import Place, Project
from bdauto.agents.runner_status import AGENT, Capacity, Part, RunnerStatus
from bdauto.common.errors import BdautoError, ServiceDown, ServiceDrift, ServiceError, UsageError
from bdauto.common.extras import EXTRAS, how_to_install, missing
from bdauto.domain.bead import Bead
from bdauto.domain.earlier_attempts import describe_earlier

SHORTEST_KEEP = timedelta(hours=1)
"""A Job is kept for so long after its end at least: a look that began before must not find its name free."""
FULL = 60.0
"""Seconds for which no claim is made after a quota has refused a Job."""


def open_runner(settings: KubernetesSettings, project: Callable[[], Project]) -> "KubernetesAgent":
    """Return what runs the agent. Raises UsageError and BdError, as `project` does."""
    if missing("kubernetes"):
        words = f"--kubernetes-template needs {' and '.join(EXTRAS['kubernetes'])}"
        raise UsageError(words, hint=f"run `{how_to_install('kubernetes')}`")
    from bdauto.agents.kubernetes.cluster import Cluster

    cluster = Cluster(settings.kubernetes_namespace, settings.kubernetes_context)
    found = project()
    return KubernetesAgent(settings, cluster, found.tracker, found.assignee)


class KubernetesAgent(FollowedJobs):
    """Starts Jobs for the beads of one tracker and assignee in one namespace."""

    _template: Object | None = None
    _full: tuple[float, str] = (float("-inf"), "")
    """Until when the namespace counts as full, by the monotonic clock, and the words of its quota."""

    @property
    def name(self) -> str:
        """The name of the template."""
        return self.settings.kubernetes_template or ""

    def status(self) -> RunnerStatus:
        """Return how many slots are free: the Jobs that have not ended are counted, never remembered."""
        try:
            active = [job for job in self._jobs() if not job.over and not job.tombstone]
        except ServiceError as error:
            return RunnerStatus((Part(AGENT, "Kubernetes", error=error),))
        taken, total = len(active), self.settings.agent_slots
        until, full = self._full
        full = full if self._runtime.monotonic() < until else ""
        capacity = Capacity(0 if full else max(total - taken, 0), True, taken, 0, total)
        text = ", ".join(filter(None, (f"{taken} of {total} slots taken", full)))
        return RunnerStatus((Part(AGENT, "Kubernetes", capacity, text=text),))

    def check_start(self, *, dry_run: bool = False) -> None:
        """Read the template and the prompt's template. Raises UsageError if no bead could be started with them."""
        self._template = self.read_template()
        read_template(self.settings.agent_prompt)
        template.checks_of(self.settings)

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
        template.check_template(found, self.settings)
        return found

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
        longest = timedelta(seconds=template.deadline_of(found, self.settings))
        return Place(self._place_id(found), self._host, longest, bool(self.settings.agent_check))

    def _place_id(self, found: Object) -> str:
        return f"k8s-{str(found.get('metadata', {}).get('uid') or self.name)[:60]}"

    def owns(self, bead: Bead) -> bool:
        """Return whether the claim names this namespace, or a Job of it or of its bead is here.

        Without an answer, a claim that names another place is not owned. One that names none may be: an agent can have
        removed the record.
        """
        try:
            if bead.jobs_folder == self._place_id(self._known_template()):
                return True
        except (ServiceError, UsageError):
            return bead.jobs_folder.startswith("k8s-")
        job = bead.record.job or bead.record.attempt
        with contextlib.suppress(ServiceError):
            return bool(self._at_work(self._look(LOOK_AGE), bead.id) or (job and self._view(job)))
        return not bead.jobs_folder or bead.jobs_folder.startswith("k8s-")

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt for a bead, with what is known of its earlier attempts."""
        asked, checked = read_template(self.settings.agent_prompt), bool(self.settings.agent_check)
        return render(asked, bead, attempt, describe_earlier(bead, {}), checked=checked).replace("\0", "")

    def problem_with(self, bead: Bead) -> str:
        """Return that the bead's prompt is too long, or ""."""
        size, most = len(self.prompt(bead, bead.id).encode()), template.LONGEST_PROMPT
        return f"its prompt is too long: {size} of {most} bytes" if size > most else ""

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Create the attempt's Job. To start it again only says that it was started."""
        try:
            job = self._job(bead, attempt)
        except BdautoError as error:
            return NotStarted(str(error))
        answer = start(self.cluster, job, self._runtime)
        self._looked = None  # it does not have this Job
        if isinstance(answer, AtCapacity):  # else each claim, which changes the tracker, would lead to the next
            self._full = self._runtime.monotonic() + FULL, answer.words
        return answer

    def _job(self, bead: Bead, attempt: str) -> Object:
        return template.job_of(
            self._known_template(),
            self.settings,
            tracker=self._tracker,
            bead=bead.id,
            attempt=attempt,
            assignee=self._assignee,
            prompt=self.prompt(bead, attempt),
        )

    def mark_recorded(self, job: str, *, deleted: bool) -> None:
        """Let Kubernetes remove the Job after --agent-keep. Only now: its name must be taken until the end is known."""
        view = self._looked.jobs.get(job) if self._looked else None
        keep = max(self.settings.agent_keep, SHORTEST_KEEP)
        spec = {"ttlSecondsAfterFinished": round(keep.total_seconds())}
        patch = {"metadata": {"labels": {template.RECORDED: "true"}}, "spec": spec}
        with contextlib.suppress(ServiceError):  # the next sweep repeats it
            if view and keep < template.LOG_KEPT:
                self._keep_log(view)
            self.cluster.patch_job(template.job_name(job), patch)
            self._ends.pop(job, None)
            self._ended_pods.pop(job, None)
            if self._looked:
                self._looked.jobs.pop(job, None)

    def _keep_log(self, job: JobView) -> None:
        """Keep the end of a Job's log for longer than the Job, if there is one and it can be read now."""
        pod = self._ended_pods.get(job.attempt)
        with contextlib.suppress(ServiceError):
            log = job.log or (kept(tail(self.cluster, pod)) if pod and pod.started else "")
            if log:
                about = {"tracker": self._tracker, "bead": job.bead, "attempt": job.attempt}
                self.cluster.create_job(template.log_of(**about, state=job.state, log=log))
