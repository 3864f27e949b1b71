"""What bdauto logs in a history, by task."""

import logging

from tests.simulation.world import World

LOGGER = logging.getLogger("bdauto")


class LogListener(logging.Handler):
    """Keeps the events that name a bead, in the histories that count too."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._before = LOGGER.level, LOGGER.propagate
        LOGGER.propagate = False
        LOGGER.setLevel(logging.INFO if world.plan.counting else logging.CRITICAL)
        LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one event."""
        task, fields = self._world.scheduler.current, getattr(record, "fields", {})
        if task is not None and "bead" in fields:
            self._world.logged.setdefault(task.name, []).append((record.getMessage(), fields["bead"]))

    def close(self) -> None:
        """Listen no longer."""
        LOGGER.removeHandler(self)
        LOGGER.setLevel(self._before[0])
        LOGGER.propagate = self._before[1]
        super().close()
