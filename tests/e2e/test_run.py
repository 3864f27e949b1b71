"""`bdauto run` as a process: signals, services that die and return, a bd that hangs, metrics, eight loops at once."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from bdauto.telemetry.families import FAMILIES
from tests.support.cli import (
    BDAUTO,
    FLAVOURS,
    REAL_FLAVOURS,
    Gate,
    claimed,
    create_many,
    finish,
    make_world,
    metadata,
    posted,
    run,
    running,
    start,
    status,
)
from tests.support.patience import duration, seconds
from tests.support.receiver import Receiver
from tests.support.running_loop import FAST, Loop, Start, request, samples, value


@pytest.mark.parametrize("flavour", [*FLAVOURS, *REAL_FLAVOURS])
def test_dispatches_and_reaps_until_it_is_told_to_stop(request: pytest.FixtureRequest, flavour: str) -> None:
    with make_world(request, flavour) as sandbox:
        sandbox.board.capacity = 2
        beads = [sandbox.create(), sandbox.create()]
        loop = Loop(sandbox, "--reap-every", "200ms", agent=True)
        try:
            loop.wait("dispatched", 2)
            loop.wait("kept", 2)
            for job in list(sandbox.board.jobs.values()):
                sandbox.board.progress(job.id, "half of it is done")
                sandbox.board.end(job.id, "failed")
            loop.wait("blocked", 2)
            done = loop.stop()
        finally:
            loop.process.kill()
        assert done.code == 0, done
        assert loop.events[-1]["event"] == "end"
        assert loop.events[-1]["signal"] == "SIGTERM"
        assert sorted(posted(sandbox)) == sorted(beads)
        assert {status(sandbox, bead) for bead in beads} == {"blocked"}
        assert "error" not in {event["level"] for event in loop.events}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_finishes_the_bead_in_hand(
    sandbox: Sandbox, loop: Start, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.board.capacity = 2
    bead, other = sandbox.create(priority=0), sandbox.create()
    gate = Gate(sandbox.board, "dispatch", monkeypatch)
    running_loop = loop("--max", "5")
    gate.wait()
    running_loop.process.send_signal(number)
    assert running_loop.process.poll() is None
    gate.go.set()
    done = running_loop.finish()
    assert done.code == 0, done
    assert posted(sandbox) == [bead]
    assert metadata(sandbox, bead)["job"] == sandbox.posts[0].job
    assert sandbox.notes(bead)[-1] == f"dispatched: job={sandbox.posts[0].job}"
    assert status(sandbox, other) == "open"


def test_a_signal_waits_for_no_bd_that_only_reads(sandbox: Sandbox, loop: Start) -> None:
    sandbox.create()
    held = sandbox.pause("ready")
    running_loop = loop()
    held.wait()
    began = time.monotonic()
    done = running_loop.stop()
    assert done.code == 0, done
    assert time.monotonic() - began < 10
    assert sandbox.posts == []
    assert running([call.pid for call in sandbox.calls]) == []


def test_a_second_signal_stops_at_once_and_leaves_no_process(
    sandbox: Sandbox, loop: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bead = sandbox.create()
    held = sandbox.pause("sql", match="dispatched: job=")
    running_loop = loop()
    held.wait()
    running_loop.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        running_loop.process.wait(0.3)
    done = running_loop.stop()
    assert done.code == 130, done
    assert status(sandbox, bead) == "in_progress"
    assert "job" not in metadata(sandbox, bead), "what the reaper heals"
    assert running([call.pid for call in sandbox.calls]) == []


def test_beadboard_dies_and_returns(sandbox: Sandbox, loop: Start) -> None:
    bead = sandbox.create()
    sandbox.board.reply_next("status", FakeReply(drop="early"), times=4)
    running_loop = loop("--listen", "0")
    running_loop.wait("outage", target="beadboard")
    running_loop.wait("recovered", target="beadboard")
    running_loop.wait("dispatched", bead=bead)
    assert running_loop.stop().code == 0
    assert running_loop.named("outage", "recovered") == ["outage", "recovered"]
    written = [call.verb for call in sandbox.calls if call.verb == "sql"]
    assert written == ["sql"] * 3, "nothing but the dispatch: claim, record, note"


def test_an_agent_service_that_dies_behind_beadboard_is_tried_with_one_bead_at_a_time(
    sandbox: Sandbox, loop: Start
) -> None:
    beads = [sandbox.create() for _ in range(8)]
    sandbox.board.agent_down()
    running_loop = loop("--max", "8")
    running_loop.wait("unavailable", 5)
    sandbox.board.agent_up()
    running_loop.wait("recovered", target="dispatch")
    assert running_loop.stop().code == 0
    assert running_loop.named("outage", "recovered") == ["outage", "recovered"]
    cycles = [event for event in running_loop.events if event["event"] == "cycle" and "unavailable" in event]
    assert [cycle["unavailable"] for cycle in cycles[:3]] == [3, 1, 1]
    assert Counter(status(sandbox, bead) for bead in beads) == {"open": 7, "in_progress": 1}


def test_a_bd_that_hangs_for_a_while(sandbox: Sandbox, loop: Start) -> None:
    bead = sandbox.create()
    sandbox.fault("ready", "hang", times=2)
    running_loop = loop("--bd-timeout", duration(2), "--listen", "0")
    running_loop.wait("outage", target="bd")
    assert running_loop.get("/healthz")[0] == 200, "it waits, and is not dead"
    code, page = running_loop.get("/readyz")
    assert (code, page.splitlines()[0]) == (503, "bd did not answer, or was not asked yet")
    running_loop.wait("recovered", target="bd")
    running_loop.wait("dispatched", bead=bead)
    running_loop.wait("cycle", command="dispatch", dispatched=1)
    code, page = running_loop.get("/readyz")
    assert (code, page.splitlines()[0]) == (200, "ready")
    assert running_loop.stop().code == 0
    assert running_loop.named("outage", "recovered") == ["outage", "recovered"]
    assert running([call.pid for call in sandbox.calls]) == []


@pytest.mark.parametrize("kind", ["half", "replace", "exit"])
def test_a_bd_that_talks_nonsense_for_a_while(sandbox: Sandbox, loop: Start, kind: Any) -> None:
    bead = sandbox.create()
    sandbox.fault("ready", kind, times=3, text='{"data": 7}' if kind == "replace" else "boom", code=kind == "exit")
    running_loop = loop()
    running_loop.wait("recovered", target="bd")
    running_loop.wait("dispatched", bead=bead)
    assert running_loop.stop().code == 0
    assert running_loop.named("outage", "recovered") == ["outage", "recovered"]


def test_a_harmful_bd_is_refused_until_it_is_replaced(sandbox: Sandbox, loop: Start) -> None:
    bead = sandbox.create()
    sandbox.set_version("1.0.4")
    running_loop = loop()
    assert "1.0.4" in running_loop.wait("outage", target="bd")["error"]
    assert status(sandbox, bead) == "open"
    sandbox.set_version("1.0.5")
    running_loop.wait("dispatched", bead=bead)
    assert running_loop.stop().code == 0


def test_pause_and_resume_reach_a_running_loop(sandbox: Sandbox, loop: Start) -> None:
    assert run(sandbox, "pause", "moving house", BEADS_ACTOR="ann").code == 0
    bead = sandbox.create()
    running_loop = loop("--listen", "0")
    assert running_loop.wait("paused")["detail"] == "paused by ann: moving house"
    assert value(running_loop.get("/metrics")[1], "bdauto_paused") == 1
    assert status(sandbox, bead) == "open"
    assert run(sandbox, "resume").code == 0
    running_loop.wait("resumed")
    running_loop.wait("dispatched", bead=bead)
    assert running_loop.stop().code == 0


def test_the_pages(sandbox: Sandbox, loop: Start) -> None:
    sandbox.create("secret title", acceptance="secret acceptance")
    sandbox.create(acceptance="")
    running_loop = loop("--listen", "127.0.0.1:0", agent=True)
    running_loop.wait("cycle", command="dispatch", dispatched=1)
    running_loop.wait("cycle", command="reap")
    assert running_loop.get("/healthz") == (200, "alive\n")
    code, page = running_loop.get("/readyz")
    assert (code, [line.split(",")[0] for line in page.splitlines()]) == (
        200,
        ["ready", "agent up", "bd up", "beadboard up"],
    )
    code, page = running_loop.get("/metrics")
    assert code == 200
    found = samples(page)
    parts = re.compile("_(bucket|sum|count)$")
    assert {name if name in FAMILIES else parts.sub("", name) for name, _ in found} == set(FAMILIES)
    assert value(page, "bdauto_dispatches_total", outcome="dispatched") == 1
    assert {dict(labels)["target"] for name, labels in found if name == "bdauto_up"} == {"bd", "beadboard", "agent"}
    assert "secret" not in page
    assert "sb-" not in page
    assert running_loop.get("/nothing")[0] == 404
    assert running_loop.get("/metrics/x")[0] == 404
    address = running_loop.wait("listening")["address"]
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW"):
        assert request(f"http://{address}/metrics", method)[0] == 405
    assert running_loop.stop().code == 0


def test_an_address_that_is_taken_is_a_configuration_error(sandbox: Sandbox) -> None:
    taken = sandbox.url.removeprefix("http://")
    done = run(sandbox, "run", "--listen", taken)
    assert done.code == 2
    assert taken in done.complaint


def test_the_tracker_sees_no_secret_and_the_log_neither(sandbox: Sandbox, loop: Start) -> None:
    sandbox.create()
    running_loop = loop(
        "--dispatch-every", "100ms",
        BDAUTO_NOTIFY_URL="json://user:hunter2@127.0.0.1:9/hunter3 json://hunter4@127.0.0.1:9",
        BDAUTO_PUSHGATEWAY="http://user:hunter5@127.0.0.1:9",
    )  # fmt: skip
    running_loop.wait("dispatched")
    running_loop.wait("metrics-failed", target="pushgateway")
    done = running_loop.stop()
    assert done.code == 0
    assert "hunter" not in done.err + done.out


ON_A_TERMINAL = """
import os, pty, sys
seen = b""
def read(fd):
    global seen
    data = os.read(fd, 65536)
    seen += data
    if b" started" in seen and b"next look" in seen:
        os.write(fd, b"\\x03")  # Ctrl-C
        seen = b""
    return data
