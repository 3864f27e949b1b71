"""The meanings of the answer to a request to start a bead. The table is in docs/decisions.md."""

import msgspec


class Started(msgspec.Struct, frozen=True):
    """The agent service took the bead."""

    job: str


class AtCapacity(msgspec.Struct, frozen=True):
    """Every slot of the agent service is taken, or a job of this very bead still runs."""

    words: str = "the agent is at capacity"


class Refused(msgspec.Struct, frozen=True):
    """The service does not want this bead as it is. If it refuses them all, `hint` says what to check.

    `unseen` says that it may only not have seen yet that there is such a bead.
    """

    error: str
    service: str = "the service"
    hint: str = ""
    unseen: bool = False


class NotStarted(msgspec.Struct, frozen=True):
    """The service failed before it took the bead, or could not be reached."""

    error: str


class Misconfigured(msgspec.Struct, frozen=True):
    """The service would answer this to any bead. `hint` says what to check."""

    error: str
    service: str = "the service"
    hint: str = ""


class Unknown(msgspec.Struct, frozen=True):
    """The request was sent and the answer is missing or not understood: a job may have started."""

    error: str


Answer = Started | AtCapacity | Refused | NotStarted | Misconfigured | Unknown
