"""`bdauto status`."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from typer.core import TyperCommand

from bdauto.cli import streams
from bdauto.cli.context import open_runner, start_log
from bdauto.cli.lane_settings import JudgedLanes
from bdauto.cli.options import with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.cli.validation import check_acceptance
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, BdError, PartlyDone, UsageError
from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.looks import Looks, needed
from bdauto.diagnostics.looks import as_json as status_json
from bdauto.diagnostics.snapshot import Snapshot, gather
from bdauto.domain.settings import StatusSettings


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
    lanes: JudgedLanes,
    output: OutputSettings,
) -> None:
    """Show the queue with its verdicts, the beads in progress, and the state of the services."""
    interval, limit = view.watch, view.limit
    if interval and view.check:
        raise UsageError("--watch and --check exclude each other", hint="a watch has no exit status: give one of them")
    for lane in lanes.serves:
        with lanes.naming(lane):
            check_acceptance(lane.dispatch, lane.agent)
    runners = [open_runner(lane.agent, lane.bd, lanes.view(lane)) for lane in lanes.serves]
    start_log(output)
    runtime = Runtime()
    with ExitStack() as stack:
        trackers = [stack.enter_context(lanes.opened(lane)) for lane in lanes.serves]

        def look() -> Looks:
            found: Looks = {}
            for lane, tracker, runner in zip(lanes.serves, trackers, runners, strict=True):
                try:
                    seen = gather(tracker, runner, lane.dispatch, lane.reap, runtime.now(), limit, today=True)
                    found[lanes.name(lane)] = seen
                except BdError as error:  # another tracker may answer
                    if not lanes.several:
                        raise
                    found[lane.name] = error
            return found

        if interval:
            watch_it(look, interval, limit, output.json, runtime)
            return
        looks = look()
        show(looks, limit, output.json)
        if errors := [found for found in looks.values() if isinstance(found, BdError)]:
            raise errors[0]
        if view.check and (needs := needed(looks)):
            raise PartlyDone(f"a person is needed: {'; '.join(needs)}")


def show(looks: Looks, limit: int, as_json: bool) -> None:
    """Print what was seen on stdout."""
    if as_json:
        sys.stdout.write(envelope("status", status_json(looks, limit)) + "\n")
        sys.stdout.flush()
        return
    from bdauto.cli import tables

    for name, seen in looks.items():
        tables.show(_view(name, seen, limit))


def _view(name: str, seen: Snapshot | BdautoError, limit: int) -> Any:
    """Render one lane."""
    from bdauto.cli import tables

    if isinstance(seen, BdautoError):
        return tables.in_lane(name, tables.failed(seen))
    view = tables.status_view(seen, limit, active_alerts(seen, blocked=False))
    return tables.in_lane(name, view) if name else view


def watch_it(look: Callable[[], Looks], interval: timedelta, limit: int, as_json: bool, runtime: Runtime) -> None:
    """Print snapshots until interrupted, or until nobody reads: in place on a terminal, else one after the other.

    A bd that fails is shown and asked again.
    """
    from bdauto.cli import tables

    with tables.redrawn(in_place=not as_json) as draw:
        while not streams.lost():
            try:
                looks = look()
            except BdError as error:
                draw(tables.failed(error))
                runtime.sleep(interval.total_seconds())
                continue
            only = looks.get("")
            if as_json:
                show(looks, limit, as_json)
            elif isinstance(only, Snapshot):
                draw(tables.Fitting(only, limit, active_alerts(only, blocked=False)))
            else:
                draw(tables.together(_view(name, seen, limit) for name, seen in looks.items()))
            runtime.sleep(interval.total_seconds())
