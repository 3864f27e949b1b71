"""`bdauto dispatch`."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import msgspec

from bdauto.agents.kinds import AgentSettings
from bdauto.cli.context import LazyRunner, finish, opened, telling, wait_for_jobs, writer
from bdauto.cli.lane_settings import PerLane, begin
from bdauto.cli.options import Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError
from bdauto.common.log import about
from bdauto.domain.outcome import Report, merged
from bdauto.domain.settings import BdSettings, DispatchSettings, TelemetrySettings

if TYPE_CHECKING:
    from bdauto.bd.client import Bd
    from bdauto.loop.shutdown import Stop


@with_options
def dispatch(
    lanes: Annotated[PerLane, Part(AgentSettings), Part(DispatchSettings), Part(BdSettings)],
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Dispatch the most urgent ready beads: one cycle, then exit."""
    kinds = [lanes.required(lane) for lane in lanes.serves]
    parts = [(lane.bd, kind.part(lane.agent), lane.dispatch) for kind, lane in zip(kinds, lanes.serves, strict=True)]
    started = begin("dispatch", output, lanes, parts, telemetry)
    runtime = Runtime()
    runners = [
        LazyRunner(kind, lane.agent, lane.bd, lanes.view(lane)) for kind, lane in zip(kinds, lanes.serves, strict=True)
    ]
    from bdauto.controllers.lane_turns import dispatch_in_turns
    from bdauto.loop.shutdown import Stop

    with ExitStack() as stack:
        dry_run = lanes.serves[0].dispatch.dry_run
        trackers = [stack.enter_context(opened(lane.bd, lanes.view(lane), readonly=dry_run)) for lane in lanes.serves]
        stop = stack.enter_context(Stop())
        cycles, told = {}, []
        for lane, tracker, runner in zip(lanes.serves, trackers, runners, strict=True):
            cycles[lane.name] = _cycles(lanes.name(lane), tracker, runner, lane.dispatch, runtime, stop)
            told.append((tracker, runner, {"dispatch": lane.dispatch}))
        most = {lane.name: lane.dispatch.max_beads for lane in lanes.serves}
        reports: list[tuple[str, Report]] = []

        def work() -> Report:
            if not lanes.several:
                [(name, cycle)] = cycles.items()
                return cycle(most[name])
            reports.extend(dispatch_in_turns(cycles, most, runtime.rng, dry_run=dry_run))
            return merged(reports)

        try:
            finish(started, lambda: stop.run(work), output.json, telling(telemetry, runtime, told, reports))
        except BdautoError:
            wait_for_jobs(runners, runtime)
            raise
        wait_for_jobs(runners, runtime)


def _cycles(
    name: str, tracker: "Bd", runner: LazyRunner, settings: DispatchSettings, runtime: Runtime, stop: "Stop"
) -> Callable[[int], Report]:
    """Return what dispatches up to so many beads of a lane. The log has its name."""
    from bdauto.controllers.dispatcher import Dispatcher
    from bdauto.controllers.gate import Gate, Known

    shielded = stop.shield(writer(tracker, runtime, settings.dry_run))

    def cycle(most: int) -> Report:
        own = msgspec.structs.replace(settings, max_beads=most)
        gate = Gate(tracker, runner, own, runtime.now, Known(stopping=lambda: stop.asked))
        with about(lane=name):
            return Dispatcher(tracker, shielded, runner, own, runtime, gate).cycle()

    return cycle
