"""Lets a job go on in the session of the bead's last job, where that session and its folder are still here.

Only what is in the jobs' folder decides which session that is. A bead's metadata can be written by anybody.
"""

import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bdauto.agents.cli_adapters.table import ADAPTERS
from bdauto.agents.local.files import is_folder
from bdauto.agents.local.job_output import job_end
from bdauto.agents.local.jobs import EndRecord, JobRecord, Jobs, read_end
from bdauto.agents.local.settings import LocalAgentSettings, adapter_command
from bdauto.agents.local.supervisor import AGENT
from bdauto.domain.bead import Bead
from bdauto.domain.resume import may_resume


def resume(
    cold: JobRecord, bead: Bead, jobs: Jobs, settings: LocalAgentSettings, environment: Mapping[str, str]
) -> JobRecord | None:
    """Return the record of a job that goes on in the session of the bead's last job, None where none can.

    `cold` is the record of a job that starts without one. It is what is left where the agent refuses its session.
    """
    last = _last_job(cold, bead, jobs, settings)
    if last is None:
        return None
    runs, end = bead.record.runs, read_end(jobs.path / last.attempt)
    told = job_end(jobs.path / last.attempt, runs[-1].ended_at or bead.updated_at)
    resumes = last.resumes if last.session and not (end and end.refused) else 0
    session, directory = told.session or "", Path(_directory(cold))
    if not may_resume(runs, session, resumes, interrupted=_interrupted(end)) or _in_use(session, jobs):
        return None
    if not ADAPTERS[cold.agent].can_resume(session, directory, environment):
        return None
    words = adapter_command(settings, session)
    steps = [
        msgspec.structs.replace(step, words=words, cold=step.words) if step.kind == AGENT else step
        for step in cold.steps
    ]
    return msgspec.structs.replace(
        cold,
        steps=steps,
        session=session,
        resumes=resumes + 1,
        session_tokens=(told.tokens or 0) + (last.session_tokens if resumes else 0),
    )


def _last_job(cold: JobRecord, bead: Bead, jobs: Jobs, settings: LocalAgentSettings) -> JobRecord | None:
    """Return the bead's last job if the same agent ran it in the same folder, which is still there. Else None.

    A command that the operator has written may not take a session.
    """
    command, here = settings.agent_command, jobs.of_bead(bead.id, cold.tracker)
    if not cold.agent or command is None or [*command.words] != adapter_command(settings):
        return None
    if not here or here[-1] != bead.record.runs[-1].attempt or not _is_there(Path(_directory(cold))):
        return None
    last = jobs.record(here[-1])
    return last if last and _place(last) == _place(cold) else None


def _place(record: JobRecord) -> tuple[str, str, str]:
    """Return what a session belongs to: the agent, whose queue it works on, and its folder."""
    return record.agent, record.assignee, _directory(record)


def _directory(record: JobRecord) -> str:
    """Return the folder in which the agent of a job runs."""
    return record.agent_step.directory if record.agent_step else ""


def _is_there(directory: Path) -> bool:
    try:
        return is_folder(directory)
    except OSError:  # a link
        return False


def _in_use(session: str, jobs: Jobs) -> bool:
    """Return whether another job goes on in this session: two at once would write to one file."""
    return any(record.session == session for job in jobs.running() if (record := jobs.record(job)))


def _interrupted(end: EndRecord | None) -> bool:
    """Return whether the agent may go on as if nothing was: after a reboot, or with what its check has found."""
    if end is None:
        return True
    return end.failed_gate is not None or (end.state == "cancelled" and end.by in signal.Signals.__members__)
