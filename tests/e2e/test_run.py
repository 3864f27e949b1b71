"""`bdauto run` as a process: signals, services that die and return, a bd that hangs, metrics, eight loops at once."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import (
    BDAUTO,
    REAL_FLAVOURS,
    Done,
    Gate,
    claimed,
    finish,
    metadata,
    posted,
    real_world,
    run,
    running,
    start,
    status,
)

from bdauto.sandbox import Reply, Sandbox
from bdauto.sandbox.call import Answer

pytest_plugins = ["worlds"]
FAST = ("--dispatch-every", "100ms", "--reap-every", "1h", "--log-format", "json")


class Loop:
    """A running `bdauto run`, whose log can be waited on."""

    def __init__(self, sandbox: Sandbox, *args: str, agent: bool = False, **env: str) -> None:
        self.sandbox = sandbox
        self.process = start(sandbox, "run", *FAST, *args, agent=agent, **env)
        self.events: list[dict[str, Any]] = []
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for raw in self.process.stderr:
            line = raw.decode()
            with self._changed:
                self._lines.append(line)
                if line.startswith("{"):
                    self.events.append(json.loads(line))
                self._changed.notify_all()

    def wait(self, name: str, count: int = 1, timeout: float = 30, **fields: Any) -> dict[str, Any]:
        """Wait for the so-manieth event with this name and these fields."""

        def found() -> list[dict[str, Any]]:
            return [e for e in self.events if e["event"] == name and fields.items() <= e.items()]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, timeout), (name, fields, self._lines)
            return found()[count - 1]

    def named(self, *names: str) -> list[str]:
        return [event["event"] for event in self.events if event["event"] in names]

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> Done:
        self.process.send_signal(number)
        return self.finish(timeout)

    def finish(self, timeout: float = 30) -> Done:
        try:
            self.process.wait(timeout)
        finally:
            self.process.kill()
            self._reader.join(timeout)
        assert self.process.stdout
        done = Done(self.process.returncode, self.process.stdout.read().decode(), "".join(self._lines))
        assert "Traceback" not in done.err, done.err
        assert self.sandbox.token not in done.out + done.err
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        return done

    def get(self, path: str) -> tuple[int, str]:
        address = self.wait("listening")["address"]
        return request(f"http://{address}{path}")


def request(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Parse a metrics page with prometheus_client's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float:
    return samples(page)[name, tuple(sorted(labels.items()))]


@pytest.fixture
def loop(sandbox: Sandbox) -> Iterator[Callable[..., Loop]]:
    """Starts loops in the sandbox; those that a test leaves are killed."""
    loops: list[Loop] = []

    def made(*args: str, **more: Any) -> Loop:
        loops.append(Loop(sandbox, *args, **more))
        return loops[-1]

    yield made
    for each in loops:
        if each.process.poll() is None:
            each.process.kill()
            each.finish()


Start = Callable[..., Loop]


@pytest.mark.parametrize("flavour", ["server", "embedded", *REAL_FLAVOURS])
def test_dispatches_and_reaps_until_it_is_told_to_stop(request: pytest.FixtureRequest, flavour: str) -> None:
    made = real_world(request, flavour) if flavour.startswith("real-") else Sandbox(embedded=flavour == "embedded")
    with made as sandbox:
        sandbox.board.capacity = 2
        beads = [sandbox.create(), sandbox.create()]
        loop = Loop(sandbox, "--reap-every", "200ms", agent=True)
        try:
            loop.wait("dispatched", 2)
            loop.wait("kept", 2)
            for job in list(sandbox.board.jobs.values()):
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    sandbox.board.reply_next("status", Reply(drop="early"), times=4)
    running_loop = loop("--listen", "0")
    running_loop.wait("outage", target="beadboard")
    running_loop.wait("recovered", target="beadboard")
    running_loop.wait("dispatched", bead=bead)
    assert running_loop.stop().code == 0
    assert running_loop.named("outage", "recovered") == ["outage", "recovered"]
    assert [call.verb for call in sandbox.calls if call.verb == "sql"] == ["sql", "sql"], "nothing but the dispatch"


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
    running_loop = loop("--bd-timeout", "1s", "--listen", "0")
    running_loop.wait("outage", target="bd")
    assert running_loop.get("/healthz")[0] == 200, "it waits, and is not dead"
    assert running_loop.get("/readyz")[0] == 503
    running_loop.wait("recovered", target="bd")
    running_loop.wait("dispatched", bead=bead)
    running_loop.wait("cycle", command="dispatch", dispatched=1)
    assert running_loop.get("/readyz") == (200, "ready\n")
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
    assert running_loop.get("/readyz") == (200, "ready\n")
    code, page = running_loop.get("/metrics")
    assert code == 200
    found = samples(page)
    assert {name for name, _ in found} == {
        "bdauto_dispatches_total",
        "bdauto_reaps_total",
        "bdauto_cycle_duration_seconds_bucket",
        "bdauto_cycle_duration_seconds_sum",
        "bdauto_cycle_duration_seconds_count",
        "bdauto_beads",
        "bdauto_oldest_eligible_age_seconds",
        "bdauto_capacity_free",
        "bdauto_up",
        "bdauto_paused",
        "bdauto_last_success_timestamp_seconds",
        "bdauto_starved",
    }
    assert value(page, "bdauto_dispatches_total", outcome="dispatched") == 1
    assert {dict(labels)["target"] for name, labels in found if name == "bdauto_up"} == {"bd", "beadboard", "agent"}
    assert "secret" not in page
    assert "sb-" not in page
    assert running_loop.get("/")[0] == 404
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
        BDAUTO_NOTIFY_URLS="json://user:hunter2@127.0.0.1:9/hunter3 json://hunter4@127.0.0.1:9",
        BDAUTO_PUSHGATEWAY="http://user:hunter5@127.0.0.1:9",
    )  # fmt: skip
    running_loop.wait("dispatched")
    running_loop.wait("metrics-failed", target="pushgateway")
    done = running_loop.stop()
    assert done.code == 0
    assert "hunter" not in done.err + done.out


class Receiver(ThreadingHTTPServer):
    """A web hook and a Pushgateway: keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str, bytes]] = []
        super().__init__(("127.0.0.1", 0), Receiving)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.command, self.path, self.headers.get("authorization", ""), body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_notifications_and_pushed_metrics_arrive(sandbox: Sandbox, loop: Start) -> None:
    stalled = claimed(sandbox, 60, job="gone")
    sandbox.board.reply_next("status", Reply(drop="early"), times=2)
    with Receiver() as receiver:
        running_loop = loop(
            BDAUTO_NOTIFY_URLS=f"json://{receiver.address}/hook", BDAUTO_PUSHGATEWAY=f"http://ann:pw@{receiver.address}"
        )
        running_loop.wait("recovered", target="beadboard")
        running_loop.wait("blocked", bead=stalled)
        assert running_loop.stop().code == 0
        receiver.shutdown()
    titles = [json.loads(body)["title"] for _, path, _, body in receiver.received if path == "/hook"]
    assert sorted(titles) == sorted(
        ["bdauto: outage of beadboard", "bdauto: end of the outage of beadboard", f"bdauto: {stalled} reaped: blocked"]
    )
    pushes = {path: (method, login, body) for method, path, login, body in receiver.received if path != "/hook"}
    assert set(pushes) == {"/metrics/job/dispatch", "/metrics/job/reap"}
    method, login, body = pushes["/metrics/job/reap"]
    assert (method, login) == ("PUT", "Basic YW5uOnB3")
    assert value(body.decode(), "bdauto_reaps_total", outcome="blocked") == 1
    assert running_loop.named("notify-failed", "metrics-failed") == []


