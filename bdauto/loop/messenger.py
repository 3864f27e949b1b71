"""Tells people what needs them, each cause once, and once a day what became of the beads."""

from collections.abc import Callable
from datetime import UTC, date, timedelta

from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import AgentsDie
from bdauto.controllers.told import digest_is_due, take_news
from bdauto.diagnostics.digest import digest
from bdauto.diagnostics.needs import LIMIT, SUSPENDED, as_messages, gather_needs, limit_reached
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.limits import outside_hours
from bdauto.domain.messages import Topic
from bdauto.domain.outcome import BeadOutcome, Outcome, Report
from bdauto.domain.settings import DispatchSettings
from bdauto.telemetry.recorder import Telemetry

PERSON_NEEDED = frozenset({BeadOutcome.blocked, BeadOutcome.quarantined, BeadOutcome.asks})
INTERVAL = timedelta(minutes=1)
"""How often the beads are looked at if no report makes it necessary."""


class Messenger:
    """The messages about one queue. What was told is kept in the tracker: a restart or another process repeats none."""

    def __init__(self, bd: Bd, writer: Callable[[], Writer], runtime: Runtime, telemetry: Telemetry) -> None:
        self._bd = bd
        self._writer = writer
        self._runtime = runtime
        self._telemetry = telemetry
        self._looked = float("-inf")
        self._looked_at: str | None = None
        self._limited = ""
        self._digested: date | None = None

    def note(self, report: Report, settings: DispatchSettings) -> bool:
        """Take note of a report. Return whether it makes a look necessary."""
        limited = report.outcome is Outcome.limited and not outside_hours(settings, self._runtime.now())
        began = limited and not self._limited
        if report.command == "dispatch":
            self._limited = report.detail if limited else ""
        blocked = "blocked" in report.ended or any(bead.outcome in PERSON_NEEDED for bead in report.beads)
        return began or blocked or isinstance(report.error, AgentsDie)

    def is_due(self, revision: str | None) -> bool:
        """Return whether a look is due: for the digest, or since the tracker may have changed a while ago."""
        recent = self._runtime.monotonic() - self._looked < INTERVAL.total_seconds()
        changed = revision is None or revision != self._looked_at
        return (changed and not recent) or self._telemetry.digest_day(self._runtime.now()) != self._digested

    def look(self, revision: str | None = None) -> None:
        """Tell what nobody has told yet. Raises BdError."""
        if not self._telemetry.tells_people:
            return
        now = self._runtime.now()
        self._looked, self._looked_at = self._runtime.monotonic(), revision
        store = self._bd.kv_list().result()
        needs, today = gather_needs(self._bd, store), now.astimezone(UTC).date().isoformat()
        needs += [limit_reached(self._limited, today)] if self._limited else []
        day = self._telemetry.digest_day(now)
        summary = digest(self._bd, needs, now) if digest_is_due(self._bd, store, day) else None
        news = take_news(
            self._bd,
            self._writer(),
            self._runtime,
            [need.key for need in needs],
            wanted=[need.key for need in needs if self._telemetry.tells(need.topic)],
            watched=[SUSPENDED],
            kept=[f"{LIMIT} {today}"],
            digest=day if summary else None,
            store=store,
        )
        self._digested = day
        for message in as_messages([need for need in needs if need.key in news.causes]):
            self._tell(*message)
        if news.over:
            self._telemetry.tell(
                Topic.suspended, "dispatching goes on", "An agent works again, or somebody resumed it."
            )
        if news.digest and summary:
            self._tell(Topic.digest, *summary)

    def _tell(self, topic: Topic, title: str, text: str) -> None:
        """Send a message, which names its lane unless that is the only one."""
        lane = "" if self._bd.lane == DEFAULT_LANE else f"{self._bd.lane}: "
        self._telemetry.tell(topic, f"{lane}{title}", text)
