"""A snapshot of all that `bdauto status` shows: the policy's verdicts on the reads that dispatch and reap make."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto.agents.named_jobs import Patience, job_in_the_way
from bdauto.agents.runner import check_services, job_evidence
from bdauto.agents.runner_status import RunnerStatus, with_switches
from bdauto.bd.client import Bd
from bdauto.bd.fallbacks import as_seen
from bdauto.common.errors import ServiceError
from bdauto.domain.bead import ID_PATTERN, Bead, BeadList, Dependency
from bdauto.domain.eligibility import Condition, Verdict, ranked, verdict
from bdauto.domain.figures import Figures, figures_since
from bdauto.domain.history import shared_jobs
from bdauto.domain.lanes import Lanes
from bdauto.domain.limits import DAY, LOOK_BACK, counts_beads, outside_hours, reached
from bdauto.domain.notes import CLAIM_NOTE, FINISH_NOTE, JOB_NOTE
from bdauto.domain.questions import LABEL, blockers, how_to_answer, in_words, questions
from bdauto.domain.reaping import ALIVE, ELSEWHERE, Action, JobEvidence, ReapDecision, decide_reap, who_knows
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time, midnight
from bdauto.domain.values import format_age

if TYPE_CHECKING:
    from bdauto.agents.runner import LastEvent, Runner

STATUSES = ("open", "deferred", "in_progress", "blocked")
"""The statuses of beads that `status` has anything to say about."""
WAITING = ("open", "deferred")
"""The statuses of beads that may wait for a dispatch."""
OWN_NOTES = (CLAIM_NOTE, JOB_NOTE, FINISH_NOTE)
"""How bdauto's notes of a job begin. That of its start comes a moment late, and may follow those of a fast agent."""
AT_ONCE = 50
"""Beads in one call of bd that names them."""


@dataclass(frozen=True)
class Running:
    """A bead in progress: what the reaper would decide, and the agent service's word on its job ("": not asked).

    `running` is the time since the claim, None for a bead that bdauto has not claimed. `left` is the time until age
    settles the bead, or while its job runs until that is ended at the latest, None if that is not known. `event` is the
    last one of a job that runs on this machine. `waits` is why a job has not begun.
    """

    decision: ReapDecision
    job_state: str
    age: timedelta
    running: timedelta | None
    left: timedelta | None
    event: "LastEvent | None" = None
    waits: str = ""
    attempt: str = ""
    """Which attempt of how many it is, from the second on."""

    @property
    def bead(self) -> Bead:
        """The bead."""
        return self.decision.bead

    @property
    def state(self) -> str:
        """One word: `kept`, `orphaned` (claimed, never started), `stalled` (by age) or `over` (its job ended)."""
        action = self.decision.action
        if action is Action.keep:
            return "kept"
        if action is Action.release and not self.bead.record.job:
            return "orphaned"
        return "stalled" if self.decision.by_age else "over"

    @property
    def verdict(self) -> str:
        """The text for a table: the job's state, who can be asked for it, or why the bead would be settled."""
        if self.state != "kept":
            return f"{self.state}: {self.decision.evidence}"
        if self.job_state == ELSEWHERE:
            words = f"elsewhere: {who_knows(self.bead)}"
        else:
            words = ": ".join(filter(None, (self.job_state or "kept", self.waits)))
        return f"{words}, {self.attempt}" if self.attempt else words

    def event_age(self, now: datetime) -> timedelta | None:
        """How long ago the last event was, None if there is none."""
        return max(now - self.event.at, timedelta(0)) if self.event else None

    def last_event(self, now: datetime) -> str:
        """Return the age of the last event and what it was, "" if there is none."""
        age = self.event_age(now)
        return f"{format_age(age)} ago: {self.event.text}" if self.event and age is not None else ""


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment. `queue` has the eligible beads in dispatch order and then those that wait.

    `quarantined` are the beads that bdauto blocked, `cancelled` those whose jobs a person has cancelled, and `blocked`
    those that somebody else blocked, as agents do.
    """

    now: datetime
    services: RunnerStatus
    queue: tuple[Verdict, ...]
    running: tuple[Running, ...]
    quarantined: tuple[Bead, ...]
    cancelled: tuple[Bead, ...]
    blocked: tuple[Bead, ...]
    malformed: tuple[str, ...]
    threshold: timedelta
    shared_jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The jobs that several beads record, with the ids of these beads."""
    asking: tuple[tuple[Bead, Bead], ...] = ()
    """The beads whose agents have asked a person, each with a question that is open."""
    taken_off: tuple[tuple[RunningJob, str], ...] = ()
    """The jobs of this machine whose beads are not in progress in this queue, and how each bead is in words."""
    homeless: tuple[tuple[Bead, str], ...] = ()
    """The waiting beads of this assignee that no lane takes, and why."""
    today: Figures | None = None
    """What the runs since midnight, in the zone of this machine, came to. None: not asked."""

    @property
    def need_you(self) -> int:
        """How many beads need a person: those that are quarantined or blocked, and those whose agents have asked."""
        return len(self.quarantined) + len(self.blocked) + len(self.asking)

    @property
    def eligible(self) -> int:
        """How many beads could be dispatched."""
        return sum(verdict.eligible for verdict in self.queue)

    @property
    def oldest(self) -> timedelta:
        """How long the eligible bead with the longest wait has had no update. Zero without eligible beads."""
        ages = (self.now - found.bead.updated_at for found in self.queue if found.eligible)
        return max(ages, default=timedelta(0))

    @property
    def counts(self) -> dict[str, int]:
        """How many beads are in each state."""
        return {
            "eligible": self.eligible,
            "waiting": len(self.queue) - self.eligible,
            "in_progress": len(self.running),
            "stalled": sum(running.state != "kept" for running in self.running),
            "quarantined": len(self.quarantined),
            "cancelled": len(self.cancelled),
            "blocked": len(self.blocked),
        }


