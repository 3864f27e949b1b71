"""Times as text: how notes, metadata and services write them."""

from datetime import UTC, datetime, time, timedelta

from bdauto.common.sanitize import clean


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 time. It is UTC if it has no offset. Raises ValueError, also at either end of the calendar."""
    try:
        value = datetime.fromisoformat(text)
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        check_time(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{clean(text, 40)!r} is not an ISO 8601 time: {error}") from None
    return value


def check_time(moment: datetime | None) -> None:
    """Raise OverflowError for a time at either end of the calendar, where arithmetic would overflow."""
    _ = moment and moment.astimezone(UTC) + timedelta(days=1)


def midnight(now: datetime) -> datetime:
    """Return when this day began in the zone of this machine, also on a day on which its clocks change."""
    return datetime.combine(now.astimezone().date(), time()).astimezone()


def format_time(moment: datetime) -> str:
    """Write a time as notes and metadata hold it, e.g. `2026-04-18T22:35:46Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
