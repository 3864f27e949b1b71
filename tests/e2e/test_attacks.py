"""Attacks on the promises, on the installed command: dispatchers that sleep, bd that takes back, signals at any moment.

Each was seen to start two jobs for a bead, to harm a running job, or to stop a queue.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from bdauto.bd.command import PAGE
from bdauto.bd.prefetch import MAX_AGE
from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import (
    Gate,
    claimed,
    dispatch,
    finish,
    metadata,
    posted,
    real_world,
    reap,
    run,
    start,
    status,
    tell,
    wait_minutes,
)

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_the_post_finishes_the_bead(
    world: Sandbox, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """One-shot commands as `run`: the job is recorded, and no further bead is taken up."""
    world.board.capacity = 3
    bead, other = world.create(priority=0), world.create(priority=1)
    gate = Gate(world.board, "dispatch", monkeypatch)
    process = start(world, "dispatch", "--json", "--max", "3")
    gate.wait()
    process.send_signal(number)
    gate.let_go()
    done = finish(process, world)
    assert (done.code, done.outcomes) == (0, {bead: "dispatched"})
    assert metadata(world, bead)["job"] == world.posts[0].job
    assert (posted(world), status(world, other)) == ([bead], "open")


def test_a_second_signal_during_the_post_ends_it_at_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bead = sandbox.create()
    gate = Gate(sandbox.board, "dispatch", monkeypatch)
    process = start(sandbox, "dispatch")
    gate.wait()
    for number in SIGNALS:
        process.send_signal(number)
        time.sleep(0.2)
    done = finish(process, sandbox)
    gate.let_go()
    assert (done.code, status(sandbox, bead)) == (130, "in_progress")
    assert dispatch(sandbox).json["outcome"] == "idle"


def test_a_signal_to_a_sweep_that_writes_finishes_it(either: Sandbox) -> None:
    beads = [claimed(either, 45, job=f"j{n}") for n in range(3)]
    embedded = either.topology == "embedded"
    pause = either.pause("update" if embedded else "sql", match="" if embedded else "issues")
    process = start(either, "reap", "--json")
    pause.wait()
    process.send_signal(signal.SIGTERM)
    pause.release(9)
    done = finish(process, either)
    assert (done.code, done.outcomes) == (0, dict.fromkeys(beads, "blocked"))


@pytest.fixture(params=["server", pytest.param("real-server", marks=pytest.mark.real_bd)])
def server(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A shared server. On an embedded database a dispatcher that sleeps holds the lock, so nobody can be faster."""
    with Sandbox() if request.param == "server" else real_world(request, request.param) as sandbox:
        yield sandbox


def test_a_dispatcher_that_wakes_up_too_late_does_not_post(server: Sandbox) -> None:
    """Suspended after its claim; meanwhile the reaper has released the bead, and another dispatcher has posted it."""
    world = server
    bead = world.create()
    held = Held(world)
    slow = start(world, "dispatch", "--json", "--grace", "2s", BDAUTO_BD=held.bd)
    held.wait()
    os.kill(slow.pid, signal.SIGSTOP)
    held.go()
    time.sleep(2.2)
    assert reap(world, "--grace", "2s", agent=True).outcomes == {bead: "released"}
    tell(world, "update", bead, "--unset-metadata", "bdauto.retry_at")
    assert dispatch(world).outcomes == {bead: "dispatched"}
    job = metadata(world, bead)["job"]
    os.kill(slow.pid, signal.SIGCONT)
    done = finish(slow, world)
    assert (done.code, done.outcomes) == (0, {bead: "lost"})
    assert posted(world) == [bead]
    assert metadata(world, bead)["job"] == job


class Held:
    """A bd whose first claim is held back after it was written, real or not."""

    def __init__(self, world: Sandbox) -> None:
        folder = world.folder / "held"
        folder.mkdir()
        self._reached, self._release = folder / "reached", folder / "release"
        for pipe in (self._reached, self._release):
            os.mkfifo(pipe)
        wrapper = folder / "bd"
        wrapper.write_text(
            f'#!/bin/sh\n{world.bd_path} "$@"\ncode=$?\n'
            f'case " $* " in *" sql SELECT "*) ;; *" sql "*|*" update "*)\n'
            f"if mkdir {folder}/once 2>/dev/null; then echo >{self._reached}; read _ <{self._release}; fi ;; esac\n"
            "exit $code\n"
        )
        wrapper.chmod(0o700)
        self.bd = str(wrapper)

    def wait(self) -> None:
        """Wait until the claim is written."""
        self._reached.read_text()

    def go(self) -> None:
        """Let bd end."""
        self._release.write_text("\n")


