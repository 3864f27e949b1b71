"""Writes the notes of dispatched beads with a short delay: see `LateNotes`."""

import math

from bdauto.bd.change import Change, Writer, apply_each
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError

DELAY = 0.5
"""Seconds between a record and its note. A script may note at once, a language model needs seconds to begin."""

OVERDUE = 10.0
"""Seconds that the first note of a cycle may wait for its further beads. A sweep takes it for lost after 30."""

TRIES = 3
"""How often a note is tried that bd fails to write."""


class LateNotes:
    """Writes the note of each record a moment after the record, in one transaction for all beads of a cycle.

    On a Dolt server two writers of one bead's notes conflict, and before bd 1.3 `bd note` then fails. So the record
    itself leaves the notes alone, because an agent writes its first note about now. A note that is not written here is
    written by a later sweep.
    """

    def __init__(self) -> None:
        self._changes: list[Change] = []
        self.due = math.inf
        """When to write, by the monotonic clock. Infinite if no note waits."""
        self._since = math.inf

    def add(self, change: Change, now: float) -> None:
        """Queue the note of a record that was just written. Its delay is counted by the monotonic clock."""
        self._since = self._since if self._changes else now
        self._changes.append(change)
        self.due = now + DELAY

    def write_overdue(self, writer: Writer, runtime: Runtime) -> None:
        """Write the notes of a long cycle if the first has waited for OVERDUE seconds."""
        if self._changes and runtime.monotonic() - self._since >= OVERDUE:
            self.write(writer, runtime)

    def write(self, writer: Writer, runtime: Runtime, *, at_once: bool = False) -> None:
        """Wait until the notes are due, and write them. A failed note is retried, and finally left to a sweep."""
        changes, self._changes = self._changes, []
        self.due = runtime.monotonic() if at_once else self.due
        for _ in range(TRIES if changes else 0):
            runtime.sleep(max(self.due - runtime.monotonic(), 0.0))
            self.due = runtime.monotonic() + DELAY
            try:
                results = apply_each(writer, changes)
            except BdError:  # a bd that hangs, or must not write
                break
            changes = [change for change, result in zip(changes, results, strict=True) if isinstance(result, BdError)]
            if not changes:
                break
        self.due = math.inf
