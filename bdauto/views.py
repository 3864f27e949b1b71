"""The tables and lines that people see: `status`, `explain` and `doctor`, for 80 columns, any terminal, or a pipe.

Colours only repeat what a word says. Text from beads is made harmless, and what may be long or written from right to
left comes last on its line.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bdauto.doctor import Check, Level
from bdauto.explain import Explanation, story
from bdauto.policy import Condition, format_age
from bdauto.status import Running, Snapshot, place_words
from bdauto.surroundings import Surroundings
from bdauto.text import clean

TITLE_LIMIT = 200
"""Characters of a title that are looked at; a table cuts it further, by the width of what it shows."""
REASON_LIMIT = 120
NOTES = 20
"""Lines of a bead's notes that are shown, the last ones."""


def console() -> Console:
    """Return the console for stdout, which replaces what the terminal's encoding cannot show."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, emoji=False, markup=False)


def show(view: RenderableType) -> None:
    """Print a view on stdout; into a pipe without the blanks that fill a table's lines."""
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
    """Yield what draws again and again: in place on a terminal, elsewhere one block after the other."""
    out = console()
    if not in_place or not out.is_terminal:
        yield lambda view: show(Group(view, Text()))
        return
    with Live(console=out, auto_refresh=False) as live:
        yield lambda view: live.update(view, refresh=True)


def failed(error: Exception) -> Text:
    """Render an error where a view would have been."""
    return _text(str(error), "red")


def short_age(age: timedelta) -> str:
    """Write an age in at most four characters for a table: `45s`, `12m`, `5h`, `3d`."""
    minutes = int(age.total_seconds()) // 60
    if minutes < 120:
        return format_age(age)
    return f"{minutes // 60}h" if minutes < 48 * 60 else f"{minutes // (24 * 60)}d"


def status_view(snapshot: Snapshot, limit: int, needs: Sequence[str]) -> RenderableType:
    """Render a snapshot; each list is cut at `limit` (0: not), and `needs` is what needs a person."""
    parts: list[RenderableType] = [*(_text(f"! {line}", "bold red") for line in needs), _around(snapshot)]
    waiting = len(snapshot.queue) - snapshot.eligible
    parts.append(_heading(f"Queue: {snapshot.eligible} eligible, {waiting} waiting"))
    parts += _cut(_queue(snapshot, limit), len(snapshot.queue), limit)
    if snapshot.running:
        parts.append(_heading(f"In progress: {len(snapshot.running)}"))
        parts += _cut(_running(snapshot.running[: limit or None]), len(snapshot.running), limit)
    if snapshot.set_aside:
        parts.append(_heading(f"Set aside by bdauto: {len(snapshot.set_aside)}"))
        table = _table("bead", "age", "reason")
        for bead in snapshot.set_aside[: limit or None]:
            age = Text(short_age(snapshot.now - bead.updated_at), style="dim")
            table.add_row(_id(bead.id), age, _text(bead.set_aside, limit=REASON_LIMIT))
        parts += _cut(table, len(snapshot.set_aside), limit)
    if snapshot.blocked_otherwise:
        parts += [Text(), _text(f"Blocked, not by bdauto: {snapshot.blocked_otherwise}", "dim")]
    if snapshot.malformed:
        parts += [_heading(f"Could not be read: {len(snapshot.malformed)}", "red")]
        parts += [_text(line) for line in snapshot.malformed[: limit or None]]
    return Group(*parts)


def _around(snapshot: Snapshot) -> Table:
    around = snapshot.surroundings
    table = Table.grid(padding=(0, 2))
    paused = around.paused.words() if around.paused else ""
    table.add_row("dispatching", _text(paused, "yellow") if paused else _text("on", "green"))
    table.add_row("BeadBoard", _beadboard(around))
    table.add_row("agent service", _agent(around))
    table.add_row("as of", _text(f"{snapshot.now:%Y-%m-%d %H:%M:%S}Z", "dim"))
    return table


def _beadboard(around: Surroundings) -> Text:
    if around.beadboard is None:
        return _text("not configured", "dim")
    if around.beadboard.error:
        return _text(f"down: {around.beadboard.error}", "red")
    return _text("up, busy", "yellow") if around.beadboard.busy else _text("up, not busy", "green")


