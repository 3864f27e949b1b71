"""The queue in dispatch order, read only as far as it is needed.

bd sorts by priority and creation, bdauto by priority and wait: since the last update, or longer if bdauto has given the
bead back. So a small page of a long queue can hide a better bead. The queue uses a page only as far as it proves the
order, and reads more when it must.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial

import msgspec

from bdauto.bd.client import Bd
from bdauto.bd.command import PAGE
from bdauto.bd.prefetch import Prefetch
from bdauto.bd.running import RunningCommand
from bdauto.common.clock import utc_now
from bdauto.domain.bead import ID_PATTERN, Bead, BeadList
from bdauto.domain.eligibility import BLOCKING, FINISHED, dispatch_order, outranks, verdict
from bdauto.domain.lanes import Lanes
from bdauto.domain.notes import short_time
from bdauto.domain.record import KEPT
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time

BLOCKS = frozenset({"blocks", "conditional-blocks"})
"""Kinds of dependencies that block a bead exactly until the other bead is closed."""
LOWEST_PRIORITY = 4
OLDER_LIMIT = 100
"""Above this many older beads, reading more of the priority costs no more than checking them one by one."""
LARGE = 10
"""How many times larger the second page of a priority is. After it, the whole priority is read."""


class Queue(msgspec.Struct):
    """The ready beads of one cycle. `malformed` collects the malformed entries on the way."""

    bd: Bd
    settings: DispatchSettings
    now: datetime
    malformed: set[str] = msgspec.field(default_factory=set)
    following: Bead | None = None
    """The bead after the one that `eligible` yielded last, if it has been read."""
    lanes: Lanes | None = None
    """The lanes as they are seen in this cycle."""
    _short: bool = False
    _again: tuple[str, Prefetch[BeadList]] | None = None
    _pages: list[Prefetch[BeadList]] = msgspec.field(default_factory=list)
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
            self._start_pages(priorities.pop(), _size(wanted))

    def close(self) -> None:
        """End what was read ahead."""
        self._close_again()
        for page in self._pages:
            page.close()

    def eligible(self, page: BeadList, wanted: int) -> Iterator[Bead]:
        """Yield the eligible beads in exact dispatch order. `page` is the first PAGE of `bd ready`.

        The caller will take about `wanted` of them, perhaps more.
        """
        for beads in self._in_parts(page, wanted):
            for bead, self.following in itertools.zip_longest(beads, beads[1:]):
                yield bead

    def _in_parts(self, page: BeadList, wanted: int) -> Iterator[list[Bead]]:
        beads = self._readable(page)
        self._short = _complete(page)
        if self._short:
            yield self._in_order(beads)
            return
        priorities = {bead.priority for bead in beads} or {0}  # a page of malformed beads alone tells of none
        for priority in range(min(priorities), LOWEST_PRIORITY + 1):
            if max(priorities) > priority:  # bd sorts by priority: the page holds all of this one
                yield self._in_order(tuple(bead for bead in beads if bead.priority == priority))
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

    def read_again(self, bead: Bead, now: Callable[[], datetime] = utc_now) -> Prefetch[BeadList]:
        """Return the read of what `judged_again` needs. One that was started for this bead is returned again."""
        if self._again is None or self._again[0] != bead.id:
            self._close_again()
            self._again = bead.id, Prefetch(lambda: self._read_again(bead), now)
        return self._again[1]

    def _close_again(self) -> None:
        if self._again:
            self._again[1].close()

    def _read_again(self, bead: Bead) -> RunningCommand[BeadList]:
        """Start to read in a short queue the queue, and in a long one the bead with its blockers, or its siblings."""
        if self._short:
            return self.bd.ready(limit=PAGE)
        if blockers := _blockers(bead):
            return self.bd.read(blockers)
        return self._ready_of(bead)

    def judged_again(self, bead: Bead, page: BeadList) -> Bead | None:
        """Return a bead as it is in a new read, None when it is no longer eligible.

        Blockers, labels and parents added since do not move a bead's `updated_at`, so a claim would not notice them. A
        bead whose dependencies are as they were when bd called it ready still is ready if its blockers are closed.
        """
        found = _bead_of(self._readable(page), bead)
        if found and not self._short and (blockers := _blockers(bead)):
            closed = {bead.id, *(other.id for other in page.beads if other.status in FINISHED)}
            if not closed.issuperset(blockers) or _readiness(found) != _readiness(bead):
                found = _bead_of(self._readable(self._ready_of(bead).result()), bead)
        return found if found and self._verdict(found) else None

    def judged_anew(self, bead: Bead) -> Bead | None:
        """Return a bead as it is after a change that bdauto has made of it, None when it is no longer eligible."""
        return self.judged_again(bead, self._read_again(bead).result())

    def _ready_of(self, bead: Bead) -> RunningCommand[BeadList]:
        """Start to list what bd calls ready of the bead's priority, and of its parent if it has one."""
        parent = next((other.depends_on_id for other in bead.dependencies or () if other.type == "parent-child"), "")
        return self.bd.ready(limit=0, priority=bead.priority, parent=parent)

    def _of_priority(self, priority: int, wanted: int) -> Iterator[list[Bead]]:
        """Yield one priority's eligible beads in order: first those whose place two pages prove, then all others.

        One page has the oldest beads, the other those that bdauto gave back, whose last update says nothing about their
        wait.
        """
        taken = set[str]()
        for size in (_size(wanted), LARGE * _size(wanted)):
            if not self._pages:
                self._start_pages(priority, size)
            oldest, returned = (page.result() for page in self._pages)
            self._pages = []
            found = {bead.id: bead for bead in (*self._readable(oldest), *self._readable(returned))}
            ordered = [bead for bead in self._in_order(found.values()) if bead.id not in taken]
            if not _complete(oldest, size):
                ordered = self._proven(ordered[:wanted], found.keys()) if _complete(returned, size) else []
            yield ordered
            if _complete(oldest, size):
                return
            taken |= {bead.id for bead in ordered}
        everything = self._readable(self.bd.ready(limit=0, priority=priority).result())
        yield self._in_order(bead for bead in everything if bead.id not in taken)

    def _start_pages(self, priority: int, size: int) -> None:
        """Start to read both pages of a priority. Their age does not matter: an old bead is judged again."""
        for place in ("", KEPT):
            read = partial(self.bd.ready, limit=size, priority=priority, oldest=True, place=place)
            self._pages.append(Prefetch(read, utc_now, ages=False))
            self._pages[-1].start()

    def _proven(self, ordered: list[Bead], known: Collection[str]) -> list[Bead]:
        """Return the beads that no bead outside `known`, ready or not, can precede."""
        if not ordered:
            return []
        last = ordered[-1]
        expression = (
            f'assignee="{self.bd.assignee}" AND status=open AND priority={last.priority} '
            f'AND updated<"{format_time(last.waiting_since + timedelta(seconds=1))}"'
        )
        older = self.bd.query(expression, limit=OLDER_LIMIT).result()
        if not _complete(older, OLDER_LIMIT):
            return []
        hidden = [bead for bead in self._readable(older) if bead.id not in known and self._verdict(bead)]
        return [bead for bead in ordered if not outranks(hidden, known, bead)]

    def _in_order(self, beads: Iterable[Bead]) -> list[Bead]:
        return sorted((bead for bead in beads if self._verdict(bead)), key=dispatch_order)

    def _verdict(self, bead: Bead) -> bool:
        found = verdict(bead, True, self.bd.assignee, self.settings, self.now, self.lanes)
        if not found.eligible:
            self._waiting[bead.id] = found.until
        return found.eligible

    def _readable(self, page: BeadList) -> tuple[Bead, ...]:
        self.malformed.update(page.malformed)
        return page.beads


