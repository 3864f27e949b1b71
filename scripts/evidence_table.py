"""The table of evidence in docs/decisions.md: what the reaper's rules decide about each bead, at each age.

Only the words of the first column are written by hand.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from bdauto.domain import reaping
from bdauto.domain.agent_end import OF_SERVICE, Why
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import Action, JobEvidence, ReapDecision
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import ReapSettings
from bdauto.domain.times import format_time
from scripts.markdown import table
from tests.support.fakes import NOW, bead

AGES = {
    "1 minute": timedelta(minutes=1),
    "11 minutes": timedelta(minutes=11),
    "31 minutes": timedelta(minutes=31),
    "2 h 1 min": timedelta(hours=2, minutes=1),
    "24 h 1 min": timedelta(hours=24, minutes=1),
}
NOTES = {"silent": "", "signed": "\nclaimed by agent j-1", "noted": "\nclaimed by agent j-1\nhalf done"}
LOCAL = {"jobs_folder": "f" * 16, "host": "ci"}
BEFORE_END = LOCAL | {"ends_by": format_time(NOW)}


class Evidence(msgspec.Struct, frozen=True):
    """A bead in progress and what is known of its job. `own` overrides what bdauto has written on the bead."""

    words: str
    state: str = ""
    notes: str = "noted"
    own: dict[str, Any] = {}
    runs_nothing: bool = False
    at_once: bool = False
    why: Why | None = None
    checked: bool = False
    fields: dict[str, Any] = {}

    def decide(self, age: timedelta, attempts: int = 1) -> ReapDecision:
        """Return what the reaper decides when the bead was updated so long ago."""
        result = Result.completed if self.checked else Result.failed
        told = Run(result=result, ended_at=NOW, seconds=9, why=self.why, checked=self.checked)
        end = told if self.at_once else None
        evidence = JobEvidence(
            {"x-1": self.state} if self.state else {}, self.runs_nothing, {"x-1": end} if end else {}
        )
        return reaping.decide_reap(self._bead(age, attempts), evidence, ReapSettings(), NOW)

    def _bead(self, age: timedelta, attempts: int) -> Bead:
        claimed = format_time(NOW - age)
        own = {"attempt": "a1", "attempts": attempts, "claimed_at": claimed, "job": "j-1"} | self.own
        metadata = {f"bdauto.{key}": value for key, value in own.items() if value}
        notes = f"auto-dispatcher claimed at {claimed}{NOTES[self.notes]}"
        fields: dict[str, Any] = {
            "status": "in_progress",
            "updated_at": NOW - age,
            "notes": notes,
            "metadata": metadata,
        }
        return bead(**(fields | self.fields))


def _each(words: str, states: Iterable[str], **more: Any) -> list[Evidence]:
    """Return evidence of several states, of which the words are the same."""
    return [Evidence(words, state, **more) for state in states]


NO_JOB = {"job": ""}
UNKNOWN = {"job": "", "error": "dispatch outcome unknown: HTTP 504"}
ADOPTED = {"adopted": "a1"}
UNKNOWN_THERE = "not known to the agent service, or there is no agent service"
NO_TRACE = "no job recorded, no note since the claim"
AFTER_END = "an agent command elsewhere, after its latest end"
OVER, OTHER = ("failed", "error", "completed"), ("timeout", "a new word")
EVIDENCE: list[Evidence] = [
    *_each("`queued` or `running`; the agent has noted something", ("queued", "running")),
    *_each("`queued` or `running`; no note since the claim", ("queued", "running"), notes="silent"),
    Evidence("runs on this machine, with or without a note", "running", "silent", LOCAL),
    Evidence("runs on this machine, with or without a note", "running", "noted", LOCAL),
    *(
        Evidence(
            "its agent's service failed (usage limit, key, overload, network)",
            "failed",
            at_once=True,
            notes=notes,
            why=why,
        )
        for why in Why
        if why in OF_SERVICE
        for notes in NOTES
    ),
    *_each("`failed`, `error` or `completed`; no note since the claim", OVER, notes="silent"),
    Evidence(
        "`failed` or `error` within a minute of its start, without a cost; the agent has only signed",
        "failed",
        "signed",
        at_once=True,
    ),
    Evidence("`completed`, and all its checks have passed (`--agent-check`)", "completed", at_once=True, checked=True),
    Evidence("`completed`, and its check failed", "completed", at_once=True, why=Why.check),
    Evidence(
        "`completed`, and its check failed for the last time",
        "completed",
        at_once=True,
        why=Why.check,
        own={"failed_checks": 2},
    ),
    Evidence("`completed`, and its landing failed or was cut off", "completed", at_once=True, why=Why.land),
    *_each("`failed`, `error` or `completed`; the agent has noted something", OVER),
    Evidence("`unprepared`: git could not make its worktree", reaping.UNPREPARED, "silent", LOCAL),
    *_each("`timeout`, or a state that bdauto does not know", OTHER),
    *_each("`timeout`, or a state that bdauto does not know", OTHER, notes="silent"),
    *_each(f"{UNKNOWN_THERE}; the agent has noted something", ("", reaping.FORGOTTEN)),
    *_each(f"{UNKNOWN_THERE}; no note since the claim", ("", reaping.FORGOTTEN), notes="silent"),
    Evidence("no answer about the job; the agent has noted something", reaping.NO_ANSWER),
    Evidence("no answer about the job; no note since the claim", reaping.NO_ANSWER, "silent"),
    *(Evidence("no time to ask about the job", reaping.NOT_ASKED, notes) for notes in ("noted", "silent")),
    *(Evidence("the agent service refuses the token", reaping.TOKEN_REFUSED, notes) for notes in ("noted", "silent")),
    *(
        Evidence("an agent command elsewhere, before its latest end", reaping.ELSEWHERE, notes, BEFORE_END | job)
        for notes in ("noted", "silent")
        for job in ({}, NO_JOB)
    ),
    Evidence(f"{AFTER_END}; the agent has noted something", reaping.ELSEWHERE, "noted", LOCAL),
    Evidence(f"{AFTER_END}; no note since the claim", reaping.ELSEWHERE, "silent", LOCAL),
    Evidence(f"{NO_TRACE}; the agent service runs nothing", "", "silent", NO_JOB, runs_nothing=True),
    Evidence(
        f"{NO_TRACE}; the jobs folder on this machine has no job of it", reaping.NOT_STARTED, "silent", NO_JOB | LOCAL
    ),
    Evidence(f"{NO_TRACE}; otherwise", "", "silent", NO_JOB),
    Evidence("no job recorded; the outcome of the POST is unknown, and no note since the claim", "", "silent", UNKNOWN),
    *(Evidence("no job recorded; the agent has noted something", "", "noted", own) for own in (NO_JOB, UNKNOWN)),
    *_each("adopted; its job is over, with or without a note", OVER, own=ADOPTED),
    *_each("adopted; its job is over, with or without a note", OVER, own=ADOPTED, notes="silent"),
    *_each("adopted; its job is `queued` or `running`", ("queued", "running"), own=ADOPTED),
    Evidence(
        "set to in progress by hand: no claim of bdauto",
        own={"attempt": "", "attempts": 0, "claimed_at": "", "job": ""},
    ),
    Evidence("ephemeral", "failed", fields={"ephemeral": True}),
]


def _decision(decision: ReapDecision) -> str:
    """Return the outcome, and for a bead that is opened again whether the attempt is charged."""
    if decision.action in (Action.keep, Action.block, Action.close):
        return decision.action.value
    charge = "early death" if decision.early_death else "charged" if decision.charged else "uncharged"
    return f"{decision.action.value}, {charge}"


def evidence() -> str:
    """Return the table of evidence: what the reaper decides at each age, and what at the last attempt."""
    rows: dict[str, list[str]] = {}
    last = max(AGES.values())
    for case in EVIDENCE:
        decisions = [case.decide(age) for age in AGES.values()]
        cells = [*map(_decision, decisions), _decision(case.decide(last, ReapSettings().max_attempts))]
        assert rows.setdefault(case.words, cells) == cells, f"{case.words}: {case.state} {rows[case.words]} {cells}"
    head = f"| the job | {' | '.join(AGES)} | last attempt, 24 h 1 min |"
    return table(head, ([words, *cells] for words, cells in rows.items()))
