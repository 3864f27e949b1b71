"""Whether what runs the agent has room for a further job."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bdauto.agents.runner import check_services
from bdauto.agents.runner_status import RunnerStatus
from bdauto.common.errors import ServiceDown
from bdauto.controllers.hold import AT_CAPACITY, Hold
from bdauto.domain.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


class Room:
    """Asks what runs the agent for its capacity, once in a cycle. `asked` gets each answer."""

    def __init__(
        self, runner: "Callable[[], Runner]", settings: DispatchSettings, asked: Callable[[RunnerStatus], None]
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._asked = asked
        self._status: RunnerStatus | None = None

    def prefetch(self) -> None:
        """Start nothing: no service is asked before it is known that a bead is eligible."""

    def hold(self) -> Hold | None:
        """Return AT_CAPACITY if there is no room. Raises BdautoError if the services do not say."""
        return AT_CAPACITY if self.places == 0 else None

    @property
    def places(self) -> int:
        """How many beads may be dispatched in this cycle."""
        if self._status is None:
            self._status = check_services(self._runner())
            self._asked(self._status)
        capacity, wanted = self._status.capacity, self._settings.max_beads
        if capacity is None:
            raise self._status.error or ServiceDown("the services did not say what they would take")
        return min(wanted, capacity.free) if capacity.counted or not capacity.free else wanted

    def close(self) -> None:
        """Stop nothing: no answer is left open."""
