"""One finding of `bdauto doctor`."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from bdauto.common.errors import BdautoError

MOST_SKEW = timedelta(minutes=1)
"""A clock that is off by more makes the reaper's ages wrong."""


class Level(StrEnum):
    """How a check went."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Check:
    """One finding and, unless all is well, what to do. The error of a failure decides the exit status."""

    name: str
    level: Level
    detail: str
    hint: str = ""
    error: BdautoError | None = None


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, Level.ok, detail)


def warn(name: str, detail: str, hint: str = "") -> Check:
    """It works, or could not be checked."""
    return Check(name, Level.warn, detail, hint)


def fail(name: str, error: BdautoError, hint: str = "") -> Check:
    """It does not work. Without a `hint` of the caller's, the error's own hint says what to do."""
    return Check(name, Level.fail, error.message, hint or error.hint, error)


def unchecked(name: str, why: str) -> Check:
    """It could not be looked at."""
    return warn(name, f"not checked: {why}")
