"""Decisions, and nothing else: which bead may be dispatched, in what order, and what a bead in progress is worth.

No input, no output; `now` is an argument. Commands that explain render what these functions return, and never decide a
second time.
"""

import random
import shlex
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from bdauto.models import Bead
from bdauto.settings import DispatchSettings, OnStall, ReapSettings, format_duration
from bdauto.text import clean

FIRST_BACKOFF = timedelta(minutes=2)
LONGEST_BACKOFF = timedelta(hours=1)
AGENT_SIGN = "claimed by agent"
"""How the agent's first note on a bead begins."""
CLAIM_NOTE = "auto-dispatcher claimed at "
BLOCKING = frozenset({"blocks", "conditional-blocks", "waits-for"})
"""The types of dependency that keep a bead from being ready, as in bd's own `bd ready`."""
FINISHED = frozenset({"closed", "pinned"})
"""The statuses of a bead that nobody waits for."""


class Condition(msgspec.Struct, frozen=True):
    """One condition of dispatching a bead: what was found, and for a failed one the command that would mend it."""

    name: str
    passed: bool
    detail: str
    mend: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """May this bead be dispatched, and if not why: all the conditions, passed and failed."""

    bead: Bead
    conditions: tuple[Condition, ...]

    @property
    def eligible(self) -> bool:
        """Whether every condition passed."""
        return all(condition.passed for condition in self.conditions)

    @property
    def reason(self) -> str:
        """The first failed condition in words, or ""."""
        return next((condition.detail for condition in self.conditions if not condition.passed), "")


def verdict(bead: Bead, ready: bool, assignee: str, settings: DispatchSettings, now: datetime) -> Verdict:
    """Judge one bead; `ready` says whether `bd ready` lists it, which alone knows of blockers and gates."""
    retry_at, deferred = bead.retry_at, bead.defer_until
    creators, labels = settings.trusted_creators, set(bead.labels or ())
    conditions = [
        Condition(
            "status",
            bead.status == "open",
            f"status is {bead.status}",
            "bdauto reap" if bead.status == "in_progress" else f"bd update {bead.id} -s open",
        ),
        Condition(
            "assignee",
            bead.assignee == assignee,
            f"assigned to {bead.assignee or 'nobody'}",
            f"bd update {bead.id} -a {assignee}",
        ),
        Condition(
            "acceptance",
            bool(bead.acceptance_criteria.strip()),
            "has acceptance criteria" if bead.acceptance_criteria.strip() else "no acceptance criteria",
            f"bd update {bead.id} --acceptance '…'",
        ),
        Condition(
            "type",
            bead.issue_type not in settings.exclude_types,
            f"type {bead.issue_type}" + (" is excluded" if bead.issue_type in settings.exclude_types else ""),
            f"bd update {bead.id} -t task",
        ),
        Condition(
            "kind",
            not (bead.is_template or bead.ephemeral or bead.pinned),
            _kind(bead),
            f"bd update {bead.id} --persistent" if bead.ephemeral else "create an ordinary bead for the work",
        ),
        Condition(
            "deferred",
            deferred is None or deferred <= now,
            f"deferred until {deferred.astimezone(UTC):%Y-%m-%d %H:%M}Z"
            if deferred and deferred > now
            else "not deferred",
            f"bd update {bead.id} --defer ''",
        ),
        Condition(
            "backoff",
            retry_at is None or retry_at <= now,
            f"backing off until {retry_at.astimezone(UTC):%H:%M:%S}Z: {bead.error or 'failed'}"
            if retry_at and retry_at > now
            else "not backing off",
            f"bd update {bead.id} --unset-metadata bdauto.retry_at",
        ),
    ]
    if creators:
        trusted = bead.created_by in creators
        detail = f"created by {bead.created_by or 'nobody'}, who is {'' if trusted else 'not '}trusted"
        mend = f"bdauto dispatch --trusted-creator {shlex.quote(clean(bead.created_by) or 'NAME')}"
        conditions.append(Condition("trust", trusted, detail, mend))
    if settings.labels:
        missing = [label for label in settings.labels if label not in labels]
        detail = f"lacks label {missing[0]}" if missing else "has the labels asked for"
        mend = f"bd update {bead.id} {_each('--add-label', missing)}"
        conditions.append(Condition("label", not missing, detail, mend))
    if settings.exclude_labels:
        found = [label for label in settings.exclude_labels if label in labels]
        detail = f"has the excluded label {found[0]}" if found else "has no excluded label"
        mend = f"bd update {bead.id} {_each('--remove-label', found)}"
        conditions.append(Condition("exclude-label", not found, detail, mend))
    conditions.append(_ready(bead, ready, {condition.name for condition in conditions if not condition.passed}))
    return Verdict(bead, tuple(conditions))


