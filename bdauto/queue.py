"""The queue in dispatch order, read only as far as it is looked at.

bd sorts by priority and creation, bdauto by priority and last update; a small page would do for a long queue if it
could not hide a better bead. So a page is taken only for what it proves, and the rest is read when it matters.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from bdauto.argv import PAGE
from bdauto.bd import Bd
from bdauto.models import Bead, BeadList, format_time
from bdauto.policy import dispatch_order, rivals, verdict
from bdauto.settings import DispatchSettings

LOWEST_PRIORITY = 4
FEW = 100
"""More beads than this before the page's best, and reading the whole priority is no dearer than telling them apart."""


class Queue(msgspec.Struct):
    """The ready beads of one cycle. `malformed` collects what could not be read on the way."""

    bd: Bd
    settings: DispatchSettings
    now: datetime
    malformed: set[str] = msgspec.field(default_factory=set)

    def promising(self, page: BeadList) -> bool:
        """Whether a bead of the page is eligible."""
        return any(map(self._verdict, page.beads))

    def eligible(self, page: BeadList, wanted: int) -> Iterator[Bead]:
        """Yield the eligible beads in exact dispatch order; `page` is the first PAGE of `bd ready`.

        About `wanted` of them will be looked at; more may be.
        """
        beads = self._readable(page)
        if _complete(page):
            yield from self._in_order(beads)
            return
        for priority in range(min(bead.priority for bead in beads), LOWEST_PRIORITY + 1):
            if max(bead.priority for bead in beads) > priority:  # bd sorts by priority: the page holds all of this one
                yield from self._in_order(tuple(bead for bead in beads if bead.priority == priority))
            else:
                yield from self._of_priority(priority, wanted)

    def _of_priority(self, priority: int, wanted: int) -> Iterator[Bead]:
        """Yield one priority's eligible beads in order: those that a page of the oldest proves, then all others."""
        page = self.bd.ready(limit=max(PAGE, 2 * wanted), priority=priority, oldest=True).result()
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

    def _hides_better(self, priority: int, known: set[str], last: Bead) -> bool:
        """Whether a bead outside `known`, ready or not, may have been updated before `last` was."""
        expression = (
            f'assignee="{self.bd.settings.assignee}" AND status=open AND priority={priority} '
            f'AND updated<"{format_time(last.updated_at + timedelta(seconds=1))}"'
        )
        older = self.bd.query(expression, limit=FEW).result()
        if not _complete(older, FEW):
            return True
        return rivals([bead for bead in self._readable(older) if self._verdict(bead)], known, last)

    def _in_order(self, beads: tuple[Bead, ...]) -> list[Bead]:
        return sorted((bead for bead in beads if self._verdict(bead)), key=dispatch_order)

    def _verdict(self, bead: Bead) -> bool:
        return verdict(bead, True, self.bd.settings.assignee, self.settings, self.now).eligible

    def _readable(self, page: BeadList) -> tuple[Bead, ...]:
        self.malformed.update(page.malformed)
        return page.beads


def _complete(page: BeadList, size: int = PAGE) -> bool:
    return len(page.beads) + len(page.malformed) < size
