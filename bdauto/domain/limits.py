"""How many beads may be dispatched in a day, for how much money, and in which hours."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bdauto.domain.agent_end import OF_SERVICE
from bdauto.domain.bead import Bead
from bdauto.domain.lanes import Lanes
from bdauto.domain.results import format_cost
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time

if TYPE_CHECKING:
    from bdauto.domain.record import Run

DAY = timedelta(days=1)
SLACK = timedelta(hours=1)
"""How far the clocks of those who write beads may be apart, and no bead is missed for it."""
LOOK_BACK = DAY + SLACK
"""How far back beads are read. What was dispatched in the last day was changed in it, by a clock that may be off."""


class Limit(msgspec.Struct, frozen=True):
    """A limit that is reached: what it is, and when dispatching goes on. None: once running jobs have ended."""

    words: str
    until: datetime | None

    def describe(self) -> str:
        """Describe it in one line."""
        return f"{self.words}; goes on {f'at {format_time(self.until)}' if self.until else 'when jobs have ended'}"


def counts_beads(settings: DispatchSettings) -> bool:
    """Whether a limit is set that takes a look at the tracker."""
    return any(
        limit is not None
        for limit in (
            settings.max_per_day,
            settings.max_cost_per_day,
            settings.per_day_of_all,
            settings.cost_per_day_of_all,
        )
    )


def outside_hours(settings: DispatchSettings, now: datetime) -> Limit | None:
    """Return the limit if this is not one of the active hours."""
    hours = settings.active_hours
    if hours is None or hours.contain(now):
        return None
    return Limit(f"outside the active hours {hours}", hours.next(now))


def reached(
    beads: Iterable[Bead],
    settings: DispatchSettings,
    assignee: str,
    now: datetime,
    here: Sequence[tuple[str, "Run"]] = (),
    lanes: Lanes | None = None,
) -> Limit | None:
    """Return the limit that the last 24 hours have reached, or None. Of two limits, the one that lasts longer.

    `beads` are those that were changed since LOOK_BACK, whoever has them. `here` are the runs that this machine knows
    itself, since an agent may have removed its bead or its record. Of several `lanes`, the own one's runs count, and
    those of all for what limits them together.
    """
    from bdauto.domain.history import runs_of_lanes  # only who sets a limit waits for it

    lanes = lanes or Lanes()
    all_runs = runs_of_lanes(beads, here, lanes, assignee)
    runs = [run for _, run, own in all_runs if own]
    found = [
        _by_number(runs, settings.max_per_day, now),
        _by_cost(runs, settings.max_cost_per_day, settings, now),
    ]
    if lanes.rules:
        runs = [run for _, run, _ in all_runs]
        found.append(_for_all(_by_number(runs, settings.per_day_of_all, now)))
        found.append(_for_all(_by_cost(runs, settings.cost_per_day_of_all, settings, now)))
    limits = [limit for limit in found if limit]
    return max(limits, key=lambda limit: limit.until or now + DAY) if limits else None


def _for_all(limit: Limit | None) -> Limit | None:
    return limit and msgspec.structs.replace(limit, words=f"all lanes: {limit.words}")


def _by_number(runs: Iterable["Run"], most: int | None, now: datetime) -> Limit | None:
    claims = sorted(run.claimed_at for run in runs if run.claimed_at and _lately(run.claimed_at, now))
    if most is None or len(claims) < most:
        return None
    return Limit(f"{len(claims)} dispatched in 24 hours, at most {most}", claims[len(claims) - most] + DAY)


def _by_cost(runs: Sequence["Run"], most: float | None, settings: DispatchSettings, now: datetime) -> Limit | None:
    """Add up what the runs of the last day cost.

    One that does not say, or still runs, counts with `cost_per_run`, else with the mean. Where no run says its cost,
    the limit cannot be held, so it counts as reached.
    """
    if most is None:
        return None
    recent = [run for run in runs if run.ended_at is None or _lately(run.ended_at, now)]
    known = [run.cost_usd for run in recent if run.cost_usd is not None]
    if settings.cost_per_run is None and not known and (silent := [*filter(None, map(_silent, recent))]):
        words = f"no run of the last 24 hours said its cost, so {format_cost(most)} a day cannot be held"
        return Limit(f"{words}: give --cost-per-run USD", max(silent) + DAY)
    mean = sum(known) / len(known) if known else 0.0
    mean = mean if settings.cost_per_run is None else settings.cost_per_run
    counted = [run for run in recent if _counts(run, now)]
    costs = [(run.ended_at, mean if run.cost_usd is None else run.cost_usd) for run in counted]
    total = sum(cost for _, cost in costs)
    if total < most:
        return None
    until, left = None, total
    for ended_at, cost in sorted((ended_at, cost) for ended_at, cost in costs if ended_at):
        left -= cost
        if left < most:
            until = ended_at + DAY
            break
    guess = mean * sum(run.cost_usd is None for run in counted)
    estimate = f", {format_cost(guess)} of it estimated" if guess else ""
    return Limit(f"{format_cost(round(total, 4))} spent in 24 hours{estimate}, at most {format_cost(most)}", until)


def _silent(run: "Run") -> datetime | None:
    """Return when a run ended that cost something and did not say what. None for any other.

    An agent that was not started, or whose service failed, may have cost nothing.
    """
    free = run.result == "error" or (run.why is not None and run.why in OF_SERVICE)
    return None if free or run.cost_usd is not None else run.ended_at


def _counts(run: "Run", now: datetime) -> bool:
    """Whether a run costs something of this day: it ended in it, or was dispatched in it and runs."""
    return run.ended_at is not None or bool(run.claimed_at and _lately(run.claimed_at, now))


def _lately(moment: datetime, now: datetime) -> bool:
    """Whether a moment is in the last 24 hours. What a wrong clock dated further ahead than SLACK is not believed."""
    return now - DAY < moment <= now + SLACK
