"""One dispatch cycle: the answer table row by row, and what ends a cycle early."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.runner import Place
from bdauto.bd.change import Change, DryWriter
from bdauto.common.clock import Runtime
from bdauto.common.errors import (
    BdConflict,
    BdDrift,
    BdFailed,
    BdTimeout,
    PartlyDone,
    ServiceDown,
    ServiceDrift,
    UsageError,
)
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.late_notes import OVERDUE
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.outcome import Outcome, Report
from bdauto.domain.pause import KEY
from bdauto.domain.settings import DispatchSettings, TelemetrySettings
from bdauto.domain.times import format_time, parse_time
from bdauto.loop.dependency_health import DependencyHealth
from bdauto.telemetry.recorder import Telemetry
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, dispatcher, no_services, row

CLAIMED = f"auto-dispatcher claimed at {format_time(NOW)}"


@dataclass
class Desk:
    """A tracker, a BeadBoard and a clock, and cycles between them."""

    tracker: Tracker
    board: Board
    clock: Clock
    agent: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    writer: DryWriter | None = None
    stopping: Callable[[], bool] = lambda: False
    started_jobs: StartedJobs = field(default_factory=StartedJobs)

    def cycle(self, **settings: Any) -> Report:
        return self.dispatcher(**settings).cycle()

    def dispatcher(self, **settings: Any) -> Dispatcher:
        chosen = DispatchSettings(**(self.settings | settings))
        services = self.board.services(agent=self.agent)
        runtime = self.clock.runtime(len(self.board.posts))  # else each cycle would draw the same attempts
        return dispatcher(
            self.tracker,
            self.writer or self.tracker,
            services,
            chosen,
            runtime,
            stopping=lambda: self.stopping(),
            started_jobs=self.started_jobs,
        )


def desk(*rows: dict[str, Any], script: list[Reply] | None = None, **settings: Any) -> Desk:
    clock = Clock()
    return Desk(Tracker(clock, *rows), Board(script or []), clock, settings=settings)


def queue(count: int) -> list[dict[str, Any]]:
    """Return beads x-1 … x-n in dispatch order."""
    return [row(f"x-{n}", updated_at=NOW - timedelta(hours=count + 1 - n)) for n in range(1, count + 1)]


def place(hours: int, released_at: datetime = NOW) -> dict[str, Any]:
    """Return the metadata of a bead that waited for so long before its claim, and keeps its place."""
    since = format_time(NOW - timedelta(hours=hours))
    return {"armed_at": since, "released_at": format_time(released_at), "place": "kept"}


def said(report: Report) -> dict[str, str]:
    return {bead.id: bead.outcome.value for bead in report.beads}


def refusal(text: str = "Bead is missing acceptance criteria.", status: int = 400) -> httpx.Response:
    return httpx.Response(status, json={"error": text})


def test_a_job_id_is_recorded_on_the_bead() -> None:
    here = desk(row("x-1", notes="before"))
    report = here.cycle()
    assert (report.outcome, report.exit_code, said(report)) == (Outcome.dispatched, 0, {"x-1": "dispatched"})
    assert report.beads[0].job == "job-1"
    assert here.tracker.bead("x-1").status == "in_progress"
    assert here.tracker.notes("x-1") == ["before", CLAIMED, "dispatched: job=job-1"]
    own = here.tracker.own("x-1")
    claim = {"attempt": own["attempt"], "attempts": 1, "claimed_at": format_time(NOW), "assignee": "agent"}
    claim["armed_at"] = format_time(NOW - timedelta(hours=1))
    assert own == claim | {"job": "job-1", "result": "running", "waited": 3600}


def test_the_bead_is_claimed_before_it_is_posted() -> None:
    here = desk(row("x-1"))
    seen: list[str] = []
    here.board.posted = lambda bead_id: seen.append(here.tracker.bead(bead_id).status)
    here.cycle()
    assert seen == ["in_progress"]


def test_success_forgets_earlier_failures() -> None:
    past = {
        "bdauto.error": "HTTP 502: x",
        "bdauto.failures": 2,
        "bdauto.attempts": 1,
        "bdauto.retry_at": format_time(NOW),
    }
    here = desk(row("x-1", metadata=past))
    here.cycle()
    own = here.tracker.own("x-1")
    assert (own["attempts"], own.keys() & {"error", "failures", "retry_at"}) == (2, set())


RELEASED: list[tuple[str, Reply, str]] = [
    ("500", refusal("not configured", 500), "HTTP 500: not configured"),
    ("401", refusal("who", 401), "HTTP 401: who"),
    ("403", refusal("no", 403), "HTTP 403: no"),
    ("404", httpx.Response(404, text="<html>nothing"), "HTTP 404: <html>nothing"),
    ("redirect", httpx.Response(302, headers={"location": "http://elsewhere.test"}), "HTTP 302"),
    ("other 3xx", httpx.Response(304), "HTTP 304"),
    ("other 4xx", refusal("slow down", 429), "HTTP 429: slow down"),
]


@pytest.mark.parametrize(("answer", "words"), [r[1:] for r in RELEASED], ids=[r[0] for r in RELEASED])
def test_misconfiguration_releases_the_bead_uncharged_and_stops_the_cycle(answer: Reply, words: str) -> None:
    here = desk(*queue(2), script=[answer], max_beads=2)
    report = here.cycle()
    assert (report.outcome, report.exit_code, said(report)) == (Outcome.failed, 4, {"x-1": "misconfigured"})
    assert isinstance(report.error, ServiceDrift)
    assert words in str(report.error)
    assert here.board.posts == ["x-1"]
    assert here.tracker.bead("x-1").status == "open"
    assert here.tracker.own("x-1") == {"error": words} | place(2)
    note = f"dispatch failed {words}"
    assert here.tracker.notes("x-1") == [note]
    assert here.cycle().exit_code == 0
    assert sorted(here.board.posts) == ["x-1", "x-1", "x-2"], "nothing holds the bead back once it is mended"


NOT_STARTED: list[tuple[str, Callable[[], Reply], str]] = [
    ("502", lambda: refusal("agent down", 502), "HTTP 502: agent down"),
    ("503", lambda: httpx.Response(503), "HTTP 503"),
    ("other 5xx", lambda: httpx.Response(507, text="late\x1b[31m\n\u202e!"), "HTTP 507: late[31m !"),
    (
        "refused connection",
        lambda: httpx.ConnectError("[Errno 111] refused"),
        "cannot connect to BeadBoard: [Errno 111]",
    ),
    ("connecting takes too long", lambda: httpx.ConnectTimeout("late"), "cannot connect to BeadBoard: late"),
]


@pytest.mark.parametrize(("answer", "words"), [r[1:] for r in NOT_STARTED], ids=[r[0] for r in NOT_STARTED])
def test_a_failing_service_releases_the_bead_uncharged_and_backs_off(answer: Callable[[], Reply], words: str) -> None:
    here = desk(*queue(2), script=[answer()], max_beads=2)
    report = here.cycle()
    assert said(report) == {"x-1": "unavailable", "x-2": "dispatched"}, "the others go on"
    assert (report.outcome, report.exit_code) == (Outcome.partial, 5)
    bead, own = here.tracker.bead("x-1"), here.tracker.own("x-1")
    assert (bead.status, bead.record.attempts, bead.record.failures, bead.record.attempt) == ("open", 0, 1, "")
    assert own["error"].startswith(words)
    assert bead.record.retry_at is not None
    assert timedelta(minutes=1) <= bead.record.retry_at - NOW <= timedelta(minutes=2)
    [note] = here.tracker.notes("x-1")
    assert note.startswith("dispatch failed")
    assert note.isprintable()


def test_a_single_bead_that_was_not_started_makes_the_cycle_fail() -> None:
    report = desk(row("x-1"), script=[httpx.Response(502)]).cycle()
    assert (report.outcome, report.exit_code) == (Outcome.failed, 4)
    assert "x-1 is open again" in str(report.error)


def test_three_beads_not_started_in_a_row_call_the_service_down() -> None:
    here = desk(*queue(5), script=[httpx.Response(503) for _ in range(5)], max_beads=5)
    report = here.cycle()
    assert (report.exit_code, type(report.error)) == (4, ServiceDown)
    assert here.board.posts == ["x-1", "x-2", "x-3"]
    assert {r["status"] for r in here.tracker.rows.values()} == {"open"}


def test_a_good_answer_between_failures_keeps_the_cycle_going() -> None:
    bad, good = httpx.Response(503), httpx.Response(200, json={"job_id": "j"})
    here = desk(*queue(6), script=[bad, bad, good, bad, bad, good], max_beads=9)
    assert here.cycle().exit_code == 5
    assert len(here.board.posts) == 6


def test_an_outage_of_any_length_leaves_every_bead_open_and_one_line_in_its_notes() -> None:
    here = desk(row("x-1", notes="mine"), row("x-2"), row("x-3"), row("x-4"))
    waits: list[timedelta] = []
    for _ in range(300):
        here.board.script = [httpx.Response(502, json={"error": "down"})] * 4
        here.cycle()
        retry_at = here.tracker.bead("x-1").record.retry_at
        waits += [retry_at - here.clock.time] if retry_at else []
        here.clock.time += timedelta(minutes=2)
    assert {r["status"] for r in here.tracker.rows.values()} == {"open"}
    assert here.tracker.notes("x-1") == ["mine", "dispatch failed HTTP 502: down"]
    assert all(here.tracker.notes(f"x-{n}") == ["dispatch failed HTTP 502: down"] for n in (2, 3, 4))
    assert here.tracker.bead("x-1").record.attempts == 0
    assert max(waits) <= timedelta(hours=1)
    assert len(here.board.posts) < 4 * 30, "the backoff doubles up to an hour"
    here.board.script = []
    here.clock.time += timedelta(hours=1)
    assert here.cycle(max_beads=4).exit_code == 0


def test_an_error_that_changes_is_noted_and_one_that_stays_is_not() -> None:
    here = desk(row("x-1"))
    for number, status in enumerate((502, 502, 503, 503, 502)):
        here.board.script = [httpx.Response(status, text=f"request {number} failed")]
        here.cycle()
        here.clock.time += timedelta(hours=1)
    assert here.tracker.notes("x-1") == [
        f"dispatch failed HTTP {status}: request {number} failed" for number, status in ((0, 502), (2, 503), (4, 502))
    ]


def test_a_failure_note_is_bounded() -> None:
    here = desk(row("x-1"), script=[httpx.Response(502, text="x" * 100_000)])
    here.cycle()
    [note] = here.tracker.notes("x-1")
    assert len(note) <= 300 + len("dispatch failed ")
    assert len(here.tracker.own("x-1")["error"]) <= 300


def test_at_capacity_releases_the_bead_as_if_nothing_had_been() -> None:
    here = desk(*queue(2), script=[refusal("Agent is busy", 409)], max_beads=2)
    report = here.cycle()
    assert (report.outcome, report.exit_code, said(report)) == (Outcome.busy, 0, {"x-1": "busy"})
    assert here.board.posts == ["x-1"]
    assert (here.tracker.bead("x-1").status, here.tracker.notes("x-1"), here.tracker.own("x-1")) == (
        "open",
        [],
        place(2),
    )


def test_a_refused_bead_is_charged_and_waits_while_the_next_goes_on() -> None:
    here = desk(*queue(2), script=[refusal()])
    report = here.cycle()
    assert said(report) == {"x-1": "refused", "x-2": "dispatched"}
    assert (report.outcome, report.exit_code) == (Outcome.partial, 5)
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.failures) == ("open", 1, 1)
    assert bead.record.retry_at is not None
    assert timedelta(minutes=1) <= bead.record.retry_at - NOW <= timedelta(minutes=2)
    assert here.tracker.notes("x-1") == ["dispatch failed HTTP 400: Bead is missing acceptance criteria."]


def test_a_failing_bd_does_not_hide_a_second_signal() -> None:
    here = desk(*queue(2), script=[refusal()])

    def stopped(change: Change) -> None:
        if change.act == "record":
            raise KeyboardInterrupt
        if change.act == "release":
            raise BdFailed("bd failed")

    here.tracker.before_write = stopped
    with pytest.raises(KeyboardInterrupt):
        here.cycle()


def test_a_bead_refused_up_to_max_attempts_is_quarantined_and_starts_afresh_when_re_armed() -> None:
    here = desk(row("x-1", notes="mine"))
    reports = []
    for _ in range(3):
        here.board.script = [refusal()]
        reports.append(here.cycle())
        here.clock.time += timedelta(hours=1)
    assert [r.beads[0].outcome for r in reports] == ["refused", "refused", "quarantined"]
    assert [r.exit_code for r in reports] == [4, 4, 0]
    assert here.tracker.bead("x-1").status == "blocked"
    mine, first, last = here.tracker.notes("x-1")
    assert (mine, first) == ("mine", "dispatch failed HTTP 400: Bead is missing acceptance criteria.")
    assert "quarantined after 3 attempts" in last
    assert "bd update x-1 -s open" in last
    own = here.tracker.own("x-1")
    assert (own["attempts"], own["quarantined"]) == (3, "HTTP 400: Bead is missing acceptance criteria.")
    assert here.cycle().outcome is Outcome.idle
    here.tracker.rows["x-1"]["status"] = "open"
    assert here.cycle().outcome is Outcome.dispatched
    assert here.tracker.bead("x-1").record.attempts == 1
    assert "quarantined" not in here.tracker.own("x-1")


def young(bead_id: str, age: timedelta) -> dict[str, Any]:
    return row(bead_id, created_at=NOW - age, updated_at=NOW - age)


def test_a_bead_that_beadboard_does_not_see_yet_is_tried_again_after_a_minute_uncharged() -> None:
    here = desk(young("x-1", timedelta(seconds=5)), script=[refusal("Bead x-1 not found.")])
    report = here.cycle(max_attempts=1)
    assert (report.exit_code, said(report)) == (0, {"x-1": "not_visible"})
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.failures) == ("open", 0, 0)
    assert bead.record.retry_at == NOW + timedelta(minutes=1)
    assert here.tracker.notes("x-1") == []
    assert here.cycle().outcome is Outcome.idle
    here.clock.time += timedelta(minutes=1)
    assert here.cycle().outcome is Outcome.dispatched
    assert "error" not in here.tracker.own("x-1")


def test_a_bead_that_beadboard_never_sees_is_charged_once_it_is_two_minutes_old() -> None:
    """Its creation counts: each release moves the last update, so that would stay young for ever."""
    here = desk(young("x-1", timedelta(seconds=5)))
    seen = []
    for _ in range(6):
        here.board.script = [refusal("Bead x-1 not found.")]
        seen += list(said(here.cycle()).values())
        here.clock.time += timedelta(minutes=1)
    assert seen[:2] == ["not_visible", "not_visible"]
    assert set(seen[2:]) == {"refused"}
    assert here.tracker.bead("x-1").record.attempts == len(seen) - 2


def test_a_bead_that_a_wrong_clock_created_is_charged() -> None:
    """It would look young for ever."""
    here = desk(row("x-1", created_at=NOW + timedelta(days=365)), script=[refusal("Bead x-1 not found.")])
    assert said(here.cycle()) == {"x-1": "refused"}


def test_another_refusal_of_a_young_bead_is_charged() -> None:
    here = desk(young("x-1", timedelta(seconds=5)), script=[refusal()])
    assert said(here.cycle()) == {"x-1": "refused"}


def test_three_beads_refused_in_a_row_are_not_charged_however_often_it_is_tried() -> None:
    here = desk(*queue(4), max_beads=4)
    for _ in range(8):
        here.board.script = [refusal("Bead not found.") for _ in range(4)]
        report = here.cycle()
        assert (report.exit_code, type(report.error)) == (4, ServiceDrift)
        assert "same database" in str(report.error)
        assert list(said(report).values()) == ["misconfigured"] * 3
        here.clock.time += timedelta(hours=1)
    for n in (1, 2, 3):
        bead = here.tracker.bead(f"x-{n}")
        assert (bead.status, bead.record.attempts) == ("open", 0)
        assert here.tracker.notes(bead.id) == ["dispatch failed HTTP 400: Bead not found."]


def test_three_bad_beads_at_the_head_do_not_stop_the_queue() -> None:
    """It is they that are refused, and not every bead: the next cycle goes on with the others."""
    here = desk(*(row(f"x-{n}", priority=0) for n in (1, 2, 3)), row("x-9"), script=[refusal()] * 3)
    assert here.cycle().exit_code == 4
    assert said(here.cycle()) == {"x-9": "dispatched"}


def test_two_refused_and_a_good_one_charge_the_two() -> None:
    here = desk(*queue(3), script=[refusal(), refusal()])
    report = here.cycle()
    assert said(report) == {"x-1": "refused", "x-2": "refused", "x-3": "dispatched"}
    assert [here.tracker.bead(f"x-{n}").record.attempts for n in (1, 2, 3)] == [1, 1, 1]


def test_refusals_on_both_sides_of_a_good_answer_are_not_in_a_row() -> None:
    good = httpx.Response(200, json={"job_id": "j"})
    here = desk(*queue(4), script=[refusal(), refusal(), good, refusal()], max_beads=4)
    report = here.cycle()
    assert sorted(said(report).values()) == ["dispatched", "refused", "refused", "refused"]
    assert report.exit_code == 5


@pytest.mark.parametrize("between", [refusal("busy", 502), refusal("wrong", 500)], ids=["not started", "misconfigured"])
def test_beads_refused_before_another_answer_do_not_stay_claimed(between: Reply) -> None:
    here = desk(*queue(3), script=[refusal(), refusal(), between])
    here.cycle()
    assert {r["status"] for r in here.tracker.rows.values()} == {"open"}


def test_beads_refused_before_the_service_is_busy_do_not_stay_claimed() -> None:
    here = desk(*queue(3), script=[refusal(), refusal("Agent is busy", 409)])
    report = here.cycle()
    assert said(report) == {"x-1": "refused", "x-2": "busy"}
    assert {here.tracker.bead(bead).status for bead in ("x-1", "x-2")} == {"open"}


UNKNOWN: list[tuple[str, Reply, str]] = [
    ("a gateway's time-out", httpx.Response(504, text="<html>"), "HTTP 504"),
    ("time-out after sending", httpx.ReadTimeout("late"), "no answer within 30s"),
    ("broken connection", httpx.RemoteProtocolError("Server disconnected"), "Server disconnected"),
    ("broken while sending", httpx.WriteError("broken pipe"), "broken pipe"),
    ("broken while reading", httpx.ReadError("reset"), "reset"),
    ("200 without a job id", httpx.Response(200, json={}), "HTTP 200 without a job id"),
    ("an empty job id", httpx.Response(200, json={"job_id": ""}), "HTTP 200 without a job id"),
    ("a job id that is no text", httpx.Response(200, json={"job_id": 5}), "HTTP 200 without a job id"),
    ("a hostile job id", httpx.Response(200, json={"job_id": "a\nb'; --"}), "HTTP 200 without a job id"),
    ("HTML", httpx.Response(200, text="<html>"), "HTTP 200 without a job id"),
    ("not UTF-8", httpx.Response(200, content=b'{"job_id": "\xff"}'), "HTTP 200 without a job id"),
    ("endless nesting", httpx.Response(200, content=b"[" * 200_000), "HTTP 200 without a job id"),
    ("another 2xx", httpx.Response(202, json={"job_id": "j"}), "HTTP 202"),
    ("megabytes", httpx.Response(200, content=b" " * (1 << 21)), "larger than 1 MiB"),
]


@pytest.mark.parametrize(("answer", "words"), [r[1:] for r in UNKNOWN], ids=[r[0] for r in UNKNOWN])
def test_an_unknown_outcome_leaves_the_bead_claimed_and_is_never_posted_again(answer: Reply, words: str) -> None:
    here = desk(*queue(2), script=[answer], max_beads=2)
    report = here.cycle()
    assert (report.exit_code, said(report)) == (4, {"x-1": "unknown"})
    assert words in str(report.error)
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.job) == ("in_progress", 1, "")
    claimed, note = here.tracker.notes("x-1")
    assert claimed == CLAIMED
    assert note.startswith("dispatch outcome unknown: ")
    assert words in note
    assert bead.record.error == note
    here.cycle()
    assert here.board.posts.count("x-1") == 1


def test_busy_claims_and_posts_nothing() -> None:
    here = desk(row("x-1"))
    here.board.busy = [True]
    report = here.cycle()
    assert (report.outcome, report.exit_code, report.beads) == (Outcome.busy, 0, ())
    assert here.tracker.written == []


@pytest.mark.parametrize("fields", [{"status": "closed"}, {"acceptance_criteria": ""}], ids=["empty", "none eligible"])
def test_a_queue_without_eligible_beads_is_idle_and_asks_no_service(fields: dict[str, Any]) -> None:
    here = desk(row("x-1", **fields))
    dispatcher = here.dispatcher()
    dispatcher.runner = no_services
    report = dispatcher.cycle()
    assert (report.outcome, report.exit_code) == (Outcome.idle, 0)


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(200, text="<html>"), httpx.Response(301)],
    ids=["down", "refused", "HTML", "redirect"],
)
def test_a_beadboard_that_does_not_say_whether_it_is_busy_gets_no_bead(answer: Reply) -> None:
    here = desk(row("x-1"))
    here.board.status = answer
    report = here.cycle()
    assert (report.outcome, report.exit_code) == (Outcome.failed, 4)
    assert (here.board.posts, here.tracker.written) == ([], [])


def health(active: int, queued: int = 0, capacity: int = 10) -> dict[str, Any]:
    return {"status": "ok", "busy": False, "active": active, "queued": queued, "capacity": capacity}


def test_the_agent_service_s_capacity_bounds_a_cycle() -> None:
    here = desk(*queue(5), max_beads=5)
    here.agent, here.board.health = True, [health(7, 1)]
    assert len(here.cycle().beads) == 2


def test_each_service_is_asked_once_in_a_cycle() -> None:
    here = desk(*queue(5), max_beads=4)
    here.agent, here.board.health = True, [health(0)]
    assert len(here.cycle().beads) == 4
    asked = Counter(request.url.path for request in here.board.requests)
    assert asked == {"/api/agent-status": 1, "/health": 1, "/api/agent-dispatch": 4}


def test_capacity_that_ends_within_a_cycle_ends_it() -> None:
    good = httpx.Response(200, json={"job_id": "j"})
    here = desk(*queue(5), script=[good, refusal("Agent is busy", 409)], max_beads=5)
    report = here.cycle()
    assert (report.outcome, said(report)) == (Outcome.dispatched, {"x-1": "dispatched", "x-2": "busy"})


def test_no_capacity_is_busy() -> None:
    here = desk(row("x-1"))
    here.agent, here.board.health = True, [health(10, 5)]
    assert here.cycle().outcome is Outcome.busy
    assert here.tracker.written == []


def test_without_counts_max_bounds_the_cycle() -> None:
    assert len(desk(*queue(5)).cycle(max_beads=2).beads) == 2


def test_max_counts_what_was_dispatched_and_not_what_was_tried() -> None:
    here = desk(*queue(4), script=[httpx.Response(502)], max_beads=2)
    assert said(here.cycle()) == {"x-1": "unavailable", "x-2": "dispatched", "x-3": "dispatched"}


def test_a_lost_race_is_not_an_error_and_the_next_bead_is_taken() -> None:
    here = desk(*queue(2))

    def race(change: Change) -> None:
        if change.bead.id == "x-1":
            here.tracker.rows["x-1"]["status"] = "in_progress"

    here.tracker.before_write = race
    report = here.cycle()
    assert said(report) == {"x-1": "lost", "x-2": "dispatched"}
    assert (report.outcome, report.exit_code, here.board.posts) == (Outcome.dispatched, 0, ["x-2"])


def test_only_lost_races_are_an_idle_cycle() -> None:
    here = desk(row("x-1"))
    here.tracker.before_write = lambda change: here.tracker.rows["x-1"].update(assignee="ann")
    report = here.cycle()
    assert (report.outcome, report.exit_code, said(report)) == (Outcome.idle, 0, {"x-1": "lost"})


SAID_NO: list[tuple[str, Reply]] = [
    ("busy", refusal("Agent is busy", 409)),
    ("refused", refusal()),
    ("not started", httpx.Response(502)),
    ("misconfigured", httpx.Response(500)),
    ("connection refused", httpx.ConnectError("refused")),
]


@pytest.mark.parametrize("answer", [case[1] for case in SAID_NO], ids=[case[0] for case in SAID_NO])
def test_a_sign_of_the_agent_makes_any_answer_unknown(answer: Reply) -> None:
    """BeadBoard said no, and the job started all the same, or BeadBoard's button was faster: it is not posted again."""
    here = desk(*queue(2), script=[answer], max_beads=2)

    def work(bead_id: str) -> None:
        row = here.tracker.rows[bead_id]
        row.update(notes=f"{row['notes']}\nWorking on it…", updated_at=here.clock.now() + timedelta(seconds=1))

    here.board.posted = work
    report = here.cycle(max_attempts=1)
    assert report.exit_code == 4
    assert said(report)["x-1"] == "unknown"
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts) == ("in_progress", 1)
    assert bead.record.error.startswith("dispatch outcome unknown")
    here.clock.time += timedelta(hours=2)
    here.cycle()
    assert here.board.posts.count("x-1") == 1


