"""One configuration file for all commands, through the command line."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.local.jobs import Jobs
from bdauto.sandbox import Sandbox
from tests.support.cli import REAL_FLAVOURS, make_world, run, status
from tests.support.patience import seconds

AGENT = """#!/bin/sh
env > {folder}/environment
until {bd} show $BEAD_ID --json | grep -q "dispatched: job=$BDAUTO_JOB"; do sleep 0.1; done
{bd} close $BEAD_ID --reason done
"""


@pytest.fixture(params=["embedded", *REAL_FLAVOURS[1:2]])
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """An embedded database, and an agent that closes its bead."""
    with make_world(request, request.param) as made:
        agent = made.folder / "agent"
        agent.write_text(AGENT.format(folder=made.folder, bd=made.bd_path))
        agent.chmod(stat.S_IRWXU)
        yield made


def test_all_commands_agree_on_the_agent_of_the_file(world: Sandbox) -> None:
    """`status`, `explain` and `doctor` are told nothing, and neither bd nor the agent sees the secret."""
    bead = world.create("Fix it")
    env: dict[str, Any] = {"BEADBOARD_URL": "", "HOOK": "json://127.0.0.1:9/s3cret"}
    assert run(world, "doctor", **env).code == 2
    path = Path(run(world, "config", "init", **env).out.strip())
    jobs = world.folder / "jobs"
    text = f'agent_command = "{world.folder}/agent"\nagent_jobs = "{jobs}"\nnotify_url = ["$HOOK"]\n'
    path.write_text(path.read_text() + text)
    assert run(world, "config", "check", **env).code == 0
    doctor = run(world, "doctor", **env)
    assert (doctor.code, "agent command" in doctor.out) == (0, True), doctor
    assert "this machine" in run(world, "status", **env).out
    assert "room for 1" in run(world, "explain", bead, **env).out
    done = run(world, "dispatch", "--json", **env)
    assert done.outcomes == {bead: "dispatched"}
    deadline = time.monotonic() + seconds(30)
    while Jobs(jobs).running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(world, bead) == "closed"
    environment = (world.folder / "environment").read_text()
    assert "BEAD_ID=" in environment
    assert "HOOK=" not in environment
    assert "s3cret" not in environment + doctor.out + doctor.err + done.out + done.err


def test_a_file_that_others_can_write_stops_every_command(world: Sandbox) -> None:
    world.create()
    path = Path(run(world, "config", "init").out.strip())
    path.chmod(0o666)
    for command in ("dispatch", "reap", "status", "doctor", "pause"):
        done = run(world, command)
        assert done.code == 2
        assert f"{path}: others can write it (mode 0666)" in done.complaint
    assert not world.posts
