"""The tables of docs/performance.md, from the measurements that they need."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.day import day_table
from benchmarks.job_ends import job_ends
from benchmarks.kubernetes import kubernetes_row
from benchmarks.local import local_costs
from benchmarks.measure import Sample
from benchmarks.page import HEAD, Row, table
from benchmarks.picture import chart
from benchmarks.runs import LONG, QUEUES, SEVERAL, SHAPES, Bench
from benchmarks.stage import BARE, BDAUTO, LOOP, SCRIPT, SWITCH
from benchmarks.watching import Costs, IdleHour, hour_table, latencies, latency_table

MEMORY_LIMIT = 64 * 2**20
WORST_ORDER = 1.1
"""What a dispatch from the worst order may take, as a part of what bd takes to list everything."""
BARE_QUERY, LISTING = "one bare `bd query`", "`bd query … --limit 0`"


def _idle(bench: Bench) -> list[Row]:
    idle = bench.idle()
    return [
        Row("idle `dispatch`", "the script", 1.0, idle[BDAUTO], idle[SCRIPT]),
        Row("idle `dispatch`", BARE_QUERY, 1.3, idle[BDAUTO], idle[BARE]),
        Row("idle `dispatch`", BARE_QUERY, 1.4, idle[BDAUTO], idle[BARE], "cpu"),
        Row("the script, idle", BARE_QUERY, None, idle[SCRIPT], idle[BARE]),
    ]


def _one(bench: Bench) -> list[Row]:
    one = bench.one()
    return [Row("`dispatch` of one bead", "the script", 0.68, one[BDAUTO], one[SCRIPT])]


def _reap(bench: Bench) -> list[Row]:
    reap = bench.reap()
    return [Row("`reap` of ten stalled beads", "the script", 0.4, reap[BDAUTO], reap[SCRIPT])]


def _long(bench: Bench) -> list[Row]:
    queue = bench.queue(LONG)
    return [Row(f"`dispatch` among {LONG:,} eligible beads", LISTING, 0.5, queue[BDAUTO], queue[BARE])]


def _further(bench: Bench) -> list[Row]:
    """Return what each bead after the first adds to a `dispatch --max`, as a part of what the first costs."""
    rows = []
    for length in QUEUES:
        found = bench.several(length)
        ones, all_of_them = found["1"], found[f"{SEVERAL}"]
        further = [
            Sample((several.wall - one.wall) / (SEVERAL - 1), (several.cpu - one.cpu) / (SEVERAL - 1))
            for one, several in zip(ones, all_of_them, strict=True)
        ]
        rows.append(
            Row(f"a further bead of `dispatch --max {SEVERAL}` among {length:,}", "the first", 0.5, further, ones)
        )
    return rows


def _run(bench: Bench) -> list[Row]:
    run, what = bench.run(), "idle cycle of `bdauto run`"
    switch = [Sample(0, one.cpu + two.cpu) for one, two in zip(run[LOOP], run[SWITCH], strict=True)]
    return [
        Row(what, BARE_QUERY, 1.2, run[LOOP], run[BARE], "cpu"),
        Row(f"{what} that looks at the switch", BARE_QUERY, 2.2, switch, run[BARE], "cpu"),
    ]


def _pod(bench: Bench) -> list[Row]:
    pod, what = bench.pod(), f"`dispatch --metadata FILE` among {LONG:,}, fresh folder"
    return [Row(what, "the script, fresh folder", 0.2, pod[BDAUTO], pod[SCRIPT])]


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "idle": _idle,
    "one": _one,
    "reap": _reap,
    "long": _long,
    "further": _further,
    "run": _run,
    "pod": _pod,
}


def figures(bench: Bench, wanted: Sequence[str]) -> list[list[str]]:
    """Return the rows of the main table that are wanted."""
    cells = [row.cells() for name, rows in ROWS.items() if name in wanted for row in rows(bench)]
    if "local" in wanted:
        cells += [*local_costs(bench.rounds).rows(), kubernetes_row(bench.rounds)]
    return [*cells, _memory_cells(bench.memory())] if "memory" in wanted else cells


def _memory_cells(peaks: dict[str, int]) -> list[str]:
    worst = max(peaks, key=lambda name: peaks[name])
    reached = "yes" if peaks[worst] <= MEMORY_LIMIT else "**no**"
    mebibytes = f"**{peaks[worst] / 2**20:.0f} MiB** ({min(peaks.values()) / 2**20:.0f}–{peaks[worst] / 2**20:.0f})"
    what = f"peak memory of bdauto itself; most in: {worst}"
    return [what, "", "≤ 64 MiB", mebibytes, reached, "", "", str(len(peaks))]


def shapes(bench: Bench) -> str:
    """Return the table of differently ordered queues of LONG beads."""
    rows = []
    for shape in SHAPES:
        queue = bench.queue(LONG, shape)
        most = WORST_ORDER if shape == SHAPES[-1] else None
        rows.append(Row(f"`dispatch` among {LONG:,}: {shape}", LISTING, most, queue[BDAUTO], queue[BARE]))
    return table(HEAD, [row.cells() for row in rows])


def lengths(bench: Bench) -> tuple[str, str]:
    """Return the table and the picture of wall time against the queue's length."""
    names = {BDAUTO: "bdauto dispatch", SCRIPT: "the script", BARE: "bd query --limit 0"}
    times = {
        length: {name: statistics.median(run.wall for run in runs) for name, runs in bench.queue(length).items()}
        for length in bench.lengths
    }
    rows = [[f"{length:,}", *(f"{times[length][name] * 1000:,.0f}" for name in names)] for length in times]
    picture = chart(
        "Median wall time of one dispatch",
        "eligible beads (the script looks at 50 of them at most)",
        {names[name]: [(length, times[length][name]) for length in times] for name in names},
    )
    return table(["eligible beads", *(f"{names[name]}, ms" for name in names)], rows), picture


def day(bench: Bench, idle: dict[str, Costs]) -> str:
    """Return the table of a day's cost. `idle` has the costs of idle loops."""
    ticks = bench.ticks()
    cycle = statistics.median(sample.cpu for sample in bench.run()[LOOP])
    return day_table(ticks[SCRIPT], ticks[BDAUTO], idle, cycle)


def sections(bench: Bench, wanted: Sequence[str], conditions: str, hour: IdleHour | None) -> tuple[dict[str, str], str]:
    """Return the page's sections by name, as far as they are wanted, and the picture or ""."""
    found, picture = {}, ""
    rows = figures(bench, wanted)
    if rows:
        found["figures"] = f"{conditions}\n\n{table(HEAD, rows)}"
    if "long" in wanted:
        found["shapes"] = shapes(bench)
    if "chart" in wanted:
        found["lengths"], picture = lengths(bench)
    if "latency" in wanted:
        found["latency"] = latency_table(latencies(bench.stage))
    if "ends" in wanted:
        found["ends"] = job_ends(bench.stage.world)
    if hour:
        idle = hour.measure()
        found["hour"] = hour_table(idle)
        if "day" in wanted:
            found["day"] = day(bench, idle)
    return found, picture
