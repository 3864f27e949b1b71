"""`bdauto worktrees`."""

import sys
from typing import Annotated

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import LazyRunner, start_log
from bdauto.cli.lane_settings import PerLane
from bdauto.cli.options import Offer, Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.domain.settings import BdSettings, WorktreesSettings


@with_options
def worktrees(
    view: WorktreesSettings,
    lanes: Annotated[PerLane, Part(AgentSettings, Offer(only=kinds.WORKTREES)), Part(BdSettings)],
    output: OutputSettings,
) -> None:
    """List the worktrees of beads: commits, changes, the last result. With --remove, remove those that are merged."""
    from bdauto.agents.local.runner import LocalAgent

    start_log(output)
    found = []
    for lane in lanes.serves:
        runner = LazyRunner(kinds.LOCAL, lane.agent, lane.bd, lanes.view(lane))()
        assert isinstance(runner, LocalAgent)
        more = runner.worktrees(remove=view.remove and not view.dry_run)
        found += [one for one in more if one not in found]  # lanes of one project have the same
    if output.json:
        fields = {"dry_run": view.dry_run, "worktrees": [msgspec.structs.asdict(one) for one in found]}
        sys.stdout.write(envelope("worktrees", fields) + "\n")
        return
    from bdauto.cli import tables, worktree_view

    tables.show(worktree_view.worktrees_view(found, remove=view.remove, dry_run=view.dry_run))
