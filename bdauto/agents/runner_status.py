"""How what runs the agent is, with the pause and the limits that all beads share.

Nothing here raises for a service: one that does not answer is a finding, and the rest is shown all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from bdauto.common.errors import BdautoError, ServiceError, TokenRefused, UsageError
from bdauto.domain import breaker, pause
from bdauto.domain.eligibility import Condition, global_conditions
from bdauto.domain.pause import Pause
from bdauto.domain.reaping import NO_ANSWER, TOKEN_REFUSED
from bdauto.domain.times import format_time

AGENT, BOARD = "agent", "beadboard"
"""The keys of parts: what runs the jobs, and what may stand before it."""
STATE_LIMIT = 40
"""Characters kept of a job's state, which may be one that bdauto does not know."""


class Capacity(msgspec.Struct, frozen=True):
    """How many beads the services would take. If they do not count, 1 stands for "at least one".

    `active`, `queued` and `total` are the agent service's own numbers, where it counts.
    """

    free: int
    counted: bool = False
    active: int = 0
    queued: int = 0
    total: int = 0


@dataclass(frozen=True)
class Part:
    """A service or a machine that takes part in starting agents: its capacity, or the `error` it failed with.

    `key` is its name in JSON, metrics and events, `text` describes it while it is up. One that does not count says only
    whether it is busy.
    """

    key: str
    name: str
    capacity: Capacity | None = None
    error: BdautoError | None = None
    text: str = ""
    counts: bool = True
    configured: bool = True

    @property
    def busy(self) -> bool:
        """True: it takes no further bead."""
        return self.capacity is not None and self.capacity.free == 0

    def as_json(self) -> dict[str, Any] | None:
        """Return the part as docs/operating.md describes it, None if it is not configured."""
        if not self.configured:
            return None
        up, error = self.error is None, self.error and str(self.error)
        if not self.counts:
            return {"up": up, "busy": self.busy if up else None, "error": error}
        counted = self.capacity if self.capacity and self.capacity.counted else None
        return {
            "up": up,
            "free": self.capacity.free if self.capacity else None,
            "active": counted.active if counted else None,
            "queued": counted.queued if counted else None,
            "capacity": counted.total if counted else None,
            "error": error,
        }


@dataclass(frozen=True)
class RunnerStatus:
    """The parts of what runs the agent, in the order in which a bead passes them, and what else holds all beads back.

    Without a part nothing runs the agent.
    """

    parts: tuple[Part, ...] = ()
    paused: Pause | None = None
    suspended: str = ""
    """What the circuit breaker says while it is open, or ""."""
    suspended_until: datetime | None = None
    """When it lets one bead try, None unless it is open."""
    limited: str = ""
    """The limit on dispatching that is reached, or ""."""

    @property
    def error(self) -> BdautoError | None:
        """Why the capacity is not known, or None. The part that takes the bead comes first."""
        if not self.parts:
            return UsageError("nothing runs the agent", hint="`bdauto doctor` names the options")
        return next((part.error for part in self.parts if part.error), None)

    @property
    def capacity(self) -> Capacity | None:
        """How many beads would be taken, as a dispatch finds it. None if that is unknown.

        A busy part takes nothing. Else the word of the last one counts.
        """
        if self.error:
            return None
        told = [part.capacity for part in self.parts if part.capacity]
        return Capacity(0) if any(part.busy for part in self.parts if not part.counts) else told[-1]

    @property
    def up(self) -> dict[str, bool]:
        """Whether each part that is configured answered, by its key."""
        return {part.key: part.error is None for part in self.parts if part.configured}

    @property
    def free(self) -> int | None:
        """How many beads would be taken. None if that is unknown."""
        return self.capacity.free if self.capacity else None

    @property
    def runs_nothing(self) -> bool:
        """True: what runs the jobs counts them, and has none."""
        told = [part.capacity for part in self.parts if part.key == AGENT and part.capacity]
        return any(one.counted and one.active == one.queued == 0 for one in told)

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
        """Return the pause and the parts as JSON: null is not paused, or not configured."""
        paused = self.paused
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
            **dict.fromkeys((BOARD, AGENT)),
            **{part.key: part.as_json() for part in self.parts},
            "capacity_free": self.free,
        }


def with_switches(found: RunnerStatus, store: Mapping[str, Any], now: datetime, lane: str) -> RunnerStatus:
    """Return the status with the pause and the circuit breaker that the tracker's key-value store holds."""
    words, until = breaker.suspension(store, now, lane)
    return replace(found, paused=pause.read(store, now), suspended=words, suspended_until=until)


def state_after(error: ServiceError) -> str:
    """Return the state of a job about which the agent service gave this error in place of an answer."""
    return TOKEN_REFUSED if isinstance(error, TokenRefused) else NO_ANSWER
