"""What all beads share: the pause, the services and their capacity, and the services' word on jobs.

Nothing here raises for a service: one that does not answer is a finding, and the rest is shown all the same.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from bdauto.agents.capacity import Capacity
from bdauto.domain import breaker, pause
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import Condition, global_conditions
from bdauto.domain.pause import Pause
from bdauto.domain.reaping import ELSEWHERE, NO_ANSWER, TOKEN_REFUSED, JobEvidence
from bdauto.domain.times import format_time
from bdauto.errors import BdautoError, ServiceError, TokenRefused, UsageError

if TYPE_CHECKING:
    from bdauto.agents.beadboard.runner import BeadBoardRunner  # imports httpx, which is slow to load
    from bdauto.agents.runner import Runner
    from bdauto.agents.service_runner import ServiceRunner


STATE_LIMIT = 40
"""Characters kept of a job's state, which may be one that bdauto does not know."""


@dataclass(frozen=True)
class BeadBoard:
    """BeadBoard's word: `busy`, or the `error` it failed with."""

    busy: bool = False
    error: BdautoError | None = None


@dataclass(frozen=True)
class Agent:
    """The agent service's word: its capacity, or the `error` it failed with."""

    capacity: Capacity | None = None
    error: BdautoError | None = None


@dataclass(frozen=True)
class ServiceStatus:
    """The current pause and the services. None is a service that is not configured."""

    paused: Pause | None = None
    beadboard: BeadBoard | None = None
    agent: Agent | None = None
    suspended: str = ""
    """What the circuit breaker says while it is open, or ""."""
    suspended_until: datetime | None = None
    """When it lets one bead try, None unless it is open."""
    limited: str = ""
    """The limit on dispatching that is reached, or ""."""
    local: bool = False
    """Whether the agent is a command on this machine, which needs no BeadBoard."""

    @property
    def error(self) -> BdautoError | None:
        """Why the capacity is not known, or None. BeadBoard comes first, since it must take the POST."""
        if self.beadboard is None and not self.local:
            return UsageError("the URL of BeadBoard is not set", hint="give --beadboard-url or BEADBOARD_URL")
        return (self.beadboard.error if self.beadboard else None) or (self.agent.error if self.agent else None)

    @property
    def capacity(self) -> Capacity | None:
        """What the services would take, as a dispatch finds it. None if that is unknown.

        A busy BeadBoard takes nothing. Else the agent service's word counts, where that is configured.
        """
        if self.error:
            return None
        if self.beadboard and self.beadboard.busy:
            return Capacity(0)
        return self.agent.capacity if self.agent and self.agent.capacity else Capacity(1)

    @property
    def free(self) -> int | None:
        """How many beads the services would take. None if that is unknown."""
        return self.capacity.free if self.capacity else None

    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions of dispatching any bead at all."""
        trouble = str(self.error or "")
        shared = global_conditions(self.paused.describe() if self.paused else "", self.free, trouble)
        return (
            *([Condition("breaker", False, self.suspended, "bdauto resume")] if self.suspended else []),
            *([Condition("limit", False, self.limited, "wait, or change the limit")] if self.limited else []),
            *shared,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the pause and the services as JSON: null is not paused, or not configured."""
        paused, board, agent = self.paused, self.beadboard, self.agent
        capacity = agent.capacity if agent else None
        counted = capacity if capacity and capacity.counted else None
        return {
            "paused": paused
            and {
                "by": paused.by or None,
                "reason": paused.reason,
                "since": format_time(paused.since) if paused.since else None,
                "until": format_time(paused.until) if paused.until else None,
            },
            "suspended": self.suspended or None,
            "suspended_until": format_time(self.suspended_until) if self.suspended_until else None,
            "limited": self.limited or None,
            "beadboard": board
            and {
                "up": not board.error,
                "busy": None if board.error else board.busy,
                "error": board.error and str(board.error),
            },
            "agent": agent
            and {
                "up": not agent.error,
                "free": capacity.free if capacity else None,
                "active": counted.active if counted else None,
                "queued": counted.queued if counted else None,
                "capacity": counted.total if counted else None,
                "error": agent.error and str(agent.error),
            },
            "capacity_free": self.free,
        }


def with_switches(found: ServiceStatus, store: Mapping[str, Any], now: datetime) -> ServiceStatus:
    """Return the status with the pause and the circuit breaker that the tracker's key-value store holds."""
    words, until = breaker.suspension(store, now)
    return replace(found, paused=pause.read(store, now), suspended=words, suspended_until=until)


def check_services(runner: "Runner | None") -> ServiceStatus:
    """Ask what runs the agent how it is. None is nothing that is configured."""
    return runner.status() if runner else ServiceStatus()


def state_after(error: ServiceError) -> str:
    """Return the state of a job about which the agent service gave this error in place of an answer."""
    return TOKEN_REFUSED if isinstance(error, TokenRefused) else NO_ANSWER


def job_evidence(
    runner: "Runner | None", beads: Collection[Bead], agent: Agent | None = None
) -> tuple[JobEvidence, ServiceError | None]:
    """Ask what runs the agent about the jobs of its own beads: see `Runner.evidence`. The others are ELSEWHERE."""
    owned = {bead.id: runner.owns(bead) if runner else not bead.local for bead in beads}
    mine = [bead for bead in beads if owned[bead.id]]
    evidence, error = runner.evidence(mine, agent) if runner else (JobEvidence(), None)
    others = {bead: ELSEWHERE for bead, own in owned.items() if not own}
    return msgspec.structs.replace(evidence, states={**evidence.states, **others}), error


def services_status(services: "BeadBoardRunner") -> ServiceStatus:
    """Ask BeadBoard and the agent service, as far as they are configured, how they are."""
    return ServiceStatus(
        beadboard=_beadboard(services) if services.settings.beadboard_url else None,
        agent=agent_status(services) if services.settings.agent_url else None,
    )


def _beadboard(services: "BeadBoardRunner") -> BeadBoard:
    try:
        return BeadBoard(busy=services.beadboard_busy())
    except BdautoError as error:
        return BeadBoard(error=error)


def agent_status(services: "ServiceRunner") -> Agent:
    """Ask the agent service how it is."""
    try:
        return Agent(services.agent_capacity())
    except BdautoError as error:
        return Agent(error=error)