def gather(
    bd: Bd,
    runner: "Runner | None",
    dispatch: DispatchSettings,
    reap: ReapSettings,
    now: datetime,
    limit: int = 0,
    *,
    today: bool = False,
) -> Snapshot:
    """Read everything and judge it. `limit` says for how many waiting beads the blockers are looked up (0: all).

    With `today`, the beads that changed since midnight are read too.

    Raises BdError. A service that fails is a finding in the snapshot.
    """
    calls = bd.assigned(STATUSES), bd.ready(limit=0), bd.kv_list(), bd.labelled(LABEL)
    lately = [bd.changed_since(midnight(now))] if today else []
    try:
        services = replace(check_services(runner), limited=limited(bd, runner, dispatch, now))
        listed, ready, store = calls[0].result(), calls[1].result(), calls[2].result()
        asked = calls[3].result()
        changed = [bead for call in lately for bead in call.result().beads if bd.lanes.had(bead, bd.assignee)]
    finally:
        for call in calls:
            call.kill()
        for read in lately:
            read.kill()
    lanes = _lanes(bd, runner, now)
    listed, homeless = _of_lane(listed, lanes), tuple(_homeless(listed, lanes))
    evidence, _ = job_evidence(runner, _running(listed), services)
    found = _judged(listed, ready, evidence, bd.assignee, dispatch, reap, now, lanes)
    known = {bead.id: bead for bead in listed.beads}
    found = replace(found, queue=tuple(ranked(with_jobs(bd, runner, found.queue, dispatch, now))))
    return replace(
        found,
        services=with_switches(services, store, now, bd.lane),
        running=tuple(with_event(runner, one) for one in found.running),
        queue=tuple(_with_blockers(bd, found.queue, known, dispatch, now, limit)),
        asking=tuple(asking(listed.beads, asked.beads)),
        taken_off=tuple(_taken_off(bd, runner, listed.beads)),
        homeless=homeless,
        today=figures_since(midnight(now), changed, bd.assignee, now) if today else None,
    )


