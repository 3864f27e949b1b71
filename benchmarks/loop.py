"""The CPU and the memory of `bdauto run` while it has nothing to do, cycle by cycle."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from statistics import fmean
from types import TracebackType
from typing import IO, Self

from benchmarks.measure import TIMEOUT, Contender, Sample, Scene, cpu_of, high_water, once
from benchmarks.stage import LOOP

CYCLES = 5
"""Cycles in one round: /proc counts CPU in hundredths of a second."""
WARM_UP = 4


@dataclass(frozen=True)
class Mark:
    """The end of a dispatch cycle: when, the CPU seconds used so far, children included, and bd processes started."""

    at: float
    cpu: float
    bd: int


class Cycles:
    """A running `bdauto run`, and a mark for each dispatch cycle that it has ended."""

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
        self.marks: list[Mark] = []
        self._bd = 0
        self._events: set[str] = set()
        self._last_words = ""
        self._more = threading.Condition()
        assert self._process.stderr
        self._reader = threading.Thread(target=self._follow, args=(self._process.stderr,))
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _follow(self, log: IO[bytes]) -> None:
        for line in log:
            self._last_words = line.decode(errors="replace")
            event = _event(line)
            with self._more:
                self._events.add(event)
                self._more.notify()
            if event == "bd-started":
                self._bd += 1
            elif event == "cycle dispatch":
                with self._more, contextlib.suppress(OSError):
                    self.marks.append(Mark(time.monotonic(), cpu_of(self._process.pid), self._bd))
                    self._more.notify()
        with self._more:
            self._more.notify()

    def wait(self, marks: int) -> None:
        """Wait until so many cycles have started; SystemExit when that takes too long."""
        with self._more:
            if not self._more.wait_for(lambda: len(self.marks) >= marks or not self._reader.is_alive(), TIMEOUT):
                raise SystemExit(f"bdauto run stands still: {self._last_words}")
        if len(self.marks) < marks:
            raise SystemExit(f"bdauto run ended: {self._last_words}")

    def wait_for(self, event: str) -> None:
        """Wait for the first event of this name; SystemExit when that takes too long."""
        with self._more:
            if not self._more.wait_for(lambda: event in self._events, TIMEOUT):
                raise SystemExit(f"bdauto run does not say {event!r}: {self._last_words}")

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def bd(self) -> int:
        """How many bd processes it has started."""
        return self._bd

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


def _event(line: bytes) -> str:
    """Return the event of a line of the JSON log, and after it the command, if it names one; "" for another line."""
    try:
        fields = json.loads(line)
    except ValueError:
        return ""
    return f"{fields.get('event')} {fields.get('command', '')}".strip() if isinstance(fields, dict) else ""


def cpu_of_cycles(loop: Contender, bare: Scene, rounds: int) -> dict[str, list[Sample]]:
    """Measure idle cycles of one `bdauto run`, and as many runs of each bare program meanwhile; CPU only.

    Each sample is the mean of CYCLES cycles or runs; the loop's are under LOOP.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in (LOOP, *bare)}
    with Cycles(loop) as cycles:
        cycles.wait(WARM_UP)
        for _ in range(rounds):
            start = len(cycles.marks) - 1
            for name, contender in bare.items():
                samples[name].append(Sample(0, fmean(once(contender).cpu for _ in range(CYCLES))))
            cycles.wait(start + CYCLES + 1)
            used = cycles.marks[start + CYCLES].cpu - cycles.marks[start].cpu
            samples[LOOP].append(Sample(0, used / CYCLES))
    return samples


def memory_after(loop: Contender, count: int) -> int:
    """Return the most memory that `bdauto run` itself had resident in so many cycles, in bytes."""
    loop.before()
    with Cycles(loop) as cycles:
        cycles.wait(count)
        return cycles.memory
