"""Says on a bead that an agent service goes on with its job, though somebody has taken the bead from the agent."""

from collections.abc import Iterable

from bdauto.bd.change import Change, mark_of
from bdauto.bd.client import Bd
from bdauto.bd.edit_log import recorded_edits
from bdauto.common.clock import Runtime
from bdauto.common.sanitize import clean
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.domain.bead import Bead
from bdauto.domain.edits import author
from bdauto.domain.reaping import ALIVE, JobEvidence
from bdauto.domain.reconcile import Difference, RunningJob, differences
from bdauto.domain.record import Run


def note_unstoppable(
    bd: Bd, writes: SweepWrites, runtime: Runtime, runs: Iterable[tuple[Bead, Run]], evidence: JobEvidence
) -> None:
    """Note once on each bead of these runs that its job goes on. Raises BdError."""
    alive = [(bead, run) for bead, run in runs if not run.local and evidence.states.get(bead.id) in ALIVE]
    taken = [(bead, run) for bead, run in alive if _goes_on(run) not in bead.notes and _differs(bead, run, bd.assignee)]
    edits = recorded_edits(bd, [bead.id for bead, _ in taken])
    for bead, run in taken:
        for one in _differs(bead, run, bd.assignee):
            who = author(edits, bead.id, one.field, one.value)
            if who in (None, bd.assignee):
                continue
            words = f"{_goes_on(run)}: {clean(str(who), 60)} {one.did}, and an agent service cannot end a job"
            change = Change(
                bead=bead, act="note the going job of", mark=runtime.unique(), note=words, if_mark=mark_of(bead)
            )
            writes.each([change])
            break


def _goes_on(run: Run) -> str:
    return f"job {run.job or run.attempt} goes on"


def _differs(bead: Bead, run: Run, assignee: str) -> list[Difference]:
    running = RunningJob(bead.id, run.job or run.attempt, run.claimed_at or bead.updated_at)
    return [*differences(bead, running, assignee)]
