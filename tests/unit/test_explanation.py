"""What `explain` shows of one bead, exactly, at 80 columns; and the remedies it gives."""

import re
import shlex
from dataclasses import replace
from datetime import timedelta
from textwrap import dedent
from typing import Any

import pytest

from bdauto.agents.beadboard.runner import board_part
from bdauto.agents.runner_status import Capacity, RunnerStatus
from bdauto.agents.service_runner import service_part
from bdauto.cli import tables
from bdauto.common.errors import BdFailed, ServiceDown
from bdauto.diagnostics.explanation import Explanation, as_json, explanation, story
from bdauto.diagnostics.snapshot import weigh
from bdauto.domain.bead import Dependency
from bdauto.domain.eligibility import open_blockers, verdict
from bdauto.domain.pause import Pause
from bdauto.domain.reaping import JobEvidence
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.sandbox import Sandbox
from tests.support.fakes import NOW, bead, two_services
from tests.support.sandbox_bd import InProcess
from tests.unit.test_snapshot import HOSTILE, drawn

UP = two_services(agent=service_part(Capacity(3, True, 1, 0, 4)))


def explained(
    place: int | None = None,
    ready: bool = True,
    rule: Any = None,
    state: str = "running",
    shown: Any = (),
    **fields: Any,
) -> Explanation:
    found = bead("bd-a1", **fields)
    running = (
        weigh(found, JobEvidence({found.id: state}), ReapSettings(), NOW) if found.status == "in_progress" else None
    )
    judged = verdict(found, ready, "agent", rule or DispatchSettings(), NOW)
    return Explanation(NOW, judged, UP, place, 7, running, 3, **dict(shown))


def test_a_waiting_bead_at_80_columns() -> None:
    rule = DispatchSettings(trusted_creators=("ann",), labels=("agent-ok",), exclude_labels=("secret",))
    found = explained(
        ready=False,
        rule=rule,
        title="Export all reports of the last year as CSV, and let people choose the columns first",
        acceptance_criteria="",
        created_by="mallory o'hara",
        labels=["secret"],
        dependencies=[
            Dependency(depends_on_id="bd-b2", type="blocks", status="in_progress"),
            Dependency(depends_on_id="bd-c3", type="blocks", status="closed"),
            Dependency(depends_on_id="bd-d4", type="related", status="open"),
        ],
        metadata={
            "bdauto.attempts": 2,
            "bdauto.failures": 2,
            "bdauto.retry_at": "2026-04-18T22:40:00Z",
            "bdauto.error": "HTTP 502: Agent service is unreachable.",
        },
        notes="claimed by agent 9c1d2e3f4a5b\ndispatch failed HTTP 502: Agent service is unreachable.",
    )
    busy = replace(two_services(agent=service_part(Capacity(0, True, 4, 0, 4))), paused=Pause("deploy", "ann"))
    assert drawn(tables.explain_view(replace(found, services=busy))) == dedent(
        """\
        bd-a1  Export all reports of the last year as CSV, and let people choose the
        columns first
        waiting: no acceptance criteria
        your turn: bd update bd-a1 --acceptance '…'

        Conditions
        ok  status         status is open
        ok  assignee       assigned to agent
        no  acceptance     no acceptance criteria
                           → bd update bd-a1 --acceptance '…'
        ok  type           type task
        ok  kind           an ordinary bead
        ok  deferred       not deferred
        no  backoff        backing off until 22:40:00Z: attempt 2 of 3 failed: HTTP 502:
                           Agent service is unreachable.
                           → bd update bd-a1 --unset-metadata bdauto.retry_at
        no  trust          created by mallory o'hara, who is not trusted
                           → bdauto dispatch --trusted-creator 'mallory o'"'"'hara'
        no  label          lacks label agent-ok
                           → bd update bd-a1 --add-label agent-ok
        no  exclude-label  has the excluded label secret
                           → bd update bd-a1 --remove-label secret
        no  ready          blocked by bd-b2
                           → bdauto explain bd-b2, or if it is done: bd close bd-b2
        no  pause          paused by ann: deploy
                           → bdauto resume
        no  capacity       the agent is at capacity
                           → bdauto status --watch

        So far
        attempts           2 of 3
        failures in a row  2
        not before         2026-04-18T22:40:00Z
        last error         HTTP 502: Agent service is unreachable.

        Notes
        claimed by agent 9c1d2e3f4a5b
        dispatch failed HTTP 502: Agent service is unreachable.
        """
    )


def test_the_next_bead_at_80_columns() -> None:
    assert drawn(tables.explain_view(explained(place=1, title="Login fails"))) == dedent(
        """\
        bd-a1  Login fails
        next
        bdauto's turn: place 1 of 7 eligible

        Conditions
        ok  status      status is open
        ok  assignee    assigned to agent
        ok  acceptance  has acceptance criteria
        ok  type        type task
        ok  kind        an ordinary bead
        ok  deferred    not deferred
        ok  backoff     not backing off
        ok  ready       bd calls it ready
        ok  pause       not paused
        ok  capacity    room for 3
        """
    )


