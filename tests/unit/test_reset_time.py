"""When the agent can work again, in the words that agents use."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.domain.reset_time import LONGEST, UNKNOWN_ZONE, reset_time

ENDED = datetime(2026, 11, 30, 11, tzinfo=UTC)  # a Monday
BERLIN = ZoneInfo("Europe/Berlin")


def utc(day: int, hour: int, minute: int = 0, second: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, second, tzinfo=UTC)


def later(**duration: float) -> datetime:
    return ENDED + timedelta(**duration)


STACK = "\n".join(f"    at run (/usr/lib/cli/chunk-{n}.js:{n}:14)" for n in range(20))
DATES = [
    ("You've hit your limit · resets 10:30pm (Europe/Berlin)\n/upgrade to increase your limit", utc(30, 21, 30)),
    ("limit reached · resets 10:30pm (Europe/Berlin)\n/login to use another account", utc(30, 21, 30)),
    ("You've hit your limit · resets 9am (America/Port-au-Prince)", utc(30, 14)),
    ("limit · resets 3:15 p.m. (Europe/Berlin)", utc(30, 14, 15)),
    ("session limit reached ∙ resets 3pm", utc(30, 14)),
    ("weekly limit reached ∙ resets Dec 3, 10:59am (America/New_York)", utc(3, 15, 59, month=12)),
    ("weekly limit · resets Thursday, December 3 at 9am (UTC)", utc(3, 9, month=12)),
    ("limit · resets 3 Dec 14:00 UTC", utc(3, 14, month=12)),
    ("limit · resets Jan 1, 9am (UTC)", datetime(2027, 1, 1, 9, tzinfo=UTC)),
    ("limit · resets Tue 9:00 AM", utc(1, 8, month=12)),
    ("limit · resets tomorrow at 9am", utc(1, 8, month=12)),
    ("usage limit. Upgrade to Pro or try again at 4:37 PM.", utc(30, 15, 37)),
    ("429 Too Many Requests Retry-After: Mon, 30 Nov 2026 13:00:00 GMT", utc(30, 13)),
    ("rate limit, try again at 9:00 AM UTC+2", utc(1, 7, month=12)),
    ("rate limit, try again at 9:00 AM UTC-05:30", utc(30, 14, 30)),
    ("quota resets at 15:00 (CET)", utc(30, 14)),
    ("limit resets at 8am PT", utc(30, 16)),
    ("limit will reset at 2026-11-30 21:15:07", utc(30, 20, 15, 7)),
    ("limit will reset at 2026-11-30 21:15:07 +0800 CST", utc(30, 13, 15, 7)),
    ("rate limited until 2026-11-30T13:00:00Z", utc(30, 13)),
    ("rate limit resets at 2026-11-30T14:00:00.123456+02:00", utc(30, 12)),
    ("resets 12am (UTC)", utc(1, 0, month=12)),
    ("resets at 23:15", utc(30, 22, 15)),
]
WAITS = [
    ("try again in 3 hours 42 minutes", later(hours=3, minutes=42)),
    ("try again in 2 days 17 hours 14 minutes.", later(days=2, hours=17, minutes=14)),
    ("Your quota will reset after 45m12s.", later(minutes=45, seconds=12)),
    ("reset after 45m12s", later(minutes=45, seconds=12)),
    ("Please try again in 7h12m0s. Visit", later(hours=7, minutes=12)),
    ("Please retry in 34.07s.", later(seconds=34.07)),
    ('"retryDelay": "2475s"\n}', later(seconds=2475)),
    ('{"headers": {"retry-after": "3523", "date": "x"}}', later(seconds=3523)),
    ("headers: { 'retry-after': 3523 }", later(seconds=3523)),
    ("Retry-After: 120", later(minutes=2)),
    ("retry-after-ms: 1500", later(seconds=1.5)),
    ('{"error": {"type": "usage_limit_reached", "resets_in_seconds": 7260}}', later(seconds=7260)),
    ("try again in 1h 30m", later(minutes=90)),
    ("try again in 2 hours and 5 minutes", later(minutes=125)),
    ("Please try again in 63 seconds.", later(seconds=63)),
    ("try again in about 2 hours", later(hours=2)),
]
EPOCHS = [
    (f"Claude AI usage limit reached|{int(later(hours=3).timestamp())}", later(hours=3)),
    (f'"resetsAt":{int(later(hours=3).timestamp())},"rateLimitType":"five_hour"', later(hours=3)),
    (f"limit resets at {int(later(hours=3).timestamp())}000", later(hours=3)),
    (f"anthropic-ratelimit-unified-reset: {int(later(hours=5).timestamp())}", later(hours=5)),
    (f'"resets_at": {int(later(days=3).timestamp())}', later(days=3)),
]


@pytest.mark.parametrize(("text", "expected"), DATES + WAITS + EPOCHS)
def test_what_is_named(text: str, expected: datetime) -> None:
    found = reset_time(text, ENDED, BERLIN)
    assert found is not None
    assert abs(found - expected) < timedelta(seconds=1)


@pytest.mark.parametrize(("text", "expected"), WAITS)
def test_a_stack_trace_hides_nothing(text: str, expected: datetime) -> None:
    assert reset_time(f"{text}\n{STACK}", ENDED, BERLIN) == expected


def test_nothing_is_cut_before_it_is_read() -> None:
    padding = "Visit the settings page. " * 7
    text = f"[2026-11-30T10:59:58] ERROR: You've hit your usage limit. {padding}try again at 4:37 PM."
    assert reset_time(text, ENDED, BERLIN) == utc(30, 15, 37)


@pytest.mark.parametrize(
    "text", ["limit · resets 3pm", "limit will reset at 2026-11-30 21:15:07", "limit resets 3pm (Atlantis)"]
)
def test_a_time_in_an_unknown_zone_is_not_believed_to_the_hour(text: str) -> None:
    assert reset_time(text, ENDED, None) == ENDED + UNKNOWN_ZONE


@pytest.mark.parametrize("text", ["limit · resets 11:59am (Europe/Berlin)", "limit · resets 11:10 am (Europe/Berlin)"])
def test_a_time_that_has_just_passed_is_not_tomorrow(text: str) -> None:
    found = reset_time(text, ENDED, None)
    assert found is not None
    assert ENDED - timedelta(hours=1) <= found <= ENDED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "invalid API key",
        "refresh token valid until 2026-12-01T08:00:00Z",
        "build 1796100000 failed",
        "room available at 12:30",
        "[2026-11-30T13:00:00Z] starting",
        "killed after 20 hours",
        "connection reset after 20 seconds",
        "request req_011796100000 failed",
        "resets at 3",
        "resets at 25:00",
        "resets at 13pm",
        "resets at 2026-13-45T01:00:00Z",
        "try again in 400 days",
        "1234567890",
        "job 17765504461776550446",
        "the cache resets the state",
        "see you again at 12:30",
        "resets on Tuesday",
    ],
)
def test_what_names_no_time(text: str) -> None:
    assert reset_time(text, ENDED, BERLIN) is None


@given(
    st.text(max_size=300)
    | st.from_regex(r"(resets|try again in|retry-after:) [0-9apmshTZ:+ ./-]{0,40}(\([A-Za-z/_]{0,20}\))?")
)
def test_hostile_words_never_fail_and_are_bounded(text: str) -> None:
    moment = reset_time(text, ENDED, BERLIN)
    assert moment is None or abs(moment - ENDED) <= LONGEST
