"""The settings of an agent command on this machine (docs/local-agent.md)."""

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from bdauto.agents.prompt_settings import (
    CHECK_LIMIT,
    TIME_LIMIT,
    Checks,
    CheckTimeout,
    CommandLine,
    CostLimit,
    Keep,
    Prompt,
    Slots,
    TimeLimit,
    parse_command,
)
from bdauto.common.errors import UsageError
from bdauto.domain.settings import Option

LOCAL = "An agent on this machine"


class AgentName(StrEnum):
    """The agents whose command line bdauto knows (`agents.cli_adapters.table`)."""

    claude = "claude"
    codex = "codex"
    gemini = "gemini"
    opencode = "opencode"


def parse_model(text: str) -> str:
    """Return the name of a model, which no command line takes for an option. Raises UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/@+\[\]-]{0,99}", text, re.ASCII):
        raise UsageError(f"{text[:40]!r} is not the name of a model")
    return text


def parse_base(text: str) -> str:
    """Return the name of a commit, which git takes for no option and no range. Raises UsageError."""
    if not text or not text.isprintable() or re.search(r"^[-^]|\.\.|[\s:*?\[\\]|\^[@!-]", text) or len(text) > 255:
        raise UsageError(f"{text[:40]!r} is not the name of a commit", hint="give a branch, such as origin/main")
    return text


STREAMING_SILENCE = timedelta(minutes=30)
"""The default of --agent-silence for an agent that streams what it does."""


class LocalAgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The agent command and how it is run. Without an agent and a command no agent runs on this machine."""

    agent: Annotated[
        AgentName | None, Option("Run this agent for each bead, instead of asking a service (docs/agents.md).", LOCAL)
    ] = None
    model: Annotated[str | None, Option("The agent's model. (default: its own)", LOCAL, parse=parse_model)] = None
    max_cost_per_run: CostLimit = None
    agent_command: Annotated[
        CommandLine | None,
        Option(
            "Run this for each bead, instead of asking a service. {id}, {job} and {prompt} are replaced in its words. "
            "Without {prompt} the prompt is its standard input. --agent then says how its output is read.",
            LOCAL,
            metavar="CMD",
            parse=parse_command,
        ),
    ] = None
    agent_slots: Slots = 1
    slots_of_all: int | None = None
    """The slots that all lanes together have. None: each has its own alone."""
    agent_timeout: TimeLimit = TIME_LIMIT
    agent_silence: Annotated[
        timedelta | None,
        Option(
            "End a job that writes nothing for this long, two hours within a tool call. (default: 30m with --agent, "
            "else never)",
            LOCAL,
        ),
    ] = None
    agent_prompt: Prompt = None
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
    agent_base: Annotated[
        str | None,
        Option(
            "What a new worktree starts from. A branch of a remote, such as origin/main, is fetched first. (default: "
            "your checkout's HEAD)",
            LOCAL,
            metavar="REF",
            parse=parse_base,
        ),
    ] = None
    agent_prepare: Annotated[
        CommandLine | None,
        Option(
            "Run this in a new worktree before the agent. If it fails, no agent runs.",
            LOCAL,
            metavar="CMD",
            parse=parse_command,
        ),
    ] = None
    agent_check: Checks = ()
    agent_review: Annotated[
        CommandLine | None,
        Option(
            "Let this agent, or command, judge the work after the checks, by each of the acceptance criteria. All must "
            "be met. A command gets bead, criteria and diff on its standard input, or as {prompt}.",
            LOCAL,
            metavar="AGENT|CMD",
            parse=parse_command,
        ),
    ] = None
    agent_check_timeout: CheckTimeout = CHECK_LIMIT
    agent_land: Annotated[
        CommandLine | None,
        Option(
            "Run this in the worktree when all checks have passed, once for each attempt: a push, a merge, a pull "
            "request. If it fails, the bead is blocked.",
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
    agent_keep: Keep = timedelta(days=7)

    @property
    def is_checked(self) -> bool:
        """True: steps after the agent must succeed before the bead counts as done, and bdauto closes it."""
        return bool(self.agent_check or self.agent_review or self.agent_land)


def silence_of(settings: LocalAgentSettings) -> timedelta | None:
    """Return after how long without a word a job is ended, None for never.

    Agents that stream what they do are quiet for minutes while a model thinks: limits of five minutes have ended good
    runs of other dispatchers. A plain command may print nothing until its end.
    """
    return settings.agent_silence or (STREAMING_SILENCE if settings.agent else None)


def check_local(settings: LocalAgentSettings) -> LocalAgentSettings:
    """Return the settings with the command of the agent that is named, unless a command is given, too."""
    if settings.model and (settings.agent is None or settings.agent_command):
        hint = "write the model into the command" if settings.agent_command else "give --agent"
        raise UsageError("--model goes with --agent and without --agent-command", hint=hint)
    if settings.agent is None or settings.agent_command:
        return settings
    return msgspec.structs.replace(settings, agent_command=CommandLine(tuple(adapter_command(settings))))


def adapter_command(settings: LocalAgentSettings, session: str = "") -> list[str]:
    """Return the command line of the agent that is named, which goes on in this session. Without an agent, none."""
    from bdauto.agents.cli_adapters.table import ADAPTERS  # few commands need it

    if settings.agent is None:
        return []
    adapter = ADAPTERS[settings.agent]
    return adapter.command(settings.model or "", settings.max_cost_per_run if adapter.limits_cost else None, session)


def check_cost_per_run(settings: LocalAgentSettings) -> None:
    """Raise UsageError for a limit on the cost of a run that nobody would hold."""
    if settings.max_cost_per_run is None:
        return
    from bdauto.agents.cli_adapters.table import ADAPTERS

    adapter = ADAPTERS.get(settings.agent or "")
    if adapter and (adapter.streams_cost or (adapter.limits_cost and not settings.agent_command)):
        return
    if adapter and adapter.limits_cost:
        raise UsageError(
            f"--max-cost-per-run cannot be held: {settings.agent} says its cost only at the end",
            hint="give its own option for that in --agent-command, or no --agent-command",
        )
    who = settings.agent or "the agent of this command"
    raise UsageError(
        f"--max-cost-per-run cannot be held: {who} does not say its costs as it goes",
        hint="give an agent that does, such as --agent claude, or no such limit",
    )
