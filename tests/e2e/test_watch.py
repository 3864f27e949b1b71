"""`bdauto run` watches the tracker: it reacts to a change long before its interval, and does without where it must."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bdauto.sandbox import Sandbox
from bdauto.sandbox.real_bd import RealBd
from tests.support.cli import REAL_FLAVOURS, posted, real_world, tell
from tests.support.patience import duration, seconds
from tests.support.real_bd import Workspaces, need, need_harmless
from tests.support.running_loop import Loop, Start
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.timeout(300)
SLOW = ("--watch", "auto", "--dispatch-every", "10m", "--trip-after", "0", "--verbose")
"""What comes within the seconds of a test comes by watching."""


@pytest.fixture(params=["embedded", *REAL_FLAVOURS])
def watched(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A tracker that can be watched."""
    flavour = request.param
    with real_world(request, flavour) if flavour.startswith("real-") else Sandbox(topology="embedded") as sandbox:
        yield sandbox


def idle(loop: Loop, cycles: int = 1) -> None:
    """Wait until the loop watches, and has found nothing to do."""
    loop.wait("watching")
    loop.wait("cycle", cycles, command="dispatch", outcome="idle")
    loop.wait("cycle", command="reap", outcome="idle")


def ended(loop: Loop) -> None:
    """Stop the loop, which must end in order."""
    done = loop.stop()
    assert done.code == 0, done


def test_an_assigned_bead_is_dispatched_at_once(watched: Sandbox, begin: Start) -> None:
    loop = begin(watched, *SLOW)
    idle(loop)
    began = time.monotonic()
    bead = watched.create(assignee="")
    tell(watched, "update", bead, "-a", "agent")
    loop.wait("dispatched", bead=bead)
    print(f"{time.monotonic() - began:.1f} s from the first call of bd on")
    ended(loop)
    assert posted(watched) == [bead]
    assert loop.named("watch-failed", "watch-lost") == []


@pytest.fixture(params=[pytest.param("real-server-of-its-own", marks=pytest.mark.real_bd)])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    """A tracker on a server that bd starts by itself."""
    need(request, "dolt")
    bd_path = need(request, "bd")
    need_harmless(bd_path)
    program = RealBd.create(bd_path, tmp_path, "own", "--server")
    try:
        with Sandbox(real=program) as sandbox:
            yield sandbox
    finally:
        program.run("dolt", "stop")


def test_the_files_of_a_server_that_bd_started_tell_of_a_change(started: Sandbox, begin: Start) -> None:
    loop = begin(started, *SLOW)
    idle(loop)
    assert loop.wait("watching")["detail"].endswith(", and its files here")
    for _ in range(3):
        bead = started.create(assignee="")
        tell(started, "update", bead, "-a", "agent")
        loop.wait("dispatched", bead=bead)
        tell(started, "close", bead, actor="agent")
        started.board.end(started.posts[-1].job, "completed")
    ended(loop)
    assert loop.named("watch-failed", "watch-lost") == []


def test_a_server_that_bd_starts_anew_is_followed(started: Sandbox, begin: Start) -> None:
    """It was killed, and listens on another port from then on."""
    loop = begin(started, *SLOW)
    idle(loop)
    os.kill(int((started.db / "dolt-server.pid").read_text()), signal.SIGKILL)
    bead = started.create(assignee="")
    tell(started, "update", bead, "-a", "agent")
    loop.wait("dispatched", bead=bead)
    loop.wait("watching", 2)
    ended(loop)
    assert posted(started) == [bead]


def test_a_bead_that_is_closed_makes_room_and_frees_those_it_blocks(watched: Sandbox, begin: Start) -> None:
    first = watched.create(priority=0)
    second = watched.create(priority=1)
    tell(watched, "dep", "add", second, first)
    loop = begin(watched, *SLOW, agent=True)
    loop.wait("watching")
    loop.wait("dispatched", bead=first)
    loop.wait("cycle", command="dispatch", outcome="busy")
    tell(watched, "close", first, actor="agent")
    watched.board.end(watched.posts[0].job, "completed")
    loop.wait("dispatched", bead=second)
    ended(loop)


def test_a_pause_that_ends_is_noticed(watched: Sandbox, begin: Start) -> None:
    tell(watched, "kv", "set", "bdauto.paused", '{"reason": "a move", "by": "ann"}')
    bead = watched.create()
    loop = begin(watched, *SLOW)
    loop.wait("paused")
    loop.wait("watching")
    tell(watched, "kv", "clear", "bdauto.paused")
    loop.wait("dispatched", bead=bead)
    ended(loop)


def test_what_time_makes_ready_needs_no_change(watched: Sandbox, begin: Start) -> None:
    bead = watched.create()
    moment = datetime.now(UTC) + timedelta(seconds=10)
    tell(watched, "update", bead, "--set-metadata", f"bdauto.retry_at={moment:%Y-%m-%dT%H:%M:%SZ}")
    loop = begin(watched, *SLOW)
    loop.wait("dispatched", bead=bead)
    ended(loop)


def test_several_loops_wake_and_one_of_them_claims(watched: Sandbox, begin: Start) -> None:
    loops = [begin(watched, *SLOW, agent=True) for _ in range(3)]
    for loop in loops:
        idle(loop)
    watched.board.capacity = 9
    beads = [watched.create() for _ in range(4)]
    deadline = time.monotonic() + seconds(30)
    while len(watched.posts) < len(beads) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    for loop in loops:
        ended(loop)
    assert sorted(posted(watched)) == sorted(beads), "each once"


