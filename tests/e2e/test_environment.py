"""What the environment does to bdauto: rubbish in variables, closed and full streams, wrong folders, a held lock.

None of it decides what happens to a bead halfway: bdauto refuses before it writes anything, or it does the work.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import (
    BDAUTO,
    claimed,
    dispatch,
    finish,
    metadata,
    posted,
    reap,
    run,
    start,
    status,
    tell,
    written,
)
from tests.support.patience import seconds

IGNORED: dict[str, dict[str, Any]] = {
    "a proxy of another kind": {"ALL_PROXY": "socks5://127.0.0.1:9"},
    "a proxy": {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
    "no proxy, broken": {"NO_PROXY": "[::", "ALL_PROXY": "x"},
    "certificates, where no TLS is spoken": {"SSL_CERT_FILE": "/nonexistent", "SSLKEYLOGFILE": "/nonexistent/x"},
}
TLS = {"BEADBOARD_URL": "https://127.0.0.1:9"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no certificates": (TLS | {"SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE"),
    "bad certificates": (TLS | {"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
    "no key log": (TLS | {"SSLKEYLOGFILE": "/nonexistent/x"}, "SSLKEYLOGFILE"),
    "half a name": ({"BEADBOARD_URL": "http://xn--"}, "xn--"),
    "a long name": ({"BEADBOARD_URL": "http://" + "a" * 64}, "is not a URL"),
    "an empty name": ({"BEADBOARD_URL": "http://a..b"}, "is not a URL"),
    "not a name": ({"BEADBOARD_URL": "http://\N{SNOWMAN}.net"}, "is not a URL"),
    "not an address": ({"BEADBOARD_URL": "http://999.1.1.1"}, "is not a URL"),
    "half an address": ({"BEADBOARD_URL": "http://[::"}, "is not a URL"),
    "a number without end": ({"BDAUTO_MAX": "9" * 30}, "--max"),
    "a Pushgateway's port": ({"BDAUTO_PUSHGATEWAY": "http://ann:s3cr3t@gateway.test:99999"}, "--pushgateway"),
    "no Pushgateway's port": ({"BDAUTO_PUSHGATEWAY": "gateway.test:port"}, "--pushgateway"),
    "a password for the agent": ({"BDAUTO_AGENT_URL": "http://ann:s3cr3t@agent.test"}, "--agent-url"),
}


@pytest.mark.parametrize("env", IGNORED.values(), ids=IGNORED.keys())
def test_what_the_environment_says_of_proxies_is_not_heeded(sandbox: Sandbox, env: dict[str, Any]) -> None:
    """A proxy would get the bearer token."""
    bead = sandbox.create()
    assert dispatch(sandbox, agent=True, **env).outcomes == {bead: "dispatched"}
    assert "is running" in run(sandbox, "reap", agent=True, **env).out


def test_python_without_assertions_heeds_options_all_the_same(sandbox: Sandbox) -> None:
    """PYTHONOPTIMIZE, which images set, must not make it work on whatever database bd finds."""
    bead = sandbox.create()
    for command in (("dispatch", "--json", "--dry-run"), ("dispatch", "--json")):
        assert run(sandbox, *command, PYTHONOPTIMIZE="1").outcomes == {bead: "dispatched"}


def test_a_folder_for_jobs_that_cannot_be_looked_into_has_no_jobs(sandbox: Sandbox) -> None:
    bead = claimed(sandbox, 45, job="j1")
    assert reap(sandbox, XDG_STATE_HOME="/" + "x" * 300).outcomes == {bead: "blocked"}


def test_a_folder_that_is_gone_is_an_outage(sandbox: Sandbox) -> None:
    """As when it is unmounted: bd would make an empty database in its place, and `run` would look idle for ever."""
    process = start(sandbox, "run", "--dispatch-every", "200ms", "--watch", "off")
    patience = threading.Timer(30, process.kill)
    patience.start()
    assert process.stderr
    assert b"event=start" in process.stderr.readline()
    sandbox.db.rename(sandbox.db.with_name("gone"))
    while b"event=outage target=bd" not in (line := process.stderr.readline()):
        assert line
    patience.cancel()
    process.send_signal(signal.SIGTERM)
    assert finish(process, sandbox).code == 0
    assert not sandbox.db.exists()


@pytest.mark.parametrize(("env", "words"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("command", ["dispatch", "run"])
def test_what_can_never_work_is_refused_before_anything_is_written(
    sandbox: Sandbox, command: str, env: dict[str, Any], words: str
) -> None:
    """One line, exit 2."""
    bead = sandbox.create()
    done = run(sandbox, command, **env)
    assert done.code == 2, done
    assert words in done.complaint
    assert "s3cr3t" not in done.err
    assert (written(sandbox), status(sandbox, bead)) == ([], "open")


STREAMS = (
    "2>&-", ">&-", "<&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| true", "2>&1 | true"
)  # fmt: skip


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("options", ["", "--json -v --log-format json"], ids=["text", "JSON"])
def test_output_never_decides_what_happens_to_beads(sandbox: Sandbox, streams: str, options: str) -> None:
    """The bead is dispatched, its job recorded, the exit status that of the work."""
    bead = sandbox.create()
    words = f"set -o pipefail; {shlex.quote(str(BDAUTO))} dispatch {options} {streams}"
    code = subprocess.run(
        ["bash", "-c", words],
        env=sandbox.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds(60),
        check=False,
    ).returncode
    assert (code, posted(sandbox), status(sandbox, bead)) == (0, [bead], "in_progress")
    assert metadata(sandbox, bead)["job"] == sandbox.board.job_of(bead).id


def test_a_loop_whose_reader_is_gone_goes_on(sandbox: Sandbox) -> None:
    """And a watch, which has nothing else to do, ends."""
    bead = sandbox.create()
    gate, gone = os.pipe()
    os.close(gate)
    process = subprocess.Popen(
        [BDAUTO, "run", "--dispatch-every", "100ms", "--json"], env=sandbox.env(), stdout=gone, stderr=gone
    )
    os.close(gone)
    while not posted(sandbox):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(seconds(30)) == 0
    assert metadata(sandbox, bead)["job"] == sandbox.board.job_of(bead).id
    watch = f"{shlex.quote(str(BDAUTO))} status --watch 100ms | head -n 1"
    done = subprocess.run(
        ["bash", "-c", watch], env=sandbox.env(), capture_output=True, timeout=seconds(60), check=True
    )
    assert done.stderr == b""


@pytest.mark.parametrize(("streams", "words"), [(">/dev/full", "No space left on device"), ("| true", "")])
def test_a_full_disk_is_said_and_a_reader_that_went_away_is_not(sandbox: Sandbox, streams: str, words: str) -> None:
    """On stderr, in one line."""
    shell = ["bash", "-c", f"{shlex.quote(str(BDAUTO))} status {streams}"]
    done = subprocess.run(shell, env=sandbox.env(), stderr=subprocess.PIPE, text=True, timeout=seconds(60), check=True)
    assert (len(done.stderr.splitlines()), words in done.stderr) == (1 if words else 0, True)


COMMANDS = ("dispatch", "reap", "run", "status", "explain x-1", "pause", "resume")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_no_database_is_refused_before_bd_is_asked(sandbox: Sandbox, command: str) -> None:
    """bd would silently make an empty database in it."""
    sandbox.create()
    for how in ("--db", "BDAUTO_DB"):
        checkout = sandbox.db.parent
        before = sorted(path.name for path in checkout.iterdir())
        if how == "--db":
            done = run(sandbox, *command.split(), "--db", str(checkout))
        else:
            done = run(sandbox, *command.split(), BDAUTO_DB=str(checkout))
        assert done.code == 2, done
        assert f"--db {sandbox.db}" in done.complaint
        assert (sandbox.calls, sorted(path.name for path in checkout.iterdir())) == ([], before)
    done = run(sandbox, *command.split(), "--db", str(sandbox.folder / "nowhere"))
    assert (done.code, sandbox.calls) == (2, [])


def test_a_beads_folder_that_has_lost_its_metadata_is_refused(world: Sandbox) -> None:
    """Without --db, too. bd would warn, and show an empty database: nothing to do, for ever."""
    bead = world.create()
    (world.db / "metadata.json").rename(world.folder / "kept.json")
    (world.db / "config.yaml").touch()  # bd init writes one
    env: dict[str, Any] = {"BDAUTO_DB": "", "BEADS_DIR": str(world.db)}
    for words in (["dispatch"], ["reap"], ["status"], ["run"], ["doctor"]):
        done = run(world, *words, **env)
        assert (done.code, "no metadata.json in it" in done.complaint) == (2, True), (words, done)
    (world.folder / "kept.json").rename(world.db / "metadata.json")
    assert dispatch(world, **env).outcomes == {bead: "dispatched"}


def test_nohup_is_heeded(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whoever ignores SIGHUP for bdauto wants it to go on."""
    bead = sandbox.create()
    pause = sandbox.pause("ready")
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(sandbox, "dispatch", "--json")
    finally:
        signal.signal(signal.SIGHUP, previous)
    pause.wait()
    process.send_signal(signal.SIGHUP)
    pause.release()
    assert finish(process, sandbox).outcomes == {bead: "dispatched"}