def test_a_bead_in_progress_at_80_columns() -> None:
    found = explained(
        ready=False,
        status="in_progress",
        updated_at=NOW - timedelta(minutes=4),
        metadata={"bdauto.attempt": "a", "bdauto.attempts": 1, "bdauto.job": "9c1d2e3f4a5b"},
    )
    assert drawn(tables.explain_view(found)) == dedent(
        """\
        bd-a1  title of bd-a1
        in progress: kept: job 9c1d2e3f4a5b is running; 4m since the last update
        the agent's turn

        So far
        attempts  1 of 3
        job       9c1d2e3f4a5b
        job is    running
        """
    )


@pytest.mark.parametrize(
    ("fields", "headline"),
    [
        ({"place": 1}, "next"),
        ({"place": 3}, "3rd"),
        ({"acceptance_criteria": ""}, "waiting: no acceptance criteria"),
        ({"status": "deferred"}, "waiting: status is deferred"),
        ({"status": "closed"}, "closed"),
        (
            {"status": "closed", "closed_at": NOW - timedelta(minutes=4), "close_reason": "it works"},
            "closed 4m ago: it works",
        ),
        ({"status": "blocked"}, "blocked, not by bdauto: no note says why"),
        ({"status": "blocked", "notes": "which vault is it?"}, "blocked, not by bdauto: which vault is it?"),
        (
            {"status": "blocked", "metadata": {"bdauto.quarantined": "HTTP 400: no"}},
            "quarantined by bdauto: HTTP 400: no",
        ),
        ({"assignee": "bob"}, "waiting: assigned to bob"),
    ],
)
def test_headline(fields: dict[str, Any], headline: str) -> None:
    assert explained(**fields).headline == headline


ASKED = bead("bd-q1", title="Which colour?", labels=["human"])


@pytest.mark.parametrize(
    ("fields", "turn"),
    [
        ({"place": 1}, "bdauto's turn: place 1 of 7 eligible"),
        ({"place": 3, "shown": {"ahead": "bd-b2"}}, "bdauto's turn: place 3 of 7 eligible, after bd-b2"),
        ({"metadata": {"bdauto.retry_at": "2026-04-18T22:40:00Z"}}, "bdauto's turn, not before 2026-04-18 22:40:00Z"),
        ({"acceptance_criteria": ""}, "your turn: bd update bd-a1 --acceptance '…'"),
        ({"assignee": "bob"}, "your turn: bd update bd-a1 -a agent"),
        ({"status": "blocked"}, "your turn: bd update bd-a1 -s open"),
        ({"status": "closed"}, ""),
        ({"status": "in_progress"}, "the agent's turn"),
        (
            {"status": "in_progress", "state": "failed", "metadata": {"bdauto.attempt": "a", "bdauto.job": "j1"}},
            "bdauto's turn: the next sweep settles it",
        ),
        (
            {"ready": False, "dependencies": [Dependency(depends_on_id="bd-b2", type="blocks", status="open")]},
            "the turn of bd-b2",
        ),
        ({"ready": False, "shown": {"question": ASKED}}, 'your turn: bd close bd-q1 --reason "the answer"'),
    ],
)
def test_whose_turn_it_is(fields: dict[str, Any], turn: str) -> None:
    found = explained(**fields)
    assert found.turn == turn
    assert as_json(found)["turn"] == (turn or None)
    assert turn in drawn(tables.explain_view(found), 200)


@pytest.mark.parametrize(
    ("until", "turn"), [(None, "your turn: bdauto resume"), (NOW, "bdauto's turn: place 1 of 7 eligible")]
)
def test_a_pause_without_an_end_is_yours(until: Any, turn: str) -> None:
    services = replace(two_services(), paused=Pause("lunch", "ann", until=until))
    assert replace(explained(place=1), services=services).turn == turn


def test_an_agent_that_asks_says_what() -> None:
    assert explained(ready=False, shown={"question": ASKED}).headline == "its agent asks bd-q1: Which colour?"


@pytest.mark.parametrize(
    ("services", "why"),
    [
        (replace(UP, paused=Pause("lunch", "ann")), "paused by ann: lunch"),
        (two_services(board_part(busy=True)), "the agent is at capacity"),
        (two_services(board_part(error=ServiceDown("refused"))), "refused"),
        (two_services(agent=service_part(error=ServiceDown("late"))), "late"),
        (RunnerStatus(), "nothing runs the agent; `bdauto doctor` names the options"),
    ],
)
def test_an_eligible_bead_is_held_by_what_all_beads_share(services: RunnerStatus, why: str) -> None:
    found = replace(explained(place=1), services=services)
    assert found.headline == f"next, but nothing is dispatched now: {why}"
    assert [c.detail for c in found.conditions if not c.passed] == [why]


