"""Writes that bd makes and does not answer, and a pause that comes while a sweep asks about jobs."""

import subprocess
import time
from collections.abc import Iterator

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import BDAUTO, dispatch, finish, make_world, posted, reap, start, started, status
from tests.support.patience import duration, seconds

SLOW = seconds(3)
"""Seconds that the agent service takes for each answer about a job."""
TIMEOUT = duration(4)


BOTH = ("server", "embedded")


@pytest.fixture(params=[*BOTH, *(pytest.param(f"real-{name}", marks=pytest.mark.real_bd) for name in BOTH)])
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox, or the real bd, in each topology."""
    with make_world(request, request.param) as world:
        yield world


def mute(world: Sandbox) -> str:
    """Return a bd that writes beads, and then says nothing."""
    wrapper = world.folder / "mute-bd"
    silence = f'{world.bd_path} "$@" && sleep {seconds(20)}; exit'
    writes = '*"START TRANSACTION"*|*" update "*'
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in {writes}) {silence};; esac\nexec {world.bd_path} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def test_a_sweep_names_the_beads_that_bd_wrote_in_silence(world: Sandbox) -> None:
    """Each is found by its mark, or named as one that may have been changed; bd needs a look."""
    beads = [started(world, 45, "failed")[0] for _ in range(3)]
    done = reap(world, agent=True, BDAUTO_BD=mute(world), BDAUTO_BD_TIMEOUT=TIMEOUT)
    assert (done.code, set(done.outcomes)) == (3, set(beads)), done
    for bead in beads:
        assert status(world, bead) == ("blocked" if done.outcomes[bead] == "blocked" else "in_progress")
        assert f"bead={bead}" in done.err
    assert list(done.outcomes.values()).count("blocked") >= 2


def test_a_claim_that_bd_wrote_in_silence_is_named(world: Sandbox) -> None:
    bead = world.create()
    done = dispatch(world, BDAUTO_BD=mute(world), BDAUTO_BD_TIMEOUT=TIMEOUT)
    assert (done.code, done.outcomes, posted(world)) == (3, {bead: "failed"}, []), done
    assert "the claim was made and is left to the reaper" in done.json["beads"][0]["detail"]
    assert f"bead={bead}" in done.err


def test_a_pause_that_comes_while_jobs_are_asked_about_settles_no_bead(world: Sandbox) -> None:
    beads = [started(world, 45, "failed") for _ in range(2)]
    world.board.job_replies = {job: FakeReply(delay=SLOW) for _, job in beads}
    sweep = start(world, "reap", "--json", "--timeout", duration(30), agent=True)
    while not any(path.startswith("/jobs/") for _, path in list(world.board.requests)):
        time.sleep(0.02)
    subprocess.run([BDAUTO, "pause", "upgrade"], env=world.env(), cwd=world.folder, check=True)
    done = finish(sweep, world)
    assert (done.code, done.json["outcome"]) == (0, "paused"), done
    assert done.outcomes == {bead: "kept" for bead, _ in beads}
    assert {status(world, bead) for bead, _ in beads} == {"in_progress"}
    world.board.job_replies = {}
    subprocess.run([BDAUTO, "resume"], env=world.env(), cwd=world.folder, check=True)
    assert set(reap(world, agent=True).outcomes.values()) == {"blocked"}