def _bead_of(beads: Iterable[Bead], wanted: Bead) -> Bead | None:
    return next((bead for bead in beads if bead.id == wanted.id), None)


def _blockers(bead: Bead) -> list[str]:
    """Return the bead and its blockers, which decide on it, or [] if only bd knows whether it is ready.

    bd also counts a parent's blockers, and has its own rules for `waits-for` and for beads of other trackers.
    """
    needs = [other for other in bead.dependencies or () if other.type in (*BLOCKING, "parent-child")]
    if any(other.type not in BLOCKS or not re.match(ID_PATTERN, other.depends_on_id) for other in needs):
        return []
    return [bead.id, *(other.depends_on_id for other in needs)]


def _readiness(bead: Bead) -> tuple[object, ...]:
    """Return what bd's own readiness depends on besides the states of other beads and the conditions of `verdict`."""
    needs = {(other.type, other.depends_on_id) for other in bead.dependencies or ()}
    return bead.issue_type, bead.priority, needs


def _size(wanted: int) -> int:
    """Return the size of a priority's first page. It is larger for several beads: their places are harder to prove."""
    return PAGE if wanted == 1 else max(5 * PAGE, 2 * wanted)


def _complete(page: BeadList, size: int = PAGE) -> bool:
    return len(page.beads) + len(page.malformed) < size
