"""The agent command of this machine, as the options and the working folder say."""

from bdauto.agents.local.local_agent import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.bd.client import Bd
from bdauto.bd.command import without_own
from bdauto.domain.settings import BdSettings
from bdauto.errors import UsageError


def local_agent(settings: LocalAgentSettings, bd: BdSettings) -> LocalAgent:
    """Return the agent of this machine. Raises UsageError when bd finds no tracker, and BdError when bd fails."""
    if bd.metadata is not None:
        raise UsageError(
            "--metadata does not go with an agent on this machine, which needs a .beads folder that stays",
            hint="give --db",
        )
    found = Bd(bd, readonly=True).tracker()
    return LocalAgent(settings, found.folder, bd.assignee, without_own(), tracker=found.id, home=found.home)
