"""Agents that die at once: what their deaths mean for the circuit breaker, and for their beads."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import AgentsDie
from bdauto.controllers.breaker_store import BreakerStore, Life, finished, life_of, recent_of_lane
from bdauto.controllers.sweep_writes import SweepWrites
from bdauto.domain import breaker
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.reaping import Action, JobEvidence, ReapDecision, uncharged
from bdauto.domain.settings import ReapSettings
from bdauto.domain.times import format_time


class EarlyDeaths(msgspec.Struct, frozen=True):
    """Tells the breaker what a sweep found. Every method may raise BdError."""

    bd: Bd
    writes: SweepWrites
    settings: ReapSettings
    runtime: Runtime

    def settle(
        self, decisions: Sequence[ReapDecision], evidence: JobEvidence, store: Mapping[str, Any] | None
    ) -> tuple[list[ReapDecision], AgentsDie | None]:
        """Count the deaths and the signs of life. Return the decisions with their charges, and the error of a trip.

        The breaker is written before the beads: killed in between, the next sweep finds the same deaths, which count
        once, and gives them the same charge.
        """
        died = [decision for decision in decisions if decision.early_death]
        known = breaker.read(store, self.bd.lane) if store is not None else None
        quiet = known is not None and not known.deaths and known.until is None
        if self.settings.trip_after == 0 or self.settings.dry_run or (not died and quiet):
            return list(decisions), None
        living = (decision for decision in decisions if not decision.early_death)
        lives = [life for decision in living if (life := life_of(decision.bead))]
        deaths = [self._death(decision, evidence) for decision in died]
        resets = {d.bead.record.attempt: e.reset_at for d in died if (e := evidence.ends.get(d.bead.id))}
        found, opened = self._update(deaths, resets, lives, store)
        suspended = {death.attempt for death in found.deaths} if found.until else set()
        charged = [
            uncharged(decision) if _is_charged(decision) and decision.bead.record.attempt in suspended else decision
            for decision in decisions
        ]
        settled = {decision.bead.id for decision in decisions if decision.action is not Action.keep}
        self.writes.each(BreakerStore(self.bd, self.writes, self.runtime).refunds(found, settled))
        if not opened:
            return charged, None
        return charged, AgentsDie(
            found.describe(), hint="mend the agent; one bead then tries it, or close the breaker with `bdauto resume`"
        )

    def _update(
        self,
        deaths: Sequence[Death],
        resets: Mapping[str, datetime | None],
        lives: list[Life],
        store: Mapping[str, Any] | None,
    ) -> tuple[Breaker, bool]:
        """Write the breaker. Return it, and whether this opened it. `resets` has the reset times by attempt."""
        opened = 0
        looked = False

        def change(before: Breaker) -> Breaker:
            nonlocal opened, looked
            after = self._after(before, deaths, resets, lives)
            if not looked and (before.trial or before.until or after.opened > before.opened):
                looked = True  # those that have closed their beads are no longer in progress
                lives.extend(life for bead in recent_of_lane(self.bd) if (life := finished(bead)))
                after = self._after(before, deaths, resets, lives)
            opened = after.opened if after.opened > before.opened else 0
            return after

        found = BreakerStore(self.bd, self.writes, self.runtime).update(change, store)
        return found, 0 < opened <= found.opened  # others, or a pause, may have kept it from being written

    def _after(
        self,
        before: Breaker,
        deaths: Sequence[Death],
        resets: Mapping[str, datetime | None],
        lives: Sequence[Life],
    ) -> Breaker:
        """Return the breaker after these deaths and signs of life, in the order in which the beads were claimed."""
        now = self.runtime.now()

        def died(death: Death) -> Callable[[Breaker], Breaker]:
            resume_at = resets.get(death.attempt)
            return lambda found: found.after_death(death, self.settings.trip_after, now, resume_at=resume_at)

        def lived(life: Life) -> Callable[[Breaker], Breaker]:
            return lambda found: found.after_life(*life)

        events = [(death.since, died(death)) for death in deaths] + [(life[1], lived(life)) for life in lives]
        for _, event in sorted(events, key=lambda event: event[0]):
            before = event(before)
        return before

    def _death(self, decision: ReapDecision, evidence: JobEvidence) -> Death:
        bead = decision.bead
        claimed_at = bead.record.claimed_at or bead.updated_at
        return Death(
            bead.id,
            bead.record.attempt,
            bead.record.job,
            evidence.last_words(bead.id),
            format_time(claimed_at),
            service=decision.service,
        )


def _is_charged(decision: ReapDecision) -> bool:
    """True: the bead is charged for an early death, or for an unknown outcome without a sign of life."""
    bead = decision.bead
    unknown = (
        decision.action is not Action.keep and bead.record.died == bead.record.attempt != "" and life_of(bead) is None
    )
    return decision.early_death or unknown
