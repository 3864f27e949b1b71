"""Charts as SVG that stands in a page: without scripts, without styles of its own, in the page's colours."""

import math
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from xml.etree import ElementTree

import pygal
from markupsafe import Markup
from pygal.style import Style

from bdauto.diagnostics.wording import money
from bdauto.domain.figures import Figures

SIZE = {"width": 460, "height": 220}
LABELS = 8
"""Days that have their name below the axis, at most."""
LEAST = 0.1
"""Minutes of the lowest mark of a logarithmic axis."""
STYLE = Style(label_font_size=13, major_label_font_size=13, legend_font_size=13, font_family="sans-serif")


def runs_chart(days: Mapping[str, Figures]) -> Markup:
    """Draw how many runs of each day closed their bead, and how many failed."""
    labels = _steps(max((day.ended - day.stopped for day in days.values()), default=0) or 1)
    whole = [label for label in labels if label == int(label)]
    chart = _chart(pygal.StackedBar, days, lambda count: f"{count:g}", y_labels=whole, range=(0, labels[-1]))
    chart.add("closed its bead", [day.ended - day.failed - day.stopped for day in days.values()])
    chart.add("failed", [day.failed for day in days.values()])
    return _drawn(chart, "Runs that ended, by day")


def times_chart(days: Mapping[str, Figures]) -> Markup:
    """Draw within which time nine of ten beads were claimed, and nine of ten runs were over."""
    times = [_minutes(time) for day in days.values() for time in (day.waiting.p90, day.running.p90)]
    labels = _powers(max((minutes for minutes in times if minutes), default=1))
    low = LEAST / 2  # waiting takes seconds and running minutes: on a linear axis it is not seen
    axis = {"logarithmic": True, "zero": low, "y_labels": labels, "range": (low, 1.5 * labels[-1])}
    chart = _chart(pygal.Bar, days, lambda minutes: f"{minutes:.4g}m", **axis)
    chart.add("waiting", [_minutes(day.waiting.p90) for day in days.values()])
    chart.add("running", [_minutes(day.running.p90) for day in days.values()])
    return _drawn(chart, "Waiting and running time, 90% within, by day")


def cost_chart(days: Mapping[str, Figures]) -> Markup:
    """Draw the cost of each day."""
    labels = _steps(max((day.cost_usd or 0 for day in days.values()), default=0) or 1)
    chart = _chart(pygal.Bar, days, money, show_legend=False, y_labels=labels, range=(0, labels[-1]))
    chart.add("cost", [day.cost_usd for day in days.values()])
    return _drawn(chart, "Cost, by day")


def _minutes(seconds: int | None) -> float | None:
    """Return minutes for a logarithmic axis, which has no zero."""
    return None if seconds is None else max(round(seconds / 60, 1), LEAST)


def _powers(top: float) -> list[float]:
    """Return the powers of ten from LEAST to the first one that is not below `top`."""
    labels = [LEAST]
    while labels[-1] < top:
        labels.append(labels[-1] * 10)
    return labels


def _steps(top: float) -> list[float]:
    """Return round numbers from 0 to the first one that is not below `top`, four or five of them."""
    step = 10 ** math.floor(math.log10(top / 4)) if top > 0 else 1
    step = next(size * step for size in (1, 2, 5, 10) if size * step * 4 >= top)
    return [step * place for place in range(math.ceil(top / step) + 1)]


def _chart(kind: Callable[..., Any], days: Mapping[str, Figures], formatter: Callable[[Any], str], **more: Any) -> Any:
    chart = kind(
        **SIZE,
        style=STYLE,
        js=[],
        css=[],
        margin=4,
        legend_at_bottom=True,
        legend_box_size=11,
        max_scale=5,
        no_data_text="no data",
        truncate_label=-1,
        value_formatter=formatter,
        **more,
    )
    chart.x_labels = [f"{date.fromisoformat(day):%a %d}" for day in days]
    chart.x_labels_major_every = math.ceil(len(days) / LABELS)
    chart.show_minor_x_labels = len(days) <= LABELS
    return chart


def _drawn(chart: Any, title: str) -> Markup:
    """Return a chart as an element of a page, without what the page's policy forbids or nobody sees."""
    tree: ElementTree.Element = chart.render_tree()
    for parent in list(tree.iter()):
        parent.attrib.pop("id", None)
        words = {child.get("class"): child.text for child in parent.findall("desc")}
        if words:  # they say what a bar is for: the browser shows it
            ElementTree.SubElement(parent, "title").text = f"{words.get('x_label')}: {words.get('value')}"
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag in ("defs", "desc") or "style" in child.attrib:
                parent.remove(child)
    tree.attrib |= {"role": "img", "aria-label": title}
    return Markup(ElementTree.tostring(tree, encoding="unicode"))  # noqa: S704 - no text of a bead is in it
