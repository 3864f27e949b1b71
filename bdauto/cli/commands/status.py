"""`bdauto status`."""

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from typer.core import TyperCommand

from bdauto.agents.kinds import AgentSettings
from bdauto.cli import streams
from bdauto.cli.context import open_runner, opened, start_log
from bdauto.cli.options import DISPATCHING, LOOKING, Offer, with_options
from bdauto.cli.printing import envelope
from bdauto.cli.validation import check_acceptance
from bdauto.clock import Runtime
from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.snapshot import Snapshot, gather
from bdauto.diagnostics.snapshot import as_json as status_json
from bdauto.domain.settings import BdSettings, DispatchSettings, OutputSettings, ReapSettings, StatusSettings
from bdauto.errors import BdError, PartlyDone, UsageError


class Watchable(TyperCommand):
    """A command whose `--watch` works without a duration. Typer's options always need their value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--watch` its duration, then parse."""
        words: list[str] = []
        for place, word in enumerate(args, 1):
            words.append(word)
            if word == "--watch" and (place == len(args) or args[place].startswith("-")):
                words.append(WATCH)
        return super().parse_args(ctx, words)


WATCH = "2s"
COMMAND_CLASS = Watchable


@with_options
def status(
    view: StatusSettings,
    agent: Annotated[AgentSettings, LOOKING],
    reap: Annotated[ReapSettings, Offer(only=("threshold", "grace"))],
    dispatch: Annotated[DispatchSettings, DISPATCHING],
    bd: BdSettings,
    output: OutputSettings,
) -> None:
    """Show the queue with its verdicts, the beads in progress, and the state of the services."""
    interval, limit = view.watch, view.limit
    if interval and view.check:
        raise UsageError("--watch and --check exclude each other", hint="a watch has no exit status: give one of them")
    check_acceptance(dispatch, agent)
    open_to = open_runner(agent, bd)
    start_log(output)
    runtime = Runtime()
    with opened(bd, readonly=True) as tracker:

        def look() -> Snapshot:
            return gather(tracker, open_to, dispatch, reap, runtime.now(), limit, today=True)

        if interval:
            watch_it(look, interval, limit, output.json, runtime)
            return
        snapshot = look()
        needs = active_alerts(snapshot)
        show(snapshot, needs, limit, output.json)
        if view.check and needs:
            raise PartlyDone(f"a person is needed: {'; '.join(needs)}")


def show(snapshot: Snapshot, needs: list[str], limit: int, as_json: bool) -> None:
    """Print a snapshot on stdout."""
    if as_json:
        fields = {"alerts": needs, **status_json(snapshot, limit)}
        sys.stdout.write(envelope("status", fields) + "\n")
        sys.stdout.flush()
        return
    from bdauto.cli import tables

    tables.show(tables.status_view(snapshot, limit, active_alerts(snapshot, blocked=False)))


def watch_it(look: Callable[[], Snapshot], interval: timedelta, limit: int, as_json: bool, runtime: Runtime) -> None:
    """Print snapshots until interrupted, or until nobody reads: in place on a terminal, else one after the other.

    A bd that fails is shown and asked again.
    """
    from bdauto.cli import tables

    with tables.redrawn(in_place=not as_json) as draw:
        while not streams.lost():
            try:
                snapshot = look()
            except BdError as error:
                draw(tables.failed(error))
            else:
                if as_json:
                    show(snapshot, active_alerts(snapshot), limit, as_json)
                else:
                    draw(tables.Fitting(snapshot, limit, active_alerts(snapshot, blocked=False)))
            runtime.sleep(interval.total_seconds())
