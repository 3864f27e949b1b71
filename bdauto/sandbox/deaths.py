"""Agents that die at once: how their jobs end, and their last words."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Death:
    """How a job ends at once: its status, and what the agent service has of its output."""

    status: str = "failed"
    exit_code: int | None = 1
    output: tuple[str, ...] = ()
    stderr: str = ""
    error: str | None = None


DEATHS = {
    "expired key": Death(output=("Invalid API key · Please run /login",)),
    "limit, epoch": Death(output=("Claude AI usage limit reached|{epoch}",)),
    "limit, ISO time": Death(stderr="429 rate limited until {iso}\n"),
    "limit, seconds": Death(stderr="Rate limit reached. Please try again in {seconds} seconds.\n"),
    "limit, clock": Death(output=('{{"type": "result", "is_error": true, "num_turns": 1, "result": "{resets}"}}',)),
    "broken image": Death("error", None, error="[Errno 2] No such file or directory: 'claude'"),
    "killed": Death(exit_code=137, stderr="Killed\n"),
    "not a word": Death("completed", 0),
}
"""The ways in which agents die at once, with their last words: see `death`."""


def death(kind: str, resets_in: float = 3600) -> Death:
    """Return one of DEATHS. One of a usage limit names the time that is so many seconds from now."""
    found, moment = DEATHS[kind], datetime.now(UTC) + timedelta(seconds=resets_in)
    names = {
        "epoch": int(moment.timestamp()),
        "iso": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "seconds": int(resets_in),
        "resets": f"You've hit your limit · resets {moment:%H:%M} (UTC)",
    }
    return replace(
        found, output=tuple(line.format(**names) for line in found.output), stderr=found.stderr.format(**names)
    )
