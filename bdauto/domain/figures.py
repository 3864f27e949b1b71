"""The figures of a report, from beads alone: what was dispatched, closed, failed, how long it took, what it cost.

The last run of a closed bead succeeded, whatever its job's exit status says. Every other run that ended failed, unless
somebody stopped it. Days
are days in UTC.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from bdauto.domain.bead import Bead
from bdauto.domain.history import History, dispatched_for, histories_of
from bdauto.domain.record import Result, Run


class Window(msgspec.Struct, frozen=True):
    """A stretch of time: its start belongs to it, its end does not."""

    since: datetime
    until: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment < self.until

    def days(self) -> list[str]:
        """Return the days that the window touches, e.g. `2026-04-18`."""
        first, last = (moment.astimezone(UTC).date() for moment in (self.since, self.until))
        return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


class Spread(msgspec.Struct, frozen=True, rename=lambda name: name if name == "count" else f"{name}_seconds"):
    """How some durations spread, in seconds: how many there are, the median, the 90th percentile and the longest."""

    count: int = 0
    p50: int | None = None
    p90: int | None = None
    max: int | None = None


def spread(values: Iterable[int]) -> Spread:
    """Return the spread of values. The p-th percentile is the smallest value that p per cent do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return Spread()
    p50, p90 = (ordered[math.ceil(len(ordered) * percent / 100) - 1] for percent in (50, 90))
    return Spread(len(ordered), p50, p90, ordered[-1])


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a window.

    `costed` counts the ended runs with a known cost. `cost_usd` is their sum, or None without any.
    """

    dispatched: int = 0
    closed: int = 0
    closed_first: int = 0
    blocked: int = 0
    quarantined: int = 0
    ended: int = 0
    failed: int = 0
    stopped: int = 0
    waiting: Spread = Spread()
    running: Spread = Spread()
    cost_usd: float | None = None
    costed: int = 0

    @property
    def cost_per_closed(self) -> float | None:
        """The cost of all runs per closed bead. None without a cost or a closed bead."""
        return round(self.cost_usd / self.closed, 4) if self.cost_usd is not None and self.closed else None


Names = Callable[[History, datetime], Iterable[str]]
"""Says under which names something that happened to a bead at a moment is counted."""


def by_day(_history: History, moment: datetime) -> Iterable[str]:
    """Count by day."""
    return (moment.astimezone(UTC).date().isoformat(),)


def by_label(history: History, _moment: datetime) -> Iterable[str]:
    """Count under each label of a bead."""
    return history.bead.labels or ("",)


def by_type(history: History, _moment: datetime) -> Iterable[str]:
    """Count by type."""
    return (history.bead.issue_type,)


def by_creator(history: History, _moment: datetime) -> Iterable[str]:
    """Count by creator."""
    return (history.bead.created_by,)


def altogether(_history: History, _moment: datetime) -> Iterable[str]:
    """Count everything under one name."""
    return ("",)


def figures(histories: Iterable[History], window: Window, names: Names) -> dict[str, Figures]:
    """Return the figures of what happened in a window, under each name."""
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)

    def at(history: History, moment: datetime | None) -> list[_Tally]:
        return [tallies[name] for name in names(history, moment)] if moment and moment in window else []

    for history in histories:
        for run in history.runs:
            for tally in at(history, run.claimed_at):
                tally.dispatched(history.bead.record.waited if run is history.last else None)
            for tally in at(history, history.ended_at(run)):
                tally.ended(run, history)
        for tally in at(history, history.closed_at):
            tally.closed(first=len(history.runs) == 1)
        for tally in at(history, None if history.bead.record.cancelled else history.blocked_at):
            tally.blocked(quarantined=bool(history.bead.record.quarantined))
    return {name: tally.figures() for name, tally in tallies.items()}


def figures_since(moment: datetime, beads: Iterable[Bead], assignee: str, now: datetime) -> Figures:
    """Return the figures from then until now, of beads that were changed since then.

    The tracker rounds its times to whole seconds, so what happened just now may be dated half a second ahead.
    """
    histories = histories_of(bead for bead in beads if dispatched_for(bead, assignee))
    return figures(histories, Window(moment, now + timedelta(seconds=1.5)), altogether).get("", Figures())


@dataclass
class _Tally:
    """What is counted towards one set of figures."""

    counts: Counter[str] = field(default_factory=Counter)
    waited: list[int] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def dispatched(self, waited: int | None) -> None:
        self.counts["dispatched"] += 1
        if waited is not None:
            self.waited.append(waited)

    def ended(self, run: Run, history: History) -> None:
        seconds = history.seconds(run)
        self.counts["ended"] += 1
        self.counts["failed"] += history.failed(run)
        self.counts["stopped"] += run.result is Result.stopped
        if seconds is not None:
            self.ran.append(seconds)
        if run.cost_usd is not None:
            self.costs.append(run.cost_usd)

    def closed(self, *, first: bool) -> None:
        self.counts["closed"] += 1
        self.counts["closed_first"] += first

    def blocked(self, *, quarantined: bool) -> None:
        self.counts["quarantined" if quarantined else "blocked"] += 1

    def figures(self) -> Figures:
        return Figures(
            **self.counts,
            waiting=spread(self.waited),
            running=spread(self.ran),
            cost_usd=round(sum(self.costs), 4) if self.costs else None,
            costed=len(self.costs),
        )
