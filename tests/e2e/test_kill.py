"""Fault injection: bdauto and its bd are killed (SIGKILL) at every step of a dispatch, a release and a reap.

Afterwards everybody goes on: the agent if there is one, then a reaper and a dispatcher started afresh, with the ages
moved. Each case says where the bead must end and how often it may have been posted: never twice without the reaper's
word in between (the table "Kills" in docs/decisions.md).
"""

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from bdauto.sandbox.sandbox import When
from tests.support.cli import (
    FLAVOURS,
    Gate,
    claimed,
    dispatch,
    make_world,
    metadata,
    posted,
    reap,
    start,
    status,
    tell,
    wait_minutes,
)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to bdauto, and to nobody else."""
    process.kill()
    process.communicate()


def kill_group(pid: int) -> None:
    """SIGKILL to a bd and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Step:
    """A moment in a run: before or after the n-th write of bd (from 0); `bd_lives`: it goes on when bdauto is dead."""

    write: int
    when: str
    bd_lives: bool = False

    def __str__(self) -> str:
        return f"{self.when}-write-{self.write}" + ("-bd-goes-on" if self.bd_lives else "")

    @property
    def done(self) -> bool:
        """Whether the write is done in the end."""
        return self.when == "after" or self.bd_lives


FIRST = (Step(0, "before"), Step(0, "before", bd_lives=True), Step(0, "after"))
SECOND = (Step(1, "before"), Step(1, "before", bd_lives=True), Step(1, "after"))
HOLD = """#!/bin/sh
# Runs the real bd, and holds the {n}th call of {verb} {when} it.
case " $* " in
*" sql SELECT "*|*" {refused} "*) exec {bd} "$@" ;;
*" {verb} "*) mkdir {folder}/{verb}.$(ls -d {folder}/{verb}.* 2>/dev/null | wc -l) ;;
*) exec {bd} "$@" ;;
esac
[ "$(ls -d {folder}/{verb}.* | wc -l)" = {n} ] || exec {bd} "$@"
hold() {{ echo $$ >{folder}/reached; read _ <{folder}/release; }}
[ {when} = before ] && hold
{bd} "$@"
code=$?
[ {when} = after ] && hold
exit $code
"""


class Hold:
    """A bd that stops at one of its writes: the sandbox's own way, or a wrapper around the real one."""

    def __init__(self, sandbox: Sandbox, step: Step, real: bool) -> None:
        self.sandbox, self.step = sandbox, step
        embedded = sandbox.topology == "embedded"
        verb = "update" if embedded else "sql"
        self.bd_path = str(sandbox.bd_path)
        if real:
            self._wrap(verb)
        else:
            when: When = "after" if step.when == "after" else "before"
            self._pause = sandbox.pause(verb, when=when, skip=step.write, match="" if embedded else "issues")
        self.real = real

    def _wrap(self, verb: str) -> None:
        folder = self.sandbox.folder / "hold"
        folder.mkdir()
        for name in ("reached", "release"):
            os.mkfifo(folder / name)
        self._reached, self._release = (os.open(folder / name, os.O_RDWR) for name in ("reached", "release"))
        wrapper = folder / "bd"
        bd = self.sandbox.bd_path
        known = subprocess.run([bd, "update", "--help"], capture_output=True, text=True, check=True).stdout
        text = HOLD.format(
            verb=verb,
            n=self.step.write + 1,
            when=self.step.when,
            folder=folder,
            bd=bd,
            refused="sql SELECT" if "--if-status" in known else "--if-status",  # a bd without guards writes nothing
        )
        wrapper.write_text(text)
        wrapper.chmod(stat.S_IRWXU)
        self.bd_path = str(wrapper)

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait until bd is there, kill bdauto, then kill bd or let it go on to its end."""
        if self.real:
            pid = int(os.read(self._reached, 64))
        else:
            self._pause.wait()
            pid = self.sandbox.calls[-1].pid
        kill(process)
        if not self.step.bd_lives:
            kill_group(pid)
            return
        ended = -1
        if sys.platform == "linux":
            ended = os.pidfd_open(pid)
        if self.real:
            os.write(self._release, b"\n")
        else:
            self._pause.release()
        assert select.select([ended], [], [], 30)[0], "bd did not end"
        os.close(ended)


@contextlib.contextmanager
def a_world(request: pytest.FixtureRequest, flavour: str) -> Iterator[tuple[Sandbox, bool]]:
    """The sandbox or the real bd, and which of them it is."""
    real = flavour.startswith("real-")
    with make_world(request, flavour) as world:
        yield world, real


def cases(steps: tuple[Step, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test at each step, in each topology of the sandbox and of the real bd."""
    values = [pytest.param(flavour, step, id=f"{flavour}-{step}") for flavour in FLAVOURS for step in steps] + [
        pytest.param(f"real-{flavour}", step, id=f"real-{flavour}-{step}", marks=pytest.mark.real_bd)
        for flavour in FLAVOURS
        for step in steps
    ]
    return pytest.mark.parametrize(("flavour", "step"), values)


