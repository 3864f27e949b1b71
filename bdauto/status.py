"""A snapshot of all that `bdauto status` shows: the policy's verdicts on the reads that dispatch and reap make."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bdauto import pause
from bdauto.bd import Bd
from bdauto.errors import BdFailed
from bdauto.models import Bead, format_time
from bdauto.policy import Action, Settlement, Verdict, ranked, settle, verdict
from bdauto.settings import DispatchSettings, ReapSettings
from bdauto.surroundings import Surroundings, job_states, look_around

if TYPE_CHECKING:
    from bdauto.beadboard import Services

STATUSES = ("open", "deferred", "in_progress", "blocked")
"""The statuses of beads that `status` has anything to say about."""
AT_ONCE = 50
"""Beads in one `bd show`."""


@dataclass(frozen=True)
class Running:
    """A bead in progress: what the reaper would decide, and the agent service's word on its job ("": not asked)."""

    settlement: Settlement
    job_state: str
    age: timedelta
    left: timedelta

    @property
    def bead(self) -> Bead:
        """The bead."""
        return self.settlement.bead

    @property
    def state(self) -> str:
        """One word: `kept`, `orphaned` (claimed, never started), `stalled` (by age) or `over` (its job ended)."""
        action = self.settlement.action
        if action is Action.keep:
            return "kept"
        if action is Action.release:
            return "orphaned"
        return "stalled" if self.settlement.by_age else "over"


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment. `queue` has the eligible beads in dispatch order and then those that wait."""

    now: datetime
    surroundings: Surroundings
    queue: tuple[Verdict, ...]
    running: tuple[Running, ...]
    set_aside: tuple[Bead, ...]
    blocked_otherwise: int
    malformed: tuple[str, ...]
    threshold: timedelta

    @property
    def eligible(self) -> int:
        """How many beads could be dispatched."""
        return sum(verdict.eligible for verdict in self.queue)


def gather(
    bd: Bd,
    services: "Services | None",
    dispatch: DispatchSettings,
    reap: ReapSettings,
    now: datetime,
    limit: int = 0,
) -> Snapshot:
    """Read everything and judge it; `limit` says for how many waiting beads the blockers are looked up (0: all).

    Raises BdError. A service that fails is a finding in the snapshot.
    """
    calls = bd.assigned(STATUSES), bd.ready(limit=0), bd.kv_list()
    try:
        around = look_around(services)
        listed, ready, store = calls[0].result(), calls[1].result(), calls[2].result()
    finally:
        for call in calls:
            call.kill()
    beads = {bead.id: bead for bead in (*listed.beads, *ready.beads)}
    verdicts = judge(beads.values(), {bead.id for bead in ready.beads}, bd.settings.assignee, dispatch, now)
    running = [bead for bead in beads.values() if bead.status == "in_progress"]
    states = job_states(services, running)
    blocked = [bead for bead in beads.values() if bead.status == "blocked"]
    set_aside = sorted((bead for bead in blocked if bead.set_aside), key=lambda bead: bead.updated_at, reverse=True)
    return Snapshot(
        now,
        replace(around, paused=pause.read(store, now)),
        tuple(_with_blockers(bd, verdicts, dispatch, now, limit)),
        tuple(sorted((weigh(bead, states.get(bead.id, ""), reap, now) for bead in running), key=lambda r: r.left)),
        tuple(set_aside),
        len(blocked) - len(set_aside),
        tuple(sorted({*listed.malformed, *ready.malformed})),
        reap.threshold,
    )


def judge(
    beads: Iterable[Bead], ready: set[str], assignee: str, settings: DispatchSettings, now: datetime
) -> list[Verdict]:
    """Return the verdicts on the beads that are in the queue, eligible or not, in order."""
    waiting = (bead for bead in beads if bead.status in ("open", "deferred"))
    return ranked(verdict(bead, bead.id in ready, assignee, settings, now) for bead in waiting)


def weigh(bead: Bead, job_state: str, settings: ReapSettings, now: datetime) -> Running:
    """Return what the reaper would decide about a bead in progress."""
    age = now - bead.updated_at
    return Running(settle(bead, job_state or None, settings, now), job_state, age, settings.threshold - age)


def _with_blockers(
    bd: Bd, verdicts: Sequence[Verdict], settings: DispatchSettings, now: datetime, limit: int
) -> list[Verdict]:
    """Judge again, with their dependencies, the beads that bd does not call ready for a reason no list tells."""
    shown = verdicts[: limit or None]
    unclear = [found.bead.id for found in shown if [c.name for c in found.conditions if not c.passed][:1] == ["ready"]]
    detailed: dict[str, Bead] = {}
    for start in range(0, len(unclear), AT_ONCE):
        try:
            detailed |= {bead.id: bead for bead in bd.show(unclear[start : start + AT_ONCE]).beads}
        except BdFailed:
            continue  # they are gone since; the verdict stands without the blockers' names
    return [
        verdict(detailed[found.bead.id], False, bd.settings.assignee, settings, now)
        if found.bead.id in detailed
        else found
        for found in verdicts
    ]


def place_words(place: int) -> str:
    """Write a place in the queue: `next`, `2nd`, `3rd`, …"""
    if place == 1:
        return "next"
    last = place % 10 if place % 100 not in (11, 12, 13) else 0
    return f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


def as_json(snapshot: Snapshot, limit: int) -> dict[str, Any]:
    """Return the snapshot as docs/operating.md describes it; lists are cut at `limit` (0: not), counts are not."""
    cut = limit or None
    return {
        "now": format_time(snapshot.now),
        **snapshot.surroundings.as_json(),
        "counts": {
            "eligible": snapshot.eligible,
            "waiting": len(snapshot.queue) - snapshot.eligible,
            "in_progress": len(snapshot.running),
            "stalled": sum(running.state == "stalled" for running in snapshot.running),
            "set_aside": len(snapshot.set_aside),
            "blocked_otherwise": snapshot.blocked_otherwise,
        },
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
                "job": running.bead.job or None,
                "job_state": running.job_state or None,
                "state": running.state,
                "evidence": running.settlement.evidence,
                "left_seconds": int(running.left.total_seconds()),
            }
            for running in snapshot.running[:cut]
        ],
        "set_aside": [
            {**_bead_json(bead, snapshot.now), "reason": bead.set_aside} for bead in snapshot.set_aside[:cut]
        ],
        "malformed": list(snapshot.malformed),
    }


def _bead_json(bead: Bead, now: datetime) -> dict[str, Any]:
    age = int((now - bead.updated_at).total_seconds())
    return {"id": bead.id, "title": bead.title, "priority": bead.priority, "age_seconds": age}