def _ready(bead: Bead, ready: bool, failed: Collection[str]) -> Condition:
    """Say why bd does not list the bead as ready, as far as its dependencies and the conditions before tell."""
    if ready:
        return Condition("ready", True, "bd calls it ready")
    blockers = open_blockers(bead)
    if blockers:
        mend = " && ".join(f"bd dep remove {bead.id} {shlex.quote(blocker)}" for blocker in blockers)
        return Condition("ready", False, f"blocked by {', '.join(blockers)}", mend)
    if {"status", "assignee", "kind", "deferred"} & set(failed):
        return Condition("ready", False, "bd does not call it ready, for what failed above")
    parents = [d.id for d in bead.dependencies or () if d.id and d.dependency_type == "parent-child"]
    if parents:
        return Condition(
            "ready", False, f"held up by its parent {parents[0]}", f"bdauto explain {shlex.quote(parents[0])}"
        )
    return Condition("ready", False, "bd does not call it ready", f"bd dep list {bead.id}")


def open_blockers(bead: Bead) -> tuple[str, ...]:
    """Return the ids of the open beads this one waits for; known from `bd show`, not from a list."""
    return tuple(
        clean(other.id)
        for other in bead.dependencies or ()
        if other.id and other.dependency_type in BLOCKING and other.status not in FINISHED
    )


def circumstances(paused: str, free: int | None, trouble: str = "") -> tuple[Condition, Condition]:
    """Judge what all beads share: no pause (`paused` describes it, or is ""), and room for one bead more.

    `free` is how many beads the services would take, None when `trouble` says why that is not known.
    """
    words = trouble or (f"room for {free}" if free else "the agent service is at capacity")
    mend = "bdauto doctor" if free is None else "bdauto status --watch"
    return (
        Condition("pause", not paused, paused or "not paused", "bdauto resume"),
        Condition("capacity", bool(free), words, mend),
    )


def _each(option: str, values: Iterable[str]) -> str:
    return " ".join(f"{option} {shlex.quote(value)}" for value in values)


def _kind(bead: Bead) -> str:
    kinds = [name for name in ("is_template", "ephemeral", "pinned") if getattr(bead, name)]
    return f"is {kinds[0].removeprefix('is_')}" if kinds else "an ordinary bead"


def dispatch_order(bead: Bead) -> tuple[int, datetime, str]:
    """The key that dispatch sorts by: priority 0 first, then the one that has waited longest, then the id."""
    return (bead.priority, bead.updated_at, bead.id)


