"""The message of a day: what became of the beads in the last 24 hours, and which need a person."""

from collections.abc import Sequence
from datetime import datetime

from bdauto.bd.client import Bd
from bdauto.common.sanitize import clean
from bdauto.diagnostics.needs import LINE_LIMIT, Need, in_lines, named
from bdauto.diagnostics.wording import what_became
from bdauto.domain.bead import Bead
from bdauto.domain.failures import why
from bdauto.domain.figures import figures_since
from bdauto.domain.history import dispatched_for, histories_of
from bdauto.domain.limits import DAY, LOOK_BACK


def digest(bd: Bd, needs: Sequence[Need], now: datetime) -> tuple[str, str]:
    """Return the title and the text of the digest. Raises BdError."""
    changed, since = bd.changed_since(now - LOOK_BACK).result().beads, now - DAY
    beads = [bead for bead in changed if bd.lanes.had(bead, bd.assignee)]
    histories = histories_of(bead for bead in beads if dispatched_for(bead, bd.assignee))
    closed = [_line(one.bead) for one in histories if one.closed_at and one.closed_at >= since]
    failed = [
        _line(one.bead, why(one, run))
        for one in histories
        for run in one.runs
        if one.failed(run) and (ended_at := one.ended_at(run)) and ended_at >= since
    ]
    waiting = [f"{need.what}: {clean(need.words, LINE_LIMIT)}" for need in needs]
    parts = (("Closed", closed), ("Failed", failed), ("Waiting for you", waiting))
    text = "\n\n".join(f"{heading}:\n{in_lines(lines)}" for heading, lines in parts if lines)
    title = what_became(figures_since(since, beads, bd.assignee, now), len(needs))
    return f"in 24 hours: {title}", text or "Nothing has ended, and nothing waits for you."


def _line(bead: Bead, words: str = "") -> str:
    return ": ".join(filter(None, [named(bead), clean(words, LINE_LIMIT)]))