SAID_NO = {
    "busy": FakeReply(409, '{"error": "Agent is busy"}'),
    "refused": FakeReply(400, '{"error": "no"}'),
    "not started": FakeReply(502, '{"error": "down"}'),
    "misconfigured": FakeReply(500, '{"error": "not configured"}'),
    "a gateway": FakeReply(504, "<html>Gateway Time-out"),
}


@pytest.mark.parametrize("name", SAID_NO)
def test_the_job_started_whatever_was_answered(world: Sandbox, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that writes on the bead makes any answer unknown: it is never posted again."""
    bead = world.create()
    world.board.reply_next("dispatch", SAID_NO[name])
    gate = Gate(world.board, "dispatch", monkeypatch)
    process = start(world, "dispatch", "--json")
    gate.wait()
    tell(world, "update", bead, "--append-notes", "Working on it…", actor="beads-task-runner")
    gate.let_go()
    done = finish(process, world)
    assert (done.code, done.outcomes) == (4, {bead: "unknown"})
    assert status(world, bead) == "in_progress"
    wait_minutes(world, bead, 12)
    assert reap(world, agent=True).outcomes == {bead: "kept"}
    assert dispatch(world).json["outcome"] == "idle"
    assert posted(world) == [bead]


@pytest.mark.parametrize("name", ["busy", "refused", "not started"])
def test_a_bead_that_a_person_takes_over_during_the_post_is_theirs(
    world: Sandbox, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the answer was: neither opened nor blocked, and nothing says that it was."""
    bead = world.create()
    world.board.reply_next("dispatch", SAID_NO[name])
    gate = Gate(world.board, "dispatch", monkeypatch)
    process = start(world, "dispatch", "--json", "--max-attempts", "1")
    gate.wait()
    tell(world, "update", bead, "-s", "open", actor="bob")  # bd 1.3 reassigns no bead in progress
    tell(world, "update", bead, "-a", "bob", "-s", "in_progress", actor="bob")
    gate.let_go()
    done = finish(process, world)
    assert (done.code, done.outcomes) == (0, {bead: "lost"})
    found = world.show(bead)
    assert (found["status"], found["assignee"]) == ("in_progress", "bob")


def test_a_bead_that_beadboards_button_started_is_claimed_for_that_job(world: Sandbox) -> None:
    """A click leaves the bead open, with its agent at work on it."""
    world.board.capacity = 5
    bead = world.create()
    _, answer = world.board.dispatch(json.dumps({"taskId": bead}).encode())
    job = answer["job_id"]
    tell(world, "note", bead, f"claimed by agent {job}", actor="agent")
    assert dispatch(world, agent=True).outcomes == {bead: "adopted"}
    assert posted(world) == [bead]
    assert (status(world, bead), metadata(world, bead)["job"]) == ("in_progress", job)
    assert reap(world, agent=True).outcomes == {bead: "kept"}


@pytest.mark.parametrize("code", [401, 500, 503])
def test_a_bead_whose_job_nobody_tells_of_gets_no_second_agent(world: Sandbox, code: int) -> None:
    """`/health` answers, so the agent service looks well. A person has opened a running bead."""
    world.board.capacity = 5
    bead = world.create()
    assert dispatch(world, agent=True).outcomes == {bead: "dispatched"}
    tell(world, "note", bead, f"claimed by agent {metadata(world, bead)['job']}", actor="agent")
    tell(world, "update", bead, "-s", "open", actor="bob")
    other = world.create(priority=4)
    world.board.reply_next("job", FakeReply(code))
    done = dispatch(world, "--max", "2", agent=True)
    assert (done.code, done.outcomes) == (4, {bead: "kept", other: "dispatched"})
    assert f"HTTP {code}" in done.complaint
    assert dispatch(world, agent=True).outcomes == {bead: "reverted"}
    assert posted(world) == [bead, other]
    assert reap(world, agent=True).outcomes == {bead: "kept", other: "kept"}


def test_a_note_with_another_beads_job_is_no_claim_on_it(world: Sandbox) -> None:
    world.board.capacity = 5
    first = world.create()
    assert dispatch(world, agent=True).outcomes == {first: "dispatched"}
    second = world.create()
    tell(world, "note", second, f"claimed by agent {metadata(world, first)['job']}", actor="agent")
    assert dispatch(world, agent=True).outcomes == {second: "dispatched"}
    assert posted(world) == [first, second]


def test_a_gateways_time_out_is_an_unknown_outcome(either: Sandbox) -> None:
    bead = either.create()
    either.board.reply_next("dispatch", SAID_NO["a gateway"])
    done = dispatch(either)
    assert (done.code, done.outcomes, status(either, bead)) == (4, {bead: "unknown"}, "in_progress")


def test_a_gateway_that_gives_up_on_every_post_does_not_use_up_the_queue(world: Sandbox) -> None:
    """Three ticks open the circuit breaker for all. One of the jobs started after all, and its agent closes it."""
    world.board.capacity = 5
    beads = [world.create(priority=priority) for priority in range(4)]
    for bead in beads[:3]:
        world.board.reply_next("dispatch", SAID_NO["a gateway"])
        assert (done := dispatch(world, agent=True)).outcomes == {bead: "unknown"}
        assert done.code == 4
    assert "suspended until" in done.complaint
    assert (held := dispatch(world, agent=True)).json["outcome"] == "suspended"
    assert held.code == 0
    for bead in beads[:3]:
        assert status(world, bead) == "in_progress"
        assert {"attempts", "died"}.isdisjoint(metadata(world, bead))
    _, answer = world.board.dispatch(json.dumps({"taskId": beads[2]}).encode())
    tell(world, "note", beads[2], f"claimed by agent {answer['job_id']}", actor="agent")
    assert reap(world, agent=True).outcomes[beads[2]] == "kept"
    assert metadata(world, beads[2])["job"] == answer["job_id"]
    assert dispatch(world, agent=True).outcomes == {beads[3]: "dispatched"}


def test_a_claim_that_is_taken_back_under_the_post_is_an_error(
    either: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bd that reverts committed rows: exit 3, the bead and its job in the log at error."""
    bead = either.create()
    before = either.show(bead)["updated_at"]
    gate = Gate(either.board, "dispatch", monkeypatch)
    process = start(either, "dispatch", "--json")
    gate.wait()
    either.edit(bead, status="open", metadata="{}", notes="", updated_at=before)
    gate.let_go()
    done = finish(process, either)
    assert (done.code, done.outcomes) == (3, {bead: "failed"})
    assert f"{bead} runs as job {either.posts[0].job}" in done.complaint
    [said] = [event for event in done.events if event["event"] == "failed"]
    assert (said["level"], said["job"]) == ("error", either.posts[0].job)


def test_a_pause_stops_a_cycle_under_way(world: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    world.board.capacity = 5
    beads = [world.create() for _ in range(5)]
    gate = Gate(world.board, "dispatch", monkeypatch)
    process = start(world, "dispatch", "--json", "--max", "5")
    gate.wait()
    assert run(world, "pause", "enough").code == 0
    gate.let_go()
    done = finish(process, world)
    assert (done.code, list(done.outcomes.values())) == (0, ["dispatched"])
    assert [status(world, bead) for bead in beads].count("open") == 4
    assert run(world, "resume").code == 0


def test_a_pause_while_the_services_are_asked_is_heeded(world: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch is read before the services are asked; the claim holds it."""
    bead = world.create()
    gate = Gate(world.board, "status", monkeypatch)
    process = start(world, "dispatch", "--json")
    gate.wait()
    assert run(world, "pause", "enough").code == 0
    gate.go.set()
    done = finish(process, world)
    assert (done.code, done.json["outcome"], done.outcomes, posted(world)) == (0, "paused", {}, [])
    assert status(world, bead) == "open"
    assert run(world, "resume").code == 0
    assert dispatch(world).outcomes == {bead: "dispatched"}


Later = Callable[[Sandbox, str], None]


def _blocker(world: Sandbox, bead: str) -> None:
    tell(world, "dep", "add", bead, world.create(assignee="ann"))


def _blocked_parent(world: Sandbox, bead: str) -> None:
    parent = world.create(assignee="ann")
    _blocker(world, parent)
    tell(world, "dep", "add", bead, parent, "-t", "parent-child")


def _label(world: Sandbox, bead: str) -> None:
    tell(world, "update", bead, "--add-label", "secret")


@pytest.mark.parametrize("later", [_blocker, _blocked_parent, _label])
def test_what_is_added_to_a_later_bead_counts(world: Sandbox, later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not move `updated_at`, so the claim would not notice it."""
    world.board.capacity = 5
    first, second, third = (world.create(priority=priority) for priority in range(3))
    gate = Gate(world.board, "dispatch", monkeypatch)
    process = start(world, "dispatch", "--json", "--max", "5", "--exclude-label", "secret")
    gate.wait()
    later(world, second)
    gate.let_go()
    assert finish(process, world).outcomes == {first: "dispatched", third: "dispatched"}
    assert status(world, second) == "open"


@pytest.mark.parametrize("later", [_blocker, _blocked_parent, _label])
def test_what_is_added_to_a_later_bead_of_a_long_queue_counts(
    world: Sandbox, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a further bead is judged by itself."""
    world.board.capacity = 5
    beads = [world.create(priority=2) for _ in range(PAGE + 2)]
    gate = Gate(world.board, "dispatch", monkeypatch)
    process = start(world, "dispatch", "--json", "--max", "2", "--exclude-label", "secret", "--timeout", "5m")
    gate.wait()
    [first] = [bead for bead in beads if status(world, bead) == "in_progress"]
    order = sorted(set(beads) - {first}, key=lambda bead: (world.show(bead)["updated_at"], bead))
    later(world, order[0])
    gate.let_go()
    assert finish(process, world).outcomes == {first: "dispatched", order[1]: "dispatched"}


@pytest.mark.parametrize("later", [_blocker, _blocked_parent, _label])
def test_what_is_added_while_the_services_are_asked_counts(
    world: Sandbox, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (world.create(priority=priority) for priority in range(2))
    gate = Gate(world.board, "status", monkeypatch)
    process = start(world, "dispatch", "--json", "--exclude-label", "secret")
    gate.wait()
    later(world, first)
    time.sleep(MAX_AGE.total_seconds())
    gate.go.set()
    assert finish(process, world).outcomes == {second: "dispatched"}


def test_a_bead_that_beadboard_does_not_see_yet(world: Sandbox) -> None:
    """BeadBoard reads an export that may be a minute old: open again, not charged, tried again after a minute."""
    bead = world.create()
    world.board.hidden = {bead}
    done = dispatch(world, "--max-attempts", "1")
    assert (done.code, done.outcomes) == (0, {bead: "not_visible"})
    record = metadata(world, bead)
    wait = datetime.fromisoformat(record["retry_at"]) - datetime.now(UTC)
    assert timedelta(seconds=40) <= wait <= timedelta(seconds=61)
    assert (status(world, bead), "attempts" in record) == ("open", False)
    world.board.hidden.clear()
    tell(world, "update", bead, "--unset-metadata", "bdauto.retry_at")
    assert dispatch(world).outcomes == {bead: "dispatched"}


def json_error(words: str) -> str:
    return f'{{"error": "{words}"}}'


def test_an_outage_with_ever_new_words_leaves_one_line(either: Sandbox) -> None:
    bead = either.create()
    for request in range(4):
        either.board.reply_next("dispatch", FakeReply(502, json_error(f"request {request} failed")))
        assert dispatch(either).outcomes == {bead: "unavailable"}
        tell(either, "update", bead, "--unset-metadata", "bdauto.retry_at")
    failures = [line for line in either.notes(bead) if line.startswith("dispatch failed")]
    assert failures == ["dispatch failed HTTP 502: request 0 failed"]
    assert metadata(either, bead)["error"] == "HTTP 502: request 3 failed"


def test_an_embedded_bead_that_is_taken_away_after_the_last_look() -> None:
    """bd 1.3 looks once more itself, in its own transaction."""
    with Sandbox(topology="embedded") as world:
        world.set_version("1.3.0")
        bead = world.create()
        pause = world.pause("update")
        process = start(world, "dispatch", "--json")
        pause.wait()
        tell(world, "update", bead, "-a", "bob")
        before = world.show(bead)
        pause.release()
        done = finish(process, world)
        assert (done.code, done.outcomes, posted(world)) == (0, {bead: "lost"}, [])
        assert world.show(bead) == before
