"""The limits on a day's dispatches, asked before each bead."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from bdauto.bd.client import Bd
from bdauto.bd.prefetch import Prefetch
from bdauto.controllers.hold import Hold
from bdauto.domain.limits import DAY, LOOK_BACK, counts_beads, reached
from bdauto.domain.outcome import Outcome
from bdauto.domain.settings import DispatchSettings

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


class DayLimits:
    """Says whether a limit is reached. Where none is set, it reads nothing."""

    def __init__(
        self, bd: Bd, runner: "Callable[[], Runner]", settings: DispatchSettings, now: Callable[[], datetime]
    ) -> None:
        self._bd = bd
        self._runner = runner
        self._settings = settings
        self._now = now
        self._beads = Prefetch(lambda: bd.changed_since(now() - LOOK_BACK), now) if counts_beads(settings) else None

    def prefetch(self) -> None:
        """Start the read that `hold` needs."""
        if self._beads:
            self._beads.start()

    def hold(self) -> Hold | None:
        """Return the limit that is reached, or None. Raises BdError."""
        if self._beads is None:
            return None
        beads, here = self._beads.result().beads, self._runner().recent_runs(self._now() - DAY)
        limit = reached(beads, self._settings, self._bd.assignee, self._now(), here, self._bd.lanes)
        return Hold(Outcome.limited, limit.describe(), limit.until) if limit else None

    def close(self) -> None:
        """Stop a read that is under way."""
        if self._beads:
            self._beads.close()
