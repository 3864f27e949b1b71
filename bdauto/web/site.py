"""The pages that `bdauto run --listen` serves: the tracker at a glance, and each bead explained. They only read.

Many readers cost the tracker what one costs: a page is kept for a while, and of those who ask at once one makes it.
The first page does not wait for the report, which takes longest: it is read in a thread of its own, and until it is
there the page says so. Threads may call everything here.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from re import match
from typing import TYPE_CHECKING

from bdauto.agents.cli_adapters.table import Reader
from bdauto.bd.client import Bd
from bdauto.clock import Runtime
from bdauto.diagnostics.activity import Activity, gather_activity
from bdauto.diagnostics.explanation import explanation
from bdauto.diagnostics.snapshot import Snapshot, gather
from bdauto.domain.bead import ID_PATTERN, Bead
from bdauto.domain.settings import By, DispatchSettings, ReapSettings
from bdauto.errors import BdautoError, NoSuchBead
from bdauto.web.rendering import REFRESH_SOON, Week, bead_page, error_page, front_page

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

KEPT = timedelta(seconds=15)
"""How long a page is kept."""
REPORT_KEPT = timedelta(minutes=1)
"""How long a report is kept, from when it was read. One that could not be read is tried again with the next page."""
REPORT = timedelta(days=7)
SHOWN = 20
"""Beads in each list of the first page."""
LOG_BYTES = 1 << 16
"""Bytes of a job's output, from its end, that a bead's page holds."""
PAGES = 200
"""Pages that are kept at most."""
WAITING = 2
"""Readers that may wait for a page at a time. Others are told to come again: probes must find a thread that is free."""


@dataclass(frozen=True)
class Html:
    """An answer: its status and its text."""

    status: int
    text: str


class BusyError(Exception):
    """Too many readers wait already."""


@dataclass
class Site:
    """The pages of one tracker."""

    bd: Bd
    runner: "Callable[[], Runner]"
    dispatch: DispatchSettings
    reap: ReapSettings
    runtime: Runtime
    _kept: dict[str, tuple[float, Html]] = field(default_factory=dict, init=False)
    _snapshot: Snapshot | None = field(default=None, init=False)
    _report: Activity | None = field(default=None, init=False)
    _report_error: str = field(default="", init=False)
    _report_read: float = field(default=float("-inf"), init=False)
    _reading: bool = field(default=False, init=False)
    _making: threading.Lock = field(default_factory=threading.Lock, init=False)
    _places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WAITING), init=False)

    def front(self) -> Html:
        """Return the first page."""
        return self._page("", self._front)

    def bead(self, bead_id: str) -> Html:
        """Return the page of a bead."""
        if not match(ID_PATTERN, bead_id):
            return Html(404, error_page("no such page", self.runtime.now()))
        return self._page(bead_id, lambda: self._bead(bead_id))

    def _page(self, name: str, make: Callable[[], Html]) -> Html:
        fresh = self._fresh(name)
        if fresh:
            return fresh
        try:
            with self._place(), self._making:
                return self._fresh(name) or self._keep(name, make)
        except BusyError:
            kept = self._kept.get(name)
            return kept[1] if kept else self._busy()

    def _busy(self) -> Html:
        return Html(503, error_page("too many readers wait", self.runtime.now(), REFRESH_SOON))

    def _fresh(self, name: str) -> Html | None:
        made, page = self._kept.get(name, (float("-inf"), None))
        return page if self.runtime.monotonic() - made < KEPT.total_seconds() else None

    def _keep(self, name: str, make: Callable[[], Html]) -> Html:
        try:
            page = make()
        except BdautoError as error:
            status = 404 if isinstance(error, NoSuchBead) else 503
            page = Html(status, error_page(str(error), self.runtime.now()))
        self._kept.pop(name, None)
        self._kept[name] = self.runtime.monotonic(), page
        if len(self._kept) > PAGES:
            del self._kept[next(iter(self._kept))]
        return page

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            yield
        finally:
            self._places.release()

    def _front(self) -> Html:
        self._snapshot = None
        self._snapshot = gather(self.bd, self.runner(), self.dispatch, self.reap, self.runtime.now(), SHOWN)
        age = self.runtime.monotonic() - self._report_read
        begins = not self._reading and bool(self._report_error or age >= REPORT_KEPT.total_seconds())
        self._reading = self._reading or begins
        page = self._rendered(self._snapshot)
        if begins:
            threading.Thread(target=self._read_report, name="bdauto-report", daemon=True).start()
        return page

    def _rendered(self, snapshot: Snapshot) -> Html:
        week = Week(self._report, self._report_error, reading=self._reading)
        return Html(200, front_page(snapshot, week, self.bd.assignee, SHOWN))

    def _read_report(self) -> None:
        """Read the report, and put it into the page that is kept, which needs nothing more from the tracker."""
        try:
            now = self.runtime.now()
            self._report = gather_activity(self.bd, self.dispatch, now - REPORT, By.day, now)
            self._report_error = ""
        except BdautoError as error:
            self._report_error = str(error)
        finally:
            self._report_read, self._reading = self.runtime.monotonic(), False
        with self._making:
            made, page = self._kept.get("", (0.0, None))
            if page and self._snapshot:
                self._kept[""] = made, self._rendered(self._snapshot)

    def _bead(self, bead_id: str) -> Html:
        runner = self.runner()
        explained = explanation(self.bd, runner, bead_id, self.dispatch, self.reap, self.runtime.now())
        return Html(200, bead_page(explained, *_log(runner, explained.bead)))


def _log(runner: "Runner", bead: Bead) -> tuple[str, str]:
    """Return the id of a bead's last job, "" without one, and the end of its output, or why there is none."""
    jobs = runner.jobs_of(bead)
    if not jobs or not runner.knows_jobs:
        return "", ""
    try:
        output, end = runner.output(jobs[-1]), b""
        reader = Reader(output.agent)
        output.state()
        for data in output.read():
            end = (end + data)[-LOG_BYTES:]
    except BdautoError as error:
        return jobs[-1], str(error)
    if len(end) == LOG_BYTES:
        end = end.partition(b"\n")[2]  # its first line is cut
    events = (*reader.feed(end), *reader.end())
    return jobs[-1], "\n".join(event.lines() for event in events)
