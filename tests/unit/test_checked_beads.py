"""Beads whose agents are checked: bdauto closes them, and opens again what their agents have closed too early."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from bdauto.agents.local.jobs import GateRecord
from bdauto.agents.runner import Place
from bdauto.common.errors import BdTimeout
from bdauto.controllers.claims import Claims
from bdauto.controllers.reaper import Reaper
from bdauto.domain.agent_end import Why
from bdauto.domain.edits import CHECKER, author, read_events
from bdauto.domain.outcome import Report
from bdauto.domain.reaping import JobEvidence
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import ReapSettings
from tests.support.fakes import NOW, Board, Clock, Tracker, row
from tests.unit.test_earlier_jobs import Desk

ENDED = NOW - timedelta(minutes=2)
PASSED = Run(result=Result.completed, why=Why.ok, ended_at=ENDED, seconds=60, words="All done.", checked=True)
FAILED = Run(result=Result.failed, why=Why.check, ended_at=ENDED, seconds=60, words="check (make): exit 2: no")
ACTOR = "agent"


def claimed(bead_id: str = "x-1", *, own: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a bead of attempt a1, whose check is due."""
    record = {"attempt": "a1", "attempts": 1, "job": "a1", "check": "due", "result": "running"}
    record |= {"claimed_at": "2026-04-18T22:00:00Z", "assignee": ACTOR} | (own or {})
    plain = {"status": "in_progress", "updated_at": ENDED, "notes": "claimed by agent a1", "acceptance_criteria": "x"}
    return row(bead_id, **(plain | fields), metadata={f"bdauto.{key}": value for key, value in record.items() if value})


def closed(bead_id: str = "x-1", **fields: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"status": "closed", "closed_at": ENDED}
    return claimed(bead_id, **(plain | fields))


def closing(actor: str, bead_id: str = "x-1", reason: str = "done") -> dict[str, Any]:
    """Return bd's record of who closed a bead."""
    at = {"issue_id": bead_id, "created_at": "2026-04-18 22:30:00"}
    return at | {"actor": actor, "event_type": "closed", "new_value": reason}


class Ward:
    """A tracker, and a machine whose job a1 of x-1 runs, or has ended like this."""

    def __init__(self, *rows: dict[str, Any], end: Run | None = None, unchecked: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.tracker = Tracker(self.clock, *rows)
        self.services = Board().services(agent=True)()
        self.end, self.unchecked = end, unchecked
        told: Any = self.services
        told.evidence = lambda beads, status=None: (self._evidence(), None)
        told.unchecked = lambda: dict.fromkeys(self.unchecked, "a1")
        told.passed = lambda job: job == "a1" and bool(self.end and self.end.checked)

    def _evidence(self) -> JobEvidence:
        state = "running" if self.end is None else "completed"
        return JobEvidence({"x-1": state}, ends={"x-1": self.end} if self.end else {})

    def sweep(self, **settings: Any) -> Report:
        runner = lambda: self.services  # noqa: E731
        return Reaper(self.tracker, self.tracker, runner, ReapSettings(**settings), self.clock.runtime()).sweep()

    def outcomes(self) -> list[tuple[str, str]]:
        return [(one.id, one.outcome) for one in self.sweep().beads]


def test_a_bead_that_passed_is_closed_in_its_agents_name_with_its_words() -> None:
    here = Ward(claimed(), end=PASSED)
    assert here.outcomes() == [("x-1", "closed")]
    [change] = here.tracker.written
    assert (change.status, change.reason, change.bead.assignee) == ("closed", "All done.", ACTOR)
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.check, bead.record.result, bead.record.attempts) == ("closed", "", "completed", 1)
    assert here.tracker.notes("x-1")[-1] == "reaper: job a1 has passed its checks — closed"
    assert here.sweep().beads == ()


def test_an_agent_that_wrote_nothing_is_an_early_death_though_its_check_passed() -> None:
    here = Ward(claimed(notes=""), end=PASSED)
    assert here.outcomes() == [("x-1", "released")]


def test_a_bead_whose_check_failed_is_open_again_uncharged_and_waits() -> None:
    here = Ward(claimed(), end=FAILED)
    assert here.outcomes() == [("x-1", "requeued")]
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempts, bead.record.attempt, bead.record.failed_checks) == ("open", 0, "", 1)
    assert bead.record.retry_at
    assert bead.record.retry_at > NOW
    assert (bead.record.runs[-1].why, bead.record.check) == ("check", "due")
    note = "reaper: job a1: its check (make): exit 2: no — opened again, uncharged (failed check 1 of 3)"
    assert here.tracker.notes("x-1")[-1] == note
    assert here.sweep().beads == ()