def _taken_off(bd: Bd, runner: "Runner | None", listed: Iterable[Bead]) -> Iterator[tuple[RunningJob, str]]:
    """Yield the running jobs whose beads were taken out of progress, by their agents or by others."""
    running: Sequence[RunningJob] = ()
    with contextlib.suppress(ServiceError):  # the state of the services says so
        running = runner.running_jobs() if runner else ()
    claimed = {bead.id for bead in listed if bead.status == "in_progress"}
    off = [one for one in running if one.bead not in claimed]
    beads = {bead.id: bead for bead in bd.read(sorted({one.bead for one in off})).result().beads} if off else {}
    for one in off:
        bead = beads.get(one.bead)
        yield one, f"{bead.status}, assigned to {bead.assignee or 'nobody'}" if bead else "deleted"


def asking(beads: Iterable[Bead], labelled: Iterable[Bead]) -> Iterator[tuple[Bead, Bead]]:
    """Yield the open beads that have been dispatched and wait for a question, each with its oldest."""
    asked = {question.id: question for question in questions(labelled)}
    for bead in beads:
        waits_for = set(blockers(bead)) if bead.status == "open" and bead.record.all_runs else set()
        if question := next((one for one in asked.values() if one.id in waits_for), None):
            yield bead, question


def with_jobs(
    bd: Bd, runner: "Runner | None", verdicts: Iterable[Verdict], dispatch: DispatchSettings, now: datetime
) -> Iterator[Verdict]:
    """Check the jobs that eligible beads name, for up to AT_ONCE beads, as a dispatch does.

    The questions stop when those of a dispatch would stop.
    """
    asked, patience = 0, Patience()
    for found in verdicts:
        bead = found.bead
        if not found.eligible or not (bead.named_jobs or bead.record.current) or asked == AT_ONCE:
            yield found
            continue
        asked += 1
        owner = partial(bd.recorder_of, besides=bead.id)
        why = job_in_the_way(runner, bead, owner, now, grace=dispatch.grace, patience=patience)
        condition = Condition("job", False, why.describe(), why.fix(bead)) if why else None
        yield Verdict(bead, (*found.conditions, condition)) if condition else found


def limited(bd: Bd, runner: "Runner | None", settings: DispatchSettings, now: datetime) -> str:
    """Describe the limit on dispatches that is reached, or return "". bd is asked only where one is set that counts."""
    limit = outside_hours(settings, now)
    if limit is None and counts_beads(settings):
        beads, here = bd.changed_since(now - LOOK_BACK).result().beads, runner.recent_runs(now - DAY) if runner else ()
        limit = reached(beads, settings, bd.assignee, now, here, bd.lanes)
    return limit.describe() if limit else ""


def gather_queue(
    bd: Bd, runner: "Runner | None", dispatch: DispatchSettings, reap: ReapSettings, now: datetime
) -> Snapshot:
    """Read and judge the beads alone, for counting. The agent service is asked only about those that look stalled.

    Raises BdError.
    """
    listing = bd.assigned(STATUSES)
    try:
        ready = bd.ready(limit=0).result()
        listed = listing.result()
    finally:
        listing.kill()
    lanes = _lanes(bd, runner, now)
    listed, unknown = _of_lane(listed, lanes), JobEvidence()
    aged = [bead for bead in _running(listed) if decide_reap(bead, unknown, reap, now).action is not Action.keep]
    evidence = job_evidence(runner, aged)[0] if aged else unknown
    return _judged(listed, ready, evidence, bd.assignee, dispatch, reap, now, lanes)


def _lanes(bd: Bd, runner: "Runner | None", now: datetime) -> Lanes:
    return as_seen(bd, lambda since: runner.recent_runs(since) if runner else (), now)


def _of_lane(listed: BeadList, lanes: Lanes) -> BeadList:
    """Return the beads of the own lane: those that wait by their conditions, others by their claim."""
    if not lanes.rules:
        return listed
    beads = tuple(b for b in listed.beads if (lanes.has(b) if b.status in WAITING else lanes.claimed(b)))
    return msgspec.structs.replace(listed, beads=beads)


def _homeless(listed: BeadList, lanes: Lanes) -> Iterator[tuple[Bead, str]]:
    """Yield the waiting beads that no lane takes, and why. Only the first lane of their assignee does so."""
    for bead in listed.beads if lanes.rules else ():
        first = next((rule.name for rule in lanes.rules if rule.assignee == bead.assignee), "")
        if bead.status in WAITING and lanes.of(bead) is None and first == lanes.own:
            mine = [rule for rule in lanes.rules if rule.assignee == bead.assignee]
            yield bead, lanes.why_not(bead, mine)


