"""Agents that die at once, through the command line: the circuit breaker as an operator sees it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bdauto.domain import breaker
from bdauto.domain.breaker import KEY, Breaker
from bdauto.domain.times import format_time
from bdauto.sandbox import Sandbox
from bdauto.sandbox.deaths import DEATHS, death
from bdauto.sandbox.sandbox import Topology, When
from tests.support.cli import (
    FLAVOURS,
    dispatch,
    finish,
    forget_backoff,
    metadata,
    posted,
    reap,
    run,
    start,
    status,
    tell,
)
from tests.support.patience import seconds
from tests.support.receiver import Receiver

WORDS = "Invalid API key · Please run /login"


def store(world: Sandbox) -> dict[str, Any]:
    """The tracker's key-value store."""
    found: dict[str, Any] = json.loads(world.run("kv", "list", "--json").out)
    inner: dict[str, Any] = found.get("data", found)
    return inner


def the_breaker(world: Sandbox) -> Breaker:
    return breaker.read(store(world))


def state(world: Sandbox) -> str:
    return the_breaker(world).state(datetime.now(UTC))


def wait_is_over(world: Sandbox) -> None:
    """Let the time pass that the open breaker waits."""
    held = json.loads(store(world)[KEY])
    past = format_time(datetime.now(UTC) - timedelta(seconds=5))
    tell(world, "kv", "set", KEY, json.dumps(held | {"until": past}))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds(60)
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _an_agent_that_dies(request: pytest.FixtureRequest) -> None:
    """There are slots enough, and each job dies at once."""
    for name in {"world", "either", "sandbox"} & set(request.fixturenames):
        world: Sandbox = request.getfixturevalue(name)
        world.board.capacity = 10
        world.board.dies = death("expired key")


def tripped(world: Sandbox) -> list[str]:
    """Three beads whose agents died, and the breaker that opened of it."""
    beads = [world.create() for _ in range(3)]
    assert set(dispatch(world, "--max", "3", agent=True).outcomes) == set(beads)
    assert reap(world, agent=True).code == 4
    return beads


def test_three_deaths_suspend_dispatching_and_one_bead_tries_the_agent(world: Sandbox) -> None:
    beads = [world.create() for _ in range(5)]
    assert len(dispatch(world, "--max", "3", agent=True).outcomes) == 3
    swept = reap(world, agent=True)
    assert (swept.code, set(swept.outcomes.values())) == (4, {"released"})
    assert f"the agents of 3 beads died at once: {WORDS}" in swept.complaint
    assert {status(world, bead) for bead in beads} == {"open"}
    died = posted(world)
    for bead in died:
        assert "attempts" not in metadata(world, bead)
        assert WORDS in world.notes(bead)[-1]
    forget_backoff(world, *died)
    done = dispatch(world, "--max", "5", agent=True)
    assert (done.code, done.json["outcome"], done.json["beads"]) == (0, "suspended", [])
    assert WORDS in done.json["detail"]
    assert WORDS in run(world, "status", agent=True).out.replace("\n", " ")
    assert WORDS in run(world, "status", "--json", agent=True).json["suspended"]
    conditions = run(world, "explain", "--json", beads[0], agent=True).json["conditions"]
    assert [one["detail"] for one in conditions if one["name"] == "breaker"] == [done.json["detail"]]
    doctor = run(world, "doctor", agent=True)
    assert (doctor.code, "bdauto: breaker: suspended until" in doctor.err) == (4, True)
    wait_is_over(world)
    assert list(dispatch(world, "--max", "5", agent=True).outcomes.values()) == ["dispatched"]
    assert dispatch(world, "--max", "5", agent=True).json["outcome"] == "suspended"
    assert (reap(world, agent=True).code, state(world), len(posted(world))) == (4, "open", 4)
    assert the_breaker(world).opened == 2
    wait_is_over(world)
    world.board.dies = None
    forget_backoff(world, *beads)
    assert len(dispatch(world, "--max", "5", agent=True).outcomes) == 1
    assert (reap(world, agent=True).code, state(world)) == (0, "closed")
    assert len(dispatch(world, "--max", "5", agent=True).outcomes) == 4
    assert len(posted(world)) == 9


