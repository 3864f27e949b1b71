"""Write the tables of docs/decisions.md by asking the code itself: `make docs`.

Each answer goes through a whole dispatch cycle on the fakes of the tests, and each piece of evidence through
`decide_reap`. Only the words of the first column are written by hand.
"""

import logging
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import TrackerGate
from bdauto.domain import reaping
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.domain.reaping import Action, FailedCheck, JobEvidence, ReapDecision
from bdauto.domain.record import Result
from bdauto.domain.results import JobEnd
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time
from bdauto.errors import BdautoError, BdError, PartlyDone, ServiceError, UsageError
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, bead, row

PAGE = Path(__file__).parents[1] / "docs" / "decisions.md"
BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """Return the text of docs/decisions.md with each table between its two marks written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n{block[3]}", text)


def _table(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|---" * columns + "|", *(f"| {' | '.join(cells)} |" for cells in rows), ""])


# What an answer to the POST means


class Case(msgspec.Struct, frozen=True):
    """Beads that are posted, and the answer to each POST. `attempts` and `error` are of earlier dispatches."""

    words: str
    reply: Callable[[], Reply]
    beads: int = 1
    attempts: int = 0
    age: timedelta = timedelta(hours=1)
    cycles: int = 1
    error: str = ""


def _http(status: int, **body: str) -> Callable[[], Reply]:
    return lambda: httpx.Response(status, json=body)


def _failing(error: Callable[[str], Exception]) -> Callable[[], Reply]:
    return lambda: error("")


NOT_FOUND = _http(400, error="Bead not found")
REFUSED = _http(400, error="no")
CASES = [
    Case("200 with a job id", _http(200, job_id="j-1")),
    Case("409", _http(409)),
    Case("400 with `not found`, for a bead created less than two minutes ago", NOT_FOUND, age=timedelta(seconds=119)),
    Case("400", REFUSED),
    Case("400, the `--max-attempts`th time", REFUSED, attempts=2),
    Case("400 for three beads in a row in one cycle", REFUSED, beads=3),
    *(Case(name, _http(int(name))) for name in ("302", "401", "403", "404", "429", "500")),
    Case("one of these, where the last dispatch of the bead failed, too", _http(500), error="HTTP 500"),
    *(Case(name, _http(int(name))) for name in ("502", "503", "507")),
    Case("no connection", _failing(httpx.ConnectError)),
    Case("502, 503 or no connection for three beads in a row in one cycle", _http(503), beads=3),
    Case("200 without a job id", _http(200)),
    *(Case(name, _http(int(name))) for name in ("202", "504")),
    Case("a time-out or a broken connection after sending", _failing(httpx.ReadTimeout)),
    Case("any of the last four for three beads in a row, in any cycles", _http(504), cycles=3),
]


def _cycles(case: Case, count: int, later: Reply | None = None) -> tuple[Tracker, Board, list[Report]]:
    """Run the cycles of a case on `count` beads. After its own replies comes the later one."""
    clock, since = Clock(), NOW - case.age
    own = {"bdauto.attempts": case.attempts, "bdauto.error": case.error}
    beads = [row(f"x-{n}", created_at=since, updated_at=since, metadata=own) for n in range(1, count + 1)]
    board = Board([*(case.reply() for _ in range(case.beads * case.cycles)), *([later] if later else [])])
    tracker, reports = Tracker(clock, *beads), []
    for _ in range(case.cycles):
        settings = DispatchSettings(max_beads=1 if case.cycles > 1 else count)
        runtime = clock.runtime(len(board.posts))
        gate = TrackerGate(tracker, clock.now)
        reports.append(Dispatcher(tracker, tracker, board.services(), settings, runtime, gate).cycle())
    return tracker, board, reports


def _answer(case: Case) -> list[str]:
    count = case.beads * case.cycles
    tracker, _, reports = _cycles(case, count)
    found = tracker.bead("x-1")
    _, board, others = _cycles(case, count + 1, httpx.Response(200, json={"job_id": "j-9"}))
    goes_on = case.cycles == 1 and len(board.posts) > count
    status = str(reports[-1].exit_code)
    if goes_on and others[-1].exit_code != reports[-1].exit_code:
        status += f"; {others[-1].exit_code} where another bead was dispatched"
    return [
        case.words,
        f"`{reports[-1].beads[0].outcome}`",
        found.status.replace("_", " ") + (", with a backoff" if found.record.retry_at else ""),
        "charged" if found.record.attempts > case.attempts else "not charged",
        "goes on" if goes_on else "stops",
        status,
    ]


def answers() -> str:
    """Return the table of answers to the POST, with those that come to the same in one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for case in CASES:
        words, *rest = _answer(case)
        plain = case.beads == case.cycles == 1 and not case.attempts and not case.error
        rows.setdefault((*rest, "" if plain else words), []).append(words)
    head = "| answer | outcome | bead | attempt | the cycle | exit |"
    return _table(head, ([", ".join(words), *key[:-1]] for key, words in rows.items()))


# What the reaper believes

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
    fields: dict[str, Any] = {}

    def decide(self, age: timedelta, attempts: int = 1) -> ReapDecision:
        """Return what the reaper decides when the bead was updated so long ago."""
        end = JobEnd(result=Result.failed, ended_at=NOW, seconds=9) if self.at_once else None
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


