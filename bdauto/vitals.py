"""What answers and what does not, as `bdauto run` learns it from its cycles: kept in the metrics, told by Outages."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bdauto.errors import BdautoError, BdError, ServiceError
from bdauto.metrics import UP, Metrics
from bdauto.outages import Outages
from bdauto.outcome import BeadOutcome, Report
from bdauto.watch import probe

if TYPE_CHECKING:
    from bdauto.beadboard import Capacity, Services

STARTING = (BeadOutcome.dispatched, BeadOutcome.busy)
NOT_STARTING = (BeadOutcome.unavailable, BeadOutcome.misconfigured, BeadOutcome.unknown)


class Vitals:
    """The targets bd, beadboard and agent; and `dispatch`: whether BeadBoard, which answers, also starts beads.

    What failed must itself succeed to be over: a bd that lists may still fail to tell what is ready.
    """

    def __init__(self, metrics: Metrics, outages: Outages, back: Callable[[], None]) -> None:
        """`back` is called when an outage ends."""
        self._metrics = metrics
        self._outages = outages
        self._back = back
        self._failing: set[str] = set()

    @property
    def down(self) -> bool:
        """Whether dispatching waits for something that is down."""
        targets = ("beadboard", "agent", "dispatch")
        return "dispatch" in self._failing or any(target in self._outages for target in targets)

    @property
    def posts_fail(self) -> bool:
        """Whether only a further POST can tell if beads are started again."""
        return "dispatch" in self._outages

    @property
    def bd_fails(self) -> bool:
        """Whether a job of the loop waits for bd."""
        return bool(self._failing & {"dispatch", "reap"})

    @property
    def ready(self) -> bool:
        """Whether bd and BeadBoard answered when last asked."""
        return all(self._metrics.get(UP, target=target) == 1 for target in ("bd", "beadboard"))

    def probe(self, services: "Services") -> "Capacity":
        """Ask the services what they would take; raises ServiceError."""
        try:
            capacity = probe(services, self._metrics)
        except ServiceError as error:
            beadboard = self._metrics.get(UP, target="beadboard") == 1
            if beadboard:
                self._answered("beadboard")
            self._outages.failed("agent" if beadboard else "beadboard", error)
            raise
        self._answered("beadboard")
        if capacity.free and services.settings.agent_url:
            self._answered("agent")
        return capacity

    def bd(self, user: str, error: BdautoError | None) -> None:
        """Note whether bd did what this user of it wanted."""
        if isinstance(error, BdError):
            self._failing.add(user)
            self._outages.failed("bd", error)
        else:
            self._failing.discard(user)
            if not self._failing:
                self._answered("bd")
        self._metrics.set(UP, not self._failing, target="bd")

    def posts(self, report: Report) -> None:
        """Note whether beads were started: what became of the last one counts."""
        telling = [bead.outcome for bead in report.beads if bead.outcome in STARTING + NOT_STARTING]
        if telling and telling[-1] in STARTING:
            self._answered("dispatch")
        elif telling and report.error:
            self._outages.failed("dispatch", report.error)

    def _answered(self, target: str) -> None:
        if self._outages.answered(target):
            self._back()
