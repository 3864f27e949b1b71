"""Reports outages: at the start, every ten minutes, and at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from bdauto import log
from bdauto.domain.values import format_duration
from bdauto.errors import BdautoError

REMINDER = timedelta(minutes=10)


@dataclass
class _Outage:
    since: float
    said: float
    failures: int = 1


class Outages:
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


class RateLimitedWarnings:
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
