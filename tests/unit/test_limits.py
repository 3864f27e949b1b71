"""The limits on a day's dispatches: how many, for how much, and in which hours."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bdauto.common.errors import UsageError
from bdauto.domain.active_hours import parse_active_hours
from bdauto.domain.bead import Bead
from bdauto.domain.limits import reached
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.results import ended_run
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, Board, Clock, Tracker, bead, dispatcher, row

HOUR = timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


HOURS: list[tuple[str, str, str | None]] = [
    # hours, a moment in UTC, and when they begin: None is now
    ("22:00-07:00", "2026-04-18 22:00", None),
    ("22:00-07:00", "2026-04-18 06:59", None),
    ("22:00-07:00", "2026-04-18 07:00", "2026-04-18 22:00"),
    ("22:00-07:00 Europe/Sofia", "2026-04-18 19:00", None),
    ("22:00-07:00 Europe/Sofia", "2026-04-18 18:59:59", "2026-04-18 19:00"),
    ("9:00-17:00 America/New_York", "2026-01-05 12:00", "2026-01-05 14:00"),
    ("Mon-Fri 09:00-17:00", "2026-04-18 10:00", "2026-04-20 09:00"),
    ("Fri 22:00-07:00", "2026-04-18 06:00", None),
    ("Fri 22:00-07:00", "2026-04-19 06:00", "2026-04-24 22:00"),
    ("Sat-Mon 08:00-09:00", "2026-04-21 08:30", "2026-04-25 08:00"),
    ("12:00-13:00,18:00-19:00 UTC", "2026-04-18 13:30", "2026-04-18 18:00"),
    ("00:00-24:00", "2026-04-18 13:30", None),
    ("Sun 20:00-24:00", "2026-04-19 23:59", None),
    # In Sofia the clock goes from 03:00 to 04:00 on 29 March 2026 and from 04:00 to 03:00 on 25 October.
    ("03:30-05:00 Europe/Sofia", "2026-03-29 00:59", "2026-03-29 01:00"),
    ("03:30-05:00 Europe/Sofia", "2026-10-25 01:15", "2026-10-25 01:30"),
    ("03:30-03:45 Europe/Sofia", "2026-10-25 00:50", "2026-10-25 01:30"),
]


@pytest.mark.parametrize(("hours", "moment", "begins"), HOURS, ids=[f"{case[0]} at {case[1]}" for case in HOURS])
def test_hours_of_the_wall_clock(hours: str, moment: str, begins: str | None) -> None:
    active, now = parse_active_hours(hours), utc(moment)
    assert active.contain(now) is (begins is None)
    assert active.next(now) == (now if begins is None else utc(begins))
    assert str(active) == hours


@pytest.mark.parametrize(
    "text",
    ["", "always", "22-07", "22:00", "25:00-07:00", "22:60-07:00", "22:00-22:00", "24:00-00:00", "Foo 22:00-07:00",
     "22:00-07:00,", "22:00-07:00 Mars/Base", "22:00-07:00 ../../etc/passwd", "22:00-07:00 Europe",
     "\x1b[1m 1:00-2:00"],
)  # fmt: skip
def test_what_is_no_hours_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_active_hours(text)
    assert "\x1b" not in str(caught.value)


def ran(bead_id: str, *runs: tuple[float, float | None, str], status: str = "closed", assignee: str = "agent") -> Bead:
    """Return a bead with runs: hours since the claim, hours since the end or None, and the cost or ""."""
    record = Record(assignee=assignee)
    for number, (claimed, ended, cost) in enumerate(runs):
        record = record.change(attempt=f"{bead_id}-{number}", claimed_at=NOW - claimed * HOUR, job=f"j{number}")
        assert record.current
        record = record.with_runs(record.runs)
        if ended is not None and record.current:
            spent = float(cost) if cost else None
            end = Run(result=Result.completed, ended_at=NOW - ended * HOUR, cost_usd=spent)
            record = record.with_end(ended_run(record.current, end))
    return bead(bead_id, status=status, metadata=metadata_of(record))


def limit(*beads: Bead, **settings: Any) -> str | None:
    found = reached(beads, DispatchSettings(**settings), "agent", NOW)
    return found.describe() if found else None


FORGED = "\n".join(
    line
    for number in range(5)
    for line in (
        f"auto-dispatcher claimed at {format_time(NOW - HOUR)}",
        f"dispatched: job=f{number}",
        f"agent finished: job=f{number} completed in 1m, $900.00 at {format_time(NOW - HOUR / 2)}",
    )
)
"""Notes like bdauto's own, which an agent can write."""


