"""Measures bdauto against the shell script and bare bd, and writes the tables and the picture of docs/performance.md.

    make bench                                            everything
    .venv/bin/python scripts/bench.py --quick             few rounds; nothing is written
    .venv/bin/python scripts/bench.py --only idle --only one

With `bd` and `dolt` on PATH it starts a Dolt server of its own in a temporary folder; else it runs on the sandbox, says
so, and compares bdauto only with itself. The programs of a row run in turns, so that whatever slows the machine slows
all of them, and a row's figure is the median of the ratios round by round.
"""

import argparse
import contextlib
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from bench_beads import Shape
from bench_day import Tick, day_table
from bench_loop import Cycles, cpu_of_cycles, memory_after, pace_of
from bench_measure import Sample, Scene, interleaved, once, peak
from bench_page import HEAD, Row, machine, table, write
from bench_picture import chart
from bench_stage import BARE, BDAUTO, SCRIPT, SWITCH, Stage
from bench_world import BeadBoard, World, free_port, real_world, sandbox_world

from bdauto import __version__

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "wall-time.svg"
LONG = 3000
LENGTHS = (10, 100, 1000, LONG, 10_000)
SHAPES: tuple[Shape, ...] = ("usual", "one priority", "shuffled", "reversed, one priority")
SCENE_SECONDS = 40.0
"""A scene stops after this long, once it has its least rounds."""
SIDE_ROUNDS = 6
"""Rounds of what is only told: other queues than the table's."""
FAST = "250ms"
"""The interval of the `bdauto run` whose cycles are measured; what a cycle costs does not depend on it."""
MEMORY_LIMIT = 64 * 2**20
ONLY = ("idle", "one", "reap", "long", "run", "pod", "memory", "chart", "day")

Samples = dict[str, list[Sample]]


@dataclass
class Bench:
    """The measurements, each made once however many tables need it."""

    stage: Stage
    rounds: int
    seconds: float
    lengths: tuple[int, ...] = LENGTHS
    _samples: dict[str, Samples] = field(default_factory=dict)

    def measure(self, name: str, scene: Callable[[], Scene], most: int = 1000) -> Samples:
        """Measure a scene of this name in `most` rounds or less, or return what was measured."""
        if name not in self._samples:
            start = time.monotonic()
            self._samples[name] = interleaved(scene(), min(self.rounds, most), self.seconds)
            _say(f"{name}: {time.monotonic() - start:.0f} s")
        return self._samples[name]

    def idle(self) -> Samples:
        """Measure an idle dispatch."""
        return self.measure("idle dispatch", self.stage.idle)

    def sweep(self) -> Samples:
        """Measure an idle reap."""
        return self.measure("idle reap", lambda: self.stage.idle("reap"))

    def one(self) -> Samples:
        """Measure the dispatch of one bead."""
        return self.measure("dispatch of one bead", self.stage.one)

    def reap(self) -> Samples:
        """Measure the reap of ten stalled beads."""
        return self.measure("reap of ten stalled beads", self.stage.stalled)

    def queue(self, length: int, shape: Shape = "usual") -> Samples:
        """Measure a dispatch among many eligible beads."""
        most = 1000 if (length, shape) == (LONG, "usual") else SIDE_ROUNDS
        return self.measure(f"dispatch among {length:,}, {shape}", lambda: self.stage.queue(length, shape), most)

    def pod(self) -> Samples:
        """Measure a dispatch in a fresh folder."""
        return self.measure(f"dispatch among {LONG:,} in a fresh folder", lambda: self.stage.pod(LONG))

    def run(self) -> Samples:
        """Measure idle cycles of `bdauto run` and what they are compared with; CPU only."""
        if "run" not in self._samples:
            loop = self.stage.loop("--dispatch-every", FAST, "--reap-every", "1h")
            self._samples["run"] = cpu_of_cycles(loop, self.stage.bare(), min(self.rounds, 8))
            _say("run")
        return self._samples["run"]

    def memory(self) -> dict[str, int]:
        """Return bdauto's own peak memory, in bytes, in several scenes."""
        scenes = {"idle dispatch": self.stage.idle(), "one bead": self.stage.one(), "reap of ten": self.stage.stalled()}
        scenes |= {f"dispatch among {LONG:,}, {shape}": self.stage.queue(LONG, shape) for shape in SHAPES}
        peaks = {name: peak(scene[BDAUTO]) for name, scene in scenes.items()}
        for queue, where in ((0, "idle"), (LONG, f"among {LONG:,}")):
            peaks[f"`bdauto run --listen`, {where}"] = memory_after(
                self.stage.loop("--listen", listen(), queue=queue), 2
            )
        _say("memory")
        return peaks

    def ticks(self) -> dict[str, Tick]:
        """Return what one tick costs, of the script and of bdauto."""
        scenes = (
            (self.idle(), self.stage.idle()),
            (self.one(), self.stage.one()),
            (self.sweep(), self.stage.idle("reap")),
        )
        ticks = {}
        for name in (SCRIPT, BDAUTO):
            cpu = [statistics.median(sample.cpu for sample in samples[name]) for samples, _ in scenes]
            bd = [self._bd_processes(scene, name) for _, scene in scenes]
            ticks[name] = Tick(cpu[0], cpu[1], cpu[2], bd[0], bd[1], bd[2])
        return ticks

    def _bd_processes(self, scene: Scene, name: str) -> int:
        file = self.stage.world.home / "counted"
        file.write_bytes(b"")
        once(self.stage.counted(scene[name], file))
        return len(file.read_bytes().splitlines())


