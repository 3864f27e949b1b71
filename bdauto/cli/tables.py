"""The output of `status`, `explain` and `doctor` for people: for 80 columns, on any terminal or in a pipe.

Colours only repeat what a word says. Text from beads is cleaned. Text that may be long or run from right to left comes
last on its line.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bdauto.common.sanitize import clean
from bdauto.diagnostics.explanation import Explanation, story
from bdauto.diagnostics.snapshot import Running, Snapshot, last_note, place_words
from bdauto.diagnostics.wording import services, what_became
from bdauto.domain.eligibility import Condition, why_nothing_goes
from bdauto.domain.findings import Check, Level
from bdauto.domain.values import format_age

TITLE_LIMIT = 200
"""How many characters of a title are used. A table cuts it further, to the width that it has."""
REASON_LIMIT = 120
WIDE = 110
"""From so many columns on, tables have all their columns."""
COLORS = {"good": "green", "warn": "yellow", "bad": "red", "muted": "dim"}
NOTES = 20
"""How many lines of a bead's notes `explain` shows, the last ones."""


def console() -> Console:
    """Return the console for stdout."""
    return Console(highlight=False, emoji=False, markup=False)


def show(view: RenderableType) -> None:
    """Print a view on stdout. Into a pipe, print it without trailing blanks."""
    out = console()
    if out.is_terminal:
        out.print(view)
        return
    with out.capture() as capture:
        out.print(view)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
    sys.stdout.flush()


@contextlib.contextmanager
def redrawn(in_place: bool = True) -> Iterator[Callable[[RenderableType], None]]:
    """Yield a function that draws a view: in place on a terminal, elsewhere one after the other."""
    out = console()
    if not in_place or not out.is_terminal:
        yield lambda view: show(Group(view, Text()))
        return
    with Live(console=out, auto_refresh=False) as live:
        yield lambda view: live.update(view, refresh=True)


