"""Decide what becomes of a bead in progress."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.agent_end import GATES, OF_SERVICE, Why
from bdauto.domain.bead import Bead
from bdauto.domain.life import only_signed, sign_of_life
from bdauto.domain.notes import UNKNOWN, in_minutes
from bdauto.domain.record import Result, Run
from bdauto.domain.results import describe_end, detail
from bdauto.domain.settings import OnStall, ReapSettings
from bdauto.domain.times import format_time
from bdauto.domain.values import format_age, format_duration


class Action(StrEnum):
    """What the reaper does with a bead in progress."""

    keep = "kept"
    release = "released"
    requeue = "requeued"
    block = "blocked"
    ask = "asks"
    close = "closed"


class ReapDecision(msgspec.Struct, frozen=True):
    """What the reaper decided about one bead: the action, the evidence in words, and the note to write.

    `by_age` marks a decision based on time alone, which a wrong clock could cause for every bead at once.
    `early_death` marks a bead whose agent ended, or stalled, without a sign of life, or whose agent's service failed
    (`service`), even after work. `charged` is False if the bead gets its attempt back. `gives_up` marks a bead whose
    job is called alive but no longer believed. `failed_check` marks a bead whose agent had completed, and whose check
    failed. `cause` says why the job ended, "" if that is not known.
    """

    bead: Bead
    action: Action
    evidence: str
    note: str = ""
    by_age: bool = False
    early_death: bool = False
    service: bool = False
    charged: bool = True
    gives_up: bool = False
    failed_check: bool = False
    cause: str = ""


ALIVE = frozenset({"queued", "running"})

UNPREPARED = "unprepared"
"""The state of a job on a host whose agent never ran: git could not make the worktree for it."""
OVER = frozenset({"failed", "error", "completed", "timed out", "cancelled", "died", UNPREPARED})
"""A job in one of these states has ended. `timeout` is not among them: the service leaves the process running.

The last four are of an agent on a host, whose supervisor ends what it times out.
"""

FORGOTTEN, NO_ANSWER, TOKEN_REFUSED = "forgotten", "no answer", "token refused"
"""Instead of a job's state: the agent service does not know the job, did not answer, or did not accept the token."""
NOT_ASKED = "not asked"
"""In place of a job's state: there was no time to ask. It is no evidence, and the next sweep asks."""
NOT_STARTED = "not started"
"""In place of a job's state: the jobs folder that the claim names has no job of this claim."""
ELSEWHERE = "elsewhere"
"""In place of a job's state: the claim names a place that cannot be asked here."""

AT_ONCE = timedelta(minutes=1)
"""An agent that only signed its bead and ended within this time has not begun to work."""
CLOCK_ROUNDING = timedelta(seconds=2)
"""bd rounds a time to a second, which can lie ahead."""
NO_ANSWER_LIMIT = timedelta(hours=2)
"""A bead whose job nobody could be asked about is not condemned by its age before this long without an update."""
LONGEST_BELIEF = timedelta(days=1)
"""How long an agent service is believed that calls a job alive although its agent has noted nothing since the claim."""


class JobEvidence(msgspec.Struct, frozen=True):
    """What the agent service says: the state of each bead's job, by the bead's id, and whether it runs nothing at all.

    A bead without a job has no state, and where no agent service is configured no bead has one. `ends` says of each job
    that has ended how it did. `others` has the job that a state is of, where that is not the one that the bead names.
    `waits` says what a job waits for, where that is known.
    """

    states: Mapping[str, str] = msgspec.field(default_factory=dict)
    runs_nothing: bool = False
    ends: Mapping[str, Run] = msgspec.field(default_factory=dict)
    others: Mapping[str, str] = msgspec.field(default_factory=dict)
    waits: Mapping[str, str] = msgspec.field(default_factory=dict)

    def without(self, beads: Collection[str]) -> "JobEvidence":
        """Return the evidence without the jobs of these beads, given by their ids."""
        states = {bead: state for bead, state in self.states.items() if bead not in beads}
        ends = {bead: end for bead, end in self.ends.items() if bead not in beads}
        return msgspec.structs.replace(self, states=states, ends=ends)

    def last_words(self, bead_id: str) -> str:
        """Return why the job of the bead ended, as `detail` does, "" when it is not known."""
        end = self.ends.get(bead_id)
        return detail(end) if end else ""


