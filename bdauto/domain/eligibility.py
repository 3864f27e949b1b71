"""Decide which beads may be dispatched, and in what order.

The functions here do no I/O, and `now` is an argument. `status` and `explain` render what they return and never decide
for themselves.
"""

import random
import shlex
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.lanes import Lanes
from bdauto.domain.results import describe_end
from bdauto.domain.selection import Condition as Condition
from bdauto.domain.selection import selecting
from bdauto.domain.settings import Acceptance, DispatchSettings

FIRST_BACKOFF = timedelta(minutes=2)
LONGEST_BACKOFF = timedelta(hours=1)
BELIEVED_BACKOFF = 2 * LONGEST_BACKOFF
"""A backoff that ends later was written by a wrong clock, and is over."""
BLOCKING = frozenset({"blocks", "conditional-blocks", "waits-for"})
"""The types of dependency that keep a bead from being ready, as in bd's own `bd ready`."""
FINISHED = frozenset({"closed", "pinned"})
"""The statuses of a bead that nobody waits for."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a bead may be dispatched, with all conditions, passed and failed."""

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

    @property
    def until(self) -> datetime | None:
        """When the bead becomes eligible by itself, or None if that takes more than time."""
        failed = {condition.name for condition in self.conditions if not condition.passed}
        moments = {"backoff": self.bead.record.retry_at, "deferred": self.bead.defer_until}
        if not failed or not failed <= moments.keys():
            return None
        return max(moment for name in failed if (moment := moments[name]))


def verdict(
    bead: Bead, ready: bool, assignee: str, settings: DispatchSettings, now: datetime, lanes: Lanes | None = None
) -> Verdict:
    """Judge one bead. `ready` says whether `bd ready` lists it: only bd knows all blockers and gates.

    Of the `lanes` of its tracker, the bead must belong to the one that has these settings.
    """
    deferred, has_criteria = bead.defer_until, bool(bead.acceptance_criteria.strip())
    retry_at = bead.record.retry_at if bead.record.retry_at and bead.record.retry_at <= now + BELIEVED_BACKOFF else None
    wanted = lanes.wanted(bead, settings) if lanes else settings
    selected = {condition.name: condition for condition in selecting(bead, wanted)}
    conditions = [
        Condition(
            "status",
            bead.status == "open",
            _status(bead, now),
            _reopening(bead),
        ),
        Condition(
            "assignee",
            bead.assignee == assignee,
            f"assigned to {bead.assignee or 'nobody'}",
            f"bd update {bead.id} -a {assignee}",
        ),
        Condition(
            "acceptance",
            has_criteria or settings.acceptance == Acceptance.optional,
            "has acceptance criteria" if has_criteria else "no acceptance criteria",
            f"bd update {bead.id} --acceptance '…'",
        ),
        selected.pop("type"),
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
            _backing_off(bead, retry_at, settings.max_attempts) if retry_at and retry_at > now else "not backing off",
            f"bd update {bead.id} --unset-metadata bdauto.retry_at",
        ),
    ]
    conditions += selected.values()
    if lanes and (condition := lanes.condition(bead)):
        conditions.append(condition)
    conditions.append(_ready(bead, ready, {condition.name for condition in conditions if not condition.passed}))
    return Verdict(bead, tuple(conditions))


_ALL_FAIL = {
    "acceptance": "none of {} has acceptance criteria: give it with `bd update ID --acceptance '…'`, or give "
    "--acceptance optional where no BeadBoard is used",
    "type": "the type of each of {} is excluded: --exclude-type and --type say which are",
    "trust": "none of {} was created by somebody trusted: --trusted-creator says who is",
    "label": "none of {} has the labels asked for: --label says which",
    "exclude-label": "each of {} has an excluded label: --exclude-label says which",
    "priority": "none of {} has a priority that is asked for: --priority says which",
}
"""What to say if no bead of the queue meets a condition."""


def why_nothing_goes(queue: Collection[Verdict]) -> str:
    """Return why no bead of a queue may be dispatched, if it is the same condition for all, and what changes it."""
    failed = [{condition.name for condition in found.conditions if not condition.passed} for found in queue]
    name = next((name for name in _ALL_FAIL if failed and all(name in names for names in failed)), "")
    return _ALL_FAIL[name].format(f"the waiting beads ({len(queue)})") if name else ""


