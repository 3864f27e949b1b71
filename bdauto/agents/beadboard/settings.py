"""The settings of BeadBoard."""

from typing import Annotated

from bdauto.agents.service_settings import AgentServiceSettings
from bdauto.domain.settings import SERVICES, Option


class BeadBoardSettings(AgentServiceSettings, frozen=True, kw_only=True):
    """Where BeadBoard is, and the agent service behind it."""

    beadboard_url: Annotated[
        str | None,
        Option("BeadBoard, which starts the agent of each bead.", SERVICES, env="BEADBOARD_URL", metavar="URL"),
    ] = None
