"""`bdauto doctor`."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings, Kind
from bdauto.agents.runner import CheckContext
from bdauto.bd.client import Bd
from bdauto.bd.tracker import tracker_of
from bdauto.cli.context import LazyRunner, open_runner, start_log
from bdauto.cli.lane_settings import LaneSettings, PerLane
from bdauto.cli.options import ELIGIBILITY, Offer, Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.cli.running_loops import given_to_run
from bdauto.cli.telemetry_checks import extras_checks, telemetry_checks
from bdauto.cli.validation import check_acceptance
from bdauto.common.clock import Runtime
from bdauto.common.errors import UsageError
from bdauto.diagnostics.checks import as_json, examine
from bdauto.domain.findings import Check, warn
from bdauto.domain.lanes import Lanes
from bdauto.domain.settings import BdSettings, DispatchSettings, TelemetrySettings

SHARE = "write it into the file that `bdauto config init` makes, which every command reads"


def agent_checks(
    kind: Kind | None, agent: AgentSettings, bd: BdSettings, lanes: Lanes, context: CheckContext
) -> Iterator[Check]:
    """Open what runs the agent, and return its checks. Raises UsageError and BdError.

    Where nothing is configured, it is this machine if it has jobs of this tracker.
    """
    if kind is None:
        runner = open_runner(agent, bd, lanes)
        if runner is None:
            raise kinds.missing()
        return kinds.LOCAL.checks(runner, context)
    return kind.checks(LazyRunner(kind, agent, bd, lanes, checked=False)(), context)


@with_options
def doctor(
    lanes: Annotated[
        PerLane,
        Part(AgentSettings, Offer(check=False)),
        Part(DispatchSettings, ELIGIBILITY),
        Part(BdSettings),
    ],
    telemetry: Annotated[TelemetrySettings, Offer(check=False)],
    output: OutputSettings,
) -> None:
    """Check bd, the database, the services or the agent command, and the clocks. Say what to fix. Writes nothing."""
    settings = []
    for lane in lanes.serves:
        with lanes.naming(lane):
            found = kinds.complete(lane.agent)  # an invalid URL, and a command that is none, are findings
            kinds.exclude_each_other(found)
            check_acceptance(lane.dispatch, found)
            settings.append(found)
    start_log(output)
    checks: list[Check] = []
    for lane, own_agent in zip(lanes.serves, settings, strict=True):
        name = lanes.name(lane)
        agent = given_to_run(own_agent, tracker_of(lane.bd), lane.bd, name)
        own = _checks(lanes, lane, agent)
        if agent is not own_agent:
            own.insert(0, warn("agent", "a `bdauto run` of this machine was given it, this command was not", SHARE))
        checks += [replace(one, name=f"{name}: {one.name}") for one in own] if name else own
    checks += [*extras_checks(), *telemetry_checks(telemetry)]
    if output.json:
        sys.stdout.write(envelope("doctor", as_json(checks)) + "\n")
    else:
        from bdauto.cli import tables

        tables.show(tables.doctor_view(checks))
    for check in checks:
        if check.error:
            raise type(check.error)(f"{check.name}: {check.error}")


def _checks(lanes: PerLane, lane: LaneSettings, agent: AgentSettings) -> list[Check]:
    """Check the tracker of a lane, and what runs its agent."""
    view = lanes.view(lane)
    found = partial(agent_checks, kinds.chosen(agent), agent, lane.bd, view)
    with contextlib.ExitStack() as stack:
        tracker: Bd | UsageError
        try:
            tracker = stack.enter_context(lanes.opened(lane))
        except UsageError as error:
            tracker = error
        return [*examine(tracker, found, Runtime().now, lane.dispatch)]
