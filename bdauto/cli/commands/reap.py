"""`bdauto reap`."""

from typing import Annotated

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import begin, finish, opened, runner_with_jobs, telling, writer
from bdauto.cli.options import SWEEPING, with_options
from bdauto.clock import Runtime
from bdauto.domain.defaults import REAPER
from bdauto.domain.settings import BdSettings, OutputSettings, ReapSettings, TelemetrySettings

AS_REAPER = BdSettings(actor=REAPER)


@with_options
def reap(
    *,
    settings: ReapSettings,
    agent: Annotated[AgentSettings, SWEEPING],
    bd: BdSettings = AS_REAPER,
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Reap the beads in progress whose agent died: one sweep, then exit."""
    kinds.exclude_each_other(agent)
    kind = kinds.chosen(agent)
    started = begin("reap", output, bd, *([kind.part(agent)] if kind else []), settings, telemetry)
    runtime = Runtime()
    runner = runner_with_jobs(agent, bd)
    from bdauto.controllers.reaper import Reaper
    from bdauto.loop.shutdown import ShieldedWriter, Stop

    with opened(bd, readonly=settings.dry_run) as tracker, Stop() as stop:
        shielded = ShieldedWriter(writer(tracker, runtime, settings.dry_run), stop.enter_critical_section)
        reaper = Reaper(tracker, shielded, runner, settings, runtime)
        tell = telling(telemetry, runtime, tracker, runner, reap=settings)
        finish(started, lambda: stop.run(reaper.sweep), output.json, tell)
