"""`bdauto dispatch`."""

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import LazyRunner, begin, finish, opened, telling, wait_for_jobs, writer
from bdauto.cli.options import with_options
from bdauto.cli.validation import check_dispatch
from bdauto.clock import Runtime
from bdauto.domain.settings import BdSettings, DispatchSettings, OutputSettings, TelemetrySettings
from bdauto.errors import BdautoError


@with_options
def dispatch(
    agent: AgentSettings,
    settings: DispatchSettings,
    bd: BdSettings,
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Dispatch the most urgent ready beads: one cycle, then exit."""
    kind = kinds.required(agent)
    check_dispatch(settings, agent)
    started = begin("dispatch", output, bd, kind.part(agent), settings, telemetry)
    runtime, runner = Runtime(), LazyRunner(kind, agent, bd)
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
