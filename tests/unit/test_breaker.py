"""The circuit breaker's story, step by step, as a table of events."""

from datetime import timedelta

import pytest

from bdauto.domain.breaker import FIRST_WAIT, KEY, LONGEST_WAIT, REMEMBERED, TRIAL, Breaker, Death, read
from tests.support.fakes import NOW


def after(*beads: str, trip_after: int = 3) -> Breaker:
    """Return the breaker after one early death of each of these beads."""
    breaker = Breaker()
    for number, bead in enumerate(beads):
        breaker = breaker.after_death(Death(bead, f"w{number}", "job", "invalid API key"), trip_after, NOW)
    return breaker


@pytest.mark.parametrize(
    ("beads", "trip_after", "state"),
    [
        (("a", "b"), 3, "closed"),
        (("a", "b", "c"), 3, "open"),
        (("a", "a", "a", "a"), 3, "closed"),
        (("a", "b", "a"), 3, "open"),
        (("a", "a", "b"), 4, "closed"),
        (("a",), 1, "open"),
        (("a", "b", "c", "d"), 0, "closed"),
    ],
)
def test_it_trips_at_so_many_different_beads(beads: tuple[str, ...], trip_after: int, state: str) -> None:
    assert after(*beads, trip_after=trip_after).state(NOW) == state


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("key expired", "key expired", "key expired"), "open"),
        (("request req_1f: key expired", "request req_2a: key expired", "request req_77: key expired"), "open"),
        (("key expired", "key expired", "no such file"), "closed"),
        (("", "", ""), "closed"),
    ],
)
def test_two_beads_trip_it_where_all_die_with_the_same_words(words: tuple[str, ...], state: str) -> None:
    """A queue of two beads would be used up otherwise."""
    breaker = Breaker()
    for number, said in enumerate(words):
        breaker = breaker.after_death(Death("ab"[number % 2], f"w{number}", "job", said), 3, NOW)
    assert breaker.state(NOW) == state


def test_a_life_between_deaths_with_the_same_words_counts() -> None:
    breaker = after("a", "b").after_life("w9", NOW)
    assert breaker.after_death(Death("a", "w8", "job", "invalid API key"), 3, NOW).state(NOW) == "closed"


def test_the_same_attempt_counts_once() -> None:
    breaker = Breaker()
    for bead in ("a", "b", "c"):
        breaker = breaker.after_death(Death(bead, "w1"), 3, NOW)
    assert breaker.state(NOW) == "closed"


def test_it_waits_then_tries_one_bead_and_waits_twice_as_long_when_that_dies() -> None:
    breaker = after("a", "b", "c")
    assert breaker.until == NOW + FIRST_WAIT
    later = NOW + FIRST_WAIT
    assert breaker.state(later) == "half-open"
    tried = breaker.with_trial("w9", "d", later)
    assert tried.state(later) == "open"
    soon = later + timedelta(seconds=10)
    died = tried.after_death(Death("d", "w9"), 3, soon)
    assert (died.until, died.opened, died.trial) == (soon + 2 * FIRST_WAIT, 2, "")


def test_a_death_of_another_bead_during_a_trial_does_not_end_the_trial() -> None:
    breaker = after("a", "b", "c").with_trial("w9", "d", NOW + FIRST_WAIT)
    assert breaker.after_death(Death("e", "w8"), 3, NOW + FIRST_WAIT).trial == "w9"


def test_a_trial_without_a_sign_gives_its_place_away() -> None:
    breaker = after("a", "b", "c").with_trial("w9", "d", NOW + FIRST_WAIT)
    assert breaker.state(NOW + FIRST_WAIT + TRIAL) == "half-open"


def test_the_wait_doubles_up_to_an_hour() -> None:
    breaker, now, waits = after("a", "b", "c"), NOW, []
    for number in range(6):
        assert breaker.until
        waits.append(breaker.until - now)
        now = breaker.until
        breaker = breaker.with_trial(f"t{number}", "d", now)
        now += TRIAL
        breaker = breaker.after_death(Death("d", f"t{number}"), 3, now)
    assert waits == [timedelta(minutes=m) for m in (5, 10, 20, 40, 60, 60)]
    assert max(waits) == LONGEST_WAIT


def test_a_reset_time_replaces_the_wait() -> None:
    soon = NOW + timedelta(seconds=63)
    breaker = after("a", "b").after_death(Death("c", "w9"), 3, NOW, resume_at=soon)
    assert breaker.until == soon


@pytest.mark.parametrize("ahead", [timedelta(days=-1), timedelta(seconds=-1), timedelta()])
def test_a_reset_time_that_has_passed_means_the_shortest_wait(ahead: timedelta) -> None:
    breaker = after("a", "b").after_death(Death("c", "w9"), 3, NOW, resume_at=NOW + ahead)
    assert (breaker.until, breaker.state(NOW + FIRST_WAIT)) == (NOW + FIRST_WAIT, "half-open")


def test_a_reset_time_days_ahead_is_believed_and_shown() -> None:
    breaker = after("a", "b").after_death(Death("c", "w9"), 3, NOW, resume_at=NOW + timedelta(days=6))
    assert breaker.state(NOW + timedelta(days=5)) == "open"
    assert "until 2026-04-24T" in breaker.describe()


@pytest.mark.parametrize(("seconds", "waits"), [(1, 2 * FIRST_WAIT), (4 * 3600, timedelta(hours=4))])
def test_after_a_failed_trial_a_reset_time_only_prolongs_the_wait(seconds: float, waits: timedelta) -> None:
    """An agent that always says "try again in 1 second" would be tried again and again."""
    tried = after("a", "b", "c").with_trial("w9", "d", NOW)
    died = tried.after_death(Death("d", "w9"), 3, NOW, resume_at=NOW + timedelta(seconds=seconds))
    assert died.until == NOW + waits


def test_it_says_which_bead_tries() -> None:
    tried = after("a", "b", "c").with_trial("w9", "d", NOW)
    assert tried.describe() == (
        "suspended while d tries whether the agent works again: the agents of 3 beads died at once: invalid API key"
    )


def test_it_is_written_and_read_back() -> None:
    breaker = after("a", "b", "c")
    assert read({KEY: breaker.encode()}) == breaker
    assert read({}) == Breaker()


@pytest.mark.parametrize("value", ["", "x", "{", "[]", '{"deaths": 3}', '{"until": "tomorrow"}', "null", 7])
def test_a_value_that_bdauto_did_not_write_is_a_closed_breaker(value: object) -> None:
    assert read({KEY: value}).state(NOW) == "closed"


def test_hostile_words_are_cleaned_and_the_state_is_bounded() -> None:
    breaker = Breaker()
    for number in range(50):
        breaker = breaker.after_death(Death(f"b{number}", f"w{number}", "j", "x" * 10_000), 0, NOW)
    found = read({KEY: breaker.encode().replace("xxx", "\\u001b[31m")})
    assert len(found.deaths) == REMEMBERED
    assert "\x1b" not in found.describe()
    assert len(found.words) <= 300


@pytest.mark.parametrize("until", ["9999-12-31T23:59:59-14:00", "2100-01-01T00:00:00Z"])
def test_an_impossible_or_distant_end_does_not_hold_the_queue(until: str) -> None:
    found = read({KEY: f'{{"until": "{until}"}}'})
    assert found.state(NOW) != "open"
    assert found.describe().isprintable()
