"""BeadBoard, which starts the agent of each bead, and the agent service behind it where that is configured."""

import msgspec

from bdauto.agents.answers import Answer
from bdauto.agents.service_runner import ServiceRunner, join
from bdauto.agents.service_status import ServiceStatus, services_status
from bdauto.domain.bead import Bead
from bdauto.domain.values import redact

LIST_LIMIT = 1 << 26
"""Bytes of BeadBoard's list of all beads, which `bdauto doctor` alone reads."""


class _Status(msgspec.Struct, frozen=True):
    busy: bool


class _ListedBead(msgspec.Struct, frozen=True):
    id: str


class _Listed(msgspec.Struct, frozen=True):
    issues: list[_ListedBead]


class BeadBoardRunner(ServiceRunner):
    """BeadBoard and the agent service, as the settings name them. Use as a context manager."""

    target = "BeadBoard"

    def _urls(self) -> list[str | None]:
        return [self.settings.beadboard_url, self.settings.agent_url]

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

    def status(self) -> ServiceStatus:
        """Ask both services, as far as they are configured, how they are."""
        return services_status(self)

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Ask BeadBoard once to start the agent on a bead.

        BeadBoard makes the job's id, and would start the same attempt twice.
        """
        return self._post(join(self.settings.beadboard_url, "/api/agent-dispatch"), {"taskId": bead.id})
