"""What BeadBoard's answer to a dispatch means; the table is in docs/reliability.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """The agent service took the bead."""

    job: str


@dataclass(frozen=True)
class AtCapacity:
    """Every slot of the agent service is taken."""


@dataclass(frozen=True)
class Refused:
    """BeadBoard does not want this bead as it is."""

    error: str


@dataclass(frozen=True)
class NotStarted:
    """The service failed before it took the bead, or could not be reached."""

    error: str


@dataclass(frozen=True)
class Misconfigured:
    """The service would answer this to any bead."""

    error: str


@dataclass(frozen=True)
class Unknown:
    """The request was sent and the answer is missing or not understood: a job may have started."""

    error: str


Answer = Started | AtCapacity | Refused | NotStarted | Misconfigured | Unknown
