"""What the prompt of a further attempt says about the earlier ones: how each ended, and what was written since.

It is text of agents and people, so it is bounded, cleaned and quoted line by line.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta

from bdauto.common.sanitize import without_secrets
from bdauto.domain.bead import CLAIM_LINE, Bead
from bdauto.domain.notes import AGENT_SIGN, FINISH_NOTE, JOB_NOTE
from bdauto.domain.record import Result, Run
from bdauto.domain.results import detail
from bdauto.domain.times import format_time
from bdauto.domain.values import format_duration

MOST_RUNS = 5
"""Earlier runs that are described, the last ones."""
MOST_LINES = 40
"""Lines of notes that are quoted, the last ones."""
LINE_LIMIT = 500
"""Characters of a quoted line."""
_OWN = re.compile(rf"{CLAIM_LINE}|(?:{JOB_NOTE}|{FINISH_NOTE}|{AGENT_SIGN} |reaper: |dispatch failed).*")
"""Matches lines that bdauto writes, and an agent's signature. They say nothing that is not said of the runs."""


def describe_earlier(bead: Bead, checks: Mapping[str, str], branch: str = "") -> str:
    """Return the paragraphs about the bead's earlier attempts, "" if there were none.

    `checks` has the last lines of the failed check of each job, by its id. `branch` says where the work stands.
    """
    runs = bead.record.runs
    if not runs:
        return ""
    lines = [f"This is attempt {len(runs) + 1} on this bead. How the earlier ones ended:", ""]
    first = max(len(runs) - MOST_RUNS, 0)
    for number, run in enumerate(runs[first:], first + 1):
        lines += _run(number, run, checks.get(run.job or run.attempt, ""))
    if noted := _noted(bead):
        lines += ["", "What was written on the bead, the newest last:", "", *noted]
    if bead.answers:
        lines += ["", bead.answers]
    if branch:
        lines += ["", branch]
    return "\n".join([*lines, "", "(The earlier attempts end here. Go on from what they have done.)"])


def describe_last(bead: Bead, check: str) -> str:
    """Return the paragraphs for an agent that goes on in the session of the bead's last run, which it remembers.

    `check` has the last lines of that run's check if it failed.
    """
    last, number = bead.record.runs[-1], len(bead.record.runs)
    lines = [f"This is attempt {number + 1} on this bead. How the last one ended:", "", *_run(number, last, check)]
    if noted := _noted(bead, after=f"{JOB_NOTE}{last.job}"):
        lines += ["", "What was written on the bead since that one began, the newest last:", "", *noted]
    return "\n".join([*lines, *(["", bead.answers] if bead.answers else [])])


def _run(number: int, run: Run, check: str) -> Iterator[str]:
    result = run.result or Result.lost
    why = f" ({run.why})" if run.why and run.why not in ("ok", result) else ""
    took = f" after {format_duration(timedelta(seconds=run.seconds))}" if run.seconds is not None else ""
    at = f" at {format_time(run.ended_at)}" if run.ended_at else ""
    yield f"{number}. {result}{why}{took}{at}."
    if words := detail(run):
        yield f"   {'Why' if result is Result.stopped else 'Its last words'}: {_quoted(words)}"
    if check:
        yield f"   Its check failed: {_quoted(check)}"


def _noted(bead: Bead, after: str = "") -> list[str]:
    """Return the lines of the notes that bdauto has not written, quoted: those after this line, if there is one."""
    found = [line.strip() for line in bead.notes.splitlines()]
    since = found[found.index(after) + 1 :] if after in found else found
    lines = [line for line in since if line and not _OWN.fullmatch(line)]
    return [f"> {without_secrets(line, LINE_LIMIT)}" for line in lines[-MOST_LINES:]]


def _quoted(text: str) -> str:
    return f"“{without_secrets(text, LINE_LIMIT)}”"
