"""The hours in which beads are dispatched, e.g. `Mon-Fri 22:00-07:00, Sat 08:00-20:00 Europe/Sofia`.

They are hours of the wall clock of a time zone: where it is put forward, a window is an hour shorter.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FORM = "22:00-07:00 Europe/Sofia"
_TIME = r"([01]?\d|2[0-3]):([0-5]\d)|24:00"
_DAY = "|".join(DAYS)
_WINDOW = rf"(?:(?P<first>{_DAY})(?:-(?P<last>{_DAY}))? )?(?P<start>\S+)-(?P<end>\S+)"
_ZONE = r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*"
MINUTE, DAY = timedelta(minutes=1), 24 * 60


class Window(msgspec.Struct, frozen=True):
    """A stretch of each of some days (0 is Monday), in minutes since midnight. It may end on the day after."""

    days: frozenset[int]
    start: int
    end: int

    def contains(self, weekday: int, minute: int) -> bool:
        """Whether a minute of a day of the week is in the window."""
        if self.start < self.end:
            return weekday in self.days and self.start <= minute < self.end
        before = (weekday - 1) % 7
        return (weekday in self.days and minute >= self.start) or (before in self.days and minute < self.end)


class ActiveHours(msgspec.Struct, frozen=True):
    """When beads may be dispatched. `text` is how the operator wrote it."""

    windows: tuple[Window, ...]
    zone: tzinfo
    text: str

    def __str__(self) -> str:
        return self.text

    def contain(self, moment: datetime) -> bool:
        """Whether beads may be dispatched at a moment."""
        local = moment.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(window.contains(local.weekday(), minute) for window in self.windows)

    def next(self, moment: datetime) -> datetime:
        """Return the first time from `moment` on at which beads may be dispatched."""
        if self.contain(moment):
            return moment.astimezone(UTC)
        begins = min(self._begin(window, moment) for window in self.windows)
        while not self.contain(begins):  # the clock is put forward or back at this moment: a few minutes decide
            begins = begins.replace(second=0, microsecond=0) + MINUTE
        return begins

    def _begin(self, window: Window, moment: datetime) -> datetime:
        """Return the next start of a window. It may be up to an hour early when the clocks change."""
        from dateutil.rrule import DAILY, rrule  # only who sets hours waits for it

        hour, minute = divmod(window.start, 60)
        wall = moment.astimezone(self.zone).replace(tzinfo=None) - timedelta(hours=1)  # which may come again
        days = rrule(DAILY, dtstart=wall, byweekday=sorted(window.days), byhour=hour, byminute=minute, bysecond=0)
        for begin in days:
            readings = [begin.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
            if max(readings) >= moment:
                return max(min(readings), moment.astimezone(UTC))
        raise AssertionError("a window begins on some day of each week")


def parse_active_hours(text: str) -> ActiveHours:
    """Parse windows, separated by commas, and the time zone after them. Without one it is UTC. Raises UsageError."""
    words = " ".join(text.split())
    head, _, last = words.rpartition(" ")
    zone, windows = (last, head) if head and re.fullmatch(_ZONE, last) else ("UTC", words)
    return ActiveHours(tuple(_window(window.strip()) for window in windows.split(",")), time_zone(zone), words)


def parse_time_of_day(text: str) -> int:
    """Return the minutes from midnight to a time such as `09:00`. Raises UsageError."""
    found = re.fullmatch(_TIME, text)
    if found is None or not found[1]:
        raise UsageError(f"{clean(text, 40)!r} is not a time of day: write it as 09:00")
    return _minute(found)


def _minute(found: re.Match[str]) -> int:
    return int(found[1] or 24) * 60 + int(found[2] or 0)


def _window(text: str) -> Window:
    match = re.fullmatch(_WINDOW, text)
    times = [match and re.fullmatch(_TIME, match[name]) for name in ("start", "end")]
    if not match or not all(times):
        raise UsageError(
            f"{clean(text, 40)!r} are no hours: write them as {FORM!r}, or 'Mon-Fri 22:00-07:00 {FORM[12:]}'"
        )
    start, end = (_minute(found) for found in times if found)
    if start % DAY == end % DAY and (start, end) != (0, DAY):
        raise UsageError(f"{clean(text, 40)!r} begins when it ends", hint="write a whole day as 00:00-24:00")
    first, last = (DAYS.index(day) if day else None for day in (match["first"], match["last"]))
    days = range(7) if first is None else range(first, (first if last is None else last) + 1)
    if first is not None and last is not None and last < first:  # Sat-Mon
        days = range(first, last + 8)
    begins_after = start // DAY  # 24:00 is the start of the day after
    return Window(frozenset((day + begins_after) % 7 for day in days), start % DAY, end)


def time_zone(name: str) -> tzinfo:
    """Return a zone by its name in the tz database. Raises UsageError."""
    from zoneinfo import ZoneInfo  # only who sets hours waits for it

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        hint = "name it as in the tz database, which must be installed here"
        raise UsageError(f"{clean(name, 40)!r} is not a time zone", hint=hint) from None
