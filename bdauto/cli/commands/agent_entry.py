"""`bdauto agent-entry`: the first program of an agent's pod."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bdauto.agents.kinds import AgentSettings
from bdauto.agents.kubernetes import message
from bdauto.agents.kubernetes.message import Message, PodChecks
from bdauto.agents.local.here import end_all_others, run_here
from bdauto.agents.local.jobs import JobRecord, Step
from bdauto.agents.local.preflight import head_commit
from bdauto.agents.local.start_job import base_step, check_steps, check_variables, look_step
from bdauto.agents.local.supervisor import PROMPT
from bdauto.agents.local.words import check_words, fill, wants_stdin
from bdauto.bd.writer import BdWriter
from bdauto.cli.context import opened, start_log
from bdauto.cli.options import Offer, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError, UsageError
from bdauto.common.sanitize import clean
from bdauto.controllers.pod_fence import take
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.settings import BdSettings


@with_options
def agent_entry(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The agent's command, after `--`.")],
    agent: Annotated[AgentSettings, Offer(only=("agent_timeout", "agent_silence"), check=False)],
    bd: BdSettings,
    output: Annotated[OutputSettings, Offer(without=("json",))],
) -> None:
    """Run an agent in a pod of a Job that bdauto has made, unless another pod does."""
    start_log(output)
    check_words("--agent-command", command)
    names = {name: os.environ.get(name, "") for name in ("BEAD_ID", "BDAUTO_JOB", "BDAUTO_POD", "BDAUTO_PROMPT")}
    if lacking := [name for name, value in names.items() if not value]:
        raise UsageError(f"{', '.join(lacking)} is not set", hint="only a Job of bdauto runs this: docs/kubernetes.md")
    checks, runtime = _checks(), Runtime()
    with opened(bd) as tracker:
        try:
            bead, attempt, pod = names["BEAD_ID"], names["BDAUTO_JOB"], names["BDAUTO_POD"]
            taken = take(tracker, BdWriter(tracker, runtime), runtime, bead_id=bead, attempt=attempt, pod=pod)
        except BdError as error:
            _tell(Message(state="error", why=Why.network, words=f"no agent was started: {error.message}"[:200]))
            raise
        if isinstance(taken, str):
            log.warning("fenced", bead=bead, attempt=attempt, detail=taken)
            _tell(Message(fenced=True, words=taken))
            return
        if tracker.settings.db:
            os.environ["BEADS_DIR"] = str(tracker.settings.db)
        prompt = Path(names["BDAUTO_PROMPT"]).read_text(encoding="utf-8")
        limit = agent.agent_timeout.total_seconds()
        steps = [_agent(command, fill(command, taken.id, attempt, prompt), limit)]
        steps += _gates(checks, taken.id, tracker.settings.bd_path)
        record = _record(taken, attempt, steps, agent.agent_silence)
        with tempfile.TemporaryDirectory(prefix="bdauto-", ignore_cleanup_errors=True) as folder:
            run, end = run_here(Path(folder), record, prompt)
    end_all_others()
    _tell(message.message_of(run, end.state if end else "error", len(record.gates)))
    sys.exit(0 if end and end.state == "completed" and not end.failed_gate else 1)


def _checks() -> PodChecks:
    """Return what the Job says of checks. Raises UsageError."""
    given = os.environ.get("BDAUTO_CHECKS")
    try:
        return msgspec.json.decode(given, type=PodChecks) if given else PodChecks([], 0)
    except msgspec.DecodeError as error:
        words = f"BDAUTO_CHECKS cannot be read: {clean(str(error))}"
        raise UsageError(words, hint="give the image the version of bdauto that dispatches") from None


def _agent(command: list[str], words: list[str], limit: float) -> Step:
    stdin = PROMPT if wants_stdin(command) else ""
    return Step(kind="agent", words=words, directory=str(Path.cwd()), timeout=limit, stdin=stdin)


def _gates(checks: PodChecks, bead_id: str, bd_path: str) -> Iterator[Step]:
    """Yield what follows the agent: a look at its bead, what its work starts from, the checks."""
    if not checks.commands:
        return
    where = Path.cwd()
    yield look_step([os.path.abspath(shutil.which(bd_path) or bd_path)], bead_id, str(where))  # noqa: PTH100 - as bdauto does
    if base := head_commit(where, os.environ):
        yield base_step(["rev-parse", base], str(where))
    located = [[str(where / words[0]) if "/" in words[0] else words[0], *words[1:]] for words in checks.commands]
    yield from check_steps(located, str(where), checks.seconds)


def _record(bead: Bead, attempt: str, steps: list[Step], silence: timedelta | None) -> JobRecord:
    """Return what is run. The bead is as it was before its agent was started."""
    return JobRecord(
        bead=bead.id,
        attempt=attempt,
        tracker="",
        host=clean(socket.gethostname(), 60),
        assignee=bead.assignee,
        started=time.time(),
        silence=silence.total_seconds() if silence else None,
        variables=check_variables(bead),
        needs=[other.depends_on_id for other in bead.dependencies or ()],
        steps=steps,
    )


def _tell(told: Message) -> None:
    """Write the message where Kubernetes takes it from. Whatever the agent has left there is gone."""
    with contextlib.suppress(OSError):  # not in a pod
        file = os.open(os.environ.get("BDAUTO_TERMINATION_LOG", ""), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as opened_file:
            opened_file.write(message.encode(told))
