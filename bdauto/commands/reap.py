"""`bdauto reap`."""

from bdauto import options
from bdauto.runtime import Runtime
from bdauto.session import LazyServices, begin, finish, opened, telling, writer
from bdauto.settings import OnStall


def reap(
    threshold: options.Threshold = options.THRESHOLD,
    grace: options.Grace = options.GRACE,
    on_stall: options.OnStallOption = OnStall.block,
    max_attempts: options.MaxAttempts = 3,
    max_reap: options.MaxReap = 10,
    force: options.Force = False,
    agent_url: options.AgentUrl = None,
    agent_token_file: options.AgentTokenFile = None,
    timeout: options.Timeout = options.TIMEOUT,
    ignore_pause: options.IgnorePause = False,
    dry_run: options.DryRun = False,
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    assignee: options.Assignee = "agent",
    actor: options.Actor = "beads-reaper",
    metrics_file: options.MetricsFile = None,
    pushgateway: options.PushgatewayUrl = None,
    notify_url: options.NotifyUrls = [],  # noqa: B006 - Typer copies it
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """Settle the beads in progress whose agent died: one sweep, then exit."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    service_settings = options.service_settings(None, agent_url, agent_token_file, timeout)
    settings = options.reap_settings(threshold, grace, on_stall, max_attempts, max_reap, force, ignore_pause, dry_run)
    watch = options.watch_settings(metrics_file, pushgateway, notify_url)
    started = begin("reap", log_format, verbose, bd_settings, service_settings, settings, watch)
    runtime = Runtime()
    services = LazyServices(service_settings) if service_settings.agent_url else None
    from bdauto.reap import Reaper

    with opened(bd_settings, readonly=dry_run) as tracker:
        reaper = Reaper(tracker, writer(tracker, runtime, dry_run), services, settings, runtime)
        finish(started, reaper.sweep, json, telling(watch, runtime, tracker, services, None, settings))
