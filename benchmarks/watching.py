"""What watching the tracker is for: how soon a bead is posted after its assignment, and what an idle hour costs."""

import contextlib
import random
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from bdauto.sandbox import FakeBeadBoard
from benchmarks.beads import SeedBead, others
from benchmarks.loop import Cycles
from benchmarks.measure import Spread, cpu_of
from benchmarks.page import table
from benchmarks.stage import Stage
from benchmarks.world import dolt_world, instant_beadboard
from tests.support.dolt import free_port

BEADS = 30
PAUSES = 2.0, 8.0
"""Seconds between two assignments, at random."""
PATIENCE = 120.0
SETTLING = 150.0
"""Seconds after which an idle loop that polls has reached its slowest pace."""
STRETCH = 600.0
"""Seconds for which idle loops are measured."""
HOUR = 3600.0
BD, WRITTEN, CPU_SHARE = 15, 64 * 2**10, 0.2
"""What an idle hour may cost: bd processes, bytes written, and CPU seconds as a part of polling's."""
OWN = "watching a server of its own"
"""The loop whose Dolt server runs on this machine, with its files where bd has them if it starts the server."""
TEN, LANES_SHARE = "ten lanes", 1.5
"""The same with ten lanes, and how many times as much CPU time they may take."""
MEDIAN, TAIL = 1.2, 2.5
"""Seconds from an assignment to its POST that must be reached: the median, and the 99th percentile."""


def latencies(stage: Stage, count: int = BEADS) -> list[float]:
    """Return the seconds from the start of each `bd update -a agent` to the POST, at random times, in server mode.

    The agent closes its bead two seconds later.
    """
    rng = random.Random(1)
    people = [SeedBead(bead.priority, bead.created, bead.updated, "open", "alice") for bead in others(count)]
    tracker = stage.world.tracker(people + others())
    ids = [f"{tracker.name}-{number:05x}" for number in range(count)]
    taken: list[float] = []
    with Cycles(stage.watching(tracker)) as loop:
        loop.wait_for("watching")
        loop.wait(1)
        for bead in ids:
            time.sleep(rng.uniform(*PAUSES))
            posts = len(stage.board.posts)
            began = time.time()
            assert tracker.workspace.run("update", bead, "-a", "agent").code == 0
            while len(stage.board.posts) == posts and time.time() - began < PATIENCE:
                time.sleep(0.005)
            assert stage.board.posts[-1].task == bead, f"{bead} was not posted"
            taken.append(stage.board.posts[-1].at - began)
            time.sleep(max(began + taken[-1] + 2 - time.time(), 0))
            assert tracker.workspace.run("close", bead, actor="agent").code == 0
    return taken


def latency_table(taken: list[float]) -> str:
    """Return the table of the time from assignment to POST."""
    spread, worst = Spread.of(taken), sorted(taken)[max(round(0.99 * len(taken)) - 1, 0)]
    rows = [
        ["`bdauto run`, median", f"≤ {MEDIAN} s", f"**{spread.median:.2f} s**", _reached(spread.median <= MEDIAN)],
        ["`bdauto run`, 99th percentile", f"≤ {TAIL} s", f"**{worst:.2f} s**", _reached(worst <= TAIL)],
        ["the script's CronJob", "", "60 s on average, 120 s at most, and the pod's start", ""],
    ]
    words = f"{len(taken)} beads, assigned at random times; from the start of `bd update ID -a agent` to the POST.\n\n"
    return words + table(["from assignment to POST", "must reach", "measured", "reached"], rows)


def _reached(good: bool) -> str:
    return "yes" if good else "**no**"


@dataclass(frozen=True)
class Costs:
    """What something has used so far, or in some seconds: processes, CPU seconds, requests, bytes."""

    seconds: float
    bd: float
    cpu: float
    server: float
    requests: float
    written: float

    def since(self, before: "Costs") -> "Costs":
        """Return the difference."""
        return Costs(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))

    def an_hour(self) -> "Costs":
        """Return what an hour of it would cost."""
        return Costs(*(getattr(self, each.name) * HOUR / self.seconds for each in fields(self)))


