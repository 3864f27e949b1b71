"""The tables `[lanes.NAME]` of the configuration file: which keys they may have, and what holds for a lane."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.cli.config_file import ConfigFile
from bdauto.cli.fields import fields_of
from bdauto.cli.output_settings import OutputSettings
from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.settings import RunSettings, TelemetrySettings

LANES, FALLBACK = "lanes", "fallback"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
"""The names of lanes. They are safe in keys of the key-value store, in metadata, markup, logs and labels of metrics."""
AGENT_KEYS = frozenset(kind.chosen_by for kind in kinds.KINDS) | {"agent"}
"""A lane that has one of these has an agent of its own."""
TRACKER_KEYS = frozenset({"db", "metadata"})
BEAD_KEYS = frozenset({"assignee", "labels", "exclude_labels", "types", "exclude_types", "priorities", "creators"})
OWN_KEYS = AGENT_KEYS | TRACKER_KEYS | BEAD_KEYS
"""The keys that say which beads a lane has, where they are and who works on them."""
LIMITS = frozenset({"max_per_day", "max_cost_per_day"})
"""What these say at the top holds for all lanes together."""
OF_ALL = {"slots_of_all": "agent_slots", "per_day_of_all": "max_per_day", "cost_per_day_of_all": "max_cost_per_day"}
"""The fields that hold for all lanes together, and the fields of one lane that are like them."""
REPLACED = ((AGENT_KEYS, AGENT_KEYS | {"model"}), (TRACKER_KEYS, TRACKER_KEYS | {"agent_dir"}))
"""A lane that has a key of the first set does not inherit those of the second."""


def of_the_process() -> frozenset[str]:
    """Return the keys that no lane may have, because they belong to the process."""
    structs: tuple[type[msgspec.Struct], ...] = (RunSettings, TelemetrySettings, OutputSettings)
    jobs = {field.key for field in fields_of(AgentSettings, AgentSettings()) if field.name in kinds.JOBS_HERE}
    return frozenset(filter(None, {field.key for kind in structs for field in fields_of(kind, kind())} | jobs))


def tables(file: ConfigFile) -> Mapping[str, Mapping[str, Any]]:
    """Return the tables of the lanes by name, in order. What is none is left out."""
    found = file.values.get(LANES)
    named = found.items() if isinstance(found, dict) else ()
    return {name: table for name, table in named if NAME.fullmatch(name) and isinstance(table, dict)}


def inherited(top: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that hold for a lane: those at the top, under those of its table. Keys are as `Field.key`."""
    replaced = {key for own, keys in REPLACED if own & table.keys() for key in keys}
    kept = {key: value for key, value in top.items() if key not in replaced | LIMITS}
    return {**kept, **{key: value for key, value in table.items() if key != FALLBACK}}


def name_mistakes(file: ConfigFile) -> Iterator[UsageError]:
    """Yield what is wrong with the names of the lanes, and with what stands under them."""
    found = file.values.get(LANES, {})
    if not isinstance(found, dict):
        yield UsageError(f"{file.place(LANES)}: lanes is no table", hint="write a table [lanes.NAME] for each lane")
        return
    for name, table in found.items():
        place = file.place(LANES, name)
        if not NAME.fullmatch(name):
            words = f"{place}: {clean(name, 40)!r} is no name of a lane"
            yield UsageError(words, hint="use lowercase letters, digits, - and _, and begin with a letter")
        elif not isinstance(table, dict):
            yield UsageError(f"{place}: {name} is no lane", hint=f"write a table [lanes.{name}]")


def fallback_mistakes(file: ConfigFile) -> Iterator[UsageError]:
    """Yield the lanes whose fallback is no other lane, or leads back to them."""
    known = tables(file)
    for name, table in known.items():
        if FALLBACK not in table:
            continue
        other, place = table[FALLBACK], file.place(LANES, name, FALLBACK)
        if not isinstance(other, str) or other not in known:
            names = ", ".join(one for one in known if one != name) or "none"
            words = f"{place}: {clean(str(other), 40)!r} is no lane of this file"
            yield UsageError(words, hint=f"name one of the others: {names}")
        elif name in (path := [*_path(known, other)]):
            yield UsageError(f"{place}: the fallback of {name} leads back to it: {' → '.join([name, *path])}")


def _path(known: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[str]:
    seen: set[str] = set()
    while isinstance(name, str) and name in known and name not in seen:
        seen.add(name)
        yield name
        name = known[name].get(FALLBACK, "")
