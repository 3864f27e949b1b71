"""Start a job: its record, its folder, and the supervisor that runs it and outlives whoever started it."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from bdauto.agents.local import agent_verdict, supervisor
from bdauto.agents.local.agent_command import AgentCommand
from bdauto.agents.local.jobs import NEW, JobRecord, Step
from bdauto.agents.local.local_jobs import Origin
from bdauto.agents.local.preflight import head_commit
from bdauto.agents.local.review import CRITERION_LIMIT, TEXT_BYTES, criteria_of
from bdauto.agents.local.settings import LocalAgentSettings, silence_of
from bdauto.agents.local.words import wants_stdin
from bdauto.agents.local.worktree import Worktree
from bdauto.agents.prompt import plain, text_digest
from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.edits import CHECKER
from bdauto.domain.lanes import written_name

ITS_ANSWER = ["/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh"]
"""Starts a program without its standard error, which bd also uses for warnings."""
LOOK_SECONDS = 60.0
"""How long bd may take to say how the bead is, and git what the work starts from, before it is checked."""
LAND_STEPS = 4
"""So many limits of a check may pass: for the agent's words, for what is committed, to wait for others, to land."""
DETACHED = ["/bin/sh", "-c", '"$@" &', "sh"]
"""Starts a program and ends at once, so that the program is nobody's child: `bdauto run` need not wait for it."""


def job_record(
    command: AgentCommand, origin: Origin, worktree: Worktree | None, bead: Bead, attempt: str, prompt: str, jobs: Path
) -> JobRecord:
    """Return what the supervisor is to run for a bead."""
    settings = command.settings
    silence = silence_of(settings)
    return JobRecord(
        bead=bead.id,
        attempt=attempt,
        tracker=origin.tracker,
        beads=origin.beads,
        host=os.uname().nodename,
        assignee=origin.assignee,
        lane=written_name(origin.lanes.own),
        agent=settings.agent or "",
        started=time.time(),
        silence=silence.total_seconds() if silence else None,
        max_cost=settings.max_cost_per_run,
        variables=check_variables(bead) if settings.is_checked else {},
        needs=[other.depends_on_id for other in bead.dependencies or ()],
        steps=[*_steps(command, worktree, bead, command.filled(bead.id, attempt, prompt), jobs / attempt)],
        text=text_digest(bead),
    )


def longest(settings: LocalAgentSettings) -> timedelta:
    """Return the time after which a job has ended: the sum of its steps' limits."""
    limits = (1 + settings.agent_worktree) * [settings.agent_timeout]
    gates = (
        len(settings.agent_check) + (settings.agent_review is not None) + LAND_STEPS * (settings.agent_land is not None)
    )
    limits += gates * [settings.agent_check_timeout]
    return sum((limit + timedelta(seconds=supervisor.GRACE) for limit in limits), timedelta())


def _steps(
    command: AgentCommand, worktree: Worktree | None, bead: Bead, words: list[str], folder: Path
) -> Iterator[Step]:
    """Yield what the job runs, in order."""
    settings, home = command.settings, str(command.directory)
    limit = settings.agent_timeout.total_seconds()
    where = worktree.directory if worktree else home
    if worktree:
        yield Step(kind="prepare", words=worktree.words("prepare"), directory=home, timeout=limit)
    stdin = supervisor.PROMPT if wants_stdin(command.words) else ""
    yield Step(kind="agent", words=words, directory=where, timeout=limit, stdin=stdin)
    if settings.is_checked:
        yield from _gates(command, worktree, bead, where, folder)
    if worktree:
        yield Step(kind="remove", words=worktree.words("remove"), directory=home, timeout=limit)


