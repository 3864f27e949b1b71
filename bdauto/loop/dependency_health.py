"""Which dependencies answer, as `bdauto run` learns from its cycles, and the reports of their outages."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bdauto.agents.runner_status import AGENT, RunnerStatus
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, BdError, ServiceError
from bdauto.domain.messages import Topic
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.domain.values import format_age, format_duration
from bdauto.telemetry.families import ASKED, UP
from bdauto.telemetry.recorder import Telemetry

BD, HEALTH = "bd", "health"
REMINDER = timedelta(minutes=10)
"""How often a lasting outage is logged."""
STARTING = (BeadOutcome.dispatched, BeadOutcome.busy)
NOT_STARTING = (BeadOutcome.unavailable, BeadOutcome.misconfigured, BeadOutcome.unknown)


class DependencyHealth:
    """The health of bd, of the parts of the runner, and of `dispatch`: whether beads are started.

    An outage ends only when the operation that failed succeeds: `bd list` may work while `bd ready` still fails.
    """

    def __init__(self, telemetry: Telemetry, runtime: Runtime, back: Callable[[], None]) -> None:
        """`back` is called when an outage ends."""
        self._now = runtime.now
        self._asked: dict[str, datetime] = {}
        self._telemetry = telemetry
        self._outages = _Outages(runtime.monotonic, lambda title, text: telemetry.tell(Topic.outage, title, text))
        self._back = back
        self._failing: defaultdict[str, set[str]] = defaultdict(set)
        """The users of each target that do not get what they want."""
        self._up: dict[str, bool] = {}
        self._starts = ""
        """The target that starts beads, as soon as it is known."""

    @property
    def down(self) -> bool:
        """Whether dispatching waits for something that is down."""
        failing = any(HEALTH in users for users in self._failing.values())
        return "dispatch" in self._failing[BD] or failing or self.posts_fail

    @property
    def posts_fail(self) -> bool:
        """Whether only a further POST can tell if beads are started again."""
        return "dispatch" in self._outages

    @property
    def bd_fails(self) -> bool:
        """Whether a job of the loop waits for bd."""
        return bool(self._failing[BD] & {"dispatch", "reap"})

    @property
    def ready(self) -> bool:
        """Whether bd, and what starts beads, answered when last asked."""
        return all(self._up.get(target) for target in (BD, self._starts))

    def trouble(self) -> str:
        """Name, in one line, what did not answer when last asked, or was not asked yet."""
        down = [target for target in dict.fromkeys((BD, self._starts)) if target and not self._up.get(target)]
        return f"{' and '.join(down) or 'what starts beads'} did not answer, or was not asked yet\n"

    def describe(self) -> str:
        """Say of each target, a line each, whether it answered when it was last asked, and how long ago that was."""
        now = self._now()
        return "".join(
            f"{target} {'up' if self._up.get(target) else 'down'}, asked {format_age(now - asked)} ago\n"
            for target, asked in sorted(self._asked.items())
        )

    def services(self, status: RunnerStatus) -> None:
        """Note what the parts of the runner said."""
        self._telemetry.services(status.up, status.free)
        if status.parts:
            self._starts = status.parts[0].key
        for part in status.parts:
            if part.configured:
                self._used(part.key, HEALTH, part.error)

    def jobs(self, error: BdautoError | None) -> None:
        """Note whether the state of jobs could be asked for."""
        self._used(AGENT, "jobs", error if isinstance(error, ServiceError) else None)

    def bd(self, user: str, error: BdautoError | None) -> None:
        """Note whether bd did what this user of it wanted."""
        self._used(BD, user, error if isinstance(error, BdError) else None)

    def _used(self, target: str, user: str, error: BdautoError | None) -> None:
        """Note what became of a use of a target. It is up while the last use of each user succeeded."""
        failing = self._failing[target]
        if error:
            failing.add(user)
            self._outages.failed(target, error)
        else:
            failing.discard(user)
            if not failing:
                self._answered(target)
        self._up[target] = not failing
        self._note(target)
        self._telemetry.set(UP, self._up[target], target=target)

    def posts(self, report: Report) -> None:
        """Note whether beads can be started. The outcome of the last claimed bead decides."""
        telling = [bead.outcome for bead in report.beads if bead.attempt and bead.outcome in STARTING + NOT_STARTING]
        if telling and telling[-1] in STARTING:
            self._answered("dispatch")
        elif telling and report.error:
            self._outages.failed("dispatch", report.error)

    def _note(self, target: str) -> None:
        now = self._asked[target] = self._now()
        self._telemetry.set(ASKED, now.timestamp(), target=target)

    def _answered(self, target: str) -> None:
        if self._outages.answered(target):
            self._back()


@dataclass
class _Outage:
    since: float
    said: float
    failures: int = 1


class _Outages:
    """The current outages, by target. `tell` gets a title and a text when one starts and when it ends."""

    def __init__(self, monotonic: Callable[[], float], tell: Callable[[str, str], None]) -> None:
        self._monotonic = monotonic
        self._tell = tell
        self._outages: dict[str, _Outage] = {}

    def failed(self, target: str, error: BdautoError) -> None:
        """Note that a target failed."""
        now = self._monotonic()
        outage = self._outages.get(target)
        if outage is None:
            self._outages[target] = _Outage(now, now)
            self._tell(f"outage of {target}", str(error))
            log.error("outage", target=target, error=error)
            return
        outage.failures += 1
        if now - outage.said >= REMINDER.total_seconds():
            outage.said = now
            log.error("outage", target=target, seconds=now - outage.since, failures=outage.failures, error=error)

    def answered(self, target: str) -> bool:
        """Note that a target worked. Return True if that ended an outage."""
        outage = self._outages.pop(target, None)
        if outage is None:
            return False
        seconds = self._monotonic() - outage.since
        lasted = format_duration(timedelta(seconds=round(seconds)))
        self._tell(f"end of the outage of {target}", f"after {lasted} and {outage.failures} failures")
        log.event("recovered", target=target, seconds=seconds, failures=outage.failures)
        return True

    def __contains__(self, target: str) -> bool:
        return target in self._outages

    def __bool__(self) -> bool:
        return bool(self._outages)
