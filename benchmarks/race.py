"""The figures of docs/reliability.md, measured on a real bd with a Dolt server: bdauto beside the incumbent.

    .venv/bin/python -m benchmarks.race [--rounds 20] [--dispatchers 8] [--beads 3]

Starts a Dolt server of its own on a free port, in a temporary folder, and ends it. Needs bd, dolt, curl and jq on PATH.
"""

import argparse
import json
import re
from collections import Counter
from dataclasses import dataclass, field

import sh

from bdauto.sandbox import FakeReply, Sandbox
from bdauto.sandbox.fake_bd.call import BdResult
from benchmarks.stage import INCUMBENT, PROGRAM
from benchmarks.world import dolt_world

COMMANDS = {"bdauto": str(PROGRAM), "incumbent": str(INCUMBENT)}


@dataclass
class Tally:
    """What some rounds came to."""

    beads: int = 0
    posts: int = 0
    duplicates: int = 0
    missed: int = 0
    errors: int = 0
    words: Counter[str] = field(default_factory=Counter)


def race(sandbox: Sandbox, command: str, dispatchers: int, beads: int, tally: Tally) -> None:
    """One round: so many processes at once on so many beads, then as many single cycles to drain the queue."""
    sandbox.posts.clear()
    made = [sandbox.create() for _ in range(beads)]
    ended = [process.wait() for process in [start(sandbox, command) for _ in range(dispatchers)]]
    ended += [start(sandbox, command).wait() for _ in range(beads)]
    posts = Counter(post.task for post in sandbox.posts)
    tally.beads += beads
    tally.posts += posts.total()
    tally.duplicates += sum(count - 1 for count in posts.values())
    tally.missed += sum(bead not in posts for bead in made)
    for process in ended:
        if process.exit_code:
            tally.errors += 1
            told = re.search(rb"Error \d+ \(\w+\)", process.stderr)
            tally.words[told[0].decode() if told else f"exit {process.exit_code}"] += 1
    sandbox.run("update", *made, "-s", "closed", "--json")


def start(sandbox: Sandbox, command: str) -> sh.RunningCommand:
    """Start one dispatcher."""
    env = sandbox.env(BEADS_DB=str(sandbox.db), BD=str(sandbox.bd_path))
    run = sh.Command(command).bake(_env=env, _cwd=str(sandbox.folder), _tty_out=False)
    return run("dispatch", _bg=True, _bg_exc=False, _ok_code=list(range(256)))


def refused(sandbox: Sandbox, command: str, ticks: int) -> tuple[int, int, str]:
    """A bead that BeadBoard refuses, and a good one behind it: posts of the first, posts of the second, its status."""
    sandbox.posts.clear()
    bad, good = sandbox.create(priority=0), sandbox.create(priority=1)
    usual = sandbox.board.bd

    def blank(*args: str, actor: str = "x") -> BdResult:
        answer = usual(*args, actor=actor)
        if args[:2] == ("show", bad) and actor == "beadboard":
            return BdResult(0, json.dumps([json.loads(answer.out)[0] | {"acceptance_criteria": " "}]), "")
        return answer

    sandbox.board.bd = blank
    for _ in range(ticks):
        start(sandbox, command).wait()
    sandbox.board.bd = usual
    posts = Counter(post.task for post in sandbox.posts)
    end = str(sandbox.show(bad)["status"])
    sandbox.run("update", bad, good, "-s", "closed", "--json")
    return posts[bad], posts[good], end


def lost_to(sandbox: Sandbox, command: str, ticks: int) -> tuple[int, int]:
    """An outage of so many ticks: posts, and lines of notes that it left on the one bead."""
    sandbox.posts.clear()
    bead = sandbox.create()
    sandbox.board.reply_next("dispatch", FakeReply(502, '{"error": "Agent service is unreachable."}'), times=ticks)
    for _ in range(ticks):
        start(sandbox, command).wait()
    posts, lines = len(sandbox.posts), len(sandbox.notes(bead))
    while sandbox.board.ordered("dispatch").status:
        pass
    sandbox.run("update", bead, "-s", "closed", "--json")
    return posts, lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Race dispatchers on a real bd with a Dolt server.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dispatchers", type=int, default=8)
    parser.add_argument("--beads", type=int, default=3)
    parser.add_argument("--ticks", type=int, default=5)
    asked = parser.parse_args()
    with dolt_world() as world:
        for name, command in COMMANDS.items():
            with Sandbox(real=world.workspace(f"race{name}"), capacity=10_000) as sandbox:
                tally = Tally()
                for _ in range(asked.rounds):
                    race(sandbox, command, asked.dispatchers, asked.beads, tally)
                rounds = f"{asked.rounds} rounds of {asked.dispatchers} processes on {asked.beads} beads"
                print(f"{name}: {rounds}: {tally}")
                bad, good, end = refused(sandbox, command, asked.ticks)
                print(f"{name}: {asked.ticks} ticks: {bad} posts of a refused bead ({end}), {good} of the next")
                posts, lines = lost_to(sandbox, command, asked.ticks)
                print(f"{name}: {asked.ticks} ticks of an outage: {posts} posts, {lines} lines of notes", flush=True)


if __name__ == "__main__":
    main()