class IdleLoop:
    """An idle `bdauto run`, with a Dolt server and a BeadBoard of its own. Without options nothing but the server."""

    def __init__(self, *options: str, own: bool = False, lanes: int = 0) -> None:
        """Start all of it, with so many `lanes`.

        With `own` the server's files are where a server that bd starts has them.
        """
        self._stack = contextlib.ExitStack()
        self._world = self._stack.enter_context(dolt_world())
        self._board: FakeBeadBoard = self._stack.enter_context(contextlib.closing(instant_beadboard()))
        stage = Stage(self._world, self._board)
        if lanes:
            file = self._world.data.parent / "lanes.toml"
            file.write_text("".join(f'[lanes.l{number}]\nlabels = ["l{number}"]\n' for number in range(lanes)))
            file.chmod(0o600)
            options = (*options, "--config", str(file))
        contender = stage.loop("--listen", f"127.0.0.1:{free_port()}", *options)
        if own:
            place = Path(contender.env["BDAUTO_DB"], "dolt")
            shutil.rmtree(place, ignore_errors=True)
            place.symlink_to(self._world.data)
        self._server = pid_of(f"\0{self._world.port}\0")
        self._loop = self._stack.enter_context(Cycles(contender)) if options else None

    def close(self) -> None:
        """Stop all of it."""
        self._stack.close()

    def costs(self) -> Costs:
        """Return what was used so far."""
        server, now = cpu_of(self._server), time.monotonic()
        if self._loop is None:
            return Costs(now, 0, 0, server, 0, 0)
        pid = self._loop.pid
        return Costs(now, self._loop.bd, cpu_of(pid), server, len(self._board.requests), written(pid))


class IdleHour:
    """Idle loops side by side: two that watch, one that polls. And a Dolt server that nobody asks."""

    def __init__(self) -> None:
        self._loops = {
            OWN: IdleLoop("--watch", "auto", own=True),
            TEN: IdleLoop("--watch", "auto", own=True, lanes=10),
            "watching": IdleLoop("--watch", "auto"),
            "polling": IdleLoop("--watch", "off"),
            "nobody": IdleLoop(),
        }
        self._settled = time.monotonic() + SETTLING
        self._before: dict[str, Costs] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for loop in self._loops.values():
            loop.close()

    def settle(self) -> None:
        """Begin to measure, once the loops have reached their pace."""
        time.sleep(max(self._settled - time.monotonic(), 0))
        self._before = {name: loop.costs() for name, loop in self._loops.items()}

    def measure(self) -> dict[str, Costs]:
        """Return the costs since then, of at least STRETCH; the server's without what it uses when nobody asks."""
        began = self._before[OWN].seconds
        time.sleep(max(began + STRETCH - time.monotonic(), 0))
        found = {name: loop.costs().since(self._before[name]) for name, loop in self._loops.items()}
        idle = found.pop("nobody").server
        return {
            name: Costs(one.seconds, one.bd, one.cpu, max(one.server - idle, 0.0), one.requests, one.written)
            for name, one in found.items()
        }


def pid_of(words: str) -> int:
    """Return the process with these words in its command line, which are separated by NUL."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in file.read_text(encoding="utf-8", errors="replace"):
                return int(file.parent.name)
    raise SystemExit(f"no process has {words!r} in its command line")


def written(pid: int) -> int:
    """Return the bytes that a process and its children that have ended had written to storage, 0 if it is secret."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def hour_table(found: dict[str, Costs]) -> str:
    """Return the table of an idle hour."""
    own, ten, watching, polling = (found[name].an_hour() for name in (OWN, TEN, "watching", "polling"))
    before = polling.cpu + polling.server

    def cpu(costs: Costs) -> str:
        both = costs.cpu + costs.server
        return f"{both:.1f} ({costs.cpu:.1f} + {costs.server:.1f}), {both / before:.2f} × polling"

    share = (own.cpu + own.server) / before
    lanes = (ten.cpu + ten.server) / (own.cpu + own.server)
    rows = [
        ["bd processes", f"≤ {BD}", f"**{own.bd:.0f}**", f"{watching.bd:.0f}", f"{polling.bd:.0f}",
         _reached(own.bd <= BD)],
        ["CPU seconds of bdauto, bd and, as its share, the SQL server", f"≤ {CPU_SHARE} × polling", f"**{cpu(own)}**",
         cpu(watching), f"{before:.1f} ({polling.cpu:.1f} + {polling.server:.1f})", _reached(share <= CPU_SHARE)],
        ["the same with ten lanes on one tracker", f"≤ {LANES_SHARE} × one", f"**{lanes:.2f} × one**", "", "",
         _reached(lanes <= LANES_SHARE)],
        ["requests to BeadBoard", "0", f"**{own.requests:.0f}**", f"{watching.requests:.0f}", f"{polling.requests:.0f}",
         _reached(own.requests == 0)],
        ["KiB written by bdauto and bd", f"≤ {WRITTEN // 1024}", f"**{own.written / 1024:.0f}**",
         f"{watching.written / 1024:.0f}", f"{polling.written / 1024:.0f}", _reached(own.written <= WRITTEN)],
    ]  # fmt: skip
    words = f"An idle hour, from {found[OWN].seconds:.0f} s at the defaults, serving the metrics.\n\n"
    columns = ["an idle hour", "must reach", OWN, "watching another's server", "polling (`--watch off`)", "reached"]
    return words + table(columns, rows)
