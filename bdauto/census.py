"""How the whole queue stands, for the metrics: more than a cycle reads, so it is taken at most once a minute."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from bdauto.bd import Bd
from bdauto.errors import ServiceError
from bdauto.metrics import BEADS, OLDEST, Metrics
from bdauto.models import Bead
from bdauto.policy import Action, settle, verdict
from bdauto.settings import DispatchSettings, ReapSettings

if TYPE_CHECKING:
    from bdauto.beadboard import Services


@dataclass(frozen=True)
class Census:
    """Counts what the settings at hand can judge: a one-shot command has those of its own job only."""

    bd: Bd
    services: "Callable[[], Services] | None"
    dispatch: DispatchSettings | None
    reap: ReapSettings | None

    def take(self, metrics: Metrics, now: datetime) -> int:
        """Set the gauges of the queue; return how many beads are eligible. Raises BdError."""
        listing = self.bd.assigned(("open", "in_progress"))
        try:
            ready = self.bd.ready(limit=0).result() if self.dispatch else None
            everything = listing.result()
        finally:
            listing.kill()
        running = [bead for bead in everything.beads if bead.status == "in_progress"]
        metrics.set(BEADS, len(running), state="in_progress")
        if self.reap:
            services = self.services() if self.services else None
            metrics.set(BEADS, stalled(running, services, self.reap, now), state="stalled")
        if self.dispatch is None or ready is None:
            return 0
        name = self.bd.settings.assignee
        eligible = [bead for bead in ready.beads if verdict(bead, True, name, self.dispatch, now).eligible]
        waited = max(((now - bead.updated_at).total_seconds() for bead in eligible), default=0.0)
        metrics.set(BEADS, len(eligible), state="eligible")
        metrics.set(BEADS, max(len(everything.beads) - len(running) - len(eligible), 0), state="waiting")
        metrics.set(OLDEST, max(waited, 0.0))
        return len(eligible)


def stalled(beads: Sequence[Bead], services: "Services | None", settings: ReapSettings, now: datetime) -> int:
    """Count the beads in progress that a sweep would settle now; the agent service is asked about those alone."""

    def over(bead: Bead, job_state: str | None) -> bool:
        return settle(bead, job_state, settings, now).action is not Action.keep

    return sum(over(bead, None) and over(bead, _job_state(bead, services)) for bead in beads)


def _job_state(bead: Bead, services: "Services | None") -> str | None:
    if services is None or not services.settings.agent_url or not bead.job:
        return None
    try:
        return services.job_state(bead.job)
    except ServiceError:
        return None