# A server that cannot be watched


def name_port(sandbox: Sandbox, port: int) -> None:
    """Let metadata.json name the port of the SQL server."""
    file = sandbox.db / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dolt_server_port": port}))


def polls(sandbox: Sandbox, begin: Start) -> None:
    """Expect a loop that cannot watch, says so once, and dispatches all the same."""
    loop = begin(sandbox, *SLOW, "--dispatch-every", "200ms", "--listen", "0")
    loop.wait("watch-failed")
    bead = sandbox.create()
    loop.wait("dispatched", bead=bead)
    assert loop.get("/healthz")[0] == 200
    ended(loop)
    assert loop.named("watch-failed", "watching") == ["watch-failed"]


def test_a_server_that_bd_does_not_name(sandbox: Sandbox, begin: Start) -> None:
    polls(sandbox, begin)


def test_a_server_that_refuses(sandbox: Sandbox, begin: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    name_port(sandbox, port)
    polls(sandbox, begin)


def test_a_server_that_says_nothing(sandbox: Sandbox, begin: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name_port(sandbox, silent.getsockname()[1])
        polls(sandbox, begin)


def test_a_server_that_is_none(sandbox: Sandbox, begin: Start) -> None:
    name_port(sandbox, int(sandbox.url.rpartition(":")[2]))
    polls(sandbox, begin)


# A real server behind a proxy


@pytest.fixture(params=REAL_FLAVOURS[:1])
def on_server(request: pytest.FixtureRequest, real_server: Workspaces) -> Workspaces:
    """Makes workspaces on a Dolt server; the test has `real-server` in its name, like all that need one."""
    need_harmless(need(request, "bd"))
    return real_server


@pytest.fixture
def proxied(on_server: Workspaces, dolt_port: int) -> Iterator[tuple[Sandbox, TcpProxy]]:
    """A workspace on a Dolt server, and the proxy through which bdauto and its bd reach the server."""
    with TcpProxy(dolt_port) as proxy, Sandbox(real=on_server()) as sandbox:
        yield sandbox, proxy


def through(begin: Start, sandbox: Sandbox, proxy: TcpProxy, *options: str, password: str = "") -> Loop:
    """Start a loop that reaches the server through the proxy."""
    more = ("--bd-timeout", duration(5), "--dispatch-every", "1s", "--listen", "0")
    return begin(sandbox, *SLOW, *more, *options, BEADS_DOLT_SERVER_PORT=str(proxy.port), BEADS_DOLT_PASSWORD=password)


def test_a_connection_that_is_cut_is_made_anew(proxied: tuple[Sandbox, TcpProxy], begin: Start) -> None:
    sandbox, proxy = proxied
    loop = through(begin, sandbox, proxy, "--dispatch-every", "10m")
    idle(loop)
    for _ in range(3):
        proxy.cut()
        bead = sandbox.create()
        loop.wait("dispatched", bead=bead)
        sandbox.board.end(sandbox.posts[-1].job, "completed")
        tell(sandbox, "close", bead, actor="agent")
    ended(loop)
    assert loop.named("watch-failed") == []


@pytest.mark.parametrize("how", ["refuse", "hold"])
def test_a_server_that_is_gone_for_a_while(proxied: tuple[Sandbox, TcpProxy], how: str, begin: Start) -> None:
    """As while it restarts, or while its host is overloaded."""
    sandbox, proxy = proxied
    loop = through(begin, sandbox, proxy)
    idle(loop)
    getattr(proxy, how)()
    loop.wait("watch-lost")
    loop.wait("outage", target="bd")
    assert loop.get("/healthz")[0] == 200
    assert loop.get("/readyz")[0] == 503
    if how == "refuse":
        proxy.accept()
    else:
        proxy.let_go()
    loop.wait("recovered", target="bd")
    bead = sandbox.create()
    loop.wait("dispatched", bead=bead)
    ended(loop)


def test_a_wrong_password_lets_neither_in_and_shows_nowhere(proxied: tuple[Sandbox, TcpProxy], begin: Start) -> None:
    sandbox, proxy = proxied
    loop = through(begin, sandbox, proxy, password="hunter2")
    assert "Access denied" in loop.wait("watch-failed")["error"]
    loop.wait("outage", target="bd")
    done = loop.stop()
    assert done.code == 0
    assert "hunter2" not in done.err + done.out


def test_a_database_that_is_renamed_is_followed(on_server: Workspaces, begin: Start) -> None:
    """Its new name stands in metadata.json."""
    old, new = on_server(), on_server()
    with Sandbox(real=old) as sandbox:
        loop = begin(sandbox, *SLOW, "--dispatch-every", "1s")
        idle(loop)
        before = database(old)
        (old.db / "metadata.json").write_bytes((new.db / "metadata.json").read_bytes())
        assert new.run("sql", f"DROP DATABASE {before}").code == 0
        loop.wait("watching", 2)
        bead = sandbox.create()
        loop.wait("dispatched", bead=bead)
        ended(loop)


def database(program: RealBd) -> str:
    """The name of a workspace's database."""
    return str(json.loads((program.db / "metadata.json").read_bytes())["dolt_database"])