class Checked(Evidence, frozen=True):
    """A bead that is closed, and whose check failed."""

    def decide(self, age: timedelta, attempts: int = 1) -> ReapDecision:
        """Return what the reaper decides when the agent closed it so long ago."""
        closed = msgspec.structs.replace(self._bead(age, attempts), status="closed", closed_at=NOW - age)
        found = reaping.decide_check(closed, FailedCheck("x-1", "a1", NOW, "no"), ReapSettings())
        assert found
        return found


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
    *_each("`failed`, `error` or `completed`; no note since the claim", OVER, notes="silent"),
    Evidence(
        "`failed` or `error` within a minute of its start, without a cost; the agent has only signed",
        "failed",
        "signed",
        at_once=True,
    ),
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
    Checked("closed, and the check of the job that closed it failed (`--agent-check`)"),
]


def _decision(decision: ReapDecision) -> str:
    if decision.action is Action.keep:
        return "kept"
    if decision.action is Action.block:
        return "blocked"
    charge = "early death" if decision.early_death else "charged" if decision.charged else "uncharged"
    return f"open, {charge}"


def evidence() -> str:
    """Return the table of evidence: what the reaper decides at each age, and what at the last attempt."""
    rows: dict[str, list[str]] = {}
    last = max(AGES.values())
    for case in EVIDENCE:
        decisions = [case.decide(age) for age in AGES.values()]
        cells = [*map(_decision, decisions), _decision(case.decide(last, ReapSettings().max_attempts))]
        assert rows.setdefault(case.words, cells) == cells, f"{case.words}: {case.state} {rows[case.words]} {cells}"
    head = f"| the job | {' | '.join(AGES)} | last attempt, 24 h 1 min |"
    return _table(head, ([words, *cells] for words, cells in rows.items()))


# Outcomes and exit statuses

OUTCOMES = {
    BeadOutcome.dispatched: ("a job runs", "in progress, with its job"),
    BeadOutcome.lost: ("somebody else changed it first", "theirs"),
    BeadOutcome.busy: ("the agent is at capacity", "open"),
    BeadOutcome.adopted: (
        "a job that bdauto did not start runs on it; nothing was posted",
        "in progress, with that job",
    ),
    BeadOutcome.reverted: (
        "bd or a person undid the claim, and its job runs; nothing was posted",
        "in progress, with its job",
    ),
    BeadOutcome.not_visible: ("BeadBoard does not know it yet", "open, tried again after a minute"),
    BeadOutcome.refused: ("BeadBoard does not take it as it is", "open, with a backoff"),
    BeadOutcome.quarantined: ("refused for the `--max-attempts`th time", "blocked, with a note"),
    BeadOutcome.unavailable: (
        "the service failed before it took it, or it could not be started on this machine",
        "open",
    ),
    BeadOutcome.misconfigured: ("BeadBoard would answer this to any bead", "open"),
    BeadOutcome.unknown: ("a job may run: no answer, or none that is understood", "in progress"),
    BeadOutcome.failed: ("bd failed", "as bd left it"),
    BeadOutcome.kept: (
        "in `dispatch`: a job that it names may run. In `reap`: there is no reason to settle it",
        "as it was",
    ),
    BeadOutcome.released: (
        "in `dispatch`: its claim took too long, or a pause came. In `reap`: a claim without a job, an early death, "
        "or the end of a job that bdauto did not start",
        "open",
    ),
    BeadOutcome.requeued: ("stalled with `--on-stall requeue`, or its check failed", "open, with a backoff"),
    BeadOutcome.blocked: ("over or stalled, or its last attempt failed", "blocked, with a note"),
}


def outcomes() -> str:
    """Return the table of what can become of a bead."""
    rows = ([f"`{o}`", logging.getLevelName(o.level).lower(), *OUTCOMES[o]] for o in BeadOutcome)
    return _table("| outcome | log level | meaning | the bead is |", rows)


LOOK_AT: dict[type[BdautoError], str] = {
    UsageError: "the message: it names the option, the variable or the file",
    BdError: "`bdauto doctor`",
    ServiceError: "`bdauto doctor`, and the logs of the services",
    PartlyDone: "the message: it names the beads",
}


def _document(error: type[BdautoError]) -> str:
    return (error.__doc__ or "").split("\n")[0].removesuffix(".")


def exit_statuses() -> str:
    """Return the table of exit statuses: a row for each kind of error."""
    done = "Done, or nothing to do: idle, busy, paused, suspended or limited. A bead that was lost to somebody else, "
    done += "quarantined, settled by the reaper, or given back without a POST is no error"
    rows = [["0", done, "`bdauto status --check` exits 5 for what needs a person"]]
    rows += [["1", "A defect in bdauto", "the report that it prints"]]
    rows += sorted([str(kind.exit_code), _document(kind), words] for kind, words in LOOK_AT.items())
    rows += [["130", "Interrupted before anything was changed, or by a second signal", ""]]
    return _table("| status | meaning | look at |", rows)


TABLES: dict[str, Callable[[], str]] = {
    "answers": answers,
    "evidence": evidence,
    "outcomes": outcomes,
    "exit-statuses": exit_statuses,
}

if __name__ == "__main__":
    logging.disable()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