def test_forged_notes_count_nothing() -> None:
    plain, ours = bead("x-1", notes=FORGED), ran("x-2", (3, 2, "1.00"))
    assert limit(plain, msgspec.structs.replace(ours, notes=FORGED), max_per_day=2, max_cost_per_day=1.01) is None
    assert str(limit(ours, max_per_day=1)).startswith("1 dispatched")


def told(**fields: Any) -> Run:
    usual: dict[str, Any] = {
        "attempt": "w1",
        "claimed_at": NOW - HOUR,
        "ended_at": NOW - HOUR / 2,
        "result": Result.completed,
    }
    return Run(**usual | fields)


SILENT = "no run of the last 24 hours said its cost, so $5.00 a day cannot be held: give --cost-per-run USD; goes on at"


def test_a_limit_on_costs_that_nobody_says_is_reached() -> None:
    def found(*runs: Run, **settings: Any) -> str:
        limits = DispatchSettings(**{"max_cost_per_day": 5.0, **settings})
        limit = reached([], limits, "agent", NOW, [("x-1", run) for run in runs])
        return limit.describe() if limit else ""

    assert found(told()).startswith(SILENT)
    assert found(told(result=Result.timeout)).startswith(SILENT)
    assert found(told(), told(attempt="w2", cost_usd=0.5)) == ""
    assert found(told(), cost_per_run=4.99) == ""
    assert found(told(), told(attempt="w2", ended_at=None), cost_per_run=2.5).startswith("$5.00 spent in 24 hours")
    assert found(told(), max_cost_per_day=None) == ""
    assert found(told(ended_at=NOW - 25 * HOUR)) == ""


@pytest.mark.parametrize("fields", [{"why": "login"}, {"why": "limit"}, {"result": Result.error}, {"ended_at": None}])
def test_a_run_that_may_have_cost_nothing_does_not_count_as_silent(fields: dict[str, Any]) -> None:
    run = told(**{"result": Result.failed, **fields})
    assert reached([], DispatchSettings(max_cost_per_day=5.0), "agent", NOW, [("x-1", run)]) is None


def test_what_this_machine_ran_counts_though_its_bead_is_gone() -> None:
    """Each run counts once, with the end and the cost that the machine knows."""
    recorded = ran("x-1", (3, 2, "1.00"), (1, None, ""), status="in_progress")
    gone = Run(attempt="gone", claimed_at=NOW - HOUR, ended_at=NOW - HOUR / 2, cost_usd=7.0)
    again = Run(attempt="x-1-1", claimed_at=NOW - HOUR, ended_at=NOW - HOUR / 3, cost_usd=2.0)
    for most, reached_at in ((10.0, True), (10.01, False)):
        settings = DispatchSettings(max_cost_per_day=most)
        assert bool(reached([recorded], settings, "agent", NOW, [("x-8", gone), ("x-9", again)])) is reached_at
    assert reached([recorded], DispatchSettings(max_per_day=4), "agent", NOW, [("x-8", gone), ("x-9", again)]) is None
    found = reached([recorded], DispatchSettings(max_per_day=3), "agent", NOW, [("x-8", gone), ("x-9", again)])
    assert found is not None
    assert found.describe().startswith("3 dispatched in 24 hours, at most 3")


def test_a_claim_under_way_counts() -> None:
    """Also before its job is recorded, and beside the runs before it."""
    claimed = Record(attempt="a2", claimed_at=NOW - HOUR / 60).with_runs(ran("x-1", (3, 2, "1.00")).record.runs)
    beads = bead("x-1", status="in_progress", metadata=metadata_of(claimed))
    assert str(limit(beads, max_per_day=2)).startswith("2 dispatched in 24 hours, at most 2")


def test_so_many_dispatches_in_any_24_hours() -> None:
    beads = [ran("x-1", (23, 22, "1.00"), (3, 2, "1.00")), ran("x-2", (1, None, ""), status="in_progress")]
    assert limit(*beads, max_per_day=4) is None
    goes_on = format_time(NOW + HOUR)
    assert limit(*beads, max_per_day=3) == f"3 dispatched in 24 hours, at most 3; goes on at {goes_on}"
    goes_on = format_time(NOW + 21 * HOUR)
    assert limit(*beads, max_per_day=2) == f"3 dispatched in 24 hours, at most 2; goes on at {goes_on}"


def test_what_is_older_than_a_day_or_another_s_does_not_count() -> None:
    beads = [ran("x-1", (25, 24.5, "9.00")), ran("x-2", (2, 1, "9.00"), assignee="other")]
    assert limit(*beads, max_per_day=1, max_cost_per_day=1.0) is None


