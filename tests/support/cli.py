"""Runs the installed `bdauto` as a process, checks at every run what holds for all of them, and looks around."""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.domain.record_values import guarded, unguarded
from bdauto.sandbox import FakeBeadBoard, FakeReply, Sandbox
from bdauto.sandbox.fake_http import Route
from bdauto.sandbox.real_bd import RealBd
from bdauto.sandbox.sandbox import Topology
from tests.support.patience import seconds
from tests.support.real_bd import Template, need, need_harmless

BDAUTO = Path(sys.executable).with_name("bdauto")
CLAIM_NOTE = r"auto-dispatcher claimed at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
FLAVOURS: tuple[Topology, ...] = ("server", "embedded", "proxied")
REAL_FLAVOURS = tuple(pytest.param(f"real-{flavour}", marks=pytest.mark.real_bd) for flavour in FLAVOURS)
ROUNDING = 0.1
"""Minutes: bd rounds `updated_at` to a second that can lie ahead, and notes tell whole minutes, rounded down."""
WRITING = {"sql", "update", "note", "comment", "close", "create", "dep add", "kv set", "kv clear", "dolt commit"}


@dataclass(frozen=True)
class Done:
    """What a run of bdauto left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object that --json printed: the only thing on stdout."""
        value: dict[str, Any] = json.loads(self.out)
        return value

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of each bead in the report."""
        return {bead["id"]: bead["outcome"] for bead in self.json["beads"]}

    @property
    def events(self) -> list[dict[str, str]]:
        """The log as one dictionary a line."""
        lines = [line for line in self.err.splitlines() if line.startswith("time=")]
        return [dict(pair.split("=", 1) for pair in shlex.split(line)) for line in lines]

    @property
    def complaint(self) -> str:
        """The line on stderr that says why the exit code is not 0, or ""."""
        return next((line for line in self.err.splitlines() if line.startswith("bdauto: ")), "")


def run(sandbox: Sandbox, *args: str, agent: bool = False, **env: str) -> Done:
    """Run `bdauto` to its end; `agent` configures the agent service, `env` overrides the environment."""
    return finish(start(sandbox, *args, agent=agent, **env), sandbox)


def start(
    sandbox: Sandbox, *args: str, agent: bool = False, inside: Sequence[str] = (), **env: str
) -> "subprocess.Popen[bytes]":
    """Start `bdauto`, `inside` a command that starts it, and return at once; `finish` waits for it."""
    return subprocess.Popen(
        [*inside, BDAUTO, *args],
        env=sandbox.env(agent=agent, **env),
        cwd=sandbox.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: "subprocess.Popen[bytes]", sandbox: Sandbox, timeout: float = seconds(300)) -> Done:
    """Wait for a started `bdauto`, and hold it to what every run promises."""
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    done = Done(process.returncode, out.decode(), err.decode())
    complaints = [line for line in done.err.splitlines() if line.startswith("bdauto: ")]
    assert "Traceback" not in done.err, done.err
    assert done.code in (0, 2, 3, 4, 5, 130, -9), done
    assert len(complaints) == (0 if done.code in (0, 130, -9) else 1), done
    assert sandbox.token not in done.out + done.err
    return done


def dispatch(sandbox: Sandbox, *args: str, agent: bool = False, **env: str) -> Done:
    """One cycle, reported as JSON."""
    return run(sandbox, "dispatch", "--json", *args, agent=agent, **env)


def reap(sandbox: Sandbox, *args: str, agent: bool = False, **env: str) -> Done:
    """One sweep, reported as JSON."""
    return run(sandbox, "reap", "--json", *args, agent=agent, **env)


def tell(sandbox: Sandbox, *args: str, actor: str = "tester") -> None:
    """Let somebody use bd; a call that fails is the test's error."""
    sandbox.run(*args, "--json", actor=actor)


def forget_backoff(sandbox: Sandbox, *beads: str) -> None:
    """Let the time pass that the beads have to wait."""
    for bead in beads:
        tell(sandbox, "update", bead, "--unset-metadata", "bdauto.retry_at")


NUMBERS = {"attempts", "failed_checks", "failures", "deaths", "waited"}
"""What bdauto records as numbers. bd 1.3 leaves a number as text in an embedded database."""


def metadata(sandbox: Sandbox, bead: str) -> Mapping[str, Any]:
    """What bdauto recorded on a bead, without the names' common start and without the mark of the last write."""
    found: dict[str, Any] = sandbox.show(bead).get("metadata") or {}
    record = {key.removeprefix("bdauto."): value for key, value in found.items() if key != "bdauto.write"}
    texts = {key: unguarded(value) for key, value in record.items() if isinstance(value, str)}
    numbers = NUMBERS if sandbox.topology == "embedded" else set()
    return record | {key: json.loads(value) if key in numbers else value for key, value in texts.items()}


RESULTS = {"assignee", "armed_at", "released_at", "place", "waited", "result", "runs"}
"""What stays on a bead whatever becomes of it, for `bdauto report`."""


def held(sandbox: Sandbox, bead: str) -> Mapping[str, Any]:
    """What bdauto recorded on a bead but for the results of its jobs."""
    return {key: value for key, value in metadata(sandbox, bead).items() if key not in RESULTS}


def status(sandbox: Sandbox, bead: str) -> str:
    """A bead's status."""
    return str(sandbox.show(bead)["status"])


def posted(sandbox: Sandbox) -> list[str]:
    """The beads that BeadBoard was asked to dispatch, in order."""
    return [post.task for post in sandbox.posts]


