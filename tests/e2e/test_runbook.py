"""The runbook's bd commands, as a person types them, on the real bd."""

import re
import subprocess
from pathlib import Path

import pytest

from bdauto.sandbox.real_bd import RealBd, environment
from tests.support.cli import REAL_FLAVOURS, make_world, tell
from tests.support.patience import seconds

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
COMMANDS = re.findall(r"^(?:ID=\$\()?bd .*$", RUNBOOK.read_text(), re.MULTILINE)


@pytest.mark.parametrize("flavour", REAL_FLAVOURS)
def test_each_command_works(request: pytest.FixtureRequest, flavour: str) -> None:
    """On a bead in progress, but for the assignment of one that has not started. The bd is the one on PATH."""
    assert len(COMMANDS) > 8
    with make_world(request, flavour) as world:
        program = world.workspace
        assert isinstance(program, RealBd)
        for command in dict.fromkeys(COMMANDS):
            bead = world.create(assignee="agent-smoke" if "agent-smoke" in command else "agent")
            if command != "bd update ID -a me":
                tell(world, "update", bead, "-s", "in_progress")
            line = re.sub(r'(?<= )(ID|"\$ID")(?= |$)', bead, command)
            env = environment(program.home, BEADS_ACTOR="ann")
            done = subprocess.run(
                ["/bin/sh", "-e", "-c", line],
                cwd=program.folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=seconds(60),
            )
            assert done.returncode == 0, (line, done)
