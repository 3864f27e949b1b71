"""The figures of a report: what is counted, when, under which name; and what is not known."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from bdauto.domain.bead import Bead
from bdauto.domain.failures import never_started, reasons
from bdauto.domain.figures import (
    Figures,
    Spread,
    Window,
    altogether,
    by_creator,
    by_day,
    by_label,
    by_type,
    figures,
    spread,
)
from bdauto.domain.history import history_of
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.results import ended_run
from tests.support.fakes import NOW, bead

WEEK = Window(NOW - timedelta(days=7), NOW)
HOUR = timedelta(hours=1)


def ran(bead_id: str = "x-1", *ends: Run, waited: int | None = None, **fields: Any) -> Bead:
    """A bead with these runs, each claimed a minute before its end."""
    record = Record(waited=waited)
    for number, end in enumerate(ends):
        assert end.ended_at
        claimed = end.ended_at - timedelta(minutes=1)
        record = record.change(attempt=f"a{number}", claimed_at=claimed, job=f"j{number}")
        assert record.current
        record = record.with_end(ended_run(record.current, end))
    if fields.get("status") == "closed":
        fields.setdefault("closed_at", ends[-1].ended_at if ends else NOW - HOUR)
    return bead(bead_id, metadata=metadata_of(record) | fields.pop("more", {}), **fields)


def ended(
    ago: timedelta = HOUR,
    result: Result = Result.completed,
    seconds: int | None = 50,
    cost: float | None = 0.5,
    words: str = "",
) -> Run:
    return Run(result=result, ended_at=NOW - ago, seconds=seconds, cost_usd=cost, words=words)


def total(*beads: Bead, window: Window = WEEK) -> Figures:
    return figures([history_of(bead) for bead in beads], window, altogether).get("", Figures())


def test_a_bead_that_was_closed_at_once() -> None:
    assert total(ran("x-1", ended(), status="closed", waited=30)) == Figures(
        dispatched=1,
        closed=1,
        closed_first=1,
        ended=1,
        waiting=Spread(1, 30, 30, 30),
        running=Spread(1, 50, 50, 50),
        cost_usd=0.5,
        costed=1,
    )


def test_a_failed_run_before_it_counts_and_costs() -> None:
    found = total(ran("x-1", ended(2 * HOUR, Result.failed), ended(), status="closed"))
    assert (found.closed, found.closed_first, found.ended, found.failed, found.cost_usd) == (1, 0, 2, 1, 1.0)
    assert found.cost_per_closed == 1.0


def test_what_is_unknown_is_not_zero() -> None:
    found = total(ran("x-1", ended(seconds=None, cost=None), status="closed"))
    assert (found.cost_usd, found.costed, found.cost_per_closed, found.running.p50) == (None, 0, None, None)
    known = total(ran("x-1", ended(cost=None), status="closed"), ran("x-2", ended(cost=0.0), status="closed"))
    assert (known.cost_usd, known.costed) == (0.0, 1)


def test_without_any_word_on_jobs_the_closing_is_the_end() -> None:
    claimed = metadata_of(Record(attempt="a1", claimed_at=NOW - 2 * HOUR))
    told = bead(metadata=claimed, status="closed", closed_at=NOW - HOUR)
    found = total(told)
    assert (found.dispatched, found.closed, found.closed_first, found.ended, found.failed) == (1, 1, 1, 1, 0)
    assert (found.running.p50, found.cost_usd) == (3600, None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "blocked"}, (1, 0)),
        ({"status": "blocked", "more": {"bdauto.quarantined": "no progress"}}, (0, 1)),
        ({"status": "open"}, (0, 0)),
    ],
)
def test_blocked_by_whom(fields: dict[str, Any], expected: tuple[int, int]) -> None:
    found = total(ran("x-1", ended(), **fields))
    assert (found.blocked, found.quarantined) == expected
    assert (found.closed, found.failed) == (0, 1)


def test_somebody_elses_work_does_not_count() -> None:
    assert total(bead(status="closed", closed_at=NOW - HOUR)) == Figures()


def test_the_window() -> None:
    told = ran("x-1", ended(8 * 24 * HOUR, Result.failed), ended(), status="closed")
    assert (total(told).dispatched, total(told).failed, total(told).closed_first) == (1, 0, 0)
    edge = ran("x-1", ended(timedelta(0)), status="closed")
    assert total(edge).closed == 0
    assert total(edge, window=Window(NOW, NOW + HOUR)).closed == 1


def test_days_and_their_names() -> None:
    night = ran(
        "x-1", Run(result=Result.completed, ended_at=datetime.fromisoformat("2026-04-18T00:00:30Z")), status="closed"
    )
    found = figures([history_of(night)], WEEK, by_day)
    assert {day: (one.dispatched, one.closed) for day, one in found.items()} == {
        "2026-04-17": (1, 0),
        "2026-04-18": (0, 1),
    }
    assert WEEK.days()[0] == "2026-04-11"
    assert len(WEEK.days()) == 8


def test_groups() -> None:
    histories = [
        history_of(ran("x-1", ended(), status="closed", labels=["api", "web"], issue_type="bug", created_by="ann")),
        history_of(ran("x-2", ended(), status="closed", created_by="ann")),
    ]
    counts = [
        {name: found.closed for name, found in figures(histories, WEEK, names).items()}
        for names in (by_label, by_type, by_creator)
    ]
    assert counts == [{"api": 1, "web": 1, "": 1}, {"bug": 1, "task": 1}, {"ann": 2}]


def test_spread() -> None:
    assert spread([]) == Spread()
    assert spread(range(1, 11)) == Spread(10, 5, 9, 10)
    assert spread([7]) == Spread(1, 7, 7, 7)
    assert spread([3, 1, 2]) == Spread(3, 2, 3, 3)


def _reasons(*beads: Bead) -> list[tuple[int, str, tuple[str, ...]]]:
    histories = [history_of(bead) for bead in beads]
    runs = [(history, run) for history in histories for run in history.runs]
    return [(one.count, one.words, one.beads) for one in reasons(runs)]


def test_reasons_are_grouped_by_what_stays_the_same() -> None:
    def stalled(bead_id: str, minutes: int) -> Bead:
        evidence = {"bdauto.quarantined": f"no progress for {minutes}m (threshold 30m)"}
        return ran(bead_id, ended(result=Result.lost), status="blocked", more=evidence)

    assert _reasons(
        stalled("x-1", 31),
        ran("x-2", ended(result=Result.failed, words="Invalid API key for x-2"), status="open"),
        ran("x-4", ended(result=Result.failed, words="Invalid API key for x-4"), ended(), status="closed"),
        stalled("x-3", 44),
        ran("x-5", ended(words="Which one?"), status="blocked"),
        ran("x-6", ended(words="I am done"), status="open"),
        ran("x-8", ended(result=Result.failed), status="closed"),
    ) == [
        (2, "lost: no progress for 31m (threshold 30m)", ("x-1", "x-3")),
        (2, "Invalid API key for x-2", ("x-2", "x-4")),
        (1, "blocked by its agent: Which one?", ("x-5",)),
        (1, "ended without closing the bead: I am done", ("x-6",)),
    ]


def test_reasons_add_up_to_the_runs_that_failed() -> None:
    def failed(number: int) -> Bead:
        words = f"{'abcdefghijkl'[number]} broke"
        return ran(f"x-{number}", ended(result=Result.failed, words=words), status="open")

    beads = [*map(failed, range(12)), ran("y-1", ended(result=Result.failed, words="a broke"), status="open")]
    found = _reasons(*beads)
    assert sum(count for count, _, _ in found) == total(*beads).failed == 13
    assert found[0][:2] == (2, "a broke")
    assert found[-1][:2] == (4, "other reasons")


def test_beads_that_were_quarantined_without_a_run_are_no_failed_runs() -> None:
    quarantined = bead("x-7", status="blocked", updated_at=NOW - HOUR, metadata={"bdauto.quarantined": "HTTP 400: no"})
    assert _reasons(quarantined) == []
    [one] = never_started([history_of(quarantined)], WEEK)
    assert (one.count, one.words, one.beads) == (1, "HTTP 400: no", ("x-7",))
