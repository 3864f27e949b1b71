"""What in a snapshot needs a person: the lines of `bdauto status --check`."""

from collections.abc import Sequence
from datetime import timedelta

from bdauto.models import Bead
from bdauto.policy import format_age
from bdauto.status import Running, Snapshot

STARVED_AFTER = timedelta(minutes=10)
"""So long may the head of the queue wait while there is room: five ticks of a CronJob that runs every two minutes."""


def attention(snapshot: Snapshot) -> list[str]:
    """Say in one line each what needs a person: a service that is down, starved work, stalled beads, orphaned claims.

    The head of the queue is starved when it waits longer than STARVED_AFTER though there is room and no pause. A
    slot freed or a blocker closed a moment ago does not show here and can make that premature, which is why the alert
    in deploy/monitoring goes by the dispatcher's own count instead.
    """
    found = []
    around = snapshot.surroundings
    if around.beadboard and around.beadboard.error:
        found.append(f"service down: {around.beadboard.error}")
    if around.agent and around.agent.error:
        found.append(f"service down: {around.agent.error}")
    head = snapshot.queue[0] if snapshot.eligible else None
    if head and around.free and not around.paused and _waited(head.bead, snapshot) > STARVED_AFTER:
        waited = format_age(_waited(head.bead, snapshot))
        found.append(f"starved: {head.bead.id} is eligible and there is room, for {waited}: does a dispatcher run?")
    stalled = [r for r in snapshot.running if r.state in ("stalled", "over") and r.age > 2 * snapshot.threshold]
    if stalled:
        found.append(f"stalled beyond two thresholds: {_ids(stalled)}: does a reaper run?")
    orphaned = [r for r in snapshot.running if r.state == "orphaned"]
    if orphaned:
        found.append(f"orphaned claims: {_ids(orphaned)}: does a reaper run?")
    if snapshot.malformed:
        found.append(f"{len(snapshot.malformed)} could not be read: {snapshot.malformed[0]}")
    return found


def _waited(bead: Bead, snapshot: Snapshot) -> timedelta:
    """Since when nothing moved: the bead, its backoff or deferral, and any claim that is still in progress."""
    claims = (running.bead.claimed_at for running in snapshot.running)
    moments = (bead.updated_at, bead.retry_at, bead.defer_until, *claims)
    return snapshot.now - max(moment for moment in moments if moment is not None)


def _ids(running: Sequence[Running]) -> str:
    names = [r.bead.id for r in running]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
