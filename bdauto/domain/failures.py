"""Why runs failed, grouped by the words for it."""

import re
from collections.abc import Iterable

import msgspec

from bdauto.domain.bead import Bead
from bdauto.domain.figures import Window
from bdauto.domain.record import Result, Run
from bdauto.domain.runs import History
from bdauto.sanitize import clean

REASONS = 8
"""How many reasons a report shows, the most frequent ones first."""
EXAMPLES = 3
"""How many beads a report names for each reason."""
UNKNOWN = "unknown"
"""The result of a run whose end is known only from the closing of its bead."""


class Reason(msgspec.Struct, frozen=True):
    """A reason for failed runs: how many there are, the words of the last one, and some beads, the last one first."""

    count: int
    words: str
    beads: tuple[str, ...]


def reasons(ended: Iterable[tuple[History, Run]], histories: Iterable[History], window: Window) -> list[Reason]:
    """Group failures by their words, ignoring numbers and ids.

    `ended` are the runs that ended, the last one first. Beads that never ran count too.
    """
    failed = [(history.bead, why(history, run)) for history, run in ended if history.failed(run)]
    failed += [
        (history.bead, clean(f"never started: {history.bead.record.quarantined}"))
        for history in histories
        if not history.runs and history.bead.record.quarantined and history.blocked_at and history.blocked_at in window
    ]
    groups: dict[str, list[tuple[Bead, str]]] = {}
    for bead, words in failed:
        groups.setdefault(_gist(words, bead), []).append((bead, words))
    found = [
        Reason(len(entries), entries[0][1], tuple(dict.fromkeys(bead.id for bead, _ in entries))[:EXAMPLES])
        for entries in groups.values()
    ]
    return sorted(found, key=lambda reason: -reason.count)[:REASONS]


def why(history: History, run: Run) -> str:
    """Return why a run failed, in words."""
    bead, last = history.bead, run is history.last
    if run.result is Result.completed:
        gave_up = last and bead.status == "blocked" and not bead.record.quarantined
        kind = "blocked by the agent" if gave_up else "ended without closing the bead"
    else:
        kind = run.result.value if run.result else UNKNOWN
    words = run.words or (bead.record.quarantined if last and run.result is Result.lost else "")
    return clean(f"{kind}: {words}" if words else kind)


def _gist(words: str, bead: Bead) -> str:
    """Return what stays the same when the same thing happens to another bead."""
    return re.sub(r"\b[0-9a-f]{6,}\b|\d+", "#", words.replace(bead.id, "#").lower())
