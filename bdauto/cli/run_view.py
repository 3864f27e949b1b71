"""What `bdauto runs` shows on a terminal: for 80 columns, or a pipe."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bdauto.diagnostics.run_list import ListedRun
from bdauto.diagnostics.wording import DASH, money, rough_time
from bdauto.domain.record import Result
from bdauto.sanitize import clean

STYLES = {None: "cyan", Result.completed: "green"}


def runs_view(runs: Sequence[ListedRun], now: datetime) -> RenderableType:
    """Render a list of runs. Times are in the zone of `now`. A run that did not succeed says why on a second line."""
    if not runs:
        return Text("no runs", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    table.add_column("bead", max_width=20, overflow="fold")
    table.add_column("began", no_wrap=True)
    table.add_column("took", no_wrap=True, justify="right")
    table.add_column("result", max_width=18, overflow="fold")
    table.add_column("cost", no_wrap=True, justify="right")
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1, min_width=12)
    for one in runs:
        _add(table, one, now)
    return table


def _add(table: Table, one: ListedRun, now: datetime) -> None:
    run = one.run
    title = Text(clean(one.title, 200)) if one.title is not None else Text("(deleted)", style="dim")
    if run.result not in (None, Result.completed) and run.words:
        title.append(f"\n{clean(run.words)}", style="dim")
    table.add_row(
        Text(one.bead, style="cyan"),
        Text(_when(run.claimed_at, now), style="dim"),
        rough_time(_seconds(one, now)),
        Text(_result(one), style=STYLES.get(run.result, "red")),
        money(run.cost_usd),
        title,
    )


def _result(one: ListedRun) -> str:
    """Write the result, and why the run ended if that says more."""
    run = one.run
    if run.ended_at is None:
        return "running"
    result = run.result.value if run.result else "unknown"
    return result if run.why in (None, "ok", "error", result) else f"{result}: {run.why}"


def _seconds(one: ListedRun, now: datetime) -> int | None:
    run = one.run
    if run.ended_at is None and run.claimed_at:
        return max(int((now - run.claimed_at).total_seconds()), 0)
    return run.seconds


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
