"""When a time up to now begins, as people write it."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from bdauto.common.errors import UsageError
from bdauto.domain.since import Since, parse_since

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
"""A Monday."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", "2026-11-23T12:00:00+01:00"),
        ("1h30m", "2026-11-30T10:30:00+01:00"),
        ("2d ago", "2026-11-28T12:00:00+01:00"),
        ("last monday", "2026-11-23T00:00:00+01:00"),
        ("Monday", "2026-11-30T00:00:00+01:00"),
        ("last Sun", "2026-11-29T00:00:00+01:00"),
        ("yesterday", "2026-11-29T00:00:00+01:00"),
        ("last week", "2026-11-23T00:00:00+01:00"),
        ("2026-11-30", "2026-11-30T00:00:00+01:00"),
        ("2026-11-29T10:00Z", "2026-11-29T10:00:00+00:00"),
        ("2026-07-01", "2026-07-01T00:00:00+02:00"),
        ("Nov 3 10:00", "2026-11-03T10:00:00+01:00"),
        ("3 December", "2025-12-03T00:00:00+01:00"),
        ("22:00", "2026-11-29T22:00:00+01:00"),
    ],
)
def test_a_duration_or_a_date(text: str, expected: str) -> None:
    assert Since(text).moment(NOW).isoformat() == expected
    assert parse_since(text).text == text


@pytest.mark.parametrize("text", ["", "banana", "7", "1.5", "last banana", "2026-13-01", "30 feb", "9" * 400])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither a duration nor a date"):
        parse_since(text)


def test_a_date_ahead_is_refused() -> None:
    with pytest.raises(UsageError, match="lies ahead"):
        parse_since("2999-01-01")
