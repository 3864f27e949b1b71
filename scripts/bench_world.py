"""What a benchmark needs around it: trackers full of beads on a Dolt server of their own, and a BeadBoard.

Everything lives in one temporary folder and on loopback, and is gone when its context ends. Without a real bd the
trackers are the sandbox's.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from bench_beads import SeedBead, seed_sql

from bdauto.sandbox import Sandbox
from bdauto.sandbox.store import Store

START_SECONDS = 30.0
"""How long a Dolt server may take to accept connections."""


class Tracker(Protocol):
    """A tracker with its seeded beads."""

    @property
    def bd(self) -> Path:
        """The bd program."""

    @property
    def db(self) -> Path:
        """Its .beads folder."""

    def reset(self) -> None:
        """Put every bead back to what was seeded."""

    def count(self, status: str) -> int:
        """Return how many of the agent's beads have a status."""


class World(Protocol):
    """Where trackers come from."""

    @property
    def real(self) -> bool:
        """Whether this is the real bd."""

    @property
    def home(self) -> Path:
        """A folder for temporary files."""

    def tracker(self, beads: list[SeedBead]) -> Tracker:
        """Return a new tracker with these beads."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return a bare environment, nothing of the user's: PATH, HOME, LANG, TMPDIR, and `more`."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", **more}


@dataclass(frozen=True)
class RealTracker:
    """A database on the Dolt server, and the workspace that names it."""

    world: "RealWorld"
    name: str
    bd: Path
    db: Path

    def reset(self) -> None:
        """Throw away what was not committed since the seeding."""
        self.world.sql(self.name, "CALL DOLT_RESET('--hard', 'seeded');")

    def count(self, status: str) -> int:
        """Count by SQL, past bd."""
        query = f"SELECT COUNT(*) AS n FROM issues WHERE assignee='agent' AND status='{status}';"
        return int(json.loads(self.world.sql(self.name, query, "-r", "json"))["rows"][0]["n"])


@dataclass(frozen=True)
class RealWorld:
    """The real bd, and a Dolt server at `port`."""

    bd: Path
    dolt: Path
    home: Path
    port: int
    real: bool = True

    def tracker(self, beads: list[SeedBead]) -> RealTracker:
        """Make a workspace with a database of its own, and seed it past bd, which would take minutes."""
        name = f"bench{len(list(self.home.iterdir()))}"
        folder = self.home / name
        folder.mkdir()
        server = ["--server", "--server-host", "127.0.0.1", "--server-port", str(self.port), "--external"]
        quiet = ["--non-interactive", "-q", "--skip-hooks", "--skip-agents"]
        _run([str(self.bd), "init", *server, "--prefix", name, *quiet], folder, environment(self.home))
        commit = "CALL DOLT_COMMIT('-A', '-m', 'seeded');\nCALL DOLT_TAG('seeded');\n"
        self.sql(name, seed_sql(name, beads) + commit)
        return RealTracker(self, name, self.bd, folder / ".beads")

    def sql(self, database: str, statements: str, *options: str) -> str:
        """Run statements with dolt's own client and return what it prints."""
        login = ["--host", "127.0.0.1", "--port", str(self.port), "--user", "root", "--password", "", "--no-tls"]
        argv = [str(self.dolt), *login, "--use-db", database, "sql", *options]
        return _run(argv, self.home, environment(self.home), statements)


def _run(argv: list[str], folder: Path, env: dict[str, str], text: str = "") -> str:
    done = subprocess.run(argv, cwd=folder, env=env, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)[:300]}\nfailed (exit {done.returncode}): {done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def real_world(bd: Path, dolt: Path) -> Iterator[RealWorld]:
    """Start a Dolt server in a temporary folder, yield the world on it, and take both away at the end."""
    home = Path(tempfile.mkdtemp(prefix="bdauto-bench-"))
    port = free_port()
    (home / "server").mkdir()
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [str(dolt), "sql-server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", "."],
            cwd=home / "server",
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(port, server, home / "server.log")
        yield RealWorld(bd, dolt, home, port)
    finally:
        _stop(server)
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    """Return a loopback port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"dolt sql-server did not start: {log.read_text(errors='replace')[-2000:]}")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)


class SandboxTracker:
    """A tracker of the sandbox."""

    def __init__(self, sandbox: Sandbox, beads: list[SeedBead]) -> None:
        """Seed the sandbox's database."""
        self.bd, self.db = sandbox.bd, sandbox.db
        self._file = next(path for path in self.db.iterdir() if path.read_bytes()[:6] == b"SQLite")
        self._sql = "DELETE FROM issues;\n" + seed_sql("sb", beads)
        self.reset()

    def reset(self) -> None:
        """Seed it again."""
        store = Store(str(self._file))
        store.db.executescript(self._sql)
        store.close()

    def count(self, status: str) -> int:
        """Count by SQL, past bd."""
        store = Store(str(self._file))
        rows = store.rows("SELECT id FROM issues WHERE assignee = 'agent' AND status = ?", status)
        store.close()
        return len(rows)


@dataclass(frozen=True)
class SandboxWorld:
    """Trackers of the sandbox."""

    home: Path
    stack: contextlib.ExitStack
    real: bool = False

    def tracker(self, beads: list[SeedBead]) -> SandboxTracker:
        """Make a sandbox of its own for the beads."""
        return SandboxTracker(self.stack.enter_context(Sandbox()), beads)


@contextlib.contextmanager
def sandbox_world() -> Iterator[SandboxWorld]:
    """Yield a world without a real bd."""
    with tempfile.TemporaryDirectory(prefix="bdauto-bench-") as home, contextlib.ExitStack() as stack:
        yield SandboxWorld(Path(home), stack)


class BeadBoard:
    """A BeadBoard that is never busy and starts a job at once, so that what is measured is its callers."""

    def __init__(self) -> None:
        """Serve on a free loopback port."""
        self.requests: list[str] = []
        """What was asked: `GET /path`, or `POST` and the bead."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.requests.append))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def posted(self) -> list[str]:
        """The beads whose dispatch was asked for, in order."""
        return [request.removeprefix("POST ") for request in self.requests if request.startswith("POST ")]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(asked: Callable[[str], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked(f"GET {self.path}")
            self._answer({"busy": False})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked(f"POST {body['taskId']}")
            self._answer({"job_id": "0b37aa7fd784"})

        def _answer(self, value: dict[str, object]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
