"""Worlds to run the installed `bdauto` in.

`world` has four flavours: the sandbox as a shared server and as an embedded database, and the real bd in both when it
is there; `either` has the first two. `sandbox` (tests/conftest.py) is the first, for what the flavour cannot change.
"""

from collections.abc import Iterator

import pytest
from realbd import Program
from running import FLAVOURS, REAL_FLAVOURS, real_world

from bdauto.sandbox import Sandbox


@pytest.fixture(scope="session")
def real_workspaces() -> dict[str, Program]:
    """The real workspaces that are in use, by flavour: one of each is enough."""
    return {}


@pytest.fixture(params=[*FLAVOURS, *REAL_FLAVOURS])
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A world with one slot for jobs, in each flavour."""
    flavour: str = request.param
    made = real_world(request, flavour) if flavour.startswith("real-") else Sandbox(embedded=flavour == "embedded")
    with made as sandbox:
        yield sandbox


@pytest.fixture(params=FLAVOURS)
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The sandbox in both flavours."""
    with Sandbox(embedded=request.param == "embedded") as sandbox:
        yield sandbox
