"""The agent command: its words, the programs in them, and what they may not do."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bdauto.agents.cli_adapters.permissions import lacks_permission
from bdauto.agents.cli_adapters.table import ADAPTERS
from bdauto.agents.local.preflight import check_utf8, program_version
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.local.words import check_words, fill
from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean

SETTINGS_CHARACTERS = 1 << 20
"""So much of an agent's own settings is looked at."""


class AgentCommand(msgspec.Struct, frozen=True):
    """The command that the settings name. It runs in `directory`, with `environment`.

    `bd` is how bdauto calls bd, () if that is not known.
    """

    settings: LocalAgentSettings
    directory: Path
    environment: Mapping[str, str]
    bd: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The command as it was given. Raises UsageError if there is none."""
        if self.settings.agent_command is None:
            raise UsageError("no agent command", hint="give --agent-command or BDAUTO_AGENT_COMMAND")
        return self.settings.agent_command.words

    @property
    def checks(self) -> list[list[str]]:
        """The commands of --agent-check."""
        return [self._located(command.words) for command in self.settings.agent_check]

    @property
    def prepare_words(self) -> list[str]:
        """The command of --agent-prepare, empty if there is none."""
        return self._located(self.settings.agent_prepare.words) if self.settings.agent_prepare else []

    @property
    def land_words(self) -> list[str]:
        """The command of --agent-land, empty if there is none."""
        return self._located(self.settings.agent_land.words) if self.settings.agent_land else []

    @property
    def reviewer(self) -> str:
        """The adapter that reads what a reviewer says, "" for any other command, or without one."""
        review = self.settings.agent_review
        name = Path(review.words[0]).name if review else ""
        return name if name in ADAPTERS else ""

    @property
    def review_words(self) -> list[str]:
        """The command of --agent-review, empty if there is none."""
        review = self.settings.agent_review
        if review and review.words == (self.reviewer,):
            return ADAPTERS[self.reviewer].command("", None, "")
        return self._located(review.words) if review else []

    @property
    def search_path(self) -> str:
        """Where the agent looks for programs: its PATH."""
        return self.environment.get("PATH") or os.defpath

    def check(self) -> None:
        """Raise UsageError if the command is not found, has no folder to run in, or would run a bead's text as code."""
        if not self.directory.is_dir():
            raise UsageError(f"{self.directory} is not a folder", hint="name one with --agent-dir")
        option = "--agent" if self.settings.agent == self.words[0] else "--agent-command"
        others = {
            "--agent-check": self.checks,
            "--agent-review": [self.review_words],
            "--agent-prepare": [self.prepare_words],
            "--agent-land": [self.land_words],
        }
        firsts = [(words[0], name) for name, commands in others.items() for words in commands if words]
        for word, name in ((self.program(), option), *firsts):
            if shutil.which(word, path=self.environment.get("PATH")) is None:
                raise UsageError(f"{name} {clean(word)!r} is not a program", hint="name one that is on PATH")
        check_utf8("--agent-command", self.words)
        for name, commands in others.items():
            check_utf8(name, [word for words in commands for word in words])
        check_words("--agent-command", self.words)
        check_words("--agent-review", self.review_words)

    def filled(self, bead_id: str, attempt: str, prompt: str) -> list[str]:
        """Return the command's words for a bead."""
        return fill(self._located(self.words), bead_id, attempt, prompt)

    def program(self) -> str:
        """Return the command's first word. A relative path starts where the agent runs."""
        return self._located(self.words)[0]

    def version(self) -> str:
        """Return the first line of what `AGENT --version` prints. Raises UsageError."""
        return program_version(self.program(), self.environment)

    def lacks_permission(self) -> str:
        """Return the agent that the command starts and that may not run `bd`, or ""."""
        return lacks_permission(self.words, self._read)

    def _read(self, file: str) -> str:
        path = self.directory / Path(file).expanduser()
        try:
            return path.read_text(encoding="utf-8", errors="replace")[:SETTINGS_CHARACTERS]
        except (OSError, ValueError):
            return ""

    def _located(self, words: Sequence[str]) -> list[str]:
        return [str(self.directory / words[0]) if "/" in words[0] else words[0], *words[1:]]
