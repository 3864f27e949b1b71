"""`bdauto reap`."""

from typing import Annotated

from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.cli.context import begin, finish, has_jobs, lazy_runner, opened, telling, writer
from bdauto.cli.options import Offer, with_options
from bdauto.cli.validation import exclude_each_other
from bdauto.clock import Runtime
from bdauto.domain.defaults import REAPER
from bdauto.domain.settings import BdSettings, OutputSettings, ReapSettings, TelemetrySettings

AS_REAPER = BdSettings(actor=REAPER)


@with_options
def reap(
    *,
    settings: ReapSettings,
    services: Annotated[ServiceSettings, Offer(without=("beadboard_url",))],
    local: Annotated[LocalAgentSettings, Offer(only=("agent", "agent_command", "agent_jobs"))],
    bd: BdSettings = AS_REAPER,
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Reap the beads in progress whose agent died: one sweep, then exit."""
    exclude_each_other(services, local)
    started = begin("reap", output, bd, services, settings, telemetry)
    runtime = Runtime()
    runner = lazy_runner(services, local, bd) if services.agent_url or has_jobs(local, bd) else None
    from bdauto.controllers.reaper import Reaper
    from bdauto.loop.shutdown import ShieldedWriter, Stop

    with opened(bd, readonly=settings.dry_run) as tracker, Stop() as stop:
        shielded = ShieldedWriter(writer(tracker, runtime, settings.dry_run), stop.enter_critical_section)
        reaper = Reaper(tracker, shielded, runner, settings, runtime)
        tell = telling(telemetry, runtime, tracker, runner, reap=settings)
        finish(started, lambda: stop.run(reaper.sweep), output.json, tell)
