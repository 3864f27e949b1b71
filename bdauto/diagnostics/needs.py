"""What needs a person, each cause at a bead once: what messages tell of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bdauto.bd.client import Bd
from bdauto.common.sanitize import clean, without_secrets
from bdauto.diagnostics.snapshot import asking, last_note
from bdauto.domain import breaker
from bdauto.domain.bead import Bead
from bdauto.domain.constants import NAMED
from bdauto.domain.messages import Topic
from bdauto.domain.questions import LABEL, how_to_answer, in_words

TITLE_LIMIT = 80
WORDS_LIMIT = 500
"""Characters of a title, and of an agent's last words, in a message."""
LISTED = 20
"""Lines of a list in a message."""
LINE_LIMIT = 160
SUSPENDED, LIMIT = "suspended", "limit"


class Need(msgspec.Struct, frozen=True):
    """A cause for which a person is needed: what happened, in which words, and what to do. `key` names the cause."""

    topic: Topic
    key: str
    what: str
    words: str
    todo: str


def gather_needs(bd: Bd, store: Mapping[str, Any]) -> list[Need]:
    """Read the beads of the lane that need a person. `store` is the key-value store. Raises BdError."""
    calls = bd.assigned(("blocked",)), bd.labelled(LABEL)
    try:
        blocked, asked = calls[0].result().beads, calls[1].result().beads
    finally:
        for call in calls:
            call.kill()
    waiting = bd.assigned(("open",)).result().beads if asked else ()
    found = [_suspended(found) for found in [breaker.read(store, bd.lane)] if found.until]
    asks = [(bead, question) for bead, question in asking(waiting, asked) if bd.lanes.had(bead, bd.assignee)]
    found += [_question(bead, question) for bead, question in asks]
    ours = (bead for bead in blocked if bead.record.quarantined or bead.record.all_runs)
    return found + [_blocked(bead) for bead in ours if not bead.record.cancelled and bd.lanes.had(bead, bd.assignee)]


def as_messages(needs: Sequence[Need]) -> Iterator[tuple[Topic, str, str]]:
    """Yield topic, title and text of the messages about these needs: one for each, or one for all if they are many."""
    if len(needs) <= NAMED:
        for need in needs:
            yield need.topic, need.what, "\n\n".join(filter(None, [need.words, need.todo]))
        return
    lines = [f"{need.what}: {clean(need.words, LINE_LIMIT)}" for need in needs]
    yield needs[0].topic, f"{len(needs)} times you are needed", in_lines(lines, "`bdauto status` shows all")


def in_lines(lines: Sequence[str], rest: str = "") -> str:
    """Return the first lines of a list in a message, and how many more there are."""
    more = len(lines) - LISTED
    return "\n".join(
        [*lines[:LISTED], *([f"and {more} more: {rest}" if rest else f"and {more} more"] if more > 0 else [])]
    )


def limit_reached(words: str, today: str) -> Need:
    """Return the need of a limit on a day's runs. It is one cause a day, because it ends and begins run by run."""
    todo = "Raise the limit, or let it wait."
    return Need(Topic.limit, f"{LIMIT} {today}", "a limit is reached, so nothing is dispatched", clean(words), todo)


def _suspended(found: breaker.Breaker) -> Need:
    todo = "Mend the agent. One bead then tries it, or close the breaker with `bdauto resume`."
    return Need(Topic.suspended, SUSPENDED, "dispatching is suspended", found.describe(), todo)


def _question(bead: Bead, question: Bead) -> Need:
    what = f"{named(bead)} waits for your answer"
    return Need(Topic.question, f"{bead.id} {question.id}", what, in_words(question), how_to_answer(question))


def _blocked(bead: Bead) -> Need:
    runs, why = bead.record.all_runs, bead.record.quarantined or last_note(bead)
    topic, how = (Topic.quarantined, "is quarantined") if bead.record.quarantined else (Topic.blocked, "is blocked")
    return Need(
        topic,
        f"{bead.id} {topic} {runs[-1].attempt if runs else ''}",
        f"{named(bead)} {how}",
        without_secrets(why, WORDS_LIMIT),
        f"Look at it with `bdauto explain {bead.id}`, then let it go on: bd update {bead.id} -s open",
    )


def named(bead: Bead) -> str:
    """Return a bead's id and title, for people."""
    return f"{bead.id} ({without_secrets(bead.title, TITLE_LIMIT)})"
