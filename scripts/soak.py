"""Run `bdauto run` for a while on a real bd with a Dolt server, and watch its memory and its open files.

    python scripts/soak.py --server 127.0.0.1:3306 --minutes 10 --dispatch-every 200ms

Needs bd on PATH and a Dolt server, in which it makes a database of its own; BeadBoard and the agent service are the
sandbox's. A bead is created every few seconds, its job finished a little later, and the metrics are read as Prometheus
would read them.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bdauto.sandbox import Sandbox
from bdauto.sandbox.call import Answer


class Server:
    """A workspace of the real bd on a Dolt server."""

    def __init__(self, folder: Path, server: str) -> None:
        self.bd = Path(shutil.which("bd") or sys.exit("soak: bd is not on PATH")).absolute()
        self.folder, self.db = folder, folder / ".beads"
        host, _, port = server.rpartition(":")
        where = ("--server", "--server-host", host, "--server-port", port, "--external")
        quiet = ("--non-interactive", "-q", "--skip-hooks", "--skip-agents")
        answer = self.run("init", *where, "--prefix", f"soak{os.getpid()}", *quiet)
        if answer.code:
            sys.exit(f"soak: bd init: {answer.err}")

    def run(self, *args: str, actor: str = "soak") -> Answer:
        """Do one call of bd."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "BEADS_ACTOR": actor}
        done = subprocess.run([self.bd, *args], cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    def age(self, bead: str, minutes: float) -> None:
        """Refuse: nothing here needs it."""
        raise NotImplementedError


def sample(pid: int) -> str:
    """Describe a process: its memory, open files, threads, the CPU seconds of itself and of its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    own, children = sum(map(int, times[:2])), sum(map(int, times[2:]))
    tick = os.sysconf("SC_CLK_TCK")
    rss, threads = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("VmRSS", "Threads"))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return (
        f"VmRSS {rss} kB, {files} files, {threads} threads, CPU {own / tick:.1f} s + children {children / tick:.1f} s"
    )


def soak(sandbox: Sandbox, minutes: float, every: str, port: int) -> None:
    """Run, feed and sample; print a line each tenth of the time, and the metrics at the end."""
    command = [sys.executable, "-m", "bdauto", "run", "--dispatch-every", every, "--reap-every", "5s"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([*command, "--listen", str(port)], env=sandbox.env(agent=True), stderr=errors)
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
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        print(f"{elapsed:6.0f} s  {sample(process.pid)}")
        process.send_signal(signal.SIGTERM)
        print(f"exit status {process.wait(60)}; {fed} beads created, {len(sandbox.posts)} posts")
        errors.seek(0)
        loud = [line for line in errors.read().decode().splitlines() if "level=info" not in line]
        print(f"{len(loud)} log lines above info", *loud[:20], sep="\n")
        print(page)


def main() -> None:
    """Parse the command line and soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:3306", metavar="HOST:PORT", help="the Dolt server")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dispatch-every", default="200ms", metavar="DURATION")
    parser.add_argument("--listen", type=int, default=19464, metavar="PORT")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bdauto-soak-"))
    try:
        with Sandbox(real=Server(folder, asked.server), capacity=4) as sandbox:
            soak(sandbox, asked.minutes, asked.dispatch_every, asked.listen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
