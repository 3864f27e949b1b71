"""The conditions by which settings choose among the beads of an assignee."""

import shlex
from collections.abc import Iterable, Iterator

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.settings import DispatchSettings


class Condition(msgspec.Struct, frozen=True):
    """One condition of dispatching a bead: what was found, and the command that would fix a failed one."""

    name: str
    passed: bool
    detail: str
    fix: str = ""


def selecting(bead: Bead, settings: DispatchSettings) -> Iterator[Condition]:
    """Yield the conditions by which the settings choose among the beads of an assignee, first that of the type."""
    yield _of_type(bead, settings)
    labels = set(bead.labels or ())
    if creators := settings.trusted_creators:
        trusted = bead.created_by in creators
        detail = f"created by {bead.created_by or 'nobody'}, who is {'' if trusted else 'not '}trusted"
        fix = f"bdauto dispatch --trusted-creator {shlex.quote(clean(bead.created_by) or 'NAME')}"
        yield Condition("trust", trusted, detail, fix)
    if settings.labels:
        missing = [label for label in settings.labels if label not in labels]
        detail = f"lacks label {missing[0]}" if missing else "has the labels asked for"
        fix = f"bd update {bead.id} {_each('--add-label', missing)}"
        yield Condition("label", not missing, detail, fix)
    if settings.exclude_labels:
        found = [label for label in settings.exclude_labels if label in labels]
        detail = f"has the excluded label {found[0]}" if found else "has no excluded label"
        fix = f"bd update {bead.id} {_each('--remove-label', found)}"
        yield Condition("exclude-label", not found, detail, fix)
    if settings.priorities:
        good = bead.priority in settings.priorities
        detail = f"priority {bead.priority}" + ("" if good else f" is not {_one_of(settings.priorities)}")
        yield Condition("priority", good, detail, f"bd update {bead.id} -p {settings.priorities[0]}")


def _of_type(bead: Bead, settings: DispatchSettings) -> Condition:
    """Judge the type. One that is asked for is not excluded."""
    name, words, fix = bead.issue_type, "", "task"
    if settings.types:
        words, fix = f" is not {_one_of(settings.types)}", settings.types[0]
        good = name in settings.types
    else:
        words, good = " is excluded", name not in settings.exclude_types
    return Condition("type", good, f"type {name}{'' if good else words}", f"bd update {bead.id} -t {shlex.quote(fix)}")


def _one_of(values: Iterable[object]) -> str:
    return " or ".join(map(str, values))


def _each(option: str, values: Iterable[str]) -> str:
    return " ".join(f"{option} {shlex.quote(value)}" for value in values)
