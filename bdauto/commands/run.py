"""`bdauto run`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bdauto import log, options
from bdauto.errors import UsageError
from bdauto.report import show
from bdauto.runtime import Runtime
from bdauto.session import LazyServices, begin, opened, writer
from bdauto.settings import OnStall

if TYPE_CHECKING:
    from bdauto.health import Pages
    from bdauto.run import Loop


def run(
    dispatch_every: options.DispatchEvery = options.DISPATCH_EVERY,
    reap_every: options.ReapEvery = options.REAP_EVERY,
    listen: options.Listen = None,
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
    threshold: options.Threshold = options.THRESHOLD,
    grace: options.Grace = options.GRACE,
    on_stall: options.OnStallOption = OnStall.block,
    max_reap: options.MaxReap = 10,
    force: options.Force = False,
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
    """Dispatch and reap in one process until SIGTERM or SIGINT; --json reports each cycle that touched a bead."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    service_settings = options.service_settings(beadboard_url, agent_url, agent_token_file, timeout)
    dispatch_settings = options.dispatch_settings(
        max_beads, max_attempts, exclude_type, trusted_creator, label, exclude_label, ignore_pause, dry_run
    )
    reap_settings = options.reap_settings(
        threshold, grace, on_stall, max_attempts, max_reap, force, ignore_pause, dry_run
    )
    run_settings = options.run_settings(dispatch_every, reap_every, listen)
    watch_settings = options.watch_settings(metrics_file, pushgateway, notify_url)
    if service_settings.beadboard_url is None:
        raise UsageError("the URL of BeadBoard is not set: give --beadboard-url or BEADBOARD_URL")
    if listen:
        options.need("prometheus_client", "metrics", "--listen")
    from bdauto import notify
    from bdauto.run import Jobs, Loop
    from bdauto.stop import Stop
    from bdauto.watch import Watch

    notify.check(watch_settings.notify_urls)
    services = LazyServices(service_settings)
    services()  # a URL that is none is told of now
    begin(
        "run", log_format, verbose, bd_settings, service_settings, run_settings, dispatch_settings, reap_settings,
        watch_settings,
    )  # fmt: skip
    jobs = Jobs(run_settings, dispatch_settings, reap_settings, counting=bool(listen) or watch_settings.metrics)
    runtime = Runtime()
    watch = Watch(watch_settings, "dispatch", "reap", show=(lambda report: show(report, True)) if json else None)
    with ExitStack() as stack:
        tracker = stack.enter_context(opened(bd_settings, readonly=dry_run))
        stop = stack.enter_context(Stop())
        loop = Loop(tracker, lambda: writer(tracker, runtime, dry_run), services, jobs, runtime, stop, watch)
        if run_settings.listen:
            stack.enter_context(_listening(run_settings.listen, loop))
        loop.run()
        watch.close()
        log.event("end", outcome="stopped", signal=stop.signal)


@contextmanager
def _listening(address: tuple[str, int], loop: "Loop") -> Iterator[None]:
    from bdauto.health import Listener

    listener = Listener(address, _pages(loop))
    log.event("listening", address=listener.address)
    try:
        yield
    finally:
        listener.close()


def _pages(loop: "Loop") -> "Pages":
    from prometheus_client import CONTENT_TYPE_LATEST

    from bdauto.health import Page
    from bdauto.metrics import page

    def said(good: bool, yes: bytes, no: bytes) -> Page:
        return Page(200, yes) if good else Page(503, no)

    return {
        "/healthz": lambda: said(loop.alive(), b"alive\n", b"the loop does not move\n"),
        "/readyz": lambda: said(loop.ready(), b"ready\n", b"bd or BeadBoard did not answer\n"),
        "/metrics": lambda: Page(200, page(loop.watch.metrics.samples()), CONTENT_TYPE_LATEST),
    }
