"""A log-log chart of a few lines as SVG, for light and dark backgrounds alike."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 72, 200, 64, 56
GREY = "#7a828c"
COLOURS = ("#d1622b", "#2f86d6", "#8a6fc9")
"""Colours of middle lightness: each has a contrast of 3 or more on white and on black."""
LABEL_GAP = 18

Points = Sequence[tuple[float, float]]


def chart(title: str, x_title: str, y_title: str, lines: Mapping[str, Points]) -> str:
    """Draw lines of (x, y) points, both axes logarithmic; y in seconds."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    low, high = math.floor(math.log10(min(ys)) * 2) / 2, math.ceil(math.log10(max(ys)) * 2) / 2

    def at(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / xs[0]) / math.log(xs[-1] / xs[0])
        up = (math.log10(y) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 24, title, "start", 'font-size="16" font-weight="600"'), _text(LEFT, 43, y_title, "start")]
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for tick in _ticks(low, high):
        y = at(xs[0], tick)[1]
        parts.append(_line(LEFT, y, right, y))
        parts.append(_text(LEFT - 10, y + 4, _seconds(tick), "end"))
    for x in xs:
        place = at(x, 10**low)[0]
        parts.append(_line(place, bottom, place, bottom + 5))
        parts.append(_text(place, bottom + 21, f"{x:,.0f}", "middle"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x_title, "middle"))
    ends = _apart({name: at(*points[-1])[1] for name, points in lines.items()})
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        places = [at(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        label = f"{name}, {_seconds(points[-1][1])}"
        parts.append(_text(right + 12, ends[name] + 4, label, "start", f'font-weight="600" style="fill:{colour}"'))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    style = f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13" fill="{GREY}"'
    return f"{head} {style}>\n" + "\n".join(parts) + "\n</svg>\n"


def _ticks(low: float, high: float) -> list[float]:
    steps = [step * 10**power for power in range(math.floor(low), math.ceil(high) + 1) for step in (1, 2, 5)]
    return [tick for tick in steps if 10**low <= tick * 1.0001 and tick <= 10**high * 1.0001]


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if 1 <= value < 100 else f"{value:.0f} s" if value >= 100 else f"{value * 1000:.0f} ms"


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Move labels apart that would overlap, downwards."""
    moved: dict[str, float] = {}
    previous = -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        previous = moved[name] = max(place, previous + LABEL_GAP)
    return moved


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'.replace(" >", ">")


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{GREY}" stroke-opacity="0.3"/>'
