"""`bdauto doctor`."""

import contextlib
import sys
from typing import Annotated, NoReturn

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.client import Bd
from bdauto.cli.context import LazyRunner, opened, start_log
from bdauto.cli.options import Offer, with_options
from bdauto.cli.printing import envelope
from bdauto.cli.telemetry_checks import telemetry_checks
from bdauto.clock import Runtime
from bdauto.diagnostics.checks import as_json, examine
from bdauto.domain.settings import BdSettings, OutputSettings, TelemetrySettings
from bdauto.errors import UsageError


def nothing() -> NoReturn:
    """Stand for what runs the agent if nothing is configured. Raises UsageError."""
    raise kinds.missing()


@with_options
def doctor(
    agent: Annotated[AgentSettings, Offer(check=False)],
    bd: BdSettings,
    telemetry: Annotated[TelemetrySettings, Offer(check=False)],
    output: OutputSettings,
) -> None:
    """Check bd, the database, the services or the agent command, and the clocks. Say what to fix. Writes nothing."""
    settings = kinds.complete(agent)  # an invalid URL, and a command that is none, are findings
    kinds.exclude_each_other(settings)
    kind = kinds.chosen(settings)
    runner = LazyRunner(kind, settings, bd, checked=False) if kind else nothing
    start_log(output)
    with contextlib.ExitStack() as stack:
        tracker: Bd | UsageError
        try:
            tracker = stack.enter_context(opened(bd, readonly=True))
        except UsageError as error:
            tracker = error
        checks = [*examine(tracker, runner, Runtime()), *telemetry_checks(telemetry)]
    if output.json:
        sys.stdout.write(envelope("doctor", as_json(checks)) + "\n")
    else:
        from bdauto.cli import tables

        tables.show(tables.doctor_view(checks))
    for check in checks:
        if check.error:
            raise type(check.error)(f"{check.name}: {check.error}")
