"""`bdauto cancel`."""

import sys
from typing import Annotated

from bdauto import log
from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.bd.change import Change, rewrite
from bdauto.bd.client import Bd
from bdauto.bd.writer import BdWriter
from bdauto.cli.commands.explain import complete
from bdauto.cli.commands.pause_resume import BY_LOGIN, by_login
from bdauto.cli.context import lazy_runner, opened, start_log
from bdauto.cli.options import Offer, argument, with_options
from bdauto.cli.printing import envelope
from bdauto.clock import Runtime
from bdauto.diagnostics.explanation import read_bead
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import ALIVE
from bdauto.domain.reaping import ended as how_it_ended
from bdauto.domain.settings import BdSettings, OutputSettings
from bdauto.errors import NoSuchBead, UsageError


@with_options
def cancel(
    *,
    bead: Annotated[str, argument("ID", "The bead.", autocompletion=complete)],
    services: Annotated[ServiceSettings, Offer(without=("beadboard_url",))],
    local: Annotated[LocalAgentSettings, Offer(only=("agent_jobs",))],
    bd: BdSettings = BY_LOGIN,
    output: OutputSettings,
) -> None:
    """End a bead's job and block the bead."""
    start_log(output)
    with opened(by_login(bd)) as tracker:
        agent, who = lazy_runner(services, local, bd)(), tracker.settings.actor
        try:
            found = read_bead(tracker, bead)
        except NoSuchBead:  # its agent may have deleted it and may still run
            jobs = [job for job in agent.jobs_here(bead) if agent.job_state(job) in ALIVE]
            if not jobs:
                raise
            blocked, kept = False, "the bead is gone"
        else:
            agent.check_cancel(found)
            jobs = agent.jobs_at_work(found)
            # Blocked first: a reaper that sees the job's end before that could hand the bead out again.
            blocked, kept = _block(tracker, found, jobs), "the bead is left as it is"
    states = {job: agent.cancel(job, who) for job in jobs}
    for job, state in (states or {"": "not running"}).items():
        log.event("cancelled", bead=bead, job=job or None, state=state, blocked=blocked)
    if output.json:
        newest = jobs[-1] if jobs else None
        state = states.get(newest, "not running") if newest else "not running"
        told = {"id": bead, "job": newest, "state": state, "jobs": states, "blocked": blocked}
        sys.stdout.write(envelope("cancel", told) + "\n")
        return
    ended = "; ".join(f"job {job} {how_it_ended(state)}" for job, state in states.items()) or "no job of it runs"
    then = f"the bead is blocked; re-arm it with bd update {bead} -s open" if blocked else kept
    sys.stdout.write(f"{bead}: {ended}; {then}\n")


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
        record.change(quarantined=f"cancelled by {who}"),
        act="cancel",
        mark=mark,
        status="blocked",
        note=f"cancelled by {who}: job={job or bead.record.job or 'none'}",
        if_status="in_progress",
        if_attempt=bead.record.attempt,
    )
