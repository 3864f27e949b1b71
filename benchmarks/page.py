"""The tables of a benchmark as Markdown, and the page between whose markers they stand."""

import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.measure import Sample, Spread, ratios


@dataclass(frozen=True)
class Row:
    """One comparison: what, against what, the ratio that must be reached (None: only told), and the rounds."""

    what: str
    against: str
    target: float | None
    mine: Sequence[Sample]
    other: Sequence[Sample]
    unit: Literal["wall", "cpu"] = "wall"

    @property
    def ratio(self) -> Spread:
        """The spread of the ratios, round by round."""
        return Spread.of(ratios(self.mine, self.other, self.of))

    def of(self, sample: Sample) -> float:
        """Return what this row compares of a run, in seconds."""
        return sample.wall if self.unit == "wall" else sample.cpu

    def cells(self) -> list[str]:
        """Return the row as the table's cells."""
        target = "" if self.target is None else f"≤ {self.target}"
        reached = "" if self.target is None else "yes" if self.ratio.median <= self.target else "**no**"
        unit = "wall" if self.unit == "wall" else "CPU"
        times = [_milliseconds([self.of(sample) for sample in samples]) for samples in (self.mine, self.other)]
        ratio = f"**{self.ratio.median:.2f}** ({self.ratio.p10:.2f}–{self.ratio.p90:.2f})"
        return [f"{self.what}, {unit}", self.against, target, ratio, reached, *times, str(len(self.mine))]


HEAD = ["what", "against", "must reach", "ratio (p10–p90)", "reached", "ms", "the other's ms", "rounds"]


def _milliseconds(values: Sequence[float]) -> str:
    spread = Spread.of(values)
    return f"{spread.median * 1000:,.0f} ({spread.p10 * 1000:,.0f}–{spread.p90 * 1000:,.0f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def machine() -> str:
    """Describe the machine: cores, model, memory."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    size = f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?"
    cores = os.cpu_count()
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({model[1] if model else platform.machine()}), {size}"


def write(page: Path, sections: dict[str, str]) -> None:
    """Put the sections between their markers, `<!-- bench: NAME -->` and `<!-- bench: end -->`."""
    text = page.read_text(encoding="utf-8")
    for name, content in sections.items():
        head, start, rest = text.partition(f"<!-- bench: {name} -->\n")
        _, end, tail = rest.partition("<!-- bench: end -->")
        if not start or not end:
            raise SystemExit(f"{page}: no markers for {name!r}")
        text = f"{head}{start}\n{content.strip()}\n\n{end}{tail}"
    page.write_text(text, encoding="utf-8")
