"""The figures of `bdauto report` counted a second time, from the beads as bd exports them, without bdauto's own code.

    bd export | python tests/support/recount.py report.json

compares a report (`bdauto report --json`) with its own count, and prints each figure that differs. It reads
the list of runs in the metadata, and beside it the current attempt where its end is not recorded.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

Json = dict[str, Any]
TOP = 5


class Run(NamedTuple):
    """A run that a bead had: when it was claimed and ended, and what is known of its end."""

    claimed: datetime | None
    ended: datetime | None
    seconds: int | None
    cost: float | None
    result: str
    left: str | None


def time(text: str) -> datetime:
    """Read a time."""
    return datetime.fromisoformat(text).astimezone(UTC)


def runs(bead: Json) -> Iterator[Run]:
    """Yield the runs of a bead."""
    held = bead.get("metadata") or {}
    listed = held.get("bdauto.runs", [])
    found: list[Json] = json.loads(listed) if isinstance(listed, str) else listed
    attempt = held.get("bdauto.attempt")
    if attempt and attempt not in [run["attempt"] for run in found]:
        found = [*found, {"claimed": held.get("bdauto.claimed_at")}]
    for number, run in enumerate(found, 1):
        claimed, ended = (time(run[key]) if run.get(key) else None for key in ("claimed", "ended"))
        seconds = run.get("seconds")
        if ended is None and number == len(found) and bead["status"] == "closed":
            ended = time(bead["closed_at"])
            seconds = max(round((ended - claimed).total_seconds()), 0) if claimed else None
        yield Run(claimed, ended, seconds, run.get("cost"), run.get("result") or "unknown", run.get("status"))


def came_of(run: Run, *, last_of_closed: bool) -> str:
    """What came of a run: whether it left its bead closed, else whether it is the last one of a closed bead."""
    if run.result == "stopped":
        return "stopped"
    return "closed" if (run.left == "closed" if run.left else last_of_closed) else "failed"


def spread(values: list[int]) -> Json:
    """The percentiles by the nearest rank."""
    values = sorted(values)
    rank = {name: ceil(len(values) * share) - 1 for name, share in (("p50", 0.5), ("p90", 0.9), ("max", 1.0))}
    return {"count": len(values)} | {f"{name}_seconds": values[at] if values else None for name, at in rank.items()}


def empty() -> Json:
    """The figures of nothing."""
    return {"counts": Counter(), "waiting": [], "running": [], "costs": []}


def figures(one: Json) -> Json:
    """The figures as the report prints them."""
    names = ("dispatched", "closed", "closed_first", "blocked", "quarantined", "ended", "failed", "stopped")
    cost = round(sum(one["costs"]), 4) if one["costs"] else None
    closed = one["counts"]["closed"]
    return {name: one["counts"][name] for name in names} | {
        "waiting": spread(one["waiting"]),
        "running": spread(one["running"]),
        "cost_usd": cost,
        "costed": len(one["costs"]),
        "cost_per_closed_usd": round(cost / closed, 4) if cost is not None and closed else None,
    }


def names(bead: Json, by: str, moment: datetime) -> list[str]:
    """Under which names of a grouping something counts that happened to a bead then."""
    if by == "day":
        return [moment.date().isoformat()]
    if by == "label":
        return bead.get("labels") or [""]
    return [bead.get("issue_type", "task") if by == "type" else bead.get("created_by", "")]


def recount(beads: Iterable[Json], since: str, until: str, by: str, assignee: str = "agent") -> Json:
    """Count everything that a report with these bounds says of the past."""
    start, end = time(since), time(until)
    groups: dict[str, dict[str, Json]] = {"all": defaultdict(empty), "day": defaultdict(empty), by: defaultdict(empty)}
    results: Counter[str] = Counter()
    extremes: dict[str, list[Run]] = defaultdict(list)
    titles = {}

    def at(bead: Json, moment: datetime | None) -> list[Json]:
        if moment is None or not start <= moment < end:
            return []
        found = [groups["all"][""]]
        for kind in {"day", by}:
            found += [groups[kind][name] for name in names(bead, kind, moment)]
        return found

    for bead in beads:
        held = bead.get("metadata") or {}
        had = [*runs(bead)]
        if held.get("bdauto.assignee", bead.get("assignee")) != assignee:
            continue
        titles[bead["id"]] = bead["title"]
        closed = bead["status"] == "closed" and bool(had)
        for number, run in enumerate(had, 1):
            last = number == len(had)
            for one in at(bead, run.claimed):
                one["counts"]["dispatched"] += 1
                one["waiting"] += [int(held["bdauto.waited"])] if last and "bdauto.waited" in held else []
            for one in at(bead, run.ended):
                one["counts"]["ended"] += 1
                came_of_it = came_of(run, last_of_closed=last and closed)
                one["counts"]["stopped"] += came_of_it == "stopped"
                one["counts"]["failed"] += came_of_it == "failed"
                one["running"] += [] if run.seconds is None else [run.seconds]
                one["costs"] += [] if run.cost is None else [run.cost]
            if at(bead, run.ended):
                results[came_of(run, last_of_closed=last and closed)] += 1
                extremes[bead["id"]].append(run)
        for one in at(bead, time(bead["closed_at"]) if closed else None):
            one["counts"]["closed"] += 1
            one["counts"]["closed_first"] += len(had) == 1
        if bead["status"] == "blocked":
            for one in at(bead, (had[-1].ended if had else None) or time(bead["updated_at"])):
                one["counts"]["quarantined" if held.get("bdauto.quarantined") else "blocked"] += 1
    touched = (end.date() - start.date()).days
    days = [(start.date() + timedelta(days=n)).isoformat() for n in range(touched + 1)]
    named = {day: groups["day"][day] for day in days} if by == "day" else groups[by]
    order = sorted(
        named, key=lambda name: (-named[name]["counts"]["dispatched"], -named[name]["counts"]["closed"], name)
    )
    return {
        "total": figures(groups["all"][""]),
        "results": dict(results),
        "days": [{"day": day} | figures(groups["day"][day]) for day in days],
        "groups": [{"name": name or None} | figures(named[name]) for name in (days if by == "day" else order)],
        "slowest": top(extremes, titles, "seconds"),
        "dearest": top(extremes, titles, "cost_usd"),
    }


def top(extremes: dict[str, list[Run]], titles: Json, key: str) -> list[Json]:
    """The beads with the most seconds, or the highest cost, of the runs that ended."""
    found = []
    for bead, had in extremes.items():
        seconds = [run.seconds for run in had if run.seconds is not None]
        costs = [run.cost for run in had if run.cost is not None]
        one = {"id": bead, "title": titles[bead], "runs": len(had), "seconds": sum(seconds) if seconds else None}
        found.append(one | {"cost_usd": round(sum(costs), 4) if costs else None})
    return sorted((one for one in found if one[key]), key=lambda one: (-one[key], one["id"]))[:TOP]


def differences(mine: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """Yield where two values differ."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in mine.keys() | theirs.keys():
            yield from differences(mine.get(key), theirs.get(key), f"{where}.{key}")
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif mine != theirs:
        yield f"{where}: counted {mine}, the report says {theirs}"


def count(value: Any) -> int:
    """How many figures there are in a value."""
    if isinstance(value, dict | list):
        return sum(count(each) for each in (value.values() if isinstance(value, dict) else value))
    return 1


def main() -> None:
    """Compare a report with the beads on standard input."""
    with open(sys.argv[1]) as file:  # noqa: PTH123
        report = json.load(file)
    beads = [json.loads(line) for line in sys.stdin if line.strip()]
    mine = recount(beads, report["since"], report["until"], report["by"])
    wrong = sorted(differences(mine, {key: report[key] for key in mine}))
    print(*wrong, f"{count(mine)} figures, {len(wrong)} differ", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
