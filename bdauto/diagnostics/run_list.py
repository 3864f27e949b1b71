"""The runs of the beads, newest first: everything that `bdauto runs` shows."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto.bd.client import Bd
from bdauto.domain.limits import SLACK
from bdauto.domain.record import Run
from bdauto.domain.runs import all_runs, dispatched_for
from bdauto.domain.times import format_time
from bdauto.errors import BdFailed, NoSuchBead
from bdauto.sanitize import clean

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

LANE = "default"
"""The only lane that there is."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)


class ListedRun(msgspec.Struct, frozen=True):
    """One run and its bead, whose `title` is None if the bead is deleted."""

    bead: str
    title: str | None
    run: Run

    def as_json(self) -> dict[str, Any]:
        """Return the run as docs/cli.md describes it."""
        run = self.run
        return {
            "bead": self.bead,
            "title": self.title,
            "attempt": run.attempt,
            "job": run.job or None,
            "lane": LANE,
            "runner": run.runner,
            "agent": run.agent,
            "began": format_time(run.claimed_at) if run.claimed_at else None,
            "ended": format_time(run.ended_at) if run.ended_at else None,
            "seconds": run.seconds,
            "result": run.result,
            "why": run.why,
            "cost_usd": run.cost_usd,
            "tokens": run.tokens,
            "turns": run.turns,
            "session": run.session,
            "detail": run.words or None,
        }


def gather_runs(
    bd: Bd, runner: "Runner | None", bead_id: str | None, since: datetime | None
) -> tuple[list[ListedRun], Sequence[str]]:
    """Return the runs that run or ended after `since`, the newest first, and what bd has that cannot be read.

    They come from the beads, and from this machine's jobs even if their beads are deleted. Raises BdError.
    """
    moment = since or _LONG_AGO
    found = (bd.read([bead_id]) if bead_id else bd.changed_since(max(moment - SLACK, _LONG_AGO))).result()
    beads = {bead.id: bead for bead in found.beads}
    mine = beads.values() if bead_id else [b for b in beads.values() if dispatched_for(b, bd.assignee)]
    here = [(bead, run) for bead, run in (runner.recent_runs(moment) if runner else ()) if bead_id in (None, bead)]
    if bead_id and not beads and not here:
        if found.malformed:
            raise BdFailed(f"{clean(bead_id, 60)} cannot be read: {found.malformed[0]}")
        raise NoSuchBead(f"no bead {clean(bead_id, 60)} in this database", hint="`bd list` shows what there is")
    titles = {bead.id: bead.title for bead in beads.values()}
    unread = sorted({bead for bead, _ in here} - titles.keys()) if not bead_id else []
    titles |= {bead.id: bead.title for bead in (bd.read(unread).result().beads if unread else ())}
    runs = [ListedRun(bead, titles.get(bead), run) for bead, run in all_runs(mine, here)]
    return _newest(run for run in runs if run.run.ended_at is None or run.run.ended_at > moment), found.malformed


def _newest(runs: Iterable[ListedRun]) -> list[ListedRun]:
    return sorted(runs, key=lambda one: (one.run.claimed_at or _LONG_AGO, one.run.attempt), reverse=True)
