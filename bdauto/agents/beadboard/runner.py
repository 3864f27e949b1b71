"""BeadBoard, which starts the agent of each bead, and the agent service behind it where that is configured."""

import re

import msgspec

from bdauto.agents.answers import Answer
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.runner_status import BOARD, Capacity, Part, RunnerStatus
from bdauto.agents.service_runner import ServiceRunner, join
from bdauto.common.errors import BdautoError
from bdauto.domain.bead import Bead
from bdauto.domain.values import redact

LIST_LIMIT = 1 << 26
"""Bytes of BeadBoard's list of all beads, which `bdauto doctor` alone reads."""


_NOT_FOUND = re.compile(r"\bnot found\b", re.IGNORECASE)


class _Status(msgspec.Struct, frozen=True):
    busy: bool


class _ListedBead(msgspec.Struct, frozen=True):
    id: str


class _Listed(msgspec.Struct, frozen=True):
    issues: list[_ListedBead]


def open_runner(settings: BeadBoardSettings, _project: object) -> "BeadBoardRunner":
    """Return what runs the agent. Raises UsageError."""
    return BeadBoardRunner(settings)


def board_part(*, busy: bool = False, error: BdautoError | None = None) -> Part:
    """Return BeadBoard as a part of the runner."""
    capacity = None if error else Capacity(0 if busy else 1)
    return Part(BOARD, "BeadBoard", capacity, error, "up, busy" if busy else "up, not busy", counts=False)


class BeadBoardRunner(ServiceRunner):
    """BeadBoard and the agent service, as the settings name them. Use as a context manager."""

    settings: BeadBoardSettings
    target = "BeadBoard"
    hint = "check BeadBoard's configuration and --beadboard-url"
    refused_hint = "check that BeadBoard reads the same database as bd"

    def _urls(self) -> list[str | None]:
        return [self.settings.beadboard_url, self.settings.agent_url]

    def _unseen(self, words: str) -> bool:
        """Return True for a bead that BeadBoard does not find: it may read an export that is up to a minute old."""
        return bool(_NOT_FOUND.search(words))

    def beadboard_busy(self) -> bool:
        """Return BeadBoard's `busy`, which is false also when the agent service is down."""
        url = join(self.settings.beadboard_url, "/api/agent-status")
        return self.http.get("BeadBoard", url).decode(_Status, f"BeadBoard {redact(url)}").busy

    def listed_beads(self) -> frozenset[str] | None:
        """Return the ids of all beads that BeadBoard lists, or None if it has no such list. Raises ServiceError."""
        url = join(self.settings.beadboard_url, "/api/beads/read")
        reply = self.http.get("BeadBoard", url, limit=LIST_LIMIT)
        if reply.status == 404:
            return None
        return frozenset(bead.id for bead in reply.decode(_Listed, f"BeadBoard {redact(url)}").issues)

    def status(self) -> RunnerStatus:
        """Ask both services, as far as they are configured, how they are."""
        return RunnerStatus((self._board_part(), self.service_part()))

    def _board_part(self) -> Part:
        try:
            return board_part(busy=self.beadboard_busy())
        except BdautoError as error:
            return board_part(error=error)

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Ask BeadBoard once to start the agent on a bead.

        BeadBoard makes the job's id, and would start the same attempt twice.
        """
        return self._post(join(self.settings.beadboard_url, "/api/agent-dispatch"), {"taskId": bead.id})
