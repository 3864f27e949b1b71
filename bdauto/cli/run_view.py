"""What `bdauto runs` shows on a terminal, or in a pipe: for 80 columns, and more of each run where there is room."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderableType
from rich.table import Table
from rich.text import Text

from bdauto.cli.tables import REASON_LIMIT, TITLE_LIMIT, WIDE
from bdauto.common.sanitize import clean
from bdauto.diagnostics.run_list import ListedRun
from bdauto.diagnostics.wording import DASH, money, rough_time
from bdauto.domain.history import RunResult
from bdauto.domain.record import Run

STYLES = {
    RunResult.running: "cyan",
    RunResult.over: "cyan",
    RunResult.closed: "green",
    RunResult.asks: "yellow",
    RunResult.failed: "red",
    RunResult.stopped: "dim",
    RunResult.deleted: "dim",
}


NARROW = 60
"""Below so many columns, only what fits beside the title is shown."""
WIDEST = 24
"""Characters of a column."""


class RunsView:
    """A list of runs. Times are in the zone of `now`. A run that did not close its bead says why on a second line."""

    def __init__(self, runs: Sequence[ListedRun], now: datetime) -> None:
        self._runs = runs
        self._now = now

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table for the width that there is."""
        if not self._runs:
            yield Text("no runs", style="dim")
            return
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
        shown = [*self._columns(options.max_width)]
        for name, (right, _) in shown:
            justify: JustifyMethod = "right" if right else "left"
            copied = name == "bead"  # an id that is cut cannot be copied
            overflow: OverflowMethod = "fold" if copied else "ellipsis"
            table.add_column(name, justify=justify, no_wrap=not copied, overflow=overflow, max_width=WIDEST)
        table.add_column("title", overflow="fold", ratio=1, min_width=12)
        for one in self._runs:
            table.add_row(*(cell(one, self._now) for _, (_, cell) in shown), _title(one))
            if why := clean(one.why, REASON_LIMIT):
                table.add_row(*[""] * len(shown), Text(why, style="dim"))
        yield table

    def _columns(self, width: int) -> Iterator[tuple[str, "_Column"]]:
        several = len({one.lane for one in self._runs}) > 1
        for name, column in _COLUMNS.items():
            if width >= _FROM.get(name, 0) and (name != "lane" or several):
                yield name, column


def _took(run: Run, now: datetime) -> int | None:
    if run.ended_at is None and run.claimed_at:
        return max(int((now - run.claimed_at).total_seconds()), 0)
    return run.seconds


def _runner(run: Run) -> str:
    return f"{run.agent} on {run.runner}" if run.agent and run.runner else run.agent or run.runner or "service"


def _when(moment: datetime | None, now: datetime) -> str:
    """Write the time of a day of this year without its year."""
    if moment is None:
        return DASH
    local = moment.astimezone(now.tzinfo)
    return (
        f"{local:%H:%M:%S}"
        if local.date() == now.date()
        else f"{local:%Y-%m-%d}"
        if local.year != now.year
        else f"{local:%m-%d %H:%M}"
    )


_Column = tuple[bool, Callable[[ListedRun, datetime], RenderableType]]
"""Whether it is justified to the right, and what makes its cells."""
_COLUMNS: Mapping[str, _Column] = {
    "bead": (False, lambda one, _: Text(clean(one.bead), style="cyan")),
    "began": (False, lambda one, now: Text(_when(one.run.claimed_at, now), style="dim")),
    "took": (True, lambda one, now: rough_time(_took(one.run, now))),
    "result": (False, lambda one, _: Text(one.result, style=STYLES[one.result])),
    "cost": (True, lambda one, _: money(one.run.cost_usd)),
    "turns": (True, lambda one, _: DASH if one.run.turns is None else str(one.run.turns)),
    "attempt": (False, lambda one, _: Text(clean(one.run.attempt), style="dim")),
    "runner": (False, lambda one, _: Text(clean(_runner(one.run)))),
    "lane": (False, lambda one, _: Text(clean(one.lane))),
}
_FROM = {"began": NARROW, "cost": NARROW, "turns": WIDE, "attempt": WIDE, "runner": WIDE}
"""From how many columns of the terminal on a column is shown."""


def _title(one: ListedRun) -> Text:
    if one.title is None:
        return Text("(deleted)", style="dim")
    return Text(clean(one.title, TITLE_LIMIT), no_wrap=True, overflow="ellipsis")
