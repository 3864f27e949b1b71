"""Reads the runs in databases of November 2026, which had sums in place of a list. To be removed on 2027-02-28."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bdauto.domain.record_values import checked_cost, checked_count, read_time

OLD_KEYS = ("bdauto.ended_at", "bdauto.seconds", "bdauto.cost_usd", "bdauto.turns")


def has_old_runs(metadata: Mapping[str, Any]) -> bool:
    """Return whether the metadata has sums over all runs in place of a list of them."""
    return any(key in metadata for key in OLD_KEYS)


def old_run(record: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of one run that stands for all earlier ones, or None if there are none.

    `record` has the fields of the bead's record that are in its metadata. The run's end is that of the last one, and
    it has no result while it runs. The notes had single runs, but anybody can write notes.
    """
    attempt, job, result = (record.get(name, "") for name in ("attempt", "job", "result"))
    claimed_at: datetime | None = record.get("claimed_at")
    if not attempt and job and result == "running":  # cancelled
        return {"attempt": job, "job": job, "claimed_at": claimed_at}
    if not has_old_runs(metadata):
        return None
    ended_at = read_time(metadata.get("bdauto.ended_at"))
    current = ended_at is not None and (claimed_at is None or ended_at >= claimed_at)
    return {
        "attempt": (current and (attempt or job)) or "unknown",
        "job": job if current else "",
        "runner": record.get("host") or None,
        "claimed_at": claimed_at if current else None,
        "ended_at": ended_at,
        "result": result,
        "seconds": checked_count(metadata.get("bdauto.seconds")),
        "cost_usd": checked_cost(metadata.get("bdauto.cost_usd")),
        "turns": checked_count(metadata.get("bdauto.turns")),
    }
