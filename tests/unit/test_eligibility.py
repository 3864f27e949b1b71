"""Verdicts, order, backoff and the words of evidence, as tables."""

import random
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from bdauto.domain.eligibility import backoff, dispatch_order, global_conditions, outranks, verdict, why_nothing_goes
from bdauto.domain.reaping import (
    FORGOTTEN,
    LONGEST_BELIEF,
    NO_ANSWER,
    NO_ANSWER_LIMIT,
    TOKEN_REFUSED,
    Action,
    JobEvidence,
    ReapDecision,
    decide_reap,
    too_many,
)
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.settings import Acceptance, DispatchSettings, OnStall, ReapSettings
from bdauto.domain.values import format_age
from tests.support.fakes import NOW, bead

CRASHED = Run(
    attempt="w2", result=Result.failed, ended_at=NOW - timedelta(minutes=1), seconds=4, words="boom", exit_code=3
)
WAITS: dict[str, Any] = {"retry_at": NOW + timedelta(minutes=1), "attempts": 2}
VERDICTS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("fit", {}, {}, ""),
    ("in progress", {"status": "in_progress"}, {}, "status is in_progress"),
    ("a status of tomorrow", {"status": "hooked"}, {}, "status is hooked"),
    ("another's", {"assignee": "ann"}, {}, "assigned to ann"),
    ("nobody's", {"assignee": ""}, {}, "assigned to nobody"),
    ("no criteria", {"acceptance_criteria": ""}, {}, "no acceptance criteria"),
    ("blank criteria", {"acceptance_criteria": " \n\t\u00a0"}, {}, "no acceptance criteria"),
    ("an epic", {"issue_type": "epic"}, {}, "type epic is excluded"),
    ("an epic when asked for", {"issue_type": "epic"}, {"exclude_types": ("bug",)}, ""),
    ("an excluded type", {"issue_type": "bug"}, {"exclude_types": ("bug",)}, "type bug is excluded"),
    ("a template", {"is_template": True}, {}, "is template"),
    ("ephemeral", {"ephemeral": True}, {}, "is ephemeral"),
    ("pinned", {"pinned": True}, {}, "is pinned"),
    ("deferred", {"defer_until": NOW + timedelta(days=1)}, {}, "deferred until 2026-04-19 22:35Z"),
    ("deferred until now", {"defer_until": NOW}, {}, ""),
    (
        "backing off",
        {"metadata": {"bdauto.retry_at": "2026-04-18T22:36:00Z", "bdauto.error": "HTTP 502"}},
        {},
        "backing off until 22:36:00Z: an uncharged attempt failed: HTTP 502",
    ),
    (
        "backing off after a crash",
        {"metadata": metadata_of(Record(**WAITS).with_runs((CRASHED,)))},
        {"max_attempts": 4},
        "backing off until 22:36:46Z: attempt 2 of 4 failed after 4s: exit status 3: boom",
    ),
    (
        "backing off after a claim that is not known to have run",
        {"metadata": metadata_of(Record(**WAITS).with_runs((replaced(CRASHED, ended_at=NOW - timedelta(days=1)),)))},
        {},
        "backing off until 22:36:46Z: attempt 2 of 3 failed",
    ),
    (
        "backing off after a job",
        {
            "metadata": {
                "bdauto.retry_at": "2026-04-18T22:36:00Z",
                "bdauto.runs": '[{"attempt":"w1","ended":"2026-04-18T22:34:00Z","result":"error","words":"no image"}]',
            }
        },
        {},
        "backing off until 22:36:00Z: an uncharged attempt could not be run: no image",
    ),
    ("backed off", {"metadata": {"bdauto.retry_at": "2026-04-18T22:35:46Z"}}, {}, ""),
    ("trusted", {"created_by": "ann"}, {"trusted_creators": ("ann", "bob")}, ""),
    ("not trusted", {"created_by": "eve"}, {"trusted_creators": ("ann",)}, "created by eve, who is not trusted"),
    ("of nobody", {}, {"trusted_creators": ("ann",)}, "created by nobody, who is not trusted"),
    ("labelled", {"labels": ["a", "b"]}, {"labels": ("a", "b")}, ""),
    ("a label short", {"labels": ["a"]}, {"labels": ("a", "b")}, "lacks label b"),
    ("without labels", {}, {"labels": ("a",)}, "lacks label a"),
    ("excluded by a label", {"labels": ["x"]}, {"exclude_labels": ("y", "x")}, "has the excluded label x"),
    ("not excluded", {"labels": ["z"]}, {"exclude_labels": ("y", "x")}, ""),
    ("criteria that are optional", {"acceptance_criteria": " "}, {"acceptance": Acceptance.optional}, ""),
]