def test_a_claim_that_took_half_the_grace_period_is_given_back_unposted() -> None:
    """The dispatcher was suspended: meanwhile a reaper may have released the bead, and another may have posted it."""
    here = desk(*queue(2), grace=timedelta(minutes=10))

    def suspend(change: Change) -> None:
        here.tracker.before_write = lambda change: None
        here.clock.time += timedelta(minutes=5, seconds=1)

    here.tracker.before_write = suspend
    report = here.cycle()
    assert said(report) == {"x-1": "released", "x-2": "dispatched"}
    assert (report.exit_code, here.board.posts) == (0, ["x-2"])
    bead, moved = here.tracker.bead("x-1"), NOW + timedelta(minutes=5, seconds=1)
    assert (bead.status, here.tracker.own("x-1"), here.tracker.notes("x-1")) == ("open", place(2, moved), [])
    assert "5m" in report.beads[0].detail


@pytest.mark.parametrize("stopped", ["monotonic", "wall"])
def test_either_clock_tells_that_a_claim_is_old(stopped: str) -> None:
    """A suspended machine stops the monotonic clock, a corrected one sets the wall clock back."""
    here = desk(row("x-1"))
    dispatcher, start = here.dispatcher(), here.clock.time
    now = (lambda: start) if stopped == "wall" else here.clock.now
    monotonic = start.timestamp if stopped == "monotonic" else here.clock.monotonic
    dispatcher.runtime = Runtime(now, monotonic, here.clock.sleep, dispatcher.runtime.rng)

    def suspend(change: Change) -> None:
        here.clock.time += timedelta(minutes=6)

    here.tracker.before_write = suspend
    assert said(dispatcher.cycle()) == {"x-1": "released"}
    assert here.board.posts == []


