"""`bdauto explain`."""

import sys
from typing import Annotated

from bdauto.cli import completers
from bdauto.cli.context import open_runner, start_log
from bdauto.cli.lane_settings import JudgedLanes
from bdauto.cli.options import argument, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.cli.validation import check_acceptance
from bdauto.common.clock import Runtime
from bdauto.diagnostics.explanation import as_json, explanation


@with_options
def explain(
    bead: Annotated[str, argument("ID", "The bead.", autocompletion=completers.unfinished)],
    lanes: JudgedLanes,
    output: OutputSettings,
) -> None:
    """Explain why a bead is where it is: its verdict, each condition behind it, and what would fix it."""
    for one in lanes.serves:
        with lanes.naming(one):
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