def ranked(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Sort verdicts: the eligible first, then those that wait, each in dispatch order."""
    return sorted(verdicts, key=lambda verdict: (not verdict.eligible, dispatch_order(verdict.bead)))


def backoff(failures: int, rng: random.Random) -> timedelta:
    """How long a bead waits after n failed dispatches in a row: 2 min doubling to 1 h, jittered in [half, whole]."""
    whole = min(FIRST_BACKOFF * (1 << min(max(failures, 1) - 1, 10)), LONGEST_BACKOFF)
    return rng.uniform(0.5, 1.0) * whole


class Action(StrEnum):
    """What the reaper does with a bead in progress."""

    keep = "kept"
    release = "released"
    requeue = "requeued"
    block = "blocked"


class Settlement(msgspec.Struct, frozen=True):
    """What the reaper decided about one bead: the action, the evidence in words, and the note that will say so.

    `by_age` says that only time spoke against the bead, which a wrong clock could do to every bead at once.
    """

    bead: Bead
    action: Action
    evidence: str
    note: str = ""
    by_age: bool = False


ALIVE = frozenset({"queued", "running"})
OVER = frozenset({"failed", "timeout", "error", "completed"})


def settle(bead: Bead, job_state: str | None, settings: ReapSettings, now: datetime) -> Settlement:
    """Weigh the evidence for one bead in progress, strongest first; see docs/reliability.md.

    `job_state` is the agent service's word on the bead's job; None and anything unknown are no evidence.
    """
    age = now - bead.updated_at
    aged = f"{format_age(age)} since the last update"
    if bead.ephemeral:
        return Settlement(bead, Action.keep, "ephemeral: not bdauto's to settle")
    if job_state in ALIVE:
        return Settlement(bead, Action.keep, f"job {bead.job} is {job_state}; {aged}")
    if job_state in OVER:
        return _over(bead, f"job {bead.job} is {job_state} but the bead is still in progress", settings)
    if _orphaned(bead):
        claimed_at = bead.claimed_at or bead.updated_at
        waited = now - max(claimed_at, bead.updated_at)
        if waited > settings.grace:
            words = f"claimed {format_age(now - claimed_at)} ago, no job recorded and no sign of the agent"
            note = f"reaper: {words} (grace {format_duration(settings.grace)}) — released"
            return Settlement(bead, Action.release, words, note, by_age=True)
        return Settlement(bead, Action.keep, f"claimed {format_age(waited)} ago, no job yet; within the grace period")
    if age > settings.threshold:
        words = f"no progress for {format_age(age)} (threshold {format_duration(settings.threshold)})"
        return _over(bead, words, settings, by_age=True)
    return Settlement(bead, Action.keep, aged)


def _over(bead: Bead, words: str, settings: ReapSettings, by_age: bool = False) -> Settlement:
    requeue = settings.on_stall is OnStall.requeue and bead.attempts < settings.max_attempts
    action, verb = (Action.requeue, "requeueing") if requeue else (Action.block, "blocking")
    return Settlement(bead, action, words, f"reaper: {words} — {verb}", by_age)


def _orphaned(bead: Bead) -> bool:
    """Claimed by bdauto, no job recorded, the POST's outcome not unknown, and no sign of the agent since the claim."""
    if not bead.attempt or bead.job or bead.error.startswith(UNKNOWN):
        return False
    since = bead.notes[max(bead.notes.rfind(CLAIM_NOTE), 0) :]
    return AGENT_SIGN not in since


UNKNOWN = "dispatch outcome unknown"
"""How the note and the recorded error of a POST begin whose outcome is not known: it may have started a job."""


def format_age(age: timedelta) -> str:
    """Write an age as notes do: whole minutes, rounded down; below a minute, seconds."""
    seconds = max(int(age.total_seconds()), 0)
    return f"{seconds // 60}m" if seconds >= 60 else f"{seconds}s"


def too_many(settlements: Iterable[Settlement], settings: ReapSettings) -> int:
    """Return how many beads would be settled by age alone when that is more than `--max-reap` allows, else 0."""
    aged = sum(1 for settlement in settlements if settlement.by_age)
    return 0 if settings.force or aged <= settings.max_reap else aged


def rivals(beads: Collection[Bead], known: Collection[str], best: Bead) -> bool:
    """Whether a bead outside `known` would come before `best` in dispatch order, were it eligible."""
    return any(bead.id not in known and dispatch_order(bead) < dispatch_order(best) for bead in beads)
