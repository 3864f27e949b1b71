"""Why runs failed, grouped by the words for it."""

import re
from collections.abc import Iterable, Sequence

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.figures import Window
from bdauto.domain.history import History
from bdauto.domain.record import Result, Run
from bdauto.domain.results import detail

REASONS = 8
"""How many reasons a report shows, the most frequent ones first."""
OTHERS = "other reasons"
"""The words for all further ones."""
EXAMPLES = 3
"""How many beads a report names for each reason."""
UNKNOWN = "unknown"
"""The result of a run whose end is known only from the closing of its bead."""


class Reason(msgspec.Struct, frozen=True):
    """A reason for failed runs: how many there are, the words of the last one, and some beads, the last one first."""

    count: int
    words: str
    beads: tuple[str, ...]


def reasons(ended: Iterable[tuple[History, Run]]) -> list[Reason]:
    """Group the runs that failed by the words for it, ignoring numbers and ids. The counts add up to all of them.

    `ended` are the runs that ended, the last one first.
    """
    return _grouped([(history.bead, why(history, run)) for history, run in ended if history.failed(run)])


def never_started(histories: Iterable[History], window: Window) -> list[Reason]:
    """Group the beads that were quarantined in a window without ever having run, by the words for it."""
    return _grouped(
        [
            (one.bead, clean(one.bead.record.quarantined))
            for one in histories
            if not one.runs and one.bead.record.quarantined and one.blocked_at and one.blocked_at in window
        ]
    )


def _grouped(failed: Iterable[tuple[Bead, str]]) -> list[Reason]:
    groups: dict[str, list[tuple[Bead, str]]] = {}
    for bead, words in failed:
        groups.setdefault(_gist(words, bead), []).append((bead, words))
    entries = sorted(groups.values(), key=len, reverse=True)
    rest = [entry for group in entries[REASONS:] for entry in group]
    return [_reason(group) for group in entries[:REASONS]] + ([_reason(rest, OTHERS)] if rest else [])


def _reason(entries: Sequence[tuple[Bead, str]], words: str = "") -> Reason:
    beads = tuple(dict.fromkeys(bead.id for bead, _ in entries))[:EXAMPLES]
    return Reason(len(entries), words or entries[0][1], beads)


def why(history: History, run: Run) -> str:
    """Return why a run failed, in words."""
    bead, last, kind = history.bead, history.is_last(run), kind_of_failure(history, run)
    words = detail(run) or (bead.record.quarantined if last and run.result is Result.lost else "")
    return clean(f"{kind}: {words}" if words else kind)


def kind_of_failure(history: History, run: Run) -> str:
    """Return in a word or two how a run failed: the cause if it is known, else the result."""
    bead = history.bead
    if run.result is Result.completed:
        gave_up = history.is_last(run) and bead.status == "blocked" and not bead.record.quarantined
        return "blocked by the agent" if gave_up else "ended without closing the bead"
    if run.why and run.why not in (Why.ok, Why.error, Why.unknown):
        return run.why
    return run.result.value if run.result else UNKNOWN


def _gist(words: str, bead: Bead) -> str:
    """Return what stays the same when the same thing happens to another bead."""
    return re.sub(r"\b[0-9a-f]{6,}\b|\d+", "#", words.replace(bead.id, "#").lower())
