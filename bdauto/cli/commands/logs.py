"""`bdauto logs`."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Annotated

from bdauto.agents import kinds
from bdauto.agents.cli_adapters.table import Reader
from bdauto.agents.cli_adapters.transcript import Event
from bdauto.agents.kinds import AgentSettings
from bdauto.agents.runner import JobOutput
from bdauto.cli import completers
from bdauto.cli.context import LazyRunner, start_log
from bdauto.cli.lane_settings import PerLane
from bdauto.cli.options import JOBS, Offer, Part, argument, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.streams import lost
from bdauto.common import log
from bdauto.common.errors import BdFailed, UsageError
from bdauto.common.sanitize import clean_lines
from bdauto.diagnostics.explanation import read_bead
from bdauto.domain.reaping import ALIVE, who_knows
from bdauto.domain.settings import BdSettings, LogsSettings

INTERVAL = 0.5
"""Seconds between two looks at a job that is followed."""


@with_options
def logs(
    bead: Annotated[str, argument("ID", "The bead.", autocompletion=completers.known)],
    view: LogsSettings,
    lanes: Annotated[PerLane, Part(AgentSettings, JOBS), Part(BdSettings)],
    output: Annotated[OutputSettings, Offer(without=("json",))],
) -> None:
    """Show what a bead's agent does and says."""
    start_log(output)
    lane = lanes.of_bead(bead)
    with lanes.opened(lane) as tracker:
        runner = LazyRunner(kinds.chosen(lane.agent) or kinds.LOCAL, lane.agent, lane.bd, lanes.view(lane))()
        try:
            found = read_bead(tracker, bead)
        except BdFailed:  # its agent may have deleted it, or made it unreadable
            jobs, elsewhere = runner.jobs_here(bead), ""
            if not jobs:
                raise
        else:
            jobs = runner.jobs_of(found)
            elsewhere = who_knows(found) if found.record.attempt and not runner.owns(found) else ""
    job = _choose(jobs, bead, view.attempt, elsewhere)
    source = runner.output(job)
    reader = Reader(source.agent)
    show = _print if view.raw else lambda data: _render(reader.feed(data))
    while (state := _show(source, show)) in ALIVE and view.follow and not lost():
        time.sleep(INTERVAL)
    _render(reader.end())
    log.event("job", bead=bead, job=job, state=state)


def _show(source: JobOutput, show: Callable[[bytes], None]) -> str:
    """Show what came since the last time, and return the job's state as it was just before."""
    state = source.state()
    for data in source.read():
        show(data)
    sys.stdout.flush()
    return state


def _print(data: bytes) -> None:
    """Write output as it is, to a terminal without what could control it."""
    if sys.stdout.isatty():
        sys.stdout.write(clean_lines(data.decode(errors="replace")))
    else:
        sys.stdout.buffer.write(data)


def _render(events: Iterable[Event]) -> None:
    """Write events, one after the other."""
    for event in events:
        sys.stdout.write(f"{event.lines()}\n")
    sys.stdout.flush()


def _choose(jobs: list[str], bead: str, attempt: int | None, elsewhere: str) -> str:
    if not jobs and elsewhere:
        raise UsageError(f"no job of {bead} is known here", hint=f"only {elsewhere} can be asked")
    if not jobs:
        raise UsageError(f"no job of {bead} is known here", hint=f"see `bdauto explain {bead}`")
    if attempt is None:
        return jobs[-1]
    if attempt > len(jobs):
        raise UsageError(f"--attempt {attempt}: {bead} has {len(jobs)}, as far as is known here")
    return jobs[attempt - 1]
