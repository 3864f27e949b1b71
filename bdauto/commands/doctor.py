"""`bdauto doctor`."""

import contextlib
import sys

from bdauto import options
from bdauto.bd import Bd
from bdauto.doctor import as_json, examine
from bdauto.errors import UsageError
from bdauto.report import envelope
from bdauto.runtime import Runtime
from bdauto.session import LazyServices, opened, start_log


def doctor(
    beadboard_url: options.BeadBoardUrl = None,
    agent_url: options.AgentUrl = None,
    agent_token_file: options.AgentTokenFile = None,
    timeout: options.Timeout = options.TIMEOUT,
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    assignee: options.Assignee = "agent",
    actor: options.Actor = "beads-dispatcher",
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """Check bd, the database, the services and the clocks, and say what to mend; writes nothing."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    as_given = options.service_settings(beadboard_url, agent_url, agent_token_file, timeout, check=str)
    services = LazyServices(as_given)  # a URL that is none is a finding
    start_log(log_format, verbose)
    with contextlib.ExitStack() as stack:
        tracker: Bd | UsageError
        try:
            tracker = stack.enter_context(opened(bd_settings, readonly=True))
        except UsageError as error:
            tracker = error
        checks = list(examine(tracker, services, Runtime()))
    if json:
        sys.stdout.write(envelope("doctor", as_json(checks)) + "\n")
    else:
        from bdauto import views

        views.show(views.doctor_view(checks))
    for check in checks:
        if check.error:
            raise type(check.error)(f"{check.name}: {check.error}")
