"""Amounts in words, the same on a terminal and on a page. What is not known is a dash, never zero."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from bdauto.domain.values import format_duration

if TYPE_CHECKING:
    from bdauto.agents.runner_status import Part, RunnerStatus
    from bdauto.domain.figures import Figures

DASH = "–"
Words = tuple[str, str]
"""A style (`good`, `warn`, `bad` or `muted`), and what to say in it."""


def rough_time(seconds: int | None) -> str:
    """Write a duration in its two largest units: `45s`, `4m12s`, `5h12m`, `3d4h`."""
    return DASH if seconds is None else format_duration(timedelta(seconds=seconds), 2)


def money(cost_usd: float | None) -> str:
    """Write US dollars in cents, or what is less than a cent in hundredths of one."""
    if cost_usd is None:
        return DASH
    return f"${cost_usd:,.4f}" if 0 < cost_usd < 0.01 else f"${cost_usd:,.2f}"


def share(part: int, whole: int) -> str:
    """Write a share in whole per cent."""
    return f"{round(100 * part / whole)}%" if whole else DASH


def plural(count: int, noun: str) -> str:
    """Write a count with its noun, e.g. `1 run`, `2 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def what_became(figures: "Figures", need_you: int) -> str:
    """Say in one line what became of beads, and how many need a person: `7 closed, 1 failed, 2 need you, $3.10`."""
    cost = f", {money(figures.cost_usd)}" if figures.cost_usd is not None else ""
    return f"{figures.closed} closed, {figures.failed} failed, {need_you} need{'s' * (need_you == 1)} you{cost}"


def services(status: "RunnerStatus") -> Iterator[tuple[str, Words]]:
    """Yield the names of what all beads share, and how each of them is."""
    held = status.paused.describe() if status.paused else status.suspended or status.limited
    yield "dispatching", ("warn", held) if held else ("good", "on")
    if not status.parts:
        yield "agent", ("muted", "not configured")
    for part in status.parts:
        yield part.name, _part(part)


def _part(part: "Part") -> Words:
    if not part.configured:
        return "muted", "not configured"
    if part.error:
        return "bad", f"down: {part.error}"
    return "warn" if part.busy else "good", part.text