def figures(bench: Bench, wanted: Sequence[str]) -> list[list[str]]:
    """Return the rows of the main table that are wanted."""
    rows: list[Row] = []
    if "idle" in wanted:
        idle = bench.idle()
        rows.append(Row("idle `dispatch`", "the script", 1.0, idle[BDAUTO], idle[SCRIPT]))
        rows.append(Row("idle `dispatch`", "one bare `bd query`", 1.3, idle[BDAUTO], idle[BARE]))
        rows.append(Row("the script, idle", "one bare `bd query`", None, idle[SCRIPT], idle[BARE]))
    if "one" in wanted:
        rows.append(Row("`dispatch` of one bead", "the script", 0.75, bench.one()[BDAUTO], bench.one()[SCRIPT]))
    if "reap" in wanted:
        reap = bench.reap()
        rows.append(Row("`reap` of ten stalled beads", "the script", 0.4, reap[BDAUTO], reap[SCRIPT]))
    if "long" in wanted:
        queue = bench.queue(LONG)
        bare = "`bd query … --limit 0`"
        rows.append(Row(f"`dispatch` among {LONG:,} eligible beads", bare, 0.5, queue[BDAUTO], queue[BARE]))
    if "run" in wanted:
        run, what = bench.run(), "idle cycle of `bdauto run`"
        with_switch = [Sample(0, one.cpu + two.cpu) for one, two in zip(run["run"], run[SWITCH], strict=True)]
        rows.append(Row(what, "one bare `bd query`", 1.2, run["run"], run[BARE], "cpu"))
        rows.append(Row(f"{what} that looks at the switch", "one bare `bd query`", 2.2, with_switch, run[BARE], "cpu"))
    if "pod" in wanted:
        pod = bench.pod()
        what = f"`dispatch --metadata FILE` among {LONG:,}, fresh folder"
        rows.append(Row(what, "the script, fresh folder", 0.2, pod[BDAUTO], pod[SCRIPT]))
    cells = [row.cells() for row in rows]
    if "memory" in wanted:
        cells.append(_memory_cells(bench.memory()))
    return cells


def _memory_cells(peaks: dict[str, int]) -> list[str]:
    worst = max(peaks, key=lambda name: peaks[name])
    reached = "yes" if peaks[worst] <= MEMORY_LIMIT else "**no**"
    mebibytes = f"**{peaks[worst] / 2**20:.0f} MiB** ({min(peaks.values()) / 2**20:.0f}–{peaks[worst] / 2**20:.0f})"
    return [
        f"peak memory of bdauto itself; most in: {worst}",
        "",
        "≤ 64 MiB",
        mebibytes,
        reached,
        "",
        "",
        str(len(peaks)),
    ]


def shapes(bench: Bench) -> str:
    """Return the table of differently ordered queues of LONG beads."""
    rows = []
    for shape in SHAPES:
        queue = bench.queue(LONG, shape)
        rows.append(
            Row(f"`dispatch` among {LONG:,}: {shape}", "`bd query … --limit 0`", None, queue[BDAUTO], queue[BARE])
        )
    return table(HEAD, [row.cells() for row in rows])