class DozingClock(Clock):
    """The machine is asleep for some time just before one look at the clock."""

    def __init__(self, at_look: int, asleep: timedelta) -> None:
        super().__init__()
        self.looks, self._at_look, self._asleep = 0, at_look, asleep

    def now(self) -> datetime:
        self.looks += 1
        self.time += self._asleep if self.looks == self._at_look else timedelta(0)
        return self.time

    def monotonic(self) -> float:
        return self.now().timestamp()


def test_whenever_the_machine_was_asleep_before_the_last_look_at_the_clock_an_old_claim_is_not_posted() -> None:
    ages: list[timedelta] = []
    at_look, looks, posts = 1, 1, []
    while at_look <= looks:
        clock = DozingClock(at_look, timedelta(minutes=12))
        here = Desk(Tracker(clock, row("x-1")), Board(), clock, settings={"grace": timedelta(minutes=10)})

        def posted(bead_id: str, here: Desk = here, clock: Clock = clock) -> None:
            ages.append(clock.time - parse_time(here.tracker.own(bead_id)["claimed_at"]))

        here.board.posted = posted
        here.cycle()
        posts.append(len(here.board.posts))
        at_look, looks = at_look + 1, clock.looks
    assert set(posts) == {0, 1}
    assert max(ages) < timedelta(minutes=5)


