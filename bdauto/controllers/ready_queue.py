"""The queue in dispatch order, read only as far as it is looked at.

bd sorts by priority and creation, bdauto by priority and last update. So a small page of a long queue can hide a better
bead. The queue takes a page only for what it proves, and reads the rest when it matters.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from bdauto.bd.client import Bd, RunningCommand
from bdauto.bd.command import PAGE
from bdauto.domain.bead import Bead, BeadList, format_time
from bdauto.domain.eligibility import dispatch_order, outranks, verdict
from bdauto.domain.notes import short_time
from bdauto.domain.settings import DispatchSettings

LOWEST_PRIORITY = 4
FEW = 100
"""More beads than this before the page's best, and reading the whole priority is no dearer than telling them apart."""


class Queue(msgspec.Struct):
    """The ready beads of one cycle. `malformed` collects the malformed entries on the way."""

    bd: Bd
    settings: DispatchSettings
    now: datetime
    malformed: set[str] = msgspec.field(default_factory=set)
    _short: bool = False
    _oldest: RunningCommand[BeadList] | None = None
    _waiting: dict[str, datetime | None] = msgspec.field(default_factory=dict)

    def promising(self, page: BeadList) -> bool:
        """Whether a bead of the page is eligible."""
        return any(map(self._verdict, page.beads))

    def none_eligible(self, page: BeadList) -> bool:
        """Whether the page is the whole queue, and no bead of it is eligible."""
        return _complete(page) and not any(map(self._verdict, self._readable(page)))

    def read_ahead(self, page: BeadList, wanted: int) -> None:
        """Start the read with which `eligible` will begin, where that is known."""
        priorities = {bead.priority for bead in page.beads}
        if not _complete(page) and len(priorities) == 1:
            self._oldest = self._start_oldest(priorities.pop(), wanted)

    def close(self) -> None:
        """End what was read ahead."""
        if self._oldest:
            self._oldest.kill()

    def eligible(self, page: BeadList, wanted: int) -> Iterator[Bead]:
        """Yield the eligible beads in exact dispatch order. `page` is the first PAGE of `bd ready`.

        The caller will take about `wanted` of them, perhaps more.
        """
        beads = self._readable(page)
        self._short = _complete(page)
        if self._short:
            yield from self._in_order(beads)
            return
        priorities = {bead.priority for bead in beads} or {0}  # a page of malformed beads alone tells of none
        for priority in range(min(priorities), LOWEST_PRIORITY + 1):
            if max(priorities) > priority:  # bd sorts by priority: the page holds all of this one
                yield from self._in_order(tuple(bead for bead in beads if bead.priority == priority))
            else:
                yield from self._of_priority(priority, wanted)

    def waiting(self) -> str:
        """Say how many of the beads that were read wait, and when the first of them may go by itself, or return ""."""
        count = len(self._waiting)
        if not count:
            return ""
        words = f"{count} bead{'s wait' if count > 1 else ' waits'}"
        return f"{words}, the next at {short_time(self.next_at, self.now)}" if self.next_at else words

    @property
    def next_at(self) -> datetime | None:
        """When the first of the beads that were read, and that wait, may go by itself. None if that is not known."""
        return min((moment for moment in self._waiting.values() if moment), default=None)

    def scope(self, bead: Bead) -> int | None:
        """Return which part of the queue is read to judge this bead anew: its priority, or None for all of it."""
        return None if self._short else bead.priority

    def read_again(self, scope: int | None) -> RunningCommand[BeadList]:
        """Start to read a part of the queue anew."""
        return self.bd.ready(limit=PAGE if scope is None else 0, priority=scope)

    def judged_again(self, bead: Bead, page: BeadList) -> Bead | None:
        """Return a bead as it is in a new read of its part of the queue, None when it is no longer eligible.

        Blockers, labels and parents added since do not move a bead's `updated_at`, so a claim would not notice them.
        """
        found = next((other for other in self._readable(page) if other.id == bead.id), None)
        return found if found and self._verdict(found) else None

    def _of_priority(self, priority: int, wanted: int) -> Iterator[Bead]:
        """Yield one priority's eligible beads in order: those that a page of the oldest proves, then all others."""
        oldest, self._oldest = self._oldest or self._start_oldest(priority, wanted), None
        page = oldest.result()
        beads = self._in_order(self._readable(page))
        if _complete(page, max(PAGE, 2 * wanted)):
            yield from beads
            return
        proven = beads[:wanted]
        if proven and self._hides_better(priority, {bead.id for bead in beads}, proven[-1]):
            proven = []
        yield from proven
        everything = self._readable(self.bd.ready(limit=0, priority=priority).result())
        yield from self._in_order(tuple(bead for bead in everything if bead not in proven))

    def _start_oldest(self, priority: int, wanted: int) -> RunningCommand[BeadList]:
        return self.bd.ready(limit=max(PAGE, 2 * wanted), priority=priority, oldest=True)

    def _hides_better(self, priority: int, known: set[str], last: Bead) -> bool:
        """Whether a bead outside `known`, ready or not, may have been updated before `last` was."""
        expression = (
            f'assignee="{self.bd.settings.assignee}" AND status=open AND priority={priority} '
            f'AND updated<"{format_time(last.updated_at + timedelta(seconds=1))}"'
        )
        older = self.bd.query(expression, limit=FEW).result()
        if not _complete(older, FEW):
            return True
        return outranks([bead for bead in self._readable(older) if self._verdict(bead)], known, last)

    def _in_order(self, beads: tuple[Bead, ...]) -> list[Bead]:
        return sorted((bead for bead in beads if self._verdict(bead)), key=dispatch_order)

    def _verdict(self, bead: Bead) -> bool:
        found = verdict(bead, True, self.bd.settings.assignee, self.settings, self.now)
        if not found.eligible:
            self._waiting[bead.id] = found.until
        return found.eligible

    def _readable(self, page: BeadList) -> tuple[Bead, ...]:
        self.malformed.update(page.malformed)
        return page.beads


def _complete(page: BeadList, size: int = PAGE) -> bool:
    return len(page.beads) + len(page.malformed) < size
