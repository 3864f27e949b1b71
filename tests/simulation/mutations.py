"""Defects to put into bdauto, each of which the simulation must find: the checker is checked by them.

A mutation replaces something of the product while its context is open. What it puts there must not itself replace
something of a class or a module for the time of a call: tasks are switched in it, and the last to end would leave that.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import msgspec

from bdauto.agents import job_questions, named_jobs
from bdauto.agents.answers import Answer, NotStarted, Unknown
from bdauto.agents.beadboard import runner as beadboard
from bdauto.agents.beadboard.runner import Services
from bdauto.agents.capacity import Capacity
from bdauto.agents.runner import Runner
from bdauto.bd.change import Change, rewrite
from bdauto.controllers import (
    answer_handler,
    breaker_store,
    claims,
    dispatcher,
    early_deaths,
    limits,
    ready_queue,
    reaper,
)
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.breaker_store import BreakerStore
from bdauto.controllers.claims import Claim, Claims, ReleaseResult
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.earlier_jobs import EarlierJobs
from bdauto.controllers.gate import TrackerGate
from bdauto.controllers.job_ends import JobEnds
from bdauto.controllers.reaper import Reaper
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.domain import breaker, reaping, record
from bdauto.domain import limits as limits_of_day
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.breaker import Breaker
from bdauto.domain.limits import Limit
from bdauto.domain.outcome import BeadOutcome, BeadReport, Report
from bdauto.domain.reaping import FORGOTTEN, OVER, JobEvidence, ReapDecision
from bdauto.domain.record import Record, Run
from bdauto.errors import ServiceError
from bdauto.loop.pause_monitor import PauseMonitor
from bdauto.loop.probation import Probation
from bdauto.loop.shutdown import Stop
from bdauto.telemetry.metrics import Metrics
from tests.simulation.history import run
from tests.simulation.services import SimServices
from tests.simulation.tracker import SimBd

MUTATIONS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {}
RARE = {
    "a bead whose claim was found gone is never posted again": 60_033_568,
    "a claim that is written back does not name the host of its job": 170_000_270,
    "a loop takes a bead that somebody took over for a sign of life": 1_840_000_900,
}
"""Defects that thousands of histories may miss, each with a history that finds it."""


def _mutation(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def register(make: Callable[[], Any]) -> Callable[[], Any]:
        MUTATIONS[name] = make
        return make

    return register


def _changes(**acts: Callable[[Change], Change]) -> Any:
    """Alter the changes of claims, by act."""
    original = Claims._apply

    def apply(self: Claims, change: Change) -> bool:
        return original(self, acts[change.act](change) if change.act in acts else change)

    return patch.object(Claims, "_apply", apply)


def _unconditional(change: Change) -> Change:
    return msgspec.structs.replace(
        change, if_status=None, if_assignee=None, if_attempt=None, if_mark=None, if_updated_at=None
    )


def _nothing(_bead: Bead) -> bool:
    return False


@_mutation("a claim compares nothing")
def _claim_blind() -> Any:
    return _changes(claim=_unconditional)


@_mutation("a claim compares the status alone")
def _claim_status() -> Any:
    return _changes(claim=lambda c: msgspec.structs.replace(c, if_assignee=None, if_updated_at=None))


@_mutation("a record has no fence")
def _record_unfenced() -> Any:
    return _changes(record=_unconditional)


@_mutation("a release compares nothing")
def _release_blind() -> Any:
    stack = contextlib.ExitStack()
    stack.enter_context(_changes(release=_unconditional))
    stack.enter_context(patch.object(claims, "sign_of_life", _nothing))
    return stack


@_mutation("a release overlooks that the agent has written")
def _release_deaf() -> Any:
    return patch.object(claims, "sign_of_life", _nothing)


@_mutation("a POST is repeated after a time-out")
def _post_twice() -> Any:
    original = SimServices.start

    def start(self: SimServices, bead: Bead, attempt: str) -> Answer:
        answer = original(self, bead, attempt)
        return original(self, bead, attempt) if isinstance(answer, Unknown) else answer

    return patch.object(SimServices, "start", start)


@_mutation("a POST without an answer counts as not started")
def _unknown_is_down() -> Any:
    original = SimServices.start

    def start(self: SimServices, bead: Bead, attempt: str) -> Answer:
        answer = original(self, bead, attempt)
        return NotStarted(answer.error) if isinstance(answer, Unknown) else answer

    return patch.object(SimServices, "start", start)


@_mutation("a 504 counts as not started")
def _gateway() -> Any:
    original = beadboard._meaning

    def meaning(reply: Any) -> Answer:
        return NotStarted("HTTP 504") if reply.status == httpx.codes.GATEWAY_TIMEOUT else original(reply)

    return patch.object(beadboard, "_meaning", meaning)


@_mutation("a bead is posted though its claim was lost")
def _post_lost() -> Any:
    original = Dispatcher._claim

    def claim(self: Dispatcher, bead: Bead, attempt: str) -> Claim | None:
        return original(self, bead, attempt) or Claim(bead, 0, bead.record.change(attempt=attempt))

    return patch.object(Dispatcher, "_claim", claim)


@_mutation("a late claim is posted")
def _late_claim() -> Any:
    original = Dispatcher._attempt

    def attempt(self: Dispatcher, *args: Any) -> bool:
        settings, self.settings = self.settings, msgspec.structs.replace(self.settings, grace=timedelta(days=9))
        try:
            return original(self, *args)
        finally:
            self.settings = settings

    return patch.object(Dispatcher, "_attempt", attempt)


def _settling(alter: Callable[[Change], Change]) -> Any:
    original = Reaper._change
    return patch.object(Reaper, "_change", lambda self, *args: alter(original(self, *args)))


@_mutation("the reaper compares nothing")
def _reap_blind() -> Any:
    return _settling(_unconditional)


@_mutation("the reaper compares the status alone")
def _reap_status() -> Any:
    return _settling(lambda c: msgspec.structs.replace(c, if_updated_at=None))


@_mutation("the reaper does not heed a running job")
def _reap_running() -> Any:
    return patch.object(reaping, "ALIVE", frozenset[str]())


@_mutation("the reaper takes `timeout` for an end")
def _reap_timeout() -> Any:
    return patch.object(reaping, "OVER", reaping.OVER | {"timeout"})


@_mutation("the reaper trusts its own clock")
def _reap_clock() -> Any:
    return patch.object(SimBd, "server_time", lambda self: None)


@_mutation("the reaper waits for no grace period")
def _no_grace() -> Any:
    original = reaping.decide_reap

    def decide(bead: Bead, evidence: Any, settings: Any, now: Any) -> ReapDecision:
        return original(bead, evidence, msgspec.structs.replace(settings, grace=timedelta(seconds=1)), now)

    return patch.object(reaper, "decide_reap", decide)


@_mutation("an agent service that is down counts as one that forgot the job")
def _no_answer() -> Any:
    return patch.object(reaping, "NO_ANSWER", "nobody says this")


@_mutation("a refused token counts as no evidence")
def _token() -> Any:
    return patch.object(reaping, "TOKEN_REFUSED", "nobody says this")


@_mutation("the reaper works while it is paused")
def _reap_paused() -> Any:
    return patch.object(reaper, "pause", SimpleNamespace(read=lambda store, now: None))


@_mutation("the dispatcher looks at the pause switch once in a cycle")
def _pause_once() -> Any:
    original = TrackerGate.hold

    def hold(self: TrackerGate) -> Any:
        if getattr(self, "asked", False):
            return None
        self.asked = True  # type: ignore[attr-defined]
        return original(self)

    return patch.object(TrackerGate, "hold", hold)


@_mutation("the queue is not read again before a further bead")
def _queue_once() -> Any:
    def judged(self: Any, bead: Bead, page: BeadList) -> Bead | None:
        return bead

    return patch.object(ready_queue.Queue, "judged_again", judged)


@_mutation("a claim keeps the job of the attempt before")
def _old_job() -> Any:
    def keep(change: Change) -> Change:
        return msgspec.structs.replace(change, drop=tuple(key for key in change.drop if key != "bdauto.job"))

    return _changes(claim=keep)


@_mutation("the breaker forgets all deaths but the last")
def _forgetful() -> Any:
    original = Breaker.after_death

    def after(self: Breaker, *args: Any, **options: Any) -> Breaker:
        return original(msgspec.structs.replace(self, deaths=()), *args, **options)

    return patch.object(Breaker, "after_death", after)


@_mutation("the breaker is not written when it has changed meanwhile")
def _breaker_once() -> Any:
    return patch.object(BreakerStore, "update", _update_once)


def _update_once(self: BreakerStore, change: Callable[[Breaker], Breaker], store: Any = None) -> Breaker:
    current = self.bd.kv_list().result() if store is None else store
    wanted = msgspec.structs.replace(change(breaker.read(current)), write=self.runtime.unique())
    self.writer.swap(breaker.KEY, current.get(breaker.KEY) or None, wanted.encode())
    return wanted


@_mutation("a half-open breaker lets everybody through")
def _many_trials() -> Any:
    return patch.object(BreakerStore, "take_trial", lambda self, attempt, bead: True)


@_mutation("the beads are settled before the breaker is written")
def _breaker_late() -> Any:
    def settle(self: Any, decisions: Sequence[ReapDecision], evidence: Any, store: Any) -> Any:
        return list(decisions), None

    return patch.object(early_deaths.EarlyDeaths, "settle", settle)


@_mutation("a refused bead is not charged")
def _uncharged() -> Any:
    original = Claims.release

    def release(self: Claims, claim: Claim, **options: Any) -> ReleaseResult:
        return original(self, claim, **(options | {"charged": False}))

    return patch.object(Claims, "release", release)


@_mutation("a failing service charges the bead")
def _charged() -> Any:
    original = Claims.release

    def release(self: Claims, claim: Claim, **options: Any) -> ReleaseResult:
        return original(self, claim, **(options | {"charged": True}))

    return patch.object(Claims, "release", release)


@_mutation("a release sets no backoff")
def _no_backoff() -> Any:
    original = Claims.release

    def release(self: Claims, claim: Claim, **options: Any) -> ReleaseResult:
        return original(self, claim, **(options | {"back_off": False}))

    return patch.object(Claims, "release", release)


@_mutation("a bead has one attempt more than it should")
def _one_more() -> Any:
    original = AnswerHandler.__init__

    def begin(
        self: AnswerHandler, claims_: Claims, started_jobs: StartedJobs, most: int, *args: Any, **options: Any
    ) -> None:
        original(self, claims_, started_jobs, most + 1, *args, **options)

    return patch.object(AnswerHandler, "__init__", begin)


@_mutation("a blocked bead keeps its counters")
def _counters() -> Any:
    return patch.object(Record, "blocked", lambda self, why: self.change(attempt="", quarantined=why))


@_mutation("the room of the agent service does not count")
def _no_room() -> Any:
    original = Services.agent_capacity

    def capacity(self: Services) -> Capacity:
        return msgspec.structs.replace(original(self), free=9)

    return patch.object(Services, "agent_capacity", capacity)


@_mutation("a dispatched bead is reported that was not recorded")
def _not_recorded() -> Any:
    return patch.object(Claims, "record", lambda self, claim, job: True)


@_mutation("a record is not tried again")
def _record_once() -> Any:
    return patch.object(claims, "RECORD_RETRY", timedelta(0))


@_mutation("a lost bead is not reported")
def _silent() -> Any:
    original = AnswerHandler.report

    def report(self: AnswerHandler, what: Any, outcome: BeadOutcome, *args: Any, **options: Any) -> None:
        if outcome is not BeadOutcome.unavailable:
            original(self, what, outcome, *args, **options)

    return patch.object(AnswerHandler, "report", report)


@_mutation("the reaper overlooks a bead in progress without an attempt")
def _overlooked() -> Any:
    original = Reaper._settle

    def settle(self: Reaper, decisions: list[ReapDecision], evidence: JobEvidence) -> Any:
        return original(self, [decision for decision in decisions if decision.bead.record.job], evidence)

    return patch.object(Reaper, "_settle", settle)


@_mutation("a failing bead stops the queue")
def _head_of_line() -> Any:
    original = ready_queue.Queue._in_order

    def in_order(self: Any, beads: Collection[Bead]) -> list[Bead]:
        return original(self, tuple(beads))[:1] if not any(b.record.retry_at for b in beads) else []

    return patch.object(ready_queue.Queue, "_in_order", in_order)


@_mutation("a loop forgets the jobs that it started")
def _memory() -> Any:
    return patch.object(StartedJobs, "claim_was_reverted", lambda self, bead: None)


@_mutation("a signal breaks off a bead that is being changed")
def _unshielded() -> Any:
    return patch.object(Stop, "enter_critical_section", lambda self: None)


@_mutation("a loop reads the pause switch once")
def _switch_once() -> Any:
    original = PauseMonitor.hold

    def hold(self: PauseMonitor) -> Any:
        if getattr(self, "asked", False):
            return None
        self.asked = True  # type: ignore[attr-defined]
        return original(self)

    return patch.object(PauseMonitor, "hold", hold)


@_mutation("the queue is sorted by priority alone")
def _by_priority() -> Any:
    return patch.object(ready_queue, "dispatch_order", lambda bead: bead.priority)


@_mutation("a long queue is judged by its first page")
def _first_page() -> Any:
    return patch.object(ready_queue, "_complete", lambda page, size=0: True)


@_mutation("the limit of a day is not heeded")
def _no_limit() -> Any:
    return patch.object(limits, "reached", lambda *args: None)


@_mutation("the end of a job is recorded on whatever attempt the bead has by then")
def _result_unfenced() -> Any:
    original = JobEnds._change
    return patch.object(JobEnds, "_change", lambda self, *run: _unconditional(original(self, *run)))


@_mutation("what a sweep settled is not in the log")
def _unlogged() -> Any:
    def report(self: Reaper, beads: Any, malformed: Any, error: Any = None) -> Report:
        kept = tuple(bead for bead in beads if bead.outcome is BeadOutcome.kept)
        return msgspec.structs.replace(original(self, kept, malformed, error), beads=beads)

    original = Reaper._report
    return patch.object(Reaper, "_report", report)


@_mutation("the metrics count a bead that was not dispatched")
def _metrics() -> Any:
    original = Metrics.count

    def count(self: Metrics, report: Report, *args: Any) -> None:
        lost = msgspec.structs.replace(report, beads=tuple(map(_as_dispatched, report.beads)))
        original(self, lost if report.command == "dispatch" else report, *args)

    return patch.object(Metrics, "count", count)


def _as_dispatched(bead: BeadReport) -> BeadReport:
    lost = bead.outcome is BeadOutcome.lost
    return msgspec.structs.replace(bead, outcome=BeadOutcome.dispatched) if lost else bead


@_mutation("the age of a claim is judged before the last look at the clock")
def _early_look() -> Any:
    original = Dispatcher._start

    def start(self: Dispatcher, claim: Claim) -> Answer:
        self.runtime.now()
        return original(self, claim)

    return patch.object(Dispatcher, "_start", start)


@_mutation("a bead is posted without a question about the jobs that it names")
def _no_question() -> Any:
    return patch.object(EarlierJobs, "hold_back", lambda self, bead, runner: False)


@_mutation("a bead is claimed for an earlier job that is over")
def _restores_over() -> Any:
    original = named_jobs.ask_job

    def ask(runner: Runner, job: str) -> tuple[str, ServiceError | None]:
        state, error = original(runner, job)
        return ("running" if state in OVER else state), error

    return patch.object(named_jobs, "ask_job", ask)


@_mutation("a claim that is written back is not charged")
def _restores_uncharged() -> Any:
    return _changes(**{"restore claim": lambda c: msgspec.structs.replace(c, put=c.put | {"bdauto.attempts": 0})})


@_mutation("a claim that is written back does not name the host of its job")
def _restores_homeless() -> Any:
    return _changes(
        **{
            "restore claim": lambda c: msgspec.structs.replace(
                c, put={key: value for key, value in c.put.items() if key != "bdauto.jobs_folder"}
            )
        }
    )


@_mutation("a claim that is written back compares nothing")
def _restores_blind() -> Any:
    return _changes(**{"restore claim": _unconditional})


@_mutation("the place of a half-open breaker is taken without a compare")
def _trial_blind() -> Any:
    original = BreakerStore.take_trial

    def take(self: BreakerStore, attempt: str, bead: str) -> bool:
        original(self, attempt, bead)
        return True

    return patch.object(BreakerStore, "take_trial", take)


@_mutation("a trial that fails does not open the breaker again")
def _failed_trial() -> Any:
    original = Breaker.after_death

    def after(self: Breaker, death: Any, trip_after: int, *args: Any, **options: Any) -> Breaker:
        found = original(self, death, trip_after, *args, **options)
        return msgspec.structs.replace(self, deaths=found.deaths) if self.trial else found

    return patch.object(Breaker, "after_death", after)


@_mutation("a breaker that opens again waits no longer")
def _same_wait() -> Any:
    original = Breaker.after_death

    def after(self: Breaker, *args: Any, **options: Any) -> Breaker:
        return msgspec.structs.replace(original(self, *args, **options), opened=0)

    return patch.object(Breaker, "after_death", after)


@_mutation("the agent of a trial that lives does not close the breaker")
def _life_unheard() -> Any:
    return patch.object(Breaker, "after_life", lambda self, attempt, claimed_at: self)


@_mutation("a charge is given back at each sweep")
def _gives_back_twice() -> Any:
    def rewritten(bead: Bead, record: Record, **fields: Any) -> Change:
        return rewrite(bead, record.change(died=bead.record.died), **fields)

    return patch.object(breaker_store, "rewrite", rewritten)


@_mutation("the limit of a day leaves out the jobs that run")
def _only_ended() -> Any:
    original = limits_of_day._by_number

    def by_number(runs: Iterable[Run], most: int | None, now: datetime) -> Limit | None:
        return original([run for run in runs if run.ended_at is not None], most, now)

    return patch.object(limits_of_day, "_by_number", by_number)


@_mutation("two reapers record the result of one job")
def _result_twice() -> Any:
    original = JobEnds._change
    return patch.object(
        JobEnds, "_change", lambda self, *run: msgspec.structs.replace(original(self, *run), if_mark=None)
    )


@_mutation("the result of a job is not recorded on a bead that its agent has closed")
def _no_result() -> Any:
    return patch.object(JobEnds, "record_missing", lambda self, runner: ((), False))


@_mutation("a reaper settles any number of beads by their age")
def _any_number() -> Any:
    return patch.object(reaper, "too_many", lambda decisions, settings: 0)


@_mutation("a cycle goes on after an unknown outcome")
def _goes_on() -> Any:
    original = AnswerHandler._apply

    def apply(self: AnswerHandler, claim: Claim, answer: Answer) -> bool:
        return original(self, claim, answer) or isinstance(answer, Unknown)

    return patch.object(AnswerHandler, "_apply", apply)


@_mutation("any number of refused beads in a row is charged")
def _never_misdirected() -> Any:
    return patch.object(answer_handler, "IN_A_ROW", 99)


@_mutation("a signal does not keep a cycle from its next bead")
def _deaf() -> Any:
    original = TrackerGate.__init__

    def begin(self: TrackerGate, *args: Any, **options: Any) -> None:
        original(self, *args, **(options | {"stopping": lambda: False}))

    return patch.object(TrackerGate, "__init__", begin)


@_mutation("a loop does not wait for a sign of life")
def _no_probation() -> Any:
    return patch.object(Probation, "holds", lambda self, now: False)


@_mutation("a loop takes a bead that somebody took over for a sign of life")
def _taken_lives() -> Any:
    original = Probation.swept

    def swept(self: Probation, report: Report, others: Collection[Bead] = ()) -> None:
        original(self, report, [msgspec.structs.replace(bead, status="closed") for bead in others])

    return patch.object(Probation, "swept", swept)


@_mutation("a lost note is written again at each sweep")
def _notes_again() -> Any:
    original = Reaper._rewrite_lost_notes

    def forgets(bead: Bead) -> Bead:
        kept = {key: value for key, value in bead.metadata.items() if key != "bdauto.noted"}
        return msgspec.structs.replace(bead, metadata=kept)

    def rewrite(self: Reaper, decisions: list[ReapDecision]) -> None:
        original(self, [msgspec.structs.replace(found, bead=forgets(found.bead)) for found in decisions])

    return patch.object(Reaper, "_rewrite_lost_notes", rewrite)


@_mutation("a refused bead is not worth an exit status")
def _exit() -> Any:
    original = AnswerHandler.failure

    def failure(self: AnswerHandler) -> Any:
        return original(self) if any(r.outcome is not BeadOutcome.refused for r in self.reports) else None

    return patch.object(AnswerHandler, "failure", failure)


@_mutation("an outage is noted at each try")
def _notes_all() -> Any:
    return patch.object(claims, "error_kind", lambda error: object())


@_mutation("the note of a claim that came to nothing stays")
def _claim_note() -> Any:
    return _changes(release=lambda c: msgspec.structs.replace(c, retracts_claim_note=False))


@_mutation("the breaker counts every job that is over as an early death")
def _all_over() -> Any:
    original = early_deaths.EarlyDeaths.settle

    def settle(self: Any, decisions: Sequence[ReapDecision], evidence: JobEvidence, store: Any) -> Any:
        found = [
            msgspec.structs.replace(decision, early_death=evidence.states.get(decision.bead.id) in OVER)
            for decision in decisions
        ]
        return original(self, found, evidence, store)

    return patch.object(early_deaths.EarlyDeaths, "settle", settle)


@_mutation("a claim does not hold the pause switch")
def _claim_unheld() -> Any:
    return _changes(claim=lambda c: msgspec.structs.replace(c, if_store={}))


@_mutation("the writes of a sweep do not hold the pause switch")
def _sweep_unheld() -> Any:
    return patch.object(SweepWrites, "apply", lambda self, changes: self._writer.apply(changes))


@_mutation("the pause switch is not read again after a slow claim")
def _slow_claim() -> Any:
    return patch.object(dispatcher, "MAX_AGE", timedelta(days=1))


@_mutation("an unknown outcome does not count for the breaker")
def _unknown_uncounted() -> Any:
    return patch.object(BreakerStore, "after_unknown", lambda self, death, trip_after: (Breaker(), False))


@_mutation("unknown outcomes that open the breaker stay charged")
def _unknown_charged() -> Any:
    return patch.object(BreakerStore, "refunds", lambda self, found, *skip: [])


@_mutation("a job that another bead records is adopted")
def _anybodys_job() -> Any:
    return patch.object(SimBd, "recorder_of", lambda self, job, besides: "")


@_mutation("a bead is charged for a job that bdauto did not start")
def _adopted_charged() -> Any:
    def decide(*args: Any) -> ReapDecision:
        return msgspec.structs.replace(original(*args), charged=True)

    original = reaping.decide_reap
    return patch.object(reaper, "decide_reap", decide)


@_mutation("a bead that is given back loses its place")
def _no_place() -> Any:
    return patch.object(Record, "in_place", lambda self, armed_at: self)


@_mutation("the list of runs keeps the last one alone")
def _one_run() -> Any:
    return patch.object(record, "KEPT_RUNS", 1)


@_mutation("one job that cannot be shown ends the questions about the others")
def _one_for_all() -> Any:
    return patch.object(job_questions, "_silent", lambda word: isinstance(word, ServiceError))


@_mutation("a job that cannot be shown counts as forgotten before a POST")
def _unshown() -> Any:
    original = named_jobs.ask_job

    def ask(runner: Runner, job: str) -> tuple[str, ServiceError | None]:
        state, error = original(runner, job)
        return (FORGOTTEN, None) if error else (state, None)

    return patch.object(named_jobs, "ask_job", ask)


@_mutation("the latest end of a job in another place is overlooked")
def _no_end() -> Any:
    return patch.object(Bead, "ends_by", property(lambda self: None))


@_mutation("a write of a sweep that failed is not reported")
def _failed_unnamed() -> Any:
    return patch.object(Reaper, "_report", _without_failed(Reaper._report))


def _without_failed(original: Callable[..., Report]) -> Callable[..., Report]:
    def report(self: Reaper, *args: Any) -> Report:
        found = original(self, *args)
        beads = tuple(bead for bead in found.beads if bead.outcome is not BeadOutcome.failed)
        return msgspec.structs.replace(found, beads=beads)

    return report


def histories_until_found(name: str, first: int, most: int) -> int | None:
    """Return how many histories it takes to find a mutation, None if `most` are not enough."""
    with MUTATIONS[name]():
        return next((number for number in range(1, most + 1) if run(first + number - 1).violation), None)