def heal(world: Sandbox, bead: str) -> None:
    """What the CronJobs do in the hour after: reap, and dispatch what is open once its backoff is over."""
    tell(world, "update", bead, "--unset-metadata", "bdauto.retry_at")
    if status(world, bead) == "in_progress":
        wait_minutes(world, bead, 12)
        assert reap(world, agent=True).code == 0
    tell(world, "update", bead, "--unset-metadata", "bdauto.retry_at")
    assert dispatch(world).code == 0


@cases(FIRST)
def test_killed_at_the_claim(request: pytest.FixtureRequest, flavour: str, step: Step) -> None:
    """Nothing was posted: the next cycle takes it, or the reaper releases it after the grace period."""
    with a_world(request, flavour) as (world, real):
        bead = world.create()
        hold = Hold(world, step, real)
        hold.kill(start(world, "dispatch", BDAUTO_BD=hold.bd_path))
        assert posted(world) == []
        assert status(world, bead) == ("in_progress" if step.done else "open")
        if step.done:
            assert "job" not in metadata(world, bead)
            assert dispatch(world).json["outcome"] == "idle"
            assert reap(world).outcomes == {bead: "kept"}
        heal(world, bead)
        assert posted(world) == [bead]
        assert metadata(world, bead)["job"] == world.board.job_of(bead).id
        assert metadata(world, bead)["attempts"] == (2 if step.done else 1)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("arrived", [True, False])
def test_killed_at_the_post(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, flavour: str, arrived: bool
) -> None:
    """The request is out. If it started a job, the agent's first note keeps the claim; if not, it is an orphan."""
    with a_world(request, flavour) as (world, _):
        bead = world.create()
        gate = Gate(world.board, "dispatch", monkeypatch)
        if not arrived:
            world.board.reply_next("dispatch", FakeReply(503))
        process = start(world, "dispatch")
        gate.wait()
        kill(process)
        gate.let_go()
        assert status(world, bead) == "in_progress"
        heal(world, bead)
        assert posted(world) == [bead] * (1 if arrived else 2)
        world.board.finish(world.board.job_of(bead).id)
        assert status(world, bead) == "closed"


@pytest.mark.parametrize("signs", [True, False], ids=["", "silent-agent"])
@cases(SECOND)
def test_killed_at_the_record(request: pytest.FixtureRequest, flavour: str, step: Step, signs: bool) -> None:
    """The job runs, and nobody dispatches the bead a second time, also if its agent is silent; the agent closes it."""
    with a_world(request, flavour) as (world, real):
        bead = world.create()
        world.board.signs = signs
        hold = Hold(world, step, real)
        hold.kill(start(world, "dispatch", BDAUTO_BD=hold.bd_path))
        assert posted(world) == [bead]
        assert ("job" in metadata(world, bead)) is step.done
        heal(world, bead)
        assert posted(world) == [bead]
        assert status(world, bead) == "in_progress"
        world.board.finish(world.board.job_of(bead).id)
        assert reap(world).outcomes == {}
        assert status(world, bead) == "closed"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_killed_at_the_record_and_the_agent_dies_too(request: pytest.FixtureRequest, flavour: str) -> None:
    """The agent signed with its job, and nobody can be asked about it: two hours without an update settle it."""
    with a_world(request, flavour) as (world, real):
        bead = world.create()
        hold = Hold(world, Step(1, "before"), real)
        hold.kill(start(world, "dispatch", BDAUTO_BD=hold.bd_path))
        world.board.agent_down()
        wait_minutes(world, bead, 31)
        assert reap(world, agent=True).outcomes == {bead: "kept"}
        assert f"claimed by agent {metadata(world, bead)['job']}" in world.notes(bead)
        wait_minutes(world, bead, 119)
        assert reap(world, agent=True).outcomes == {bead: "kept"}
        wait_minutes(world, bead, 121)
        assert reap(world, agent=True).outcomes == {bead: "blocked"}
        assert posted(world) == [bead]


