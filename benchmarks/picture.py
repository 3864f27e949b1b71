"""The picture of docs/performance.md: wall time against the length of the queue."""

from collections.abc import Mapping, Sequence
from io import StringIO

import matplotlib as mpl
from matplotlib.figure import Figure

GREY = "#7a828c"
COLOURS = ("#d1622b", "#2f86d6", "#8a6fc9")
"""Colours of middle lightness: each has a contrast of 3 or more on white and on black."""
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)

Points = Sequence[tuple[float, float]]


def chart(title: str, x_title: str, lines: Mapping[str, Points]) -> str:
    """Return an SVG for light and dark backgrounds: lines of (x, seconds) points, both axes logarithmic."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bdauto", "text.color": GREY, "font.size": 11}):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for colour, (name, points) in zip(COLOURS, lines.items(), strict=True):
            xs, ys = zip(*points, strict=True)
            axes.loglog(xs, ys, color=colour, marker="o", linewidth=2, label=f"{name}, {_written(ys[-1])}")
        low, high = axes.get_ylim()
        ticks = [tick for tick in SECONDS if low <= tick <= high]
        axes.set_xticks(xs, [f"{x:,}" for x in xs])
        axes.set_yticks(ticks, [_written(tick) for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(colors=GREY)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel(x_title, color=GREY)
        axes.grid(axis="y", color=GREY, alpha=0.3)
        axes.spines[:].set_visible(False)
        axes.legend(frameon=False)
        drawn = StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return "".join(f"{line.rstrip()}\n" for line in drawn.getvalue().splitlines())


def _written(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2g} s"
