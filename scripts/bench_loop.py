"""The CPU and the memory of `bdauto run` while it has nothing to do, cycle by cycle."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from statistics import fmean
from typing import IO

from bench_measure import TIMEOUT, Contender, Sample, cpu_of, high_water, once

CYCLES = 5
"""Cycles in one round: /proc counts CPU in hundredths of a second."""
WARM_UP = 3


class Cycles:
    """A running `bdauto run`. `marks`: the CPU seconds, children included, that it had used when each cycle started."""

    def __init__(self, contender: Contender) -> None:
        """Start it, and follow its log."""
        self._process = subprocess.Popen(
            contender.argv,
            cwd=contender.folder,
            env=contender.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.marks: list[float] = []
        self._last_words = ""
        self._more = threading.Condition()
        assert self._process.stderr
        self._reader = threading.Thread(target=self._follow, args=(self._process.stderr,))
        self._reader.start()

    def _follow(self, log: IO[bytes]) -> None:
        for line in log:
            self._last_words = line.decode(errors="replace")
            if _starts_cycle(line):
                with self._more:
                    self.marks.append(cpu_of(self._process.pid))
                    self._more.notify()

    def wait(self, marks: int) -> None:
        """Wait until so many cycles have started; SystemExit when that takes too long."""
        with self._more:
            if not self._more.wait_for(lambda: len(self.marks) >= marks or not self._reader.is_alive(), TIMEOUT):
                raise SystemExit(f"bdauto run stands still: {self._last_words}")
        if len(self.marks) < marks:
            raise SystemExit(f"bdauto run ended: {self._last_words}")

    @property
    def memory(self) -> int:
        """The most memory it had resident itself, in bytes."""
        return high_water(self._process.pid)

    def stop(self) -> None:
        """End it, as Kubernetes does, or by force."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        assert self._process.stderr
        self._process.stderr.close()


def _starts_cycle(line: bytes) -> bool:
    """Whether this line of the verbose JSON log says that bd is asked for ready beads: a cycle's first deed."""
    try:
        fields = json.loads(line)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("event") == "bd-started" and fields.get("verb") == "ready"


def cpu_of_cycles(loop: Contender, bare: Contender, rounds: int) -> tuple[list[Sample], list[Sample], int]:
    """Measure idle cycles of one `bdauto run`, and as many bare queries meanwhile.

    Returns for each round the mean of CYCLES cycles and the mean of the queries, CPU only, and the loop's peak memory.
    """
    cycles = Cycles(loop)
    mine, other = [], []
    try:
        cycles.wait(WARM_UP)
        for _ in range(rounds):
            start = len(cycles.marks) - 1
            other.append(Sample(0, fmean(once(bare).cpu for _ in range(CYCLES))))
            cycles.wait(start + CYCLES + 1)
            mine.append(Sample(0, (cycles.marks[start + CYCLES] - cycles.marks[start]) / CYCLES))
        return mine, other, cycles.memory
    finally:
        cycles.stop()


def bd_per_cycle(loop: Contender, counted: Path) -> int:
    """Return how many bd processes an idle cycle starts; each adds a line to the file `counted`."""
    cycles = Cycles(loop)
    try:
        cycles.wait(WARM_UP)
        before = len(counted.read_bytes().splitlines())
        cycles.wait(WARM_UP + CYCLES)
        return round((len(counted.read_bytes().splitlines()) - before) / CYCLES)
    finally:
        cycles.stop()
