"""The jobs that agents have signed for, on beads whose dispatcher has not recorded any."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from bdauto.agents.runner import job_evidence
from bdauto.bd.change import as_read, rewrite
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import ServiceError
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import ELSEWHERE, FORGOTTEN, NOT_ASKED, JobEvidence
from bdauto.domain.record import RUNNING, metadata_of

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


class SignedJobs(msgspec.Struct, frozen=True):
    """Asks about the jobs of beads in progress, and records jobs known only from their agents' notes."""

    bd: Bd
    writes: SweepWrites
    runtime: Runtime
    dry_run: bool

    def ask(
        self, runner: "Runner | None", beads: Sequence[Bead]
    ) -> tuple[list[Bead], JobEvidence, ServiceError | None]:
        """Ask about the beads' jobs. Return the beads with new records, the answers, and the error if some are missing.

        A job that an agent has signed for is recorded on its bead if that names none: the POST had an unknown outcome,
        or its dispatcher was killed.
        """
        signed = [bead for bead in beads if _only_signed(bead)] if runner else []
        named = {bead.id: _with_signed_job(bead) for bead in signed}
        evidence, unanswered = job_evidence(runner, [named.get(bead.id, bead) for bead in beads])
        recorded = self._record([bead for bead in signed if _is_known(bead, evidence)])
        void = {bead for bead in named.keys() - recorded.keys() if evidence.states.get(bead) != NOT_ASKED}
        return [recorded.get(bead.id, bead) for bead in beads], evidence.without(void), unanswered

    def _record(self, beads: Sequence[Bead]) -> dict[str, Bead]:
        """Record the jobs that agents have signed for. Return the beads that have them now, by their ids."""
        changes = [
            rewrite(
                bead,
                bead.record.change(job=bead.signed_job, assignee=self.bd.assignee, result=RUNNING),
                act="record signed job of",
                mark=self.runtime.unique(),
                if_status="in_progress",
                if_attempt=bead.record.attempt,
                **as_read(bead),
            )
            for bead in beads
            if not self.bd.recorder_of(bead.signed_job, bead.id)  # another bead's job is not this one's
        ]
        written = self.writes.each(changes)
        done = [change.bead for change, result in zip(changes, written, strict=True) if result is True]
        if self.dry_run:
            return {bead.id: _with_signed_job(bead) for bead in done}
        return {bead.id: bead for bead in (self.bd.read([b.id for b in done]).result().beads if done else ())}


def _only_signed(bead: Bead) -> bool:
    """True: a service's claim has no recorded job, but an agent has signed for one."""
    return bool(bead.record.attempt and bead.signed_job and not bead.record.job and not bead.local)


def _with_signed_job(bead: Bead) -> Bead:
    record = bead.record.change(job=bead.signed_job)
    return msgspec.structs.replace(bead, metadata={**bead.metadata, **metadata_of(record)})


def _is_known(bead: Bead, evidence: JobEvidence) -> bool:
    """True: the service may have the job that an agent has signed for."""
    return evidence.states.get(bead.id, FORGOTTEN) not in (FORGOTTEN, NOT_ASKED, ELSEWHERE)
