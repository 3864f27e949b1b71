"""`bdauto explain`, and the completion of bead ids."""

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from bdauto import options
from bdauto.errors import BdautoError
from bdauto.explain import as_json, explanation
from bdauto.report import envelope
from bdauto.runtime import Runtime
from bdauto.session import open_services, opened, start_log
from bdauto.settings import BdSettings, OnStall
from bdauto.text import clean

COMPLETION_TIMEOUT = timedelta(seconds=2)
"""Longer than that nobody waits after a press of Tab."""


def complete(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Complete the id of one of the assignee's beads, with its title; quick, and silent when bd fails."""
    told = {key: value for key, value in ctx.params.items() if value is not None}
    settings = BdSettings(
        bd=str(told.get("bd", "bd")),
        db=Path(told["db"]) if "db" in told else None,
        metadata=Path(told["metadata"]) if "metadata" in told else None,
        bd_timeout=COMPLETION_TIMEOUT,
        assignee=str(told.get("assignee", "agent")),
    )
    try:
        with opened(settings, readonly=True) as tracker:
            beads = tracker.assigned(("open", "in_progress", "blocked", "deferred")).result().beads
    except BdautoError:
        return
    yield from ((bead.id, _plain(bead.title)) for bead in beads if bead.id.startswith(incomplete))


def _plain(title: str) -> str:
    """Reduce a title to words: a shell evaluates what the completion script is given."""
    return " ".join(re.findall(r"[\w.,-]+", clean(title, 60)))


def explain(
    bead: Annotated[str, typer.Argument(metavar="ID", help="The bead.", autocompletion=complete)],
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
    """Say why a bead is where it is: its verdict, every condition behind it, and what would mend it."""
    bd_settings = options.bd_settings(bd, db, metadata, bd_timeout, assignee, actor)
    services = open_services(options.service_settings(beadboard_url, agent_url, agent_token_file, timeout))
    dispatch = options.dispatch_settings(1, 3, exclude_type, trusted_creator, label, exclude_label)
    reap = options.reap_settings(threshold, grace, OnStall.block, 3, 10)
    start_log(log_format, verbose)
    with opened(bd_settings, readonly=True) as tracker:
        explained = explanation(tracker, services, bead, dispatch, reap, Runtime().now())
    if json:
        sys.stdout.write(envelope("explain", as_json(explained)) + "\n")
        return
    from bdauto import views

    views.show(views.explain_view(explained))