def _reopening(bead: Bead) -> str:
    """Return the command that opens a bead for dispatch. One that is closed or at work needs none."""
    return "" if bead.status in ("closed", "in_progress") else f"bd update {bead.id} -s open"


def _backing_off(bead: Bead, until: datetime, most: int) -> str:
    """Say until when a bead backs off, and after what: which attempt of how many, and why that failed."""
    record, words = bead.record, f"failed: {bead.record.error}"
    if not record.error:
        last = record.runs[-1] if record.runs else None
        recent = last and last.ended_at and until - last.ended_at <= BELIEVED_BACKOFF
        words = describe_end(last) if last and recent else "failed"
    attempt = f"attempt {record.attempts} of {most}" if record.attempts else "an uncharged attempt"
    return f"backing off until {until.astimezone(UTC):%H:%M:%S}Z: {attempt} {words}"


def _status(bead: Bead, now: datetime) -> str:
    if bead.status == "deferred" and bead.defer_until and bead.defer_until > now:
        return f"status is deferred, until {bead.defer_until.astimezone(UTC):%Y-%m-%d %H:%M}Z"
    return f"status is {bead.status}"


def _ready(bead: Bead, ready: bool, failed: Collection[str]) -> Condition:
    """Explain why bd does not list the bead as ready, from its dependencies and the `failed` conditions."""
    if ready:
        return Condition("ready", True, "bd calls it ready")
    blockers = open_blockers(bead)
    if blockers:
        first = shlex.quote(blockers[0])
        fix = f"bdauto explain {first}, or if it is done: bd close {first}"
        return Condition("ready", False, f"blocked by {', '.join(blockers)}", fix)
    if {"status", "assignee", "kind", "deferred"} & set(failed):
        return Condition("ready", False, "bd does not call it ready, for what failed above")
    parents = [d.depends_on_id for d in bead.dependencies or () if d.type == "parent-child"]
    if parents:
        return Condition(
            "ready", False, f"held up by its parent {parents[0]}", f"bdauto explain {shlex.quote(parents[0])}"
        )
    return Condition("ready", False, "bd does not call it ready", f"bd dep list {bead.id}")


def open_blockers(bead: Bead) -> tuple[str, ...]:
    """Return the ids of the beads that this one waits for and that are known to be open."""
    return tuple(
        clean(other.depends_on_id)
        for other in bead.dependencies or ()
        if other.type in BLOCKING and other.status not in ("", *FINISHED)
    )


def global_conditions(paused: str, free: int | None, trouble: str = "") -> tuple[Condition, Condition]:
    """Judge what all beads share: no pause (`paused` describes it, or is ""), and room for one bead more.

    `free` is how many beads the services would take, None when `trouble` says why that is not known.
    """
    words = trouble or (f"room for {free}" if free else "the agent is at capacity")
    fix = "bdauto doctor" if free is None else "bdauto status --watch"
    return (
        Condition("pause", not paused, paused or "not paused", "bdauto resume"),
        Condition("capacity", bool(free), words, fix),
    )


def _kind(bead: Bead) -> str:
    kinds = [name for name in ("is_template", "ephemeral", "pinned") if getattr(bead, name)]
    return f"is {kinds[0].removeprefix('is_')}" if kinds else "an ordinary bead"


def dispatch_order(bead: Bead) -> tuple[int, datetime, str]:
    """Return the sort key of dispatch: priority 0 first, then the longest wait, then the id."""
    return (bead.priority, bead.waiting_since, bead.id)


def ranked(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Sort verdicts: eligible beads first, then waiting ones, each group in dispatch order."""
    return sorted(verdicts, key=lambda verdict: (not verdict.eligible, dispatch_order(verdict.bead)))


def backoff(failures: int, rng: random.Random) -> timedelta:
    """Return the wait after n failed dispatches in a row: 2 min, doubling to 1 h, with jitter in [half, whole]."""
    whole = min(FIRST_BACKOFF * (1 << min(max(failures, 1) - 1, 10)), LONGEST_BACKOFF)
    return rng.uniform(0.5, 1.0) * whole


def outranks(beads: Collection[Bead], known: Collection[str], best: Bead) -> bool:
    """Return True if a bead outside `known` would come before `best` in dispatch order, provided it is eligible."""
    return any(bead.id not in known and dispatch_order(bead) < dispatch_order(best) for bead in beads)
