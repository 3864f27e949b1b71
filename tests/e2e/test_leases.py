"""bd 1.3's leases: bdauto's claims have none, and what it releases or reaps loses one. On a real bd that has them."""

from collections.abc import Iterator

import pytest

from bdauto.sandbox import Sandbox
from bdauto.sandbox.real_bd import RealBd
from tests.support.cli import REAL_FLAVOURS, dispatch, make_world, reap, status, tell
from tests.support.real_bd import has_leases


@pytest.fixture(params=REAL_FLAVOURS)
def real(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A bd with leases."""
    with make_world(request, request.param) as world:
        assert isinstance(world.workspace, RealBd)
        if not has_leases(world.workspace):
            pytest.skip("this bd has no leases")
        yield world


def leased(world: Sandbox, bead: str) -> bool:
    """Whether a bead has a lease."""
    return "lease_expires_at" in world.show(bead)


def test_a_claim_by_bdauto_is_not_reclaimed(real: Sandbox) -> None:
    bead = real.create()
    assert dispatch(real).outcomes == {bead: "dispatched"}
    assert not leased(real, bead)
    real.run("reclaim", "--older-than", "0s")
    assert (status(real, bead), real.show(bead)["assignee"]) == ("in_progress", "agent")


def test_a_reaped_bead_loses_its_lease(real: Sandbox) -> None:
    bead = real.create()
    assert dispatch(real).outcomes == {bead: "dispatched"}
    tell(real, "heartbeat", bead, actor="agent")
    assert leased(real, bead)
    job = real.board.job_of(bead).id
    real.board.progress(job, "half of it is done")
    real.board.end(job)
    assert reap(real, agent=True).outcomes == {bead: "blocked"}
    assert not leased(real, bead)
    tell(real, "update", bead, "-s", "open")
    assert dispatch(real).outcomes == {bead: "dispatched"}
    assert not leased(real, bead)
