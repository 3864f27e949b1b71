"""Signs of life: notes on a bead since its claim that bdauto did not write.

bd's notes are one text, and a program can write under any name. So bdauto does not guess the author of a note. Its
metadata tells where the notes since the claim begin, and what bdauto has noted since: the claim and the record, one
line each, and the ends of earlier runs. Everything else is by somebody else, even if it begins like a note of bdauto.
"""

import re
from collections.abc import Iterator

from bdauto.domain.bead import CLAIM_LINE, Bead
from bdauto.domain.notes import AGENT_SIGN, FINISH_NOTE


def sign_of_life(bead: Bead) -> bool:
    """True: somebody other than bdauto has written a note since the claim, as agents do first."""
    return bool(notes_of_others(bead))


def only_signed(bead: Bead) -> bool:
    """True: the agent's first note is the only one since the claim. A script may write it for the agent."""
    notes = notes_of_others(bead)
    return bool(notes) and all(line.startswith(AGENT_SIGN) for line in notes)


def notes_of_others(bead: Bead) -> list[str]:
    """Return the lines of notes since the current claim that bdauto did not write."""
    lines = [line for line in bead.notes_since_claim.splitlines() if line.strip()]
    for pattern in _own_notes(bead):
        own = next((line for line in lines if re.fullmatch(pattern, line)), None)
        if own is not None:
            lines.remove(own)
    return lines


def _own_notes(bead: Bead) -> Iterator[str]:
    """Yield a pattern for each line that bdauto may have noted since the claim."""
    if not bead.pending_note:
        yield CLAIM_LINE
    if bead.record_note:
        yield re.escape(bead.record_note)
    for run in bead.record.runs:  # the end of an earlier run may be recorded during this one
        if run.ended_at:
            yield re.escape(f"{FINISH_NOTE}{run.job or run.attempt} {run.result}") + ".*"
