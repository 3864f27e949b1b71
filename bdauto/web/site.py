"""The pages that `bdauto run --listen` serves: the lanes at a glance, their runs, and each bead. They only read.

Many readers cost the tracker what one costs: what was read is kept for a while, and of those who ask at once one reads.
The first page does not wait for the report, which takes longest: it is read in a thread of its own, and until it is
there the page says so. Threads may call everything here.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from re import match
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, NoSuchBead
from bdauto.diagnostics.activity import Activity, gather_activity
from bdauto.diagnostics.explanation import explanation
from bdauto.diagnostics.looks import Looks
from bdauto.diagnostics.run_list import ListedRun, gather_runs, newest
from bdauto.diagnostics.snapshot import Snapshot, gather
from bdauto.domain.bead import ID_PATTERN
from bdauto.domain.settings import By, DispatchSettings, ReapSettings
from bdauto.web.log_pages import Stream, Streams, whole
from bdauto.web.rendering import REFRESH_SOON, BeadView, Week, bead_page, error_page, front_page, runs_page
from bdauto.web.run_query import RunQuery

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner

T = TypeVar("T")
KEPT = timedelta(seconds=15)
"""How long what was read is kept."""
REPORT_KEPT = timedelta(minutes=1)
"""How long a report is kept, from when it was read. One that could not be read is tried again with the next page."""
REPORT = timedelta(days=7)
SHOWN = 20
"""Beads in each list of the first page."""
PAGES = 200
"""Things that are kept at most."""
WAITING = 2
"""Readers that may wait at a time. Others are told to come again: probes must find a thread that is free."""


@dataclass(frozen=True)
class Html:
    """An answer: its status and its text. `error` is what an error page says."""

    status: int
    text: str
    error: str = ""


class BusyError(Exception):
    """Too many readers wait already."""


@dataclass(frozen=True)
class LaneReader:
    """What reads one lane, and its settings."""

    bd: Bd
    runner: "Callable[[], Runner]"
    dispatch: DispatchSettings
    reap: ReapSettings


@dataclass
class Site:
    """The pages of the lanes, by name: "" if there is only one.

    `lane_of` finds the lane of a bead, and may raise BdError. `board` is BeadBoard's address, to link to.
    """

    lanes: Mapping[str, LaneReader]
    lane_of: Callable[[str], str]
    runtime: Runtime
    board: str = ""
    streams: Streams = field(default_factory=Streams)
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict, init=False)
    _looks: Looks = field(default_factory=dict, init=False)
    _report: dict[str, Activity] = field(default_factory=dict, init=False)
    _report_error: str = field(default="", init=False)
    _report_read: float = field(default=float("-inf"), init=False)
    _reading: bool = field(default=False, init=False)
    _making: threading.Lock = field(default_factory=threading.Lock, init=False)
    _places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WAITING), init=False)

    def front(self) -> Html:
        """Return the first page."""
        return self._get("", self._front)

    def looks(self) -> Looks | Html:
        """Return what the first page shows, or the error page in its place."""
        page = self.front()
        return self._looks if self._looks and not page.error else page

    def bead(self, bead_id: str, job: str = "") -> Html:
        """Return the page of a bead, with the log of this job, by default of its last one."""
        found = self.explained(bead_id)
        return found if isinstance(found, Html) else self._with_log(found, job)

    def explained(self, bead_id: str) -> BeadView | Html:
        """Return everything about a bead but its log, or the error page in its place."""
        if not match(ID_PATTERN, bead_id):
            return self._failed(404, "no such page")
        return self._get(bead_id, lambda: self._explain(bead_id))

    def runs(self, query: Mapping[str, str]) -> Html:
        """Return the page of the runs that a query asks for."""
        asked = RunQuery.of(query)
        found = self.run_list(asked)
        if isinstance(found, Html):
            return found
        return Html(200, runs_page(found, asked, self.runtime.now(), several="" not in self.lanes))

    def run_list(self, asked: RunQuery) -> list[ListedRun] | Html:
        """Return the runs that a query asks for, or the error page in their place."""
        since = self.runtime.now() - asked.span

        def read() -> list[ListedRun]:
            lanes = self.lanes.values()
            return newest(run for lane in lanes for run in gather_runs(lane.bd, lane.runner(), None, since)[0])

        found = self._get(f"/{asked.since}", read)
        return found if isinstance(found, Html) else [one for one in found if asked.wants(one)]

    def follow(self, bead_id: str, job: str = "") -> Stream | Html:
        """Return the log of a job that runs on this machine, as it comes."""
        found = self.explained(bead_id)
        if isinstance(found, Html):
            return found
        if (job := found.job(job)) not in found.live:
            return self._failed(404, "no such job runs on this machine")
        output = self.lanes[found.lane].runner().output(job)
        return self.streams.open(output) or self._failed(503, "too many readers follow a log")

    def _get(self, name: str, make: Callable[[], T]) -> T | Html:
        fresh = self._fresh(name)
        if fresh is not None:
            return cast("T | Html", fresh)
        try:
            with self._place(), self._making:
                fresh = self._fresh(name)
                return cast("T | Html", self._keep(name, make) if fresh is None else fresh)
        except BusyError:
            kept = self._kept.get(name)
            return kept[1] if kept else self._failed(503, "too many readers wait", REFRESH_SOON)

    def _failed(self, status: int, words: str, *refresh: int) -> Html:
        return Html(status, error_page(words, self.runtime.now(), *refresh), words)

    def _fresh(self, name: str) -> Any:
        made, value = self._kept.get(name, (float("-inf"), None))
        return value if self.runtime.monotonic() - made < KEPT.total_seconds() else None

    def _keep(self, name: str, make: Callable[[], T]) -> T | Html:
        value: T | Html
        try:
            value = make()
        except BdautoError as error:
            value = self._failed(404 if isinstance(error, NoSuchBead) else 503, str(error))
        self._kept.pop(name, None)
        self._kept[name] = self.runtime.monotonic(), value
        if len(self._kept) > PAGES:
            del self._kept[next(iter(self._kept))]
        return value

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            yield
        finally:
            self._places.release()

    def _front(self) -> Html:
        looks = {name: self._look(lane) for name, lane in self.lanes.items()}
        failed = [seen for seen in looks.values() if isinstance(seen, BdautoError)]
        if len(failed) == len(looks):
            raise failed[0]
        self._looks = looks
        age = self.runtime.monotonic() - self._report_read
        begins = not self._reading and bool(self._report_error or age >= REPORT_KEPT.total_seconds())
        self._reading = self._reading or begins
        page = self._rendered(looks)
        if begins:
            threading.Thread(target=self._read_report, name="bdauto-report", daemon=True).start()
        return page

    def _look(self, lane: LaneReader) -> Snapshot | BdautoError:
        try:
            return gather(lane.bd, lane.runner(), lane.dispatch, lane.reap, self.runtime.now(), SHOWN, today=True)
        except BdautoError as error:  # another lane may have another tracker
            return error

    def _rendered(self, looks: Looks) -> Html:
        week = Week(dict(self._report), self._report_error, reading=self._reading)
        assignees = dict.fromkeys(lane.bd.assignee for lane in self.lanes.values())
        return Html(200, front_page(looks, week, ", ".join(assignees), SHOWN, self.board))

    def _read_report(self) -> None:
        """Read the report, and put it into the page that is kept, which needs nothing more from the tracker."""
        now, errors = self.runtime.now(), []
        try:
            for name, lane in self.lanes.items():
                try:
                    self._report[name] = gather_activity(lane.bd, lane.dispatch, now - REPORT, By.day, now)
                except BdautoError as error:
                    errors.append(f"lane {name}: {error}" if name else str(error))
        finally:
            self._report_error = "; ".join(errors)
            self._report_read, self._reading = self.runtime.monotonic(), False
        with self._making:
            made, page = self._kept.get("", (0.0, None))
            if page and self._looks and not page.error:
                self._kept[""] = made, self._rendered(self._looks)

    def _explain(self, bead_id: str) -> BeadView:
        name = self.lane_of(bead_id)
        lane = self.lanes[name]
        runner = lane.runner()
        found = explanation(lane.bd, runner, bead_id, lane.dispatch, lane.reap, self.runtime.now())
        jobs = runner.jobs_of(found.bead) if runner.knows_jobs else []
        return BeadView(found, tuple(jobs), frozenset(runner.jobs_at_work(found.bead)), name)

    def _with_log(self, view: BeadView, job: str) -> Html:
        job = view.job(job)
        name = f"{view.explained.bead.id} {job}"
        log = self._get(name, lambda: whole(self.lanes[view.lane].runner().output(job))) if job else ""
        return log if isinstance(log, Html) else Html(200, bead_page(view, job, log))