def _gates(command: AgentCommand, worktree: Worktree | None, bead: Bead, where: str, folder: Path) -> Iterator[Step]:
    """Yield what must succeed after the agent, and what is asked before. `where` is the folder of its work."""
    limit = command.settings.agent_check_timeout.total_seconds()
    if command.bd:
        yield look_step(command.bd, bead.id, str(command.directory))
    if base := _base(command, worktree):
        yield base_step(base, where)
    checks, land = command.checks, command.land_words
    if worktree and land:
        home, says = str(command.directory), [*agent_verdict.PROGRAM, str(worktree.path.parents[2])]
        yield Step(kind="check", text="the agent's own words", words=says, directory=home, timeout=limit)
        seal = worktree.words("seal")
        yield Step(kind="check", text="all work is committed", words=seal, directory=home, timeout=limit)
    yield from check_steps(checks, where, limit)
    if command.review_words:
        text = f"review ({clean(Path(command.review_words[0]).name, 40)})"
        yield Step(kind="review", text=text, words=_review(command, bead, folder), directory=where, timeout=limit)
    if worktree and land:
        text = f"--agent-land ({clean(Path(land[0]).name, 40)})"
        words = worktree.words("land", command=land, wait=limit)
        yield Step(kind="land", text=text, words=words, directory=home, timeout=2 * limit)  # as long to wait


def look_step(bd: Sequence[str], bead_id: str, directory: str) -> Step:
    """Return what asks bd for a bead: is its work to be checked?"""
    look = [*ITS_ANSWER, *bd, "list", "--id", bead_id, "--all", "--limit", "0", "--json"]
    return Step(kind="look", words=look, directory=directory, timeout=LOOK_SECONDS)


def base_step(words: Sequence[str], directory: str) -> Step:
    """Return what asks git, in these words, for the commit that the work starts from."""
    return Step(kind="base", words=[*ITS_ANSWER, "git", *words], directory=directory, timeout=LOOK_SECONDS)


def check_steps(checks: Sequence[list[str]], directory: str, seconds: float) -> Iterator[Step]:
    """Yield the checks, each with its own time limit."""
    for number, check in enumerate(checks, 1):
        name = f"check {number} of {len(checks)}" if len(checks) > 1 else "check"
        text = f"{name} ({clean(Path(check[0]).name, 40)})"
        yield Step(kind="check", text=text, words=check, directory=directory, timeout=seconds)


def _review(command: AgentCommand, bead: Bead, folder: Path) -> list[str]:
    """Return the command that reviews. What it says of the bead is as it is now: the agent may change it."""
    task = {
        "folder": str(folder),
        "words": command.review_words,
        "agent": command.reviewer,
        "title": plain(bead.title)[:CRITERION_LIMIT],
        "description": plain(bead.description, TEXT_BYTES),
        "criteria": criteria_of(plain(bead.acceptance_criteria, TEXT_BYTES)),
    }
    return [sys.executable, "-I", "-m", "bdauto.agents.local.review_program", msgspec.json.encode(task).decode()]


def check_variables(bead: Bead) -> dict[str, str]:
    """Return what a check gets beside the agent's environment. It writes to the tracker in its own name."""
    return {"BEADS_ACTOR": CHECKER, "BEAD_ACCEPTANCE": plain(bead.acceptance_criteria)}


def _base(command: AgentCommand, worktree: Worktree | None) -> list[str]:
    """Return the words for git that print what the work starts from: in a worktree, where its branch left its base."""
    base = worktree.base if worktree else ""
    base = base or head_commit(worktree.root if worktree else command.directory, command.environment)
    return (["merge-base", base, "HEAD"] if worktree else ["rev-parse", base]) if base else []


def start_job(
    jobs: Path, record: JobRecord, prompt: str, run: Callable[[Path, int], None], resumed_prompt: str = ""
) -> None:
    """Make the job's folder, locked from the beginning, and hand it with its lock to `run`.

    `resumed_prompt` is for the session that the record names. An agent that refuses it gets `prompt`.
    """
    new, folder = jobs / f"{NEW}{record.attempt}", jobs / record.attempt
    shutil.rmtree(new, ignore_errors=True)  # half-made by a dispatcher that was killed
    new.mkdir(mode=0o700)
    try:
        (new / supervisor.PROMPT).write_text(resumed_prompt or prompt, encoding="utf-8")
        if resumed_prompt:
            (new / supervisor.COLD_PROMPT).write_text(prompt, encoding="utf-8")
        (new / supervisor.JOB).write_bytes(msgspec.json.encode(record))
        os.mkfifo(new / supervisor.CONTROL, 0o600)
        lock = os.open(new / supervisor.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(folder)
            run(folder, lock)
        finally:
            os.close(lock)
    except Exception:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def supervise(environment: Mapping[str, str], folder: Path, lock: int) -> None:
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
