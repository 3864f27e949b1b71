"""One dispatch cycle in three levels: look at the queue, decide on each bead, take it.

The claim excludes every other dispatcher. The POST is made once and never repeated. Whatever its answer, the bead ends
recorded, released, quarantined, or claimed with an outcome that says "unknown" (docs/decisions.md has the table).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.bd.command import PAGE
from bdauto.bd.fallbacks import as_seen
from bdauto.bd.prefetch import Prefetch
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, BdError, PartlyDone
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.attempts import Attempts
from bdauto.controllers.candidates import Candidates
from bdauto.controllers.claims import Claims
from bdauto.controllers.earlier_jobs import EarlierJobs
from bdauto.controllers.gate import Gate, Step
from bdauto.controllers.hold import AT_CAPACITY, Hold
from bdauto.controllers.late_notes import LateNotes
from bdauto.controllers.ready_queue import Queue
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.outcome import Outcome, Report, partly
from bdauto.domain.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


@dataclass
class Dispatcher:
    """Runs one cycle. `runner` is called only when a bead is eligible. `gate` is the cycle's own.

    A process that runs several cycles keeps `started_jobs` and the waiting `notes` between them. Without `notes`, a
    cycle writes its notes at its end.
    """

    bd: Bd
    writer: Writer
    runner: "Callable[[], Runner]"
    settings: DispatchSettings
    runtime: Runtime
    gate: Gate
    started_jobs: StartedJobs = field(default_factory=StartedJobs)
    notes: LateNotes | None = None
    first_page: Callable[[], tuple[BeadList, datetime]] | None = None
    """What reads the first page of the queue, if not bd itself. It tells when that read began."""
    next_at: datetime | None = field(default=None, init=False)
    """When time alone may change what the cycle found, as far as it has seen."""
    queue_read: bool = field(default=False, init=False)
    """Whether the cycle has read the queue."""
    _malformed: set[str] = field(default_factory=set, init=False)
    _looked: datetime = field(default=datetime.min, init=False)
    _further: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        settings, runtime = self.settings, self.runtime
        self._notes = self.notes or LateNotes()
        claims = Claims(self.bd, self.writer, runtime, self._notes, settings.grace)
        self._answers = AnswerHandler(
            claims, self.started_jobs, settings.max_attempts, runtime.now, dry_run=settings.dry_run
        )
        shared = (self.bd, self.writer, self.runner, settings, runtime, self.gate)
        earlier_jobs = EarlierJobs(self.bd, claims, self._answers, self.started_jobs, runtime)
        self._candidates = Candidates(*shared, self._answers, earlier_jobs)
        self._attempts = Attempts(*shared, claims, self._answers, self.started_jobs)

    def cycle(self) -> Report:
        """Dispatch up to `max_beads` eligible beads. The report holds any error. Nothing expected is raised."""
        hold, error = Hold(Outcome.idle), None
        try:
            hold = self._look()
        except BdautoError as caught:
            error = caught
        finally:
            self.gate.close()
        if self.notes is None:
            self._notes.write(self.writer, self.runtime)
        beads, malformed = tuple(self._answers.reports), tuple(sorted(self._malformed))
        outcome, dispatched = hold.outcome, self._answers.dispatched
        error = error or self._attempts.tripped or self._answers.failure() or partly(beads, malformed)
        if error:
            outcome = Outcome.partial if dispatched or isinstance(error, PartlyDone) else Outcome.failed
        elif dispatched:
            outcome = Outcome.dispatched
        waits = tuple(self._attempts.waits)
        return Report("dispatch", outcome, self.settings.dry_run, beads, hold.detail, malformed, error, waits)

    # Look

    def _look(self) -> Hold:
        """Read the first page of the queue, unless the gate holds the cycle back before that."""
        began = self.runtime.now()
        if hold := self.gate.hold(Step.start):
            self.next_at = hold.until
            return hold
        self.queue_read = True
        page, self._looked = self.first_page() if self.first_page else self._first_page()
        if page.empty:  # nothing that a pause could hold back
            self.started_jobs.idle_at = began
            return Hold(Outcome.idle)
        lanes = as_seen(self.bd, lambda since: self.runner().recent_runs(since), self.runtime.now())
        queue = Queue(self.bd, self.settings, self.runtime.now(), self._malformed, lanes=lanes)
        with contextlib.closing(queue):
            if queue.none_eligible(page):
                self.next_at, self.started_jobs.idle_at = queue.next_at, began
                return Hold(Outcome.idle, queue.waiting())
            return self._look_on(queue, page)

    def _first_page(self) -> tuple[BeadList, datetime]:
        first = Prefetch(lambda: self.bd.ready(limit=PAGE), self.runtime.now)
        return first.result(), first.began

    def _look_on(self, queue: Queue, page: BeadList) -> Hold:
        """Dispatch from a queue that begins with this page, unless the gate holds it back."""
        self.gate.prefetch(Step.queue)
        if queue.promising(page):  # what a dispatch needs is got ready beside the look at the switch
            queue.read_ahead(page, self.settings.max_beads)
            self.gate.prefetch(Step.first)
            self.writer.prepare()
            self.runner()
        if hold := self.gate.hold(Step.queue):
            self.next_at = hold.until
            return hold
        hold = self._decide(queue, page)
        self.next_at = hold.until or queue.next_at
        return hold

    def _look_ahead(self, queue: Queue, bead: Bead | None) -> None:
        """Start the reads that decide on the next bead, if that is known."""
        self.gate.prefetch(Step.further, Step.claim)
        if bead:
            queue.read_again(bead, self.runtime.now).start()

    # Decide

    def _decide(self, queue: Queue, page: BeadList) -> Hold:
        """Take beads from the queue until enough are dispatched, or something holds the next one back."""
        places = self.settings.max_beads
        try:
            for listed in self._others_first(queue.eligible(page, self.settings.max_beads)):
                if self._further:
                    self._look_ahead(queue, listed)
                if hold := self.gate.hold(Step.further if self._further else Step.first):
                    return hold
                places = self.gate.room.places
                with self._answers.naming(listed):
                    go_on = self._one(queue, listed, places)
                if not go_on or self._answers.dispatched >= places:
                    break
                self._notes.write_overdue(self.writer, self.runtime)
                self._further = True
        except KeyboardInterrupt:  # a second signal: a bd that fails now does not hide it
            with contextlib.suppress(BdError):
                self._answers.charge_refused()
            raise
        finally:
            self._answers.charge_refused()
        if hold := self._candidates.held or self._attempts.held:
            return hold
        if self._answers.at_capacity:
            return AT_CAPACITY
        if not self._answers.reports:
            return Hold(Outcome.idle, queue.waiting())
        wanted = self.settings.max_beads
        cut = self._answers.dispatched == places < wanted
        return Hold(Outcome.idle, f"the free capacity is {places}, less than --max {wanted}" if cut else "")

    def _others_first(self, beads: Iterator[Bead]) -> Iterator[Bead]:
        """Yield the beads in order, but while the breaker is half open, those whose agents died come last.

        Else a few beads that kill every agent would be tried again and again, and the queue would stand.
        """
        switch, died = self.gate.switch, []
        for bead in beads:
            if switch.half_open and bead.id in switch.died:
                died.append(bead)
            else:
                yield bead
        yield from died

    def _one(self, queue: Queue, listed: Bead, places: int) -> bool:
        """Decide on one bead, and take it. Return whether to go on with the next."""
        bead = self._candidates.claimable(queue, listed, None if self._further else self._looked)
        if bead is None:
            return self._candidates.held is None

        def ahead() -> None:
            if self._answers.dispatched + 1 < places:  # another bead may follow: look beside the record of this one
                self._look_ahead(queue, queue.following)

        return self._attempts.take(bead, ahead)
