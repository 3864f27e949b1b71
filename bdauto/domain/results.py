"""How a job ended: its result, why, how long it ran, what it cost, and what it said last.

An implausible value counts as unknown, and an unknown value is None, never zero.
"""

from datetime import datetime, timedelta

import msgspec

from bdauto.common.sanitize import clean, hide_secrets
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
) -> Run:
    """Return the end of a job from its state and from what its agent said.

    `seconds`, `words` and `why` come from whoever ran the job, and count before those of the agent. A job with exit
    status 0 has failed where its agent says so.
    """
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
    )


def last_line(text: str) -> str:
    """Return the last line of a text that is not blank: cleaned, bounded, without what looks like a secret."""
    for line in reversed(text[-TEXT_LIMIT:].splitlines()):
        words = clean(hide_secrets(clean(line, LINE_LIMIT)), WORDS_LIMIT)  # a secret that is cut is not known any more
        if words:
            return words
    return ""


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


def ended_run(run: Run, end: Run) -> Run:
    """Return a run with its end. That it ended for a question may be known already."""
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
    )


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
    return how + (f": {end.words}" if end.words else "") + advice


def finish_note(job: str, end: Run, *, words: bool) -> str:
    """Write the note of a job's end, e.g. `agent finished: job=0b37aa7fd784 completed in 4m12s, $0.42 at 2026-…Z`."""
    assert end.ended_at
    took = f" in {format_duration(timedelta(seconds=end.seconds))}" if end.seconds is not None else ""
    cost = f", {format_cost(end.cost_usd)}" if end.cost_usd is not None else ""
    said = f": {end.words}" if words and end.words else ""
    return f"{FINISH_NOTE}{job} {end.result}{took}{cost} at {format_time(end.ended_at)}{said}"


def format_cost(cost_usd: float) -> str:
    """Write US dollars with two decimals, or with as many as a small amount needs, four at most."""
    text = f"{cost_usd:.4f}"
    return f"${text[:-2]}{text[-2:].rstrip('0')}"


def whole_milliseconds(milliseconds: object) -> int | None:
    """Return milliseconds as whole seconds, None if they are not a plausible duration."""
    number = checked_number(milliseconds)
    return whole_seconds(timedelta(milliseconds=number)) if number is not None and number < 1e12 else None
