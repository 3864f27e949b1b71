"""Pages of HTML from templates. Every text in them is made harmless and escaped. Nothing is loaded from anywhere."""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bdauto import __version__
from bdauto.diagnostics import wording
from bdauto.diagnostics.activity import Activity
from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.explanation import Explanation, story
from bdauto.diagnostics.snapshot import Snapshot, last_note, place_words
from bdauto.domain.values import format_age
from bdauto.sanitize import clean
from bdauto.web.charts import cost_chart, runs_chart, times_chart

TEMPLATES = Path(__file__).with_name("templates")
REFRESH = 30
"""Seconds after which a page that is served loads itself again."""
REFRESH_SOON = 2
"""The same while the report is being read, and for those who found too many readers."""
NOTES = 200
"""Lines of a bead's notes, the last ones, that its page holds."""
TEXT_LIMIT = 2000
"""Characters of one text of a bead that a page holds."""
NUMBERS = frozenset(
    {"dispatched", "closed", "failed", "cost", "per closed", "waiting", "running", "90%", "runs", "time"}
    | {"priority", "waits", "age", "left", "number", "blocked, quarantined"}
)
"""The columns of tables that hold numbers."""


@dataclass(frozen=True)
class Week:
    """The report on the first page: the last one, "" or why a later one could not be read, and if one is being read."""

    activity: Activity | None
    error: str
    reading: bool


def report_page(activity: Activity) -> str:
    """Render a report as one file: it names its own content security policy, for no server does."""
    return _render("report.html", activity.window.until, policy=content_security_policy(), **_parts(activity))


def front_page(snapshot: Snapshot, week: Week, assignee: str, shown: int) -> str:
    """Render the first page: what `bdauto status` shows, `shown` beads in each list, and the report."""
    parts = _parts(week.activity) if week.activity else {}
    refresh = REFRESH_SOON if week.reading else REFRESH
    values: dict[str, Any] = {
        "alerts": active_alerts(snapshot),
        "assignee": assignee,
        "services": [(name, *found) for name, found in wording.services(snapshot.services)],
        "shown": shown,
        "rest": lambda total: f"… and {total - shown} more" if total > shown else "",
        "snapshot": snapshot,
        "week": week,
    }
    return _render("page.html", snapshot.now, linked=True, refresh=refresh, **values, **parts)


def bead_page(explained: Explanation, job: str, log: str) -> str:
    """Render a bead's explanation, its story, its notes, and the output of its last job, "" without a job."""
    notes = [line for line in explained.bead.notes.splitlines() if line.strip()][-NOTES:]
    values: dict[str, Any] = {"told": story(explained.bead), "notes": notes, "job": job, "log": Markup.escape(log)}
    return _render("bead.html", explained.now, refresh=REFRESH, explained=explained, **values)


def error_page(words: str, now: datetime, refresh: int = REFRESH) -> str:
    """Render a page that says why there is no other. It tries again by itself after so many seconds."""
    return _render("error.html", now, refresh=refresh, words=words)


@cache
def content_security_policy() -> str:
    """Return the policy under which the pages work: no script, no request, no style but their own."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _parts(activity: Activity) -> dict[str, Any]:
    days = activity.days
    charts = {"runs_chart": runs_chart(days), "times_chart": times_chart(days), "cost_chart": cost_chart(days)}
    return {"activity": activity, **charts}


def _render(
    template: str, now: datetime, *, linked: bool = False, policy: str = "", refresh: int = 0, **values: Any
) -> str:
    found = _environment().get_template(template)
    return found.render(now=now, linked=linked, policy=policy, refresh=refresh, **values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "numbers": NUMBERS,
        "plural": wording.plural,
        "share": wording.share,
        "style": Markup(_style()),  # noqa: S704 - bdauto's own file
        "version": __version__,
    }
    environment.filters |= {"money": wording.money, "rough": wording.rough_time, "minute": _minute, "weekday": _weekday}
    environment.filters |= {"age": _age, "last_note": last_note, "place": place_words, "second": _second}
    return environment


@cache
def _style() -> str:
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def _harmless(value: object) -> object:
    """Clean a text before it is escaped. What a template has made is left as it is."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else clean(value, TEXT_LIMIT)


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _age(age: timedelta | None) -> str:
    return wording.DASH if age is None or age < timedelta(0) else format_age(age)


def _weekday(day: str) -> str:
    return f"{date.fromisoformat(day):%a %Y-%m-%d}"
