"""The settings of an agent command on this machine (docs/local-agent.md)."""

import re
import shlex
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from bdauto.domain.settings import LIMITS, Option
from bdauto.domain.values import parse_dollars
from bdauto.errors import UsageError

LOCAL = "An agent on this machine"


class AgentName(StrEnum):
    """The agents whose command line bdauto knows (`agents.cli_adapters.table`)."""

    claude = "claude"
    codex = "codex"
    gemini = "gemini"
    opencode = "opencode"


class CommandLine(msgspec.Struct, frozen=True):
    """A command in words. It prints as its first word, since the others may hold what nobody should read in a log."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return self.words[0]


def parse_command(text: str) -> CommandLine:
    """Split a command into words as a shell does. It is never given to one. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot be split into words: {str(error).lower()}", hint="quote it as for a shell") from None
    if not words or not words[0]:
        raise UsageError("is empty", hint="name a program")
    return CommandLine(tuple(words))


def parse_model(text: str) -> str:
    """Return the name of a model, which no command line takes for an option. Raises UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/@+\[\]-]{0,99}", text, re.ASCII):
        raise UsageError(f"{text[:40]!r} is not the name of a model")
    return text


class LocalAgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The agent command and how it is run. Without an agent and a command no agent runs on this machine."""

    agent: Annotated[
        AgentName | None,
        Option("Run this agent for each bead, instead of asking BeadBoard (docs/agents.md).", LOCAL),
    ] = None
    model: Annotated[
        str | None, Option("The agent's model. (default: its own)", LOCAL, metavar="NAME", parse=parse_model)
    ] = None
    max_cost_per_run: Annotated[
        float | None,
        Option(
            "End a run that costs more. Only with an agent that has such an option, or says its costs as it goes. "
            "(default: no limit)",
            LIMITS,
            metavar="USD",
            parse=parse_dollars,
        ),
    ] = None
    agent_command: Annotated[
        CommandLine | None,
        Option(
            "Run this for each bead, instead of asking BeadBoard. {id}, {job} and {prompt} are replaced in its words. "
            "Without {prompt} the prompt is its standard input. --agent then says how its output is read.",
            LOCAL,
            metavar="CMD",
            parse=parse_command,
        ),
    ] = None
    agent_slots: Annotated[int, Option("Jobs at a time on this machine.", LOCAL)] = 1
    agent_timeout: Annotated[
        timedelta, Option("End a job after this time: SIGTERM, and 10 seconds later SIGKILL.", LOCAL)
    ] = timedelta(minutes=45)
    agent_prompt: Annotated[Path | None, Option("Template of the prompt. (default: built in)", LOCAL)] = None
    agent_dir: Annotated[
        Path | None, Option("Where the agent runs. (default: the folder that holds .beads)", LOCAL, metavar="DIR")
    ] = None
    agent_worktree: Annotated[
        bool,
        Option(
            "Give each bead a git worktree on the branch agent/ID. It is kept if it has commits or changes.",
            LOCAL,
            env="BDAUTO_AGENT_WORKTREE",
        ),
    ] = False
    agent_check: Annotated[
        CommandLine | None,
        Option(
            "Run this when the agent has closed its bead. If it fails, the bead is opened again.",
            LOCAL,
            metavar="CMD",
            parse=parse_command,
        ),
    ] = None
    agent_jobs: Annotated[
        Path | None,
        Option(
            "Folder with a folder for each job, on a local disk. (default: $XDG_STATE_HOME/bdauto/jobs)",
            LOCAL,
            metavar="DIR",
        ),
    ] = None
    agent_keep: Annotated[timedelta, Option("Keep a job's folder for this long after its end.", LOCAL)] = timedelta(
        days=7
    )