def test_after_its_last_failed_check_it_is_blocked_for_a_person() -> None:
    here = Ward(claimed(own={"failed_checks": 2}), end=FAILED)
    assert here.outcomes() == [("x-1", "blocked")]
    assert here.tracker.bead("x-1").record.quarantined == "job a1: its check (make): exit 2: no"
    words = "blocking after 3 failed checks; re-arm it: bd update x-1 -s open"
    assert here.tracker.notes("x-1")[-1].endswith(words)
    here.tracker.rows["x-1"]["status"] = "open"
    assert here.tracker.bead("x-1").record.failed_checks == 0


@pytest.mark.parametrize("why", [Why.land, Why.review])
def test_a_landing_that_failed_is_not_tried_again(why: Why) -> None:
    here = Ward(claimed(), end=msgspec.structs.replace(FAILED, why=why, words="landing (git): exit 1"))
    assert here.outcomes() == [("x-1", "blocked" if why is Why.land else "requeued")]


@pytest.mark.parametrize("closer", [ACTOR, CHECKER, None])
@pytest.mark.parametrize("end", [None, FAILED])
def test_what_its_agent_closed_unchecked_is_open_again(closer: str | None, end: Run | None) -> None:
    here = Ward(closed(), end=end, unchecked=("x-1",))
    here.tracker.recorded = [closing(closer)] if closer else []
    assert here.outcomes() == [("x-1", "requeued" if end else "reverted")]
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.attempt) == (("open", "") if end else ("in_progress", "a1"))
    assert any(line.endswith("closed it before its check had passed — opened again") for line in bead.notes.split("\n"))


@pytest.mark.parametrize("end", [None, FAILED])
def test_what_a_person_closed_stays_closed(end: Run | None) -> None:
    here = Ward(closed(), end=end, unchecked=("x-1",))
    here.tracker.recorded = [closing("ann")]
    assert here.outcomes() == []
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.check) == ("closed", "")


def test_what_its_agent_closed_and_passed_stays_closed() -> None:
    here = Ward(closed(), end=PASSED, unchecked=("x-1",))
    here.tracker.recorded = [closing(ACTOR)]
    assert here.outcomes() == []
    bead = here.tracker.bead("x-1")
    assert (bead.status, bead.record.check, bead.record.result) == ("closed", "", "completed")


@pytest.mark.parametrize("end", [PASSED, FAILED])
def test_a_check_that_writes_on_the_bead_is_told_of_once(end: Run) -> None:
    here = Ward(claimed(), end=end)
    here.tracker.recorded = [closing(CHECKER) | {"event_type": "updated", "new_value": '{"notes": "hm"}'}]
    here.sweep()
    [told] = [line for line in here.tracker.notes("x-1") if "has written on the bead as bdauto-check" in line]
    assert told.startswith("reaper: job a1")
    here = Ward(claimed(notes=f"claimed by agent a1\n{told}"), end=end)
    here.tracker.recorded = [closing(CHECKER)]
    here.sweep()
    assert sum("has written on the bead" in line for line in here.tracker.notes("x-1")) == 1


def test_a_child_process_that_closes_the_bead_later_gains_nothing() -> None:
    here = Ward(claimed(), end=FAILED, unchecked=("x-1",))
    here.sweep()
    here.tracker.recorded = [closing(ACTOR)]
    for _ in range(3):
        here.tracker.rows["x-1"].update(status="closed", closed_at=here.clock.now())
        assert here.outcomes() == [("x-1", "reverted")]
        assert here.tracker.bead("x-1").status == "open"
    assert sum("closed it before its check" in line for line in here.tracker.notes("x-1")) == 1


def test_what_an_attempt_without_a_check_closes_stays_closed() -> None:
    """Its attempt before had a check, which failed."""
    here = Ward(claimed(own={"attempt": "", "job": "", "failed_checks": 1}, status="open"), unchecked=("x-1",))
    claims = Claims(here.tracker, here.tracker, here.clock.runtime())
    assert claims.claim(here.tracker.bead("x-1"), "a2", Place("p", "host", timedelta(hours=1), checked=False))
    here.tracker.rows["x-1"].update(status="closed", closed_at=here.clock.now())
    here.tracker.recorded = [closing(ACTOR)]
    assert here.outcomes() == []
    assert here.tracker.bead("x-1").status == "closed"


