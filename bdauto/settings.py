"""The settings of a run, typed and checked: flag over environment over default.

Durations are written `500ms`, `90s`, `30m`, `1h30m`, `2d`.
"""

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bdauto.errors import UsageError
from bdauto.text import clean

DURATION_FORMS = "500ms, 90s, 30m, 1h30m or 2d"
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_LONGEST = timedelta(days=3650)


def parse_duration(text: str) -> timedelta:
    """Parse a positive duration such as `1h30m`; units d, h, m, s, ms, each at most once, in this order.

    Raises UsageError with the accepted forms for anything else, zero and more than ten years included.
    """
    match = _DURATION.fullmatch(text.strip())
    if match and any(match.groups()) and all(len(group or "") < 10 for group in match.groups()):
        days, hours, minutes, seconds, millis = (int(group or 0) for group in match.groups())
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)
        if timedelta(0) < duration <= _LONGEST:
            return duration
    raise UsageError(f"{text[:40]!r} is not a duration: write it as {DURATION_FORMS}")


def format_duration(duration: timedelta) -> str:
    """Write a duration as it is read: whole minutes as `30m` (also above an hour), else `1m30s`, `45s`, `500ms`."""
    millis = round(duration.total_seconds() * 1000)
    if millis % 1000:
        return f"{millis}ms"
    minutes, seconds = divmod(millis // 1000, 60)
    return (f"{minutes}m" if minutes else "") + (f"{seconds}s" if seconds or not minutes else "")


class OnStall(StrEnum):
    """What the reaper does with a stalled bead."""

    block = "block"
    requeue = "requeue"


class Secret(msgspec.Struct, frozen=True):
    """A value that shows as `***` wherever it is printed by accident."""

    value: str

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "***"


class BdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How `bd` is run. `metadata` names a metadata.json to copy into a private folder, instead of `db`."""

    bd: str = "bd"
    db: Path | None = None
    metadata: Path | None = None
    bd_timeout: timedelta = timedelta(seconds=60)
    actor: str = "beads-dispatcher"
    assignee: str = "agent"


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where BeadBoard and, optionally, the agent service are; `timeout` bounds one whole HTTP request."""

    beadboard_url: str | None = None
    agent_url: str | None = None
    agent_token: Secret | None = None
    timeout: timedelta = timedelta(seconds=30)


class DispatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which beads may be dispatched, and how many in one cycle."""

    max_beads: int = 1
    max_attempts: int = 3
    exclude_types: tuple[str, ...] = ("epic",)
    trusted_creators: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    exclude_labels: tuple[str, ...] = ()
    ignore_pause: bool = False
    dry_run: bool = False


class ReapSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a bead in progress is settled, and how."""

    threshold: timedelta = timedelta(minutes=30)
    grace: timedelta = timedelta(minutes=10)
    on_stall: OnStall = OnStall.block
    max_attempts: int = 3
    max_reap: int = 10
    force: bool = False
    ignore_pause: bool = False
    dry_run: bool = False


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told what was done: a file and a Pushgateway get the metrics, the notify URLs the events."""

    metrics_file: Path | None = None
    pushgateway: Secret | None = None
    notify_urls: tuple[Secret, ...] = ()

    @property
    def metrics(self) -> bool:
        """Whether metrics are to be written somewhere."""
        return bool(self.metrics_file or self.pushgateway)


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often `bdauto run` does its two jobs, and where it listens, as (host, port); port 0 takes a free one."""

    dispatch_every: timedelta = timedelta(seconds=15)
    reap_every: timedelta = timedelta(minutes=10)
    listen: tuple[str, int] | None = None


def describe(*groups: msgspec.Struct) -> dict[str, str]:
    """Return the settings as printable text, for the log's first line; secrets stay hidden."""
    shown: dict[str, str] = {}
    for group in groups:
        for name in group.__struct_fields__:
            value = getattr(group, name)
            if value is None or value == ():
                continue
            shown[name] = _printable(value)
    return shown


def _printable(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return (":" if isinstance(value[-1], int) else ",").join(map(str, value))  # HOST:PORT, or a list
    if isinstance(value, bool):
        return str(value).lower()
    return redact(str(value))


def redact(url: str) -> str:
    """Hide what may be a secret in a URL: its user and password, and its query."""
    return re.sub(r"\?.*", "?***", re.sub(r"//[^/@\s]*@", "//***@", url))


def checked_url(url: str) -> str:
    """Return the URL if it is one of HTTP; raises UsageError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        good = good and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{clean(redact(url), 80)!r} is not a URL: write it as http://HOST[:PORT]")
    return url
