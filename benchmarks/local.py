"""What an agent on this machine costs: the start of a job, and the memory of its supervisor."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bdauto.agents.answers import Started
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import CommandLine
from benchmarks.measure import Spread, high_water
from tests.support.fakes import bead
from tests.support.jobs import supervisor_of

START_LIMIT = 0.060
"""Seconds that the start of a job may add to a dispatch."""
MEMORY_LIMIT = 15 * 2**20
OUTPUT = "head -c 20000000 /dev/zero | tr '\\0' x; touch written; sleep 300"
"""An agent that writes 20 MB and then does nothing."""


@dataclass(frozen=True)
class LocalCosts:
    """Seconds that each start took, and the supervisors' peak memory in bytes."""

    starts: list[float]
    peaks: list[int]

    def rows(self) -> list[list[str]]:
        """Return the rows of the main table."""
        spread, most = Spread.of(self.starts), max(self.peaks)
        times = f"**{spread.median * 1000:.0f} ms** ({spread.p10 * 1000:.0f}–{spread.p90 * 1000:.0f})"
        memory = f"**{most / 2**20:.1f} MiB** ({min(self.peaks) / 2**20:.1f}–{most / 2**20:.1f})"
        return [
            _row("start of a job on this machine", "≤ 60 ms", times, spread.median <= START_LIMIT, len(self.starts)),
            _row("peak memory of a job's supervisor", "≤ 15 MiB", memory, most <= MEMORY_LIMIT, len(self.peaks)),
        ]


def _row(what: str, target: str, figure: str, reached: bool, rounds: int) -> list[str]:
    return [what, "", target, figure, "yes" if reached else "**no**", "", "", str(rounds)]


def local_costs(rounds: int) -> LocalCosts:
    """Start jobs, one after another. The last few write 20 MB each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".beads").mkdir()
        starts = [_start(folder, f"s{number}", "true") for number in range(rounds)]
        return LocalCosts(starts, [_peak(folder, f"m{number}") for number in range(3)])


def _agent(folder: Path, script: str) -> LocalAgent:
    command = CommandLine(("sh", "-c", script))
    settings = LocalAgentSettings(agent_command=command, agent_jobs=folder / "jobs", agent_slots=1000)
    return LocalAgent(settings, folder / ".beads", "agent", {"PATH": os.environ["PATH"]})


def _start(folder: Path, job: str, script: str) -> float:
    agent = _agent(folder, script)
    began = time.perf_counter()
    answer = agent.start(bead(), job)
    took = time.perf_counter() - began
    assert answer == Started(job), answer
    if script == "true":
        _until(lambda: agent.job_state(job) != "running")
    return took


def _peak(folder: Path, job: str) -> int:
    written = folder / "written"
    written.unlink(missing_ok=True)
    _start(folder, job, OUTPUT)
    _until(written.exists)
    agent = _agent(folder, OUTPUT)
    most = high_water(supervisor_of(folder / "jobs" / job))
    agent.cancel(job, "the benchmark")
    return most


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit("a job does not end")
        time.sleep(0.01)
