"""Run `bdauto run` for a while on a real bd with a Dolt server, and watch its memory and its open files.

    python -m benchmarks.soak --minutes 10 --dispatch-every 200ms

Needs bd and dolt on PATH. BeadBoard and the agent service are the sandbox's. A bead is created every few seconds, its
job finished a little later, and the metrics are read as Prometheus would read them.
"""

import argparse
import re
import signal
import time
from pathlib import Path

import httpx
import sh

from bdauto.sandbox import Sandbox
from benchmarks.measure import TICKS
from benchmarks.stage import PROGRAM
from benchmarks.world import dolt_world
from tests.support.dolt import free_port


def sample(pid: int) -> str:
    """Describe a process: its memory, open files, threads, the CPU seconds of itself and of its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    own, children = sum(map(int, times[:2])), sum(map(int, times[2:]))
    rss, threads = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("VmRSS", "Threads"))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return (
        f"VmRSS {rss} kB, {files} files, {threads} threads, CPU {own / TICKS:.1f} s + children {children / TICKS:.1f} s"
    )


def soak(sandbox: Sandbox, minutes: float, every: str, port: int) -> None:
    """Run, feed and sample; print a line each tenth of the time, and the metrics at the end."""
    command = sh.Command(str(PROGRAM)).bake(
        "run", "--watch", "off", "--dispatch-every", every, "--reap-every", "5s", "--listen", port
    )
    process = command(_env=sandbox.env(agent=True), _bg=True, _bg_exc=False, _tty_out=False, _ok_code=list(range(256)))
    began = time.monotonic()
    length, sampled, fed = minutes * 60, 0, 0
    while (elapsed := time.monotonic() - began) < length:
        time.sleep(1)
        if elapsed >= fed * 3:
            fed += 1
            sandbox.create(f"bead {fed}")
            for job in list(sandbox.board.jobs.values()):
                if job.status == "running" and fed % 2:
                    sandbox.board.finish(job.id)
        if elapsed >= 5 and elapsed >= sampled * length / 10:
            sampled += 1
            print(f"{elapsed:6.0f} s  {sample(process.pid)}", flush=True)
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    print(f"{elapsed:6.0f} s  {sample(process.pid)}")
    process.signal(signal.SIGTERM)
    process.wait(60)
    print(f"exit status {process.exit_code}; {fed} beads created, {len(sandbox.posts)} posts")
    loud = [line for line in process.stderr.decode().splitlines() if "level=info" not in line]
    print(f"{len(loud)} log lines above info", *loud[:20], sep="\n")
    print(page)


def main() -> None:
    """Parse the command line and soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dispatch-every", default="200ms", metavar="DURATION")
    asked = parser.parse_args()
    with dolt_world() as world, Sandbox(real=world.workspace("soak"), capacity=4) as sandbox:
        soak(sandbox, asked.minutes, asked.dispatch_every, free_port())


if __name__ == "__main__":
    main()