def written(sandbox: Sandbox) -> list[str]:
    """The calls of bd so far that could write (sandbox only)."""
    return [call.verb for call in sandbox.calls if call.verb in WRITING and not call.argv[-1].startswith("SELECT")]


def claimed(
    sandbox: Sandbox, minutes: float, *, job: str = "", attempts: int = 1, error: str = "", note: str = ""
) -> str:
    """A bead that bdauto claimed, and nobody touched for so many minutes; `note` is what its agent wrote on it.

    The agent of a `job` has written its first note unless another is given.
    """
    bead = sandbox.create()
    moment = (datetime.now(UTC) - timedelta(minutes=minutes + ROUNDING)).strftime("%Y-%m-%dT%H:%M:%SZ")
    notes = [
        f"auto-dispatcher claimed at {moment}",
        *([f"dispatched: job={job}", note or f"claimed by agent {job}"] if job else [note] if note else []),
    ]
    record = {
        "attempt": "feedbeef",
        "attempts": str(attempts),
        "claimed_at": moment,
        "job": guarded(job),
        "error": error,
    }
    options = [f"--set-metadata=bdauto.{key}={value}" for key, value in record.items() if value]
    tell(sandbox, "update", bead, "-s", "in_progress", "--append-notes", "\n".join(notes), *options)
    sandbox.age(bead, minutes + ROUNDING)
    return bead


def wait_minutes(sandbox: Sandbox, bead: str, minutes: float) -> None:
    """Let time pass for a bead that bdauto has claimed or may have claimed: both its times move into the past."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes + ROUNDING)
    if "claimed_at" in metadata(sandbox, bead):
        tell(sandbox, "update", bead, "--set-metadata", f"bdauto.claimed_at={moment:%Y-%m-%dT%H:%M:%SZ}")
    sandbox.age(bead, minutes + ROUNDING)


def started(sandbox: Sandbox, minutes: float, state: str = "running") -> tuple[str, str]:
    """A bead whose job the agent service knows in this state, without an update for so many minutes; and the job."""
    bead = claimed(sandbox, minutes)
    sandbox.board.capacity += 1
    code, answer = sandbox.board.dispatch(json.dumps({"taskId": bead}).encode())
    assert code == 200, answer
    job = str(answer["job_id"])
    sandbox.posts.clear()
    record = f"bdauto.job={guarded(job)}"
    tell(sandbox, "update", bead, "--set-metadata", record, "--append-notes", f"dispatched: job={job}")
    sandbox.age(bead, minutes + ROUNDING)
    sandbox.board.jobs[job].status = state
    return bead, job


def create_many(sandbox: Sandbox, count: int) -> list[str]:
    """Create beads, of the real bd in one call."""
    if not isinstance(sandbox.workspace, RealBd):
        return [sandbox.create() for _ in range(count)]
    rest = "\n\n### Priority\n2\n\n### Acceptance Criteria\nit works\n\n### Assignee\nagent\n\n"
    listing = sandbox.folder / "beads.md"
    listing.write_text("".join(f"## bead {n}{rest}" for n in range(count)))
    ids = [bead["id"] for bead in json.loads(sandbox.run("create", "-f", str(listing), "--json").out)]
    assert len(ids) == count
    return ids


def minutes_until(moment: str) -> float:
    """How many minutes from now a time is, as metadata holds it."""
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds() / 60


def running(groups: Sequence[int]) -> list[int]:
    """The processes that still run in these process groups; the dead that nobody has collected do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) in groups and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


class Gate:
    """Holds the requests of a route back before they are handled: `reached` when one is there, until `go` is set."""

    def __init__(self, board: FakeBeadBoard, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go, self._handled = threading.Event(), threading.Event(), threading.Event()
        ordered, record = board.ordered, board.record

        def hold(asked: Route, job: str) -> FakeReply:
            if asked == route and not self.go.is_set():
                self.reached.set()
                self.go.wait(seconds(60))
            return ordered(asked, job)

        def handled(raw: bytes, code: int, job: str = "") -> None:
            record(raw, code, job)
            self._handled.set()

        monkeypatch.setattr(board, "ordered", hold)
        monkeypatch.setattr(board, "record", handled)

    def wait(self) -> None:
        """Wait until the request is there."""
        assert self.reached.wait(seconds(60)), "no request came"

    def let_go(self) -> None:
        """Let BeadBoard handle a dispatch request, whoever still waits for the answer, and wait until it has."""
        self.go.set()
        assert self._handled.wait(seconds(60)), "the request was not handled"


def real_world(request: pytest.FixtureRequest, flavour: str) -> Sandbox:
    """A sandbox around a real workspace without beads."""
    templates: dict[str, Template] = request.getfixturevalue("real_templates")
    if flavour not in templates:
        if topology_of(flavour) == "server":
            need_harmless(need(request, "bd"))
        templates[flavour] = Template(request.getfixturevalue(f"real_{flavour.removeprefix('real-')}")())
    return Sandbox(real=templates[flavour].workspace(request), topology=topology_of(flavour))


def make_world(request: pytest.FixtureRequest, flavour: str) -> Sandbox:
    """A sandbox of this flavour: the stand-in's, or with `real-` around a real workspace."""
    return real_world(request, flavour) if flavour.startswith("real-") else Sandbox(topology=topology_of(flavour))


def topology_of(flavour: str) -> Topology:
    """The topology of a flavour."""
    return next(topology for topology in FLAVOURS if flavour.endswith(topology))


def environ_of(pid: int) -> str:
    """The environment of a running process, as text."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").replace("\0", os.linesep)