def _running(listed: BeadList) -> list[Bead]:
    return [bead for bead in listed.beads if bead.status == "in_progress"]


def _judged(
    listed: BeadList,
    ready: BeadList,
    evidence: JobEvidence,
    assignee: str,
    dispatch: DispatchSettings,
    reap: ReapSettings,
    now: datetime,
    lanes: Lanes,
) -> Snapshot:
    """Return the snapshot of these beads, without the services and the pause."""
    beads = {bead.id: bead for bead in (*listed.beads, *_of_lane(ready, lanes).beads)}
    running = [weigh(bead, evidence, reap, now) for bead in beads.values() if bead.status == "in_progress"]
    blocked = sorted(
        (bead for bead in beads.values() if bead.status == "blocked"), key=lambda bead: bead.updated_at, reverse=True
    )
    return Snapshot(
        now,
        RunnerStatus(),
        tuple(judge(beads.values(), {bead.id for bead in ready.beads}, assignee, dispatch, now, lanes)),
        tuple(sorted(running, key=lambda one: (one.left is None, one.left or -one.age))),
        tuple(bead for bead in blocked if bead.record.quarantined and not bead.record.cancelled),
        tuple(bead for bead in blocked if bead.record.cancelled),
        tuple(bead for bead in blocked if not bead.record.quarantined),
        tuple(sorted({*listed.malformed, *ready.malformed})),
        reap.threshold,
        shared_jobs(beads.values()),
    )


def judge(
    beads: Iterable[Bead],
    ready: set[str],
    assignee: str,
    settings: DispatchSettings,
    now: datetime,
    lanes: Lanes | None = None,
) -> list[Verdict]:
    """Return the verdicts on the beads that are in the queue, eligible or not, in order."""
    waiting = (bead for bead in beads if bead.status in ("open", "deferred"))
    return ranked(verdict(bead, bead.id in ready, assignee, settings, now, lanes) for bead in waiting)