@cases(SECOND)
def test_killed_at_a_release(request: pytest.FixtureRequest, flavour: str, step: Step) -> None:
    """The service said no: open again at once, or by the reaper after the grace period."""
    with a_world(request, flavour) as (world, real):
        bead = world.create()
        world.board.reply_next("dispatch", FakeReply(502, '{"error": "down"}'))
        hold = Hold(world, step, real)
        hold.kill(start(world, "dispatch", BDAUTO_BD=hold.bd_path))
        assert status(world, bead) == ("open" if step.done else "in_progress")
        if step.done:
            assert world.notes(bead) == ["dispatch failed HTTP 502: down"]
        heal(world, bead)
        assert posted(world) == [bead, bead]
        assert status(world, bead) == "in_progress"
        assert metadata(world, bead)["job"] == world.board.job_of(bead).id


@cases((Step(1, "before"), Step(1, "after")))
def test_killed_at_a_quarantined(request: pytest.FixtureRequest, flavour: str, step: Step) -> None:
    """Blocked with its note, or an orphan whose charge stands, so that one more refusal blocks it."""
    with a_world(request, flavour) as (world, real):
        bead = world.create()
        world.board.reply_next("dispatch", FakeReply(400, '{"error": "no"}'), times=2)
        hold = Hold(world, step, real)
        hold.kill(start(world, "dispatch", "--max-attempts", "1", BDAUTO_BD=hold.bd_path))
        assert status(world, bead) == ("blocked" if step.done else "in_progress")
        if not step.done:
            wait_minutes(world, bead, 12)
            assert reap(world, agent=True).outcomes == {bead: "released"}
            tell(world, "update", bead, "--unset-metadata", "bdauto.retry_at")
            assert dispatch(world, "--max-attempts", "1").outcomes == {bead: "quarantined"}
        assert status(world, bead) == "blocked"
        assert len([note for note in world.notes(bead) if "quarantined" in note]) == 1


@pytest.mark.parametrize("signs", [True, False], ids=["", "silent-agent"])
@cases((Step(1, "before"), Step(1, "after")))
def test_killed_when_the_outcome_is_unknown(
    request: pytest.FixtureRequest, flavour: str, step: Step, signs: bool
) -> None:
    """The job was started and its answer lost: the bead stays claimed, with or without the note or the agent's sign."""
    with a_world(request, flavour) as (world, real):
        bead = world.create()
        world.board.signs = signs
        world.board.reply_next("dispatch", FakeReply(drop="late"))
        hold = Hold(world, step, real)
        hold.kill(start(world, "dispatch", BDAUTO_BD=hold.bd_path))
        heal(world, bead)
        assert posted(world) == [bead]
        assert status(world, bead) == "in_progress"


REAPS = {
    "block": ((), "j1", "blocked", "no progress for 45m (threshold 30m) — blocking"),
    "requeue": (("--on-stall", "requeue"), "j1", "open", "no progress for 45m (threshold 30m) — requeueing"),
    "release": ((), "", "open", "no job recorded and no sign of the agent (threshold 30m) — released"),
}


@pytest.mark.parametrize("name", REAPS)
@cases(FIRST)
def test_killed_at_a_reap(request: pytest.FixtureRequest, flavour: str, step: Step, name: str) -> None:
    """The old state or the new one, never between; the next sweep does the rest, and there is one note."""
    options, job, end, note = REAPS[name]
    with a_world(request, flavour) as (world, real):
        bead = claimed(world, 45, job=job)
        before = world.show(bead)
        hold = Hold(world, step, real)
        hold.kill(start(world, "reap", *options, BDAUTO_BD=hold.bd_path))
        if not step.done:
            assert world.show(bead) == before
            assert list(reap(world, *options).outcomes) == [bead]
        assert status(world, bead) == end
        assert reap(world, *options).outcomes == {}
        assert [line for line in world.notes(bead) if line.endswith(note)] == [world.notes(bead)[-1]]


@pytest.mark.parametrize("verb", ["ready", "kv list", "version", "list"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_killed_while_reading(request: pytest.FixtureRequest, flavour: str, verb: str) -> None:
    """Nothing was written; the bd that still reads harms nobody."""
    with a_world(request, flavour) as (world, _):
        bead = claimed(world, 45, job="j1") if verb == "list" else world.create()
        before = world.show(bead)
        pause = world.pause(verb)
        process = start(world, "reap" if verb == "list" else "dispatch")
        pause.wait()
        kill(process)
        pause.release()
        assert world.show(bead) == before
        assert posted(world) == []
        assert (reap if verb == "list" else dispatch)(world).outcomes == {
            bead: "blocked" if verb == "list" else "dispatched"
        }