def test_a_record_that_finds_its_claim_gone_is_an_error_and_the_bead_is_not_posted_again() -> None:
    before = row("x-1")
    here = desk(before | {})

    def revert(bead_id: str) -> None:
        here.tracker.rows[bead_id] = before | {}

    here.board.posted = revert
    report = here.cycle()
    assert (report.outcome, report.exit_code, said(report)) == (Outcome.failed, 3, {"x-1": "failed"})
    assert "x-1 runs as job job-1" in str(report.error)
    assert "claim is gone" in str(report.error)
    here.clock.time += timedelta(hours=2)
    assert (here.cycle().exit_code, here.board.posts) == (0, ["x-1"])


def test_the_job_of_a_claim_that_is_gone_is_noted_though_bd_fails() -> None:
    before = row("x-1")
    here = desk(before | {})
    failures = [BdFailed("locked"), BdFailed("locked")]

    def reverts(bead_id: str) -> None:
        here.tracker.rows[bead_id] = before | {}
        here.tracker.before_read = fails

    def fails(verb: str) -> None:
        if verb == "list" and failures:
            raise failures.pop()

    here.board.posted = reverts
    assert said(here.cycle()) == {"x-1": "failed"}
    assert (failures, here.tracker.own("x-1")["unclaimed"]) == ([], "job-1")


