"""One bead explained: its verdict with all the conditions behind it, its place in the queue, and its story so far."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bdauto import pause
from bdauto.bd import Bd
from bdauto.errors import BdFailed
from bdauto.models import Bead, format_time
from bdauto.policy import Condition, Verdict, verdict
from bdauto.settings import DispatchSettings, ReapSettings
from bdauto.status import Running, judge, place_words, weigh
from bdauto.surroundings import Surroundings, job_states, look_around
from bdauto.text import clean

if TYPE_CHECKING:
    from bdauto.beadboard import Services


@dataclass(frozen=True)
class Explanation:
    """Why a bead is where it is. `place` counts from 1 among the `eligible`, None when it is not one of them."""

    now: datetime
    verdict: Verdict
    surroundings: Surroundings
    place: int | None
    eligible: int
    running: Running | None

    @property
    def bead(self) -> Bead:
        """The bead."""
        return self.verdict.bead

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions: those of the bead, then those that all beads share."""
        return self.verdict.conditions + self.surroundings.conditions()

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        bead = self.bead
        if self.running:
            return f"in progress: {self.running.state}: {self.running.settlement.evidence}"
        if bead.status == "blocked" and bead.set_aside:
            return f"set aside by bdauto: {bead.set_aside}"
        if self.place is None:
            return f"waiting: {self.verdict.reason}" if bead.status in ("open", "deferred") else self.verdict.reason
        held = next((condition.detail for condition in self.surroundings.conditions() if not condition.passed), "")
        return place_words(self.place) + (f", but nothing is dispatched now: {held}" if held else "")


def explanation(
    bd: Bd,
    services: "Services | None",
    bead_id: str,
    dispatch: DispatchSettings,
    reap: ReapSettings,
    now: datetime,
) -> Explanation:
    """Read one bead and what decides about it. Raises BdError; an id that bd does not know is one."""
    calls = bd.ready(limit=0), bd.kv_list()
    try:
        bead = _show(bd, bead_id)
        around = look_around(services)
        ready, store = calls[0].result(), calls[1].result()
    finally:
        for call in calls:
            call.kill()
    assignee = bd.settings.assignee
    found = verdict(bead, bead.id in {other.id for other in ready.beads}, assignee, dispatch, now)
    queue = [v.bead.id for v in judge(ready.beads, {b.id for b in ready.beads}, assignee, dispatch, now) if v.eligible]
    running = None
    if bead.status == "in_progress":
        running = weigh(bead, job_states(services, [bead]).get(bead.id, ""), reap, now)
    return Explanation(
        now,
        found,
        replace(around, paused=pause.read(store, now)),
        queue.index(bead.id) + 1 if found.eligible and bead.id in queue else None,
        len(queue),
        running,
    )


def _show(bd: Bd, bead_id: str) -> Bead:
    try:
        beads = bd.show([bead_id]).beads
    except BdFailed as error:
        if "no issue" in str(error):
            raise BdFailed(f"no bead {clean(bead_id, 60)} in this database; `bd list` shows what there is") from None
        raise
    return beads[0]


def story(bead: Bead) -> list[tuple[str, str]]:
    """Return what bdauto's metadata tells of the bead, as pairs of a word and a value."""
    moments = (("claimed at", bead.claimed_at), ("not before", bead.retry_at))
    told = [
        ("attempts", str(bead.attempts) if bead.attempts else ""),
        ("failures in a row", str(bead.failures) if bead.failures else ""),
        ("job", bead.job),
        *((word, format_time(moment) if moment else "") for word, moment in moments),
        ("last error", bead.error),
        ("set aside", bead.set_aside),
    ]
    return [(word, value) for word, value in told if value]


def as_json(explained: Explanation) -> dict[str, Any]:
    """Return the explanation as docs/operating.md describes it."""
    bead, running = explained.bead, explained.running
    return {
        "id": bead.id,
        "title": bead.title,
        "status": bead.status,
        "verdict": explained.headline,
        "eligible": explained.verdict.eligible,
        "reason": explained.verdict.reason or None,
        "place": explained.place,
        "queue": explained.eligible,
        "conditions": [
            {
                "name": condition.name,
                "passed": condition.passed,
                "detail": condition.detail,
                "mend": None if condition.passed else condition.mend or None,
            }
            for condition in explained.conditions
        ],
        "attempts": bead.attempts,
        "failures": bead.failures,
        "job": bead.job or None,
        "job_state": running.job_state or None if running else None,
        "claimed_at": format_time(bead.claimed_at) if bead.claimed_at else None,
        "retry_at": format_time(bead.retry_at) if bead.retry_at else None,
        "error": bead.error or None,
        "set_aside": bead.set_aside or None,
        "notes": bead.notes.splitlines(),
        **explained.surroundings.as_json(),
    }
