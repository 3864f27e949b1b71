"""Whether a job goes on when its bead was changed: who changed it decides, and the agent's own changes never count."""

from datetime import timedelta
from typing import Any

import pytest

from bdauto.domain.edits import Edit, author, read_events, read_log
from bdauto.domain.reconcile import Fate, RunningJob, decide
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, bead

JOB = RunningJob("x-1", "a1", NOW - timedelta(minutes=5))
OWN = {"bdauto.attempt": "a1", "bdauto.job": "a1", "bdauto.claimed_at": "2026-04-18T22:30:40Z"}
LINGER = timedelta(minutes=2)


def edit(field: str, value: str, actor: str = "ada", at: str = "2026-04-18T22:33:00Z") -> Edit:
    return Edit("x-1", actor, field, value, at)


def fate(*edits: Edit, settings: DispatchSettings | None = None, **fields: Any) -> tuple[Fate, str]:
    found = bead(**({"status": "in_progress", "metadata": OWN} | fields))
    decision = decide(JOB, found, edits, "agent", settings, linger=LINGER, now=NOW)
    return decision.fate, decision.why


CHANGES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"status": "closed", "closed_at": NOW}, "status", "closed", "closed the bead"),
    ({"status": "blocked"}, "status", "blocked", "set the bead to blocked"),
    ({"status": "deferred"}, "status", "deferred", "set the bead to deferred"),
    ({"status": "review"}, "status", "review", "set the bead to review"),
    ({"assignee": "bob"}, "assignee", "bob", "gave the bead to bob"),
    ({"assignee": ""}, "assignee", "", "took the bead from the agent"),
    ({"labels": []}, "label", "-docs", "took the label docs away"),
    ({"labels": ["docs", "hold"]}, "label", "+hold", "gave it the label hold"),
    ({"issue_type": "epic"}, "issue_type", "epic", "made it of type epic"),
]
SETTINGS = DispatchSettings(labels=("docs",), exclude_labels=("hold",))


@pytest.mark.parametrize(("fields", "field", "value", "did"), CHANGES, ids=[did for *_, did in CHANGES])
def test_a_change_stops_the_job_unless_it_is_the_agent_s_own(
    fields: dict[str, Any], field: str, value: str, did: str
) -> None:
    fields = {"labels": ["docs"]} | fields
    assert fate(edit(field, value), settings=SETTINGS, **fields) == (Fate.stopped, f"ada {did}")
    assert fate(edit(field, value, "agent"), settings=SETTINGS, **fields) == (Fate.goes_on, "")
    why = f"somebody {did}, and bd does not tell who"
    assert fate(edit(field, "else"), settings=SETTINGS, **fields) == (Fate.unclear, why)


def test_the_last_one_who_made_the_change_counts() -> None:
    agent, ada = edit("status", "blocked", "agent"), edit("status", "blocked", "ada", "2026-04-18T22:34:00Z")
    assert fate(agent, ada, status="blocked")[0] is Fate.stopped
    assert fate(edit("status", "blocked", "agent", "2026-04-18T22:35:00Z"), ada, status="blocked")[0] is Fate.goes_on
    assert fate(edit("status", "blocked", "agent", ada.at), ada, status="blocked")[0] is Fate.unclear


def test_a_bead_as_it_was_claimed_goes_on_and_one_that_was_opened() -> None:
    assert fate() == (Fate.goes_on, "")
    assert fate(edit("status", "open"), status="open") == (Fate.goes_on, "")


def test_an_agent_that_closed_its_bead_has_some_time_to_end() -> None:
    own = edit("status", "closed", "agent")
    assert fate(own, status="closed", closed_at=NOW - LINGER + timedelta(seconds=1))[0] is Fate.goes_on
    words = "its agent closed the bead and did not end within 2m"
    assert fate(own, status="closed", closed_at=NOW - LINGER) == (Fate.stopped, words)


def test_a_claim_for_another_attempt_stops_the_first_job() -> None:
    later = {**OWN, "bdauto.attempt": "a2", "bdauto.job": "a2", "bdauto.claimed_at": "2026-04-18T22:33:00Z"}
    claim = edit("status", "in_progress", "beads-dispatcher")
    assert fate(claim, metadata=later) == (Fate.stopped, "beads-dispatcher gave the bead to another attempt, a2")
    assert fate(claim, metadata={**later, "bdauto.claimed_at": OWN["bdauto.claimed_at"]})[0] is Fate.goes_on


