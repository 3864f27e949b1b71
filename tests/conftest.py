"""What all tests share: the sandbox, the real bd, and a guard that keeps unit tests from leaving their process."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from bdauto.sandbox import Sandbox
from tests.support import patience

pytest_plugins = [
    "tests.support.real_bd",
    "tests.support.real_kubernetes",
    "tests.support.running_loop",
    "tests.support.scene",
    "tests.support.worlds",
    "tests.support.selection",
]
OUTSIDE = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "socket.connect")
INSIDE = tuple(Path(__file__).parent / name for name in ("unit", "simulation"))
_guarding = False

hypothesis.settings.register_profile("bdauto", deadline=None)  # time is for benchmarks, not for tests
hypothesis.settings.load_profile("bdauto")


def _refuse(event: str, _details: tuple[object, ...]) -> None:
    if _guarding and event in OUTSIDE:
        pytest.fail(f"a unit test must not start processes or open connections: {event}")


sys.addaudithook(_refuse)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--require-bd`, `--require-k8s` and `--bd-dir`."""
    parser.addoption("--require-bd", action="store_true", help="fail, not skip, the tests that need bd or dolt")
    parser.addoption("--require-k8s", action="store_true", help="fail, not skip, the tests that need an API server")
    parser.addoption("--bd-dir", metavar="DIR", help="a folder with VERSION/bd, for the test of upgrades")


def pytest_configure(config: pytest.Config) -> None:
    """Set up hypothesis, the time limit of a test, and SIGHUP for the programs that tests start.

    No test reads the configuration file of whoever runs it.
    `sh` forks while some tests run a server's threads: its children only exec.
    """
    os.environ["BDAUTO_CONFIG"] = os.devnull
    hypothesis.settings.register_profile("bdauto", deadline=None)  # time is measured in benchmarks, not here
    hypothesis.settings.load_profile("bdauto")
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: a handler is not inherited, SIG_IGN is
        signal.signal(signal.SIGHUP, lambda *_: None)
    if config.option.timeout is None:
        config.option.timeout = patience.seconds(patience.TEST_TIMEOUT)
    config.addinivalue_line("filterwarnings", "ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def _guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """In these folders any start of a process and any connection fails; pytest-subprocess starts none."""
    global _guarding
    _guarding = any(folder in request.path.parents for folder in INSIDE)
    yield
    _guarding = False


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that plays a shared server, for one test."""
    with Sandbox() as made:
        yield made
