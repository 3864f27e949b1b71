"""What all beads share: the pause, the services and their capacity, and the services' word on jobs.

Nothing here raises for a service: one that does not answer is a finding, and the rest is shown all the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bdauto.errors import BdautoError
from bdauto.models import Bead, format_time
from bdauto.pause import Pause
from bdauto.policy import Condition, circumstances

if TYPE_CHECKING:
    from bdauto.beadboard import Capacity, Services  # imports httpx, which is slow to load


@dataclass(frozen=True)
class BeadBoard:
    """BeadBoard's word: `busy`, or the `error` it failed with."""

    busy: bool = False
    error: str = ""


@dataclass(frozen=True)
class Agent:
    """The agent service's word: its capacity, or the `error` it failed with."""

    capacity: "Capacity | None" = None
    error: str = ""


@dataclass(frozen=True)
class Surroundings:
    """The pause that holds, and the services; None is a service that is not configured."""

    paused: Pause | None = None
    beadboard: BeadBoard | None = None
    agent: Agent | None = None

    @property
    def trouble(self) -> str:
        """Why the capacity is not known, or ""."""
        if self.beadboard is None:
            return "the URL of BeadBoard is not set"
        return self.beadboard.error or (self.agent.error if self.agent else "")

    @property
    def free(self) -> int | None:
        """How many beads the services would take, as a dispatch finds it; None when it is not known."""
        if self.trouble or self.beadboard is None:
            return None
        if self.beadboard.busy:
            return 0
        return self.agent.capacity.free if self.agent and self.agent.capacity else 1

    def conditions(self) -> tuple[Condition, Condition]:
        """Return the conditions of dispatching any bead at all."""
        return circumstances(self.paused.words() if self.paused else "", self.free, self.trouble)

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
            "beadboard": board
            and {"up": not board.error, "busy": None if board.error else board.busy, "error": board.error or None},
            "agent": agent
            and {
                "up": not agent.error,
                "free": capacity.free if capacity else None,
                "active": counted.active if counted else None,
                "queued": counted.queued if counted else None,
                "capacity": counted.total if counted else None,
                "error": agent.error or None,
            },
            "capacity_free": self.free,
        }


def look_around(services: "Services | None") -> Surroundings:
    """Ask the services that are configured how they are."""
    if services is None:
        return Surroundings()
    return Surroundings(
        beadboard=_beadboard(services) if services.settings.beadboard_url else None,
        agent=_agent(services) if services.settings.agent_url else None,
    )


def _beadboard(services: "Services") -> BeadBoard:
    try:
        return BeadBoard(busy=services.beadboard_busy())
    except BdautoError as error:
        return BeadBoard(error=str(error))


def _agent(services: "Services") -> Agent:
    try:
        return Agent(services.agent_capacity())
    except BdautoError as error:
        return Agent(error=str(error))


NO_ANSWER = "no answer"
FORGOTTEN = "forgotten"


def job_states(services: "Services | None", beads: Iterable[Bead]) -> dict[str, str]:
    """Ask the agent service for the state of each bead's job, by the bead's id.

    NO_ANSWER and FORGOTTEN (it does not know the job) are no evidence for the reaper. After one failure it is not asked
    again: each question could take a whole time-out.
    """
    states: dict[str, str] = {}
    if services is None or not services.settings.agent_url:
        return states
    failed = False
    for bead in beads:
        if not bead.job:
            continue
        try:
            states[bead.id] = NO_ANSWER if failed else services.job_state(bead.job) or FORGOTTEN
        except BdautoError:
            failed, states[bead.id] = True, NO_ANSWER
    return states
