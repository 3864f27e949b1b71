"""Timing of programs: interleaved rounds, ratios round by round, and what only /proc knows."""

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LEAST_ROUNDS = 3
TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT = 300.0
"""Seconds after which one run of a program is taken for hung."""


@dataclass(frozen=True)
class Sample:
    """One run of a program: seconds on the clock, and seconds of CPU, its child processes included."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Spread:
    """The median of some values, and their tenth and ninetieth percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Take the spread of at least one value."""
        tenths = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
        return cls(statistics.median(values), tenths[0], tenths[-1])


def nothing() -> None:
    """Do nothing before or after a run."""


@dataclass(frozen=True)
class Contender:
    """A program to measure. `before` and `after` are not timed: they set the stage and check that the work was done."""

    argv: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    before: Callable[[], None] = nothing
    after: Callable[[], None] = nothing


Scene = dict[str, Contender]
"""The programs that are compared, by name."""


@contextlib.contextmanager
def _running(contender: Contender) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """Yield the started program and the file with its stderr; whatever of it still runs at the end is killed."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            contender.argv,
            cwd=contender.folder,
            env=contender.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            start_new_session=True,
        )
        try:
            yield process, words
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _check(contender: Contender, status: int, words: IO[bytes]) -> None:
    if status:
        words.seek(0)
        text = words.read().decode(errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(contender.argv)} failed (exit {status}):\n{text}")


def once(contender: Contender) -> Sample:
    """Run it once; SystemExit with its last words when it fails."""
    contender.before()
    start = time.perf_counter()
    with _running(contender) as (process, words):
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        signal.setitimer(signal.ITIMER_REAL, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        _check(contender, process.returncode, words)
    contender.after()
    return Sample(wall, usage.ru_utime + usage.ru_stime)


def interleaved(contenders: Mapping[str, Contender], rounds: int, seconds: float) -> dict[str, list[Sample]]:
    """Run all contenders once a round, in turns first and last, after a round that does not count.

    Stops early, but not before LEAST_ROUNDS, when the next round would go beyond `seconds`.
    """
    for contender in contenders.values():
        once(contender)
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    start = time.monotonic()
    for number in range(rounds):
        spent = time.monotonic() - start
        if number >= LEAST_ROUNDS and spent * (number + 1) / number > seconds:
            break
        for name in sorted(contenders, reverse=number % 2 == 1):
            samples[name].append(once(contenders[name]))
    return samples


def ratios(mine: Sequence[Sample], other: Sequence[Sample], of: Callable[[Sample], float]) -> list[float]:
    """Return the ratios, round by round."""
    return [of(one) / of(two) for one, two in zip(mine, other, strict=True)]


def peak(contender: Contender) -> int:
    """Run it and return the most memory it had resident itself, without its children, in bytes.

    By VmHWM, looked at every millisecond: what wait4 reports would include the largest child.
    """
    contender.before()
    most = 0
    with _running(contender) as (process, words):
        while process.poll() is None:
            most = max(most, high_water(process.pid))
            time.sleep(0.001)
        _check(contender, process.returncode, words)
    contender.after()
    return most


def high_water(pid: int) -> int:
    """Return a process's VmHWM in bytes, 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process and those of its children that have ended used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS
