"""`bdauto doctor`."""

import contextlib
import sys
from typing import Annotated

from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.bd.client import Bd
from bdauto.cli.context import LazyLocalAgent, LazyServices, opened, start_log
from bdauto.cli.options import Offer, with_options
from bdauto.cli.printing import envelope
from bdauto.cli.telemetry_checks import telemetry_checks
from bdauto.cli.validation import exclude_each_other, with_token
from bdauto.clock import Runtime
from bdauto.diagnostics.checks import as_json, examine
from bdauto.domain.settings import BdSettings, OutputSettings, TelemetrySettings
from bdauto.errors import UsageError


@with_options
def doctor(
    services: Annotated[ServiceSettings, Offer(check=False)],
    local: LocalAgentSettings,
    bd: BdSettings,
    telemetry: Annotated[TelemetrySettings, Offer(check=False)],
    output: OutputSettings,
) -> None:
    """Check bd, the database, the services or the agent command, and the clocks. Say what to fix. Writes nothing."""
    exclude_each_other(services, local)
    # An invalid URL, and a command that is none, are findings.
    runner = LazyLocalAgent(local, bd, checked=False) if local.agent_command else LazyServices(with_token(services))
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