@pytest.mark.parametrize(
    ("loops", "beads", "flavour"),
    [(4, 12, "server"), pytest.param(8, 200, "real-server", marks=[pytest.mark.real_bd, pytest.mark.timeout(900)])],
)
def test_many_loops_on_one_queue(request: pytest.FixtureRequest, loops: int, beads: int, flavour: str) -> None:
    with real_world(request, flavour) if flavour.startswith("real-") else Sandbox() as sandbox:
        sandbox.board.capacity, sandbox.board.signs = beads, False
        ids = create_many(sandbox, beads)
        began = time.monotonic()
        running_loops = [Loop(sandbox, "--max", "5", agent=True) for _ in range(loops)]
        try:
            while len(sandbox.posts) < beads and time.monotonic() - began < 800:
                threading.Event().wait(0.2)
            took = time.monotonic() - began
            done = [each.stop(timeout=60) for each in running_loops]
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


def create_many(sandbox: Sandbox, count: int) -> list[str]:
    """Create beads in one call of bd where that is possible."""
    if count < 50:
        return [sandbox.create() for _ in range(count)]
    listing = Path(tempfile.mkdtemp(dir=sandbox.folder)) / "beads.md"
    listing.write_text(
        "".join(
            f"## bead {n}\n\n### Priority\n2\n\n### Acceptance Criteria\nit works\n\n### Assignee\nagent\n\n"
            for n in range(count)
        )
    )
    answer: Answer = sandbox.run("create", "-f", str(listing), "--json")
    ids = [bead["id"] for bead in json.loads(answer.out)]
    assert len(ids) == count
    return ids


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process 1")
def test_as_process_1_it_collects_orphans(sandbox: Sandbox) -> None:
    """In a PID namespace of its own, as in a container, a bd leaves a grandchild behind."""
    wrapper = sandbox.folder / "bd-with-orphan"
    wrapper.write_text(f'#!/bin/sh\nsetsid sh -c "sleep 0.1" >/dev/null 2>&1 </dev/null &\nexec {sandbox.bd} "$@"\n')
    wrapper.chmod(0o755)
    inner = f"exec {BDAUTO} run {' '.join(FAST)}"
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", inner],
        env=sandbox.env(BDAUTO_BD=str(wrapper)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
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