class Fitting:
    """A view of a snapshot that fits into the height of a terminal: its lists are cut as far as that takes."""

    def __init__(self, snapshot: Snapshot, limit: int, needs: Sequence[str]) -> None:
        self._snapshot = snapshot
        self._limit = limit
        self._needs = needs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the longest view that fits, or the shortest one."""
        view = status_view(self._snapshot, self._limit, self._needs)
        for limit in (10, 5, 3, 2, 1):
            if len(console.render_lines(view, options)) < console.height:
                break
            limit = min(limit, self._limit or limit)
            view = status_view(self._snapshot, limit, self._needs[:limit])
        yield view


def failed(error: Exception) -> Text:
    """Render an error in place of a view."""
    return _text(str(error), "red")


def in_lane(name: str, view: RenderableType) -> RenderableType:
    """Render what belongs to one of several lanes."""
    return Group(_heading(f"Lane {name}"), view)


def together(views: Iterable[RenderableType]) -> RenderableType:
    """Render views one below the other."""
    return Group(*views)


def status_view(snapshot: Snapshot, limit: int, needs: Sequence[str]) -> RenderableType:
    """Render a snapshot. `limit` cuts each list (0 does not), and `needs` lists what needs a person."""
    parts: list[RenderableType] = [*(_text(f"! {line}", "bold red") for line in needs), _around(snapshot)]
    waiting = len(snapshot.queue) - snapshot.eligible
    parts.append(_heading(f"Queue: {snapshot.eligible} eligible, {waiting} waiting"))
    if why := why_nothing_goes(snapshot.queue):
        parts.append(_text(f"Nothing can be dispatched: {why}", "yellow"))
    parts += _cut(_queue(snapshot, limit), len(snapshot.queue), limit)
    if snapshot.homeless:
        parts.append(_heading(f"In no lane, so not dispatched: {len(snapshot.homeless)}"))
        table = _table("bead", "title, and why")
        for bead, why in snapshot.homeless[: limit or None]:
            table.add_row(_id(bead.id), _one_line(bead.title))
            table.add_row("", _text(why, "dim", REASON_LIMIT))
        parts += _cut(table, len(snapshot.homeless), limit)
    if snapshot.running:
        parts.append(_heading(f"In progress: {len(snapshot.running)}"))
        parts += _cut(_Running(snapshot.running[: limit or None], snapshot.now), len(snapshot.running), limit)
    if snapshot.taken_off:
        parts.append(_heading(f"Running, though the bead is not in progress: {len(snapshot.taken_off)}"))
        table = _table("bead", "job", "the bead is")
        for one, words in snapshot.taken_off[: limit or None]:
            table.add_row(_id(one.bead), _text(one.job), _text(words, limit=REASON_LIMIT))
        parts += _cut(table, len(snapshot.taken_off), limit)
    blocked = (
        ("Quarantined by bdauto", "title, and why", snapshot.quarantined),
        ("Blocked, not by bdauto", "title, and last note", snapshot.blocked),
        ("Cancelled", "title, and by whom", snapshot.cancelled),
    )
    for heading, column, beads in blocked:
        if beads:
            parts.append(_heading(f"{heading}: {len(beads)}"))
            table = _table("bead", "age", column)
            for bead in beads[: limit or None]:
                age = Text(format_age(snapshot.now - bead.updated_at), style="dim")
                table.add_row(_id(bead.id), age, _one_line(bead.title))
                if why := bead.record.quarantined or last_note(bead):
                    table.add_row("", "", _text(why, "dim", REASON_LIMIT))
            parts += _cut(table, len(beads), limit)
    if snapshot.malformed:
        parts += [_heading(f"Malformed: {len(snapshot.malformed)}", "red")]
        parts += [_text(line) for line in snapshot.malformed[: limit or None]]
    return Group(*parts)


def _around(snapshot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, (style, words) in services(snapshot.services):
        table.add_row(name, _text(words, COLORS[style]))
    if snapshot.today:
        table.add_row("today", _text(what_became(snapshot.today, snapshot.need_you)))
    table.add_row("as of", _text(f"{snapshot.now:%Y-%m-%d %H:%M:%S}Z", "dim"))
    return table


def _queue(snapshot: Snapshot, limit: int) -> Table:
    table = _table("bead", "P", "age", "verdict", "title", middle="verdict")
    for place, found in enumerate(snapshot.queue[: limit or None], 1):
        words = place_words(place) if found.eligible else f"waiting: {found.reason}"
        table.add_row(
            _id(found.bead.id),
            Text(str(found.bead.priority)),
            Text(format_age(snapshot.now - found.bead.waiting_since), style="dim"),
            _text(words, "green" if found.eligible else "yellow", REASON_LIMIT),
            _text(found.bead.title, limit=TITLE_LIMIT),
        )
    return table


class _Running:
    """The table of the beads in progress: with the age of each, and its job, where there is room for the title too."""

    def __init__(self, running: Sequence[Running], now: datetime) -> None:
        self._running = running
        self._now = now

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table for the width that there is."""
        wide = options.max_width >= WIDE
        more = ("age", "job") if wide else ()
        table = _table("bead", "runs", "left", *more, "verdict", "title", middle="verdict")
        for one in self._running:
            details = (Text(format_age(one.age), style="dim"), _text(one.bead.record.job or "-")) if wide else ()
            table.add_row(
                _id(one.bead.id),
                Text(format_age(one.running) if one.running is not None else "-"),
                Text(format_age(max(one.left, timedelta(0))) if one.left is not None else "-"),
                *details,
                _text(one.verdict, "green" if one.state == "kept" else "red", REASON_LIMIT),
                _text(one.bead.title, limit=TITLE_LIMIT),
            )
            if one.event:
                table.add_row(*[""] * (3 + len(more)), _text(one.last_event(self._now), "dim", REASON_LIMIT), "")
        yield table