def test_of_many_dispatchers_at_a_half_open_breaker_one_posts_one_bead(
    world: Sandbox, request: pytest.FixtureRequest
) -> None:
    beads = tripped(world)
    for _ in range(5):
        world.create()
    forget_backoff(world, *beads)
    wait_is_over(world)
    dispatchers = 3 if "real" in request.node.name else 8
    pause = None if "real" in request.node.name else world.pause("kv list", when="after", times=dispatchers)
    processes = [start(world, "dispatch", "--max", "3", "--json", agent=True) for _ in range(dispatchers)]
    if pause:  # all of them have seen that it is half open
        pause.wait(dispatchers)
        pause.release(dispatchers)
    ended = [finish(process, world) for process in processes]
    assert [done.code for done in ended] == [0] * dispatchers
    assert len(posted(world)) == 4
    assert sorted(len(done.outcomes) for done in ended) == [0] * (dispatchers - 1) + [1]


def test_resume_closes_it(either: Sandbox) -> None:
    beads = tripped(either)
    assert "the circuit breaker is closed" in run(either, "resume").out
    forget_backoff(either, *beads)
    assert len(dispatch(either, "--max", "3", agent=True).outcomes) == 3


@pytest.mark.parametrize("kind", DEATHS)
def test_it_waits_for_the_time_that_the_last_words_name(sandbox: Sandbox, kind: str) -> None:
    sandbox.board.dies = death(kind, resets_in=3 * 3600)
    tripped(sandbox)
    found = the_breaker(sandbox)
    assert found.until
    hours = (found.until - datetime.now(UTC)).total_seconds() / 3600
    assert 2.9 < hours < 3.1 if kind.startswith("limit") else hours < 0.1
    words = {"not a word": "", "killed": "Killed", "broken image": "No such file"}.get(kind, "")
    assert words in found.words


def test_a_death_after_a_sign_of_life_does_not_count(either: Sandbox) -> None:
    either.board.dies = None
    beads = [either.create() for _ in range(4)]
    dispatch(either, "--max", "4", agent=True)
    for job in list(either.board.jobs):
        either.board.progress(job, "half of it is done")
        either.board.end(job, "failed")
    assert reap(either, agent=True).code == 0
    assert ({status(either, bead) for bead in beads}, state(either)) == ({"blocked"}, "closed")


def test_a_limit_in_the_middle_of_work_blocks_and_charges_no_bead(either: Sandbox) -> None:
    """Five beads, two at a time: each agent notes something, and then meets a limit that ends in two hours."""
    either.board.dies = None
    beads = [either.create() for _ in range(5)]
    ends = datetime.now(UTC) + timedelta(hours=2)
    codes = []
    for _ in range(2):
        assert len(dispatch(either, "--max", "2", agent=True).outcomes) == 2
        for job in [name for name, job in either.board.jobs.items() if job.status == "running"]:
            either.board.progress(job, "half of it is done")
            either.board.end(job, "failed", f"You've hit your limit · resets {ends:%H:%M} (UTC)\n/upgrade for more")
        codes.append(reap(either, agent=True).code)
    assert (codes, state(either)) == ([0, 4], "open")
    assert {status(either, bead) for bead in beads} == {"open"}
    assert {metadata(either, bead).get("attempts", 0) for bead in beads} == {0}
    assert dispatch(either, "--max", "5", agent=True).json["outcome"] == "suspended"
    found = the_breaker(either).until
    assert found
    assert abs(found - ends) < timedelta(minutes=1)
    wait_is_over(either)
    forget_backoff(either, *beads)
    [tried] = dispatch(either, "--max", "5", agent=True).outcomes
    [job] = [name for name, job in either.board.jobs.items() if job.status == "running"]
    either.board.progress(job, "done")
    assert (reap(either, agent=True).code, state(either)) == (0, "closed")
    assert set(dispatch(either, "--max", "5", agent=True).outcomes) == {*beads} - {tried}


def test_an_agent_that_only_signs_and_dies_at_once_does_not_use_up_the_queue(either: Sandbox) -> None:
    """A script signs for it and then finds that the key has expired."""
    either.board.dies = None
    beads = [either.create() for _ in range(4)]
    dispatch(either, "--max", "4", agent=True)
    for job in list(either.board.jobs):
        either.board.end(job, "failed", "Killed")
    assert reap(either, agent=True).code == 4
    assert ({status(either, bead) for bead in beads}, state(either)) == ({"open"}, "open")
    assert {metadata(either, bead).get("attempts", 0) for bead in beads} == {0}
    assert "only signed the bead" in either.notes(beads[0])[-1]


def test_deaths_of_one_bead_quarantine_it_and_suspend_nothing(either: Sandbox) -> None:
    either.board.dies = death("killed")
    bead = either.create()
    for _ in range(3):
        dispatch(either, agent=True)
        assert reap(either, agent=True).code == 0
        forget_backoff(either, bead)
    assert (status(either, bead), state(either)) == ("blocked", "closed")
    assert "Killed — quarantined after 3 attempts" in either.notes(bead)[-1]


