"""`bdauto status`, the installed command: on the sandbox and the real bd, in a pipe and on a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Callable

import pytest

from bdauto.sandbox import Sandbox
from tests.support.cli import BDAUTO, claimed, dispatch, finish, run, start, started, tell, written
from tests.support.patience import seconds


def test_what_is_shown_is_what_there_is(world: Sandbox) -> None:
    world.board.capacity = 3
    first, second = world.create("First", priority=0), world.create("Second", priority=1)
    bare = world.create("Bare", priority=2, acceptance="")
    waiting = world.create("Waiting", priority=3)
    tell(world, "dep", "add", waiting, second)
    theirs = world.create("Theirs", assignee="bob")
    assert dispatch(world).outcomes == {first: "dispatched"}
    aside = world.create("Aside")
    tell(world, "update", aside, "-s", "blocked", "--set-metadata", "bdauto.quarantined=HTTP 400: no")

    shown = run(world, "status", "--json", agent=True).json
    assert (shown["schema_version"], shown["command"]) == (1, "status")
    assert shown["alerts"] == [f"quarantined: {aside} (Aside): HTTP 400: no"]
    assert [(one["id"], one["place"], one["reason"]) for one in shown["queue"]] == [
        (second, 1, None),
        (bare, None, "no acceptance criteria"),
        (waiting, None, f"blocked by {second}"),
    ]
    job = world.board.job_of(first).id
    assert [(one["id"], one["job"], one["job_state"], one["state"]) for one in shown["in_progress"]] == [
        (first, job, "running", "kept")
    ]
    assert [(one["id"], one["reason"]) for one in shown["quarantined"]] == [(aside, "HTTP 400: no")]
    assert shown["agent"] == {"up": True, "free": 2, "active": 1, "queued": 0, "capacity": 3, "error": None}

    done = run(world, "status", agent=True)
    assert done.code == 0
    assert done.err == ""
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert re.search(rf"^{second}  1  .*  next  +Second$", done.out, re.MULTILINE)
    assert "\x1b" not in done.out
    assert theirs not in done.out


def test_it_writes_nothing(sandbox: Sandbox) -> None:
    sandbox.create()
    claimed(sandbox, 300)
    before = sandbox.run("list", "--json", "--all").out
    run(sandbox, "status", "--check", agent=True)
    assert written(sandbox) == []
    assert sandbox.run("list", "--json", "--all").out == before
    assert all("--readonly" in call.argv for call in sandbox.calls)


def test_paused(sandbox: Sandbox) -> None:
    tell(sandbox, "kv", "set", "bdauto.paused", '{"reason": "deploy", "by": "ann"}')
    assert "dispatching    paused by ann: deploy\n" in run(sandbox, "status").out
    assert run(sandbox, "status", "--json").json["paused"]["by"] == "ann"


class TestCheck:
    """`--check` is silent and 0, or 5 and says what."""

    def test_well(self, sandbox: Sandbox) -> None:
        sandbox.create()
        started(sandbox, 300)
        done = run(sandbox, "status", "--check", agent=True)
        assert (done.code, done.complaint) == (0, "")

    def test_starved(self, sandbox: Sandbox) -> None:
        bead = sandbox.create()
        sandbox.age(bead, 20.1)
        done = run(sandbox, "status", "--check")
        assert done.code == 5
        assert done.complaint == (
            f"bdauto: a person is needed: starved: {bead} waited 20m with free capacity: is a dispatcher running?"
        )

    def test_stalled_and_orphaned(self, sandbox: Sandbox) -> None:
        orphan, (dead, _) = claimed(sandbox, 15), started(sandbox, 61, "failed")
        done = run(sandbox, "status", "--check", "--json", agent=True)
        assert done.code == 5
        assert f"stalled beyond two thresholds: {dead}" in done.complaint
        assert f"orphaned claims: {orphan}" in done.complaint
        assert len(done.json["alerts"]) == 2
        assert run(sandbox, "status", "--check", "--threshold", "1h", "--grace", "1h", agent=True).code == 0

    def test_service_down(self, sandbox: Sandbox) -> None:
        sandbox.board.agent_down()
        done = run(sandbox, "status", "--check", agent=True)
        assert done.code == 5
        assert "service down: the agent service http" in done.complaint
        assert "agent service  down: " in done.out

    def test_bd_fails(self, sandbox: Sandbox) -> None:
        sandbox.fault("list", "exit", text="boom\n")
        assert run(sandbox, "status", "--check").code == 3

    def test_a_bead_that_cannot_be_read(self, sandbox: Sandbox) -> None:
        good, bad = sandbox.create(), sandbox.create()
        sandbox.edit(bad, updated_at="9999-99-99 00:00:00")
        done = run(sandbox, "status", "--check")
        assert done.code == 5
        assert bad in done.complaint
        assert good in done.out


def test_no_service_is_configured(sandbox: Sandbox) -> None:
    sandbox.create()
    done = run(sandbox, "status", BEADBOARD_URL="")
    assert done.code == 0
    assert done.out.count("not configured") == 1
    assert sandbox.board.requests == []


def test_usage(sandbox: Sandbox) -> None:
    assert run(sandbox, "status", "--watch", "--check").code == 2
    assert run(sandbox, "status", "--watch", "soon").code == 2
    assert run(sandbox, "status", "--limit", "-1").code == 2


@pytest.mark.parametrize("options", [["--watch", "1ms"], ["--watch", "1ms", "--json"]])
def test_a_watch_in_a_pipe_prints_one_block_after_the_other(sandbox: Sandbox, options: list[str]) -> None:
    sandbox.create("Watched")
    watching = start(sandbox, "status", *options)
    assert watching.stdout
    for _ in range(2):
        for line in watching.stdout:
            if b"Watched" in line:
                break
    watching.send_signal(signal.SIGTERM)
    assert finish(watching, sandbox).code == 130


def test_a_watch_outlives_a_failing_bd(sandbox: Sandbox) -> None:
    sandbox.create("Watched")
    sandbox.fault("list", "exit", text="boom\n")
    watching = start(sandbox, "status", "--watch", "1ms")
    assert watching.stdout
    seen = b""
    while b"Watched" not in seen:
        seen += watching.stdout.readline()
    watching.send_signal(signal.SIGTERM)
    assert finish(watching, sandbox).code == 130
    assert b"boom" in seen


def test_a_watch_on_a_terminal_redraws_in_place(sandbox: Sandbox) -> None:
    sandbox.create("Watched")
    ours, theirs = pty.openpty()
    environment = sandbox.env(TERM="xterm", COLUMNS="80", LINES="24")
    watching = subprocess.Popen(
        [BDAUTO, "status", "--watch", "1ms"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = _read(ours, lambda text: text.count(b"Watched") >= 3)
    watching.send_signal(signal.SIGTERM)
    seen += _read(ours, lambda text: False)
    os.close(ours)
    assert watching.wait(seconds(30)) == 130
    assert seen.count(b"\x1b[1A") >= 2  # up, over what was drawn before
    assert b"\x1b[?25h" in seen  # the cursor is back
    assert b"\x1b[32m" in seen


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colour(sandbox: Sandbox, variables: dict[str, str]) -> None:
    sandbox.create("Plain")
    ours, theirs = pty.openpty()
    environment = sandbox.env() | {"TERM": "xterm", "COLUMNS": "80", **variables}
    shown = subprocess.Popen([BDAUTO, "status"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = _read(ours, lambda text: False)
    os.close(ours)
    assert shown.wait(seconds(30)) == 0
    assert b"Plain" in seen
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", seen)


def test_a_terminal_that_cannot_show_every_letter(sandbox: Sandbox) -> None:
    sandbox.create("日本語")
    done = run(sandbox, "status", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.code == 0
    assert "???" in done.out


def _read(terminal: int, enough: Callable[[bytes], bool]) -> bytes:
    """Read what is drawn until it is enough, or the other end is closed."""
    seen = b""
    while not enough(seen) and select.select([terminal], [], [], 30)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # closed
            break
    return seen
