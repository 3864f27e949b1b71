"""The values of options as operators write them: durations, numbers, names, addresses, URLs. All raise UsageError."""

import re
from datetime import timedelta
from urllib.parse import urlsplit

from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean

DURATION_FORMS = "500ms, 90s, 30m, 1h30m or 2d"
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))
_LONGEST = timedelta(days=3650)
_LARGEST = 1_000_000
_NAME = re.compile(r"(?!-)[\w.@+:/-]{1,255}")
_ACTOR = re.compile(r"(?!-)[\w.,@+:/'()[\]-]+(?: [\w.,@+:/'()[\]-]+)*")
LONGEST_ACTOR = 255
"""Characters of a name that bd's events hold."""


def parse_duration(text: str) -> timedelta:
    """Parse a positive duration such as `1h30m`: units d, h, m, s, ms, each at most once, in this order.

    Zero and more than ten years are refused. The error lists the accepted forms.
    """
    match = _DURATION.fullmatch(text.strip())
    if match and any(match.groups()) and all(len(group or "") < 10 for group in match.groups()):
        days, hours, minutes, seconds, millis = (int(group or 0) for group in match.groups())
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)
        if timedelta(0) < duration <= _LONGEST:
            return duration
    raise UsageError(f"{text[:40]!r} is not a duration: write it as {DURATION_FORMS}")


def format_duration(duration: timedelta, units: int = len(_UNITS)) -> str:
    """Write a duration as `parse_duration` reads it: `7d`, `1h30m`, `45s`, `500ms`. A negative one is `0s`.

    With `units`, write only so many neighbouring units from the largest on: with 2, `5h12m` and `3d`.
    """
    rest, parts = max(round(duration / timedelta(milliseconds=1)), 0), list[tuple[int, str]]()
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        parts += [(count, unit)] if count or parts else []
    return "".join(f"{count}{unit}" for count, unit in parts[:units] if count) or "0s"


def format_age(age: timedelta) -> str:
    """Write an age for people: `45s`, `12m`, `1h5m`, `1d15h`. Seconds count only below a minute."""
    unit = timedelta(minutes=1) if age >= timedelta(minutes=1) else timedelta(seconds=1)
    return format_duration(age // unit * unit, 2)


def parse_count(text: str) -> int:
    """Parse a whole number from 1 to a million."""
    return _whole(text, 1)


def parse_limit(text: str) -> int:
    """Parse a whole number from 0 to a million."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) and least <= int(text) <= _LARGEST:
        return int(text)
    raise UsageError(f"{text[:40]!r} is not a whole number from {least} to {_LARGEST}")


def parse_dollars(text: str) -> float:
    """Parse an amount of US dollars, from a cent to a million."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,4})?", text, re.ASCII) and 0.01 <= float(text) <= _LARGEST:
        return float(text)
    raise UsageError(f"{text[:40]!r} is not an amount of US dollars: write it as 20 or 7.50")


def parse_name(text: str) -> str:
    """Return a name that is safe in bd's query language and in SQL."""
    if not _NAME.fullmatch(text):
        raise UsageError(f"{text[:40]!r}: letters, digits and . _ @ + : / - only, and no - at the start")
    return text


def parse_actor(text: str) -> str:
    """Return the name of whoever changes a bead. It may have spaces inside, as git's `user.name` has."""
    if len(text) > LONGEST_ACTOR or not _ACTOR.fullmatch(text):
        raise UsageError(
            f"{text[:40]!r}: letters, digits, single spaces and . , _ @ + : / ' ( ) [ ] - only, and no - at the start"
        )
    return text


def parse_names(texts: list[str]) -> tuple[str, ...]:
    """Split repeated options, each of which may hold several names separated by commas."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def parse_priorities(texts: list[str]) -> tuple[int, ...]:
    """Parse repeated priorities, each of which may be several, separated by commas. Raises UsageError."""
    found = parse_names(texts)
    for text in found:
        if text not in ("0", "1", "2", "3", "4"):
            raise UsageError(f"{text[:40]!r} is not a priority from 0 to 4")
    return tuple(map(int, found))


def parse_address(text: str) -> tuple[str, int]:
    """Parse `PORT`, `:PORT`, `HOST:PORT` or `[HOST]:PORT`. The host is loopback by default."""
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[\w.-]*):)?([0-9]{1,5})", text.strip(), re.ASCII)
    if not match or int(match[2]) > 65_535:
        raise UsageError(f"{text[:60]!r} is not an address: write it as [HOST:]PORT, e.g. 127.0.0.1:9464")
    return ((match[1] or "").strip("[]") or "127.0.0.1", int(match[2]))


def checked_url(url: str) -> str:
    """Return the URL if it is a valid HTTP URL."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        good = good and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if not good:
        shown = re.sub(r"^.*@", "***@", redact(url), flags=re.DOTALL)  # no URL: all before the host may be a password
        raise UsageError(f"{clean(shown, 80)!r} is not a URL: write it as http://HOST[:PORT]")
    return url


def full_url(address: str) -> str:
    """Return the URL of an address that may lack the scheme, as a Pushgateway's usually does."""
    return address if "://" in address else f"http://{address}"


def describe_error(error: BaseException) -> str:
    """Return what an error of a library says, on one line and without what may be a secret in a URL."""
    return redact(clean(str(error))) or type(error).__name__


def redact(url: str) -> str:
    """Hide what may be a secret in a URL: its user and password, and its query."""
    return re.sub(r"\?.*", "?***", re.sub(r"//\S*@", "//***@", url))
