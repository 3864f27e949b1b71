"""The agent command of this machine, as the options and the working folder say."""

from pathlib import Path

from bdauto.agents.local.local_agent import LocalAgent
from bdauto.bd.command import without_own
from bdauto.bd.folder import beads_folder
from bdauto.domain.local_settings import LocalAgentSettings
from bdauto.domain.settings import BdSettings
from bdauto.errors import UsageError


def local_agent(settings: LocalAgentSettings, bd: BdSettings) -> LocalAgent:
    """Return the agent of this machine. Raises UsageError when no `.beads` folder is found."""
    if bd.metadata is not None:
        raise UsageError(
            "--metadata does not go with an agent on this machine, which needs a .beads folder that stays",
            hint="give --db",
        )
    folder = beads_folder(bd.db)
    if folder is None:
        hint = "run `bd init`, or name it with --db or BDAUTO_DB"
        raise UsageError(f"no .beads folder in {Path.cwd()} or above", hint=hint)
    return LocalAgent(settings, folder, bd.assignee, without_own())
