"""The lanes whose beads another lane takes while they cannot: suspended ones, and those that have reached a limit."""

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from bdauto.bd.client import Bd
from bdauto.domain import breaker
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.limits import DAY, LOOK_BACK, counts_beads, reached
from bdauto.domain.record import Run


def as_seen(bd: Bd, recent: Callable[[datetime], Sequence[tuple[str, Run]]], now: datetime) -> Lanes:
    """Return the lanes as the one of `bd` sees them now, with those whose beads it takes.

    `recent` returns the runs since a moment that this machine knows itself. Raises BdError. The tracker is read only
    for a lane that is the fallback of another.
    """
    paths = [*bd.lanes.fallen_back()]
    if not paths:
        return bd.lanes
    store = bd.kv_list().result()
    counted = any(counts_beads(rule.wants) for path in paths for rule in path)
    beads = bd.changed_since(now - LOOK_BACK).result().beads if counted else ()
    here = recent(now - DAY) if counted else ()

    def held(rule: LaneRule) -> str:
        if breaker.suspension(store, now, rule.name)[0]:
            return "suspended"
        lanes = msgspec.structs.replace(bd.lanes, own=rule.name)
        own = msgspec.structs.replace(rule.wants, per_day_of_all=None, cost_per_day_of_all=None)
        return "over its limit" if counted and reached(beads, own, rule.assignee, now, here, lanes) else ""

    taking = {path[0].name: held(path[0]) for path in paths if all(map(held, path))}
    return msgspec.structs.replace(bd.lanes, taking=taking)
