"""`bdauto cancel`."""

import sys
from typing import Annotated

from bdauto import log
from bdauto.bd.change import Change, rewrite
from bdauto.bd.writer import BdWriter
from bdauto.cli.commands.explain import complete
from bdauto.cli.commands.pause_resume import BY_LOGIN, by_login
from bdauto.cli.context import lazy_runner, opened, start_log
from bdauto.cli.options import Offer, argument, with_options
from bdauto.cli.output import envelope
from bdauto.clock import Runtime
from bdauto.diagnostics.explanation import read_bead
from bdauto.domain.bead import Bead
from bdauto.domain.local_settings import LocalAgentSettings
from bdauto.domain.reaping import ended as how_it_ended
from bdauto.domain.settings import BdSettings, OutputSettings, ServiceSettings
from bdauto.errors import UsageError


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
        found = read_bead(tracker, bead)
        agent.check_cancel(found)
        jobs = agent.jobs_at_work(found)
        job = jobs[-1] if jobs else None
        if job is None and found.status != "in_progress":
            raise UsageError(f"nothing to cancel: {bead} is {found.status}, and no job of it runs here")
        if job is None and not found.record.attempt:
            raise UsageError(f"nothing to cancel: bdauto has not claimed {bead}")
        # Blocked first: a reaper that sees the job's end before that could hand the bead out again.
        runtime = Runtime()
        [blocked] = BdWriter(tracker, runtime).apply([_change(found, job, who, runtime.unique())])
    states = {running: agent.cancel(running, who) for running in jobs}
    state = states[job] if job else "not running"
    for running, how in (states or {"": state}).items():
        log.event("cancelled", bead=bead, job=running or None, state=how, blocked=blocked)
    if output.json:
        sys.stdout.write(envelope("cancel", {"id": bead, "job": job, "state": state, "blocked": blocked}) + "\n")
        return
    ended = "; ".join(f"job {job} {how_it_ended(state)}" for job, state in states.items()) or "no job of it runs"
    then = f"the bead is blocked; re-arm it with bd update {bead} -s open" if blocked else "the bead is left as it is"
    sys.stdout.write(f"{bead}: {ended}; {then}\n")


def _change(bead: Bead, job: str | None, who: str, mark: str) -> Change:
    """Block the bead if it is still in progress for the same attempt. It keeps that: a sweep records the result."""
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
