"""Ends jobs on this machine, or keeps them from being started."""

import time

from bdauto.agents.local import supervisor
from bdauto.agents.local.jobs import DIED, RUNNING
from bdauto.agents.local.local_jobs import LocalJobs
from bdauto.common.errors import ServiceDown, ServiceDrift
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import who_knows

PATIENCE = 10.0
"""Seconds to wait, beyond the time between SIGTERM and SIGKILL, for a job that is cancelled."""


class StoppableJobs(LocalJobs):
    """The jobs in the jobs' folder, which a person or a sweep can end."""

    def stop(self, job: str, why: str) -> bool:
        """Ask the job's supervisor to end it, for this reason. Waits for nothing. Return False if it does not run."""
        return self.jobs.stop(job, why)

    def check_cancel(self, bead: Bead) -> None:
        """Raise ServiceDrift where the bead's claim names another place."""
        if bead.status == "in_progress" and bead.record.attempt and not self.owns(bead):
            if not bead.local:
                raise ServiceDrift(f"{bead.id} was handed to an agent service", hint="give --agent-url")
            words = f"{bead.id} was claimed by {who_knows(bead)}, which alone can be asked"
            raise ServiceDrift(words, hint="cancel it there, or name that folder with --agent-jobs")

    def forbid_start(self, bead: Bead) -> None:
        """Keep the claim's job from being started, if it has not been yet. Raises ServiceDown."""
        if bead.status == "in_progress" and bead.record.attempt and self.owns(bead):
            try:
                self.jobs.forbid(bead.record.attempt)
            except OSError as error:
                words = f"a job of {bead.id} may yet be started: {error.strerror or error}"
                raise ServiceDown(words, hint=f"run `bdauto cancel {bead.id}` again") from None

    def cancel(self, job: str, who: str) -> str:
        """Ask the job's supervisor to end it, and wait until it has. Raises ServiceDown when it does not."""
        deadline, asked = time.monotonic() + supervisor.GRACE + PATIENCE, False
        why = f"cancelled by {who}"
        while (state := self.jobs.state(job) or DIED) == RUNNING:
            asked = asked or self.jobs.stop(job, why)
            if time.monotonic() > deadline:
                raise ServiceDown(f"job {job} does not end", hint=f"see {self.jobs.path / job}")
            time.sleep(0.05)
        return state
