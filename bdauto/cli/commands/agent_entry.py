"""`bdauto agent-entry`: the first program of an agent's pod."""

import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bdauto.agents.kinds import AgentSettings
from bdauto.agents.kubernetes import message
from bdauto.agents.kubernetes.message import Message
from bdauto.agents.local.here import end_all_others, run_here
from bdauto.agents.local.jobs import JobRecord, Step
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
    runtime = Runtime()
    with opened(bd) as tracker:
        try:
            bead, attempt, pod = names["BEAD_ID"], names["BDAUTO_JOB"], names["BDAUTO_POD"]
            why = take(tracker, BdWriter(tracker, runtime), runtime, bead_id=bead, attempt=attempt, pod=pod)
        except BdError as error:
            _tell(Message(state="error", why=Why.network, words=f"no agent was started: {error.message}"[:200]))
            raise
        if why:
            log.warning("fenced", bead=bead, attempt=attempt, detail=why)
            _tell(Message(fenced=True, words=why))
            return
        if tracker.settings.db:
            os.environ["BEADS_DIR"] = str(tracker.settings.db)
        told = _run(command, names, agent)
    end_all_others()
    _tell(told)
    sys.exit(0 if told.state == "completed" else 1)


def _run(command: list[str], names: Mapping[str, str], settings: AgentSettings) -> Message:
    """Run the command to its end, and return the message about it."""
    prompt = Path(names["BDAUTO_PROMPT"]).read_text(encoding="utf-8")
    bead, attempt = names["BEAD_ID"], names["BDAUTO_JOB"]
    step = Step(
        kind="agent",
        words=fill(command, bead, attempt, prompt),
        directory=str(Path.cwd()),
        timeout=settings.agent_timeout.total_seconds(),
        stdin=PROMPT if wants_stdin(command) else "",
    )
    silence = settings.agent_silence
    record = JobRecord(
        bead=bead,
        attempt=attempt,
        tracker="",
        host=clean(socket.gethostname(), 60),
        started=time.time(),
        silence=silence.total_seconds() if silence else None,
        steps=[step],
    )
    with tempfile.TemporaryDirectory(prefix="bdauto-", ignore_cleanup_errors=True) as folder:
        run, end = run_here(Path(folder), record, prompt)
    return message.message_of(run, end.state if end else "error")


def _tell(told: Message) -> None:
    """Write the message where Kubernetes takes it from. Whatever the agent has left there is gone."""
    with contextlib.suppress(OSError):  # not in a pod
        file = os.open(os.environ.get("BDAUTO_TERMINATION_LOG", ""), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as opened_file:
            opened_file.write(message.encode(told))
