"""The real bd for tests: workspaces in temporary folders, and a Dolt server of their own for the shared flavour.

Fixtures: `real_server`, `real_embedded` and `real_proxied` make a new workspace at each call. Without bd (and dolt) on
PATH they skip, or fail with --require-bd. A `Template` gives each test a workspace as new, without its own `bd init`.
"""

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sh

from bdauto.bd.versions import HARMFUL_BD, parse_version
from bdauto.sandbox.real_bd import RealBd, on_server
from tests.support.dolt import dolt_server

Workspaces = Callable[[], RealBd]
PROXIED = ("--proxied-server", "--proxied-server-idle-timeout", "20s")
"""Options of `bd init`."""


def need(request: pytest.FixtureRequest, name: str) -> Path:
    """The path of a program. Skips the test when it is not on PATH, or fails it with --require-bd."""
    found = shutil.which(name)
    if found is None:
        why = f"{name} is not on PATH"
        if request.config.getoption("--require-bd"):
            pytest.fail(why)
        pytest.skip(why)
    return Path(found)


def harmful(bd_path: Path) -> bool:
    """Whether bdauto refuses to write with this bd on a server."""
    said = subprocess.run([bd_path, "version", "--json"], capture_output=True, check=True).stdout
    return parse_version(json.loads(said)["version"]) in HARMFUL_BD


def has_leases(program: RealBd) -> bool:
    """Whether this bd has leases, as the builds of 1.3 do, which call themselves 1.2.2."""
    return program.run("heartbeat", "--help").code == 0


def need_harmless(bd_path: Path) -> None:
    """Skip the test if bdauto refuses to write with this bd on a server."""
    if harmful(bd_path):
        pytest.skip("bdauto refuses this bd on a server")


class Template:
    """A workspace as `bd init` made it, which takes seconds, for one test after the other."""

    def __init__(self, program: RealBd) -> None:
        self._program = program
        self._embedded = json.loads((program.db / "metadata.json").read_bytes())["dolt_mode"] == "embedded"
        if not self._embedded:
            self._sql("CALL DOLT_COMMIT('--skip-empty', '-A', '-m', 'new')")
            self._sql("CALL DOLT_TAG('new')")

    def _sql(self, statement: str) -> None:
        answer = self._program.run("sql", statement)
        assert answer.code == 0, answer

    def workspace(self, request: pytest.FixtureRequest) -> RealBd:
        """A workspace without beads: a copy of an embedded one, or the server's database taken back to its start."""
        if self._embedded:
            copy: Path = request.getfixturevalue("tmp_path") / self._program.folder.name
            shutil.copytree(self._program.folder, copy)
            request.addfinalizer(lambda: shutil.rmtree(copy, ignore_errors=True))
            return RealBd(self._program.bd_path, copy, self._program.home)
        self._sql("CALL DOLT_RESET('--hard', 'new')")
        for export in ("issues.jsonl", "export-state.json"):
            (self._program.db / export).unlink(missing_ok=True)
        return self._program


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home folder for real programs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def dolt_port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Dolt SQL server, which ends with the tests."""
    with dolt_server(need(request, "dolt"), tmp_path_factory.mktemp("dolt")) as port:
        yield port


def workspaces(request: pytest.FixtureRequest, root: Path, *options: str) -> Workspaces:
    """A function that makes a new workspace of the bd on PATH at each call; `options` go to `bd init`."""
    bd_path, numbers = need(request, "bd"), itertools.count(1)
    name = root.name.replace("-", "").replace("_", "")
    return lambda: RealBd.create(bd_path, root, f"w{next(numbers)}x{name}", *options)


@pytest.fixture(scope="session")
def real_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspaces:
    """Makes workspaces of the real bd on a Dolt server."""
    need(request, "bd")
    port: int = request.getfixturevalue("dolt_port")
    return workspaces(request, tmp_path_factory.mktemp("srv"), *on_server(port))


@pytest.fixture(scope="session")
def real_embedded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspaces:
    """Makes workspaces of the real bd with an embedded database."""
    return workspaces(request, tmp_path_factory.mktemp("emb"))


@pytest.fixture(scope="session")
def real_proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspaces:
    """Makes workspaces of the real bd, each with a Dolt server behind a proxy. Skips where bd has none.

    Proxy and server end by themselves once nobody has used them for a while.
    """
    bd_path = need(request, "bd")
    need(request, "dolt")
    if "--proxied-server-idle-timeout" not in str(sh.Command(str(bd_path))("init", "--help")):
        pytest.skip("this bd has no proxied server, or an early one")
    return workspaces(request, tmp_path_factory.mktemp("prx"), *PROXIED)
