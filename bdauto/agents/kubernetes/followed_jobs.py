"""Follows Jobs to their ends: their logs, their checks, and why they must end."""

import contextlib
from collections.abc import Mapping, Sequence

from bdauto.agents.kubernetes import template
from bdauto.agents.kubernetes.evidence import PENDING, JobView, PodView, overdue, read_job, state_of
from bdauto.agents.kubernetes.kubernetes_jobs import LOOK_AGE, KubernetesJobs, created
from bdauto.agents.kubernetes.output import PodOutput, figures, kept, tail
from bdauto.agents.kubernetes.settings import NAME
from bdauto.agents.kubernetes.template import Object
from bdauto.agents.runner import JobOutput
from bdauto.common.errors import ServiceDown, ServiceDrift, ServiceError, ServiceRefusal
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import ALIVE, who_knows
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Run
from bdauto.domain.results import ended_run

CANCEL = 60.0
"""Seconds to wait for a Job that is cancelled: its pod has 30 to end, unless the template says otherwise."""


class FollowedJobs(KubernetesJobs):
    """Reads the logs of Jobs, knows their checks, and ends them. A subclass creates them."""

    def output(self, job: str) -> JobOutput:
        """Return the log of a Job's pod, or what is kept of it once that is gone."""

        def state() -> str:
            remains = None if (found := self.job_state(job)) else self._remains(job)
            return found or (remains.state if remains else "died")

        def kept() -> str:
            remains = self._remains(job)
            return remains.log if remains else ""

        return PodOutput(self.cluster, lambda: self.pod_of(job), state, self._runtime.monotonic, kept)

    def _remains(self, attempt: str) -> JobView | None:
        """Return the Job of an attempt if the end of its log is kept there, else what remains of it."""
        view = self._view(attempt)
        if (view and (view.log or not view.over)) or not NAME.fullmatch(template.log_name(attempt)):
            return view
        found = self.cluster.job(template.log_name(attempt))
        return read_job(found) if found else None

    def unrecorded(self) -> Sequence[tuple[str, Run]]:
        """Return bead and run of each Job of this queue that has ended and is not marked as recorded."""
        with contextlib.suppress(ServiceError):
            jobs = [job for job in self._look(LOOK_AGE).jobs.values() if job.over and not job.tombstone]
            return [(job.bead, ended_run(self._run(job), self._end(job))) for job in jobs if self._is_mine(job)]
        return []

    @property
    def checking(self) -> bool:
        """Whether a Job runs whose check may yet fail."""
        try:
            jobs = self._look(LOOK_AGE).jobs.values()
            return any(job.checks and not job.over and self._is_mine(job) for job in jobs)
        except ServiceError:
            return True

    def unchecked(self) -> dict[str, str]:
        """Return beads whose last Job is to be checked and has not passed, while its end is not recorded.

        Raises ServiceError. Once a pod is over, nothing in it can close a bead any more.
        """
        jobs = [job for job in self._look(LOOK_AGE).jobs.values() if self._is_mine(job) and not job.tombstone]
        last = {job.bead: job for job in sorted(jobs, key=created)}
        return {job.bead: job.attempt for job in last.values() if job.checks and not self._has_passed(job)}

    def passed(self, job: str) -> bool:
        """Return whether a Job has ended and its work has passed all checks. Raises ServiceError."""
        view = self._view(job)
        return view is not None and self._has_passed(view)

    def _has_passed(self, job: JobView) -> bool:
        return job.over and not job.tombstone and self._end(job).checked

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
        return RunningJob(job.bead, job.attempt, job.created, give_up=why, checked=job.checks > 0)

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
            return view.stopped != "" or self.cluster.patch_job(view.name, _ending(view, why, self._tail(job)))
        except ServiceError:
            return False

    def _tail(self, job: str) -> dict[str, str]:
        """Return the annotations that keep what the log of a Job says: of costs, and its last lines."""
        with contextlib.suppress(ServiceError):
            pod = self.pod_of(job)
            lines = [*tail(self.cluster, pod)] if pod and pod.started else []
            return {template.LAST: figures(lines, self._runtime.now()), template.LOG: kept(lines)} if lines else {}
        return {}

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


def _ending(job: JobView, why: str, told: Mapping[str, str]) -> Object:
    """Return the patch that ends a Job. Its pod is gone then, so its annotations keep what its log has `told`.

    The deadline of a suspended Job does not run, so that is resumed without a pod.
    """
    notes = {template.STOPPED: why, **told}
    spec = {"activeDeadlineSeconds": 1, **({"suspend": False, "parallelism": 0} if job.suspended else {})}
    return {"metadata": {"annotations": notes}, "spec": spec}
