"""The pause switch: what is written reads the same, it expires, and what others wrote pauses too."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.common.sanitize import clean
from bdauto.domain.pause import KEY, Pause, read
from tests.support.fakes import NOW


def test_what_is_written_has_the_four_fields() -> None:
    switch = Pause("why", "ann", NOW, NOW + timedelta(hours=2))
    assert msgspec.json.decode(switch.encode()) == {
        "reason": "why",
        "by": "ann",
        "since": "2026-04-18T22:35:46Z",
        "until": "2026-04-19T00:35:46Z",
    }
    assert msgspec.json.decode(Pause("", "ann", NOW).encode())["until"] is None


@given(reason=st.text(max_size=200), by=st.text(max_size=40), hours=st.none() | st.integers(1, 1000))
def test_what_is_written_reads_the_same(reason: str, by: str, hours: int | None) -> None:
    switch = Pause(clean(reason), clean(by, 80), NOW, NOW + timedelta(hours=hours) if hours else None)
    assert read({KEY: switch.encode()}, NOW) == switch


def test_a_pause_ends_by_itself() -> None:
    store = {KEY: Pause("why", "ann", NOW, NOW + timedelta(hours=2)).encode()}
    assert read(store, NOW + timedelta(hours=2) - timedelta(seconds=1))
    assert read(store, NOW + timedelta(hours=2)) is None


@pytest.mark.parametrize("store", [{}, {KEY: ""}, {KEY: None}, {"other": "x"}])
def test_no_pause(store: dict[str, object]) -> None:
    assert read(store, NOW) is None


@pytest.mark.parametrize("value", ["yes", "1", "{", '{"until": "soon"}', '{"reason": 7}', "[]", 7, True])
def test_what_somebody_else_wrote_pauses_too(value: object) -> None:
    switch = read({KEY: value}, NOW)
    assert switch
    assert "did not write" in switch.describe()


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        (Pause(""), "paused"),
        (Pause("why", "ann", NOW), "paused by ann: why"),
        (Pause("why", "ann", NOW, NOW), "paused by ann until 2026-04-18T22:35:46Z: why"),
    ],
)
def test_in_words(switch: Pause, words: str) -> None:
    assert switch.describe() == words


def test_a_pause_until_the_end_of_the_calendar_is_a_pause_in_one_line() -> None:
    found = read({KEY: '{"reason": "x", "until": "9999-12-31T23:59:59-14:00"}'}, NOW)
    assert found is not None
    assert found.describe().startswith("paused")
