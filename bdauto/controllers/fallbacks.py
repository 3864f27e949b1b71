"""The lanes whose beads another lane takes while they cannot: suspended ones, and those that have reached a limit."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from bdauto.bd.client import Bd
from bdauto.domain import breaker
from bdauto.domain.lanes import LaneRule
from bdauto.domain.limits import DAY, LOOK_BACK, counts_beads, reached

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


def fallen_back(bd: Bd, runner: "Callable[[], Runner]", now: datetime) -> Mapping[str, str]:
    """Return the lanes whose beads the lane of `bd` takes now, and why each cannot take them itself.

    Raises BdError. A tracker is read only for a lane that is the fallback of another.
    """
    paths = [*bd.lanes.fallen_back()]
    if not paths:
        return {}
    store = bd.kv_list().result()
    counted = any(counts_beads(rule.wants) for path in paths for rule in path)
    beads = bd.changed_since(now - LOOK_BACK).result().beads if counted else ()
    here = runner().recent_runs(now - DAY) if counted else ()

    def held(rule: LaneRule) -> str:
        if breaker.suspension(store, now, rule.name)[0]:
            return "suspended"
        lanes = msgspec.structs.replace(bd.lanes, own=rule.name)
        own = msgspec.structs.replace(rule.wants, per_day_of_all=None, cost_per_day_of_all=None)
        return "over its limit" if counted and reached(beads, own, rule.assignee, now, here, lanes) else ""

    return {path[0].name: held(path[0]) for path in paths if all(map(held, path))}
