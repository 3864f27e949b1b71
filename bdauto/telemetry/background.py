"""One daemon thread for what must not hold up the work: notifications and pushed metrics."""

import queue
import threading
from collections.abc import Callable

from bdauto.common import log

LIMIT = 100
"""Tasks that may wait. More are dropped with a warning."""


class Background:
    """Does tasks one after another in a daemon thread, which starts with the first. A task handles its own errors."""

    def __init__(self) -> None:
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(LIMIT)
        self._thread: threading.Thread | None = None

    def put(self, task: Callable[[], None]) -> None:
        """Queue a task and return at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="bdauto-background", daemon=True)
            self._thread.start()
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            log.warning("dropped", detail=f"{LIMIT} notifications or metrics wait already")

    def close(self, seconds: float) -> None:
        """Wait so long for the tasks that still wait, then leave them."""
        if self._thread is None:
            return
        try:
            self._tasks.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _work(self) -> None:
        while task := self._tasks.get():
            task()
