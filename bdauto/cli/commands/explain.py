"""`bdauto explain`, and the completion of bead ids."""

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import msgspec
import typer

from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import open_runner, opened, start_log
from bdauto.cli.lanes import PerLane
from bdauto.cli.options import DISPATCHING, LOOKING, Offer, Part, argument, bd_settings, with_options
from bdauto.cli.printing import envelope
from bdauto.cli.validation import check_acceptance
from bdauto.clock import Runtime
from bdauto.diagnostics.explanation import as_json, explanation
from bdauto.domain.settings import BdSettings, DispatchSettings, OutputSettings, ReapSettings
from bdauto.errors import BdautoError
from bdauto.sanitize import clean

COMPLETION_TIMEOUT = timedelta(seconds=2)
"""How long a person may wait after pressing Tab."""


def complete(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Complete the id of one of the assignee's beads, with its title. Return nothing if bd fails."""
    try:
        settings = msgspec.structs.replace(bd_settings(ctx.params), bd_timeout=COMPLETION_TIMEOUT)
        with opened(settings, readonly=True) as tracker:
            beads = tracker.assigned(("open", "in_progress", "blocked", "deferred")).result().beads
    except BdautoError:
        return
    yield from ((bead.id, _plain(bead.title)) for bead in beads if bead.id.startswith(incomplete))


def _plain(title: str) -> str:
    """Reduce a title to words, because a shell evaluates what a completion script gets."""
    return " ".join(re.findall(r"[\w.,-]+", clean(title, 60)))


@with_options
def explain(
    bead: Annotated[str, argument("ID", "The bead.", autocompletion=complete)],
    lanes: Annotated[
        PerLane,
        Part(AgentSettings, LOOKING),
        Part(ReapSettings, Offer(only=("threshold", "grace"))),
        Part(DispatchSettings, DISPATCHING),
        Part(BdSettings),
    ],
    output: OutputSettings,
) -> None:
    """Explain why a bead is where it is: its verdict, each condition behind it, and what would fix it."""
    for one in lanes.serves:
        check_acceptance(one.dispatch, one.agent)
    lane = lanes.of_bead(bead)
    open_to = open_runner(lane.agent, lane.bd, lanes.view(lane))
    start_log(output)
    with lanes.opened(lane) as tracker:
        explained = explanation(tracker, open_to, bead, lane.dispatch, lane.reap, Runtime().now())
    if output.json:
        sys.stdout.write(envelope("explain", as_json(explained)) + "\n")
        return
    from bdauto.cli import tables

    tables.show(tables.explain_view(explained))
