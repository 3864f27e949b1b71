"""The runs of the beads, newest first: everything that `bdauto runs` shows."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from bdauto.bd.client import Bd
from bdauto.common.errors import BdFailed, NoSuchBead
from bdauto.common.sanitize import clean
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.failures import why_not
from bdauto.domain.history import History, RunResult, all_runs, history_of, result_of, runs_of_lanes
from bdauto.domain.limits import SLACK
from bdauto.domain.record import Run
from bdauto.domain.times import format_time

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


_LONG_AGO = datetime.fromtimestamp(0, UTC)


class ListedRun(msgspec.Struct, frozen=True):
    """One run and its bead, whose `title` is None if the bead is deleted. `why` says why it did not close its bead."""

    bead: str
    title: str | None
    run: Run
    result: RunResult
    why: str = ""
    lane: str = DEFAULT_LANE

    def as_json(self) -> dict[str, Any]:
        """Return the run as docs/cli.md describes it."""
        run = self.run
        return {
            "bead": self.bead,
            "title": self.title,
            "attempt": run.attempt,
            "job": run.job or None,
            "lane": self.lane,
            "runner": run.runner,
            "agent": run.agent,
            "began": format_time(run.claimed_at) if run.claimed_at else None,
            "ended": format_time(run.ended_at) if run.ended_at else None,
            "seconds": run.seconds,
            "result": self.result,
            "why": run.why,
            "cost_usd": run.cost_usd,
            "tokens": run.tokens,
            "turns": run.turns,
            "session": run.session,
            "exit_code": None if run.exit_code is UNSET else run.exit_code,
            "detail": self.why or run.words or None,
        }


def gather_runs(
    bd: Bd,
    runner: "Runner | None",
    bead_id: str | None,
    since: datetime | None,
    results: Collection[RunResult] = tuple(RunResult),
) -> tuple[list[ListedRun], Sequence[str]]:
    """Return the runs with these results that run or ended after `since`, the newest first, and what cannot be read.

    They come from the beads, and from this machine's jobs even if their beads are deleted. Raises BdError.
    """
    moment = since or _LONG_AGO
    found = (bd.read([bead_id]) if bead_id else bd.changed_since(max(moment - SLACK, _LONG_AGO))).result()
    beads = {bead.id: bead for bead in found.beads}
    here = [(bead, run) for bead, run in (runner.recent_runs(moment) if runner else ()) if bead_id in (None, bead)]
    if bead_id and not beads and not here:
        if found.malformed:
            raise BdFailed(f"{clean(bead_id, 60)} cannot be read: {found.malformed[0]}")
        raise NoSuchBead(f"no bead {clean(bead_id, 60)} in this database", hint="`bd list` shows what there is")
    unread = sorted({bead for bead, _ in here} - beads.keys()) if not bead_id else []
    known = [*beads.values(), *(bd.read(unread).result().beads if unread else ())]
    histories = {bead.id: history_of(bead) for bead in known}
    if bead_id:
        mine = all_runs(beads.values(), here)
    else:
        mine = [(bead, run) for bead, run, own in runs_of_lanes(beads.values(), here, bd.lanes, bd.assignee) if own]
    runs = [_listed(bead, histories.get(bead), run) for bead, run in mine]
    wanted = (one for one in runs if one.result in results)
    return newest(one for one in wanted if one.run.ended_at is None or one.run.ended_at > moment), found.malformed


def listed_run(history: History, run: Run) -> ListedRun:
    """Return a run of a bead's record as `bdauto runs` lists it."""
    return _listed(history.bead.id, history, history.completed(run))


def _listed(bead: str, history: History | None, run: Run) -> ListedRun:
    title, result = history.bead.title if history else None, result_of(run, history)
    return ListedRun(bead, title, run, result, why_not(history, run), run.lane or DEFAULT_LANE)


def newest(runs: Iterable[ListedRun]) -> list[ListedRun]:
    """Return runs with the newest first."""
    return sorted(runs, key=lambda one: (one.run.claimed_at or _LONG_AGO, one.run.attempt), reverse=True)
