"""`bdauto status`."""

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

from typer.core import TyperCommand

from bdauto import options
from bdauto.attention import attention
from bdauto.errors import BdError, PartlyDone, UsageError
from bdauto.report import envelope
from bdauto.runtime import Runtime
from bdauto.session import open_services, opened, start_log
from bdauto.settings import OnStall
from bdauto.status import Snapshot, gather
from bdauto.status import as_json as status_json


class Watchable(TyperCommand):
    """A command whose `--watch` may stand without its duration, which Typer's options cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--watch` its duration, then parse."""
        told: list[str] = []
        for place, word in enumerate(args, 1):
            told.append(word)
            if word == "--watch" and (place == len(args) or args[place].startswith("-")):
                told.append(options.WATCH)
        return super().parse_args(ctx, told)


COMMAND_CLASS = Watchable


def status(
    check: options.Check = False,
    watch: options.Watch = None,
    limit: options.Limit = 20,
    beadboard_url: options.BeadBoardUrl = None,
    agent_url: options.AgentUrl = None,
    agent_token_file: options.AgentTokenFile = None,
    timeout: options.Timeout = options.TIMEOUT,
    threshold: options.Threshold = options.THRESHOLD,
    grace: options.Grace = options.GRACE,
    exclude_type: options.ExcludeTypes = ["epic"],  # noqa: B006 - Typer copies it
    trusted_creator: options.TrustedCreators = [],  # noqa: B006
    label: options.Labels = [],  # noqa: B006
    exclude_label: options.ExcludeLabels = [],  # noqa: B006
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
    """Show the queue with its verdicts, what is in progress, and how the services are."""
    interval = options.duration("--watch", watch) if watch else None
    if interval and check:
        raise UsageError("--watch and --check exclude each other: a watch has no exit status")
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    services = open_services(options.service_settings(beadboard_url, agent_url, agent_token_file, timeout))
    dispatch = options.dispatch_settings(1, 3, exclude_type, trusted_creator, label, exclude_label)
    reap = options.reap_settings(threshold, grace, OnStall.block, 3, 10)
    start_log(log_format, verbose)
    runtime = Runtime()
    with opened(bd_settings, readonly=True) as tracker:

        def look() -> Snapshot:
            return gather(tracker, services, dispatch, reap, runtime.now(), limit)

        if interval:
            watch_it(look, interval, limit, json, runtime)
        snapshot = look()
        needs = attention(snapshot)
        show(snapshot, needs, limit, json)
        if check and needs:
            raise PartlyDone(f"a person is needed: {'; '.join(needs)}")


def show(snapshot: Snapshot, needs: list[str], limit: int, as_json: bool) -> None:
    """Print a snapshot on stdout."""
    if as_json:
        fields = {"attention": needs, **status_json(snapshot, limit)}
        sys.stdout.write(envelope("status", fields) + "\n")
        sys.stdout.flush()
        return
    from bdauto import views

    views.show(views.status_view(snapshot, limit, needs))


def watch_it(
    look: Callable[[], Snapshot], interval: timedelta, limit: int, as_json: bool, runtime: Runtime
) -> NoReturn:
    """Print snapshots until interrupted: in place on a terminal, else one after the other.

    A bd that fails is shown and asked again.
    """
    from bdauto import views

    with views.redrawn(in_place=not as_json) as draw:
        while True:
            try:
                snapshot = look()
            except BdError as error:
                draw(views.failed(error))
            else:
                if as_json:
                    show(snapshot, attention(snapshot), limit, as_json)
                else:
                    draw(views.status_view(snapshot, limit, attention(snapshot)))
            runtime.sleep(interval.total_seconds())