def test_a_loop_and_one_shot_commands_share_it(either: Sandbox) -> None:
    for _ in range(8):
        either.create()
    words = ("run", "--dispatch-every", "1s", "--reap-every", "1s")
    loop = start(either, *words, agent=True)
    until(lambda: state(either) == "open")
    before = len(posted(either))
    assert before <= 5
    assert dispatch(either, "--max", "8", agent=True).json["outcome"] == "suspended"
    until(lambda: not [job for job in either.board.jobs.values() if job.status == "running"])
    loop.terminate()
    assert "breaker-open" in finish(loop, either).err
    assert len(posted(either)) == before
    either.board.dies = None
    wait_is_over(either)
    loop = start(either, *words, agent=True)
    until(lambda: len(posted(either)) == before + 8 - len(backing_off(either)))
    loop.terminate()
    assert "breaker-closed" in finish(loop, either).err
    assert state(either) == "closed"


def backing_off(world: Sandbox) -> list[str]:
    """The beads that back off."""
    listed = json.loads(world.run("list", "--status", "open", "--limit", "0", "--json").out)
    return [bead["id"] for bead in listed if (bead.get("metadata") or {}).get("bdauto.retry_at")]


WHEN: tuple[When, ...] = ("before", "after")
STEPS = [(write, when) for write in range(4) for when in WHEN]


@pytest.mark.parametrize("topology", FLAVOURS)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[1]}-write-{step[0]}")
def test_a_sweep_killed_at_each_write_is_done_by_the_next(topology: Topology, step: tuple[int, When]) -> None:
    """One bead died in an earlier sweep and two die in this one: the breaker opens, and all get their charge back."""
    with Sandbox(topology=topology, capacity=10) as world:
        world.board.dies = death("killed")
        beads = [world.create() for _ in range(3)]
        dispatch(world, agent=True)
        assert reap(world, agent=True).code == 0
        assert len(dispatch(world, "--max", "2", agent=True).outcomes) == 2
        write, when = step
        if topology != "embedded":
            pause = world.pause("sql", when=when, skip=write, match="DOLT_COMMIT")
        elif write == 0:
            pause = world.pause("kv set", when=when)
        else:
            pause = world.pause("update", when=when, skip=write - 1)
        sweep = start(world, "reap", "--json", agent=True)
        if topology != "embedded" and write == 3:  # it makes three writes
            assert finish(sweep, world).code == 4
        else:
            pause.wait()
            sweep.kill()
            sweep.communicate()
            pause.release()
        for _ in range(2):
            reap(world, agent=True)
        assert (state(world), the_breaker(world).opened, len(the_breaker(world).deaths)) == ("open", 1, 3)
        for bead in beads:
            assert (status(world, bead), metadata(world, bead).get("attempts")) == ("open", None)
            assert len([note for note in world.notes(bead) if note.startswith("reaper:")]) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dispatcher_killed_with_the_trial_in_hand_holds_it_for_ten_minutes_at_most(
    sandbox: Sandbox, when: When
) -> None:
    tripped(sandbox)
    bead = sandbox.create(priority=0)
    wait_is_over(sandbox)
    pause = sandbox.pause("sql", when=when, skip=1, match="DOLT_COMMIT")  # the claim; the trial's place comes first
    process = start(sandbox, "dispatch", agent=True)
    pause.wait()
    process.kill()
    process.communicate()
    pause.release()
    sandbox.create()
    assert dispatch(sandbox, agent=True).json["outcome"] == "suspended"
    assert (the_breaker(sandbox).trial_bead, len(posted(sandbox))) == (bead, 3)
    wait_is_over(sandbox)
    sandbox.board.dies = None
    assert len(dispatch(sandbox, agent=True).outcomes) == 1
    assert (reap(sandbox, agent=True).code, state(sandbox)) == (0, "closed")


def test_one_shot_commands_show_it_in_their_metrics(sandbox: Sandbox) -> None:
    for _ in range(3):
        sandbox.create()
    with Receiver() as receiver:
        gateway = "--pushgateway", f"http://{receiver.address}"
        dispatch(sandbox, "--max", "3", *gateway, agent=True)
        assert receiver.pushed("dispatch")["bdauto_suspended"] == 0
        reap(sandbox, *gateway, agent=True)
        assert receiver.pushed("reap")["bdauto_suspended"] == 1
        run(sandbox, "resume")
        dispatch(sandbox, *gateway, agent=True)
        assert receiver.pushed("dispatch")["bdauto_suspended"] == 0
