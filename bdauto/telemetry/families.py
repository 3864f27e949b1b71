"""The metrics' names, kinds and words. Imports nothing: whoever sets a gauge need not have prometheus_client."""

from collections.abc import Mapping
from typing import Literal

from bdauto.domain.outcome import BeadOutcome

Command = Literal["dispatch", "reap"]

DISPATCHES, REAPS = "bdauto_dispatches_total", "bdauto_reaps_total"
COMPLETIONS, COST = "bdauto_completions_total", "bdauto_cost_dollars_total"
DURATION, LAST_SUCCESS = "bdauto_cycle_duration_seconds", "bdauto_last_success_timestamp_seconds"
BEADS, OLDEST = "bdauto_beads", "bdauto_oldest_eligible_age_seconds"
CAPACITY, UP, PAUSED, STARVED = "bdauto_capacity_free", "bdauto_up", "bdauto_paused", "bdauto_starved"
SUSPENDED, ASKED, LIMITED = "bdauto_suspended", "bdauto_up_timestamp_seconds", "bdauto_limited"
READY_TO_DISPATCH = "bdauto_ready_to_dispatch_seconds"

FAMILIES: Mapping[str, tuple[str, str]] = {
    DISPATCHES: ("counter", "Beads that a dispatch cycle took up, by what became of each."),
    REAPS: ("counter", "Beads in progress that a sweep judged, by what became of each."),
    COMPLETIONS: ("counter", "Beads whose agent has ended, by what it made of them: closed, blocked, other."),
    COST: ("counter", "US dollars that runs cost whose end was recorded, as far as their agents said."),
    DURATION: ("histogram", "Wall time of one cycle, by command: dispatch or reap."),
    READY_TO_DISPATCH: (
        "histogram",
        "Time from when a bead became eligible, as far as that is known, to its POST.",
    ),
    BEADS: (
        "gauge",
        "Beads of the assignee, by state: eligible, waiting, in_progress, stalled, quarantined, cancelled, blocked.",
    ),
    OLDEST: ("gauge", "Time since the last update of the eligible bead that has waited longest; 0 without one."),
    CAPACITY: ("gauge", "Beads the agent service would take now; 1 means at least one where it does not count."),
    UP: ("gauge", "Whether bd and each service, as targets, answered when last asked."),
    ASKED: ("gauge", "When `run` last asked each target: so old is what bdauto_up says."),
    PAUSED: ("gauge", "Whether the pause switch is on."),
    SUSPENDED: ("gauge", "Whether the circuit breaker is open: the agents of several beads died at once."),
    LIMITED: ("gauge", "Whether a limit on a day's dispatches, or the active hours, held dispatching back last."),
    LAST_SUCCESS: (
        "gauge",
        "When a cycle of this command last ended without an error; `run` begins with its own start.",
    ),
    STARVED: ("gauge", "Whether work was eligible and capacity free for three intervals with nothing dispatched."),
}
OUTCOMES: Mapping[str, tuple[str, ...]] = {
    COMPLETIONS: ("closed", "blocked", "other"),
    DISPATCHES: (
        BeadOutcome.dispatched,
        BeadOutcome.lost,
        BeadOutcome.busy,
        BeadOutcome.released,
        BeadOutcome.adopted,
        BeadOutcome.reverted,
        BeadOutcome.kept,
        BeadOutcome.not_visible,
        BeadOutcome.refused,
        BeadOutcome.quarantined,
        BeadOutcome.unavailable,
        BeadOutcome.misconfigured,
        BeadOutcome.unknown,
        BeadOutcome.failed,
    ),
    REAPS: (
        BeadOutcome.kept,
        BeadOutcome.released,
        BeadOutcome.requeued,
        BeadOutcome.asks,
        BeadOutcome.closed,
        BeadOutcome.reverted,
        BeadOutcome.stopping,
        BeadOutcome.unclear,
        BeadOutcome.blocked,
        BeadOutcome.lost,
        BeadOutcome.failed,
    ),
}
