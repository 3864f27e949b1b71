"""Checks before a POST whether a job of an earlier attempt, or of somebody else, still runs on the bead."""

from typing import TYPE_CHECKING

from bdauto.agents.named_jobs import NamedJob, Patience, job_in_the_way
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, PartlyDone, ServiceDown
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.claims import Claims
from bdauto.controllers.started_jobs import StartedJob, StartedJobs
from bdauto.domain.bead import Bead
from bdauto.domain.notes import JOB_NOTE
from bdauto.domain.outcome import BeadOutcome

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


class EarlierJobs:
    """Asks about the jobs that a bead names, and claims the bead for one that runs. Every method may raise BdError."""

    def __init__(
        self, bd: Bd, claims: Claims, answers: AnswerHandler, started_jobs: StartedJobs, runtime: Runtime
    ) -> None:
        self._bd = bd
        self._claims = claims
        self._answers = answers
        self._started_jobs = started_jobs
        self._runtime = runtime
        self._patience = Patience()

    def hold_back(self, bead: Bead, runner: "Runner") -> bool:
        """Return True if the bead must not be posted, because a job of it runs or may run. Then it has been reported.

        A job without an answer may run. A job that another bead records belongs to that bead.
        """
        known = self._started_jobs.claim_was_reverted(bead)
        found = job_in_the_way(
            runner,
            bead,
            lambda job: self._bd.recorder_of(job, bead.id),
            self._runtime.now(),
            grace=self._claims.grace,
            extra=known.job if known else "",
            patience=self._patience,
        )
        if found is None or (known and found.job == known.job and not found.runs and _settled(bead, known, found)):
            return False
        if found.runs and not found.owner:
            self._claim(bead, found, known, runner)
        else:
            self._pass_over(bead, found)
        return True

    def _pass_over(self, bead: Bead, found: NamedJob) -> None:
        words = f"{bead.id} is not posted: {found.describe()}"
        error: BdautoError | None = None
        if found.owner:
            error = PartlyDone(words, hint="a job belongs to one bead: run `bdauto explain` on both")
        elif found.error:
            error = ServiceDown(words)
        self._answers.pass_over(bead, found.describe(), found.job, error)

    def _claim(self, bead: Bead, found: NamedJob, known: StartedJob | None, runner: "Runner") -> None:
        """Claim the bead for its job that runs: under the attempt that started it, or under a new one."""
        place = runner.place()
        signed = (
            bool(bead.record.attempt) and not bead.record.job and found.job == bead.signed_job
        )  # after a lost answer
        current = signed or found.job == bead.record.job
        own = bool(place) or current or f"{JOB_NOTE}{found.job}\n" in f"{bead.notes}\n"
        adopt = not own and found.job != bead.record.unclaimed and not (known and found.job == known.job)
        if known is None or found.job != known.job:
            attempt = bead.record.attempt if current else found.job if place else ""
            charged = own and (not place or found.job in (run.attempt for run in bead.record.all_runs))
            attempts = max(bead.record.attempts, 1) if charged else bead.record.attempts + 1
            known = StartedJob(attempt or self._runtime.unique(), attempts, found.job)
        if not self._claims.restore(bead, known, place, adopt=adopt):
            words = f"job {found.job} runs on it, and it changed since it was read: left as it is"
            self._answers.report(bead, BeadOutcome.lost, words, found.job)
        elif adopt:
            words = "its job runs, and bdauto did not start it"
            self._answers.report(bead, BeadOutcome.adopted, words, found.job)
        else:
            self._answers.report(bead, BeadOutcome.reverted, f"job {found.job} runs: the claim is back", found.job)


def _settled(bead: Bead, known: StartedJob, found: NamedJob) -> bool:
    """True: a reaper settled the attempt that this process started, or a person re-armed the bead since."""
    return found.error is None and (bead.record.attempts >= known.attempts or bead.rearmed)