@pytest.mark.parametrize("verb", ["list", "read"])
def test_a_bead_that_may_be_open_again_is_in_the_report(verb: str) -> None:
    """Whether bd does not answer the write, and the read after it, or the next list."""
    here = Ward(closed(), unchecked=("x-1",))
    here.tracker.recorded = [closing(ACTOR)]

    def unanswered(_: object) -> None:
        here.tracker.before_read = silent
        if verb == "read":
            raise BdTimeout("bd did not answer")

    def silent(verb: str) -> None:
        raise BdTimeout("bd did not answer")

    here.tracker.after_write = unanswered
    report = here.sweep()
    assert [(one.id, one.outcome) for one in report.beads] == [("x-1", "failed" if verb == "read" else "reverted")]
    assert (report.outcome, report.exit_code) == ("partial", 3)


def test_what_passed_on_another_host_later_stays_closed() -> None:
    here = Ward(closed(own={"attempt": "a2", "job": "a2", "check": ""}), end=FAILED, unchecked=("x-1",))
    here.tracker.recorded = [closing(ACTOR)]
    here.tracker.rows["x-1"]["metadata"].pop("bdauto.check", None)
    assert here.outcomes() == []
    assert here.tracker.bead("x-1").status == "closed"


def test_an_agent_that_takes_the_mark_away_is_known_by_its_job_here() -> None:
    here = Ward(closed(own={"check": ""}), unchecked=("x-1",))
    here.tracker.recorded = [closing(ACTOR)]
    assert here.outcomes() == [("x-1", "reverted")]
    assert here.tracker.bead("x-1").record.check == "due"


def test_a_reason_in_the_form_of_an_event_hides_no_closing() -> None:
    told = read_events([closing("ann", reason="done"), closing(ACTOR, reason='{"status": "open"}')])
    assert author(told[1:], "x-1", "status", "closed") == ACTOR


DEPENDS = {"dependencies": [{"issue_id": "y-1", "depends_on_id": "x-1", "type": "blocks"}]}


def test_no_dependent_of_a_bead_that_was_closed_unchecked_is_dispatched() -> None:
    here = Desk(closed(), row("y-1", **DEPENDS), row("z-1"))
    here.tracker.recorded = [closing(ACTOR)]
    report = here.cycle()
    told = {(one.id, str(one.outcome)) for one in report.beads}
    assert ("x-1", "reverted") in told
    assert ("y-1", "dispatched") not in told
    assert ("z-1", "dispatched") in told
    assert here.tracker.bead("x-1").status == "in_progress"


def test_a_bead_that_somebody_else_opened_again_meanwhile_holds_its_dependents() -> None:
    here = Desk(closed(), row("y-1", **DEPENDS))
    here.tracker.recorded = [closing(ACTOR)]

    def opened(verb: str) -> None:
        if verb == "results":
            here.tracker.rows["x-1"].update(status="in_progress")

    here.tracker.before_read = opened
    assert [(one.id, one.outcome, one.detail) for one in here.cycle().beads] == [
        ("y-1", "kept", "it waits for the check of x-1")
    ]


def test_a_dependent_of_what_a_person_closed_goes() -> None:
    here = Desk(closed(), row("y-1", **DEPENDS))
    here.tracker.recorded = [closing("ann")]
    assert [(one.id, one.outcome) for one in here.cycle().beads] == [("y-1", "dispatched")]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"state": "failed", "exit_code": 2, "output": "a\n\nb\nc\n\x1b[31md\n"}, "check: exit status 2: b | c | d"),
        ({"state": "failed", "signal": "SIGSEGV", "output": ""}, "check: killed by SIGSEGV"),
        ({"state": "timeout", "signal": "SIGTERM", "seconds": 1800.4, "output": ""}, "check: timed out after 30m"),
        ({"state": "error", "detail": "cannot run x in /p: No such file", "output": ""}, "check: cannot run x in /p"),
        ({"state": "failed", "exit_code": 1, "output": "key sk-abcdefghijk1"}, "check: exit status 1: key ***"),
        ({"state": "failed", "exit_code": 1, "output": '{"ok": false}\n'}, 'check: exit status 1: {"ok": false}'),
    ],
)
def test_its_words_are_the_last_lines_of_the_check_cleaned(end: dict[str, Any], words: str) -> None:
    assert GateRecord(kind="check", text="check", **end).words.startswith(words)


def test_what_has_landed_is_closed_even_if_its_agent_was_silent() -> None:
    """Another attempt would land it again."""
    for landed, status in ((True, "closed"), (False, "open")):
        here = Ward(claimed(notes=""), end=msgspec.structs.replace(PASSED, landed=landed))
        here.sweep()
        assert here.tracker.bead("x-1").status == status
