"""A bead with the runs of its record, which reports and limits count."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
from msgspec import UNSET

from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.lanes import Lanes
from bdauto.domain.record import DUE, Result, Run


class RunResult(StrEnum):
    """What came of a run: the word for it everywhere (docs/cli.md#what-came-of-a-run).

    Once the end of a run is recorded, nothing that happens to its bead later changes its result.
    """

    running = "running"
    over = "over"
    closed = "closed"
    asks = "asks"
    stopped = "stopped"
    failed = "failed"
    deleted = "deleted"


_End = tuple[str, float | None]


class History(msgspec.Struct, frozen=True):
    """A bead with its runs, the oldest first."""

    bead: Bead
    runs: Sequence[Run]

    @property
    def last(self) -> Run | None:
        """The last run."""
        return self.runs[-1] if self.runs else None

    def is_last(self, run: Run) -> bool:
        """Whether this is the bead's last run."""
        return self.last is not None and run.attempt == self.last.attempt

    @property
    def closed_at(self) -> datetime | None:
        """When the bead was closed. None if it is not closed or was never dispatched."""
        return self.bead.closed_at if self.bead.status == "closed" and self.runs else None

    @property
    def blocked_at(self) -> datetime | None:
        """Since when the bead is blocked: since its last run ended, else since its last change. None if it is not."""
        if self.bead.status != "blocked":
            return None
        return (self.last and self.last.ended_at) or self.bead.updated_at

    def ended_at(self, run: Run) -> datetime | None:
        """When a run ended: as recorded, else for the last run of a closed bead when the bead was closed."""
        return run.ended_at or (self.closed_at if self.is_last(run) else None)

    def seconds(self, run: Run) -> int | None:
        """How long a run took: as recorded, else where no end is recorded from the claim to the closing of the bead."""
        ended_at = self.ended_at(run)
        if run.ended_at or ended_at is None or run.claimed_at is None:
            return run.seconds
        return max(round((ended_at - run.claimed_at).total_seconds()), 0)

    def completed(self, run: Run) -> Run:
        """Return a run with its end and its time as far as they are known."""
        return msgspec.structs.replace(run, ended_at=self.ended_at(run), seconds=self.seconds(run))

    def succeeded(self, run: Run) -> bool:
        """Whether this run closed the bead. One whose check has failed did not: the bead will be opened again.

        Where nothing is recorded of that, the last run of a closed bead did.
        """
        undone = self.bead.record.check == DUE and run.why in (Why.check, Why.review, Why.land)
        last = self.is_last(run) and self.closed_at is not None
        closed = last if run.status is UNSET else run.status == "closed"
        return closed and run.result is not Result.stopped and not undone

    def unsettled(self, run: Run) -> bool:
        """Whether a sweep has yet to say what came of a completed run: it may close the bead."""
        recorded = self.last if self.is_last(run) else None
        waits = recorded is not None and recorded.ended_at is None and self.bead.status != "closed"
        return waits and run.result is Result.completed

    def failed(self, run: Run) -> bool:
        """Whether this run ended without closing the bead, nobody stopped it, and its agent does not ask a person."""
        return not self.succeeded(run) and run.result is not Result.stopped and run.why != Why.question


def result_of(run: Run, history: History | None) -> RunResult:
    """Return what came of a run. Without the history of its bead, which is deleted, nobody knows if it was closed."""
    if run.ended_at is None:
        return RunResult.running
    if history and history.unsettled(run):
        return RunResult.over
    if history and history.succeeded(run):
        return RunResult.closed
    if run.result is Result.stopped:
        return RunResult.stopped
    if run.why == Why.question:
        return RunResult.asks
    return RunResult.failed if history or run.result is not Result.completed else RunResult.deleted


def history_of(bead: Bead) -> History:
    """Return a bead's history."""
    return History(bead, bead.record.all_runs)


def histories_of(beads: Iterable[Bead]) -> list[History]:
    """Return the histories of beads. If several runs have the same end of a job, only the first claimed has a cost.

    Ends are the same if job and cost are: two beads recorded one job, or somebody copied a bead. The times may differ,
    because a sweep uses its own time if the service tells none.
    """
    histories = [history_of(bead) for bead in beads]
    first: dict[_End, tuple[datetime, str, str]] = {}
    for history in histories:
        for run in history.runs:
            rank = _rank(history, run)
            first[_end(run)] = min(rank, first.get(_end(run), rank))

    def counted(history: History, run: Run) -> Run:
        once = not run.job or not run.cost_usd or first[_end(run)] == _rank(history, run)
        return run if once else msgspec.structs.replace(run, cost_usd=0.0)

    return [History(one.bead, [counted(one, run) for run in one.runs]) for one in histories]


def all_runs(beads: Iterable[Bead], here: Iterable[tuple[str, Run]]) -> list[tuple[str, Run]]:
    """Return the id of the bead and the run, for each run of these beads and each that this machine knows itself.

    What this machine knows of a run counts before its record. Of a lost run it knows only until when that may have run,
    so an end that was recorded before then counts. Where neither knows the end of a bead's last run, that is the
    closing of the bead.
    """
    known = {run.attempt: (bead, run) for bead, run in here}
    recorded = [(history, run) for history in histories_of(beads) for run in history.runs]
    found = [(history.bead.id, _merged(history, run, known.pop(run.attempt, None))) for history, run in recorded]
    return [*found, *known.values()]


def runs_of_lanes(
    beads: Iterable[Bead], here: Iterable[tuple[str, Run]], lanes: Lanes, assignee: str
) -> list[tuple[str, Run, bool]]:
    """Return bead, run, and whether that is of the own lane, for each run of the lanes of one file.

    A run names its lane, which keeps it when the bead is given to the queue of another lane. The run of a lane that is
    not in the file is of the queue that its bead was claimed from last.
    """
    queues = {rule.assignee for rule in lanes.rules} or {assignee}
    mine = {bead.id: bead for bead in beads if _queue(bead) in queues}
    found = all_runs(mine.values(), here)
    return [(one, run, lanes.ran(run, _queue(mine[one]) if one in mine else assignee)) for one, run in found]


def _merged(history: History, run: Run, here: tuple[str, Run] | None) -> Run:
    if here is None:
        return history.completed(run)
    told, latest = msgspec.structs.asdict(here[1]), here[1].ended_at
    if here[1].result is Result.lost and run.ended_at and latest and (here[1].claimed_at or latest) <= run.ended_at:
        told["ended_at"] = min(run.ended_at, latest)
    recorded = {"claimed_at"} | ({"why"} if run.why == Why.question else set())  # which only the tracker knows
    known = {name: value for name, value in told.items() if value not in (None, "", UNSET) and name not in recorded}
    return msgspec.structs.replace(run, **known)


def shared_jobs(beads: Iterable[Bead]) -> Mapping[str, Sequence[str]]:
    """Return the jobs that more than one bead records, with the ids of these beads."""
    named: dict[str, dict[str, None]] = {}
    for bead in beads:
        for job in (bead.record.job, *(run.job for run in bead.record.all_runs)):
            named.setdefault(job, {})[bead.id] = None
    return {job: sorted(ids) for job, ids in named.items() if job and len(ids) > 1}


def _end(run: Run) -> _End:
    return run.job, run.cost_usd


def _rank(history: History, run: Run) -> tuple[datetime, str, str]:
    return run.claimed_at or datetime.max.replace(tzinfo=UTC), history.bead.id, run.attempt


def dispatched_for(bead: Bead, assignee: str) -> bool:
    """Whether the bead was claimed from this assignee's queue, even if it is somebody else's by now."""
    return _queue(bead) == assignee


def _queue(bead: Bead) -> str:
    return bead.record.assignee or bead.assignee