def test_only_dependencies_that_block_and_are_open_are_blockers() -> None:
    types = ("blocks", "conditional-blocks", "waits-for", "related", "parent-child", "discovered-from")
    dependencies = [
        Dependency(depends_on_id=f"bd-{kind}-{status}", type=kind, status=status)
        for kind in types
        for status in ("open", "in_progress", "closed", "pinned")
    ]
    assert open_blockers(bead("bd-a1", dependencies=dependencies)) == tuple(
        f"bd-{kind}-{status}" for kind in types[:3] for status in ("open", "in_progress")
    )
    assert open_blockers(bead("bd-a1", dependencies=[Dependency(depends_on_id="bd-x", type="blocks")])) == ()


def test_a_parent_that_waits_is_named() -> None:
    found = explained(ready=False, dependencies=[Dependency(depends_on_id="bd-p", type="parent-child", status="open")])
    assert found.headline == "waiting: held up by its parent bd-p"
    assert found.conditions[-3].fix == "bdauto explain bd-p"


@pytest.mark.parametrize("text", [*HOSTILE, "x'; rm -rf ~; echo '", "$(id) `id`", "--force"])
def test_a_remedy_is_one_word_where_it_quotes_the_bead(text: str) -> None:
    rule = DispatchSettings(trusted_creators=("ann",))
    found = explained(rule=rule, created_by=text)
    [fix] = [condition.fix for condition in found.conditions if condition.name == "trust"]
    assert len(shlex.split(fix)) == 4
    assert fix.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_made_harmless(text: str) -> None:
    metadata = {f"bdauto.{key}": text for key in ("error", "job", "blocked")}
    found = explained(title=text, notes=f"{text}\n" * 50, assignee=text, metadata=metadata, issue_type=text)
    shown = drawn(tables.explain_view(found))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert "Notes (the last 20 of " in shown or not text.strip("\x00\x08\x7f").strip()


def test_story_and_json() -> None:
    metadata = {"bdauto.attempts": 1, "bdauto.claimed_at": "2026-04-18T22:00:00Z", "bdauto.job": "j1"}
    found = explained(status="in_progress", metadata=metadata, notes="one\ntwo")
    assert story(found) == [("attempts", "1 of 3"), ("job", "j1"), ("claimed at", "2026-04-18T22:00:00Z")]
    shown = as_json(found)
    assert (shown["job"], shown["job_state"], shown["attempts"]) == ("j1", "running", 1)
    assert shown["notes"] == ["one", "two"]
    assert shown["conditions"] == [], "none matters while its job runs"


def test_a_bead_whose_job_is_over_names_the_reaper_and_no_other_condition() -> None:
    found = explained(status="in_progress", metadata={"bdauto.attempt": "a", "bdauto.job": "j1"}, state="failed")
    [one] = as_json(found)["conditions"]
    assert (one["name"], one["passed"], one["fix"]) == ("status", False, "bdauto reap")
    assert one["detail"].startswith("over: ")


def test_an_unknown_id_is_an_error_of_bd() -> None:
    with Sandbox() as sandbox, pytest.raises(BdFailed, match=r"^no bead sb-nope in this database"):
        explanation(InProcess(sandbox), None, "sb-nope", DispatchSettings(), ReapSettings(), NOW)


def test_an_open_breaker_is_a_failed_condition_and_stands_in_the_headline() -> None:
    services = replace(
        UP, suspended="suspended until 2026-04-18T22:40:46Z: the agents of 3 beads died at once: bad key"
    )
    first = services.conditions()[0]
    assert (first.name, first.passed, first.fix) == ("breaker", False, "bdauto resume")
    assert services.as_json()["suspended"] == services.suspended
    assert [condition.name for condition in UP.conditions()] == ["pause", "capacity"]


def test_a_closed_bead_says_what_came_of_it_and_no_conditions() -> None:
    found = explained(status="closed", close_reason="Haiku written")
    assert found.headline == "closed: Haiku written"
    assert found.conditions == ()
    assert as_json(found)["conditions"] == []


def test_a_re_armed_bead_is_not_quarantined_any_more() -> None:
    metadata = {"bdauto.quarantined": "HTTP 400: no", "bdauto.attempts": 3, "bdauto.job": "j-1"}
    assert ("quarantined", "HTTP 400: no") in story(explained(status="blocked", metadata=metadata))
    assert ("attempts", "3 of 3") in story(explained(status="blocked", metadata=metadata))
    assert story(explained(metadata=metadata)) == [("job", "j-1")]
