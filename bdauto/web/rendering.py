"""Pages of HTML from templates. Every text in them is made harmless and escaped. Nothing is loaded from anywhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bdauto import __version__
from bdauto.common.sanitize import clean, clean_lines
from bdauto.diagnostics import wording
from bdauto.diagnostics.activity import Activity
from bdauto.diagnostics.explanation import Explanation, story
from bdauto.diagnostics.looks import Looks, needed
from bdauto.diagnostics.run_list import ListedRun, listed_run
from bdauto.diagnostics.snapshot import Snapshot, last_note, place_words
from bdauto.domain.bead import Bead
from bdauto.domain.failures import what_came_of
from bdauto.domain.history import RunResult, history_of, result_of
from bdauto.domain.record import Run
from bdauto.domain.values import format_age
from bdauto.web.charts import cost_chart, runs_chart, times_chart
from bdauto.web.run_query import SINCE, RunQuery

TEMPLATES = Path(__file__).with_name("templates")
SCRIPT = Path(__file__).with_name("page.js")
"""What keeps a page current where the browser runs scripts."""
REFRESH = 30
"""Seconds after which a page that is served loads itself again."""
REFRESH_SOON = 2
"""The same while the report is being read, and for those who found too many readers."""
NOTES = 200
"""Lines of a bead's notes, the last ones, that its page holds."""
TEXT_LIMIT = 2000
"""Characters of one text of a bead that a page holds."""
LONG_TEXT_LIMIT = 20_000
"""The same of a description and of acceptance criteria."""
RUNS = 200
"""Runs that a page lists, the newest."""
NUMBERS = frozenset(
    {"dispatched", "closed", "failed", "cost", "per closed", "waiting", "running", "90%", "runs", "time"}
    | {"priority", "waits", "age", "left", "took", "turns", "number", "blocked, quarantined"}
)
"""The columns of tables that hold numbers."""
LESS = frozenset({"priority", "left", "agent", "turns", "age"})
"""The columns that a small screen leaves out."""
RESULTS = {
    RunResult.running: "run",
    RunResult.over: "run",
    RunResult.closed: "good",
    RunResult.asks: "warn",
    RunResult.failed: "bad",
}
"""The style of each result of a run. The others are `muted`."""


@dataclass(frozen=True)
class Week:
    """The report on the first page: the last one of each lane, "" or why a later one could not be read, and if one is
    being read.
    """

    lanes: Mapping[str, Activity]
    error: str
    reading: bool


@dataclass(frozen=True)
class BeadView:
    """A bead, the ids of its jobs that are known, the oldest first, and those that run on this machine.

    `lane` is "" if there is no other.
    """

    explained: Explanation
    jobs: tuple[str, ...]
    live: frozenset[str]
    lane: str = ""

    def job(self, asked: str) -> str:
        """Return this job if it is one of the bead's, else the last one, or ""."""
        return asked if asked in self.jobs else self.jobs[-1] if self.jobs else ""

    def log_of(self, run: Run) -> str:
        """Return the job of a run whose log is known, or ""."""
        return next((job for job in (run.job, run.attempt) if job in self.jobs), "")


def report_page(activity: Activity) -> str:
    """Render a report as one file: it names its own content security policy, for no server does."""
    return _render(
        "report.html",
        activity.window.until,
        policy=content_security_policy(served=False),
        activity=activity,
        charts=_charts(activity),
    )


def front_page(looks: Looks, week: Week, assignee: str, shown: int, board: str = "") -> str:
    """Render the first page: what `bdauto status` shows, `shown` beads in each list, and the report.
    At least one lane was seen.

    The beads that need a person stand in a list of their own, so the alerts above leave them out.
    """
    alerts = needed(looks, blocked=False)
    snapshots = [seen for seen in looks.values() if isinstance(seen, Snapshot)]
    blocked = sum(len(seen.quarantined) + len(seen.blocked) for seen in snapshots)
    values: dict[str, Any] = {
        "alerts": alerts,
        "board": board if board.startswith(("http://", "https://")) and "@" not in board else "",
        "needed": len(alerts) + blocked + len(looks) - len(snapshots),
        "assignee": assignee,
        "lanes": [(name, seen, _facts(seen) if isinstance(seen, Snapshot) else []) for name, seen in looks.items()],
        "shown": shown,
        "rest": lambda total: f"… and {total - shown} more" if total > shown else "",
        "week": week,
        "reports": [(name, activity, _charts(activity)) for name, activity in week.lanes.items()],
    }
    now = min(seen.now for seen in snapshots)
    return _render("page.html", now, linked=True, refresh=REFRESH_SOON if week.reading else REFRESH, **values)