@pytest.mark.parametrize(("fields", "settings", "reason"), [v[1:] for v in VERDICTS], ids=[v[0] for v in VERDICTS])
def test_verdicts(fields: dict[str, Any], settings: dict[str, Any], reason: str) -> None:
    judged = verdict(bead(**fields), True, "agent", DispatchSettings(**settings), NOW)
    assert (judged.eligible, judged.reason) == (not reason, reason)


@pytest.mark.parametrize(
    ("beads", "settings", "words"),
    [
        (
            [{"acceptance_criteria": ""}, {"acceptance_criteria": " "}],
            {},
            "none of the waiting beads (2) has acceptance",
        ),
        (
            [{"acceptance_criteria": "", "issue_type": "epic"}],
            {},
            "none of the waiting beads (1) has acceptance criteria",
        ),
        ([{"issue_type": "epic"}] * 3, {}, "each of the waiting beads (3) is excluded: --exclude-type"),
        ([{"created_by": "bob"}], {"trusted_creators": ("ann",)}, "--trusted-creator says who is"),
        ([{"labels": ["a"]}], {"labels": ("b",)}, "--label says which"),
        ([{"labels": ["a"]}], {"exclude_labels": ("a",)}, "--exclude-label says which"),
        ([{"acceptance_criteria": ""}, {"issue_type": "epic"}], {}, ""),
        ([{"acceptance_criteria": ""}, {}], {}, ""),
        ([{"acceptance_criteria": ""}], {}, "or give --acceptance optional"),
        ([{"acceptance_criteria": ""}], {"acceptance": Acceptance.optional}, ""),
        ([{"defer_until": NOW + timedelta(days=1)}], {}, ""),
        ([], {}, ""),
    ],
)
def test_why_nothing_goes(beads: list[dict[str, Any]], settings: dict[str, Any], words: str) -> None:
    queue = [verdict(bead(**fields), True, "agent", DispatchSettings(**settings), NOW) for fields in beads]
    found = why_nothing_goes(queue)
    assert words in found if words else found == ""


def test_a_bead_that_bd_does_not_call_ready_is_not_eligible() -> None:
    judged = verdict(bead(), False, "agent", DispatchSettings(), NOW)
    assert (judged.eligible, judged.reason) == (False, "bd does not call it ready")


@pytest.mark.parametrize(("fields", "settings"), [v[1:3] for v in VERDICTS], ids=[v[0] for v in VERDICTS])
def test_every_failed_condition_says_how_to_mend_it(fields: dict[str, Any], settings: dict[str, Any]) -> None:
    judged = verdict(bead(**fields), True, "agent", DispatchSettings(**settings), NOW)
    at_work = fields.get("status") == "in_progress"
    assert all(condition.fix for condition in judged.conditions if not condition.passed) != at_work


def test_order_is_priority_then_the_longest_wait_then_the_id() -> None:
    late, early = NOW, NOW - timedelta(hours=1)
    beads = [
        bead("d", priority=1, updated_at=late),
        bead("c", priority=0, updated_at=late),
        bead("b", priority=1, updated_at=early),
        bead("a", priority=1, updated_at=late),
    ]
    assert [one.id for one in sorted(beads, key=dispatch_order)] == ["c", "b", "a", "d"]


@given(st.integers(0, 100), st.integers())
def test_backoff_doubles_from_two_minutes_to_an_hour_with_at_least_half(failures: int, seed: int) -> None:
    whole = min(timedelta(minutes=2) * 2 ** (min(max(failures, 1), 9) - 1), timedelta(hours=1))
    assert whole / 2 <= backoff(failures, random.Random(seed)) <= whole


