"""Why a dispatch cycle takes up no further bead."""

from datetime import datetime

import msgspec

from bdauto.domain.outcome import Outcome


class Hold(msgspec.Struct, frozen=True):
    """What the cycle comes to because of it, and in words."""

    outcome: Outcome
    detail: str = ""
    until: datetime | None = None
    """When it ends by itself, if that is known."""
    trial: str = ""
    """The attempt that tries whether agents work again, if that is why."""


AT_CAPACITY = Hold(Outcome.busy, "the agent is at capacity")
