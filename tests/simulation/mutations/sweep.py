"""Defects of a sweep: the evidence, what it settles and charges, results, and its report."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec

from bdauto.common import log
from bdauto.common.errors import ServiceDown, ServiceError, TokenRefused
from bdauto.controllers import reaper, settlement
from bdauto.controllers.job_ends import JobEnds
from bdauto.controllers.reaper import Reaper
from bdauto.controllers.returned_beads import Returned, ReturnedBeads
from bdauto.domain import reaping
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.domain.reaping import Action, JobEvidence, ReapDecision
from bdauto.domain.record import Record
from bdauto.domain.settings import ReapSettings
from tests.simulation.mutations.registry import SETTLING, Replacement, changes, mutation, without
from tests.simulation.services import SimServices
from tests.simulation.tracker import SimBd

Replaced = Sequence[Replacement]
RESULT = "record the result of"


@mutation("the reaper compares nothing")
def _reap_blind() -> Replaced:
    return changes(without(), *SETTLING)


@mutation("the reaper compares the status alone")
def _reap_status() -> Replaced:
    return changes(without("if_assignee", "if_mark", "if_updated_at"), *SETTLING)


@mutation("a bead that a person opens keeps its attempts")
def _not_afresh() -> Replaced:
    original = ReturnedBeads.settled

    def settled(self: ReturnedBeads, record: Record, returned: Returned, bead: Bead) -> Any:
        after, times = original(self, record, returned, bead)
        return after.change(attempts=record.attempts), times

    return [Replacement(ReturnedBeads, "settled", settled)]


@mutation("the reaper does not heed a running job")
def _reap_running() -> Replaced:
    return [Replacement(reaping, "ALIVE", frozenset[str]())]


@mutation("the reaper takes `timeout` for an end")
def _reap_timeout() -> Replaced:
    return [Replacement(reaping, "OVER", reaping.OVER | {"timeout"})]


@mutation("the reaper trusts its own clock")
def _reap_clock() -> Replaced:
    return [Replacement(SimBd, "server_time", lambda self: None)]


def _deciding(**fields: Any) -> Replaced:
    """Let sweeps decide with other settings."""
    original = reaping.decide_reap

    def decide(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> ReapDecision:
        return original(bead, evidence, msgspec.structs.replace(settings, **fields), now)

    return [Replacement(reaper, "decide_reap", decide)]


def _decided(alter: Any) -> Replaced:
    """Alter what sweeps decide."""
    original = reaping.decide_reap

    def decide(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> ReapDecision:
        decision: ReapDecision = alter(original(bead, evidence, settings, now))
        return decision

    return [Replacement(reaper, "decide_reap", decide)]


@mutation("the reaper waits for no grace period")
def _no_grace() -> Replaced:
    return _deciding(grace=timedelta(seconds=1))


@mutation("the reaper overlooks a bead in progress without an attempt")
def _overlooked() -> Replaced:
    return _decided(
        lambda decision: (
            decision if decision.bead.record.job else ReapDecision(decision.bead, Action.keep, decision.evidence)
        )
    )


@mutation("a bead is charged for a job that bdauto did not start")
def _adopted_charged() -> Replaced:
    return _decided(lambda decision: msgspec.structs.replace(decision, charged=True))


@mutation("an agent service that is down counts as one that forgot the job")
def _no_answer() -> Replaced:
    return [Replacement(reaping, "NO_ANSWER", "nobody says this")]


@mutation("a refused token counts as no evidence")
def _token() -> Replaced:
    return [Replacement(reaping, "TOKEN_REFUSED", "nobody says this")]


@mutation("one job that cannot be shown ends the questions about the others")
def _one_for_all() -> Replaced:
    original = SimServices.job

    def job(self: SimServices, job: str, **options: Any) -> Any:
        try:
            return original(self, job, **options)
        except TokenRefused:
            raise
        except ServiceError as error:
            raise ServiceDown(str(error), silent=True) from None

    return [Replacement(SimServices, "job", job)]


@mutation("the reaper works while it is paused")
def _reap_paused() -> Replaced:
    return [Replacement(reaper, "pause", SimpleNamespace(read=lambda store, now: None))]


@mutation("the writes of a sweep do not hold the pause switch")
def _sweep_unheld() -> Replaced:
    acts = (*SETTLING, RESULT, "note job of", "record signed job of", "give back the charge of")
    return changes(lambda change: msgspec.structs.replace(change, if_store={}), *acts)


@mutation("a reaper settles any number of beads by their age")
def _any_number() -> Replaced:
    return [Replacement(reaper, "too_many", lambda decisions, settings: 0)]


@mutation("a lost note is written again at each sweep")
def _notes_again() -> Replaced:
    def missing(self: Bead) -> str:
        return "" if self.record_note in self.notes.splitlines() else self.record_note

    return [Replacement(Bead, "missing_note", property(missing))]


# Results


@mutation("the result of a job is not recorded on a bead that its agent has closed")
def _no_result() -> Replaced:
    return [Replacement(JobEnds, "record_missing", lambda self, runner: ((), False))]


@mutation("the end of a job is recorded on whatever attempt the bead has by then")
def _result_unfenced() -> Replaced:
    return changes(without(), RESULT)


@mutation("two reapers record the result of one job")
def _result_twice() -> Replaced:
    return changes(without("if_mark"), RESULT)


# What is told


@mutation("what a sweep settled is not in the log")
def _unlogged() -> Replaced:
    original = log.event

    def event(name: str, /, *args: Any, **fields: object) -> None:
        if name not in settlement.SETTLED:
            original(name, *args, **fields)

    return [Replacement(settlement, "log", SimpleNamespace(**(vars(log) | {"event": event})))]


@mutation("a write of a sweep that failed is not reported")
def _failed_unnamed() -> Replaced:
    original = Reaper.sweep

    def sweep(self: Reaper) -> Report:
        report = original(self)
        beads = tuple(bead for bead in report.beads if bead.outcome is not BeadOutcome.failed)
        return msgspec.structs.replace(report, beads=beads)

    return [Replacement(Reaper, "sweep", sweep)]
