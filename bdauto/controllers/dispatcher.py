"""One dispatch cycle: choose, claim, post, record.

The claim excludes every other dispatcher. The POST is made once and never repeated. Whatever its answer, the bead ends
recorded, released, quarantined, or claimed with an outcome that says "unknown" (docs/decisions.md has the table).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bdauto import log
from bdauto.agents.answers import Answer, Started, Unknown
from bdauto.agents.service_status import ServiceStatus, check_services
from bdauto.bd.change import Change, LookBack, Writer, apply_each
from bdauto.bd.client import Bd
from bdauto.bd.command import PAGE
from bdauto.bd.prefetch import MAX_AGE, Prefetch, too_old
from bdauto.clock import Runtime
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.breaker_store import BreakerStore
from bdauto.controllers.claims import Claim, Claims
from bdauto.controllers.earlier_jobs import EarlierJobs
from bdauto.controllers.gate import Gate, Hold
from bdauto.controllers.late_notes import LateNotes
from bdauto.controllers.limits import Limits
from bdauto.controllers.ready_queue import Queue
from bdauto.controllers.started_jobs import StartedJob, StartedJobs
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.breaker import Death
from bdauto.domain.limits import outside_hours
from bdauto.domain.notes import UNKNOWN, format_age
from bdauto.domain.outcome import BeadOutcome, Outcome, Report, partly
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time
from bdauto.errors import AgentsDie, BdautoError, BdConflict, BdError, BdFailed, PartlyDone, ServiceDown
from bdauto.sanitize import clean

if TYPE_CHECKING:
    from bdauto.agents.runner import Place, Runner

CLAIM_TRIES = 3
"""How often a claim is tried in all, if a change of the breaker may have prevented it."""
IN_A_ROW = 3
"""So many claims that fail one after another speak against bd, and not against the beads."""
AT_CAPACITY = "the agent is at capacity"


@dataclass
class Dispatcher:
    """Runs one cycle. `runner` is called only when a bead is eligible, `gate` is asked before each bead.

    `status` is what the services said, if the caller has just asked them. After the cycle it is what the cycle was
    told. A process that runs several cycles keeps `started_jobs` and the waiting `notes` between them. Without `notes`,
    a cycle writes its notes at its end.
    """

    bd: Bd
    writer: Writer
    runner: "Callable[[], Runner]"
    settings: DispatchSettings
    runtime: Runtime
    gate: Gate
    started_jobs: StartedJobs = field(default_factory=StartedJobs)
    status: ServiceStatus | None = None
    notes: LateNotes | None = None
    next_at: datetime | None = field(default=None, init=False)
    """When time alone may change what the cycle found, as far as it has seen."""
    _malformed: set[str] = field(default_factory=set, init=False)
    _looked: datetime = field(default=datetime.min, init=False)
    _held: Hold | None = field(default=None, init=False)
    _further: bool = field(default=False, init=False)
    _again: tuple[str, Prefetch[BeadList]] | None = field(default=None, init=False)
    _claims_failed: int = field(default=0, init=False)
    _tripped: AgentsDie | None = field(default=None, init=False)
    _waits: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._notes = self.notes or LateNotes()
        self._claims = Claims(self.bd, self.writer, self.runtime, self._notes, self.settings.grace)
        self._limits = Limits(self.bd, self.runner, self.settings, self.runtime.now)
        self._breaker = BreakerStore(self.bd, self.writer, self.runtime)
        self._answers = AnswerHandler(
            self._claims, self.started_jobs, self.settings.max_attempts, self.runtime.now, dry_run=self.settings.dry_run
        )
        self._earlier_jobs = EarlierJobs(self.bd, self._claims, self._answers, self.started_jobs, self.runtime)

    def cycle(self) -> Report:
        """Dispatch up to `max_beads` eligible beads. The report holds any error. Nothing expected is raised."""
        hold, error = Hold(Outcome.idle), None
        try:
            hold = self._cycle()
        except BdautoError as caught:
            error = caught
        finally:
            self.gate.close()
            self._limits.close()
            self._close_again()
        if self.notes is None:
            self._notes.write(self.writer, self.runtime)
        beads, malformed = tuple(self._answers.reports), tuple(sorted(self._malformed))
        outcome, dispatched = hold.outcome, self._answers.dispatched
        error = error or self._tripped or self._answers.failure() or partly(beads, malformed)
        if error:
            outcome = Outcome.partial if dispatched or isinstance(error, PartlyDone) else Outcome.failed
        elif dispatched:
            outcome = Outcome.dispatched
        waits = tuple(self._waits)
        return Report("dispatch", outcome, self.settings.dry_run, beads, hold.detail, malformed, error, waits)

    def _cycle(self) -> Hold:
        began = self.runtime.now()
        if limit := outside_hours(self.settings, began):
            self.next_at = limit.until
            return Hold(Outcome.limited, limit.describe(), limit.until)
        first = Prefetch(lambda: self.bd.ready(limit=PAGE), self.runtime.now)
        page = first.result()
        self._looked = first.began
        if page.empty:  # nothing that a pause could hold back
            self.started_jobs.idle_at = began
            return Hold(Outcome.idle)
        with contextlib.closing(Queue(self.bd, self.settings, self.runtime.now(), self._malformed)) as queue:
            return self._from_queue(queue, page, began)

    def _from_queue(self, queue: Queue, page: BeadList, began: datetime) -> Hold:
        """Dispatch from a queue that begins with this page, unless no bead is eligible, or the gate holds it back."""
        if queue.none_eligible(page):
            self.next_at, self.started_jobs.idle_at = queue.next_at, began
            return Hold(Outcome.idle, queue.waiting())
        self.gate.prefetch()
        if queue.promising(page):  # what a dispatch needs is got ready beside the look at the switch
            queue.read_ahead(page, self.settings.max_beads)
            self._limits.prefetch()
            self.writer.prepare()
            self.runner()
        hold = self.gate.hold()
        self.next_at = hold.until if hold else None
        if hold is None:
            hold = self._dispatch(queue, page)
            self.next_at = hold.until or queue.next_at
        return hold

    def _dispatch(self, queue: Queue, page: BeadList) -> Hold:
        """Take beads from the queue until enough are dispatched, capacity ends, or an answer stops the cycle."""
        room = None
        try:
            for listed in self._others_first(queue.eligible(page, self.settings.max_beads)):
                if room is None:
                    if hold := self._limits.hold():
                        return hold
                    self.runner().check_start(dry_run=self.settings.dry_run)
                    room = self._room()
                    if room == 0:
                        return Hold(Outcome.busy, AT_CAPACITY)
                else:
                    self._further = True
                    self._prefetch_next(queue, listed)
                    if hold := self.gate.hold():
                        return hold
                with self._answers.naming(listed):
                    go_on = self._one(queue, listed, room)
                if not go_on or self._answers.dispatched >= room:
                    break
        finally:
            self._answers.charge_refused()
        if self._held:
            return self._held
        if self._answers.at_capacity:
            return Hold(Outcome.busy, AT_CAPACITY)
        if not self._answers.reports:
            return Hold(Outcome.idle, queue.waiting())
        cut = room is not None and self._answers.dispatched == room < self.settings.max_beads
        return Hold(
            Outcome.idle, f"the free capacity is {room}, less than --max {self.settings.max_beads}" if cut else ""
        )

    def _others_first(self, beads: Iterator[Bead]) -> Iterator[Bead]:
        """Yield the beads in order, but while the breaker is half open, those whose agents died come last.

        Else a few beads that kill every agent would be tried again and again, and the queue would stand.
        """
        died = []
        for bead in beads:
            if self.gate.half_open and bead.id in self.gate.died:
                died.append(bead)
            else:
                yield bead
        yield from died

    def _room(self) -> int:
        """Return how many beads may be dispatched in this cycle. What runs the agent is asked once."""
        self.status = self.status or check_services(self.runner())
        capacity = self.status.capacity
        if capacity is None:
            raise self.status.error or ServiceDown("the services did not say what they would take")
        wanted = self.settings.max_beads
        return min(wanted, capacity.free) if capacity.counted or not capacity.free else wanted

    def _prefetch_next(self, queue: Queue, bead: Bead | None) -> None:
        """Start the reads that decide on the next bead, if that is known."""
        self.gate.prefetch()
        self._limits.prefetch()
        if bead:
            self._read_again(queue, bead).start()

    def _read_again(self, queue: Queue, bead: Bead) -> Prefetch[BeadList]:
        """Return the read of what decides on this bead."""
        if self._again is None or self._again[0] != bead.id:
            self._close_again()
            self._again = bead.id, Prefetch(lambda: queue.read_again(bead), self.runtime.now)
        return self._again[1]

    def _close_again(self) -> None:
        if self._again:
            self._again[1].close()

    def _judged_again(self, queue: Queue, bead: Bead) -> Bead | None:
        """Return the bead as a recent read shows it. None if it is no longer eligible, or a limit is reached.

        The queue may have been read some time ago: slow questions, or the POST of another bead, lie in between.
        """
        if not self._further and not too_old(self._looked, self.runtime.now()):
            return bead
        self._limits.prefetch()
        read = self._read_again(queue, bead)
        read.start()
        self._held = self._limits.hold()
        return None if self._held else queue.judged_again(bead, read.result())

    def _one(self, queue: Queue, listed: Bead, room: int) -> bool:
        """Claim and post one bead. Return whether to go on with the next."""
        if self._earlier_jobs.hold_back(listed, self.runner()):
            return True
        bead = self._judged_again(queue, listed)
        if bead is None:
            return self._held is None
        if _names(bead) != _names(listed) and self._earlier_jobs.hold_back(bead, self.runner()):
            return True
        if problem := self.runner().problem_with(bead):
            self._answers.report(bead, BeadOutcome.unavailable, f"it was not claimed: {problem}")
            return True
        attempt = self.runtime.unique()
        if self.gate.half_open and not self.settings.dry_run and not self._breaker.take_trial(attempt, bead.id):
            words = f"{bead.id} is passed over: another bead tries whether the agent works again"
            self._held = Hold(Outcome.suspended, words)
            return False
        try:
            return self._attempt(queue, bead, attempt, room)
        finally:
            if self.gate.half_open and not self._answers.may_run(attempt):
                self._breaker.return_trial(attempt)

    def _attempt(self, queue: Queue, bead: Bead, attempt: str, room: int) -> bool:
        since, at = self.runtime.monotonic(), self.runtime.now()
        claim = self._claim(bead, attempt)
        if claim is None:
            return self._held is None
        if self._taken(since, at) > MAX_AGE:
            self._held = self.gate.hold(again=True)
        taken = self._taken(since, at)  # the last check before the POST: `hold` may be slow
        if taken > self.settings.grace / 2:
            self._answers.too_late(claim, f"its claim took {format_age(taken)}, a reaper may release it: not posted")
            return self._held is None
        if self._held:
            self._answers.too_late(claim, f"{self._held.detail or 'asked to stop'}: not posted")
            return False
        now = at + taken
        waited = now - self.started_jobs.eligible_since(bead)
        self._waits.append(max(waited.total_seconds(), 0.0))
        answer = self._start(claim)
        log.debug("answered", bead=bead.id, attempt=claim.attempt, answer=type(answer).__name__)
        if isinstance(answer, Started):
            self.started_jobs.started(bead.id, StartedJob(claim.attempt, claim.attempts, answer.job))
        if self._answers.dispatched + 1 < room:  # another bead may follow: look beside the record of this one
            self._prefetch_next(queue, queue.following)
        go_on = self._answers.apply(claim, answer)
        if isinstance(answer, Unknown) and self.settings.trip_after:
            self._count_unknown(claim, answer.error)
        return go_on

    def _taken(self, since: float, at: datetime) -> timedelta:
        """Return the time since then: the larger of what the monotonic clock and the wall clock of this host say."""
        return max(timedelta(seconds=self.runtime.monotonic() - since), self.runtime.now() - at)

    def _count_unknown(self, claim: Claim, error: str) -> None:
        """Count a POST with an unknown outcome in the breaker."""
        bead, claimed_at = claim.bead.id, format_time(self.runtime.now())
        death = Death(bead, claim.attempt, words=clean(error), claimed_at=claimed_at, unknown=True)
        found, opened = self._breaker.after_unknown(death, self.settings.trip_after)
        if opened:
            self._tripped = AgentsDie(
                f"{bead}: {UNKNOWN}: {clean(error, 120)}; {found.describe()}",
                hint="see what stands between bdauto and BeadBoard; one bead then tries it, or `bdauto resume`",
            )
        self._give_back(self._breaker.refunds(found))

    def _give_back(self, charges: Sequence[Change]) -> None:
        for change, result in zip(charges, apply_each(self.writer, charges, LookBack(self.bd.read)), strict=True):
            if isinstance(result, BdError):
                self._answers.report(change.bead, BeadOutcome.failed, f"{change.act}: {result}")

    def _claim(self, bead: Bead, attempt: str) -> Claim | None:
        """Claim a bead. If the switch or the breaker prevents it, `_held` is set and the report has no entry."""
        for _ in range(CLAIM_TRIES):
            expected = self.gate.expected
            try:
                claim = self._claims.claim(bead, attempt, self._place(), expected)
            except (BdFailed, BdConflict) as error:
                self._claims_failed += 1
                if self._claims_failed == IN_A_ROW:
                    raise
                self._answers.report(bead, BeadOutcome.failed, str(error))
                return None
            self._claims_failed = 0
            if claim or not expected:
                break
            self._held = self.gate.hold(again=True)
            if self._held or self.gate.expected == expected:
                break
        if claim is None and self._held is None:
            self._answers.report(bead, BeadOutcome.lost, "it changed since it was read: somebody else has it")
        return claim

    def _place(self) -> "Place | None":
        """Return where the job of a claim will run. A dry run makes no jobs folder, so it names none."""
        return None if self.settings.dry_run else self.runner().place()

    def _start(self, claim: Claim) -> Answer:
        """Start the agent. In a dry run, only show what it would be asked."""
        if not self.settings.dry_run:
            return self.runner().start(claim.bead, claim.attempt)
        if prompt := self.runner().prompt(claim.bead, claim.attempt):
            log.debug("prompt", bead=claim.bead.id, prompt=log.Text(prompt))
        return Started("")


def _names(bead: Bead) -> tuple[str, ...]:
    """Return what finds the jobs that may run on a bead."""
    return (bead.record.attempt, *bead.named_jobs)
