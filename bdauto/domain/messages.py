"""What messages to people are about, and when the message of a day is due."""

from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum

import msgspec

from bdauto.common.errors import UsageError
from bdauto.domain.active_hours import parse_time_of_day, time_zone


class Topic(StrEnum):
    """What a message is about. The first five need a person."""

    question = "question"
    blocked = "blocked"
    quarantined = "quarantined"
    suspended = "suspended"
    limit = "limit"
    outage = "outage"
    starved = "starved"
    digest = "digest"


class DigestTime(msgspec.Struct, frozen=True):
    """A time of each day, in minutes since midnight of a zone. `text` is how the operator wrote it."""

    minute: int
    zone: tzinfo
    text: str

    def __str__(self) -> str:
        return self.text

    def day(self, now: datetime) -> date:
        """Return the last day whose digest is due by now: before its time that is the day before.

        The wall clock counts: a time that it skips is due just after it, and one that comes twice is of one day.
        """
        local = now.astimezone(self.zone)
        return local.date() - timedelta(days=local.hour * 60 + local.minute < self.minute)


def parse_digest_time(text: str) -> DigestTime:
    """Parse `09:00`, in UTC, or `09:00 Europe/Sofia`. Raises UsageError."""
    words = text.split()
    if len(words) not in (1, 2):
        raise UsageError(f"{text[:40]!r} is not a time of day: write it as 09:00 or '09:00 Europe/Sofia'")
    minute = parse_time_of_day(words[0])
    return DigestTime(minute, time_zone(words[1] if words[1:] else "UTC"), " ".join(words))


def parse_topics(texts: list[str]) -> tuple[str, ...]:
    """Return topics, several of which may be separated by commas. Raises UsageError."""
    topics = tuple(topic.strip() for text in texts for topic in text.split(",") if topic.strip())
    if unknown := [topic for topic in topics if topic not in set(Topic)]:
        raise UsageError(f"{unknown[0][:40]!r} is nothing to tell of: it is one of {', '.join(Topic)}")
    return topics
