"""How many more beads the services would take."""

import msgspec


class Capacity(msgspec.Struct, frozen=True):
    """How many beads the services would take. If they do not count, 1 stands for "at least one".

    `active`, `queued` and `total` are the agent service's own numbers, where it counts.
    """

    free: int
    counted: bool = False
    active: int = 0
    queued: int = 0
    total: int = 0