def decide_reap(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> ReapDecision:
    """Weigh the evidence for one bead in progress, strongest first (docs/decisions.md)."""
    decision = _decide(bead, evidence, settings, now)
    if decision.action is Action.keep or not bead.record.adopted:
        return decision
    note = f"reaper: {decision.evidence} — given back uncharged: bdauto did not start its job"
    return msgspec.structs.replace(decision, action=Action.release, note=note, early_death=False, charged=False)


def _decide(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> ReapDecision:
    job_state = evidence.states.get(bead.id, "")
    if bead.ephemeral:
        return _keep(bead, "ephemeral: not bdauto's to settle")
    if job_state == UNPREPARED:
        return _unprepared(bead, evidence.last_words(bead.id))
    end = evidence.ends.get(bead.id)
    if job_state in OVER and bead.record.attempt and end and end.why in OF_SERVICE:
        return _service_failed(bead, f"job {_job(bead)} {ended(job_state)}", end)
    if job_state in OVER and end and end.result is Result.stopped:
        return _stopped(bead, end)
    if job_state in OVER and end and end.why == Why.land:
        return _failed_gate(bead, end, settings)
    if job_state in OVER and end and end.checked and end.landed is True:
        return _passed(bead, end)
    if job_state in OVER and _silent(bead):
        return _early_death(bead, f"job {_job(bead)} {ended(job_state)}", settings, evidence.last_words(bead.id))
    if job_state in OVER and end and end.why in GATES:
        return _failed_gate(bead, end, settings)
    if job_state in OVER and end and end.checked:
        return _passed(bead, end)
    if job_state in OVER and _died_at_once(bead, end):
        words = f"job {_job(bead)} {ended(job_state)} within {format_duration(AT_ONCE)}"
        return _early_death(bead, words, settings, evidence.last_words(bead.id), did="only signed the bead")
    if job_state in OVER:
        words = f"job {_job(bead)} {ended(job_state)} but the bead is still in progress"
        cause = _cause(end)
        return msgspec.structs.replace(_over(bead, words, settings), evidence=cause or words, cause=cause)
    seen = last_seen(bead, settings, now)
    if seen is None:
        return _keep(bead, f"updated at {format_time(bead.updated_at)}, which lies ahead and is not believed")
    age = now - seen
    aged = f"{format_age(age)} since the last update"
    if job_state in (ELSEWHERE, NO_ANSWER) and bead.ends_by and now <= bead.ends_by:
        until = f"its job ends by {format_time(bead.ends_by)}"
        return _keep(bead, f"{aged}{_silence(bead, job_state)}, and {until}")
    if job_state in ALIVE and age > LONGEST_BELIEF and not bead.local and (_silent(bead) or bead.record.adopted):
        words = f"job {bead.record.job} is called {job_state}, but nothing was noted for {format_age(age)}"
        return msgspec.structs.replace(_over(bead, words, settings, by_age=True), gives_up=True)
    if job_state in ALIVE:
        waits = f" ({evidence.waits[bead.id]})" if evidence.waits.get(bead.id) else ""
        return _keep(bead, f"job {evidence.others.get(bead.id) or _job(bead)} is {job_state}{waits}; {aged}")
    if _without_job(bead):
        return _unstarted(bead, age, _nothing(evidence, job_state), settings, _silence(bead, job_state))
    if job_state == NOT_ASKED:
        job = bead.record.job or bead.signed_job
        return _keep(bead, f"the agent service is slow: there was no time to ask about job {job}; {aged}")
    if job_state == TOKEN_REFUSED:
        return _keep(
            bead, f"the agent service refuses the token, so nobody can be asked about job {bead.record.job}; {aged}"
        )
    limit = max(settings.threshold, NO_ANSWER_LIMIT) if job_state == NO_ANSWER else settings.threshold
    if age > limit:
        exact = in_minutes(limit) if not limit % timedelta(minutes=1) else format_duration(limit)
        words = f"no progress for {in_minutes(age)} (threshold {exact}){_silence(bead, job_state)}"
        if _silent(bead) and job_state in ("", FORGOTTEN, NO_ANSWER, ELSEWHERE):
            return _early_death(bead, words, settings, by_age=True)
        return _over(bead, words, settings, by_age=True)
    return _keep(bead, aged + _silence(bead, job_state))


def last_seen(bead: Bead, settings: ReapSettings, now: datetime) -> datetime | None:
    """Return the last time that somebody changed the bead, or None if none of its times is believable.

    A time more than the grace period ahead comes from a wrong clock. Then the time of bdauto's own claim counts.
    """
    times = (bead.updated_at, bead.record.claimed_at)
    return next((moment for moment in times if moment and moment <= now + settings.grace), None)


def lies_ahead(bead: Bead, settings: ReapSettings, now: datetime) -> bool:
    """Whether the bead's last update lies so far ahead that it is not believed."""
    return bead.updated_at > now + settings.grace


def _keep(bead: Bead, evidence: str) -> ReapDecision:
    return ReapDecision(bead, Action.keep, evidence)


def _silence(bead: Bead, job_state: str) -> str:
    """Describe what is known of a job if that does not decide."""
    if job_state == ELSEWHERE:
        return f"; only {who_knows(bead)} can be asked about it"
    if job_state == NO_ANSWER:
        return f"; the agent service could not be asked about job {bead.record.job}"
    if job_state in ("", FORGOTTEN, NOT_STARTED):
        return ""
    return f"; job {bead.record.job} is {job_state}"


def who_knows(bead: Bead) -> str:
    """Describe the place that can be asked about the job of a claim."""
    if not bead.local:
        return "the agent service"
    return f"host {clean(bead.record.host, 60) or 'unknown'} (jobs folder {bead.jobs_folder or 'unknown'})"


def ended(job_state: str) -> str:
    """Say in words how a job ended, e.g. `is failed`."""
    if job_state == UNPREPARED:
        return "could not be prepared"
    return f"has {job_state}" if job_state in ("died", "timed out") else f"is {job_state}"


def _silent(bead: Bead) -> bool:
    """Return whether bdauto claimed the bead and its agent has not written on it since."""
    return bool(bead.record.attempt) and not sign_of_life(bead)


def _died_at_once(bead: Bead, end: Run | None) -> bool:
    """True: the agent ended without success or cost, and only signed the bead.

    A script may sign for an agent whose key has expired. A job that completed is left to a person: it may be done.
    """
    if (
        end is None
        or end.result is Result.completed
        or end.cost_usd
        or not bead.record.attempt
        or not only_signed(bead)
    ):
        return False
    since_claim = end.ended_at - bead.record.claimed_at if end.ended_at and bead.record.claimed_at else None
    lasted = since_claim if end.seconds is None else timedelta(seconds=end.seconds)
    return lasted is not None and lasted < AT_ONCE


def _job(bead: Bead) -> str:
    """Return the job's id. A job on a host has the attempt's, whether it was recorded or not."""
    return bead.record.job or bead.record.attempt


def _without_job(bead: Bead) -> bool:
    """Claimed by bdauto, no job recorded, the POST's outcome not noted as unknown, and no sign of life since."""
    return _silent(bead) and not bead.record.job and not bead.record.error.startswith(UNKNOWN)


def _early_death(
    bead: Bead,
    words: str,
    settings: ReapSettings,
    last_words: str = "",
    *,
    by_age: bool = False,
    did: str = "never wrote on the bead",
) -> ReapDecision:
    """Open a bead again whose agent ended without a sign: it is not the bead's fault as such. Quarantine it at last.

    A claim whose outcome is unknown stalls in the same way, but no agent is known to have died of it.
    """
    evidence = f"{words}, and its agent {did}" + (f": {last_words}" if last_words else "")
    action, ending = Action.release, "released"
    if bead.record.attempts >= settings.max_attempts:
        action = Action.block
        ending = f"quarantined after {bead.record.attempts} attempts; re-arm it: bd update {bead.id} -s open"
    return ReapDecision(
        bead, action, evidence, f"reaper: {evidence} — {ending}", by_age, early_death=bool(bead.record.job)
    )


def _unprepared(bead: Bead, words: str) -> ReapDecision:
    """Open a bead again if git could not make its worktree. No agent ran, so nothing is charged."""
    evidence = f"job {_job(bead)} could not be prepared, so no agent ran" + (f": {words}" if words else "")
    return ReapDecision(bead, Action.release, evidence, f"reaper: {evidence} — released uncharged", charged=False)


def _service_failed(bead: Bead, words: str, end: Run) -> ReapDecision:
    """Open a bead again whose agent's service failed. The bead is not charged, even if the agent had worked."""
    told = f"{words}, for its agent's service failed ({end.why})" + (f": {said}" if (said := detail(end)) else "")
    note = f"reaper: {told} — released uncharged"
    cause = _cause(end)
    evidence = f"{cause}; its agent's service failed ({end.why})" if cause else told
    return ReapDecision(
        bead, Action.release, evidence, note, early_death=True, service=True, charged=False, cause=cause
    )


def _cause(end: Run | None) -> str:
    """Return why a job ended, "" if that is not known."""
    return describe_end(end) if end and (detail(end) or end.seconds is not None) else ""


def _stopped(bead: Bead, end: Run) -> ReapDecision:
    """Open a bead again whose job somebody has stopped, and which is still in progress. Nothing is charged."""
    evidence = f"job {_job(bead)} was stopped" + (f": {end.words}" if end.words else "")
    return ReapDecision(bead, Action.release, evidence, f"reaper: {evidence} — released uncharged", charged=False)


def _passed(bead: Bead, end: Run) -> ReapDecision:
    """Close a bead whose checks have passed. What has landed counts even if its agent was silent."""
    evidence = f"job {_job(bead)} has passed its checks" + (" and has landed" if end.landed is True else "")
    words = evidence + (f": {end.words}" if end.words else "")
    return ReapDecision(bead, Action.close, words, f"reaper: {evidence} — closed")


def _failed_gate(bead: Bead, end: Run, settings: ReapSettings) -> ReapDecision:
    """Open a bead again whose check failed, uncharged, and block it for a person after as many as its attempts.

    A landing that failed is not tried again, because part of it may have been done.
    """
    evidence, failed = f"job {_job(bead)}: its {end.words or f'{end.why} failed'}", bead.record.failed_checks + 1
    if end.why == Why.land or failed >= settings.max_attempts:
        after = "" if end.why == Why.land else f" after {failed} failed checks"
        note = f"reaper: {evidence} — blocking{after}; re-arm it: bd update {bead.id} -s open"
        return ReapDecision(bead, Action.block, evidence, note, failed_check=True, charged=False)
    note = f"reaper: {evidence} — opened again, uncharged (failed check {failed} of {settings.max_attempts})"
    return ReapDecision(bead, Action.requeue, evidence, note, failed_check=True, charged=False)


def asking(decision: ReapDecision, question: str) -> ReapDecision:
    """Return the decision about a bead whose job is over, and whose agent has asked a person: open and uncharged."""
    note = f"reaper: its agent asks {question} — open again, uncharged"
    return ReapDecision(decision.bead, Action.ask, question, note, charged=False)


def uncharged(decision: ReapDecision) -> ReapDecision:
    """Return an early death that the agent is to blame for, and not the bead: open again without a charge."""
    note = f"reaper: {decision.evidence} — released uncharged: dispatching is suspended"
    return msgspec.structs.replace(decision, action=Action.release, note=note, charged=False)


def _nothing(evidence: JobEvidence, job_state: str) -> str:
    """Say in words how it is known that nothing runs for a claim without a job, or return ""."""
    if job_state == NOT_STARTED:
        return "its jobs folder has no job of it"
    return "its service runs nothing" if evidence.runs_nothing and job_state != ELSEWHERE else ""


def _unstarted(bead: Bead, age: timedelta, nothing: str, settings: ReapSettings, silence: str) -> ReapDecision:
    """Decide about a claim without a job: it may have been posted all the same, unless the agent runs nothing."""
    if nothing and settings.grace < settings.threshold:
        limit, name = settings.grace, "grace"
        words = f"claimed {format_age(age)} ago, no job recorded, no sign of the agent, and {nothing}"
    else:
        limit, name = settings.threshold, "threshold"
        words = f"claimed {format_age(age)} ago, no job recorded and no sign of the agent"
    if age <= limit:
        return _keep(
            bead, f"claimed {format_age(age)} ago, no job recorded; within the {name}, it may have been posted{silence}"
        )
    note = f"reaper: {words} ({name} {format_duration(limit)})"
    if bead.record.attempts < settings.max_attempts:
        return ReapDecision(bead, Action.release, words, f"{note} — released", by_age=True)
    return ReapDecision(
        bead, Action.block, words, f"{note} — blocking after attempt {bead.record.attempts}", by_age=True
    )


def _over(bead: Bead, words: str, settings: ReapSettings, by_age: bool = False) -> ReapDecision:
    requeue = settings.on_stall is OnStall.requeue and bead.record.attempts < settings.max_attempts
    action, verb = (Action.requeue, "requeueing") if requeue else (Action.block, "blocking")
    return ReapDecision(bead, action, words, f"reaper: {words} — {verb}", by_age)


def too_many(decisions: Iterable[ReapDecision], settings: ReapSettings) -> int:
    """Return how many beads would be reaped by age alone if that is more than `--max-reap`, which is not 0, else 0."""
    aged = sum(1 for decision in decisions if decision.by_age)
    return aged if settings.max_reap and aged > settings.max_reap else 0
