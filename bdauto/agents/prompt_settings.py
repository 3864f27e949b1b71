"""The options of every kind of agent that bdauto starts itself. A struct cannot inherit from two others."""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from bdauto.common.errors import UsageError
from bdauto.domain.settings import LIMITS, Option


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


def parse_commands(texts: list[str]) -> tuple[CommandLine, ...]:
    """Split each command into words. Raises UsageError."""
    return tuple(parse_command(text) for text in texts if text.strip())


PROMPT = "The agent"
Prompt = Annotated[Path | None, Option("Template of the prompt. (default: built in)", PROMPT)]
TimeLimit = Annotated[
    timedelta, Option("End a job after this time. On this machine: SIGTERM, and 10 seconds later SIGKILL.", PROMPT)
]
CostLimit = Annotated[
    float | None,
    Option(
        "End a run that costs more. Only with an agent that has such an option, or says its costs as it goes. "
        "(default: no limit)",
        LIMITS,
    ),
]
Slots = Annotated[
    int, Option("Jobs at a time: on this machine, or of this tracker in the namespace.", PROMPT, key="slots")
]
Keep = Annotated[
    timedelta, Option("Keep a job's folder, or its Job in Kubernetes, for this long after its end.", PROMPT)
]
TIME_LIMIT = timedelta(minutes=45)
CHECK_LIMIT = timedelta(minutes=30)
Checks = Annotated[
    tuple[CommandLine, ...],
    Option(
        "Run this where the agent ran when it has ended, and close its bead if it succeeds. Until then nobody else "
        "closes the bead for the agent. Repeatable: all must succeed. In the variable, one a line.",
        PROMPT,
        metavar="CMD",
        parse=parse_commands,
    ),
]
CheckTimeout = Annotated[timedelta, Option("End a check or a review after this time.", PROMPT)]
