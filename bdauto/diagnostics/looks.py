"""Snapshots of all lanes that are looked at: what `bdauto status` and the page show."""

from typing import Any

from bdauto.common.errors import BdautoError
from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.snapshot import Snapshot
from bdauto.diagnostics.snapshot import as_json as snapshot_json

Looks = dict[str, Snapshot | BdautoError]
"""What was seen of each lane, or why it cannot be read. The name is "" if there is no other."""


def needed(looks: Looks, *, blocked: bool = True) -> list[str]:
    """Say what needs a person, with the lane if there are several."""
    found = {name: active_alerts(seen, blocked=blocked) for name, seen in looks.items() if isinstance(seen, Snapshot)}
    return [f"lane {name}: {words}" if name else words for name, needs in found.items() for words in needs]


def as_json(looks: Looks, limit: int) -> dict[str, Any]:
    """Return what was seen as docs/operating.md describes it: of several lanes, under their names."""
    lanes = {
        name: snapshot_json(seen, limit) if isinstance(seen, Snapshot) else {"error": str(seen)}
        for name, seen in looks.items()
    }
    return {"alerts": needed(looks), **lanes.get("", {"lanes": lanes})}
