"""Defects of a dispatch cycle: the claim, the POST, what follows from its answer, the queue and the limits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bdauto.agents import named_jobs
from bdauto.agents.answers import Answer, NotStarted, Unknown
from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.runner import Runner
from bdauto.agents.runner_status import Capacity
from bdauto.bd.change import Change
from bdauto.common.errors import ServiceError
from bdauto.controllers import answer_handler, attempts, claim_writes, claims, day_limits, ready_queue
from bdauto.controllers.answer_handler import AnswerHandler
from bdauto.controllers.attempts import Attempts
from bdauto.controllers.claim_writes import Claim, ReleaseResult
from bdauto.controllers.claims import Claims
from bdauto.controllers.earlier_jobs import EarlierJobs
from bdauto.controllers.gate import Gate, TrackerGate
from bdauto.controllers.hold import Hold
from bdauto.controllers.ready_queue import Queue
from bdauto.domain import limits as limits_of_day
from bdauto.domain import record
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.eligibility import dispatch_order, verdict
from bdauto.domain.limits import Limit
from bdauto.domain.outcome import BeadOutcome
from bdauto.domain.reaping import FORGOTTEN, OVER
from bdauto.domain.record import Record, Run
from tests.simulation.local import SimLocal
from tests.simulation.mutations.registry import Replacement, changes, mutation, without
from tests.simulation.services import SimServices
from tests.simulation.tracker import SimBd

Replaced = Sequence[Replacement]


@mutation("a claim compares nothing")
def _claim_blind() -> Replaced:
    return changes(without(), "claim")


@mutation("a claim compares the status alone")
def _claim_status() -> Replaced:
    return changes(without("if_assignee", "if_mark", "if_updated_at"), "claim")


@mutation("a claim does not hold the pause switch")
def _claim_unheld() -> Replaced:
    return changes(lambda change: msgspec.structs.replace(change, if_store={}), "claim")


@mutation("a claim keeps the job of the attempt before")
def _old_job() -> Replaced:
    def keep(change: Change) -> Change:
        return msgspec.structs.replace(change, drop=tuple(key for key in change.drop if key != "bdauto.job"))

    return changes(keep, "claim")


@mutation("a record has no fence")
def _record_unfenced() -> Replaced:
    return changes(without(), "record")


@mutation("a record is not tried again")
def _record_once() -> Replaced:
    return [Replacement(claims, "RECORD_RETRY", timedelta(0))]


@mutation("a dispatched bead is reported that was not recorded")
def _not_recorded() -> Replaced:
    return [Replacement(Claims, "record", lambda self, claim, job: True)]


@mutation("a release compares nothing")
def _release_blind() -> Replaced:
    return [*changes(without(), "release"), *_release_deaf()]


@mutation("a release overlooks that the agent has written")
def _release_deaf() -> Replaced:
    return [Replacement(claim_writes, "sign_of_life", lambda bead: False)]


@mutation("the note of a claim that came to nothing stays")
def _claim_note() -> Replaced:
    return changes(lambda change: msgspec.structs.replace(change, retracts_claim_note=False), "release")


def _after_unknown(alter: Callable[[SimServices, Bead, str, Unknown], Answer]) -> Replaced:
    """Alter what is made of a POST with an unknown outcome."""
    original = SimServices.start

    def start(self: SimServices, bead: Bead, attempt: str) -> Answer:
        answer = original(self, bead, attempt)
        return alter(self, bead, attempt, answer) if isinstance(answer, Unknown) else answer

    return [Replacement(SimServices, "start", start)]


@mutation("a POST is repeated after a time-out")
def _post_twice() -> Replaced:
    original = SimServices.start
    return _after_unknown(lambda self, bead, attempt, answer: original(self, bead, attempt))


@mutation("a POST without an answer counts as not started")
def _unknown_is_down() -> Replaced:
    return _after_unknown(lambda self, bead, attempt, answer: NotStarted(answer.error))


@mutation("a 504 counts as not started")
def _gateway() -> Replaced:
    return _after_unknown(
        lambda self, bead, attempt, answer: NotStarted(answer.error) if "HTTP 504" in answer.error else answer
    )


@mutation("the age of a claim is judged before the last look at the clock")
def _early_look() -> Replaced:
    service, local = SimServices.start, SimLocal.start

    def start(self: SimServices, bead: Bead, attempt: str) -> Answer:
        self._process.runtime.now()
        return service(self, bead, attempt)

    def start_here(self: SimLocal, bead: Bead, attempt: str) -> Answer:
        self._of.runtime.now()
        return local(self, bead, attempt)

    return [Replacement(SimServices, "start", start), Replacement(SimLocal, "start", start_here)]


@mutation("a bead is posted though its claim was lost")
def _post_lost() -> Replaced:
    original = Claims.claim

    def claim(self: Claims, bead: Bead, attempt: str, place: Any = None, store: Any = None) -> Claim:
        found = original(self, bead, attempt, place, store)
        return found or Claim(bead, 0, bead.record.change(attempt=attempt))

    return [Replacement(Claims, "claim", claim)]


@mutation("a late claim is posted")
def _late_claim() -> Replaced:
    original = Attempts.__post_init__

    def begin(self: Attempts) -> None:
        original(self)
        self.settings = msgspec.structs.replace(self.settings, grace=timedelta(days=9))

    return [Replacement(Attempts, "__post_init__", begin)]


@mutation("the pause switch is not read again after a slow claim")
def _slow_claim() -> Replaced:
    return [Replacement(attempts, "MAX_AGE", timedelta(days=1))]


@mutation("the dispatcher looks at the pause switch once in a cycle")
def _pause_once() -> Replaced:
    original = TrackerGate.hold

    def hold(self: TrackerGate) -> Hold | None:
        if getattr(self, "asked", False):
            return None
        self.asked = True  # type: ignore[attr-defined]
        return original(self)

    return [Replacement(TrackerGate, "hold", hold)]


@mutation("a signal does not keep a cycle from its next bead")
def _deaf() -> Replaced:
    original = Gate.__init__

    def begin(self: Gate, bd: Any, runner: Any, settings: Any, now: Any, known: Any = None, switch: Any = None) -> None:
        deaf = msgspec.structs.replace(known, stopping=lambda: False) if known else None
        original(self, bd, runner, settings, now, deaf, switch)

    return [Replacement(Gate, "__init__", begin)]


@mutation("the room of the agent service does not count")
def _no_room() -> Replaced:
    original = BeadBoardRunner.agent_capacity

    def capacity(self: BeadBoardRunner) -> Capacity:
        return msgspec.structs.replace(original(self), free=9)

    return [Replacement(BeadBoardRunner, "agent_capacity", capacity)]


# What follows from the answer


def _releasing(**fields: Any) -> Replaced:
    original = Claims.release

    def release(self: Claims, claim: Claim, **options: Any) -> ReleaseResult:
        return original(self, claim, **(options | fields))

    return [Replacement(Claims, "release", release)]


@mutation("a refused bead is not charged")
def _uncharged() -> Replaced:
    return _releasing(charged=False)


@mutation("a failing service charges the bead")
def _charged() -> Replaced:
    return _releasing(charged=True)


@mutation("a release sets no backoff")
def _no_backoff() -> Replaced:
    return _releasing(back_off=False)


@mutation("a bead has one attempt more than it should")
def _one_more() -> Replaced:
    original = AnswerHandler.__init__

    def begin(self: AnswerHandler, claims_: Claims, memory: Any, most: int, *args: Any, **options: Any) -> None:
        original(self, claims_, memory, most + 1, *args, **options)

    return [Replacement(AnswerHandler, "__init__", begin)]


@mutation("a blocked bead keeps its counters")
def _counters() -> Replaced:
    return [Replacement(Record, "blocked", lambda self, why: self.change(attempt="", quarantined=why))]


@mutation("a lost bead is not reported")
def _silent() -> Replaced:
    original = AnswerHandler.report

    def report(self: AnswerHandler, what: Any, outcome: BeadOutcome, *args: Any, **options: Any) -> None:
        if outcome is not BeadOutcome.unavailable:
            original(self, what, outcome, *args, **options)

    return [Replacement(AnswerHandler, "report", report)]


@mutation("a refused bead is not worth an exit status")
def _exit() -> Replaced:
    original = AnswerHandler.failure

    def failure(self: AnswerHandler) -> Any:
        return original(self) if any(r.outcome is not BeadOutcome.refused for r in self.reports) else None

    return [Replacement(AnswerHandler, "failure", failure)]


@mutation("a cycle goes on after an unknown outcome")
def _goes_on() -> Replaced:
    original = AnswerHandler.apply

    def apply(self: AnswerHandler, claim: Claim, answer: Answer) -> bool:
        return original(self, claim, answer) or isinstance(answer, Unknown)

    return [Replacement(AnswerHandler, "apply", apply)]


@mutation("any number of refused beads in a row is charged")
def _never_misdirected() -> Replaced:
    return [Replacement(answer_handler, "IN_A_ROW", 99)]


@mutation("an outage is noted at each try")
def _notes_all() -> Replaced:
    return [Replacement(claim_writes, "error_kind", lambda error: object())]


# Earlier jobs


@mutation("a bead is posted without a question about the jobs that it names")
def _no_question() -> Replaced:
    return [Replacement(EarlierJobs, "hold_back", lambda self, bead, runner: False)]


@mutation("a bead that somebody opened during its POST is posted at once")
def _reposted() -> Replaced:
    return [Replacement(named_jobs, "UNTOLD", timedelta(0))]


def _asking(alter: Callable[[str, ServiceError | None], tuple[str, ServiceError | None]]) -> Replaced:
    original = named_jobs.ask_job

    def ask(runner: Runner, job: str) -> tuple[str, ServiceError | None]:
        return alter(*original(runner, job))

    return [Replacement(named_jobs, "ask_job", ask)]


@mutation("a bead is claimed for an earlier job that is over")
def _restores_over() -> Replaced:
    return _asking(lambda state, error: ("running" if state in OVER else state, error))


@mutation("a job that cannot be shown counts as forgotten before a POST")
def _unshown() -> Replaced:
    return _asking(lambda state, error: (FORGOTTEN, None) if error else (state, None))


@mutation("a job that another bead records is adopted")
def _anybodys_job() -> Replaced:
    return [Replacement(SimBd, "recorder_of", lambda self, job, besides: "")]


@mutation("the latest end of a job in another place is overlooked")
def _no_end() -> Replaced:
    return [Replacement(Bead, "ends_by", property(lambda self: None))]


@mutation("a claim that is written back is not charged")
def _restores_uncharged() -> Replaced:
    return changes(
        lambda change: msgspec.structs.replace(change, put={**change.put, "bdauto.attempts": 0}), "restore claim"
    )


@mutation("a claim that is written back does not name the host of its job")
def _restores_homeless() -> Replaced:
    def homeless(change: Change) -> Change:
        put = {key: value for key, value in change.put.items() if key != "bdauto.jobs_folder"}
        return msgspec.structs.replace(change, put=put)

    return changes(homeless, "restore claim")


@mutation("a claim that is written back compares nothing")
def _restores_blind() -> Replaced:
    return changes(without(), "restore claim")


# The queue and the limits


@mutation("the queue is not read again before a further bead")
def _queue_once() -> Replaced:
    return [Replacement(Queue, "judged_again", lambda self, bead, page: bead)]


@mutation("a failing bead stops the queue")
def _head_of_line() -> Replaced:
    original = Queue.eligible

    def eligible(self: Queue, page: BeadList, wanted: int) -> Iterator[Bead]:
        if not any(bead.record.retry_at for bead in page.beads):
            yield from original(self, page, wanted)

    return [Replacement(Queue, "eligible", eligible)]


@mutation("the queue is sorted by priority alone")
def _by_priority() -> Replaced:
    return [Replacement(ready_queue, "dispatch_order", lambda bead: bead.priority)]


@mutation("a long queue is judged by its first page")
def _first_page() -> Replaced:
    def eligible(self: Queue, page: BeadList, wanted: int) -> Iterator[Bead]:
        assignee = self.bd.assignee
        found = [b for b in page.beads if verdict(b, True, assignee, self.settings, self.now).eligible]
        return iter(sorted(found, key=dispatch_order))

    return [Replacement(Queue, "eligible", eligible)]


@mutation("the limit of a day is not heeded")
def _no_limit() -> Replaced:
    return [Replacement(day_limits, "reached", lambda beads, settings, assignee, now, here=(), lanes=None: None)]


@mutation("the limit of a day leaves out the jobs that run")
def _only_ended() -> Replaced:
    original = limits_of_day._by_number

    def by_number(runs: Iterable[Run], most: int | None, now: datetime) -> Limit | None:
        return original([run for run in runs if run.ended_at is not None], most, now)

    return [Replacement(limits_of_day, "_by_number", by_number)]


@mutation("a bead that is given back loses its place")
def _no_place() -> Replaced:
    return [Replacement(Record, "in_place", lambda self, since: self)]


@mutation("the list of runs keeps the last one alone")
def _one_run() -> Replaced:
    return [Replacement(record, "KEPT_RUNS", 1)]
