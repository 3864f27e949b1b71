"""One database under one bd after another, each with bdauto: nothing wedges, and nothing is left uncommitted.

`make real-bd` runs it: it needs a folder of several bds, `--bd-dir`.
"""

import re
from pathlib import Path

import pytest

from bdauto.sandbox import Sandbox
from bdauto.sandbox.real_bd import RealBd, on_server
from tests.e2e.test_record import commits, uncommitted
from tests.support.cli import dispatch, metadata, reap, run, status


def bds(request: pytest.FixtureRequest) -> list[Path]:
    """The bds from 1.0.3 on that are harmless on a server, oldest first; what is no number is the newest."""
    folder = request.config.getoption("--bd-dir")
    if folder is None:
        pytest.skip("no --bd-dir")
    found = [program for program in Path(folder).glob("*/bd") if program.parent.name not in ("1.0.2", "1.0.4")]
    numbers = {program: re.findall(r"\d+", program.parent.name) for program in found}
    return sorted(found, key=lambda program: (not numbers[program], [int(number) for number in numbers[program]]))


@pytest.mark.real_bd
@pytest.mark.timeout(600)
@pytest.mark.parametrize("topology", ["server", "embedded"])
def test_each_bd_goes_on_where_the_last_one_stopped(
    request: pytest.FixtureRequest, tmp_path: Path, topology: str
) -> None:
    programs = bds(request)
    options = on_server(request.getfixturevalue("dolt_port")) if topology == "server" else ()
    program = RealBd.create(programs[0], tmp_path, f"chain{topology}", *options)
    before: list[str] = []
    for bd_path in programs:
        program.bd_path = bd_path
        if bd_path.parent.name not in ("1.0.3",):
            assert program.run("migrate", "schema").code == 0
        with Sandbox(real=program, topology="server" if topology == "server" else "embedded") as world:
            world.board.capacity = 9
            bead = world.create()
            assert run(world, "status").code == 0
            assert dispatch(world, agent=True).outcomes == {bead: "dispatched"}
            world.board.end(world.board.job_of(bead).id)
            assert reap(world, agent=True).outcomes[bead] == "blocked"
            assert metadata(world, bead)["attempts"] == 1
            for command in ("pause", "resume"):
                assert run(world, command).code == 0
            assert uncommitted(world) == []
            if topology == "server":
                assert len(commits(world, bead)) == 3
            before.append(bead)
            assert [status(world, each) for each in before] == ["blocked"] * len(before)
