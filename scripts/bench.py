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
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from bench_loop import Cycles
from bench_page import machine, write
from bench_runs import LENGTHS, Bench, listen, say
from bench_stage import Stage
from bench_tables import ROWS, alone, sections
from bench_world import BeadBoard, World, real_world, sandbox_world

from bdauto import __version__

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "wall-time.svg"
SCENE_SECONDS = 40.0
"""A scene stops after this long, once it has its least rounds."""
ONLY = (*ROWS, "memory", "chart", "day")


def _conditions(world: World) -> str:
    command = shlex.join(["make", "bench"] if len(sys.argv) == 1 else ["python", "scripts/bench.py", *sys.argv[1:]])
    versions = [f"bdauto {__version__}", f"Python {platform.python_version()}"]
    for argv in (["bd", "version"], ["dolt", "version"]) if world.real else ():
        said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=world.home).stdout
        versions.append(" ".join(said.splitlines()[0].split()[:3]))
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    return f"`{command}` on {datetime.now(UTC):%Y-%m-%d}; {machine()}, {load}; {', '.join(versions)}."


@contextlib.contextmanager
def _world() -> Iterator[World]:
    bd, dolt = shutil.which("bd"), shutil.which("dolt")
    if bd and dolt:
        with real_world(Path(bd), Path(dolt)) as real:
            yield real
    else:
        say("no bd and dolt on PATH: this is the sandbox, and bdauto is compared only with itself")
        with sandbox_world() as stand_in:
            yield stand_in


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"stopped by {signal.Signals(number).name}")


def main() -> None:
    """Measure, print, and write the page if all of it was measured on a real bd."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds of each row at most (20)")
    parser.add_argument("--quick", action="store_true", help="three rounds, short queues; nothing is written")
    parser.add_argument("--only", action="append", choices=ONLY, help="only this; nothing is written")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
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
        say(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
