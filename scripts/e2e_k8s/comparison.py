"""Compares objects that came from two tools: what they mean, without what may differ."""

import difflib
import json
import re
from typing import Any

from scripts.e2e_k8s.reporting import check, say

KINDS = "cronjobs,deployments,services,networkpolicies,poddisruptionbudgets,configmaps"
KINDS += ",serviceaccounts,roles,rolebindings"
OURS = ("-l", "app.kubernetes.io/part-of=bdauto")
"""What selects all of bdauto's objects."""
DEFAULTS = {
    "automountServiceAccountToken": True,
    "completions": 1,
    "immutable": False,
    "manualSelector": False,
    "mountPropagation": "None",
    "optional": False,
    "parallelism": 1,
    "privileged": False,
    "shareProcessNamespace": False,
}
"""Kubernetes' own defaults that Terraform's provider writes out."""


def meanings(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the essence of what each object says beside its metadata and status, by kind and name."""
    return {
        essence(f"{item['kind']}/{item['metadata']['name']}"): essence(
            {key: value for key, value in item.items() if key not in ("apiVersion", "kind", "metadata", "status")}
        )
        for item in objects
    }


def essence(value: Any) -> Any:
    """Drop annotations, chosen addresses, defaults and hashes in names. Sort what is named, parse JSON."""
    if isinstance(value, dict):
        kept = {key: essence(item) for key, item in value.items() if key != "annotations" and not _address(key, item)}
        kept |= {key: sorted(item) for key, item in kept.items() if key == "verbs"}
        return {key: item for key, item in kept.items() if item not in ({}, [], None, DEFAULTS.get(key))}
    if isinstance(value, list):
        items = [essence(item) for item in value]
        named = items and all(isinstance(item, dict) and "name" in item for item in items)
        return sorted(items, key=lambda item: str(item["name"])) if named else items
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    if isinstance(value, str):
        return re.sub(r"\b(beads-metadata|bdauto-config|bdauto-settings)-[a-z0-9]{10}$", r"\1", value)
    return value


def _address(key: str, value: Any) -> bool:
    """Return whether this is an address that the API server has chosen for a Service."""
    return key in ("clusterIP", "clusterIPs") and value not in ("None", ["None"])


def same(ours: dict[str, Any], theirs: dict[str, Any], what: str) -> None:
    """Check that two sets of meanings are equal, and show how they differ where they are not."""
    ours_text, theirs_text = (json.dumps(taken, indent=1, sort_keys=True).splitlines() for taken in (ours, theirs))
    for line in difflib.unified_diff(theirs_text, ours_text, "expected", "found", lineterm=""):
        say(line)
    check(ours == theirs, what)
