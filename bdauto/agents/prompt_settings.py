"""The options of every kind of agent that bdauto starts itself. A struct cannot inherit from two others."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from bdauto.domain.settings import LIMITS, Option
from bdauto.domain.values import parse_dollars

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
        metavar="USD",
        parse=parse_dollars,
    ),
]
Slots = Annotated[
    int, Option("Jobs at a time: on this machine, or of this tracker in the namespace.", PROMPT, key="slots")
]
Keep = Annotated[
    timedelta, Option("Keep a job's folder, or its Job in Kubernetes, for this long after its end.", PROMPT)
]
TIME_LIMIT = timedelta(minutes=45)
