"""The real bd for tests: workspaces in temporary folders, and a Dolt server of their own for the shared flavour.

Fixtures: `real_server` and `real_embedded` make a new workspace at each call. Without bd (and dolt) on PATH they skip,
or fail with --require-bd.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sh

from bdauto.sandbox.call import Answer

Workspaces = Callable[[], "Program"]


def need(request: pytest.FixtureRequest, name: str) -> Path:
    """The path of a program. Skips the test when it is not on PATH, or fails it with --require-bd."""
    found = shutil.which(name)
    if found is None:
        why = f"{name} is not on PATH"
        if request.config.getoption("--require-bd"):
            pytest.fail(why)
        pytest.skip(why)
    return Path(found)


def environment(home: Path, **more: str) -> dict[str, str]:
    """A bare environment for a real program: nothing of the user's."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **more}


class Program:
    """A program that answers as bd does, and a workspace for it. Runs real processes."""

    def __init__(self, bd: Path, folder: Path, home: Path) -> None:
        self.bd, self.folder, self.home = bd, folder, home
        self.db = folder / ".beads"
        self._command: Any = sh.Command(str(bd))

    def run(self, *args: str, actor: str = "tester", cwd: Path | None = None, **env: str) -> Answer:
        """Do one call of bd in the workspace, or in `cwd`."""
        done = self._command(
            *args,
            _cwd=str(cwd or self.folder),
            _env=environment(self.home, BEADS_ACTOR=actor, **env),
            _ok_code=range(256),
            _tty_out=False,
            _return_cmd=True,
        )
        return Answer(done.exit_code, done.stdout.decode(), done.stderr.decode())

    def age(self, bead: str, minutes: float) -> None:
        """Make a bead's last change `minutes` old, by importing it again (real bd only)."""
        shown = json.loads(self.run("show", bead, "--json").out)[0]
        moment = datetime.now(UTC) - timedelta(minutes=minutes)
        file = self.folder / "aged.jsonl"
        file.write_text(json.dumps(shown | {"updated_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}))
        answer = self.run("import", str(file), "--json")
        assert answer.code == 0, answer


def free_port() -> int:
    """A loopback port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home folder for real programs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def dolt_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[int]:
    """A Dolt SQL server in a temporary folder, killed at the end; its port."""
    dolt: Any = sh.Command(str(need(request, "dolt")))
    port, lines, ready = free_port(), list[str](), threading.Event()

    def listen(line: str) -> None:
        lines.append(line)
        if "Server ready" in line:
            ready.set()

    server = dolt(
        "sql-server",
        *("--host", "127.0.0.1", "--port", str(port), "--data-dir", "."),
        _cwd=str(tmp_path_factory.mktemp("dolt")),
        _env=environment(home),
        _bg=True,
        _bg_exc=False,
        _tty_out=False,
        _out=listen,
        _err=listen,
    )
    try:
        assert ready.wait(30), f"dolt did not start: {''.join(lines)}"
        yield port
    finally:
        server.kill()
        with contextlib.suppress(sh.SignalException_SIGKILL):
            server.wait()


def workspaces(bd: Path, home: Path, root: Path, flags: tuple[str, ...]) -> Workspaces:
    """A function that makes new workspaces of the real bd."""

    def make() -> Program:
        name = f"w{len(list(root.iterdir()))}x{root.name.translate(str.maketrans('', '', '-_'))}"
        folder = root / name
        folder.mkdir()
        program = Program(bd, folder, home)
        quiet = ("--non-interactive", "-q", "--skip-hooks", "--skip-agents")
        answer = program.run("init", *flags, "--prefix", name, *quiet)
        assert answer.code == 0, answer
        return program

    return make


@pytest.fixture(scope="session")
def real_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, home: Path) -> Workspaces:
    """Makes workspaces of the real bd on a Dolt server."""
    bd = need(request, "bd")
    port: int = request.getfixturevalue("dolt_server")
    flags = ("--server", "--server-host", "127.0.0.1", "--server-port", str(port), "--external")
    return workspaces(bd, home, tmp_path_factory.mktemp("srv"), flags)


@pytest.fixture(scope="session")
def real_embedded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, home: Path) -> Workspaces:
    """Makes workspaces of the real bd with an embedded database."""
    return workspaces(need(request, "bd"), home, tmp_path_factory.mktemp("emb"), ())