def test_backoff_is_jittered() -> None:
    rng = random.Random(1)
    assert len({backoff(3, rng) for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(seconds=119), "1m"),
        (timedelta(minutes=65, seconds=40), "1h5m"),
        (timedelta(hours=39), "1d15h"),
        (timedelta(days=30, minutes=50), "30d"),
    ],
)
def test_ages_have_two_units_rounded_down(age: timedelta, text: str) -> None:
    assert format_age(age) == text


@pytest.mark.parametrize(("aged", "limit", "counted"), [(10, 10, 0), (11, 10, 11), (11, 0, 0), (0, 10, 0)])
def test_the_mass_guard(aged: int, limit: int, counted: int) -> None:
    by_age = [ReapDecision(bead(), Action.block, "", by_age=True)] * aged
    known = [ReapDecision(bead(), Action.block, "")] * 50
    assert too_many([*by_age, *known], ReapSettings(max_reap=limit)) == counted


ages = st.timedeltas(timedelta(days=-1), timedelta(days=400))
states = st.sampled_from(
    [FORGOTTEN, NO_ANSWER, TOKEN_REFUSED, "queued", "running", "failed", "timeout", "error", "completed", "resting", ""]
)


@given(ages, states, st.booleans(), st.booleans(), st.integers(0, 5), st.sampled_from(OnStall), st.text(max_size=60))
def test_a_living_job_is_kept_a_dead_one_settled_and_a_young_bead_never_stalled(
    age: timedelta, state: str, claimed: bool, idle: bool, attempts: int, on_stall: OnStall, notes: str
) -> None:
    notes = f"claimed by agent j{notes}" if notes else ""  # a sign of life, or none
    own: dict[str, Any] = {"bdauto.attempt": "a", "bdauto.attempts": attempts} if claimed else {}
    own |= {"bdauto.job": "j"} if state else {}
    one = bead(status="in_progress", updated_at=NOW - age, notes=notes, metadata=own)
    settings = ReapSettings(on_stall=on_stall)
    decided = decide_reap(one, JobEvidence({one.id: state} if state else {}, idle), settings, NOW)
    if state in ("queued", "running") and claimed and not notes.strip() and age > LONGEST_BELIEF:
        assert decided.action is not Action.keep
        assert decided.gives_up
    elif state in ("queued", "running", TOKEN_REFUSED):
        assert decided.action is Action.keep
    elif state in ("failed", "error", "completed") and claimed and not notes.strip():
        assert decided.action is (Action.release if attempts < settings.max_attempts else Action.block)
    elif state in ("failed", "error", "completed"):
        requeued = on_stall is OnStall.requeue and attempts * claimed < settings.max_attempts
        assert decided.action is (Action.requeue if requeued else Action.block)
        assert not decided.by_age
    elif age <= settings.grace or (age <= settings.threshold and (state or not idle)):
        assert decided.action is Action.keep
    elif age > NO_ANSWER_LIMIT or (age > settings.threshold and state != NO_ANSWER):
        assert decided.action is not Action.keep
        assert decided.by_age
    assert bool(decided.note) == (decided.action is not Action.keep)


def test_rivals_are_unknown_beads_that_would_come_first() -> None:
    best = bead("b", priority=1)
    assert outranks([bead("a", priority=1)], set(), best)
    assert not outranks([bead("a", priority=1)], {"a"}, best)
    assert not outranks([bead("c", priority=1), best], set(), best)


def test_every_condition_is_documented_and_no_other() -> None:
    """`explain` shows the names, and docs/operating.md says what each means."""
    settings = DispatchSettings(trusted_creators=("ann",), labels=("a",), exclude_labels=("b",))
    conditions = (*verdict(bead(), True, "agent", settings, NOW).conditions, *global_conditions("", 1))
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
    table = page.split("| condition | passed when |\n|---|---|\n")[1].split("\n\n")[0]
    documented = {name for row in table.splitlines() for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert documented == {condition.name for condition in conditions}


def test_a_deferred_bead_says_until_when() -> None:
    found = verdict(
        bead("x-1", status="deferred", defer_until=NOW + timedelta(hours=6)), False, "agent", DispatchSettings(), NOW
    )
    assert found.reason == "status is deferred, until 2026-04-19 04:35Z"
