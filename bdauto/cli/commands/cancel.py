"""`bdauto cancel`."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.change import Change, rewrite
from bdauto.bd.client import Bd
from bdauto.bd.writer import BdWriter
from bdauto.cli import completers
from bdauto.cli.commands.pause_resume import BY_LOGIN, by_login
from bdauto.cli.context import LazyRunner, opened, start_log
from bdauto.cli.lane_settings import PerLane
from bdauto.cli.options import JOBS, Part, argument, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import NoSuchBead, UsageError
from bdauto.diagnostics.explanation import read_bead
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import ALIVE
from bdauto.domain.reaping import ended as how_it_ended
from bdauto.domain.record import CANCELLED
from bdauto.domain.settings import BdSettings, CancelSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


@with_options
def cancel(
    *,
    bead: Annotated[str, argument("[ID]", "The bead.", autocompletion=completers.running, show_default=False)] = "",
    which: CancelSettings,
    lanes: Annotated[PerLane, Part(AgentSettings, JOBS), Part(BdSettings, default=BY_LOGIN)],
    output: OutputSettings,
) -> None:
    """End a bead's job and block the bead. With --all do so for each job that runs on this machine."""
    if bool(bead) == which.all:
        raise UsageError("name one bead, or give --all", hint="`bdauto status` lists the beads in progress")
    start_log(output)
    done = []
    for lane in lanes.serves if which.all else [lanes.of_bead(bead)]:
        with opened(by_login(lane.bd), lanes.view(lane)) as tracker:
            runner = LazyRunner(kinds.chosen(lane.agent) or kinds.LOCAL, lane.agent, lane.bd, lanes.view(lane))()
            beads = sorted({running.bead for running in runner.running_jobs()}) if which.all else [bead]
            done += [_cancel(tracker, runner, one) for one in beads]
    if output.json:
        sys.stdout.write(envelope("cancel", {"beads": done} if which.all else done[0]) + "\n")
        return
    sys.stdout.write("".join(f"{_in_words(one)}\n" for one in done) or "no job runs on this machine\n")


def _cancel(tracker: Bd, runner: "Runner", bead: str) -> dict[str, Any]:
    """Block a bead, end its jobs, and return what became of both. Raises UsageError, BdError and ServiceError."""
    who = tracker.settings.actor
    try:
        found = read_bead(tracker, bead)
    except NoSuchBead:  # its agent may have deleted it and may still run
        jobs = [job for job in runner.jobs_here(bead) if runner.job_state(job) in ALIVE]
        if not jobs:
            raise
        blocked, gone = False, True
    else:
        runner.check_cancel(found)
        jobs = runner.jobs_at_work(found)
        # Blocked first: a reaper that sees the job's end before that could hand the bead out again.
        blocked, gone = _block(tracker, found, jobs), False
        runner.forbid_start(found)
        jobs = runner.jobs_at_work(found)  # its dispatcher may have started it meanwhile
    states = {job: runner.cancel(job, who) for job in jobs}
    for job, state in (states or {"": "not running"}).items():
        log.event("cancelled", bead=bead, job=job or None, state=state, blocked=blocked)
    newest = jobs[-1] if jobs else None
    state = states.get(newest, "not running") if newest else "not running"
    return {"id": bead, "job": newest, "state": state, "jobs": states, "blocked": blocked, "deleted": gone}


def _in_words(done: Mapping[str, Any]) -> str:
    bead = done["id"]
    ended = "; ".join(f"job {job} {how_it_ended(state)}" for job, state in done["jobs"].items()) or "no job of it runs"
    kept = "the bead is gone" if done["deleted"] else "the bead is left as it is"
    then = f"the bead is blocked; re-arm it with bd update {bead} -s open" if done["blocked"] else kept
    return f"{bead}: {ended}; {then}"


def _block(tracker: Bd, bead: Bead, jobs: list[str]) -> bool:
    """Block a bead before its jobs are ended. Return whether it was in progress. Raises UsageError and BdError."""
    if not jobs and bead.status != "in_progress":
        raise UsageError(f"nothing to cancel: {bead.id} is {bead.status}, and no job of it runs here")
    if not jobs and not bead.record.attempt:
        raise UsageError(f"nothing to cancel: bdauto has not claimed {bead.id}")
    runtime = Runtime()
    job, who = jobs[-1] if jobs else None, tracker.settings.actor
    [blocked] = BdWriter(tracker, runtime).apply([_change(bead, job, who, runtime.unique())])
    return blocked


def _change(bead: Bead, job: str | None, who: str, mark: str) -> Change:
    """Block the bead if it is still in progress for the same attempt. A sweep will record its result."""
    record = bead.record.change(retry_at=None, error="", failures=0, armed_at=None, deaths=0)
    return rewrite(
        bead,
        record.change(quarantined=f"{CANCELLED}{who}"),
        act="cancel",
        mark=mark,
        status="blocked",
        note=f"{CANCELLED}{who}: job={job or bead.record.job or 'none'}",
        if_status="in_progress",
        if_attempt=bead.record.attempt,
    )