def test_a_deleted_bead_is_unclear() -> None:
    decision = decide(JOB, None, [], "agent", None, linger=LINGER, now=NOW)
    assert (decision.fate, decision.why) == (Fate.unclear, "the bead was deleted, and bd does not tell by whom")


def test_bd_s_own_records_are_read() -> None:
    rows: list[dict[str, Any]] = [
        {"event_type": "closed", "new_value": "done"},
        {"event_type": "status_changed", "new_value": '{"status":"deferred","notes":"x"}'},
        {"event_type": "updated", "new_value": '{"assignee":"bob"}'},
        {"event_type": "updated", "new_value": '{"assignee":null}'},
        {"event_type": "reopened", "new_value": ""},
        {"event_type": "label_removed", "comment": "Removed label: docs"},
        {"event_type": "updated", "new_value": "{{"},
        {"event_type": "created", "new_value": ""},
    ]
    found = read_events({"issue_id": "x-1", "actor": "ada", "created_at": "2026-04-18T22:33:00Z"} | one for one in rows)
    assert found == [
        edit("status", "closed"),
        edit("status", "deferred"),
        edit("assignee", "bob"),
        edit("assignee", ""),
        edit("status", "open"),
        edit("label", "-docs"),
    ]
    line = (
        b'{"kind":"field_change","created_at":"2026-04-18T22:33:00Z","actor":"ada","issue_id":"x-1",'
        b'"extra":{"field":"status","new_value":"closed"}}'
    )
    assert read_log([b"cut", line, b'{"kind":"llm_call"}', b"[]"]) == [edit("status", "closed")]
    assert author(read_log([line]), "x-1", "status", "closed") == "ada"


@pytest.mark.parametrize(
    ("heard", "noted", "silence", "ended"),
    [(31, 40, 30, True), (29, 40, 30, False), (40, 29, 30, False), (40, 40, None, False), (60, 60, 120, False)],
    ids=["silent", "printed", "noted", "no limit", "within a tool"],
)
def test_a_silent_job_is_ended_and_a_note_is_a_sign_of_life(
    heard: int, noted: int, silence: int | None, ended: bool
) -> None:
    limit = timedelta(minutes=silence) if silence else None
    running = RunningJob("x-1", "a1", NOW - timedelta(hours=1), NOW - timedelta(minutes=heard), limit)
    found = bead(status="in_progress", metadata=OWN, updated_at=NOW - timedelta(minutes=noted))
    decision = decide(running, found, [], "agent", None, linger=LINGER, now=NOW)
    assert decision.fate is (Fate.stopped if ended else Fate.goes_on)
    assert decision.why == ("silence: nothing was written for 30m" if ended else "")


def test_a_job_that_leaves_its_tool_is_looked_at_again_in_time() -> None:
    """Within a tool call it may be silent for two hours. Its agent may go on, and be silent then."""
    at_work = RunningJob("x-1", "a1", NOW, NOW - timedelta(minutes=20), timedelta(minutes=30), in_tool=True)
    own = bead(status="in_progress", metadata=OWN, updated_at=NOW - timedelta(minutes=20))
    decision = decide(at_work, own, [], "agent", None, linger=LINGER, now=NOW)
    assert (decision.fate, decision.due) == (Fate.goes_on, NOW + timedelta(minutes=30))
    late = decide(at_work, own, [], "agent", None, linger=LINGER, now=NOW + timedelta(minutes=100))
    assert (late.fate, late.why) == (Fate.stopped, "silence: nothing was written for 2h")


def test_a_job_with_a_check_is_not_looked_at_all_the_time() -> None:
    """Its agent has closed the bead, and the check takes its time."""
    checked = RunningJob("x-1", "a1", NOW - timedelta(hours=1), checked=True)
    done = bead(status="closed", metadata=OWN, updated_at=NOW - timedelta(minutes=20))
    decision = decide(checked, done, [edit("status", "closed", "agent")], "agent", None, linger=LINGER, now=NOW)
    assert (decision.fate, decision.due) == (Fate.goes_on, None)
