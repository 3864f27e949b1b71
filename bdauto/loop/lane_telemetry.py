"""What a loop tells of a lane: its cycles and sweeps, whether it starves, and its queue."""

import logging
from collections.abc import Callable
from datetime import timedelta

from bdauto.common import log
from bdauto.common.errors import BdError, ServiceError
from bdauto.diagnostics.snapshot import gather_queue
from bdauto.domain.figures import figures_since
from bdauto.domain.messages import Topic
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.times import midnight
from bdauto.loop.dependency_health import REMINDER
from bdauto.loop.loop_context import Lane, LoopContext
from bdauto.loop.messenger import Messenger
from bdauto.loop.pause_monitor import PauseMonitor
from bdauto.loop.shutdown import Stopped
from bdauto.loop.starvation import StarvationDetector
from bdauto.telemetry.families import LAST_SUCCESS, STARVED

REFRESH = timedelta(minutes=1)
"""How often the pause switch and the whole queue are read if no bead makes it necessary."""


class LaneTelemetry:
    """Logs and counts what a lane does."""

    def __init__(self, lane: Lane, context: LoopContext, pauses: PauseMonitor) -> None:
        self._lane = lane
        self._context = context
        self._runtime = context.runtime
        self._pauses = pauses
        self._warnings = _Warnings(context.runtime.monotonic)
        self._starvation = StarvationDetector(context.settings)
        self._starved = self._limited = False
        self._refreshed = float("-inf")
        self._refreshed_at: str | None = None
        self._messenger = Messenger(lane.bd, context.writer, context.runtime, context.telemetry)

    def note(self, report: Report, seconds: float) -> None:
        """Tell what a cycle or sweep came to."""
        self._context.telemetry.report(report, seconds, self._runtime.now())
        if report.command == "dispatch":
            self._starve(report)
            limited, self._limited = self._limited, report.outcome is Outcome.limited
            if self._limited and not limited:
                log.event("limited", detail=report.detail)
        counts: dict[str, int] = {}
        for bead in report.beads:
            counts[bead.outcome] = counts.get(bead.outcome, 0) + 1
        log.event(
            "cycle",
            logging.INFO if report.beads else logging.DEBUG,
            command=report.command,
            outcome=report.outcome,
            **counts,
            seconds=seconds,
            detail=report.detail,
        )
        if report.error and not isinstance(report.error, BdError | ServiceError):  # outages speak for themselves
            self._warnings.say(report.command, str(report.error))

    def swept(self, report: Report) -> None:
        """Count a sweep that was not necessary as a success."""
        if not report.dry_run:
            self._context.telemetry.set(LAST_SUCCESS, self._runtime.now().timestamp(), command="reap")

    def _starve(self, report: Report) -> None:
        now, telemetry = self._runtime.monotonic(), self._context.telemetry
        before, self._starved = self._starved, self._starvation.after(report, now)
        if self._starved and not before:
            log.error("starved", seconds=self._starvation.seconds(now), detail=str(report.error or ""))
            telemetry.tell(Topic.starved, "starved", "work is eligible and there is room, but nothing is dispatched")
        telemetry.set(STARVED, self._starved)

    def refresh(self, report: Report) -> None:
        """Look at the switch and count the queue: once a minute, and when an idle cycle contradicts the last count.

        Where the tracker is watched, that waits until it has changed, or a sweep has found beads in progress.
        """
        self._tell_people(report)
        health, now, doubts = self._context.health, self._runtime.monotonic(), self._starvation.doubts(report)
        recent = now - self._refreshed < REFRESH.total_seconds()
        if health.bd_fails or self._context.stop.asked or (recent and not doubts):
            return
        revision = self._context.watcher.now()
        aged = doubts or (report.command == "reap" and report.beads)
        if revision is not None and revision == self._refreshed_at and not aged:
            return
        self._refreshed, self._refreshed_at = now, revision
        try:
            with self._context.stop.interruptible():
                self._pauses.hold()
                if self._context.counting or self._context.show_queue:
                    self._count()
        except Stopped:
            return
        except BdError as error:
            health.bd("refresh", error)
        else:
            health.bd("refresh", None)

    def _tell_people(self, report: Report) -> None:
        """Send the messages that are due. What was begun is sent even if a signal comes."""
        health, messenger = self._context.health, self._messenger
        needed = messenger.note(report, self._lane.dispatch)
        if report.dry_run or health.bd_fails or self._context.stop.asked or not self._context.telemetry.tells_people:
            return
        revision = self._context.watcher.now()
        if not needed and not messenger.is_due(revision):
            return
        try:
            messenger.look(revision)
        except BdError as error:
            health.bd("messages", error)
        else:
            health.bd("messages", None)

    def _count(self) -> None:
        """Count the queue. Raises BdError."""
        lane = self._lane
        found = gather_queue(lane.bd, lane.agent(), lane.dispatch, lane.reap, self._runtime.now())
        self._starvation.eligible = found.eligible
        self._context.telemetry.queue(found.counts, found.oldest)
        if self._context.show_queue:
            now = self._runtime.now()
            changed, assignee = lane.bd.changed_since(midnight(now)).result().beads, lane.bd.assignee
            ours = [bead for bead in changed if lane.bd.lanes.had(bead, assignee)]
            self._context.show_queue(lane.bd.lane, found, figures_since(midnight(now), ours, assignee, now))


class _Warnings:
    """What cycles complain of that is no outage: the same words are logged once every ten minutes."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said: dict[str, tuple[str, float]] = {}

    def say(self, command: str, words: str) -> None:
        """Log what a command's cycle complains of, unless it just was."""
        now = self._monotonic()
        before, when = self._said.get(command, ("", 0.0))
        if words != before or now - when >= REMINDER.total_seconds():
            self._said[command] = (words, now)
            log.warning("cycle-failed", command=command, error=words)
