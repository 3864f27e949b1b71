"""Measures bdauto against the shell script and bare bd, and writes the tables and the picture of docs/performance.md.

    make bench                                         everything
    .venv/bin/python -m benchmarks --quick             few rounds; nothing is written
    .venv/bin/python -m benchmarks --only idle --only one

It needs `bd`, `dolt`, `curl` and `jq` on PATH and starts a Dolt server of its own in a temporary folder. The programs
of a row run in turns, so that whatever slows the machine slows all of them. A row's figure is the median of the ratios,
round by round.
"""

import argparse
import contextlib
import os
import platform
import shlex
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import sh

from bdauto import __version__
from benchmarks.page import machine, write
from benchmarks.runs import LENGTHS, Bench, say
from benchmarks.stage import Stage
from benchmarks.tables import ROWS, sections
from benchmarks.watching import IdleHour
from benchmarks.world import World, dolt_world, instant_beadboard

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "wall-time.svg"
SCENE_SECONDS = 40.0
"""A scene stops after this long, once it has its least rounds."""
ONLY = (*ROWS, "local", "memory", "chart", "latency", "ends", "hour", "day")


def _conditions(world: World) -> str:
    command = shlex.join(["make", "bench"] if len(sys.argv) == 1 else ["python", "-m", "benchmarks", *sys.argv[1:]])
    versions = [f"bdauto {__version__}", f"Python {platform.python_version()}"]
    for program in (world.bd_path, world.dolt_path):
        words = str(sh.Command(str(program))("version", _cwd=str(world.home))).split()
        versions.append(" ".join(words[:3]))
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    return f"`{command}` on {datetime.now(UTC):%Y-%m-%d}; {machine()}, {load}; {', '.join(versions)}."


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"stopped by {signal.Signals(number).name}")


def main() -> None:
    """Measure, print, and write the page if all of it was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds of each row at most (20)")
    parser.add_argument("--quick", action="store_true", help="three rounds, short queues; nothing is written")
    parser.add_argument("--only", action="append", choices=ONLY, help="only this; nothing is written")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _stop)
    with dolt_world() as world, contextlib.closing(instant_beadboard()) as board:
        rounds, seconds = (3, 10.0) if asked.quick else (asked.rounds, SCENE_SECONDS)
        bench = Bench(Stage(world, board), rounds, seconds, LENGTHS[:3] if asked.quick else LENGTHS)
        conditions = _conditions(world)
        wanted = asked.only or ONLY
        with IdleHour() if {"hour", "day"} & {*wanted} else contextlib.nullcontext() as hour:
            if hour:
                hour.settle()
            found, picture = sections(bench, wanted, conditions, hour)
        sys.stdout.write("\n".join(found.values()))
    if not asked.quick and not asked.only:
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(picture, encoding="utf-8")
        write(PAGE, found)
        say(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
