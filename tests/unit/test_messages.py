"""Messages: a person is needed is the first; each cause once, over restarts and processes; and a digest once a day."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bdauto.cli.one_shot import OneShot
from bdauto.cli.validation import check_telemetry
from bdauto.common.errors import BdFailed, UsageError
from bdauto.controllers.told import KEY, MOST
from bdauto.domain.breaker import Breaker, Death, key_of
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.messages import Topic, parse_digest_time, parse_topics
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.settings import DispatchSettings, Secret, TelemetrySettings
from bdauto.loop.messenger import Messenger
from bdauto.telemetry.recorder import Telemetry
from tests.support.fakes import NOW, Clock, row
from tests.support.scene import Make, Queue

HOUR = timedelta(hours=1)
URL = (Secret("json://hook.test"),)


def blocked(bead_id: str, attempt: str = "w1", **fields: Any) -> dict[str, Any]:
    """A bead that its agent has blocked in this attempt."""
    run = Run(attempt=attempt, job=attempt, claimed_at=NOW - HOUR, ended_at=NOW - HOUR / 2, result=Result.completed)
    record = Record(assignee="agent").with_runs((run,)).change(quarantined=fields.pop("quarantined", ""))
    notes = "claimed by agent w1\nblocked: which vault is it?"
    return row(bead_id, **{"status": "blocked", "notes": notes, "metadata": metadata_of(record), **fields})


def asks(bead_id: str, question: str) -> list[dict[str, Any]]:
    """A bead whose agent has asked a question."""
    ran = blocked(bead_id, status="open", dependencies=[{"type": "blocks", "depends_on_id": question}])
    return [ran, row(question, title="Which vault?", labels=["human"], assignee="")]


class Process:
    """One process that sends messages. `told` has topic, title and text of each."""

    def __init__(self, tracker: Queue, **settings: Any) -> None:
        self.told: list[tuple[str, str, str]] = []
        telemetry = Telemetry(TelemetrySettings(notify_urls=URL, **settings))
        telemetry.tell = lambda *message: self._tell(telemetry, *message)  # type: ignore[method-assign]
        self.messenger = Messenger(tracker, lambda: tracker, tracker.clock.runtime(), telemetry)

    def _tell(self, telemetry: Telemetry, topic: Topic, title: str, text: str) -> None:
        if telemetry.tells(topic):
            self.told.append((topic, title, text))

    def look(self) -> list[tuple[str, str, str]]:
        """Look once, and return what was told of it."""
        self.told.clear()
        self.messenger.look()
        return [*self.told]


def tracker(*rows: dict[str, Any], now: datetime = NOW) -> Queue:
    return Queue(Clock(now), *rows)


def titles(told: Sequence[tuple[str, str, str]]) -> list[str]:
    return [title for _, title, _ in told]


def test_who_needs_a_person_with_last_words_and_what_to_do() -> None:
    rows = [blocked("x-1"), blocked("x-2", quarantined="no progress for 31m"), *asks("x-3", "q-1")]
    told = {topic: (title, text) for topic, title, text in Process(tracker(*rows)).look()}
    assert told == {
        "question": (
            "x-3 (title of x-3) waits for your answer",
            'q-1: Which vault?\n\nbd close q-1 --reason "the answer"',
        ),
        "blocked": (
            "x-1 (title of x-1) is blocked",
            "blocked: which vault is it?\n\n"
            "Look at it with `bdauto explain x-1`, then let it go on: bd update x-1 -s open",
        ),
        "quarantined": (
            "x-2 (title of x-2) is quarantined",
            "no progress for 31m\n\nLook at it with `bdauto explain x-2`, then let it go on: bd update x-2 -s open",
        ),
    }


@pytest.mark.parametrize(
    "other",
    [
        row("x-1", status="blocked"),
        blocked("x-1", quarantined="cancelled by ann"),
        row("x-1"),
        row("q-1", labels=["human"]),
    ],
    ids=["blocked-by-hand", "cancelled", "open", "a-question-of-nobody"],
)
def test_nobody_is_told_of_what_needs_no_person(other: dict[str, Any]) -> None:
    assert Process(tracker(other)).look() == []


def test_each_cause_is_told_once_whoever_looks_and_after_a_restart() -> None:
    there = tracker(blocked("x-1"), *asks("x-3", "q-1"))
    one, other = Process(there), Process(there)
    assert len(one.look()) == 2
    assert one.look() == other.look() == Process(there).look() == []


def test_two_processes_at_the_same_moment_tell_once() -> None:
    there = tracker(blocked("x-1"))
    one, other = Process(there), Process(there)
    second: list[Any] = []
    swap = there.swap

    def raced(key: str, old: str | None, new: str | None) -> bool:
        there.swap = swap  # type: ignore[method-assign]
        second.extend(other.look())
        return swap(key, old, new)

    there.swap = raced  # type: ignore[method-assign]
    assert (one.look(), len(second)) == ([], 1)


def test_a_new_cause_at_the_same_bead_is_told() -> None:
    there = tracker(blocked("x-1"))
    one = Process(there)
    assert len(one.look()) == 1
    there.rows["x-1"] = blocked("x-1", "w2")
    assert len(one.look()) == 1
    there.rows["x-1"] |= {"updated_at": NOW, "notes": "blocked: which vault is it?\nann: I shall look"}
    assert one.look() == []


def test_what_one_process_does_not_tell_another_does() -> None:
    there = tracker(blocked("x-1"), *asks("x-3", "q-1"))
    questions, everything = Process(there, notify_on=("question",)), Process(there)
    assert titles(questions.look()) == ["x-3 (title of x-3) waits for your answer"]
    assert titles(everything.look()) == ["x-1 (title of x-1) is blocked"]
    assert questions.look() == everything.look() == []


def test_five_hundred_blocked_beads_are_one_message() -> None:
    there = tracker(*(blocked(f"x-{number}", f"w{number}") for number in range(500)))
    [(_, title, text)] = Process(there).look()
    assert title == "500 times you are needed"
    assert len(text.splitlines()) == 21
    assert text.endswith("and 480 more: `bdauto status` shows all")
    assert Process(there).look() == []
    assert len(next(value for key, value in there.store.items() if key.startswith(KEY))) < 10_000


def test_what_is_kept_is_bounded() -> None:
    there = tracker(*(blocked(f"x-{number}", f"w{number}") for number in range(MOST + 100)))
    Process(there).look()
    assert len(next(iter(there.store.values()))) < 14 * MOST
    assert Process(there).look() == []


def test_queues_of_other_people_are_kept_apart() -> None:
    there = tracker(blocked("x-1"))
    assert len(Process(there).look()) == 1
    [key] = there.store
    there.settings = type(there.settings)(assignee="other")
    there.rows["y-1"] = blocked("y-1", assignee="other")
    assert len(Process(there).look()) == 1
    assert len(there.store) == 2
    there.settings = type(there.settings)()
    assert Process(there).look() == []
    assert key in there.store


def test_a_message_names_its_lane() -> None:
    there = tracker(blocked("x-1"))
    there.lane = "night"
    assert titles(Process(there).look()) == ["night: x-1 (title of x-1) is blocked"]


def test_lanes_that_share_a_queue_tell_each_of_its_own_beads() -> None:
    """Else each bead is told once for each lane, and its cost is in the digest of each."""
    ran = Run(
        attempt="w9", claimed_at=NOW - HOUR, ended_at=NOW - HOUR / 2, result=Result.completed, cost_usd=0.5, lane="docs"
    )
    docs = metadata_of(Record(assignee="agent").with_runs((ran,)))
    there = tracker(
        blocked("x-1", metadata=docs),
        *(one | ({"metadata": docs} if one["id"] == "x-3" else {}) for one in asks("x-3", "q-1")),
        blocked("x-2"),
        blocked("x-4", metadata=metadata_of(Record(assignee="agent").change(quarantined="refused"))),
    )
    rules = tuple(LaneRule(name, "agent", DispatchSettings()) for name in ("hard", "docs"))
    told = {}
    for lane in ("hard", "docs"):
        there.lane, there.lanes = lane, Lanes(lane, rules)
        told[lane] = {topic: title for topic, title, _ in Process(there, digest_at=parse_digest_time("09:00")).look()}
    assert told["hard"].keys() == {"blocked", "quarantined", "digest"}
    assert told["hard"]["blocked"] == "hard: x-2 (title of x-2) is blocked"
    assert told["docs"].keys() == {"blocked", "question", "digest"}
    assert told["docs"]["blocked"] == "docs: x-1 (title of x-1) is blocked"
    assert ["$" in told[lane]["digest"] for lane in ("hard", "docs")] == [False, True]


@pytest.mark.parametrize("value", ["no json", "[]", '{"causes": 3}', '{"digest": "9999-12-31"}', "{" * 10_000])
def test_what_others_wrote_there_stops_nothing(value: str) -> None:
    there = tracker(blocked("x-1"))
    Process(there).look()
    [key] = there.store
    there.store[key] = value
    told = Process(there, digest_at=parse_digest_time("09:00")).look()
    assert [topic for topic, _, _ in told] == ["blocked", "digest"]


def test_a_suspension_is_told_once_and_its_end() -> None:
    there = tracker()
    one, other = Process(there), Process(there)
    death = Death("x-1", "w1", words="Invalid API key")
    there.store[key_of("default")] = Breaker((death,), NOW + HOUR, 1).encode()
    [(topic, title, text)] = one.look()
    assert (topic, title) == ("suspended", "dispatching is suspended")
    assert "Invalid API key" in text
    there.store[key_of("default")] = Breaker((death,), NOW - HOUR, 2, "w2", "x-2").encode()
    assert one.look() == other.look() == []
    del there.store[key_of("default")]
    assert titles([*other.look(), *one.look()]) == ["dispatching goes on"]


def test_a_limit_is_told_once_a_day_though_it_comes_and_goes() -> None:
    there = tracker()
    one = Process(there)
    reached = Report("dispatch", Outcome.limited, False, detail="$20.00 spent in 24 hours, at most $20")
    free = Report("dispatch", Outcome.idle, False)

    def cycle(report: Report) -> list[str]:
        one.messenger.note(report, DispatchSettings())
        return titles(one.look())

    assert one.messenger.note(reached, DispatchSettings())
    assert cycle(reached) == ["a limit is reached, so nothing is dispatched"]
    assert not one.messenger.note(reached, DispatchSettings())
    assert [cycle(free), cycle(reached), cycle(free), Process(there).look()] == [[], [], [], []]
    there.clock.time += timedelta(days=1)
    assert cycle(reached) == ["a limit is reached, so nothing is dispatched"]


@pytest.mark.parametrize(
    "title", ["a\nb\x1b[31m\u202e", "x" * 10_000, "<b>[red]*bold*", "token ghp_0123456789abcdef0123"]
)
def test_a_hostile_title_is_one_short_line(title: str) -> None:
    [(_, shown, text)] = Process(tracker(blocked("x-1", title=title, notes="a\x1b]0;x\x07 " + "y" * 9000))).look()
    assert len(shown) < 120
    assert len(text) < 700
    for bad in ("\n", "\x1b", "\u202e", "ghp_0123456789abcdef0123"):
        assert bad not in shown
    assert "\x1b" not in text


# The digest


def ended(bead_id: str, result: Result, hours: float, **fields: Any) -> dict[str, Any]:
    at = NOW - hours * HOUR
    run = Run(
        attempt=bead_id, job=bead_id, claimed_at=at - HOUR, ended_at=at, result=result, cost_usd=1.55, words="it broke"
    )
    record = Record(assignee="agent").with_runs((run,))
    closed = {"closed_at": at} if fields.get("status") == "closed" else {}
    return row(bead_id, metadata=metadata_of(record), updated_at=at, **closed, **fields)


def test_the_digest_has_what_was_closed_what_failed_and_who_waits() -> None:
    rows = [
        ended("x-1", Result.completed, 2, status="closed"),
        ended("x-2", Result.failed, 3, status="open"),
        ended("x-9", Result.completed, 30, status="closed"),
        blocked("x-4", updated_at=NOW - 50 * HOUR),
    ]
    [_, (topic, title, text)] = Process(tracker(*rows), digest_at=parse_digest_time("09:00")).look()
    assert (topic, title) == ("digest", "in 24 hours: 1 closed, 1 failed, 1 needs you, $3.10")
    assert text == (
        "Closed:\nx-1 (title of x-1)\n\nFailed:\nx-2 (title of x-2): it broke\n\n"
        "Waiting for you:\nx-4 (title of x-4) is blocked: blocked: which vault is it?"
    )


def test_a_day_without_anything_has_a_digest_too() -> None:
    [(_, title, text)] = Process(tracker(), digest_at=parse_digest_time("09:00")).look()
    assert title == "in 24 hours: 0 closed, 0 failed, 0 need you"
    assert text == "Nothing has ended, and nothing waits for you."


def test_a_digest_is_sent_once_a_day_by_whoever_is_first() -> None:
    there = tracker(now=datetime(2026, 4, 18, 8, 59, tzinfo=UTC))
    at = parse_digest_time("09:00")
    assert len(Process(there, digest_at=at).look()) == 1, "the first one shows that it arrives"
    assert Process(there, digest_at=at).look() == []
    there.clock.time += timedelta(minutes=2)
    assert len(Process(there, digest_at=at).look()) == 1
    assert Process(there, digest_at=at).look() == Process(there, digest_at=parse_digest_time("05:00")).look() == []
    there.clock.time += timedelta(hours=23, minutes=58)
    assert Process(there, digest_at=at).look() == []
    there.clock.time += timedelta(minutes=2)
    assert len(Process(there, digest_at=at).look()) == 1


@pytest.mark.parametrize("day", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)])
@pytest.mark.parametrize("at", ["02:30", "03:00", "00:00", "23:59"])
def test_one_digest_a_day_when_the_clocks_change(day: datetime, at: str) -> None:
    there = tracker(now=day - timedelta(days=1, hours=2))
    one = Process(there, digest_at=parse_digest_time(f"{at} Europe/Berlin"))
    one.look()
    sent = []
    for _ in range(4 * 24 * 3):
        there.clock.time += timedelta(minutes=15)
        if one.messenger.is_due("same") and one.look():
            sent.append(there.clock.time.astimezone(ZoneInfo("Europe/Berlin")).date())
    assert len(sent) == len({*sent})
    assert len(sent) >= 2


@pytest.mark.parametrize("text", ["9 o'clock", "24:00", "09:00 Nowhere/Land", "09:00 UTC x", "", "25:00"])
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(UsageError):
        parse_digest_time(text)


def test_what_is_nothing_to_tell_of() -> None:
    assert parse_topics(["question,digest", "limit"]) == ("question", "digest", "limit")
    with pytest.raises(UsageError, match="one of question, blocked, quarantined"):
        parse_topics(["questions"])


@pytest.mark.parametrize("settings", [{"notify_on": ("digest",)}, {"digest_at": parse_digest_time("09:00")}])
def test_messages_that_go_nowhere_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--notify-url"):
        check_telemetry(TelemetrySettings(**settings))


# When they are sent


def one_shot(there: Queue, report: Report, **settings: Any) -> list[str]:
    sent: list[str] = []
    tell = OneShot(TelemetrySettings(notify_urls=URL, **settings), there.clock.runtime(), there, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bdauto.bd.writer.BdWriter.swap", lambda _self, *given: there.swap(*given))
        patch.setattr(Telemetry, "tell", lambda _self, _topic, title, _text: sent.append(title))
        tell(report, 1.0)
    return sent


def test_a_sweep_by_cron_tells_of_what_an_agent_has_blocked() -> None:
    there = tracker(blocked("x-1"))
    assert one_shot(there, Report("reap", Outcome.idle, False)) == ["x-1 (title of x-1) is blocked"]
    assert one_shot(there, Report("reap", Outcome.idle, False)) == []


def test_a_sweep_by_cron_sends_the_digest() -> None:
    there, at = tracker(), parse_digest_time("09:00")
    assert len(one_shot(there, Report("reap", Outcome.idle, False), digest_at=at)) == 1
    assert one_shot(there, Report("reap", Outcome.idle, False), digest_at=at) == []


def test_a_dispatch_by_cron_looks_only_if_its_report_makes_it_necessary() -> None:
    there = tracker(blocked("x-1", quarantined="HTTP 400"))
    assert one_shot(there, Report("dispatch", Outcome.idle, False)) == []
    assert there.reads == []
    report = Report("dispatch", Outcome.partial, False, (BeadReport("x-1", BeadOutcome.quarantined, "", "HTTP 400"),))
    assert one_shot(there, report) == ["x-1 (title of x-1) is quarantined"]


def test_a_dry_run_tells_nobody() -> None:
    assert one_shot(tracker(blocked("x-1")), Report("reap", Outcome.reaped, True)) == []


def test_a_bd_that_fails_then_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    there = tracker(blocked("x-1"))

    def fail(_verb: str) -> None:
        raise BdFailed("bd list: no")

    there.before_read = fail
    assert one_shot(there, Report("reap", Outcome.idle, False)) == []
    assert [record.getMessage() for record in caplog.records] == ["notify-failed"]


def test_run_tells_of_a_bead_that_its_agent_blocks(make: Make) -> None:
    scene = make()
    scene.stop.at(100, lambda: scene.tracker.rows.update({"x-1": blocked("x-1")}))
    scene.run(400, notify=True, watch=True)
    assert [title for title, _ in scene.told] == ["x-1 (title of x-1) is blocked"]
