"""Several dispatchers on one queue at the same moment: each bead is posted exactly once, and losing is not an error."""

import pytest

from tests.support.cli import (
    FLAVOURS,
    REAL_FLAVOURS,
    claimed,
    dispatch,
    finish,
    make_world,
    metadata,
    posted,
    reap,
    start,
    status,
)

DISPATCHERS, BEADS = 5, 2


@pytest.mark.parametrize("flavour", [*FLAVOURS, *REAL_FLAVOURS])
def test_each_bead_is_posted_once(request: pytest.FixtureRequest, flavour: str) -> None:
    """On the sandbox all of them have read the same queue before the first one claims."""
    real = flavour.startswith("real-")
    with make_world(request, flavour) as world:
        world.board.capacity = 100
        beads = [world.create() for _ in range(BEADS)]
        dispatchers = 3 if flavour == "real-embedded" else DISPATCHERS
        pause = None if real else world.pause("ready", when="after", times=dispatchers)
        processes = [start(world, "dispatch", "--json") for _ in range(dispatchers)]
        if pause:
            pause.wait(dispatchers)
            pause.release(dispatchers)
        ended = [finish(process, world) for process in processes]
        assert [done.code for done in ended] == [0] * dispatchers
        for _ in range(BEADS):
            dispatch(world)
        assert sorted(posted(world)) == sorted(beads)
        for bead in beads:
            job = world.board.job_of(bead).id
            assert metadata(world, bead)["job"] == job
            assert world.notes(bead).count(f"dispatched: job={job}") == 1


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_two_reapers(request: pytest.FixtureRequest, flavour: str) -> None:
    """One of them settles the bead, and says so once; the other lost it."""
    with make_world(request, flavour) as world:
        bead = claimed(world, 45, job="j1")
        pause = world.pause("list", when="after", times=2)
        processes = [start(world, "reap", "--json") for _ in range(2)]
        pause.wait(2)
        pause.release(2)
        ended = [finish(process, world) for process in processes]
        assert sorted(done.outcomes[bead] for done in ended) == ["blocked", "lost"]
        assert [done.code for done in ended] == [0, 0]
        assert len([note for note in world.notes(bead) if note.startswith("reaper:")]) == 1
        assert (status(world, bead), reap(world).outcomes) == ("blocked", {})