def weigh(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> Running:
    """Return what the reaper would decide about a bead in progress."""
    age = now - bead.updated_at
    decision = decide_reap(bead, evidence, settings, now)
    state, claimed = evidence.states.get(bead.id, ""), bead.record.claimed_at
    running = now - claimed if bead.record.attempt and claimed else None
    by_age, ends = settings.threshold - age, bead.ends_by - now if bead.ends_by else None
    left = ends if state in ALIVE else max(by_age, ends) if state == ELSEWHERE and ends is not None else by_age
    waits = evidence.waits.get(bead.id, "")
    number = bead.record.attempts
    attempt = f"attempt {number} of {settings.max_attempts}" if number > 1 else ""
    return Running(decision, state, age, running, left, waits=waits, attempt=attempt)


def with_event(runner: "Runner | None", running: Running) -> Running:
    """Return a bead in progress with the last event of its job, if that runs on this machine."""
    job = running.bead.record.job or running.bead.record.attempt
    asked = runner is not None and running.job_state in ALIVE and bool(job)
    return replace(running, event=runner.last_event(job)) if runner and asked else running


def _with_blockers(
    bd: Bd,
    verdicts: Sequence[Verdict],
    known: Mapping[str, Bead],
    settings: DispatchSettings,
    now: datetime,
    limit: int,
) -> list[Verdict]:
    """Judge again, with what they depend on, the beads that only bd does not call ready."""
    shown = verdicts[: limit or None]
    unclear = [found.bead for found in shown if [c.name for c in found.conditions if not c.passed][:1] == ["ready"]]
    detailed = {bead.id: bead for bead in with_dependencies(bd, unclear, known)}
    return [
        verdict(detailed[found.bead.id], False, bd.assignee, settings, now, bd.lanes)
        if found.bead.id in detailed
        else found
        for found in verdicts
    ]


def with_dependencies(bd: Bd, beads: Iterable[Bead], known: Mapping[str, Bead]) -> list[Bead]:
    """Return the beads with the status of each bead that they depend on. bd is asked for those that are not `known`."""
    beads = list(beads)
    others = {other.depends_on_id for bead in beads for other in bead.dependencies or ()}
    states = {bead_id: known[bead_id].status for bead_id in others if bead_id in known}
    wanted = sorted(bead_id for bead_id in others - states.keys() if re.match(ID_PATTERN, bead_id))
    for start in range(0, len(wanted), AT_ONCE):
        states |= {bead.id: bead.status for bead in bd.read(wanted[start : start + AT_ONCE]).result().beads}

    def looked_up(other: Dependency) -> Dependency:
        return msgspec.structs.replace(other, status=states.get(other.depends_on_id, ""))

    return [
        msgspec.structs.replace(bead, dependencies=[looked_up(other) for other in bead.dependencies or ()])
        for bead in beads
    ]


def last_note(bead: Bead) -> str:
    """Return the last line of a bead's notes, or "". What bdauto noted of a job counts only where nothing else is."""
    lines = [line for line in reversed(bead.notes.splitlines()) if line.strip()]
    return next((line for line in lines if not line.startswith(OWN_NOTES)), lines[0] if lines else "")


def place_words(place: int) -> str:
    """Write a place in the queue: `next`, `2nd`, `3rd`, …"""
    if place == 1:
        return "next"
    last = place % 10 if place % 100 not in (11, 12, 13) else 0
    return f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


def as_json(snapshot: Snapshot, limit: int) -> dict[str, Any]:
    """Return the snapshot as docs/operating.md describes it. `limit` cuts lists (0 does not), but not counts."""
    cut = limit or None
    return {
        "now": format_time(snapshot.now),
        **snapshot.services.as_json(),
        "counts": snapshot.counts,
        "today": _today_json(snapshot, snapshot.today or Figures()),
        **({"in_no_lane": [{"id": b.id, "reason": why} for b, why in snapshot.homeless]} if snapshot.homeless else {}),
        "queue": [
            {
                **_bead_json(found.bead, snapshot.now),
                "eligible": found.eligible,
                "place": place if found.eligible else None,
                "reason": found.reason or None,
            }
            for place, found in enumerate(snapshot.queue[:cut], 1)
        ],
        "in_progress": [
            {
                **_bead_json(running.bead, snapshot.now),
                "job": running.bead.record.job or None,
                "job_state": running.job_state or None,
                "state": running.state,
                "evidence": running.decision.evidence,
                "running_seconds": _seconds(running.running),
                "left_seconds": _seconds(running.left),
                "last_event": running.event.text if running.event else None,
                "last_event_seconds": _seconds(running.event_age(snapshot.now)),
            }
            for running in snapshot.running[:cut]
        ],
        "taken_off": [{"id": one.bead, "job": one.job, "bead_is": words} for one, words in snapshot.taken_off[:cut]],
        "quarantined": [
            {**_bead_json(bead, snapshot.now), "reason": bead.record.quarantined} for bead in snapshot.quarantined[:cut]
        ],
        "cancelled": [
            {**_bead_json(bead, snapshot.now), "reason": bead.record.quarantined} for bead in snapshot.cancelled[:cut]
        ],
        "asking": [
            {
                **_bead_json(bead, snapshot.now),
                "question": question.id,
                "asks": in_words(question),
                "answer_with": how_to_answer(question),
            }
            for bead, question in snapshot.asking[:cut]
        ],
        "blocked": [
            {**_bead_json(bead, snapshot.now), "last_note": last_note(bead) or None} for bead in snapshot.blocked[:cut]
        ],
        "malformed": list(snapshot.malformed),
    }


def _today_json(snapshot: Snapshot, today: Figures) -> dict[str, Any]:
    return {
        "closed": today.closed,
        "failed": today.failed,
        "need_you": snapshot.need_you,
        "cost_usd": today.cost_usd,
    }


def _seconds(time: timedelta | None) -> int | None:
    return None if time is None else int(time.total_seconds())


def _bead_json(bead: Bead, now: datetime) -> dict[str, Any]:
    age = int((now - bead.updated_at).total_seconds())
    return {"id": bead.id, "title": bead.title, "priority": bead.priority, "age_seconds": age}
