"""The time at which an agent can work again, read from a job's last words.

It may be an epoch, an ISO time, "in 63 seconds", or "resets at 3pm (UTC)".

Words are foreign text. What they name is believed only within the next 24 hours.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from bdauto.domain.bead import parse_time
from bdauto.domain.breaker import LONGEST_RESET

LOOKED_AT = 4_000
"""Characters of the words that are looked at, from their end."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
_EPOCH = re.compile(r"(?<![\w.])(\d{10}|\d{13})(?![\w.])", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)", re.ASCII)
_IN = re.compile(
    r"(?:in|after|retry[- ]after:?)\s+(?:about\s+)?"
    r"((?:\d{1,6}\s*(?:s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b[\s,]*(?:and\s+)?)+)",
    re.ASCII | re.IGNORECASE,
)
_PART = re.compile(r"(\d{1,6})\s*([smh])", re.ASCII | re.IGNORECASE)
_BARE_RETRY = re.compile(r"retry[- ]after:?\s+(\d{1,6})\b(?!\s*[smh])", re.ASCII | re.IGNORECASE)
_CLOCK = re.compile(
    r"(?:resets?|again|available|until|back)\s+(?:at\s+)?(\d{1,2})(?::(\d\d))?\s*([ap]m)?\s*(?:\(?([A-Z][A-Za-z]+(?:/[A-Za-z_]+)*)\)?)?",
    re.ASCII | re.IGNORECASE,
)


def reset_time(words: str, now: datetime) -> datetime | None:
    """Return the earliest time in the next 24 hours that the words name, None when they name none.

    A time of day without a zone is taken as UTC. `now` is aware.
    """
    named = [moment for moment in _named(words[-LOOKED_AT:], now) if now < moment <= now + LONGEST_RESET]
    return min(named, default=None)


def _named(words: str, now: datetime) -> Iterator[datetime]:
    for match in _EPOCH.finditer(words):
        yield datetime.fromtimestamp(int(match[1]) / (1000 if len(match[1]) == 13 else 1), UTC)
    for match in _ISO.finditer(words):
        try:
            yield parse_time(match[0])
        except ValueError:
            continue
    for match in _IN.finditer(words):
        parts = ((int(number), _UNITS[unit.lower()]) for number, unit in _PART.findall(match[1]))
        yield now + timedelta(seconds=sum(number * seconds for number, seconds in parts))
    for match in _BARE_RETRY.finditer(words):
        yield now + timedelta(seconds=int(match[1]))
    for match in _CLOCK.finditer(words):
        moment = _next(match, now)
        if moment:
            yield moment


def _next(match: re.Match[str], now: datetime) -> datetime | None:
    """Return the next time that a clock shows these digits, None where they are no time of day."""
    hour, minute, half = int(match[1]), int(match[2] or 0), (match[3] or "").lower()
    if not half and match[2] is None:
        return None  # a bare number is not a time of day
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or minute > 59:
        return None
    there = now.astimezone(_zone(match[4] or ""))
    moment = there.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (moment if moment > there else moment + timedelta(days=1)).astimezone(UTC)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name) if name else UTC
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return UTC
