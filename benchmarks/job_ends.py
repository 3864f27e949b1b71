"""How soon `bdauto run` acts on the end of a job: it is recorded and told, and its slot is given on."""

import json
import os
import signal
import subprocess
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from bdauto.sandbox.real_bd import RealBd, environment, on_server
from benchmarks.measure import TIMEOUT, Spread
from benchmarks.page import table
from benchmarks.stage import PROGRAM
from benchmarks.world import World

JOBS = 13
"""Jobs of one slot, one after another. What follows the last one is not measured."""
MEDIAN = 1.5
"""Seconds from the end of a job until its result is told and the next job has started, that must be reached."""
AGENT = 'sh -c "sleep 5; bd close $BEAD_ID --reason done"'
"""It works longer than bdauto needs to write the notes of a dispatch."""


def job_ends(world: World) -> str:
    """Measure on a Dolt server and on an embedded database, and return the table."""
    rows = []
    for name, options in (("a Dolt server", on_server(world.port)), ("an embedded database", ())):
        with tempfile.TemporaryDirectory(prefix="bdauto-bench-", ignore_cleanup_errors=True) as folder:
            load = os.getloadavg()[0]
            taken = _taken(RealBd.create(world.bd_path, Path(folder), "ends", *options))
            spread, good = Spread.of(taken), Spread.of(taken).median <= MEDIAN
            figure = f"**{spread.median:.2f} s** ({spread.p10:.2f}–{spread.p90:.2f})"
            rows.append([f"`bdauto run` on {name}, median", f"≤ {MEDIAN} s", figure, "yes" if good else "**no**"])
            rows[-1].append(f"{load:.1f}")
    words = (
        f"{JOBS - 1} ends of jobs with one slot for each; from the time in `end.json` until the result is on its bead "
        "and in the log, and the next job has started.\n\n"
    )
    columns = ["from a job's end to the next job", "must reach", "measured", "reached", "load average"]
    return words + table(columns, rows)


def _taken(workspace: RealBd) -> list[float]:
    """Return the seconds from each end of a job until it is told and its slot is used again."""
    for number in range(JOBS):
        done = workspace.run("create", f"bead {number}", "--acceptance", "it works", "-a", "agent")
        assert done.code == 0, done
    jobs, log = workspace.folder / "jobs", workspace.folder / "log"
    words = [str(PROGRAM), "run", "--db", str(workspace.db), "--agent-command", AGENT, "--log-format", "json"]
    with log.open("wb") as file:
        env = environment(workspace.home, BDAUTO_BD=str(workspace.bd_path), BDAUTO_AGENT_JOBS=str(jobs))
        process = subprocess.Popen(words, cwd=workspace.folder, env=env, stderr=file, stdout=subprocess.DEVNULL)
        try:
            told = _told(log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return _between(jobs, told)


def _told(log: Path) -> dict[str, float]:
    """Wait until all results are told. Return when, by job."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        found = [event for event in events if event["event"] == "result"]
        if len(found) >= JOBS:
            return {event["job"]: datetime.fromisoformat(event["time"]).timestamp() for event in found}
        if time.monotonic() > deadline:
            raise SystemExit(f"bdauto run stands still: {log.read_text()[-500:]}")
        time.sleep(0.2)


def _between(jobs: Path, told: dict[str, float]) -> list[float]:
    started = {job: float(json.loads((jobs / job / "job.json").read_bytes())["started"]) for job in told}
    ended = {job: float(json.loads((jobs / job / "end.json").read_bytes())["ended"]) for job in told}
    order = sorted(told, key=started.__getitem__)
    return [max(started[later], told[job]) - ended[job] for job, later in pairwise(order)]
