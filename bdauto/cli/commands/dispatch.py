"""`bdauto dispatch`."""

from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.cli.context import begin, finish, lazy_runner, opened, telling, wait_for_jobs, writer
from bdauto.cli.options import with_options
from bdauto.cli.validation import check_costs, require_runner
from bdauto.clock import Runtime
from bdauto.domain.settings import BdSettings, DispatchSettings, OutputSettings, TelemetrySettings
from bdauto.errors import BdautoError


@with_options
def dispatch(
    services: ServiceSettings,
    local: LocalAgentSettings,
    settings: DispatchSettings,
    bd: BdSettings,
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Dispatch the most urgent ready beads: one cycle, then exit."""
    require_runner(services, local)
    check_costs(settings, local)
    started = begin("dispatch", output, bd, local if local.agent_command else services, settings, telemetry)
    runtime, runner = Runtime(), lazy_runner(services, local, bd)
    from bdauto.controllers.dispatcher import Dispatcher
    from bdauto.controllers.gate import Gate, Known
    from bdauto.loop.shutdown import ShieldedWriter, Stop

    with opened(bd, readonly=settings.dry_run) as tracker, Stop() as stop:
        gate = Gate(tracker, runner, settings, runtime.now, Known(stopping=lambda: stop.asked))
        shielded = ShieldedWriter(writer(tracker, runtime, settings.dry_run), stop.enter_critical_section)
        dispatcher = Dispatcher(tracker, shielded, runner, settings, runtime, gate)
        tell = telling(telemetry, runtime, tracker, runner, dispatch=settings)
        try:
            finish(started, lambda: stop.run(dispatcher.cycle), output.json, tell)
        except BdautoError:
            wait_for_jobs(runner, runtime)
            raise
        wait_for_jobs(runner, runtime)
