"""What a day costs, from what one tick costs."""

from dataclasses import dataclass

from bench_loop import Pace
from bench_page import table

DAY = 86_400
DISPATCH_TICKS, REAP_TICKS = DAY // 120, DAY // 600
"""CronJobs: `*/2` and `*/10`."""
BEADS = 100
HASTE = 3
"""Cycles that `bdauto run` makes more because of a bead: it starts again with its shortest interval."""


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


def run(tick: Tick, pace: Pace, cycle: float, beads: int) -> Day:
    """Return the cost of a day of `bdauto run` whose idle pace was watched; `cycle`: the CPU seconds of one.

    A bead costs what it adds to a tick that starts anew, and HASTE cycles.
    """
    more = tick.one - tick.idle + HASTE * cycle
    return Day(
        f"`bdauto run`, {beads or 'no'} beads",
        1,
        round(DAY * pace.bd) + beads * (tick.bd_one - tick.bd_idle + HASTE),
        DAY * pace.cpu + beads * more,
        f"24 × {pace.cpu * 3600:.1f} an hour" + (f" + {beads} × {more:.3f}" if beads else ""),
    )


def day_table(script: Tick, bdauto: Tick, pace: Pace, cycle: float) -> str:
    """Return the table of all modes, idle and with BEADS beads."""
    days = [
        day
        for beads in (0, BEADS)
        for day in (
            cronjobs("CronJobs of the shell script", script, beads),
            cronjobs("CronJobs of bdauto", bdauto, beads),
            run(bdauto, pace, cycle, beads),
        )
    ]
    words = (
        f"The idle pace of `bdauto run` at its defaults, serving its metrics, was watched for {pace.seconds:.0f} s.\n\n"
    )
    return words + table(["a day of", "pods", "bd processes", "CPU s", "CPU s, the sum"], [day.cells() for day in days])
