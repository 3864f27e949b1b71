"""The measurements of the benchmark, each made once however many tables need it."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.beads import Shape
from benchmarks.day import Tick
from benchmarks.loop import cpu_of_cycles, memory_after
from benchmarks.measure import Sample, Scene, interleaved, once, peak
from benchmarks.stage import BDAUTO, LOOP, SCRIPT, Stage
from tests.support.dolt import free_port

LONG = 3000
LENGTHS = (10, 100, 1000, LONG, 10_000)
SEVERAL = 4
"""Beads of one `dispatch --max`."""
QUEUES = (1500, 6000)
SHAPES: tuple[Shape, ...] = ("usual", "one priority", "shuffled", "reversed, one priority")
SIDE_ROUNDS = 6
"""Rounds of what is only told: other queues than the table's."""
FAST = "250ms"
"""The interval of the `bdauto run` whose cycles are measured; what a cycle costs does not depend on it."""

Samples = dict[str, list[Sample]]


@dataclass
class Bench:
    """Measures the scenes of a stage, in `rounds` rounds, or fewer when a scene takes longer than `seconds`."""

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
            say(f"{name}: {time.monotonic() - start:.0f} s")
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

    def several(self, length: int) -> Samples:
        """Measure dispatches of one bead and of SEVERAL."""
        name = f"dispatch of {SEVERAL} among {length:,}"
        return self.measure(name, lambda: self.stage.several(length, SEVERAL), SIDE_ROUNDS)

    def pod(self) -> Samples:
        """Measure a dispatch in a fresh folder."""
        return self.measure(f"dispatch among {LONG:,} in a fresh folder", lambda: self.stage.pod(LONG))

    def run(self) -> Samples:
        """Measure idle cycles of `bdauto run` and what they are compared with; CPU only."""
        if LOOP not in self._samples:
            loop = self.stage.loop("--watch", "off", "--dispatch-every", FAST, "--reap-every", "1h")
            self._samples[LOOP] = cpu_of_cycles(loop, self.stage.bare(), min(self.rounds, 8))
            say("idle cycles of bdauto run")
        return self._samples[LOOP]

    def memory(self) -> dict[str, int]:
        """Return bdauto's own peak memory, in bytes, in several scenes."""
        scenes = {"idle dispatch": self.stage.idle(), "one bead": self.stage.one(), "reap of ten": self.stage.stalled()}
        scenes |= {f"dispatch among {LONG:,}, {shape}": self.stage.queue(LONG, shape) for shape in SHAPES}
        peaks = {name: peak(scene[BDAUTO]) for name, scene in scenes.items()}
        for queue, where in ((0, "idle"), (LONG, f"among {LONG:,}")):
            peaks[f"`bdauto run` serving its metrics, {where}"] = memory_after(
                self.stage.loop("--watch", "off", "--listen", listen(), queue=queue), 2
            )
        say("memory")
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


def listen() -> str:
    """Return an address for `bdauto run --listen`."""
    return f"127.0.0.1:{free_port()}"


def say(words: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(f"bench: {words}\n")
