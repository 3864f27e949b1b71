"""What in a snapshot needs a person: the lines of `bdauto status --check`."""

from collections.abc import Sequence
from datetime import timedelta

from bdauto.common.sanitize import clean
from bdauto.diagnostics.snapshot import Running, Snapshot, last_note
from bdauto.domain.bead import Bead
from bdauto.domain.constants import NAMED, STARVED_AFTER
from bdauto.domain.questions import how_to_answer, in_words
from bdauto.domain.values import format_age


def active_alerts(snapshot: Snapshot, *, blocked: bool = True) -> list[str]:
    """Say in one line each what needs a person: a service that is down, starved work, stalled beads, orphaned claims,
    questions.

    Each bead that was blocked has a line of its own with its title and why, up to NAMED of a kind. `blocked` leaves
    these lines out if it is False.

    The head of the queue is starved when it waits longer than STARVED_AFTER though there is room and no pause. A
    slot freed or a blocker closed a moment ago does not show here and can make that premature, which is why the alert
    in deploy/monitoring goes by the dispatcher's own count instead.
    """
    found = []
    services = snapshot.services
    found += [f"service down: {part.error}" for part in services.parts if part.error]
    if services.suspended:
        found.append(services.suspended)
    head = snapshot.queue[0] if snapshot.eligible else None
    if (
        head
        and services.free
        and not (services.paused or services.suspended or services.limited)
        and _waited(head.bead, snapshot) > STARVED_AFTER
    ):
        waited = format_age(_waited(head.bead, snapshot))
        found.append(f"starved: {head.bead.id} waited {waited} with free capacity: is a dispatcher running?")
    stalled = [r for r in snapshot.running if r.state in ("stalled", "over") and r.age > 2 * snapshot.threshold]
    if stalled:
        found.append(f"stalled beyond two thresholds: {_ids(stalled)}: is a reaper running?")
    orphaned = [r for r in snapshot.running if r.state == "orphaned"]
    if orphaned:
        found.append(f"orphaned claims: {_ids(orphaned)}: is a reaper running?")
    for job, ids in [*snapshot.shared_jobs.items()][:NAMED]:
        found.append(f"one job of several beads: {clean(job)} is recorded on {', '.join(ids[:NAMED])}")
    held = [(one.bead, c.detail) for one in snapshot.queue for c in one.conditions if c.name == "job" and c.fix]
    found += _blocked("not posted", held)
    found += [
        f"asks: {bead.id} ({clean(bead.title, 60)}): {in_words(question)}; answer: {how_to_answer(question)}"
        for bead, question in snapshot.asking[:NAMED]
    ]
    rest = len(snapshot.asking) - NAMED
    found += [f"asks: {rest} more"] if rest > 0 else []
    if blocked:
        found += _blocked("quarantined", [(bead, bead.record.quarantined) for bead in snapshot.quarantined])
        found += _blocked("blocked", [(bead, last_note(bead)) for bead in snapshot.blocked])
    if snapshot.malformed:
        found.append(f"{len(snapshot.malformed)} malformed: {snapshot.malformed[0]}")
    return found


def _blocked(word: str, beads: Sequence[tuple[Bead, str]]) -> list[str]:
    lines = [f"{word}: {bead.id} ({clean(bead.title, 60)}): {clean(why, 160) or 'no note'}" for bead, why in beads]
    rest = len(lines) - NAMED
    return [*lines[:NAMED], *([f"{word}: {rest} more"] if rest > 0 else [])]


def _waited(bead: Bead, snapshot: Snapshot) -> timedelta:
    """Since when nothing moved: the bead, its backoff or deferral, and any claim that is still in progress."""
    claims = (running.bead.record.claimed_at for running in snapshot.running)
    moments = (bead.updated_at, bead.record.retry_at, bead.defer_until, *claims)
    return snapshot.now - max(moment for moment in moments if moment is not None)


def _ids(running: Sequence[Running]) -> str:
    names = [
        f"{r.bead.id} ({clean(r.bead.title, 60)})" + (f" {clean(r.decision.cause, 160)}" if r.decision.cause else "")
        for r in running
    ]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