def test_a_person_s_bare_close_closes_what_that_person_touched(world: Sandbox) -> None:
    """`bd close` without an id takes the one in `last-touched`, which neither reading nor dispatching moves.

    On a proxied server bd leaves the file alone.
    """
    mine, blocked, other = world.create(assignee="ann"), world.create(), world.create()
    tell(world, "dep", "add", blocked, mine)
    claimed(world, 60)
    tell(world, "update", mine, "--priority", "3")
    touched = world.db / "last-touched"
    before = touched.read_text() if touched.exists() else ""
    assert before.strip() == mine or world.topology == "proxied"
    world.board.reply_next("dispatch", FakeReply(502, "{}"))  # an agent that starts would touch the bead
    reads = f"explain {blocked}", f"explain {other}", "status", "doctor", "dispatch --dry-run"
    for words in (*reads, "dispatch", "reap"):
        done = run(world, *words.split())
        assert (touched.read_text() if touched.exists() else "") == before, done
    assert "dispatch failed HTTP 502" in world.notes(other)[-1]


@pytest.mark.parametrize(("options", "lines"), [((), 0), (("-v",), 1), (("--log-format", "keyvalue"), 1)])
def test_on_a_terminal_the_result_stands_once(sandbox: Sandbox, options: tuple[str, ...], lines: int) -> None:
    """The log says it, too, only where it is asked for."""
    bead = sandbox.create()
    here, terminal = os.openpty()
    process = subprocess.Popen(
        [BDAUTO, "dispatch", *options], env=sandbox.env(), cwd=sandbox.folder, stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    out, _ = process.communicate(timeout=seconds(60))
    log = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while piece := os.read(here, 65536):
            log += piece
    os.close(here)
    assert (process.returncode, out.decode().count(bead)) == (0, 1)
    assert sum("dispatched" in line and bead in line for line in log.decode().splitlines()) == lines
    assert bool(log) is bool(lines)
