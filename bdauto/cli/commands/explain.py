"""`bdauto explain`."""

import sys
from typing import Annotated

from bdauto.agents.kinds import AgentSettings
from bdauto.cli import completion
from bdauto.cli.context import open_runner, start_log
from bdauto.cli.lanes import PerLane
from bdauto.cli.options import DISPATCHING, LOOKING, Offer, Part, argument, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.cli.validation import check_acceptance
from bdauto.clock import Runtime
from bdauto.diagnostics.explanation import as_json, explanation
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings


@with_options
def explain(
    bead: Annotated[str, argument("ID", "The bead.", autocompletion=completion.unfinished)],
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
