"""`bdauto reap`."""

from contextlib import ExitStack
from typing import Annotated

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import finish, opened, runner_with_jobs, telling, writer
from bdauto.cli.lane_settings import PerLane, begin
from bdauto.cli.options import SWEEPING, Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.common.clock import Runtime
from bdauto.common.log import about
from bdauto.domain.defaults import REAPER
from bdauto.domain.outcome import Report, merged
from bdauto.domain.settings import BdSettings, ReapSettings, TelemetrySettings

AS_REAPER = BdSettings(actor=REAPER)


@with_options
def reap(
    *,
    lanes: Annotated[PerLane, Part(ReapSettings), Part(AgentSettings, SWEEPING), Part(BdSettings, default=AS_REAPER)],
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Reap the beads in progress whose agent died: one sweep, then exit."""
    parts = []
    for lane in lanes.serves:
        with lanes.naming(lane):
            kinds.exclude_each_other(lane.agent)
        kind = kinds.chosen(lane.agent)
        parts.append((lane.bd, *([kind.part(lane.agent)] if kind else []), lane.reap))
    started = begin("reap", output, lanes, parts, telemetry)
    runtime = Runtime()
    from bdauto.controllers.reaper import Reaper
    from bdauto.loop.shutdown import Stop

    with ExitStack() as stack:
        dry_run = lanes.serves[0].reap.dry_run
        trackers = [stack.enter_context(opened(lane.bd, lanes.view(lane), readonly=dry_run)) for lane in lanes.serves]
        stop = stack.enter_context(Stop())
        sweeps, told = [], []
        for lane, tracker in zip(lanes.serves, trackers, strict=True):
            runner = runner_with_jobs(lane.agent, lane.bd, lanes.view(lane))
            shielded = stop.shield(writer(tracker, runtime, dry_run))
            sweeps.append((lane.name, Reaper(tracker, shielded, runner, lane.reap, runtime)))
            told.append((tracker, runner, {"reap": lane.reap}))
        reports: list[tuple[str, Report]] = []

        def work() -> Report:
            if not lanes.several:
                return sweeps[0][1].sweep()
            for name, reaper in sweeps:
                with about(lane=name):
                    reports.append((name, reaper.sweep()))
            return merged(reports)

        finish(started, lambda: stop.run(work), output.json, telling(telemetry, runtime, told, reports))
