"""What `bdauto report` shows on a terminal: for 80 columns, or a pipe. Bars and colours repeat what a number says."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bdauto.common.sanitize import clean
from bdauto.diagnostics.activity import Activity, Extreme
from bdauto.diagnostics.wording import money, plural, rough_time, share
from bdauto.domain.failures import Reason
from bdauto.domain.figures import Figures
from bdauto.domain.settings import By

BLOCKS = "▁▂▃▄▅▆▇█"
GROUPS = 15
"""How many groups a report shows, the busiest ones. It shows every day."""
COLORS = {
    "closed": "green",
    "dispatched": "cyan",
    "failed": "red",
    "blocked": "yellow",
    "quarantined": "yellow",
    "cost": "magenta",
}


def activity_view(activity: Activity) -> RenderableType:
    """Render a report."""
    window = activity.window
    parts: list[RenderableType] = [
        Text(
            f"{_minute(window.since)} to {_minute(window.until)}, "
            f"{rough_time(int((window.until - window.since).total_seconds()))}",
            style="dim",
        ),
        Padding(_totals(activity), (1, 0, 0, 0)),
        Padding(_spreads(activity.total), (1, 0, 0, 0)),
        *_groups(activity),
    ]
    if activity.reasons:
        parts += [_heading("Why runs failed"), _reasons(activity.reasons)]
    if activity.never_started:
        parts += [_heading("Quarantined without a run"), _reasons(activity.never_started)]
    if activity.slowest:
        parts += [_heading("Slowest beads"), _extremes(activity.slowest)]
    if activity.dearest:
        parts += [_heading("Dearest beads"), _extremes(activity.dearest)]
    if activity.waiting:
        parts += [_heading("Waiting longest now"), _waiting(activity)]
    if activity.malformed:
        parts += [_heading(f"Malformed: {len(activity.malformed)}"), *map(_cell, activity.malformed[:GROUPS])]
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """Return a line of blocks, one per value. The largest value has the highest block, and 0 is a blank."""
    most = max(values, default=0)
    return "".join(BLOCKS[round(value / most * (len(BLOCKS) - 1))] if value else " " for value in values)


def _totals(activity: Activity) -> Table:
    total, days = activity.total, list(activity.days.values())
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(justify="right")

    def row(word: str, number: str, values: Sequence[float], more: str) -> None:
        line = Text(sparkline(values), style=COLORS[word])
        table.add_row(Text(word), Text(number), line, Text(more, style="dim"))

    silent = total.ended - total.costed
    untold = f"; {plural(silent, 'run')} without a cost" if silent else ""
    first = f"{share(total.closed_first, total.closed)} at the first attempt" if total.closed else ""
    row("closed", f"{total.closed}", [day.closed for day in days], first)
    row("dispatched", f"{total.dispatched}", [day.dispatched for day in days], "")
    ended = f"{share(total.failed, total.ended)} of {plural(total.ended, 'run')} that ended" if total.ended else ""
    row("failed", f"{total.failed}", [day.failed for day in days], ended)
    row("blocked", f"{total.blocked}", [day.blocked for day in days], "")
    row("quarantined", f"{total.quarantined}", [day.quarantined for day in days], "")
    each = f"{money(total.cost_per_closed)} for each closed bead{untold}" if total.cost_per_closed else untold[2:]
    row("cost", money(total.cost_usd), [day.cost_usd or 0 for day in days], each)
    return table


def _spreads(total: Figures) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", style="bold", min_width=10)
    for name in ("median", "90% within", "longest", "of"):
        table.add_column(name, justify="right", min_width=8)
    for word, spread in (("waiting", total.waiting), ("running", total.running)):
        times = (rough_time(seconds) for seconds in (spread.p50, spread.p90, spread.max))
        table.add_row(word, *times, str(spread.count))
    return table


def _groups(activity: Activity) -> list[RenderableType]:
    groups = dict(list(activity.groups.items())[: None if activity.by is By.day else GROUPS])
    rest = len(activity.groups) - len(groups)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(activity.by, no_wrap=True, overflow="ellipsis", max_width=16)
    table.add_column("", width=8)
    for name in ("disp.", "closed", "failed", "blk+quar", "cost", "waiting", "running"):
        table.add_column(name, justify="right", no_wrap=True)
    most = max((figures.dispatched for figures in groups.values()), default=0)
    for name, figures in groups.items():
        table.add_row(
            _cell(_day(name) if activity.by is By.day else name or "(none)"),
            Bar(most or 1, 0, figures.dispatched, width=8, color=COLORS["dispatched"]),
            *(str(n) for n in (figures.dispatched, figures.closed, figures.failed)),
            str(figures.blocked + figures.quarantined),
            money(figures.cost_usd),
            rough_time(figures.waiting.p50),
            rough_time(figures.running.p50),
        )
    more = [_cell(f"… and {rest} more", "dim")] if rest else []
    return [_heading(f"By {activity.by}"), table, *more] if groups else []


def _reasons(reasons: Sequence[Reason]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(width=8)
    table.add_column(overflow="fold")
    most = max(reason.count for reason in reasons)
    for reason in reasons:
        more = ", …" if reason.count > len(reason.beads) else ""
        words = Text.assemble(clean(reason.words), "\n", (f"{', '.join(reason.beads)}{more}", "dim"))
        table.add_row(str(reason.count), Bar(most, 0, reason.count, width=8, color=COLORS["failed"]), words)
    return table


def _extremes(extremes: Sequence[Extreme]) -> Table:
    table = _listing("bead", "time", "cost", "runs", "title")
    for extreme in extremes:
        table.add_row(
            _cell(extreme.bead.id, "cyan"),
            rough_time(extreme.seconds),
            money(extreme.cost_usd),
            str(extreme.runs),
            _cell(extreme.bead.title),
        )
    return table


def _waiting(activity: Activity) -> Table:
    table = _listing("bead", "P", "waits", "verdict", "title")
    for waiting in activity.waiting:
        eligible = waiting.verdict.eligible
        words = "eligible" if eligible else waiting.verdict.reason
        table.add_row(
            _cell(waiting.bead.id, "cyan"),
            str(waiting.bead.priority),
            rough_time(waiting.seconds),
            _cell(words, "green" if eligible else "yellow"),
            _cell(waiting.bead.title),
        )
    return table


def _listing(*columns: str) -> Table:
    """Return a table of beads, whose last column takes what is left of the width, on one line."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    for name in columns[:-1]:
        number = name in ("time", "cost", "runs", "P", "waits")
        table.add_column(name, justify="right" if number else "left", max_width=28, overflow="fold", no_wrap=number)
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis", ratio=1, min_width=12)
    return table


def _cell(text: str, style: str = "") -> Text:
    return Text(clean(text), style=style)


def _heading(words: str) -> RenderableType:
    return Padding(Text(words, style="bold"), (1, 0, 0, 0))


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z"


def _day(text: str) -> str:
    return f"{date.fromisoformat(text):%a %m-%d}"
