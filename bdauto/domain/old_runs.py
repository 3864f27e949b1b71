"""Reads the runs in databases of November 2026, which had sums in place of a list. To be removed on 2027-02-28."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bdauto.domain.record_values import checked_cost, checked_count, read_time

if TYPE_CHECKING:
    from bdauto.domain.record import Record

OLD_KEYS = ("bdauto.ended_at", "bdauto.seconds", "bdauto.cost_usd", "bdauto.turns")


def has_old_runs(metadata: Mapping[str, Any]) -> bool:
    """Return whether the metadata has sums over all runs in place of a list of them."""
    return any(key in metadata for key in OLD_KEYS)


def old_run(record: "Record", metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of one run that stands for all earlier ones, or None if there are none.

    Its end is that of the last one. The notes had single runs, but anybody can write notes. It has no result while it
    runs.
    """
    if not record.attempt and record.job and record.result == "running":  # cancelled
        return {"attempt": record.job, "job": record.job, "claimed_at": record.claimed_at}
    if not has_old_runs(metadata):
        return None
    ended_at = read_time(metadata.get("bdauto.ended_at"))
    current = ended_at is not None and (record.claimed_at is None or ended_at >= record.claimed_at)
    return {
        "attempt": (current and (record.attempt or record.job)) or "unknown",
        "job": record.job if current else "",
        "runner": record.host or None,
        "claimed_at": record.claimed_at if current else None,
        "ended_at": ended_at,
        "result": record.result,
        "seconds": checked_count(metadata.get("bdauto.seconds")),
        "cost_usd": checked_cost(metadata.get("bdauto.cost_usd")),
        "turns": checked_count(metadata.get("bdauto.turns")),
    }
