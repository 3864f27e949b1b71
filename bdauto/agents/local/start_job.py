"""Start a job: its record, its folder, and the supervisor that runs it and outlives whoever started it."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bdauto.agents.local import supervisor
from bdauto.agents.local.agent_command import AgentCommand
from bdauto.agents.local.jobs import NEW, JobRecord
from bdauto.agents.local.local_jobs import Origin
from bdauto.agents.local.settings import silence_of
from bdauto.agents.local.words import wants_stdin
from bdauto.agents.local.worktree import Worktree

DETACHED = ["/bin/sh", "-c", '"$@" &', "sh"]
"""Starts a program and ends at once, so that the program is nobody's child: `bdauto run` need not wait for it."""


def job_record(
    command: AgentCommand, origin: Origin, worktree: Worktree | None, bead_id: str, attempt: str, prompt: str
) -> JobRecord:
    """Return what the supervisor is to run for a bead."""
    settings, directory = command.settings, command.directory
    silence = silence_of(settings)
    return JobRecord(
        bead=bead_id,
        attempt=attempt,
        tracker=origin.tracker,
        beads=origin.beads,
        host=os.uname().nodename,
        assignee=origin.assignee,
        agent=settings.agent or "",
        started=time.time(),
        words=command.filled(bead_id, attempt, prompt),
        directory=str(worktree.path / directory.relative_to(worktree.root) if worktree else directory),
        home=str(directory),
        timeout=settings.agent_timeout.total_seconds(),
        silence=silence.total_seconds() if silence else None,
        stdin=wants_stdin(command.words),
        max_cost=settings.max_cost_per_run,
        before=[worktree.prepare] if worktree else [],
        check=command.check_words,
        after=[worktree.remove] if worktree else [],
    )


def start_job(jobs: Path, record: JobRecord, prompt: str, environment: Mapping[str, str]) -> None:
    """Make the job's folder, locked from the beginning, and hand it with its lock to a supervisor."""
    new, folder = jobs / f"{NEW}{record.attempt}", jobs / record.attempt
    shutil.rmtree(new, ignore_errors=True)  # half-made by a dispatcher that was killed
    new.mkdir(mode=0o700)
    try:
        (new / supervisor.PROMPT).write_text(prompt, encoding="utf-8")
        (new / supervisor.JOB).write_bytes(msgspec.json.encode(record))
        os.mkfifo(new / supervisor.CONTROL, 0o600)
        lock = os.open(new / supervisor.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(folder)
            supervise(folder, lock, {**environment, "BEAD_ID": record.bead, "BDAUTO_JOB": record.attempt})
        finally:
            os.close(lock)
    except Exception:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def supervise(folder: Path, lock: int, environment: Mapping[str, str]) -> None:
    """Start the supervisor of a job, which inherits the lock."""
    with (folder / "supervisor.log").open("wb") as log:
        subprocess.run(
            [*DETACHED, sys.executable, "-I", "-S", supervisor.__file__, str(folder), str(lock)],
            env=environment,
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            check=True,
        )
