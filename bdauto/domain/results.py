"""How a job ended: its result, how long it ran, what it cost, and what it said last.

Whatever runs a job, its answer and its output are text from outside. What is not plausible is unknown here, and unknown
is None, never zero.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from bdauto.domain.bead import MALFORMED
from bdauto.domain.notes import FINISH_NOTE
from bdauto.domain.record import RESULTS, WORDS_LIMIT, Result, Run
from bdauto.domain.record_values import checked_cost, checked_count, checked_number
from bdauto.domain.times import format_time, parse_time
from bdauto.sanitize import clean, hide_secrets

LINE_LIMIT = 4000
"""Characters of such a line that are looked at."""
OUTPUT_LIMIT = 1 << 20
"""Characters of a job's output that are looked at, from its end."""
LAST_LINES = 5
"""Lines at the end of the output that may be the JSON object with the figures."""
FIGURES = frozenset({"total_cost_usd", "num_turns", "result"})
"""The keys by which an agent's JSON object is known: those of `claude -p --output-format json`."""


class JobEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one job. Unknown values are None. `words` is the last line that the agent wrote."""

    result: Result
    ended_at: datetime
    seconds: int | None = None
    cost_usd: float | None = None
    turns: int | None = None
    words: str = ""


class Output(msgspec.Struct, frozen=True):
    """What an agent's output says of itself: its last message, its cost and its turns, as far as it says."""

    words: str = ""
    cost_usd: float | None = None
    turns: int | None = None
    seconds: int | None = None


def lost(ended_at: datetime) -> JobEnd:
    """Return the end of a job that ended in a way that nobody knows."""
    return JobEnd(result=Result.lost, ended_at=ended_at)


def job_end(job: Mapping[str, Any], now: datetime) -> JobEnd | None:
    """Read the end of a job from the agent service's `GET /jobs/{id}`. None while it is not over.

    `started_at` and `finished_at` are used if they make sense. A job that ends in the future has just ended.
    """
    result = _result(job.get("status"))
    if result is None:
        return None
    output = read_output(_joined(job.get("output")))
    started, finished = _moment(job.get("started_at")), _moment(job.get("finished_at"))
    ended_at = min(finished or now, now)
    seconds = whole_seconds(finished - started) if started and finished else output.seconds
    said = output.words, last_line(_joined(job.get("stderr")))
    return JobEnd(
        result=result,
        ended_at=ended_at,
        seconds=seconds,
        cost_usd=output.cost_usd,
        turns=output.turns,
        words=last_line(_joined(job.get("error"))) or next(filter(None, said), ""),
    )


def read_output(output: str) -> Output:
    """Read an agent's output: a JSON object with some of FIGURES in its last lines, or over all of it, else text."""
    text = output[-OUTPUT_LIMIT:].strip()
    for candidate in [*reversed(text.splitlines()[-LAST_LINES:]), text]:
        figures = _figures(candidate)
        if figures is not None:
            result = figures.get("result")
            return Output(
                last_line(result) if isinstance(result, str) else "",
                checked_cost(figures.get("total_cost_usd")),
                checked_count(figures.get("num_turns")),
                whole_milliseconds(figures.get("duration_ms")),
            )
    return Output(last_line(text))


def last_line(text: str) -> str:
    """Return the last line of a text that is not blank: cleaned, bounded, without what looks like a secret."""
    for line in reversed(text[-OUTPUT_LIMIT:].splitlines()):
        words = clean(hide_secrets(clean(line, LINE_LIMIT)), WORDS_LIMIT)  # a secret that is cut is not known any more
        if words:
            return words
    return ""


def whole_seconds(duration: timedelta) -> int | None:
    """Return a duration in whole seconds, None when it is negative or longer than a year."""
    seconds = round(duration.total_seconds())
    return seconds if 0 <= seconds <= 366 * 86_400 else None


def since_claim(run: Run, end: JobEnd) -> JobEnd:
    """Return the end of a run, not before its claim: whoever tells it may have a wrong clock."""
    claimed_at = run.claimed_at
    return msgspec.structs.replace(end, ended_at=claimed_at) if claimed_at and end.ended_at < claimed_at else end


def ended_run(run: Run, end: JobEnd) -> Run:
    """Return a run with its end."""
    return msgspec.structs.replace(
        run,
        ended_at=end.ended_at,
        result=end.result,
        seconds=end.seconds,
        cost_usd=end.cost_usd,
        turns=end.turns,
        words=end.words,
    )


def finish_note(job: str, end: JobEnd, *, words: bool) -> str:
    """Write the note of a job's end, e.g. `agent finished: job=0b37aa7fd784 completed in 4m12s, $0.42 at 2026-…Z`."""
    took = f" in {format_seconds(end.seconds)}" if end.seconds is not None else ""
    cost = f", {format_cost(end.cost_usd)}" if end.cost_usd is not None else ""
    said = f": {end.words}" if words and end.words else ""
    return f"{FINISH_NOTE}{job} {end.result}{took}{cost} at {format_time(end.ended_at)}{said}"


def format_seconds(seconds: int) -> str:
    """Write whole seconds as `45s`, `4m12s` or `1h5m`."""
    minutes, rest = divmod(seconds, 60)
    parts = ((minutes // 60, "h"), (minutes % 60, "m"), (rest, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def format_cost(cost_usd: float) -> str:
    """Write US dollars with two decimals, or with as many as a small amount needs, four at most."""
    text = f"{cost_usd:.4f}"
    return f"${text[:-2]}{text[-2:].rstrip('0')}"


def _result(word: object) -> Result | None:
    return RESULTS.get(word) if isinstance(word, str) else None


def _joined(value: object) -> str:
    """Return a text, or a list of lines as one text. Anything else becomes an empty text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in value if isinstance(line, str))
    return ""


def _figures(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a text if it has one of FIGURES. Claude prints a list: take its last."""
    if text[:1] not in ("{", "["):
        return None
    try:
        value = msgspec.json.decode(text)
    except MALFORMED:
        return None
    if isinstance(value, list) and value:
        value = value[-1]
    return value if isinstance(value, dict) and FIGURES & value.keys() else None


def whole_milliseconds(milliseconds: object) -> int | None:
    """Return milliseconds in whole seconds, None if they are no plausible duration."""
    number = checked_number(milliseconds)
    return whole_seconds(timedelta(milliseconds=number)) if number is not None and number < 1e12 else None


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_time(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
