"""What a mutation is, how it is registered, and how it is looked for.

A mutation replaces something while its context is open: a public name of the product if one will do, or what the
simulation has in place of bd and the services. What it puts there must not itself replace something of a class or a
module for the time of a call: tasks are switched in it, and the last to end would leave that.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from bdauto.bd.change import Change
from bdauto.domain.reaping import Action
from tests.simulation.history import run
from tests.simulation.tracker import SimWriter


class Replacement(NamedTuple):
    """An attribute, and what a mutation puts in its place."""

    owner: Any
    name: str
    new: Any


class Found(NamedTuple):
    """The history that found a mutation, how many it took, and the kind of promise that was broken."""

    history: int
    histories: int
    kind: str


Mutation = Callable[[], Sequence[Replacement]]
MUTATIONS: dict[str, Mutation] = {}
RARE = {
    "a bead is charged for a job that bdauto did not start": 20_000_226,
    "a claim that is written back does not name the host of its job": 30_000_400,
    "a loop takes a bead that somebody took over for a sign of life": 1_840_000_900,
    "a lost note is written again at each sweep": 30_003_991,
    "the place of a half-open breaker is taken without a compare": 30_001_794,
}
"""Defects that thousands of histories may miss, each with a history that finds it."""


def mutation(name: str) -> Callable[[Mutation], Mutation]:
    """Register a mutation under a name."""

    def register(make: Mutation) -> Mutation:
        MUTATIONS[name] = make
        return make

    return register


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """Put a defect into bdauto while the context is open."""
    with contextlib.ExitStack() as stack:
        for replacement in MUTATIONS[name]():
            stack.enter_context(patch.object(*replacement))
        yield


def look_for(name: str, first: int, most: int) -> Found | None:
    """Run histories with a defect until one of them finds it, `most` at most.

    A history that breaks a promise without the defect, too, finds nothing. A crash finds nothing, because then it is
    the mutation that no longer fits what it replaces: it raises RuntimeError.
    """
    for number in range(most):
        with mutated(name):
            violation = run(first + number).violation
        if violation and violation[0] == "crash":
            raise RuntimeError(f"{name}: history {first + number}: {violation[1]}")
        if violation and run(first + number).violation is None:
            return Found(first + number, number + 1, violation[0])
    return None


SETTLING = tuple(f"reap: {action.name}" for action in Action)
"""What `changes` calls the acts by which a sweep settles beads. Dispatchers release beads, too."""


def changes(alter: Callable[[Change], Change], *acts: str) -> list[Replacement]:
    """Alter the changes of these acts on their way to bd."""
    original = SimWriter.apply

    def apply(self: SimWriter, changes: Sequence[Change]) -> list[bool]:
        return original(self, [alter(change) if _act(change) in acts else change for change in changes])

    return [Replacement(SimWriter, "apply", apply)]


def without(*fields: str) -> Callable[[Change], Change]:
    """Return what takes these conditions from a change, or all of them."""
    conditions = fields or ("if_status", "if_assignee", "if_attempt", "if_mark", "if_updated_at")
    return lambda change: msgspec.structs.replace(change, **dict.fromkeys(conditions))


def _act(change: Change) -> str:
    settles = change.act in Action.__members__ and not change.retracts_claim_note
    return f"reap: {change.act}" if settles else change.act