def _facts(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return what all beads of a lane share, each with its style and its words, and what became of today's runs."""
    facts = [(name, *found) for name, found in wording.services(snapshot.services)]
    today = snapshot.today
    return [*facts, ("today", "", wording.what_became(today, snapshot.need_you))] if today else facts


def bead_page(view: BeadView, job: str, log: str) -> str:
    """Render a bead: its text, its attempts, what happened when, why it is where it is, and the log of one job.

    `job` and `log` are "" without a job.
    """
    explained = view.explained
    bead = explained.bead
    notes = [line for line in bead.notes.splitlines() if line.strip()][-NOTES:]
    history = history_of(bead)
    values: dict[str, Any] = {
        "told": story(explained),
        "notes": notes,
        "texts": [(name, _long(text)) for name, text in _texts(bead) if text.strip()],
        "timeline": timeline(bead),
        "runs": [listed_run(history, run) for run in history.runs],
        "job": job,
        "live": job in view.live,
        "log": Markup.escape(log),
        "view": view,
    }
    return _render("bead.html", explained.now, linked=True, refresh=REFRESH, explained=explained, **values)


def runs_page(runs: Sequence[ListedRun], asked: RunQuery, now: datetime, *, several: bool = False) -> str:
    """Render the runs that a query asks for, with links and a form for other queries. `several`: name their lanes."""
    values: dict[str, Any] = {
        "runs": runs[:RUNS],
        "rest": max(len(runs) - RUNS, 0),
        "asked": asked,
        "results": [*RunResult],
        "times": [*SINCE],
        "several": several,
    }
    return _render("runs.html", now, linked=True, refresh=REFRESH, **values)


def timeline(bead: Bead) -> list[tuple[datetime, str, str]]:
    """Return what is recorded of a bead, the oldest first: when, in words, and the style."""
    found = [(bead.created_at, f"created by {bead.created_by}" if bead.created_by else "created", "muted")]
    history = history_of(bead)
    for number, run in enumerate(map(history.completed, history.runs), 1):
        if run.claimed_at:
            found.append((run.claimed_at, f"run {number} began{f' on {run.runner}' if run.runner else ''}", "run"))
        if run.ended_at:
            style = result_style(result_of(run, history))
            found.append((run.ended_at, f"run {number}: {what_came_of(history, run)}", style))
    if bead.closed_at:
        found.append((bead.closed_at, f"closed: {bead.close_reason}" if bead.close_reason else "closed", "good"))
    return sorted(found, key=lambda one: one[0])


def result_style(result: RunResult) -> str:
    """Return the style of a run's result."""
    return RESULTS.get(result, "muted")


def error_page(words: str, now: datetime, refresh: int = REFRESH) -> str:
    """Render a page that says why there is no other. It tries again by itself after so many seconds."""
    return _render("error.html", now, refresh=refresh, words=words)


@cache
def content_security_policy(*, served: bool) -> str:
    """Return the policy under which the pages work: nothing but their own style, and if `served` their own script."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    own = "script-src 'self'; connect-src 'self'; form-action 'self'" if served else "form-action 'none'"
    return f"default-src 'none'; style-src 'sha256-{digest}'; {own}; base-uri 'none'"


def _texts(bead: Bead) -> tuple[tuple[str, str], ...]:
    return ("Description", bead.description), ("Acceptance criteria", bead.acceptance_criteria)


def _long(text: str) -> Markup:
    """Clean a text of several lines and escape it."""
    cut = text[:LONG_TEXT_LIMIT]
    return Markup.escape(clean_lines(cut) + (" […]" if cut != text else ""))


def _charts(activity: Activity) -> dict[str, Markup]:
    days = activity.days
    return {"runs": runs_chart(days), "times": times_chart(days), "cost": cost_chart(days)}


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
        "less": LESS,
        "numbers": NUMBERS,
        "plural": wording.plural,
        "result_style": result_style,
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
