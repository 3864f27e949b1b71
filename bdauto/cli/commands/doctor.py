"""`bdauto doctor`."""

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Annotated

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings, Kind
from bdauto.agents.runner import CheckContext
from bdauto.bd.client import Bd
from bdauto.cli.context import LazyRunner, open_runner, opened, start_log
from bdauto.cli.options import ELIGIBILITY, Offer, with_options
from bdauto.cli.printing import envelope
from bdauto.cli.telemetry_checks import telemetry_checks
from bdauto.cli.validation import check_acceptance
from bdauto.clock import Runtime
from bdauto.diagnostics.checks import as_json, examine
from bdauto.domain.findings import Check
from bdauto.domain.settings import BdSettings, DispatchSettings, OutputSettings, TelemetrySettings
from bdauto.errors import UsageError


def agent_checks(kind: Kind | None, agent: AgentSettings, bd: BdSettings, context: CheckContext) -> Iterator[Check]:
    """Open what runs the agent, and return its checks. Raises UsageError and BdError.

    Where nothing is configured, it is this machine if it has jobs of this tracker.
    """
    if kind is None:
        runner = open_runner(agent, bd)
        if runner is None:
            raise kinds.missing()
        return kinds.LOCAL.checks(runner, context)
    return kind.checks(LazyRunner(kind, agent, bd, checked=False)(), context)


@with_options
def doctor(
    agent: Annotated[AgentSettings, Offer(check=False)],
    dispatch: Annotated[DispatchSettings, ELIGIBILITY],
    bd: BdSettings,
    telemetry: Annotated[TelemetrySettings, Offer(check=False)],
    output: OutputSettings,
) -> None:
    """Check bd, the database, the services or the agent command, and the clocks. Say what to fix. Writes nothing."""
    settings = kinds.complete(agent)  # an invalid URL, and a command that is none, are findings
    kinds.exclude_each_other(settings)
    check_acceptance(dispatch, settings)
    found = partial(agent_checks, kinds.chosen(settings), settings, bd)
    start_log(output)
    with contextlib.ExitStack() as stack:
        tracker: Bd | UsageError
        try:
            tracker = stack.enter_context(opened(bd, readonly=True))
        except UsageError as error:
            tracker = error
        checks = [*examine(tracker, found, Runtime(), dispatch), *telemetry_checks(telemetry)]
    if output.json:
        sys.stdout.write(envelope("doctor", as_json(checks)) + "\n")
    else:
        from bdauto.cli import tables

        tables.show(tables.doctor_view(checks))
    for check in checks:
        if check.error:
            raise type(check.error)(f"{check.name}: {check.error}")
