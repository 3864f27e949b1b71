"""The runs of the beads, newest first: everything that `bdauto runs` shows."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from bdauto.bd.client import Bd
from bdauto.common.errors import BdFailed, NoSuchBead
from bdauto.common.sanitize import clean
from bdauto.domain.agent_end import Why
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.failures import kind_of_failure
from bdauto.domain.history import History, all_runs, history_of, runs_of_lanes
from bdauto.domain.limits import SLACK
from bdauto.domain.record import Result, Run
from bdauto.domain.results import detail
from bdauto.domain.times import format_time

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


class State(StrEnum):
    """How a run stands. `asks`: it ended with a question to a person. `deleted`: it ended, and its bead is gone.

    `over`: its job completed, and a sweep has not settled its bead yet.
    """

    running = "running"
    over = "over"
    closed = "closed"
    asks = "asks"
    stopped = "stopped"
    failed = "failed"
    deleted = "deleted"


_LONG_AGO = datetime.fromtimestamp(0, UTC)


class ListedRun(msgspec.Struct, frozen=True):
    """One run and its bead, whose `title` is None if the bead is deleted. `how` says in a word or two why it failed."""

    bead: str
    title: str | None
    run: Run
    state: State
    how: str = ""
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
            "state": self.state,
            "result": run.result,
            "why": run.why,
            "cost_usd": run.cost_usd,
            "tokens": run.tokens,
            "turns": run.turns,
            "session": run.session,
            "exit_code": None if run.exit_code is UNSET else run.exit_code,
            "detail": detail(run) or None,
        }


def gather_runs(
    bd: Bd,
    runner: "Runner | None",
    bead_id: str | None,
    since: datetime | None,
    states: Collection[State] = tuple(State),
) -> tuple[list[ListedRun], Sequence[str]]:
    """Return the runs of these states that run or ended after `since`, the newest first, and what cannot be read.

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
    titles = {bead.id: bead.title for bead in beads.values()}
    unread = sorted({bead for bead, _ in here} - titles.keys()) if not bead_id else []
    titles |= {bead.id: bead.title for bead in (bd.read(unread).result().beads if unread else ())}
    histories = {bead.id: history_of(bead) for bead in beads.values()}
    if bead_id:
        mine = all_runs(beads.values(), here)
    else:
        mine = [(bead, run) for bead, run, own in runs_of_lanes(beads.values(), here, bd.lanes, bd.assignee) if own]
    runs = [_listed(bead, titles.get(bead), histories.get(bead), run) for bead, run in mine]
    wanted = (one for one in runs if one.state in states)
    return newest(one for one in wanted if one.run.ended_at is None or one.run.ended_at > moment), found.malformed


def _listed(bead: str, title: str | None, history: History | None, run: Run) -> ListedRun:
    state = _state(title, history, run)
    how = kind_of_failure(history, run) if history and state is State.failed else ""
    return ListedRun(bead, title, run, state, how, run.lane or DEFAULT_LANE)


def _state(title: str | None, history: History | None, run: Run) -> State:
    """Judge a run as the report does. A run that only this machine knows has no history."""
    if run.ended_at is None:
        return State.running
    if history and _unsettled(history, run):
        return State.over
    if history and history.succeeded(run):
        return State.closed
    if run.result is Result.stopped:
        return State.stopped
    if run.why == Why.question:
        return State.asks
    return State.deleted if title is None else State.failed


def _unsettled(history: History, run: Run) -> bool:
    """Return whether a sweep has yet to say what came of a completed run: it may close the bead."""
    recorded = history.last if history.is_last(run) else None
    waits = recorded is not None and recorded.ended_at is None and history.bead.status != "closed"
    return waits and run.result is Result.completed


def newest(runs: Iterable[ListedRun]) -> list[ListedRun]:
    """Return runs with the newest first."""
    return sorted(runs, key=lambda one: (one.run.claimed_at or _LONG_AGO, one.run.attempt), reverse=True)
