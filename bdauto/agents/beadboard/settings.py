"""The settings of BeadBoard and of the agent service."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from bdauto.domain.settings import SERVICES, Option, Secret


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where BeadBoard and the agent service are. `agent_token` is what `agent_token_file` or the environment holds."""

    beadboard_url: Annotated[
        str | None,
        Option(
            "BeadBoard, which starts the agent of each bead. Needed without --agent-command.",
            SERVICES,
            env="BEADBOARD_URL",
            metavar="URL",
        ),
    ] = None
    agent_url: Annotated[
        str | None,
        Option(
            "The agent service, asked for its capacity and the state of jobs. (default: not asked)",
            SERVICES,
            metavar="URL",
        ),
    ] = None
    agent_token_file: Annotated[
        Path | None,
        Option("File with the agent service's bearer token. (default: the variable API_BEARER_TOKEN)", SERVICES),
    ] = None
    timeout: Annotated[timedelta, Option("Time limit of each HTTP request as a whole.", SERVICES)] = timedelta(
        seconds=30
    )
    agent_token: Secret | None = None
