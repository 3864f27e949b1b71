"""Run a job in this very process, which prints its output: the agent of a pod, whose folder goes with the pod."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bdauto.agents.local import supervisor
from bdauto.agents.local.job_output import job_end
from bdauto.agents.local.jobs import EndRecord, JobRecord, Jobs, read_end
from bdauto.agents.local.local_jobs import running_job
from bdauto.agents.local.start_job import start_job
from bdauto.domain.reconcile import silent
from bdauto.domain.record import Run

INTERVAL = 1.0
"""Seconds between two looks whether the agent is silent."""


class _Printed(supervisor.Output):
    """Output that is printed as well. If nobody reads it any more, the job goes on."""

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        super().write(data)


def run_here(jobs: Path, record: JobRecord, prompt: str) -> tuple[Run, EndRecord | None]:
    """Run a job to its end. Return the end, with what the agent told, and what the supervisor says of it."""

    def run(folder: Path, _lock: int) -> None:
        held = supervisor.Supervisor(str(folder))
        held.output = _Printed(str(folder))
        over = threading.Event()
        watch = threading.Thread(target=_watch, args=(Jobs(jobs), record, over.wait), daemon=True)
        watch.start()
        end = held.run(_as_json(folder))
        over.set()
        supervisor.write_end(str(folder), end, held.output)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end is on its way

    start_job(jobs, record, prompt, run)
    folder = jobs / record.attempt
    return job_end(folder, datetime.now(UTC)), read_end(folder)


def _as_json(folder: Path) -> supervisor.Job:
    import json

    job: supervisor.Job = json.loads((folder / supervisor.JOB).read_bytes())
    return job


def _watch(jobs: Jobs, record: JobRecord, wait: Callable[[float], bool]) -> None:
    """End the agent when it is silent for too long, as the loop does with a job of its machine."""
    while not wait(INTERVAL):
        running = running_job(jobs, record)
        if why := silent(running, running.started, datetime.now(UTC)):
            jobs.stop(record.attempt, why)


def end_all_others() -> None:
    """As process 1 of a container, kill every other process: none may write over the end that is told."""
    if os.getpid() == 1:
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
