"""The start of a time up to now, as people write it: a duration, or a date."""

import re
from datetime import datetime, timedelta

import msgspec

from bdauto.common.errors import UsageError
from bdauto.domain.values import DURATION_FORMS, parse_duration

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORDS = {"yesterday": 1, "today": 0, "last week": 7}
"""Days before this one."""


class Since(msgspec.Struct, frozen=True):
    """A start in words, which `parse_since` has checked."""

    text: str

    def __str__(self) -> str:
        return self.text

    def moment(self, now: datetime) -> datetime:
        """Return the start. A date begins at midnight in the zone of `now`, and lies in the past if it has no year."""
        words = " ".join(self.text.lower().split()).removesuffix(" ago")
        try:
            return now - parse_duration(words.replace(" ", ""))
        except UsageError:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            days = _WORDS.get(words, _days_since(words, now))
            return _date(words, now, midnight) if days is None else midnight - timedelta(days=days)


def parse_since(text: str) -> Since:
    """Check a duration or a date. Raises UsageError."""
    now = datetime.now().astimezone()
    try:
        moment = Since(text).moment(now)
    except (ValueError, OverflowError):
        forms = f"{DURATION_FORMS}, or a date: 2026-11-30, yesterday or 'last monday'"
        raise UsageError(f"{text[:40]!r} is neither a duration nor a date", hint=f"write it as {forms}") from None
    if moment > now:
        raise UsageError(f"{text[:40]!r} lies ahead", hint="name a time in the past")
    return Since(text)


def _days_since(words: str, now: datetime) -> int | None:
    """Return how many days ago `monday` or `last monday` was, None for other words. Today is not the last one."""
    found = re.fullmatch(r"(last |)([a-z]{3,9})", words)
    day = next((place for place, name in enumerate(_DAYS) if found and name.startswith(found[2])), None)
    if found is None or day is None:
        return None
    return (now.weekday() - day) % 7 or (7 if found[1] else 0)


def _date(words: str, now: datetime, midnight: datetime) -> datetime:
    """Return a date or a time of day as python-dateutil reads it. Raises ValueError or OverflowError."""
    from dateutil.parser import parse  # few need it, and it takes time

    if not re.search(r"\d", words) or re.fullmatch(r"[\d.]{1,3}", words):
        raise ValueError(words)
    moment = parse(words, default=midnight)
    if moment <= now or re.search(r"\d{4}", words):
        return moment
    return moment - timedelta(days=1) if moment.date() == now.date() else moment.replace(year=moment.year - 1)
