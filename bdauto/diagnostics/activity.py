"""What became of the beads lately: everything that `bdauto report` shows, from two reads of the tracker."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bdauto.bd.client import Bd
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.eligibility import Verdict, verdict
from bdauto.domain.failures import Reason, never_started, reasons
from bdauto.domain.figures import (
    Figures,
    Names,
    Window,
    altogether,
    by_creator,
    by_day,
    by_label,
    by_type,
    figures,
)
from bdauto.domain.history import History, RunResult, dispatched_for, histories_of, result_of
from bdauto.domain.lanes import Lanes
from bdauto.domain.limits import SLACK
from bdauto.domain.record import Run
from bdauto.domain.settings import By, DispatchSettings
from bdauto.domain.times import format_time

TOP = 5
"""Beads in each of the lists."""


NAMES: Mapping[By, Names] = {By.day: by_day, By.label: by_label, By.type: by_type, By.creator: by_creator}


@dataclass(frozen=True)
class Extreme:
    """A bead that took long or cost much, with its runs that ended in the window."""

    bead: Bead
    runs: int
    seconds: int | None
    cost_usd: float | None


@dataclass(frozen=True)
class Waiting:
    """A bead that waits now, since when, and the verdict on it."""

    verdict: Verdict
    seconds: int

    @property
    def bead(self) -> Bead:
        """The bead."""
        return self.verdict.bead


@dataclass(frozen=True)
class Activity:
    """All of a report. `groups` has the figures by name: of the days in order, of anything else the busiest first."""

    window: Window
    by: By
    total: Figures
    days: Mapping[str, Figures]
    groups: Mapping[str, Figures]
    results: Mapping[str, int]
    reasons: Sequence[Reason]
    never_started: Sequence[Reason]
    slowest: Sequence[Extreme]
    dearest: Sequence[Extreme]
    waiting: Sequence[Waiting]
    malformed: Sequence[str]


def gather_activity(bd: Bd, settings: DispatchSettings, since: datetime, by: By, now: datetime) -> Activity:
    """Read what changed since then and what is ready, and make the report of it. Raises BdError."""
    # The tracker rounds its times to whole seconds, so what happened just now may be dated up to half a second ahead.
    end = (now + timedelta(seconds=1.5)).replace(microsecond=0)
    window = Window(end - (now - since), end)
    calls = bd.changed_since(window.since - SLACK), bd.ready(limit=0)
    try:
        changed, ready = (call.result() for call in calls)
    finally:
        for call in calls:
            call.kill()
    return activity(changed, ready, bd.assignee, settings, window, by, bd.lanes)


def activity(
    changed: BeadList,
    ready: BeadList,
    assignee: str,
    settings: DispatchSettings,
    window: Window,
    by: By,
    lanes: Lanes | None = None,
) -> Activity:
    """Make the report of the beads that changed in a window and of those that bd calls ready at its end.

    Of several lanes, a bead counts for the one that has run it last, or that it waits for.
    """
    lanes = lanes or Lanes()
    histories = histories_of(bead for bead in changed.beads if dispatched_for(bead, assignee))
    histories = [one for one in histories if (lanes.ran(one.last, assignee) if one.last else lanes.has(one.bead))]
    total = figures(histories, window, altogether).get("", Figures())
    counted = figures(histories, window, by_day)
    days = {day: counted.get(day, Figures()) for day in window.days()}
    ended = [
        (moment, history, run)
        for history in histories
        for run in history.runs
        if (moment := history.ended_at(run)) and moment in window
    ]
    ended.sort(key=lambda entry: entry[0], reverse=True)
    extremes = _extremes(ended)
    beads = {bead.id: bead for bead in (*changed.beads, *ready.beads)}
    return Activity(
        window=window,
        by=by,
        total=total,
        days=days,
        groups=days if by is By.day else _busiest(figures(histories, window, NAMES[by])),
        results=_results((history, run) for _, history, run in ended),
        reasons=reasons((history, run) for _, history, run in ended),
        never_started=never_started(histories, window),
        slowest=_top(extremes, lambda extreme: extreme.seconds),
        dearest=_top(extremes, lambda extreme: extreme.cost_usd),
        waiting=_waiting(beads.values(), {bead.id for bead in ready.beads}, assignee, settings, window.until, lanes),
        malformed=sorted({*changed.malformed, *ready.malformed}),
    )


EndedRun = tuple[datetime, History, Run]


def _results(ended: Iterable[tuple[History, Run]]) -> dict[str, int]:
    counts = Counter(result_of(history.completed(run), history) for history, run in ended)
    return {result.value: counts[result] for result in RunResult if counts[result]}


def _busiest(groups: Mapping[str, Figures]) -> dict[str, Figures]:
    return dict(sorted(groups.items(), key=lambda item: (-item[1].dispatched, -item[1].closed, item[0])))


def _extremes(ended: Iterable[EndedRun]) -> list[Extreme]:
    runs: dict[str, list[tuple[History, Run]]] = {}
    for _, history, run in ended:
        runs.setdefault(history.bead.id, []).append((history, run))
    return [_extreme(entries[0][0], [run for _, run in entries]) for entries in runs.values()]


def _extreme(history: History, runs: Sequence[Run]) -> Extreme:
    seconds = [took for run in runs if (took := history.seconds(run)) is not None]
    costs = [run.cost_usd for run in runs if run.cost_usd is not None]
    return Extreme(history.bead, len(runs), sum(seconds) if seconds else None, round(sum(costs), 4) if costs else None)


def _top(extremes: Iterable[Extreme], value: Callable[[Extreme], float | None]) -> list[Extreme]:
    known = [extreme for extreme in extremes if value(extreme)]
    return sorted(known, key=lambda extreme: (-(value(extreme) or 0), extreme.bead.id))[:TOP]


def _waiting(
    beads: Iterable[Bead], ready: set[str], assignee: str, settings: DispatchSettings, now: datetime, lanes: Lanes
) -> list[Waiting]:
    mine = [bead for bead in beads if bead.status == "open" and bead.assignee == assignee and lanes.has(bead)]
    first = sorted(mine, key=lambda bead: (-_waited(bead, now), bead.id))[:TOP]
    return [
        Waiting(verdict(bead, bead.id in ready, assignee, settings, now, lanes), _waited(bead, now)) for bead in first
    ]


def _waited(bead: Bead, now: datetime) -> int:
    return max(int((now - bead.waiting_since).total_seconds()), 0)


def as_json(activity: Activity) -> dict[str, Any]:
    """Return a report as docs/report.md describes it."""
    return {
        "since": format_time(activity.window.since),
        "until": format_time(activity.window.until),
        "by": activity.by,
        "total": _figures_json(activity.total),
        "results": dict(activity.results),
        "days": [{"day": day, **_figures_json(figures)} for day, figures in activity.days.items()],
        "groups": [{"name": name or None, **_figures_json(figures)} for name, figures in activity.groups.items()],
        "reasons": msgspec.to_builtins(activity.reasons),
        "never_started": msgspec.to_builtins(activity.never_started),
        "slowest": [_extreme_json(extreme) for extreme in activity.slowest],
        "dearest": [_extreme_json(extreme) for extreme in activity.dearest],
        "waiting": [
            {
                "id": waiting.bead.id,
                "title": waiting.bead.title,
                "priority": waiting.bead.priority,
                "seconds": waiting.seconds,
                "eligible": waiting.verdict.eligible,
                "reason": waiting.verdict.reason or None,
            }
            for waiting in activity.waiting
        ],
        "malformed": list(activity.malformed),
    }


def _figures_json(figures: Figures) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(figures)
    return fields | {"cost_per_closed_usd": figures.cost_per_closed}


def _extreme_json(extreme: Extreme) -> dict[str, Any]:
    return {
        "id": extreme.bead.id,
        "title": extreme.bead.title,
        "runs": extreme.runs,
        "seconds": extreme.seconds,
        "cost_usd": extreme.cost_usd,
    }