def explain_view(explained: Explanation) -> RenderableType:
    """Render the verdict on one bead, every condition behind it, and its story so far."""
    bead = explained.bead
    style = "green" if explained.place or bead.status == "closed" else "yellow"
    parts: list[RenderableType] = [
        Text.assemble(_id(bead.id), "  ", _text(bead.title, limit=TITLE_LIMIT)),
        _text(explained.headline, f"bold {style}"),
    ]
    if explained.turn:
        parts.append(_text(explained.turn))
    if explained.conditions:
        parts += [_heading("Conditions"), _conditions(explained.conditions)]
    told = story(explained)
    if explained.running:
        times = (("has run for", explained.running.running), ("time left", explained.running.left))
        told += [(word, format_age(max(time, timedelta(0)))) for word, time in times if time is not None]
        told += [("job is", explained.running.job_state)] if explained.running.job_state else []
        told += [("last event", explained.running.last_event(explained.now))] if explained.running.event else []
    if told:
        parts.append(_heading("So far"))
        facts = Table.grid(padding=(0, 2))
        for word, value in told:
            facts.add_row(Text(word, style="dim"), _text(value))
        parts.append(facts)
    notes = [line for line in bead.notes.splitlines() if line.strip()]
    if notes:
        parts.append(_heading("Notes" if len(notes) <= NOTES else f"Notes (the last {NOTES} of {len(notes)})"))
        parts += [_text(line) for line in notes[-NOTES:]]
    return Group(*parts)


def _conditions(conditions: Sequence[Condition]) -> Table:
    table = Table.grid(padding=(0, 2))
    for condition in conditions:
        mark = Text("ok", style="green") if condition.passed else Text("no", style="bold red")
        table.add_row(mark, Text(condition.name), _text(condition.detail))
        if not condition.passed and condition.fix:
            table.add_row("", "", Text(f"→ {clean(condition.fix, 1000)}", style="cyan"))
    return table


def doctor_view(checks: Sequence[Check]) -> RenderableType:
    """Render the checks in order, each failure and warning with its hint, and then the verdict in one line."""
    styles = {Level.ok: "green", Level.warn: "yellow", Level.fail: "bold red"}
    table = Table.grid(padding=(0, 2))
    for check in checks:
        table.add_row(Text(check.level, style=styles[check.level]), Text(check.name), _text(check.detail))
        if check.hint and check.level is not Level.ok:
            table.add_row("", "", Text(f"→ {clean(check.hint)}", style="cyan"))
    failed, warned = (sum(check.level is level for check in checks) for level in (Level.fail, Level.warn))
    warnings = f"{warned} warning{'s' if warned > 1 else ''}"
    if failed:
        verdict = _text(f"Not ready: {failed} failed" + (f", {warnings}" if warned else ""), "bold red")
    else:
        verdict = _text(f"Ready, with {warnings}" if warned else "Ready", "bold yellow" if warned else "bold green")
    return Group(table, Padding(verdict, (1, 0, 0, 0)))


def _text(text: str, style: str = "", limit: int = 300) -> Text:
    return Text(clean(text, limit), style=style)


def _one_line(title: str) -> Text:
    return Text(clean(title, TITLE_LIMIT), no_wrap=True, overflow="ellipsis")


def _id(bead_id: str) -> Text:
    return Text(bead_id, style="cyan")


def _heading(words: str, style: str = "") -> RenderableType:
    return Padding(Text(words, style=f"bold {style}".strip()), (1, 0, 0, 0))


def _cut(table: RenderableType, total: int, limit: int) -> list[RenderableType]:
    if not total:
        return []
    rest = total - limit if limit else 0
    return [table, _text(f"… and {rest} more: --limit 0 shows all", "dim")] if rest > 0 else [table]


def _table(*columns: str, middle: str = "") -> Table:
    """Return a table whose last column takes the rest of the width, on one line. The column `middle` is folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, expand=True)
    for name in columns[:-1]:
        table.add_column(name, max_width=32 if name == middle else 24, overflow="fold", no_wrap=name in ("P", "age"))
    last = columns[-1]
    table.add_column(last, no_wrap=last == "title", overflow="ellipsis", ratio=1, min_width=12)
    return table
