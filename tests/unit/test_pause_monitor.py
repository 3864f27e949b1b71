"""The pause switch as it is stored: what holds, what has expired, and what somebody else wrote."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.domain.pause import KEY, Pause, read
from tests.support.fakes import NOW

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "pause",
    [
        Pause("deploy"),
        Pause("", "ann", NOW),
        Pause('a "quoted" reason: é', "ann", NOW - HOUR, NOW + HOUR),
    ],
    ids=["a reason", "a name", "everything"],
)
def test_a_pause_is_read_as_it_was_written(pause: Pause) -> None:
    assert read({KEY: pause.encode()}, NOW) == pause


@pytest.mark.parametrize("store", [{}, {KEY: ""}, {KEY: None}, {"other": "x"}], ids=str)
def test_without_the_key_nothing_is_paused(store: dict[str, object]) -> None:
    assert read(store, NOW) is None


def test_a_pause_ends_by_itself() -> None:
    store = {KEY: Pause("x", until=NOW).encode()}
    assert read(store, NOW - timedelta(seconds=1)) is not None
    assert read(store, NOW) is None


@pytest.mark.parametrize(
    "value", ["yes", "true", "5", "[]", '{"until": "soon"}', '{"reason": 5}', "{", 5, True, "\ud800"], ids=repr
)
def test_whoever_sets_the_key_by_hand_means_it(value: object) -> None:
    found = read({KEY: value}, NOW)
    assert found is not None
    assert "did not write" in found.describe()


def test_words() -> None:
    assert Pause("").describe() == "paused"
    assert Pause("deploy", "ann", NOW, NOW + HOUR).describe() == "paused by ann until 2026-04-18T23:35:46Z: deploy"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.text(max_size=100) | st.integers() | st.none()
)
def test_what_is_shown_of_a_pause_is_one_harmless_line(reason: str, value: object) -> None:
    for stored in (Pause(reason, reason).encode(), value):
        found = read({KEY: stored}, NOW)
        assert found is None or (found.describe().isprintable() and len(found.describe()) < 600)
