"""What `bdauto runs` lists: from the beads, and from this machine."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
import pytest

from bdauto.agents.runner import Runner
from bdauto.cli.run_view import RunsView
from bdauto.cli.tables import console
from bdauto.common.errors import NoSuchBead
from bdauto.diagnostics.run_list import ListedRun, gather_runs
from bdauto.domain.agent_end import Why
from bdauto.domain.figures import figures_since
from bdauto.domain.history import RunResult
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, Clock, Tracker, row

HOUR = timedelta(hours=1)
KEYS = [
    "bead", "title", "attempt", "job", "lane", "runner", "agent", "began", "ended", "seconds", "result", "why",
    "cost_usd", "tokens", "turns", "session", "exit_code",
    "detail",
]  # fmt: skip


class Machine:
    """What runs the agent, as far as `runs` asks it."""

    def __init__(self, *runs: tuple[str, Run]) -> None:
        self.runs = runs

    def recent_runs(self, since: datetime) -> Sequence[tuple[str, Run]]:
        return [(bead, run) for bead, run in self.runs if run.ended_at is None or run.ended_at > since]


def ended(attempt: str, hours: float, **fields: Any) -> Run:
    """A run that took half an hour and ended so many hours ago."""
    at = NOW - hours * HOUR
    return Run(**{"attempt": attempt, "job": attempt, "claimed_at": at - HOUR / 2, "ended_at": at, **fields})


def ran(bead_id: str, *runs: Run, status: str = "closed", **fields: Any) -> dict[str, Any]:
    record = Record(assignee="agent").with_runs(runs).change(**fields)
    return row(bead_id, status=status, metadata=metadata_of(record))


def listed(*rows: dict[str, Any], here: Sequence[tuple[str, Run]] = (), **asked: Any) -> list[dict[str, Any]]:
    which: dict[str, Any] = {"bead_id": None, "since": None, **asked}
    found, _ = gather_runs(Tracker(Clock(), *rows), cast("Runner", Machine(*here)), **which)
    return [one.as_json() for one in found]


def test_a_run_is_listed_by_the_lane_that_had_it() -> None:
    record = Record(assignee="ann").with_runs((ended("w1", 3, lane="docs"), ended("w2", 1, lane="bugs")))
    tracker = Tracker(Clock(), row("x-1", status="closed", assignee="ann", metadata=metadata_of(record)))
    rules = (LaneRule("docs", "agent", DispatchSettings()), LaneRule("bugs", "ann", DispatchSettings()))
    tracker.lanes = Lanes("docs", rules)
    assert [one.run.attempt for one in gather_runs(tracker, None, None, None)[0]] == ["w1"]


FAILED = ended(
    "w1", 3, runner="host", agent="claude", seconds=12, result=Result.failed, why=Why.overloaded, cost_usd=0.25,
    tokens=900, turns=2, session="s-1", words="API Error: 529 overloaded",
)  # fmt: skip


@pytest.mark.parametrize(("check", "state"), [("due", "failed"), ("", "closed")], ids=["by its agent", "by a person"])
def test_a_run_whose_check_failed_has_not_closed_its_bead(check: str, state: str) -> None:
    """Its agent has, and no sweep has opened the bead again yet."""
    began = Run(attempt="a1", job="a1", claimed_at=NOW - HOUR)
    here = ended("a1", 0.1, result=Result.failed, why=Why.check, words="check (make): exit 1")
    bead = ran("x-1", began, attempt="a1", job="a1", check=check) | {"closed_at": NOW.isoformat()}
    assert [one["result"] for one in listed(bead, here=[("x-1", here)])] == [state]


def test_a_run_has_exactly_the_keys_of_the_contract() -> None:
    [one] = listed(ran("x-1", FAILED))
    assert [*one] == KEYS
    assert [*one.values()] == [
        "x-1", "title of x-1", "w1", "w1", "default", "host", "claude", "2026-04-18T19:05:46Z", "2026-04-18T19:35:46Z",
        12, "failed", "overloaded", 0.25, 900, 2, "s-1", None,
        "overloaded: API Error: 529 overloaded",
    ]  # fmt: skip


def test_what_is_not_known_is_null() -> None:
    [one] = listed(ran("x-1", attempt="w9", status="in_progress"))
    known = {"bead": "x-1", "title": "title of x-1", "attempt": "w9", "lane": "default", "result": "running"}
    assert one == dict.fromkeys(KEYS) | known


def test_the_newest_run_comes_first_whatever_its_bead() -> None:
    found = listed(ran("x-1", ended("a", 9), ended("b", 1)), ran("x-2", ended("c", 5)))
    assert [one["attempt"] for one in found] == ["b", "c", "a"]


def test_a_running_job_has_no_end() -> None:
    claim: dict[str, Any] = {"attempt": "w2", "job": "w2", "host": "host", "claimed_at": NOW - HOUR}
    here = ("x-1", Run(attempt="w2", job="w2", runner="host", agent="codex", claimed_at=NOW - HOUR))
    [one, _] = listed(ran("x-1", FAILED, status="in_progress", **claim), here=[here])
    assert (one["attempt"], one["ended"], one["result"], one["agent"]) == ("w2", None, "running", "codex")


def test_a_job_that_runs_on_after_its_bead_was_closed_has_no_end() -> None:
    closed = ran("x-1", attempt="w2", job="w2", claimed_at=NOW - HOUR) | {"closed_at": NOW - HOUR / 2}
    assert listed(closed)[0]["ended"] == "2026-04-18T22:05:46Z"
    assert listed(closed, here=[("x-1", Run(attempt="w2", claimed_at=NOW - HOUR))])[0]["ended"] is None


@pytest.mark.parametrize(("recorded", "expected"), [(2, "20:35"), (2.9, "19:41"), (0.5, "21:35"), (9, "21:35")])
def test_a_lost_run_keeps_the_end_that_was_recorded(recorded: float, expected: str) -> None:
    """Its machine only knows until when it may have run. An end before its claim or after that is not believed."""
    lost = ended("w1", 1, result=Result.lost)
    found = msgspec.structs.replace(lost, claimed_at=NOW - 3 * HOUR)
    known = msgspec.structs.replace(found, ended_at=NOW - recorded * HOUR)
    [one] = listed(ran("x-1", known), here=[("x-1", found)])
    assert one["ended"] == f"2026-04-18T{expected}:46Z"


def test_the_runs_of_a_deleted_bead_are_known_from_this_machine() -> None:
    [one] = listed(here=[("gone-1", FAILED)])
    assert (one["bead"], one["title"], one["cost_usd"]) == ("gone-1", None, 0.25)
    assert listed(ran("x-1", FAILED), here=[("x-1", FAILED)])[0]["title"] == "title of x-1"
    assert listed(here=[("gone-1", FAILED)], bead_id="gone-1") == [one]


def test_the_runs_of_one_bead() -> None:
    rows = ran("x-1", ended("a", 9), ended("b", 1)), ran("x-2", ended("c", 5))
    assert [one["attempt"] for one in listed(*rows, bead_id="x-1", here=[("x-3", FAILED)])] == ["b", "a"]
    with pytest.raises(NoSuchBead):
        listed(*rows, bead_id="x-9")


def test_since_a_moment() -> None:
    rows = [ran("x-1", ended("a", 9), ended("b", 1)), ran("x-2", attempt="w9", status="in_progress")]
    assert [one["attempt"] for one in listed(*rows, since=NOW - 2 * HOUR)] == ["b", "w9"]


def test_the_runs_of_another_queue_are_not_listed() -> None:
    assert listed(row("x-1", assignee="ann") | {"metadata": ran("x-1", FAILED, assignee="ann")["metadata"]}) == []


CLOSED = ended("e", 4, seconds=312, turns=12, agent="claude", runner="laptop", result=Result.failed, cost_usd=0.42)


@pytest.mark.parametrize(
    ("row_of", "state"),
    [
        (ran("x-1", CLOSED) | {"closed_at": NOW - HOUR}, "closed"),
        (ran("x-1", FAILED, status="open"), "failed"),
        (ran("x-1", ended("q", 2, result=Result.completed, why=Why.question), status="open"), "asks"),
        (ran("x-1", ended("q", 2, result=Result.stopped), status="open"), "stopped"),
        (ran("x-1", attempt="w9", status="in_progress"), "running"),
    ],
)
def test_a_run_has_failed_as_the_report_counts_it(row_of: dict[str, Any], state: str) -> None:
    """A question is no failure, and a closed bead is a success whatever the exit status of its agent."""
    assert [one["result"] for one in listed(row_of)] == [state]
    since = NOW - timedelta(days=7)
    counted = figures_since(since, Tracker(Clock(), row_of).changed_since(since).result().beads, "agent", NOW)
    assert (counted.failed, counted.closed) == (state == "failed", state == "closed")


@pytest.mark.parametrize("status", ["in_progress", "open"])
def test_a_completed_job_that_no_sweep_has_settled_has_not_failed(status: str) -> None:
    """Its bead may be closed after its checks, or wait for an answer. A job that failed has failed already."""
    began = Run(attempt="a1", job="a1", claimed_at=NOW - HOUR)
    bead = ran("x-1", began, status=status, attempt="a1", job="a1", check="due")
    for result, state in ((Result.completed, "over"), (Result.failed, "failed")):
        assert [one["result"] for one in listed(bead, here=[("x-1", ended("a1", 0.1, result=result))])] == [state]


def test_a_question_is_no_failure_whatever_this_machine_knows() -> None:
    question = ended("q", 2, result=Result.completed, why=Why.question)
    here = [("x-1", msgspec.structs.replace(question, why=Why.ok))]
    assert [one["result"] for one in listed(ran("x-1", question, status="open"), here=here)] == ["asks"]


def test_only_those_that_failed_or_run() -> None:
    rows = ran("x-1", FAILED, CLOSED) | {"closed_at": NOW - HOUR}, ran("x-2", attempt="w9", status="in_progress")
    assert [one["attempt"] for one in listed(*rows, results=[RunResult.failed])] == ["w1"]
    assert [one["attempt"] for one in listed(*rows, results=[RunResult.running])] == ["w9"]


def test_the_list_fits_into_80_columns() -> None:
    long = ended("b", 1, result=Result.failed, why=Why.limit, words="You've hit your limit · " * 8, cost_usd=12.5)
    tracker = Tracker(Clock(), ran("bd-a1b2c3", FAILED, long, ended("c", 900, result=Result.completed)))
    found, _ = gather_runs(tracker, cast("Runner", Machine(("gone-1", ended("d", 2)))), None, None)
    out = console()
    out.width = 80
    with out.capture() as capture:
        out.print(RunsView(found, NOW))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    for words in ("failed", "limit: You've hit your", "$12.50", "(deleted)", "title of bd-a1b2c3"):
        assert words in text


def shown(width: int, *runs: ListedRun) -> str:
    out = console()
    out.width = width
    with out.capture() as capture:
        out.print(RunsView(runs, NOW))
    return capture.get()


def test_140_columns_show_turns_attempt_and_runner() -> None:
    one = ListedRun("x-1", "Fix login", CLOSED, RunResult.closed)
    wide = shown(140, one)
    for words in ("5m12s", "$0.42", " 12 ", " e ", "claude on laptop", "Fix login"):
        assert words in wide
    assert "laptop" not in shown(80, one)
    assert "lane" not in wide


def test_why_a_run_failed_is_said_once() -> None:
    for run, words in (
        (FAILED, "overloaded: API Error: 529 overloaded"),
        (ended("w1", 3, result=Result.failed, why=Why.error, words="it broke", exit_code=3), "exit status 3: it broke"),
        (ended("w1", 3, result=Result.failed, why=Why.unknown), None),
        (ended("w1", 3, result=Result.completed, why=Why.ok, status="blocked"), "blocked by its agent"),
        (ended("w1", 3, result=Result.completed, why=Why.ok, status="open"), "ended without closing the bead"),
        (ended("w1", 3, result=Result.completed, why=Why.ok, status="closed", words="done"), "done"),
    ):
        assert [one["detail"] for one in listed(ran("x-1", run, status="open"))] == [words]


AFTER: list[tuple[dict[str, Any], str]] = [
    ({"result": Result.completed, "status": "closed"}, "closed"),
    ({"result": Result.failed, "status": "closed"}, "closed"),
    ({"result": Result.completed, "status": "blocked"}, "failed"),
    ({"result": Result.completed, "status": "in_progress"}, "failed"),
    ({"result": Result.completed, "status": "open", "why": Why.question}, "asks"),
    ({"result": Result.stopped, "status": "closed"}, "stopped"),
]


@pytest.mark.parametrize(("end", "result"), AFTER)
@pytest.mark.parametrize("status", ["open", "closed", "blocked", "in_progress"])
def test_what_came_of_a_run_stays_whatever_becomes_of_its_bead(end: dict[str, Any], result: str, status: str) -> None:
    bead = ran("x-1", ended("w1", 2, **end), status=status) | ({"closed_at": NOW} if status == "closed" else {})
    again = ran("x-1", ended("w1", 2, **end), ended("w2", 1, result=Result.failed), status=status)
    assert [one["result"] for one in listed(bead)] == [result]
    assert listed(again)[1]["result"] == result


def test_the_lane_is_shown_where_there_is_more_than_one() -> None:
    both = [ListedRun("x-1", "Fix login", CLOSED, RunResult.closed, lane=lane) for lane in ("day", "night")]
    assert "night" in shown(140, *both)


@pytest.mark.parametrize(
    "title", ["[red]x[/red]", "a\nb", "\x1b[31mred", "\u202eevil", "\u05d0" * 300, "x" * 10_000, ""]
)
@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_hostile_title_takes_one_line(title: str, width: int) -> None:
    text = shown(width, ListedRun("x-1", title, CLOSED, RunResult.closed))
    assert len(text.splitlines()) == 2
    assert not {"\x1b", "\u202e"} & {*text}
