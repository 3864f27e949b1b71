"""What all tests share: the sandbox, the real bd, and a guard that keeps unit tests from leaving their process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdauto.sandbox import Sandbox

pytest_plugins = ["realbd"]
OUTSIDE = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "socket.connect")
UNIT = Path(__file__).parent / "unit"
_guarding = False


def _refuse(event: str, _details: tuple[object, ...]) -> None:
    if _guarding and event in OUTSIDE:
        pytest.fail(f"a unit test must not start processes or open connections: {event}")


sys.addaudithook(_refuse)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--require-bd`."""
    parser.addoption("--require-bd", action="store_true", help="fail, not skip, the tests that need bd or dolt")


def pytest_configure(config: pytest.Config) -> None:
    """`sh` forks, and some tests run a server's threads beside it: the children only exec."""
    config.addinivalue_line("filterwarnings", "ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def _guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """In tests/unit, any start of a process and any connection fails; pytest-subprocess starts none."""
    global _guarding
    _guarding = UNIT in request.path.parents
    yield
    _guarding = False


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that plays a shared server, for one test."""
    with Sandbox() as made:
        yield made
