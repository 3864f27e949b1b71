"""The limits on a day's dispatches, asked before each bead."""

from collections.abc import Callable
from datetime import datetime

from bdauto.bd.client import Bd, RunningCommand
from bdauto.controllers.gate import Hold
from bdauto.domain.bead import BeadList
from bdauto.domain.limits import LOOK_BACK, counts_beads, outside_hours, reached
from bdauto.domain.outcome import Outcome
from bdauto.domain.settings import DispatchSettings


class Limits:
    """Says whether a limit is reached. Where none is set that counts beads, it reads nothing."""

    def __init__(self, bd: Bd, settings: DispatchSettings, now: Callable[[], datetime]) -> None:
        self._bd = bd
        self._settings = settings
        self._now = now
        self._call: RunningCommand[BeadList] | None = None

    def look(self) -> None:
        """Start the read that `hold` needs."""
        if counts_beads(self._settings) and self._call is None:
            self._call = self._bd.changed_since(self._now() - LOOK_BACK)

    def hold(self) -> Hold | None:
        """Return why not to go on, None to go on. Raises BdError."""
        limit = outside_hours(self._settings, self._now())
        if limit is None and counts_beads(self._settings):
            self.look()
            call, self._call = self._call, None
            assert call is not None
            beads = call.result().beads
            limit = reached(beads, self._settings, self._bd.settings.assignee, self._now())
        return Hold(Outcome.limited, limit.describe(), limit.until) if limit else None

    def close(self) -> None:
        """End a read that is under way."""
        if self._call:
            self._call.kill()
            self._call = None
