"""Stops the jobs of this machine whose beads were changed by somebody other than their agents."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bdauto.bd.client import Bd
from bdauto.bd.edit_log import recorded_edits
from bdauto.common.clock import Runtime
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import BeadOutcome, BeadReport
from bdauto.domain.reconcile import Decision, Fate, RunningJob, decide, differences
from bdauto.domain.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


class Reconciler:
    """Compares running jobs with their beads. A process that looks often names each unclear case once.

    `due` is when the time alone may end a job, as of the last look. None: never.
    """

    def __init__(
        self, bd: Bd, settings: DispatchSettings | None, linger: timedelta, runtime: Runtime, *, dry_run: bool = False
    ) -> None:
        """Take the settings that say which beads are dispatched, None if they are not known here."""
        self._bd = bd
        self._settings = settings
        self._linger = linger
        self._runtime = runtime
        self._dry_run = dry_run
        self._named: set[tuple[str, str]] = set()
        self.due: datetime | None = None

    def look(self, runner: "Runner", *, stop_all: str = "") -> list[BeadReport]:
        """Decide about each running job and ask for the end of those that must stop. Raises BdError.

        Return a report of each job that is asked to end, and of what is unclear and was not reported before. With
        `stop_all`, which says why, every job is stopped. Nothing waits for their ends.
        """
        self.due = None
        running = runner.running_jobs()
        if not running:
            return []
        if not stop_all:
            decisions = self._decide(running)
        else:
            decisions = [Decision(one, Fate.stopped, stop_all) for one in running]
        self.due = min((one.due for one in decisions if one.due), default=None)
        return [report for decision in decisions if (report := self._act(runner, decision))]

    def _decide(self, running: Sequence[RunningJob]) -> list[Decision]:
        found = self._bd.read(sorted({one.bead for one in running})).result()
        beads = {bead.id: bead for bead in found.beads}
        known = [one for one in running if one.bead in beads or not found.malformed]
        known = [one for one in known if one.bead not in beads or self._is_mine(beads[one.bead])]
        changed = sorted({one.bead for one in known if one.bead in beads and self._differs(beads[one.bead], one)})
        edits = recorded_edits(self._bd, changed) if changed else []
        assignee, now = self._bd.assignee, self._runtime.now()
        return [
            decide(one, bead, edits, assignee, self._wanted(bead, one), linger=self._linger, now=now)
            for one in known
            for bead in [beads.get(one.bead)]
        ]

    def _differs(self, bead: Bead, running: RunningJob) -> bool:
        return any(differences(bead, running, self._bd.assignee, self._wanted(bead, running)))

    def _is_mine(self, bead: Bead) -> bool:
        """Whether this lane looks after the job of a bead: no other lane has claimed that."""
        return not bead.record.attempt or self._bd.lanes.claimed(bead)

    def _wanted(self, bead: Bead | None, running: RunningJob) -> DispatchSettings | None:
        """Return the settings by which the bead was chosen. They may be those of a lane that falls back on this one."""
        if self._settings is None or bead is None:
            return self._settings
        others = [path[0].wants for path in self._bd.lanes.fallen_back()]
        for settings in (self._settings, *others) if others else ():
            found = differences(bead, running, self._bd.assignee, settings)
            if not any(one.field in ("label", "issue_type") for one in found):
                return settings
        return self._settings

    def _act(self, runner: "Runner", decision: Decision) -> BeadReport | None:
        """Carry out a decision. Return a report of it if it is worth one."""
        bead, job, why = decision.running.bead, decision.running.job, decision.why
        if decision.fate is Fate.stopped and (self._dry_run or runner.stop(job, why)):
            return BeadReport(bead, BeadOutcome.stopping, job, why)
        if decision.fate is Fate.unclear and (job, why) not in self._named:
            self._named.add((job, why))
            return BeadReport(bead, BeadOutcome.unclear, job, f"{why}: its job goes on")
        return None
