"""What a day costs, from what one tick costs."""

from dataclasses import dataclass

from benchmarks.page import table
from benchmarks.watching import Costs

DAY = 86_400
DISPATCH_TICKS, REAP_TICKS = DAY // 120, DAY // 600
"""CronJobs: `*/2` and `*/10`."""
BEADS = 100
HASTE = {"polling": 3, "watching": 2}
"""Cycles that `bdauto run` makes more because of a bead.

Polling, it starts again with its shortest interval. Watching, it looks after its own change, and after the agent's.
"""


@dataclass(frozen=True)
class Tick:
    """Medians of one program's ticks: CPU in seconds and bd processes, idle, for one bead, and an idle sweep."""

    idle: float
    one: float
    sweep: float
    bd_idle: int
    bd_one: int
    bd_sweep: int


@dataclass(frozen=True)
class Day:
    """A day's cost: pods, bd processes, CPU seconds, and the sum that led to the CPU seconds."""

    name: str
    pods: int
    bd: int
    cpu: float
    arithmetic: str

    def cells(self) -> list[str]:
        """Return the table's cells."""
        return [self.name, f"{self.pods:,}", f"{self.bd:,}", f"{self.cpu:,.0f}", self.arithmetic]


def cronjobs(name: str, tick: Tick, beads: int) -> Day:
    """Return the cost of a day of ticks, `beads` of which find a bead."""
    idle = DISPATCH_TICKS - beads
    cpu = idle * tick.idle + beads * tick.one + REAP_TICKS * tick.sweep
    words = f"{idle} × {tick.idle:.3f}" + (f" + {beads} × {tick.one:.3f}" if beads else "")
    return Day(
        f"{name}, {beads or 'no'} beads",
        DISPATCH_TICKS + REAP_TICKS,
        idle * tick.bd_idle + beads * tick.bd_one + REAP_TICKS * tick.bd_sweep,
        cpu,
        f"{words} + {REAP_TICKS} × {tick.sweep:.3f}",
    )


def run(tick: Tick, how: str, costs: Costs, cycle: float, beads: int) -> Day:
    """Return the cost of a day of `bdauto run` whose idle `costs` were measured; `cycle`: the CPU seconds of one.

    A bead costs what it adds to a tick, and some cycles more.
    """
    more, hour = tick.one - (tick.idle if how == "polling" else 0) + HASTE[how] * cycle, costs.an_hour()
    bd_more = tick.bd_one - (tick.bd_idle if how == "polling" else 0) + HASTE[how]
    return Day(
        f"`bdauto run`, {how}, {beads or 'no'} beads",
        1,
        round(24 * hour.bd) + beads * bd_more,
        24 * hour.cpu + beads * more,
        f"24 × {hour.cpu:.1f} an hour" + (f" + {beads} × {more:.3f}" if beads else ""),
    )


def day_table(script: Tick, bdauto: Tick, idle: dict[str, Costs], cycle: float) -> str:
    """Return the table of all modes, idle and with BEADS beads. `idle` has the costs of the two ways of `run`."""
    days = [
        day
        for beads in (0, BEADS)
        for day in (
            cronjobs("CronJobs of the shell script", script, beads),
            cronjobs("CronJobs of bdauto", bdauto, beads),
            *(run(bdauto, how, idle[how], cycle, beads) for how in ("polling", "watching")),
        )
    ]
    return table(["a day of", "pods", "bd processes", "CPU s", "CPU s, the sum"], [day.cells() for day in days])
