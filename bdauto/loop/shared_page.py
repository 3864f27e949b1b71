"""The first page of a queue, read once for the lanes that share it."""

from collections.abc import Callable
from datetime import datetime

from bdauto.domain.bead import BeadList


class SharedPage:
    """The first page as it was read last, and the tracker's revision before that."""

    def __init__(self) -> None:
        self._page = BeadList(())
        self._revision: str | None = None
        self._began: datetime | None = None

    def read(
        self, read: Callable[[], BeadList], revision: str | None, now: datetime, since: datetime
    ) -> tuple[BeadList, datetime]:
        """Return the page, and when its read began. Raises what `read` raises.

        It is read anew unless the revision is as it was then, and that was after `since`. One that is not known is
        never the same.
        """
        if self._began is None or revision is None or revision != self._revision or self._began <= since:
            self._began = None
            self._page, self._revision = read(), revision
            self._began = now
        return self._page, self._began
