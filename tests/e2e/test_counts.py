"""How many processes of bd and how many requests a cycle costs: the numbers that start-up time and load come from.

A change of a number here is a change of what bdauto costs: make it on purpose.
"""

import time
from collections.abc import Callable

import pytest

from bdauto.bd.prefetch import MAX_AGE
from bdauto.sandbox import Sandbox
from tests.support.cli import FLAVOURS, claimed, dispatch, make_world, reap, started


def _idle(_: Sandbox) -> None:
    """Nobody's beads."""


def _busy(sandbox: Sandbox) -> None:
    sandbox.create()
    sandbox.board.capacity = 0


def _beads(sandbox: Sandbox) -> None:
    sandbox.board.capacity = 10
    for priority in range(4):
        sandbox.create(priority=priority)


def _many(sandbox: Sandbox) -> None:
    sandbox.board.capacity = 10
    for n in range(30):
        sandbox.create(priority=n % 3)


def _stalled(sandbox: Sandbox) -> None:
    for n in range(10):
        claimed(sandbox, 45, job=f"j{n}")


def _healthy(sandbox: Sandbox) -> None:
    for _ in range(3):
        started(sandbox, 10)


Case = tuple[str, Callable[[Sandbox], None], tuple[str, ...], bool, int, int, int]
CASES: list[Case] = [
    # what, how it is made, arguments, agent service, bd on a server, bd embedded, requests
    ("an idle dispatch", _idle, ("dispatch",), False, 1, 1, 0),
    ("a busy dispatch", _busy, ("dispatch",), False, 3, 3, 1),
    ("one bead", _beads, ("dispatch",), False, 6, 12, 2),
    ("one bead, with the agent service", _beads, ("dispatch",), True, 6, 12, 3),
    ("three beads", _beads, ("dispatch", "--max", "3"), False, 14, 30, 4),
    ("one bead of thirty", _many, ("dispatch",), False, 6, 12, 2),
    ("an idle sweep", _idle, ("reap",), False, 2, 2, 0),
    ("three healthy jobs", _healthy, ("reap",), True, 3, 3, 3),
    ("ten stalled beads", _stalled, ("reap",), False, 5, 36, 0),
    ("ten stalled beads, dry", _stalled, ("reap", "-n"), False, 3, 3, 0),
]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0]))
def test_what_a_cycle_costs(request: pytest.FixtureRequest, case: Case, flavour: str) -> None:
    """The table above."""
    _, make, (command, *options), agent, server, embedded, requests = case
    with make_world(request, flavour) as sandbox:
        make(sandbox)
        sandbox.board.requests.clear()
        began = time.monotonic()
        done = (dispatch if command == "dispatch" else reap)(sandbox, *options, agent=agent)
        assert done.code == 0, done
        first = (
            2 if flavour == "proxied" and "-n" in options else 0
        )  # the first reads learn that there is no --readonly
        verbs = [call.verb for call in sandbox.calls]
        wanted = embedded if flavour == "embedded" else server + first
        if time.monotonic() - began > MAX_AGE.total_seconds() / 2:  # on so slow a machine what is too old is read again
            assert len(verbs) >= wanted, verbs
        else:
            assert len(verbs) == wanted, verbs
        assert len(sandbox.board.requests) == requests, sandbox.board.requests
