"""Worlds to run the installed `bdauto` in.

`world` has each topology of the sandbox, and of the real bd when it is there and offers it; `either` has the first.
`sandbox` (tests/conftest.py) plays a server, for what the topology cannot change.
"""

from collections.abc import Iterator

import pytest

from bdauto.sandbox import Sandbox
from tests.support.cli import FLAVOURS, REAL_FLAVOURS, make_world
from tests.support.real_bd import Template


@pytest.fixture(scope="session")
def real_templates() -> dict[str, Template]:
    """What the real workspaces are made from, by flavour: one of each is enough."""
    return {}


@pytest.fixture(params=[*FLAVOURS, *REAL_FLAVOURS])
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A world with one slot for jobs, in each flavour."""
    with make_world(request, request.param) as sandbox:
        yield sandbox


@pytest.fixture(params=FLAVOURS)
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The sandbox in each topology."""
    with make_world(request, request.param) as sandbox:
        yield sandbox
