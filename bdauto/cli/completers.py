"""What the shell is offered when somebody presses Tab: the ids of beads, with their titles. Nothing if bd fails."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import typer

from bdauto.cli.fields import as_text, fields_of
from bdauto.cli.validation import check_bd
from bdauto.common.errors import BdautoError
from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.settings import BdSettings

TIMEOUT = timedelta(seconds=2)
"""How long a person may wait after pressing Tab."""
UNFINISHED = ("open", "in_progress", "blocked", "deferred")
LATELY = 50
"""Beads that were updated last and are offered though they are closed."""


def unfinished(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the assignee's beads that are not closed."""
    return _offer(ctx, incomplete, UNFINISHED)


def running(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the assignee's beads in progress."""
    return _offer(ctx, incomplete, ("in_progress",))


def known(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the assignee's beads that are not closed, or were updated lately."""
    return _offer(ctx, incomplete, UNFINISHED, lately=LATELY)


def lanes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the lanes of the configuration file."""
    return [name for name in getattr(ctx.obj, "lanes", ()) if name.startswith(incomplete)]


def _offer(
    ctx: typer.Context, incomplete: str, statuses: tuple[str, ...], lately: int = 0
) -> Iterator[tuple[str, str]]:
    try:
        settings = _settings(ctx.params)
        found = [_beads(one, statuses, lately) for one in _of_lanes(settings, getattr(ctx.obj, "lanes", {}))]
        beads = {bead.id: bead for each in found for bead in each}
    except BdautoError:
        return
    yield from ((bead.id, _plain(bead.title)) for bead in beads.values() if bead.id.startswith(incomplete))


def _beads(settings: BdSettings, statuses: tuple[str, ...], lately: int) -> Iterable[Bead]:
    from bdauto.cli.context import opened

    with opened(settings, readonly=True) as tracker:
        calls = [tracker.assigned(statuses), *([tracker.recent(lately)] if lately else [])]
        return [bead for call in calls for bead in call.result().beads]


def _of_lanes(settings: BdSettings, lanes: Mapping[str, Any]) -> list[BdSettings]:
    """Return the settings for each assignee that a lane of the configuration file names, else these."""
    names = {section.values.get("assignee", settings.assignee) for section in lanes.values()}
    return [msgspec.structs.replace(settings, assignee=name) for name in sorted(names)] or [settings]


def _settings(values: Mapping[str, Any]) -> BdSettings:
    """Return the settings of bd from what Typer has parsed so far. Nothing is written, so the actor does not matter."""
    fields = [field for field in fields_of(BdSettings, BdSettings()) if field.name in values and field.name != "actor"]
    given = {field.name: values[field.name] for field in fields if values[field.name] is not None}
    parsed = {
        field.name: field.parse(given[field.name])
        for field in fields
        if field.name in given and given[field.name] != as_text(field.default)
    }
    return check_bd(msgspec.structs.replace(BdSettings(**parsed), bd_timeout=TIMEOUT))


def _plain(title: str) -> str:
    """Reduce a title to words, because a shell evaluates what a completion script gets."""
    return " ".join(re.findall(r"[\w.,-]+", clean(title, 60)))