def test_the_job_of_a_claim_that_is_gone_is_noted_though_the_bead_moves() -> None:
    before = row("x-1")
    here = desk(before | {})

    def moves(change: Change) -> None:
        if change.act == "note unclaimed job of":
            here.tracker.before_write = lambda _: None
            here.tracker.rows["x-1"].update(notes="claimed by agent job-1", updated_at=NOW)

    here.board.posted = lambda bead_id: here.tracker.rows.update({bead_id: before | {}})
    here.tracker.before_write = moves
    assert said(here.cycle()) == {"x-1": "failed"}
    assert here.tracker.own("x-1")["unclaimed"] == "job-1"


@pytest.mark.parametrize("agent", [True, False])
def test_a_bead_that_a_reaper_released_before_the_record_is_dispatched_again_by_the_same_process(agent: bool) -> None:
    """The dispatcher stood still before its record. A release keeps the charge, a bd that reverts does not."""
    here = desk(row("x-1"))
    here.agent, here.board.health, here.board.jobs = agent, [health(0)], {"job-1": "timeout"}

    def released(bead_id: str) -> None:
        here.tracker.rows[bead_id] = row(bead_id, metadata={"bdauto.attempts": 1, "bdauto.failures": 1})

    here.board.posted = released
    assert said(here.cycle()) == {"x-1": "failed"}
    here.board.posted = lambda bead_id: None
    assert said(here.cycle()) == {"x-1": "dispatched"}


