"""Agents that hand their bead back in their own way: open again, or without an assignee."""

import time
from collections.abc import Iterator

import pytest

from bdauto.agents.local.jobs import Jobs
from bdauto.sandbox import Sandbox
from tests.support.cli import Done, forget_backoff, make_world, metadata, run, status

COSTS = """echo '{"type":"result","result":"I give up","session_id":"s","num_turns":1,"total_cost_usd":0.5}'"""
NOTED = 'until $BD show $BEAD_ID --json | grep -q "dispatched: job=$BDAUTO_JOB"; do sleep 0.1; done'


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with make_world(request, "embedded") as made:
        yield made


def with_agent(world: Sandbox, script: str, *words: str) -> Done:
    """Run bdauto with an agent that does this, and wait for its job."""
    agent = world.folder / "agent"
    agent.write_text(
        f"#!/bin/sh\nBD={world.bd_path}\n{NOTED}\n$BD note $BEAD_ID 'claimed by agent'\n{script}\n{COSTS}\n"
    )
    agent.chmod(0o700)
    jobs = Jobs(world.folder / "jobs")
    env = {"BDAUTO_AGENT_JOBS": str(jobs.path), "BEADBOARD_URL": "", "BDAUTO_AGENT_COMMAND": str(agent)}
    done = run(world, *words, **env)  # type: ignore[arg-type]
    while jobs.running():
        time.sleep(0.05)
    return done


def test_an_agent_that_opens_its_bead_each_time_uses_up_its_attempts(world: Sandbox) -> None:
    bead = world.create("never done")
    opens = "$BD update $BEAD_ID -s open"
    for attempt in range(1, 4):
        assert with_agent(world, opens, "dispatch", "--json").outcomes == {bead: "dispatched"}, attempt
        with_agent(world, opens, "reap")
        assert len(metadata(world, bead)["runs"]) > 0
        forget_backoff(world, bead)
    last = with_agent(world, opens, "dispatch", "--json")
    assert status(world, bead) == "blocked", last
    runs = with_agent(world, opens, "runs", "--json").json["runs"]
    assert [one["cost_usd"] for one in runs] == [0.5, 0.5, 0.5]


def test_the_run_of_a_bead_that_its_agent_unassigned_is_recorded(world: Sandbox) -> None:
    bead = world.create("somebody else's")
    with_agent(world, '$BD update $BEAD_ID -a ""', "dispatch", "--json")
    with_agent(world, "", "reap")
    [one] = with_agent(world, "", "runs", "--json", "--bead", bead).json["runs"]
    assert (one["result"], one["detail"], one["cost_usd"]) == (
        "failed",
        "ended without closing the bead: I give up",
        0.5,
    )
