"""The texts of notes."""

from datetime import UTC, datetime, timedelta

AGENT_SIGN = "claimed by agent"
"""How the agent's first note on a bead begins, if it keeps to its rules."""

CLAIM_NOTE = "auto-dispatcher claimed at "
"""How the note of a claim begins. The time of the claim follows."""
WRITTEN = "written"
"""Replaces the claim's note in the metadata (`record.PENDING_NOTE`) once bd's notes have it."""
JOB_NOTE = "dispatched: job="
FINISH_NOTE = "agent finished: job="

UNKNOWN = "dispatch outcome unknown"
"""The start of the note and of the recorded error when the outcome of a POST is unknown: a job may run."""


def in_minutes(duration: timedelta) -> str:
    """Write a duration as the reaper's note does: in whole minutes, rounded down, and below a minute in seconds."""
    seconds = max(int(duration.total_seconds()), 0)
    return f"{seconds // 60}m" if seconds >= 60 else f"{seconds}s"


def short_time(moment: datetime, now: datetime) -> str:
    """Write a time of today as `15:57Z`, and another with its date."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    return f"{moment:%H:%M}Z" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}Z"


def failure_note(error: str) -> str:
    """Write the note of a failed dispatch, e.g. `dispatch failed HTTP 502: …`."""
    return f"dispatch failed {error}" if error.startswith("HTTP ") else f"dispatch failed: {error}"


def error_kind(error: str) -> str:
    """Return what kind of error this is, e.g. `HTTP 502`: the words after it may differ at each try."""
    return error.partition(":")[0]
