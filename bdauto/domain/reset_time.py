"""The time at which an agent can work again, read from what its command said.

Only words about a limit count: what follows "resets", "try again", "retry after" and their kind. python-dateutil reads
the dates, this module finds them and their zones.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

LOOKED_AT = 1 << 16
"""Characters of the text that are looked at, from its end."""
LONGEST = timedelta(days=32)
"""A time further ahead than this is not believed. Some plans have limits per month."""
JUST_PASSED = timedelta(hours=1)
"""A time of day that passed at most this long before the job's end is over. An earlier one means tomorrow."""
UNKNOWN_ZONE = timedelta(hours=1)
"""The wait for a time of day in an unknown zone. It may be hours off, so a trial decides."""

_CUE = re.compile(
    r"""(?:
      (?<!connection[ ])(?<!peer[ ])(?<!password[ ])(?<!token[ ])\breset(?:s|ting)?(?:_?at|_?in(?:_seconds)?|_?after)?\b
    | \b(?:x-)?(?:[a-z]+-){0,3}ratelimit(?:-[a-z]+){0,3}-reset\b
    | \b(?:re)?try(?:ing)?(?:[ _-]?(?:again|delay|after|in))+(?:[_-](?:ms|seconds))?
    | \b(?:available|back|again|resume[sd]?)\b(?=[ ](?:at|in|on|after)\b)
    | \blimit(?:ed|[ ]reached)?\b(?=\||[ ]until\b)
    )["']?""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_LIMIT = re.compile(
    r"limit|quota|\b429\b|too many requests|exhausted|throttl|overloaded|out of (?:credits|usage)",
    re.ASCII | re.IGNORECASE,
)
_NEEDS_LIMIT = re.compile(r"available|back|again|resume", re.ASCII | re.IGNORECASE)
"""Cues that count only near a word that names a limit."""
_JOIN = re.compile(
    r"(?:[\s|:=·,\"'\\]|\b(?:again|at|in|on|after|until|about|is|be|will|the)\b)*", re.ASCII | re.IGNORECASE
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)(?![a-z])",
    re.ASCII | re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s,]*(?:and\s+)?", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"(\d{1,13})(\.\d{1,9})?(?![\w:.-]|,\s*\d|\s*[ap]\.?m)", re.ASCII | re.IGNORECASE)
_DATE = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
    r"|today|tomorrow|at|on|\d{1,4}(?:st|nd|rd|th)?|(?<=\d)t(?=\d)|[ap]\.?m\b\.?|[\s,:/.-])+",
    re.ASCII | re.IGNORECASE,
)
_ZONE = re.compile(
    r"\s*\(?(?:(?P<utc>UTC|GMT|Z)?(?P<offset>[+-]\d{1,2}(?::?\d\d)?)|(?P<name>[A-Za-z]+(?:[/_+-][A-Za-z0-9]+)*))",
    re.ASCII,
)
_ABBREVIATIONS = {
    "Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3,
    "IST": 5.5, "SGT": 8, "HKT": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11,
    "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
}  # fmt: skip
"""Abbreviations of zones in hours from UTC. An ambiguous one is read as in American English."""
_REGIONS = {
    "ET": "America/New_York",
    "CT": "America/Chicago",
    "MT": "America/Denver",
    "PT": "America/Los_Angeles",
}


def reset_time(text: str, ended: datetime, local: tzinfo | None) -> datetime | None:
    """Return when the agent can work again, as far as the text names it, or None.

    All times are relative to `ended`, when the job ended. `local` is the zone for times without one: that of the
    machine that ran the agent, or None if unknown. A time up to `ended` has passed. Of several times the first that is
    still ahead counts.
    """
    named = [*_named(text[-LOOKED_AT:], ended, local)]
    ahead = [moment for moment in named if ended < moment <= ended + LONGEST]
    passed = [moment for moment in named if ended - LONGEST <= moment <= ended]
    return min(ahead, default=max(passed, default=None))


def _named(text: str, ended: datetime, local: tzinfo | None) -> Iterator[datetime]:
    for cue in _CUE.finditer(text):
        if _NEEDS_LIMIT.match(cue[0]) and not _LIMIT.search(text, max(cue.start() - 300, 0), cue.end() + 300):
            continue
        joined = _JOIN.match(text, cue.end())
        start = joined.end() if joined else cue.end()
        try:
            moment = _after(text, start, cue[0].lower().strip("\"'"), ended, local)
        except (ValueError, OverflowError):  # also what python-dateutil raises
            continue
        if moment:
            yield moment.astimezone(UTC)


def _after(text: str, start: int, cue: str, ended: datetime, local: tzinfo | None) -> datetime | None:
    """Return the time that the text names at this place, None if it names none."""
    if seconds := _duration(text, start):
        return ended + timedelta(seconds=seconds)
    number = _NUMBER.match(text, start)
    bare = _bare(number, cue, ended) if number else None
    return bare or _date(text, start, ended, local)


def _duration(text: str, start: int) -> float:
    """Return the seconds of `2h15m33s`, `2 days 17 hours` or `34.07s`, 0 if there is no duration here."""
    seconds = 0.0
    while part := _PART.match(text, start):
        unit = part[2].lower()
        seconds += float(part[1]) * _UNITS["ms" if unit.startswith(("ms", "milli")) else unit[0]]
        between = _BETWEEN.match(text, part.end())
        start = between.end() if between else part.end()
    return seconds


def _bare(number: re.Match[str], cue: str, ended: datetime) -> datetime | None:
    """Return the time of a number without a unit: an epoch, or seconds after words that mean a wait."""
    value = float(number[0])
    if len(number[1]) == 13:
        return datetime.fromtimestamp(value / 1000, UTC)
    if len(number[1]) == 10:
        return datetime.fromtimestamp(value, UTC)
    if cue.endswith("ms"):
        return ended + timedelta(milliseconds=value)
    waits = cue.endswith(("after", "seconds", "delay", "in", "-reset"))
    return ended + timedelta(seconds=value) if waits else None


def _date(text: str, start: int, ended: datetime, local: tzinfo | None) -> datetime | None:
    from dateutil.parser import parse  # few need it, and it takes time

    found = _DATE.match(text, start)
    words = found[0].strip(" \n\t,.-:/") if found else ""
    if not found or not re.search(r"\d\d?(?::\d\d)+|\b(?:0?[1-9]|1[0-2])\s*[ap]\.?m", words, re.IGNORECASE):
        return None  # a bare number is no time of day
    zone = _zone(text, start + len(found[0].rstrip()), local)
    if zone is None:
        return ended + UNKNOWN_ZONE
    there = ended.astimezone(zone)
    plain = re.sub(
        r"\b(?:today|tomorrow|at|on)\b|(?<=[ap])\.(?=m)",
        lambda m: "" if m[0] == "." else " ",
        words,
        flags=re.IGNORECASE,
    )
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = parse(plain, default=midnight, ignoretz=True).replace(tzinfo=zone)
    if "tomorrow" in words.lower():
        return moment + timedelta(days=1)
    dated = bool(re.search(r"[a-z]{3}|\d[/-]\d|\d{4}", re.sub(r"(?i)\b(?:at|on)\b", "", plain), re.IGNORECASE))
    if not dated and "today" not in words.lower() and moment < there - JUST_PASSED:
        return moment + timedelta(days=1)
    if dated and not re.search(r"\d{4}", plain) and moment < there - timedelta(days=180):
        return moment.replace(year=moment.year + 1)
    return moment


def _zone(text: str, end: int, local: tzinfo | None) -> tzinfo | None:
    """Return the zone named at this place, `local` if none is named, None if the name is unknown."""
    found = _ZONE.match(text, end)
    if not found:
        return local
    if found["offset"]:
        hours, _, minutes = found["offset"].partition(":")
        if len(hours) > 3:
            hours, minutes = hours[:-2], hours[-2:]
        sign = -1 if hours.startswith("-") else 1
        return timezone(timedelta(hours=int(hours), minutes=sign * int(minutes or 0)))
    name, enclosed = found["name"], found[0].lstrip().startswith("(")
    if name.upper() in _ABBREVIATIONS and (enclosed or name.isupper()):
        return timezone(timedelta(hours=_ABBREVIATIONS[name.upper()]))
    try:
        return ZoneInfo(_REGIONS.get(name, name)) if enclosed or "/" in name or name in _REGIONS else local
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None