def _agent(around: Surroundings) -> Text:
    if around.agent is None:
        return _text("not configured", "dim")
    capacity = around.agent.capacity
    if capacity is None:
        return _text(f"down: {around.agent.error}", "red")
    style = "green" if capacity.free else "yellow"
    if not capacity.counted:
        return _text("up, not busy" if capacity.free else "up, busy", style)
    counts = f"{capacity.active} of {capacity.total} running, {capacity.queued} queued, {capacity.free} free"
    return _text(f"up, {counts}", style)


def _queue(snapshot: Snapshot, limit: int) -> Table:
    table = _table("bead", "P", "age", "verdict", "title", middle="verdict")
    for place, found in enumerate(snapshot.queue[: limit or None], 1):
        words = place_words(place) if found.eligible else f"waiting: {found.reason}"
        table.add_row(
            _id(found.bead.id),
            Text(str(found.bead.priority)),
            Text(short_age(snapshot.now - found.bead.updated_at), style="dim"),
            _text(words, "green" if found.eligible else "yellow", REASON_LIMIT),
            _text(found.bead.title, limit=TITLE_LIMIT),
        )
    return table


def _running(running: Sequence[Running]) -> Table:
    table = _table("bead", "age", "left", "job", "verdict", "title", middle="verdict")
    for one in running:
        kept = one.state == "kept"
        words = one.job_state or "kept" if kept else f"{one.state}: {one.settlement.evidence}"
        table.add_row(
            _id(one.bead.id),
            Text(short_age(one.age), style="dim"),
            Text(short_age(one.left) if one.left > timedelta(0) else "-"),
            _text(one.bead.job or "-"),
            _text(words, "green" if kept else "red", REASON_LIMIT),
            _text(one.bead.title, limit=TITLE_LIMIT),
        )
    return table


def explain_view(explained: Explanation) -> RenderableType:
    """Render the verdict on one bead, every condition behind it, and its story so far."""
    bead = explained.bead
    style = "green" if explained.place else "yellow"
    parts: list[RenderableType] = [
        Text.assemble(_id(bead.id), "  ", _text(bead.title, limit=TITLE_LIMIT)),
        _text(explained.headline, f"bold {style}"),
    ]
    if explained.place:
        parts.append(_text(f"place {explained.place} of {explained.eligible} eligible", "dim"))
    parts += [_heading("Conditions"), _conditions(explained.conditions)]
    told = story(bead)
    if explained.running:
        told.append(("time left", short_age(max(explained.running.left, timedelta(0)))))
        told += [("job is", explained.running.job_state)] if explained.running.job_state else []
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
        if not condition.passed and condition.mend:
            table.add_row("", "", Text(f"→ {clean(condition.mend, 1000)}", style="cyan"))
    return table


def doctor_view(checks: Sequence[Check]) -> RenderableType:
    """Render the checks in order, each failure and warning with its hint."""
    styles = {Level.ok: "green", Level.warn: "yellow", Level.fail: "bold red"}
    table = Table.grid(padding=(0, 2))
    for check in checks:
        table.add_row(Text(check.level, style=styles[check.level]), Text(check.name), _text(check.detail))
        if check.hint and check.level is not Level.ok:
            table.add_row("", "", Text(f"→ {clean(check.hint)}", style="cyan"))
    return table


def _text(text: str, style: str = "", limit: int = 300) -> Text:
    return Text(clean(text, limit), style=style)


def _id(bead_id: str) -> Text:
    return Text(bead_id, style="cyan")


def _heading(words: str, style: str = "") -> RenderableType:
    return Padding(Text(words, style=f"bold {style}".strip()), (1, 0, 0, 0))


def _cut(table: Table, total: int, limit: int) -> list[RenderableType]:
    if not total:
        return []
    rest = total - limit if limit else 0
    return [table, _text(f"… and {rest} more: --limit 0 shows all", "dim")] if rest > 0 else [table]


def _table(*columns: str, middle: str = "") -> Table:
    """Return a table whose last column takes what is left of the width, on one line; `middle` is folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, expand=True)
    for name in columns[:-1]:
        table.add_column(name, max_width=32 if name == middle else 24, overflow="fold", no_wrap=name in ("P", "age"))
    last = columns[-1]
    table.add_column(last, no_wrap=last == "title", overflow="ellipsis", ratio=1, min_width=12)
    return table