@pytest.mark.parametrize("state", ["failed", None], ids=["over", "forgotten"])
def test_a_bead_whose_claim_is_gone_is_dispatched_again_once_its_job_is_over(state: str | None) -> None:
    before = row("x-1")
    here = desk(before | {})
    here.agent, here.board.health, here.board.jobs = True, [health(0)], {"job-1": "timeout"}
    here.board.posted = lambda bead_id: here.tracker.rows.update({bead_id: before | {}})
    assert said(here.cycle()) == {"x-1": "failed"}
    here.board.posted = lambda bead_id: None
    assert (said(here.cycle()), here.board.posts) == ({"x-1": "kept"}, ["x-1"])
    here.board.jobs = {"job-1": state} if state else {}
    assert said(here.cycle()) == {"x-1": "dispatched"}


def reverted(*, agent: bool, state: str) -> Desk:
    """Return a desk at which x-1 was dispatched, and bd then took the claim and the record back."""
    before = row("x-1")
    here = desk(before | {})
    here.agent, here.board.health = agent, [health(0)]
    here.cycle()
    here.tracker.rows["x-1"] = before | {}
    here.board.jobs = {"job-1": state}
    here.clock.time += timedelta(minutes=1)
    return here


def test_a_reverted_claim_whose_job_runs_is_written_back() -> None:
    here = reverted(agent=True, state="running")
    attempt = here.started_jobs.jobs["x-1"].attempt
    report = here.cycle()
    assert (said(report), report.exit_code, here.board.posts) == ({"x-1": "reverted"}, 0, ["x-1"])
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempt, bead.record.attempts, bead.record.job) == (
        "in_progress",
        attempt,
        1,
        "job-1",
    )
    assert here.tracker.notes("x-1") == ["dispatched: job=job-1"]


