"""Settings: durations, secrets, and what of them is shown."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.common.errors import UsageError
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings, Secret, describe
from bdauto.domain.values import format_duration, parse_duration, redact

DURATIONS = {
    "500ms": timedelta(milliseconds=500),
    "90s": timedelta(seconds=90),
    "30m": timedelta(minutes=30),
    "1h30m": timedelta(minutes=90),
    "2d": timedelta(days=2),
    "1d2h3m4s5ms": timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5),
    " 5s ": timedelta(seconds=5),
    "3650d": timedelta(days=3650),
}


@pytest.mark.parametrize(("text", "duration"), DURATIONS.items())
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0s",
        "0",
        "30",
        "-5m",
        "+5m",
        "1.5h",
        "5 m",
        "5M",
        "m",
        "30m1h",
        "1h1h",
        "5min",
        "3651d",
        "٣m",
        "9" * 400 + "s",
    ],
)
def test_anything_else_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(UsageError, match="500ms, 90s, 30m, 1h30m or 2d") as caught:
        parse_duration(text)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 120


@given(st.integers(1, 3650 * 86_400_000))
def test_a_duration_is_read_as_it_is_written(millis: int) -> None:
    duration = timedelta(milliseconds=millis)
    text = format_duration(duration)
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1800, "30m"),
        (5400, "1h30m"),
        (604_800, "7d"),
        (93_784.005, "1d2h3m4s5ms"),
        (90, "1m30s"),
        (45, "45s"),
        (0.5, "500ms"),
        (0, "0s"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


def test_a_secret_shows_nowhere() -> None:
    settings = BeadBoardSettings(agent_token=Secret("s3cret"), agent_url="http://me:s3cret@h/?key=s3cret")
    shown = describe(settings, BdSettings(), DispatchSettings(labels=("a", "b")), ReapSettings(dry_run=True))
    assert "s3cret" not in f"{settings.agent_token} {settings.agent_token!r} {shown}"
    assert shown["agent_token"] == "***"
    assert shown["agent_url"] == "http://***@h/?***"
    assert (shown["labels"], shown["threshold"], shown["dry_run"]) == ("a,b", "30m", "true")
    assert "db" not in shown, "what is not set is not shown"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:3000/a", "http://h:3000/a"),
        ("http://u@h", "http://***@h"),
        ("http://u:p@h/x?token=t&a=b", "http://***@h/x?***"),
        ("http://u:p@ss@h/x", "http://***@h/x"),
        ("http://u:p/ss@h/x", "http://***@h/x"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown
