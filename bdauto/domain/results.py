"""How a job ended: its result, why, how long it ran, what it cost, and what it said last.

An implausible value counts as unknown, and an unknown value is None, never zero.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from signal import Signals

import msgspec
from msgspec import UNSET

from bdauto.common.sanitize import clean, clean_lines, hide_secrets, without_secrets
from bdauto.domain.agent_end import AgentEnd, Why
from bdauto.domain.notes import FINISH_NOTE
from bdauto.domain.record import WORDS_LIMIT, Result, Run
from bdauto.domain.record_values import checked_number
from bdauto.domain.times import format_time
from bdauto.domain.values import format_duration

LINE_LIMIT = 4000
"""Characters of such a line that are looked at."""
TEXT_LIMIT = 1 << 20
"""Characters of a text that are looked at, from its end."""
_WHY = {Result.timeout: Why.timeout, Result.stopped: Why.stopped, Result.lost: Why.lost, Result.error: Why.error}
"""Why a run ended, for results that tell it themselves. They count before what the agent said."""


def lost(ended_at: datetime) -> Run:
    """Return the end of a job that ended in a way that nobody knows."""
    return Run(result=Result.lost, ended_at=ended_at, why=Why.lost)


def told_end(
    result: Result,
    ended_at: datetime,
    said: AgentEnd,
    *,
    seconds: int | None = None,
    words: str = "",
    why: Why | None = None,
    exit_code: int | None = None,
) -> Run:
    """Return the end of a job from its state and from what its agent said.

    `seconds`, `words` and `why` come from whoever ran the job, and count before those of the agent. A job with exit
    status 0 has failed where its agent says so. `exit_code` is kept if the job failed with it.
    """
    kept = exit_code if result is Result.failed and exit_code and -64 <= exit_code <= 255 else UNSET
    if result is Result.completed and said.why not in (None, Why.ok, Why.denied):
        result = Result.failed
    told = why or _WHY.get(result) or said.why or Why.ok
    denied = f"was not allowed to use {', '.join(said.denied)}: " if told is Why.denied and said.denied else ""
    return Run(
        result=result,
        ended_at=ended_at,
        agent=said.agent,
        why=Why.error if told is Why.ok and result is Result.failed else told,
        seconds=said.seconds if seconds is None else seconds,
        cost_usd=said.cost_usd,
        tokens=said.tokens,
        turns=said.turns,
        session=said.sessions[-1] if said.sessions else None,
        words=words or clean(f"{denied}{said.words}", WORDS_LIMIT),
        reset_at=said.reset_at,
        exit_code=kept,
    )


def last_line(text: str) -> str:
    """Return the last line of a text that is not blank: cleaned, bounded, without what looks like a secret."""
    for line in reversed(text[-TEXT_LIMIT:].splitlines()):
        words = without_secrets(clean(line, LINE_LIMIT), WORDS_LIMIT)
        if words:
            return words
    return ""


_ERROR = re.compile(
    r"(?<!\b0 )(?<!\bno )\b(?:[\w.]*(?:error|exception)|fatal|panic(?:ked)?|abort(?:ed|ing)?|killed|cannot|can't"
    r"|could not|unable to|no such|not found|denied|refused|rejected|invalid|failed|failure)\b",
    re.IGNORECASE,
)
"""What lines have that say what went wrong: of compilers, tests, shells, and the last line of a stack trace."""
_STATUS = re.compile(r".*\b(?:exit|error|code|status)\b\D{0,20}\d{1,3}\W*", re.IGNORECASE)
"""Lines that say no more than that something has failed, such as `make: *** [all] Error 1`."""
_NO_WORDS = re.compile(
    r"\s.*|[\W\d_]*|[{}\],\"].*|\[(?!\w+\]).*|tokens used:?[\s\d.,]*|(?:note|hint|tip)\b.*"
    r"|traceback \(most recent.*|node\.js v.*|\W?\d+ errors?\b.*",
    re.IGNORECASE,
)
"""Lines that say nothing alone: of a stack trace or an excerpt (indented), pieces of JSON, hints, counts."""
LAST_LINES = 3
"""Lines that tell why a command failed, if none of them names an error."""


def error_words(lines: Sequence[str]) -> str:
    """Return why a command failed that printed these lines: those that name an error, and the last one.

    They are cleaned and joined by ` | `, the last ones that fit. "" if no line says more of an error than its number. A
    line that ends with a colon has its message on the next.
    """
    found = telling_lines(lines)
    named = [_ERROR.search(line) is not None and not _STATUS.fullmatch(line) for line in found]
    message = [False, *(one and line.endswith(":") for one, line in zip(named, found, strict=True))]
    errors = [line for line, one, after in zip(found, named, message, strict=False) if one or after]
    return _fitting([*errors, *found[-1:]]) if errors else ""


def last_words(lines: Sequence[str]) -> str:
    """Return why a command failed that printed these lines: its errors, else its last lines."""
    return error_words(lines) or _fitting(telling_lines(lines)[-LAST_LINES:])


def telling_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines that may say something, without what looks like a secret on one or several of them."""
    text = hide_secrets(clean_lines("\n".join(line[:LINE_LIMIT] for line in lines)))
    return [line.rstrip() for line in text.split("\n") if not _NO_WORDS.fullmatch(line)]


