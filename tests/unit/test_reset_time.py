"""When the agent can work again, in the words that agents use."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.domain.breaker import LONGEST_RESET
from bdauto.domain.reset_time import reset_time

NOW = datetime(2026, 4, 18, 22, 35, 46, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (f"Claude AI usage limit reached|{int(NOW.timestamp()) + 63}", NOW + timedelta(seconds=63)),
        (f"limit resets at {int(NOW.timestamp()) + 3600}000", (NOW + timedelta(hours=1)).replace(microsecond=0)),
        ("rate limited until 2026-04-19T01:00:00Z", datetime(2026, 4, 19, 1, tzinfo=UTC)),
        ("until 2026-04-19 01:00:00+02:00", datetime(2026, 4, 18, 23, tzinfo=UTC)),
        ("Please try again in 63 seconds.", NOW + timedelta(seconds=63)),
        ("try again in 1h 30m", NOW + timedelta(minutes=90)),
        ("try again in 2 hours and 5 minutes", NOW + timedelta(minutes=125)),
        ("Retry-After: 120", NOW + timedelta(seconds=120)),
        ("You've hit your limit · resets 3pm (UTC)", datetime(2026, 4, 19, 15, tzinfo=UTC)),
        ("5-hour limit reached; resets at 11:30pm (UTC)", datetime(2026, 4, 18, 23, 30, tzinfo=UTC)),
        ("resets 3am (Europe/Sofia)", datetime(2026, 4, 19, 0, tzinfo=UTC)),
        ("resets at 23:15", datetime(2026, 4, 18, 23, 15, tzinfo=UTC)),
        ("resets 12am (UTC)", datetime(2026, 4, 19, 0, tzinfo=UTC)),
        ("in 2 hours, or in 90 seconds", NOW + timedelta(seconds=90)),
    ],
)
def test_what_is_named(words: str, expected: datetime) -> None:
    assert reset_time(words, NOW) == expected


@pytest.mark.parametrize(
    "words",
    [
        "",
        "invalid API key",
        "resets at 3",
        "resets at 25:00",
        "resets at 13pm",
        "until 2026-04-18T01:00:00Z",
        "until 2026-13-45T01:00:00Z",
        "in 400 hours",
        "1234567890",
        "job 17765504461776550446",
        "in 0 seconds",
    ],
)
def test_what_names_no_time_within_a_day(words: str) -> None:
    assert reset_time(words, NOW) is None


@given(st.text(max_size=300) | st.from_regex(r"(resets|in|until) [0-9apmshTZ:+ -]{0,40}(\([A-Za-z/_]{0,20}\))?"))
def test_hostile_words_never_fail_and_never_name_a_time_beyond_a_day(words: str) -> None:
    moment = reset_time(words, NOW)
    assert moment is None or NOW < moment <= NOW + LONGEST_RESET