os.environ.update(TERM="xterm", COLUMNS="100", LINES="24", NO_COLOR="1")
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))
"""
"""A program that runs a command on a terminal, and presses Ctrl-C once a bead is started."""


def test_on_a_terminal_each_event_is_a_line_with_its_title(sandbox: Sandbox) -> None:
    bead = sandbox.create("Fix [red]login[/red]")
    inside = (sys.executable, "-c", ON_A_TERMINAL)
    done = finish(start(sandbox, "run", "--watch", "off", inside=inside, LANG="C.UTF-8"), sandbox)
    assert done.code == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.out)
    assert f"● {bead} Fix [red]login[/red] started" in shown
    assert "1 running" in shown
    assert "next look in" in shown
    assert f"stopped; these jobs go on:\r\n  {bead}  Fix [red]login[/red]\r\n  bdauto logs -f {bead}" in shown
    assert f"bdauto cancel {bead}" in shown
    assert "dispatch_every" not in shown, "settings are for -v"


def test_a_terminal_that_nobody_reads_holds_up_neither_work_nor_end(sandbox: Sandbox) -> None:
    """As after a lost connection, or Ctrl-S."""
    master, slave = pty.openpty()
    words = [str(BDAUTO), "run", "--dispatch-every", "100ms", "--watch", "off"]
    process = subprocess.Popen(
        words,
        env=sandbox.env(TERM="xterm"),
        cwd=sandbox.folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    try:
        seen = b""
        while b"0 running" not in seen:
            seen += os.read(master, 4096)
        terminal = os.open(os.ttyname(slave), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with suppress(BlockingIOError):
            while True:
                os.write(terminal, b"x")
        os.close(terminal)
        bead, until = sandbox.create(), time.monotonic() + seconds(30)
        while bead not in posted(sandbox):
            assert time.monotonic() < until, "nothing is dispatched"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(seconds(20)) == 0
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def test_notifications_and_pushed_metrics_arrive(sandbox: Sandbox, loop: Start) -> None:
    stalled = claimed(sandbox, 60, job="gone")
    sandbox.board.reply_next("status", FakeReply(drop="early"), times=2)
    with Receiver() as receiver:
        running_loop = loop(
            BDAUTO_NOTIFY_URL=f"json://{receiver.address}/hook",
            BDAUTO_PUSHGATEWAY=f"http://ann:pw@{receiver.address}",
            BDAUTO_PUSHGATEWAY_INSTANCE="one",
        )
        running_loop.wait("recovered", target="beadboard")
        running_loop.wait("blocked", bead=stalled)
        receiver.wait(lambda: any(b"quarantined" in body for _, path, _, body in receiver.received if path == "/hook"))
        assert running_loop.stop().code == 0
    titles = [json.loads(body)["title"] for _, path, _, body in receiver.received if path == "/hook"]
    assert sorted(titles) == sorted(
        [
            "bdauto: outage of beadboard",
            "bdauto: end of the outage of beadboard",
            f"bdauto: {stalled} (a bead) is quarantined",
        ]
    )
    pushes = {path: (method, login, body) for method, path, login, body in receiver.received if path != "/hook"}
    group = "/metrics/job/bdauto/command/{}/instance/one"
    assert set(pushes) == {group.format("dispatch"), group.format("reap")}
    method, login, body = pushes[group.format("reap")]
    assert (method, login) == ("POST", "Basic YW5uOnB3")
    assert value(body.decode(), "bdauto_reaps_total", outcome="blocked") == 1
    assert running_loop.named("notify-failed", "metrics-failed") == []


@pytest.mark.parametrize(
    ("loops", "beads", "flavour"),
    [(4, 12, "server"), pytest.param(8, 24, "real-server", marks=[pytest.mark.real_bd, pytest.mark.timeout(900)])],
)
def test_many_loops_on_one_queue(request: pytest.FixtureRequest, loops: int, beads: int, flavour: str) -> None:
    with make_world(request, flavour) as sandbox:
        sandbox.board.capacity, sandbox.board.signs = beads, False
        ids = create_many(sandbox, beads)
        began = time.monotonic()
        running_loops = [Loop(sandbox, "--max", "5", agent=True) for _ in range(loops)]
        try:
            while len(sandbox.posts) < beads and time.monotonic() - began < 800:
                threading.Event().wait(0.2)
            took = time.monotonic() - began
            done = [each.stop(timeout=seconds(60)) for each in running_loops]
        finally:
            for each in running_loops:
                each.process.kill()
        assert Counter(posted(sandbox)) == dict.fromkeys(ids, 1), "each once"
        assert {post.status for post in sandbox.posts} == {200}
        assert [each.code for each in done] == [0] * loops
        errors = [e for each in running_loops for e in each.events if e["level"] in ("error", "warning")]
        assert errors == []
        listed = json.loads(sandbox.run("list", "--assignee", "agent", "--all", "--limit", "0", "--json").out)
        assert Counter(bead["status"] for bead in listed) == {"in_progress": beads}
        assert all(bead["metadata"]["bdauto.job"] for bead in listed)
        print(f"{loops} loops, {beads} beads, {took:.1f} s")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process 1")
def test_as_process_1_it_collects_orphans(sandbox: Sandbox) -> None:
    """In a PID namespace of its own, as in a container, a bd leaves a grandchild behind."""
    wrapper = sandbox.folder / "bd-with-orphan"
    wrapper.write_text(
        f'#!/bin/sh\nsetsid sh -c "sleep 0.1" >/dev/null 2>&1 </dev/null &\nexec {sandbox.bd_path} "$@"\n'
    )
    wrapper.chmod(0o755)
    inner = f"exec {BDAUTO} run {' '.join(FAST)}"
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", inner],
        env=sandbox.env(BDAUTO_BD=str(wrapper)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + seconds(30)
        while len(sandbox.calls) < 8 and time.monotonic() < deadline and process.poll() is None:
            threading.Event().wait(0.1)
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        children = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children]
        assert len([state for state in states if state == "Z"]) <= 3, "those of this moment"
        os.kill(int(child), signal.SIGTERM)
        assert finish(process, sandbox).code == 0
    finally:
        process.kill()


@pytest.mark.parametrize("flavour", ["server", "real-server"])
def test_a_cleaner_of_tmp_makes_no_outage(
    request: pytest.FixtureRequest, flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The private copy of --metadata is made anew, whole or in part removed, and between a POST and its record."""
    with make_world(request, flavour) as sandbox:
        source = shutil.copy(sandbox.db / "metadata.json", tmp_path / "metadata.json")
        (tmp_path / "tmp").mkdir()
        environment: dict[str, Any] = {"BDAUTO_DB": "", "BDAUTO_METADATA": str(source), "TMPDIR": str(tmp_path / "tmp")}
        sandbox.board.capacity = 9
        first = sandbox.create()
        gate = Gate(sandbox.board, "dispatch", monkeypatch)
        loop = Loop(sandbox, agent=True, **environment)
        try:
            gate.wait()
            for gone in (tmp_path / "tmp").iterdir():
                shutil.rmtree(gone)
            gate.let_go()
            loop.wait("dispatched")
            for number, pattern in enumerate(("*", "*/.beads", "*/.beads/metadata.json"), 2):
                loop.process.send_signal(signal.SIGSTOP)
                time.sleep(1)  # the bd that runs at this moment comes to its end
                for gone in (tmp_path / "tmp").glob(pattern):
                    gone.unlink() if gone.is_file() else shutil.rmtree(gone)
                loop.process.send_signal(signal.SIGCONT)
                sandbox.create()
                loop.wait("dispatched", number)
        finally:
            loop.stop()
        assert metadata(sandbox, first)["job"] == sandbox.posts[0].job
        assert [e for e in loop.events if e["event"] in ("outage", "failed")] == []
        left = {path.name for path in (tmp_path / "tmp").iterdir()}
        assert left <= {"beads-circuit"}, "only bd's own may be left there"
