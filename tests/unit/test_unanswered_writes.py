"""Writes that bd makes and does not answer, or answers with an error: each of their beads is named, whatever fails."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.bd.change import Change, swap_and_look
from bdauto.common.errors import BdConflict, BdDrift, BdError, BdFailed, BdTimeout
from bdauto.controllers.reaper import Reaper
from bdauto.domain.outcome import Report
from bdauto.domain.pause import KEY, Pause
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, dispatcher, row

LATE = BdTimeout("bd sql did not answer within 1m")
ERRORS = [LATE, BdConflict("Error 1213"), BdDrift("bd sql: no rows"), BdFailed("bd sql was killed by signal 9")]
SWITCH = Pause("upgrade").encode()


def stalled(bead_id: str, **own: Any) -> dict[str, Any]:
    claimed = NOW - timedelta(minutes=45)
    metadata = {
        "attempt": f"a-{bead_id}",
        "attempts": 1,
        "claimed_at": format_time(claimed),
        "job": f"j-{bead_id}",
    } | own
    notes = [f"auto-dispatcher claimed at {format_time(claimed)}", f"claimed by agent j-{bead_id}"]
    return row(
        bead_id,
        status="in_progress",
        updated_at=claimed,
        notes="\n".join([*notes, f"dispatched: job=j-{bead_id}"]),
        metadata={f"bdauto.{key}": value for key, value in metadata.items()},
    )


def silent(count: int) -> list[dict[str, Any]]:
    """Return beads whose agents have written nothing."""
    beads = [stalled(f"x-{number}") for number in range(1, count + 1)]
    return [bead | {"notes": bead["notes"].splitlines()[0]} for bead in beads]


def closed(bead_id: str) -> dict[str, Any]:
    return stalled(bead_id, result="running", assignee="agent") | {"status": "closed", "closed_at": NOW}


def ward(count: int = 3) -> Tracker:
    return Tracker(Clock(), *(stalled(f"x-{number}") for number in range(1, count + 1)))


def sweep(here: Tracker, board: Board | None = None, **settings: Any) -> Report:
    services = (board or Board()).services(agent=True)
    return Reaper(here, here, services, ReapSettings(**settings), here.clock.runtime()).sweep()


def cycle(here: Tracker, *script: Reply, **settings: Any) -> tuple[Report, Board]:
    board = Board(script=list(script))
    runtime = here.clock.runtime()
    chosen = DispatchSettings(**({"max_beads": 5} | settings))
    return dispatcher(here, here, board.services(), chosen, runtime).cycle(), board


def said(report: Report) -> dict[str, str]:
    return {bead.id: bead.outcome.value for bead in report.beads}


def details(report: Report) -> str:
    return " ".join(bead.detail for bead in report.beads)


def raising(error: BdError, *acts: str) -> Callable[[Any], None]:
    """Return what raises an error before or after changes of these kinds, or of any."""

    def fail(changes: Change | Sequence[Change]) -> None:
        listed = [changes] if isinstance(changes, Change) else changes
        if not acts or any(change.act in acts for change in listed):
            raise error

    return fail


@pytest.mark.parametrize("error", [LATE, ERRORS[2], ERRORS[3]], ids=lambda error: type(error).__name__)
def test_a_sweep_reports_what_was_written_though_bd_did_not_say_so(
    error: BdError, caplog: pytest.LogCaptureFixture
) -> None:
    here = ward()
    here.after_write = raising(error)
    report = sweep(here)
    assert said(report) == {"x-1": "blocked", "x-2": "blocked", "x-3": "blocked"}
    assert {here.bead(name).status for name in said(report)} == {"blocked"}
    assert report.exit_code == (0 if type(error) is BdFailed else 3), "bd needs a look"
    assert {record.getMessage() for record in caplog.records} >= {"write-unanswered"}
    assert len(here.notes("x-1")) == 5, "written once"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sweep_names_each_bead_that_could_not_be_written(error: BdError) -> None:
    here = ward()
    here.before_write = raising(error)
    report = sweep(here)
    assert said(report) == {"x-1": "failed", "x-2": "failed", "x-3": "failed"}
    assert all(error.message in bead.detail for bead in report.beads)
    assert ("the change may have been made" in details(report)) == (error is LATE)
    assert report.exit_code == (3 if isinstance(error, BdTimeout | BdDrift) else 5)


def test_where_bd_cannot_be_asked_either_the_change_may_have_been_made() -> None:
    here = ward()

    def hang(_changes: Any) -> None:
        here.before_read = raising(LATE)
        raise LATE

    here.after_write = hang
    report = sweep(here)
    assert set(said(report).values()) == {"failed"}
    assert details(report).count("the change may have been made") == 3
    assert report.exit_code == 3


def test_the_end_of_a_job_that_cannot_be_recorded_is_reported() -> None:
    here = Tracker(Clock(), stalled("x-1"), closed("x-2"))
    here.before_write = raising(LATE, "record the result of")
    report = sweep(here, Board(jobs={"j-x-1": "running", "j-x-2": "completed"}))
    assert said(report) == {"x-1": "kept", "x-2": "failed"}
    assert "record the result of" in report.beads[1].detail
    assert report.exit_code == 3


def test_beads_are_named_where_the_breaker_cannot_be_written() -> None:
    here = Tracker(Clock(), *silent(4))

    def swap(key: str, old: str | None, new: str | None) -> bool:
        raise LATE

    here.swap = swap  # type: ignore[method-assign]
    report = sweep(here, Board(jobs={"j-x-1": "failed", "j-x-2": "failed", "j-x-3": "failed", "j-x-4": "running"}))
    assert said(report) == {"x-1": "failed", "x-2": "failed", "x-3": "failed", "x-4": "kept"}
    assert report.exit_code == 3
    assert [change for change in here.written if change.status] == []


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("written", [True, False])
def test_a_claim_that_bd_does_not_confirm_is_named_and_not_posted(error: BdError, written: bool) -> None:
    here = Tracker(Clock(), row("x-1"))
    if written and not isinstance(error, BdConflict):
        here.after_write = raising(error, "claim")
    else:
        here.before_write = raising(error, "claim")
    report, board = cycle(here)
    assert (said(report), report.exit_code, board.posts) == ({"x-1": "failed"}, 3, [])
    assert ("the claim was made" in details(report)) == (here.bead("x-1").status == "in_progress")


ENDS: list[tuple[str, httpx.Response | None, str, str]] = [
    ("record", None, "dispatched", "in_progress"),
    ("release", httpx.Response(409), "busy", "open"),
    ("release", httpx.Response(400, json={"error": "no"}), "refused", "open"),
    ("release", httpx.Response(502), "unavailable", "open"),
    ("release", httpx.Response(500), "misconfigured", "open"),
    ("note unknown outcome of", httpx.Response(504), "unknown", "in_progress"),
]


@pytest.mark.parametrize(("act", "answer", "outcome", "status"), ENDS, ids=[f"{end[2]}" for end in ENDS])
def test_an_end_that_was_written_counts_though_bd_did_not_say_so(
    act: str, answer: httpx.Response | None, outcome: str, status: str
) -> None:
    here = Tracker(Clock(), row("x-1"))
    here.after_write = raising(LATE, act)
    report, _ = cycle(here, *([answer] if answer else []))
    assert (said(report), here.bead("x-1").status) == ({"x-1": outcome}, status)


@pytest.mark.parametrize(("act", "answer", "outcome", "status"), ENDS, ids=[f"{end[2]}" for end in ENDS])
def test_an_end_that_could_not_be_written_names_its_bead(
    act: str, answer: httpx.Response | None, outcome: str, status: str
) -> None:
    here = Tracker(Clock(), row("x-1"))
    here.before_write = raising(LATE, act)
    report, _ = cycle(here, *([answer] if answer else []))
    assert set(said(report)) == {"x-1"}
    assert outcome == "unknown" or "the change may have been made" in details(report)
    assert report.exit_code == 3


def test_a_refused_bead_that_cannot_be_released_keeps_no_other_from_it() -> None:
    here = Tracker(Clock(), *(row(f"x-{number}", priority=number) for number in range(1, 4)))

    def fail(change: Change) -> None:
        if change.act == "release" and change.bead.id == "x-1":
            raise BdFailed("no")

    here.before_write = fail
    refusal = httpx.Response(400, json={"error": "no"})
    report, _ = cycle(here, refusal, refusal)
    assert said(report) == {"x-1": "failed", "x-2": "refused", "x-3": "dispatched"}
    assert report.exit_code != 0


def test_a_switch_that_was_set_is_set_though_bd_did_not_say_so() -> None:
    here = ward()
    here.after_write = raising(LATE)
    assert swap_and_look(here, here.kv_list, KEY, None, SWITCH)
    here.before_read = raising(LATE)
    with pytest.raises(BdTimeout, match="may have been made"):
        swap_and_look(here, here.kv_list, KEY, SWITCH, None)


# A pause that comes during a sweep


class Pausing(Board):
    """An agent service that takes its time, in which somebody pauses, or resumes."""

    def during(self, act: Callable[[], object]) -> "Pausing":
        self.act = act
        return self

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/jobs/"):
            self.act()
        return super().__call__(request)


def test_a_pause_that_came_while_jobs_were_asked_about_settles_nothing() -> None:
    here = Tracker(Clock(), stalled("x-1"), stalled("x-2"), closed("x-3"))
    report = sweep(here, Pausing(jobs={"j-x-3": "completed"}).during(lambda: here.store.update({KEY: SWITCH})))
    assert (report.outcome.value, report.exit_code, here.written) == ("paused", 0, [])
    assert said(report) == {"x-1": "kept", "x-2": "kept"}
    assert "not settled, since dispatching is paused" in details(report)
    assert "upgrade" in report.detail


def test_a_pause_between_two_beads_leaves_the_second_alone() -> None:
    here, one_by_one = ward(2), list[Change]()

    def apply(changes: Sequence[Change]) -> list[bool]:
        if len(changes) > 1:
            raise BdFailed("an embedded database takes one bead's change at a time")
        one_by_one.extend(changes)
        return Tracker.apply(here, changes)

    here.apply = apply  # type: ignore[method-assign]
    here.after_write = lambda changes: here.store.update({KEY: SWITCH})
    report = sweep(here)
    assert (said(report), report.exit_code) == ({"x-1": "blocked", "x-2": "kept"}, 0)
    assert here.bead("x-2").status == "in_progress"


def test_a_pause_opens_no_breaker() -> None:
    here = Tracker(Clock(), *silent(3))
    board = Pausing(jobs=dict.fromkeys(("j-x-1", "j-x-2", "j-x-3"), "failed"))
    report = sweep(here, board.during(lambda: here.store.update({KEY: SWITCH})))
    assert (here.store, here.written, report.outcome.value) == ({KEY: SWITCH}, [], "paused")


def test_a_switch_that_changed_and_does_not_say_paused_stops_no_sweep() -> None:
    for later in ("", Pause("over", until=NOW - timedelta(hours=1)).encode()):
        here = ward(1)
        report = sweep(here, Pausing().during(lambda here=here, later=later: here.store.update({KEY: later})))  # type: ignore[misc]
        assert said(report) == {"x-1": "blocked"}


def test_a_pause_that_is_ignored_stops_no_sweep() -> None:
    here = ward(1)
    board = Pausing().during(lambda: here.store.update({KEY: SWITCH}))
    assert said(sweep(here, board, ignore_pause=True)) == {"x-1": "blocked"}