def test_a_claim_that_is_written_back_names_the_place_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sweep could ask for the job otherwise: the bead would be settled by its age, and no end recorded."""
    here = reverted(agent=True, state="running")
    monkeypatch.setattr(BeadBoardRunner, "place", lambda _: Place("f-1", "machine-1", timedelta(minutes=45)))
    assert said(here.cycle()) == {"x-1": "reverted"}
    bead = here.tracker.bead("x-1")
    assert (bead.jobs_folder, bead.record.host, bead.ends_by) == ("f-1", "machine-1", NOW + timedelta(minutes=56))


@pytest.mark.parametrize(("agent", "state"), [(False, "running"), (True, "failed")], ids=["not known", "over"])
def test_a_bead_whose_job_is_not_known_to_run_is_dispatched_again(agent: bool, state: str) -> None:
    here = reverted(agent=agent, state=state)
    assert said(here.cycle()) == {"x-1": "dispatched"}


@pytest.mark.parametrize(
    ("state", "outcome"),
    [("running", "adopted"), ("queued", "adopted"), ("failed", "dispatched"), (None, "dispatched")],
)
def test_a_bead_on_which_beadboard_s_button_started_an_agent_is_not_posted(state: str | None, outcome: str) -> None:
    """The button leaves the status as it is, so the bead looks ready."""
    here = desk(row("x-1", notes="mine\nclaimed by agent j-9\nhalf done"))
    here.agent, here.board.health, here.board.jobs = True, [health(0)], {"j-9": state} if state else {}
    assert said(here.cycle()) == {"x-1": outcome}
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts) == ("in_progress", 1)
    assert (bead.record.job == "j-9", here.board.posts == []) == (outcome == "adopted", outcome == "adopted")


EXHAUSTED = {"attempt": "w3", "attempts": 3, "job": "j-3", "claimed_at": format_time(NOW), "result": "running"}


def test_a_bead_opened_after_its_last_attempt_is_quarantined() -> None:
    """Its agent opens it again and again: without an end it would cost a run in each cycle."""
    here = desk(row("x-1", metadata={f"bdauto.{key}": value for key, value in EXHAUSTED.items()}), row("x-2"))
    here.settings["max_beads"] = 2
    here.writer = DryWriter()
    assert said(here.cycle(dry_run=True)) == {"x-1": "kept", "x-2": "dispatched"}
    here.writer = None
    report = here.cycle()
    assert (said(report), here.board.posts) == ({"x-1": "quarantined", "x-2": "dispatched"}, ["x-2"])
    assert (report.exit_code, here.tracker.bead("x-1").status) == (0, "blocked")
    assert "opened again after 3 attempts — quarantined; re-arm it" in here.tracker.bead("x-1").notes
    record = here.tracker.bead("x-1").record
    assert ([run.job for run in record.unended], record.result) == (["j-3"], "running")  # its end is recorded later
    here.tracker.rows["x-1"]["status"] = "open"
    assert said(here.cycle()) == {"x-1": "dispatched"}
    assert here.tracker.bead("x-1").record.attempts == 1


@pytest.mark.parametrize("agent", [True, False])
def test_a_pause_stops_a_cycle_under_way(agent: bool) -> None:
    here = desk(*queue(5), max_beads=5)
    here.board.posted = lambda bead_id: here.tracker.store.update({KEY: PAUSED})
    report = here.cycle()
    assert (here.board.posts, report.outcome) == (["x-1"], Outcome.dispatched)
    assert "paused by ann" in report.detail


LATER: list[tuple[str, Callable[[Desk], None]]] = [
    ("a blocker", lambda here: here.tracker.blocked.add("x-2")),
    ("a label", lambda here: here.tracker.rows["x-2"].update(labels=["secret"])),
    ("closed", lambda here: here.tracker.rows["x-2"].update(status="closed")),
]


@pytest.mark.parametrize("change", [case[1] for case in LATER], ids=[case[0] for case in LATER])
@pytest.mark.parametrize("count", [3, 30], ids=["a page", "a long queue"])
def test_later_beads_are_judged_anew_before_their_claim(change: Callable[[Desk], None], count: int) -> None:
    """None of these moves `updated_at`, which is what a claim compares."""
    here = desk(*queue(count), max_beads=2, exclude_labels=("secret",))
    here.board.posted = lambda bead_id: change(here) if bead_id == "x-1" else None
    assert said(here.cycle()) == {"x-1": "dispatched", "x-3": "dispatched"}


def test_a_bead_alone_in_its_cycle_costs_no_second_look() -> None:
    here = desk(*queue(3))
    here.cycle()
    assert here.tracker.reads == ["ready", "kv"]


def test_an_agent_that_moved_the_bead_meanwhile_keeps_it_as_it_is() -> None:
    here = desk(row("x-1"), script=[httpx.Response(502)])
    here.board.posted = lambda bead_id: here.tracker.rows[bead_id].update(status="closed")
    report = here.cycle()
    assert (said(report), report.exit_code) == ({"x-1": "lost"}, 0)
    assert here.tracker.bead("x-1").status == "closed"
    assert here.tracker.notes("x-1") == [CLAIMED]


def failing(error: Exception, *, when: Callable[[Change], bool], times: int = 10**9) -> Callable[[Change], None]:
    """Return what fails writes, so often."""
    left = [times]

    def fail(change: Change) -> None:
        if when(change) and left[0]:
            left[0] -= 1
            raise error

    return fail


def is_claim(change: Change) -> bool:
    return change.status == "in_progress"


def is_record(change: Change) -> bool:
    return "bdauto.job" in change.put


def test_a_record_that_cannot_be_written_is_tried_again_for_a_minute() -> None:
    here = desk(row("x-1"))
    here.tracker.before_write = failing(BdFailed("bd sql failed"), when=is_record)
    report = here.cycle()
    assert (report.exit_code, here.board.posts) == (3, ["x-1"])
    assert "x-1 runs as job job-1" in str(report.error)
    assert report.beads[0].job == "job-1"
    assert 50 <= sum(here.clock.waited) <= 60
    here.tracker.before_write = lambda change: None
    assert here.cycle().outcome is Outcome.idle, "the bead stays claimed"


@pytest.mark.parametrize("error", [BdFailed("x"), BdTimeout("x"), BdConflict("x"), BdDrift("x")])
def test_a_record_that_bd_takes_at_last_is_a_dispatch(error: Exception) -> None:
    here = desk(row("x-1"))
    here.tracker.before_write = failing(error, when=is_record, times=4)
    assert here.cycle().exit_code == 0
    assert here.tracker.bead("x-1").record.job == "job-1"


def test_the_record_of_a_job_comes_before_the_charges_of_beads_refused_earlier() -> None:
    here = desk(*queue(3), script=[refusal(), refusal()])
    here.tracker.before_write = failing(BdFailed("bd sql failed"), when=lambda change: change.status == "open")
    report = here.cycle()
    assert report.exit_code == 3
    assert here.tracker.bead("x-3").record.job == "job-3"


def test_an_unknown_outcome_is_written_even_when_bd_fails_for_a_while() -> None:
    here = desk(row("x-1"), script=[httpx.ReadTimeout("late")])
    here.tracker.before_write = failing(BdFailed("x"), when=lambda change: "bdauto.error" in change.put, times=3)
    assert here.cycle().exit_code == 4
    assert here.tracker.bead("x-1").record.error.startswith("dispatch outcome unknown")


def test_a_bead_that_cannot_be_claimed_does_not_hold_up_the_next() -> None:
    here = desk(*queue(2))
    here.tracker.before_write = failing(BdFailed("row is odd"), when=lambda change: change.bead.id == "x-1")
    report = here.cycle()
    assert said(report) == {"x-1": "failed", "x-2": "dispatched"}
    assert (report.outcome, report.exit_code) == (Outcome.partial, 5)


def test_a_cycle_whose_every_claim_failed_is_a_failure_of_bd() -> None:
    here = desk(row("x-1"))
    here.tracker.before_write = failing(BdFailed("bd sql failed: read-only"), when=is_claim)
    report = here.cycle()
    assert (report.outcome, report.exit_code, here.board.posts) == (Outcome.failed, 3, [])
    assert "read-only" in str(report.error)


def test_three_claims_that_fail_in_a_row_speak_against_bd() -> None:
    here = desk(*queue(5))
    here.tracker.before_write = failing(BdFailed("read-only"), when=is_claim)
    report = here.cycle()
    assert (report.outcome, report.exit_code, here.board.posts) == (Outcome.failed, 3, [])
    assert len(report.beads) <= 3


@pytest.mark.parametrize("error", [BdTimeout("x"), BdConflict("x"), BdDrift("x")])
def test_a_bd_that_hangs_or_drifts_on_a_claim_ends_the_cycle(error: Exception) -> None:
    here = desk(*queue(2))
    here.tracker.before_write = failing(error, when=is_claim)
    assert here.cycle().exit_code == 3
    assert here.board.posts == []


def test_an_unreadable_bead_is_skipped_and_counted() -> None:
    here = desk(*queue(2))
    here.tracker.broken = {"x-1": {"updated_at": "2026-02-30T00:00:00Z"}}
    report = here.cycle()
    assert said(report) == {"x-2": "dispatched"}
    assert (report.outcome, report.exit_code) == (Outcome.partial, 5)
    assert len(report.malformed) == 1
    assert "x-1" in report.malformed[0]


def test_a_bd_that_cannot_be_read_posts_nothing() -> None:
    here = desk(row("x-1"))
    here.tracker.broken = {"x-1": {"priority": "urgent"}}
    report = here.cycle()
    assert (report.outcome, report.exit_code, here.board.posts) == (Outcome.failed, 3, [])


PAUSED = f'{{"reason": "deploy", "by": "ann", "until": "{format_time(NOW + timedelta(hours=1))}"}}'


def test_where_nothing_is_eligible_the_switch_does_not_matter() -> None:
    here = desk(row("x-1", acceptance_criteria=""))
    here.tracker.store = {KEY: PAUSED}
    assert here.cycle().outcome is Outcome.idle
    assert here.tracker.reads == ["ready"]


def test_paused_asks_and_posts_nothing() -> None:
    here = desk(row("x-1"))
    here.tracker.store = {KEY: PAUSED}
    report = here.cycle()
    assert (report.outcome, report.exit_code, here.board.requests) == (Outcome.paused, 0, [])
    assert "paused by ann" in report.detail
    assert here.tracker.reads == ["ready", "kv"]


def test_the_look_at_the_switch_does_not_outlive_a_cycle_that_fails() -> None:
    here = desk(row("x-1"))
    dispatcher = here.dispatcher()

    def services() -> BeadBoardRunner:
        raise UsageError("not a URL")

    dispatcher.runner = services
    assert dispatcher.cycle().exit_code == 2
    assert here.tracker.reads == ["ready", "kv"]
    assert here.tracker.calls[1].ended


def test_an_empty_queue_is_idle_whatever_the_switch_says() -> None:
    here = desk()
    here.tracker.store = {KEY: PAUSED}
    assert here.cycle().outcome is Outcome.idle
    assert here.tracker.reads == ["ready"]


def test_a_pause_that_is_ignored_or_over_holds_nothing_up() -> None:
    here = desk(*queue(2))
    here.tracker.store = {KEY: PAUSED}
    assert here.cycle(ignore_pause=True).outcome is Outcome.dispatched
    here.clock.time += timedelta(hours=1)
    assert here.cycle().outcome is Outcome.dispatched


def test_a_pause_switch_that_cannot_be_read_dispatches_nothing() -> None:
    here = desk(row("x-1"))

    def fail(verb: str) -> None:
        if verb == "kv":
            raise BdFailed("bd kv list failed")

    here.tracker.before_read = fail
    assert here.cycle().exit_code == 3
    assert here.board.posts == []


def test_a_dry_run_decides_the_same_and_writes_and_posts_nothing() -> None:
    here = desk(*queue(3), max_beads=2, dry_run=True)
    here.writer = DryWriter()
    report = here.cycle()
    assert (said(report), report.dry_run) == ({"x-1": "dispatched", "x-2": "dispatched"}, True)
    assert (here.board.posts, here.tracker.written) == ([], [])


def test_a_dry_run_adopts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    here = desk(row("x-1", notes="claimed by agent j-9"), dry_run=True)
    here.agent, here.board.health, here.board.jobs = True, [health(0)], {"j-9": "running"}
    here.writer = DryWriter()
    with caplog.at_level("INFO"):
        assert said(here.cycle()) == {"x-1": "adopted"}
    assert [record.message for record in caplog.records if record.name == "bdauto"] == ["would-adopt"]
    assert (here.board.posts, here.tracker.written) == ([], [])


def test_an_idle_cycle_says_who_waits_and_until_when() -> None:
    soon, later = (format_time(NOW + timedelta(minutes=minutes)) for minutes in (5, 85))
    here = desk(
        row("x-1", acceptance_criteria=""),
        row("x-2", metadata={"bdauto.retry_at": soon}),
        row("x-3", metadata={"bdauto.retry_at": later}),
        row("x-4", metadata={"bdauto.retry_at": soon}, acceptance_criteria=""),
    )
    assert here.cycle().detail == "4 beads wait, the next at 22:40Z"
    assert desk(row("x-3", metadata={"bdauto.retry_at": later})).cycle().detail == (
        "1 bead waits, the next at 2026-04-19 00:00Z"
    )
    assert desk(row("x-1", acceptance_criteria="")).cycle().detail == "1 bead waits"


def test_a_cycle_that_the_capacity_cut_says_so() -> None:
    here = desk(*queue(3), max_beads=10, dry_run=True)
    here.writer = DryWriter()
    here.board.health = [{"status": "ok", "busy": False, "active": 2, "queued": 0, "capacity": 4}]
    here.agent = True
    report = here.cycle()
    assert (len(report.beads), report.detail) == (2, "the free capacity is 2, less than --max 10")


def test_a_stop_between_two_beads_ends_the_cycle_in_order() -> None:
    here = desk(*queue(3), max_beads=3)
    here.stopping = lambda: len(here.board.posts) == 1
    report = here.cycle()
    assert (report.outcome, said(report)) == (Outcome.dispatched, {"x-1": "dispatched"})
    assert here.tracker.bead("x-2").status == "open"


def test_a_backoff_of_a_wrong_clock_holds_nobody_up() -> None:
    here = desk(row("x-1", metadata={"bdauto.retry_at": format_time(NOW + timedelta(days=365))}))
    assert said(here.cycle()) == {"x-1": "dispatched"}


def test_a_bead_is_not_dispatched_before_its_backoff_is_over() -> None:
    later: datetime = NOW + timedelta(seconds=1)
    here = desk(row("x-1", metadata={"bdauto.retry_at": format_time(later)}))
    assert here.cycle().outcome is Outcome.idle
    here.clock.time = later
    assert here.cycle().outcome is Outcome.dispatched


def test_a_bead_that_cannot_be_started_is_not_claimed_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BeadBoardRunner, "problem_with", lambda _, bead: "in the way" if bead.id == "x-1" else "")
    there = desk(*queue(2))
    report = there.cycle()
    assert {bead.id: bead.outcome for bead in report.beads} == {"x-1": "unavailable", "x-2": "dispatched"}
    assert (report.exit_code, "x-1 is open: it was not claimed: in the way" in str(report.error)) == (5, True)
    assert (there.tracker.own("x-1"), there.tracker.notes("x-1")) == ({}, [])
    health = DependencyHealth(Telemetry(TelemetrySettings()), there.clock.runtime(), print)
    health.posts(msgspec.structs.replace(report, beads=report.beads[:1]))
    assert not health.posts_fail


def test_a_bead_that_its_agent_deletes_is_no_outage_of_bd(monkeypatch: pytest.MonkeyPatch) -> None:
    there = desk(row("x-1"))
    apply = Tracker.apply

    def deleted(tracker: Tracker, changes: Sequence[Change]) -> list[bool]:
        if changes[0].act == "record":
            tracker.rows.clear()
            return [False]
        return apply(tracker, changes)

    monkeypatch.setattr(Tracker, "apply", deleted)
    report = there.cycle()
    assert (report.exit_code, type(report.error)) == (5, PartlyDone)
    assert f"x-1 was deleted; its job {report.beads[0].job} runs on" in str(report.error)


def test_the_notes_of_a_long_cycle_do_not_wait_for_its_end() -> None:
    """A sweep would take them for lost."""
    here = desk(*queue(3), max_beads=3)
    seen: list[list[str]] = []

    def slow(change: Change) -> None:
        if change.act == "record":
            here.clock.time += timedelta(seconds=OVERDUE)
        if change.act == "claim":
            seen.append(here.tracker.notes("x-1"))

    here.tracker.before_write = slow
    here.dispatcher().cycle()
    assert ["dispatched: job=" in "\n".join(notes) for notes in seen] == [False, False, True]
