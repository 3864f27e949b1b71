"""Two hosts on one tracker, each with a name and a jobs' folder of its own: a job is its own host's affair."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from bdauto.sandbox import Sandbox
from tests.e2e.test_local_agent import Machine
from tests.support.cli import Done, finish, make_world, metadata, start, status, tell, wait_minutes

SPACES = (("unshare", "--uts"), ("unshare", "--uts", "--map-root-user"))
"""Commands that give a process a host's name of its own, as root and as another user."""


class Host(Machine):
    """A machine with a name of its own, where the system lets a test have one."""

    def __init__(self, world: Sandbox, name: str) -> None:
        super().__init__(world)
        self.jobs = type(self.jobs)(world.folder / f"jobs-{name}")
        self.inside = next((words for space in SPACES if _works(words := _named(space, name))), ())

    def run(self, *words: str, command: str = "", **env: str) -> Done:
        told: dict[str, Any] = {"BEADBOARD_URL": "", "BDAUTO_AGENT_JOBS": str(self.jobs.path), **env}
        told["BDAUTO_AGENT_COMMAND"] = command or str(self.agent)
        return finish(start(self.world, *words, inside=self.inside, **told), self.world)


def _named(space: tuple[str, ...], name: str) -> tuple[str, ...]:
    return (*space, "sh", "-c", f'hostname {name} && exec "$@"', "sh")


def _works(words: tuple[str, ...]) -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*words, "true"], capture_output=True).returncode


@pytest.fixture(params=["server", pytest.param("real-server", marks=pytest.mark.real_bd)])
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    with make_world(request, request.param) as world:
        pair = Host(world, "owner"), Host(world, "other")
        yield pair
        for host in pair:
            for job in host.jobs.running():
                host.jobs.stop(job, "the test's end")
            host.ended()


@pytest.mark.parametrize("closes", [False, True], ids=["left in progress", "closed by its agent"])
def test_only_the_host_that_has_the_job_settles_its_bead(hosts: tuple[Host, Host], closes: bool) -> None:
    owner, other = hosts
    world, bead, go = owner.world, owner.world.create(), owner.world.folder / "go"
    close = '$BD close "$BEAD_ID" --reason "all done" >&2' if closes else "true"
    owner.does(f"until [ -e {go} ]; do sleep 0.1; done; {close}; echo '{{\"total_cost_usd\": 5.5}}'")
    assert owner.dispatch().outcomes == {bead: "dispatched"}
    job = owner.job(bead)

    wait_minutes(world, bead, 31)  # beyond --threshold, and its agent has written nothing
    assert other.run("reap", "--json", "--on-stall", "requeue").outcomes == {bead: "kept"}
    refused = other.run("cancel", bead)
    assert (refused.code, "which alone can be asked" in refused.complaint) == (4, True)
    if other.inside:
        assert "was claimed by host owner " in refused.complaint
    tell(world, "update", bead, "-s", "open")
    assert other.dispatch().outcomes == {bead: "kept"}
    assert (other.jobs.ids(), owner.jobs.running()) == ([], [job])
    assert owner.dispatch("--agent-slots", "2").outcomes == {bead: "reverted"}

    go.touch()
    owner.ended()
    wait_minutes(world, bead, 31)
    other.run("reap")
    assert (status(world, bead), metadata(world, bead)["result"]) == ("closed" if closes else "in_progress", "running")
    owner.run("reap")
    [ran] = json.loads(str(metadata(world, bead)["runs"]))
    assert (ran["job"], ran["result"], ran["cost"]) == (job, "completed", 5.5)
    assert status(world, bead) == ("closed" if closes else "open")
