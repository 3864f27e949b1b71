"""Why runs failed, grouped by the words for it."""

import re
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from bdauto.common.sanitize import clean
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.figures import Window
from bdauto.domain.history import History, RunResult, result_of
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
    return clean(": ".join(filter(None, [kind if kind != Result.failed or not words else "", words])))


def what_came_of(history: History, run: Run) -> str:
    """Return in words what came of a run, and why, e.g. `failed: exit status 3: boom`."""
    run = history.completed(run)
    result, said = result_of(run, history), why_not(history, run)
    return clean(f"{result}: {said}" if said else result)


def why_not(history: History | None, run: Run) -> str:
    """Return why a run did not close its bead, "" if it did, or is not over, or nothing is known."""
    result = result_of(run, history)
    if result in (RunResult.running, RunResult.over, RunResult.closed):
        return ""
    kind = kind_of_failure(history, run) if result is RunResult.failed else ""
    return ": ".join(filter(None, [kind if kind != result else "", detail(run)]))


def kind_of_failure(history: History | None, run: Run) -> str:
    """Return in a word or two how a run failed: the cause if it is known, else how its job ended."""
    if run.result is Result.completed:
        bead = history.bead if history and history.is_last(run) else None
        left = bead is not None and bead.status == "blocked" and not bead.record.quarantined
        gave_up = left if run.status is UNSET else run.status == "blocked"
        return "blocked by its agent" if gave_up else "ended without closing the bead"
    if run.why and run.why not in (Why.ok, Why.error, Why.unknown):
        return run.why
    return run.result.value if run.result else UNKNOWN


def _gist(words: str, bead: Bead) -> str:
    """Return what stays the same when the same thing happens to another bead."""
    return re.sub(r"\b[0-9a-f]{6,}\b|\d+", "#", words.replace(bead.id, "#").lower())
