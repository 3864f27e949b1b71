"""Reads single values of bdauto's metadata. Anybody can write metadata, so an invalid value is read as absent."""

import math
import re
from datetime import datetime

from bdauto.domain.times import parse_time

JOB_PATTERN = r"^[A-Za-z0-9._-]{1,100}\Z"
"""Matches the ids of jobs and attempts."""
LARGEST_COUNT = 1_000_000
"""The largest believable count: bdauto adds one per dispatch."""


def checked_cost(value: object) -> float | None:
    """Return an amount of US dollars, to a hundredth of a cent, if it is one and plausible."""
    number = checked_number(value)
    return round(number, 4) if number is not None and number < 1e6 else None


def checked_count(value: object) -> int | None:
    """Return a count if it is a plausible one: a whole number, or a text that holds one."""
    number = checked_number(value)
    return int(number) if number is not None and number == int(number) and number < 1e9 else None


def checked_number(value: object) -> float | None:
    """Return a finite number that is not negative. Some builds of bd hold a number as text."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


_JSON = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null", re.ASCII)


def guarded(text: str) -> str:
    """Protect a text from `bd update --set-metadata`, which would store `12e3` as the number 12000."""
    return f"{text}." if _JSON.fullmatch(text.rstrip(".")) else text


def unguarded(text: str) -> str:
    """Undo `guarded`."""
    return text[:-1] if text.endswith(".") and _JSON.fullmatch(text.rstrip(".")) else text


def read_text(value: object) -> str:
    """Return a text, or a number as text, since bd may have stored a text as one."""
    if isinstance(value, str):
        return unguarded(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def read_id(value: object) -> str:
    """Return the id of a job or an attempt, which goes into notes and URLs. What is no id is absent."""
    text = read_text(value)
    return text if re.match(JOB_PATTERN, text) else ""


def read_count(value: object) -> int:
    """Return a count of dispatches, 0 if the value is not one."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}", value):  # some builds of bd store a number as text
        value = int(value)
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else 0


def read_time(value: object) -> datetime | None:
    """Return a time, None if the value is not one."""
    text = read_text(value)
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return None