def _fitting(lines: Sequence[str]) -> str:
    """Join the last lines that fit, each once. Of one that is too long for all its beginning is kept."""
    kept = ""
    for line in reversed([*dict.fromkeys(without_secrets(line, WORDS_LIMIT) for line in lines)]):
        joined = f"{line} | {kept}" if kept else line
        if len(joined) > WORDS_LIMIT:
            break
        kept = joined
    return kept


def whole_seconds(duration: timedelta) -> int | None:
    """Return a duration in whole seconds, None when it is negative or longer than a year."""
    seconds = round(duration.total_seconds())
    return seconds if 0 <= seconds <= 366 * 86_400 else None


def since_claim(run: Run, end: Run) -> Run:
    """Return the end of a run, at the earliest its claim: the machine that told it may have a wrong clock."""
    return msgspec.structs.replace(end, ended_at=max(filter(None, (run.claimed_at, end.ended_at))))


def asks(end: Run) -> Run:
    """Return the end of a job whose agent asks a person."""
    return msgspec.structs.replace(end, why=Why.question) if end.result is Result.completed else end


def ended_run(run: Run, end: Run, status: str = "") -> Run:
    """Return a run with its end, and the status in which it left its bead. A question may be known already."""
    return msgspec.structs.replace(
        end,
        attempt=run.attempt,
        claimed_at=run.claimed_at,
        job=run.job,
        runner=run.runner,
        jobs_folder=run.jobs_folder,
        agent=end.agent or run.agent,
        lane=run.lane or end.lane,
        why=run.why or end.why,
        status=status or UNSET,
    )


def exit_words(exit_code: int) -> str:
    """Write how a command ended: `exit status 3`, `killed by SIGKILL`, or `exit status 137 (SIGKILL)` as of a shell."""
    names = {int(number): number.name for number in Signals}
    if exit_code < 0:
        return f"killed by {names.get(-exit_code, f'signal {-exit_code}')}"
    named = names.get(exit_code - 128)
    return f"exit status {exit_code}" + (f" ({named})" if named else "")


def detail(end: Run) -> str:
    """Return why a run ended, beyond its result: its last words, after its exit status unless its cause is known."""
    code = end.exit_code
    if code is UNSET or (code >= 0 and end.why not in (None, Why.error, Why.unknown)):
        return end.words
    return ": ".join(filter(None, [exit_words(code), end.words]))


_HOW = {
    Result.completed: "ended{} without closing its bead",
    Result.timeout: "timed out{}",
    Result.error: "could not be run",
    Result.lost: "was lost{}",
    Result.stopped: "was stopped{}",
}
_ADVICE: dict[str | None, str] = {
    Why.turns: "raise its limit of turns, or split the bead",
    Why.budget: "raise its limit of costs, or split the bead",
    Why.denied: "permit that in its settings or its command",
}
"""What to change where the run ended because of the bead's own needs."""


def describe_end(end: Run) -> str:
    """Describe why a job ended that left its bead in progress, e.g. `failed after 12s: API Error: 529 overloaded`."""
    took = f" after {format_duration(timedelta(seconds=end.seconds))}" if end.seconds is not None else ""
    advice = f" ({_ADVICE[end.why]})" if end.why in _ADVICE else ""
    how = _HOW.get(end.result or Result.lost, "failed{}").format(took)
    said = detail(end)
    return how + (f": {said}" if said else "") + advice


def finish_note(job: str, end: Run, *, words: bool) -> str:
    """Write the note of a job's end, e.g. `agent finished: job=0b37aa7fd784 completed in 4m12s, $0.42 at 2026-…Z`."""
    assert end.ended_at
    took = f" in {format_duration(timedelta(seconds=end.seconds))}" if end.seconds is not None else ""
    cost = f", {format_cost(end.cost_usd)}" if end.cost_usd is not None else ""
    said = f": {told}" if words and (told := detail(end)) else ""
    return f"{FINISH_NOTE}{job} {end.result}{took}{cost} at {format_time(end.ended_at)}{said}"


def format_cost(cost_usd: float) -> str:
    """Write US dollars with two decimals, or with as many as a small amount needs, four at most."""
    text = f"{cost_usd:.4f}"
    return f"${text[:-2]}{text[-2:].rstrip('0')}"


def whole_milliseconds(milliseconds: object) -> int | None:
    """Return milliseconds as whole seconds, None if they are not a plausible duration."""
    number = checked_number(milliseconds)
    return whole_seconds(timedelta(milliseconds=number)) if number is not None and number < 1e12 else None
