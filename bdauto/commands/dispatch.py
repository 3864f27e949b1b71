"""`bdauto dispatch`."""

from bdauto import options
from bdauto.errors import UsageError
from bdauto.runtime import Runtime
from bdauto.session import LazyServices, begin, finish, opened, telling, writer


def dispatch(
    beadboard_url: options.BeadBoardUrl = None,
    agent_url: options.AgentUrl = None,
    agent_token_file: options.AgentTokenFile = None,
    timeout: options.Timeout = options.TIMEOUT,
    max_beads: options.Max = 1,
    max_attempts: options.MaxAttempts = 3,
    exclude_type: options.ExcludeTypes = ["epic"],  # noqa: B006 - Typer copies it
    trusted_creator: options.TrustedCreators = [],  # noqa: B006
    label: options.Labels = [],  # noqa: B006
    exclude_label: options.ExcludeLabels = [],  # noqa: B006
    ignore_pause: options.IgnorePause = False,
    dry_run: options.DryRun = False,
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    assignee: options.Assignee = "agent",
    actor: options.Actor = "beads-dispatcher",
    metrics_file: options.MetricsFile = None,
    pushgateway: options.PushgatewayUrl = None,
    notify_url: options.NotifyUrls = [],  # noqa: B006
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """Dispatch the most urgent ready beads: one cycle, then exit."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    service_settings = options.service_settings(beadboard_url, agent_url, agent_token_file, timeout)
    settings = options.dispatch_settings(
        max_beads, max_attempts, exclude_type, trusted_creator, label, exclude_label, ignore_pause, dry_run
    )
    if service_settings.beadboard_url is None:
        raise UsageError("the URL of BeadBoard is not set: give --beadboard-url or BEADBOARD_URL")
    watch = options.watch_settings(metrics_file, pushgateway, notify_url)
    started = begin("dispatch", log_format, verbose, bd_settings, service_settings, settings, watch)
    runtime, services = Runtime(), LazyServices(service_settings)
    from bdauto.dispatch import Dispatcher

    with opened(bd_settings, readonly=dry_run) as tracker:
        dispatcher = Dispatcher(tracker, writer(tracker, runtime, dry_run), services, settings, runtime)
        finish(started, dispatcher.cycle, json, telling(watch, runtime, tracker, services, settings, None))