def test_a_clock_that_is_ahead_does_not_hold_dispatching_for_ever() -> None:
    """A time a little ahead counts, one far ahead does not, and none is too large to go on from."""
    assert str(limit(ran("x-1", (-0.5, None, "")), max_per_day=1)).startswith("1 dispatched")
    for moment in ("2026-04-19T22:35:46Z", "2099-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        run = {"attempt": "a1", "claimed": moment, "ended": moment, "result": "failed", "cost": 9.0}
        dated = bead(metadata={"bdauto.assignee": "agent", "bdauto.runs": json.dumps([run])})
        assert limit(dated, max_per_day=1, max_cost_per_day=1.0) is None


def test_so_much_in_any_24_hours() -> None:
    beads = [ran("x-1", (23, 22, "2.00")), ran("x-2", (3, 2, "1.50"))]
    assert limit(*beads, max_cost_per_day=3.51) is None
    goes_on = format_time(NOW + 2 * HOUR)
    assert limit(*beads, max_cost_per_day=3.5) == f"$3.50 spent in 24 hours, at most $3.50; goes on at {goes_on}"
    assert limit(*beads, max_cost_per_day=1.0) == (
        f"$3.50 spent in 24 hours, at most $1.00; goes on at {format_time(NOW + 22 * HOUR)}"
    )


def test_a_job_that_runs_or_does_not_tell_counts_with_the_mean() -> None:
    told = [ran("x-1", (23, 22, "2.00")), ran("x-2", (3, 2, "1.00"))]
    unknown = [ran("x-3", (1, 0.5, "")), ran("x-4", (0.5, None, ""), status="in_progress")]
    assert limit(*told, *unknown, max_cost_per_day=6.01) is None
    words = "$6.00 spent in 24 hours, $3.00 of it estimated, at most $6.00; goes on at "
    assert str(limit(*told, *unknown, max_cost_per_day=6.0)).startswith(words)


def test_what_runs_alone_goes_on_when_it_has_ended() -> None:
    running = [ran(f"x-{n}", (0.5, None, ""), status="in_progress") for n in range(2)]
    found = limit(ran("x-9", (2, 1, "1.00")), *running, max_cost_per_day=1.5)
    assert found == "$3.00 spent in 24 hours, $2.00 of it estimated, at most $1.50; goes on when jobs have ended"


def test_of_two_limits_the_one_that_lasts_longer_is_named() -> None:
    beads = [ran("x-1", (23, 1, "5.00"))]
    assert str(limit(*beads, max_per_day=1, max_cost_per_day=5.0)).startswith("$5.00 spent")


def cycle(tracker: Tracker, board: Board, **settings: Any) -> Report:
    runtime, chosen = tracker.clock.runtime(), DispatchSettings(**settings)
    return dispatcher(tracker, tracker, board.services(), chosen, runtime).cycle()


def test_a_limit_ends_a_cycle_with_what_was_dispatched_before() -> None:
    tracker, board = Tracker(Clock(), *(row(f"x-{n}") for n in range(4))), Board()
    report = cycle(tracker, board, max_beads=4, max_per_day=2)
    assert (report.outcome, report.exit_code, len(board.posts)) == (Outcome.dispatched, 0, 2)
    assert report.detail.startswith("2 dispatched in 24 hours, at most 2; goes on at 2026-04-19T22:35:")
    again = cycle(tracker, board, max_per_day=2)
    assert (again.outcome, again.exit_code, len(board.posts)) == (Outcome.limited, 0, 2)
    assert cycle(tracker, board, max_per_day=3).outcome is Outcome.dispatched


def test_outside_its_hours_a_dispatcher_asks_nobody() -> None:
    tracker, board = Tracker(Clock(), row("x-1")), Board()
    report = cycle(tracker, board, active_hours=parse_active_hours("08:00-09:00"))
    assert (report.outcome, report.exit_code) == (Outcome.limited, 0)
    assert report.detail == "outside the active hours 08:00-09:00; goes on at 2026-04-19T08:00:00Z"
    assert (tracker.reads, board.requests) == ([], [])


@pytest.mark.parametrize(("rows", "settings", "reads"), [
    ([row("x-1")], {}, ["ready", "kv"]),
    ([row("x-1")], {"active_hours": parse_active_hours("00:00-24:00")}, ["ready", "kv"]),
    ([row("x-1")], {"max_per_day": 9, "max_cost_per_day": 5.0}, ["ready", "kv", "list"]),
    ([row("x-1", acceptance_criteria="")], {"max_per_day": 9}, ["ready"]),
    ([], {"max_per_day": 9}, ["ready"]),
], ids=["no limit", "hours alone", "limits", "nothing eligible", "nothing"])  # fmt: skip
def test_what_a_limit_costs(rows: list[dict[str, Any]], settings: dict[str, Any], reads: list[str]) -> None:
    tracker = Tracker(Clock(), *rows)
    cycle(tracker, Board(), **settings)
    assert tracker.reads == reads
