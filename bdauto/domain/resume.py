"""Decide whether a further attempt goes on in the session of the bead's last run."""

from collections.abc import Sequence

from bdauto.domain.agent_end import Why
from bdauto.domain.record import Run

MOST_RESUMES = 5
"""How often a session is resumed. A long one costs more at each turn, and may itself be what goes wrong."""
RESUMED_AFTER = frozenset({Why.limit, Why.overloaded, Why.network, Why.timeout, Why.stopped, Why.question, Why.lost})
"""Why a run ended whose agent was interrupted. A silent one may be silent again in its session."""


def may_resume(runs: Sequence[Run], session: str, resumes: int, *, interrupted: bool) -> bool:
    """Return whether the attempt after these runs goes on in the last one's session.

    The session was resumed `resumes` times as far as this machine knows. The runs' record counts, too, because it also
    has those on other machines. `interrupted`: this machine knows that the last run was, whatever its record says.
    """
    recorded = sum(run.session == session for run in runs) - 1
    return (interrupted or runs[-1].why in RESUMED_AFTER) and max(resumes, recorded) < MOST_RESUMES
