"""The pause switch. It lives in the tracker, so it holds for every dispatcher and reaper, wherever each runs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED
from bdauto.domain.times import format_time, parse_time

KEY = "bdauto.paused"
"""The key of bd's shared key-value store that holds the switch."""


class Pause(msgspec.Struct, frozen=True):
    """Dispatching and reaping are paused: why, by whom, since when, and until when (None: until resumed)."""

    reason: str
    by: str = ""
    since: datetime | None = None
    until: datetime | None = None
    stop: bool = False
    """True: the jobs that run are stopped, too."""

    def describe(self) -> str:
        """Describe the pause in one line."""
        by = f" by {self.by}" if self.by else ""
        until = f" until {format_time(self.until)}" if self.until else ""
        return f"paused{by}{until}" + (f": {self.reason}" if self.reason else "")

    @property
    def stops(self) -> str:
        """Why a running job is stopped because of this pause, "" if none is."""
        return f"{self.by or 'somebody'} paused dispatching and stopped what runs" if self.stop else ""

    def encode(self) -> str:
        """Write the switch as the tracker holds it."""
        fields = {
            "reason": self.reason,
            "by": self.by,
            "since": format_time(self.since) if self.since else None,
            "until": format_time(self.until) if self.until else None,
            **({"stop": True} if self.stop else {}),
        }
        return msgspec.json.encode(fields).decode()


class _Switch(msgspec.Struct, frozen=True):
    reason: str | None = None
    by: str | None = None
    since: str | None = None
    until: str | None = None
    stop: bool | None = None


def read(store: Mapping[str, Any], now: datetime) -> Pause | None:
    """Return the pause that holds now, None when there is none or it has expired.

    A value that bdauto did not write pauses too: whoever set the key meant it.
    """
    value = store.get(KEY)
    if value in (None, ""):
        return None
    try:
        switch = msgspec.json.decode(value, type=_Switch)
        since = parse_time(switch.since) if switch.since else None
        until = parse_time(switch.until) if switch.until else None
    except (*MALFORMED, TypeError):
        return Pause(f"{KEY} is set to {clean(str(value), 80)!r}, which bdauto did not write")
    if until is not None and until <= now:
        return None
    return Pause(clean(switch.reason or ""), clean(switch.by or "", 80), since, until, switch.stop is True)
