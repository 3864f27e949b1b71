"""The figures of docs/reliability.md, measured on a real bd with a Dolt server: bdauto beside the incumbent.

    .venv/bin/python scripts/race.py [--rounds 20] [--dispatchers 8] [--beads 3]

Starts a Dolt server of its own on a free port, in a temporary folder, and ends it. Needs bd, dolt, curl and jq on PATH.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bdauto.sandbox import Reply, Sandbox
from bdauto.sandbox.call import Answer

HERE = Path(__file__).parent
BDAUTO = [str(Path(sys.executable).with_name("bdauto")), "dispatch"]
INCUMBENT = [str(HERE / "incumbent.sh"), "dispatch"]


class Workspace:
    """A workspace of the real bd on a Dolt server."""

    def __init__(self, folder: Path, port: int) -> None:
        found = shutil.which("bd")
        if not found:
            sys.exit("bd is not on PATH")
        self.bd, self.folder, self.db = Path(found), folder, folder / ".beads"
        folder.mkdir()
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        server = ("--server", "--server-host", "127.0.0.1", "--server-port", str(port), "--external")
        quiet = ("--non-interactive", "-q", "--skip-hooks", "--skip-agents")
        answer = self.run("init", *server, "--prefix", folder.name, *quiet)
        if answer.code:
            sys.exit(f"bd init failed: {answer.err}")

    def run(self, *args: str, actor: str = "tester") -> Answer:
        """Do one call of bd."""
        env = {**os.environ, "BEADS_ACTOR": actor}
        done = subprocess.run([self.bd, *args], cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    def age(self, bead: str, minutes: float) -> None:
        """Make a bead's last change older."""
        moment = f"DATE_SUB(UTC_TIMESTAMP(), INTERVAL {int(minutes * 60)} SECOND)"
        self.run("sql", f"UPDATE issues SET updated_at = {moment} WHERE id = '{bead}'", "--json")


@contextlib.contextmanager
def dolt_server(folder: Path) -> Iterator[int]:
    """A Dolt server in a folder; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["dolt", "sql-server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        assert server.stdout is not None
        lines = iter(server.stdout)
        next(line for line in lines if "Server ready" in line)
        threading.Thread(target=deque, args=(lines, 0), daemon=True).start()  # a full pipe would stop the server
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@dataclass
class Tally:
    """What some rounds came to."""

    beads: int = 0
    posts: int = 0
    duplicates: int = 0
    missed: int = 0
    errors: int = 0
    words: Counter[str] = field(default_factory=Counter)


def race(world: Sandbox, command: list[str], dispatchers: int, beads: int, tally: Tally) -> None:
    """One round: so many processes at once on so many beads, then as many single cycles to drain the queue."""
    world.posts.clear()
    made = [world.create() for _ in range(beads)]
    processes = [start(world, command) for _ in range(dispatchers)]
    ended = [(process.communicate()[1], process.returncode) for process in processes]
    for _ in range(beads):
        process = start(world, command)
        ended.append((process.communicate()[1], process.returncode))
    posts = Counter(post.task for post in world.posts)
    tally.beads += beads
    tally.posts += posts.total()
    tally.duplicates += sum(count - 1 for count in posts.values())
    tally.missed += sum(bead not in posts for bead in made)
    for words, code in ended:
        if code:
            tally.errors += 1
            told = re.search(rb"Error \d+ \(\w+\)", words)
            tally.words[told[0].decode() if told else f"exit {code}"] += 1
    world.run("update", *made, "-s", "closed", "--json")


def start(world: Sandbox, command: list[str]) -> "subprocess.Popen[bytes]":
    """Start one dispatcher."""
    env = world.env(BEADS_DB=str(world.db), BD=str(world.bd))
    return subprocess.Popen(command, env=env, cwd=world.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def refused(world: Sandbox, command: list[str], ticks: int) -> tuple[int, int, str]:
    """A bead that BeadBoard refuses, and a good one behind it: posts of the first, posts of the second, its status."""
    world.posts.clear()
    bad, good = world.create(priority=0), world.create(priority=1)
    usual = world.board.bd

    def blank(*args: str, actor: str = "x") -> Answer:
        answer = usual(*args, actor=actor)
        if args[:2] == ("show", bad) and actor == "beadboard":
            return Answer(0, json.dumps([json.loads(answer.out)[0] | {"acceptance_criteria": " "}]), "")
        return answer

    world.board.bd = blank
    for _ in range(ticks):
        start(world, command).communicate()
    world.board.bd = usual
    posts = Counter(post.task for post in world.posts)
    end = str(world.show(bad)["status"])
    world.run("update", bad, good, "-s", "closed", "--json")
    return posts[bad], posts[good], end


def lost_to(world: Sandbox, command: list[str], ticks: int) -> tuple[int, int]:
    """An outage of so many ticks: posts, and lines of notes that it left on the one bead."""
    world.posts.clear()
    bead = world.create()
    world.board.reply_next("dispatch", Reply(502, '{"error": "Agent service is unreachable."}'), times=ticks)
    for _ in range(ticks):
        start(world, command).communicate()
    posts, lines = len(world.posts), len(world.notes(bead))
    while world.board.ordered("dispatch").status:
        pass
    world.run("update", bead, "-s", "closed", "--json")
    return posts, lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Race dispatchers on a real bd with a Dolt server.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dispatchers", type=int, default=8)
    parser.add_argument("--beads", type=int, default=3)
    parser.add_argument("--ticks", type=int, default=5)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bdauto-race-"))
    try:
        (root / "dolt").mkdir()
        with dolt_server(root / "dolt") as port:
            for name, command in (("bdauto", BDAUTO), ("incumbent", INCUMBENT)):
                with Sandbox(real=Workspace(root / f"race{name}", port), capacity=10_000) as world:
                    tally = Tally()
                    for _ in range(asked.rounds):
                        race(world, command, asked.dispatchers, asked.beads, tally)
                    rounds = f"{asked.rounds} rounds of {asked.dispatchers} processes on {asked.beads} beads"
                    print(f"{name}: {rounds}: {tally}")
                    bad, good, end = refused(world, command, asked.ticks)
                    print(f"{name}: {asked.ticks} ticks: {bad} posts of a refused bead ({end}), {good} of the next")
                    posts, lines = lost_to(world, command, asked.ticks)
                    print(
                        f"{name}: {asked.ticks} ticks of an outage: {posts} posts, {lines} lines of notes", flush=True
                    )
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
