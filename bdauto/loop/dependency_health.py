"""Which dependencies answer, as `bdauto run` learns from its cycles. Outages reports what changes."""

from collections.abc import Callable
from datetime import datetime

from bdauto.agents.service_status import ServiceStatus
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.errors import BdautoError, BdError, ServiceError
from bdauto.loop.outages import Outages
from bdauto.telemetry.families import ASKED, UP
from bdauto.telemetry.recorder import Telemetry

STARTING = (BeadOutcome.dispatched, BeadOutcome.busy)
NOT_STARTING = (BeadOutcome.unavailable, BeadOutcome.misconfigured, BeadOutcome.unknown)


class DependencyHealth:
    """The health of the targets bd, beadboard and agent, and of `dispatch`: whether BeadBoard starts beads.

    An outage ends only when the operation that failed succeeds: `bd list` may work while `bd ready` still fails.
    """

    def __init__(
        self, telemetry: Telemetry, outages: Outages, now: Callable[[], datetime], back: Callable[[], None]
    ) -> None:
        """`back` is called when an outage ends."""
        self._now = now
        self._asked: dict[str, datetime] = {}
        self._telemetry = telemetry
        self._outages = outages
        self._back = back
        self._bd_failing: set[str] = set()
        self._agent_failing: set[str] = set()
        self._up: dict[str, bool] = {}
        self._starts = "beadboard"
        """The target that starts beads."""

    @property
    def down(self) -> bool:
        """Whether dispatching waits for something that is down."""
        return "dispatch" in self._bd_failing or "beadboard" in self._outages or self.posts_fail or self._health_fails

    @property
    def _health_fails(self) -> bool:
        return "health" in self._agent_failing

    @property
    def posts_fail(self) -> bool:
        """Whether only a further POST can tell if beads are started again."""
        return "dispatch" in self._outages

    @property
    def bd_fails(self) -> bool:
        """Whether a job of the loop waits for bd."""
        return bool(self._bd_failing & {"dispatch", "reap"})

    @property
    def ready(self) -> bool:
        """Whether bd, and what starts beads, answered when last asked."""
        return all(self._up.get(target) for target in ("bd", self._starts))

    def describe(self) -> str:
        """Say of each target, a line each, whether it answered when it was last asked, and how long ago that was."""
        now = self._now()
        return "".join(
            f"{target} {'up' if self._up.get(target) else 'down'}, asked {(now - asked).total_seconds():.0f}s ago\n"
            for target, asked in sorted(self._asked.items())
        )

    def services(self, status: ServiceStatus) -> None:
        """Note what the services said."""
        self._starts = "agent" if status.local else "beadboard"
        self._telemetry.services(status)
        if status.beadboard:
            self._note("beadboard")
            self._up["beadboard"] = status.beadboard.error is None
            if status.beadboard.error:
                self._outages.failed("beadboard", status.beadboard.error)
            else:
                self._answered("beadboard")
        if status.agent:
            self.agent("health", status.agent.error)

    def agent(self, user: str, error: BdautoError | None) -> None:
        """Note whether the agent service told this user of it what it wanted: `health`, or the state of `jobs`."""
        self._used("agent", self._agent_failing, user, error if isinstance(error, ServiceError) else None)

    def bd(self, user: str, error: BdautoError | None) -> None:
        """Note whether bd did what this user of it wanted."""
        self._used("bd", self._bd_failing, user, error if isinstance(error, BdError) else None)

    def _used(self, target: str, failing: set[str], user: str, error: BdautoError | None) -> None:
        """Note what became of a use of a target. It is up while the last use of each user succeeded."""
        if error:
            failing.add(user)
            self._outages.failed(target, error)
        else:
            failing.discard(user)
            if not failing:
                self._answered(target)
        self._up[target] = not failing
        self._note(target)
        self._telemetry.set(UP, self._up[target], target=target)

    def posts(self, report: Report) -> None:
        """Note whether beads can be started. The outcome of the last claimed bead decides."""
        telling = [bead.outcome for bead in report.beads if bead.attempt and bead.outcome in STARTING + NOT_STARTING]
        if telling and telling[-1] in STARTING:
            self._answered("dispatch")
        elif telling and report.error:
            self._outages.failed("dispatch", report.error)

    def _note(self, target: str) -> None:
        now = self._asked[target] = self._now()
        self._telemetry.set(ASKED, now.timestamp(), target=target)

    def _answered(self, target: str) -> None:
        if self._outages.answered(target):
            self._back()
