"""`bdauto runs`."""

import json
import sys
from datetime import timedelta
from typing import Annotated

from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import open_runner, start_log
from bdauto.cli.lane_settings import PerLane
from bdauto.cli.options import LOOKING, Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import SCHEMA_VERSION
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.diagnostics.run_list import ListedRun, gather_runs, newest
from bdauto.domain.history import RunResult
from bdauto.domain.settings import BdSettings, RunsSettings

LATELY = timedelta(days=7)
"""How far back runs are listed if nothing else is asked for."""


@with_options
def runs(
    view: RunsSettings,
    lanes: Annotated[PerLane, Part(AgentSettings, LOOKING), Part(BdSettings)],
    output: OutputSettings,
) -> None:
    """List the runs of the agent, newest first: why each ended, how long it took, what it cost."""
    start_log(output)
    now = Runtime().now().astimezone()
    since = view.since.moment(now) if view.since else None if view.bead else now - LATELY
    asked = [*([RunResult.failed] if view.failed else []), *([RunResult.running] if view.running else [])]
    found: list[ListedRun] = []
    for lane in [lanes.of_bead(view.bead)] if view.bead else lanes.serves:
        runner = open_runner(lane.agent, lane.bd, lanes.view(lane))
        with lanes.opened(lane) as tracker:
            more, malformed = gather_runs(tracker, runner, view.bead, since, asked or tuple(RunResult))
        found += more
        for entry in malformed:
            log.warning("malformed", detail=entry)
    found = newest(found) if lanes.several else found
    if output.json:
        listed = {"schema_version": SCHEMA_VERSION, "runs": [one.as_json() for one in found]}
        sys.stdout.write(json.dumps(listed) + "\n")
        return
    from bdauto.cli import run_view, tables

    tables.show(run_view.RunsView(found, now))