def lengths(bench: Bench) -> tuple[str, str]:
    """Return the table and the picture of wall time against the queue's length."""
    names = {BDAUTO: "bdauto dispatch", SCRIPT: "the script", BARE: "bd query --limit 0"}
    times = {
        length: {name: statistics.median(run.wall for run in runs) for name, runs in bench.queue(length).items()}
        for length in bench.lengths
    }
    present = [name for name in names if name in times[bench.lengths[0]]]
    rows = [[f"{length:,}", *(f"{times[length][name] * 1000:,.0f}" for name in present)] for length in times]
    picture = chart(
        "One bead dispatched from a long queue",
        "eligible beads",
        "wall time, median",
        {names[name]: [(length, times[length][name]) for length in times] for name in present},
    )
    return table(["eligible beads", *(f"{names[name]}, ms" for name in present)], rows), picture


def day(bench: Bench, watched: Cycles) -> str:
    """Return the table of a day's cost; `watched` is an idle `bdauto run` at its defaults, best since long ago."""
    ticks = bench.ticks()
    cycle = statistics.median(sample.cpu for sample in bench.run()["run"])
    return day_table(ticks[SCRIPT], ticks[BDAUTO], pace_of(watched), cycle)


def sections(
    bench: Bench, wanted: Sequence[str], conditions: str, watched: Cycles | None
) -> tuple[dict[str, str], str]:
    """Return the page's sections by name, as far as they are wanted, and the picture or ""."""
    found, picture = {}, ""
    rows = figures(bench, wanted)
    if rows:
        found["figures"] = f"{conditions}\n\n{table(HEAD, rows)}"
    if "long" in wanted:
        found["shapes"] = shapes(bench)
    if "chart" in wanted:
        found["lengths"], picture = lengths(bench)
    if watched:
        found["day"] = day(bench, watched)
    return found, picture


def alone(bench: Bench) -> str:
    """Return the table of bdauto against itself: each scene against an idle dispatch."""
    idle = bench.idle()[BDAUTO]
    scenes = {"idle `reap`": bench.sweep(), "`dispatch` of one bead": bench.one(), "`reap` of ten": bench.reap()}
    scenes |= {f"`dispatch` among {length:,}": bench.queue(length) for length in bench.lengths}
    rows = []
    for what, samples in scenes.items():
        count = min(len(idle), len(samples[BDAUTO]))
        rows.append(Row(what, "idle `dispatch`", None, samples[BDAUTO][:count], idle[:count]))
    return table(HEAD, [row.cells() for row in rows])


def _conditions(world: World) -> str:
    command = shlex.join(["make", "bench"] if len(sys.argv) == 1 else ["python", "scripts/bench.py", *sys.argv[1:]])
    versions = [f"bdauto {__version__}", f"Python {platform.python_version()}"]
    for argv in (["bd", "version"], ["dolt", "version"]) if world.real else ():
        said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=world.home).stdout
        versions.append(" ".join(said.splitlines()[0].split()[:3]))
    return f"`{command}` on {datetime.now(UTC):%Y-%m-%d}; {machine()}; {', '.join(versions)}."


@contextlib.contextmanager
def _world() -> Iterator[World]:
    bd, dolt = shutil.which("bd"), shutil.which("dolt")
    if bd and dolt:
        with real_world(Path(bd), Path(dolt)) as real:
            yield real
    else:
        _say("no bd and dolt on PATH: this is the sandbox, and bdauto is compared only with itself")
        with sandbox_world() as stand_in:
            yield stand_in


def listen() -> str:
    """Return an address for `bdauto run --listen`."""
    return f"127.0.0.1:{free_port()}"


def _say(words: str) -> None:
    sys.stderr.write(f"bench: {words}\n")


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"stopped by {signal.Signals(number).name}")


def main() -> None:
    """Measure, print, and write the page if all of it was measured on a real bd."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds of each row at most (20)")
    parser.add_argument("--quick", action="store_true", help="three rounds, short queues; nothing is written")
    parser.add_argument("--only", action="append", choices=ONLY, help="only this; nothing is written")
    asked = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _stop)
    with _world() as world, contextlib.closing(BeadBoard()) as board:
        rounds, seconds = (3, 10.0) if asked.quick else (asked.rounds, SCENE_SECONDS)
        bench = Bench(Stage(world, board), rounds, seconds, LENGTHS[:3] if asked.quick else LENGTHS)
        conditions = _conditions(world)
        if not world.real:
            sys.stdout.write(f"{conditions} On the sandbox, not on a real bd.\n\n{alone(bench)}")
            return
        wanted = asked.only or ONLY
        with Cycles(bench.stage.loop("--listen", listen())) if "day" in wanted else contextlib.nullcontext() as loop:
            found, picture = sections(bench, wanted, conditions, loop)
        sys.stdout.write("\n".join(found.values()))
    if not asked.quick and not asked.only:
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(picture, encoding="utf-8")
        write(PAGE, found)
        _say(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
