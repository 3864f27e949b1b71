"""Defects of the circuit breaker: what is counted, who is let through, and what is given back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bdauto.bd.change import Change, rewrite
from bdauto.controllers import breaker_store
from bdauto.controllers.breaker_store import BreakerStore
from bdauto.controllers.early_deaths import EarlyDeaths
from bdauto.domain import breaker
from bdauto.domain.bead import Bead
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.reaping import OVER, JobEvidence, ReapDecision
from bdauto.domain.record import Record
from tests.simulation.mutations.registry import Replacement, mutation

Replaced = Sequence[Replacement]


@mutation("the breaker forgets all deaths but the last")
def _forgetful() -> Replaced:
    original = Breaker.after_death

    def after(self: Breaker, *args: Any, **options: Any) -> Breaker:
        return original(msgspec.structs.replace(self, deaths=()), *args, **options)

    return [Replacement(Breaker, "after_death", after)]


@mutation("the breaker counts every job that is over as an early death")
def _all_over() -> Replaced:
    original = EarlyDeaths.settle

    def settle(self: EarlyDeaths, decisions: Sequence[ReapDecision], evidence: JobEvidence, store: Any) -> Any:
        found = [
            msgspec.structs.replace(decision, early_death=evidence.states.get(decision.bead.id) in OVER)
            for decision in decisions
        ]
        return original(self, found, evidence, store)

    return [Replacement(EarlyDeaths, "settle", settle)]


@mutation("the beads are settled before the breaker is written")
def _breaker_late() -> Replaced:
    return [Replacement(EarlyDeaths, "settle", lambda self, decisions, evidence, store: (list(decisions), None))]


@mutation("the breaker is not written when it has changed meanwhile")
def _breaker_once() -> Replaced:
    def update(
        self: BreakerStore, change: Callable[[Breaker], Breaker], store: Mapping[str, Any] | None = None
    ) -> Breaker:
        current = self.bd.kv_list().result() if store is None else store
        wanted = msgspec.structs.replace(change(breaker.read(current)), write=self.runtime.unique())
        self.writer.swap(breaker.KEY, current.get(breaker.KEY) or None, wanted.encode())
        return wanted

    return [Replacement(BreakerStore, "update", update)]


@mutation("a half-open breaker lets everybody through")
def _many_trials() -> Replaced:
    return [Replacement(BreakerStore, "take_trial", lambda self, attempt, bead: True)]


@mutation("the place of a half-open breaker is taken without a compare")
def _trial_blind() -> Replaced:
    original = BreakerStore.take_trial

    def take(self: BreakerStore, attempt: str, bead: str) -> bool:
        original(self, attempt, bead)
        return True

    return [Replacement(BreakerStore, "take_trial", take)]


@mutation("a trial that fails does not open the breaker again")
def _failed_trial() -> Replaced:
    original = Breaker.after_death

    def after(self: Breaker, death: Death, trip_after: int, *args: Any, **options: Any) -> Breaker:
        found = original(self, death, trip_after, *args, **options)
        return msgspec.structs.replace(self, deaths=found.deaths) if self.trial else found

    return [Replacement(Breaker, "after_death", after)]


@mutation("a breaker that opens again waits no longer")
def _same_wait() -> Replaced:
    original = Breaker.after_death

    def after(self: Breaker, *args: Any, **options: Any) -> Breaker:
        return msgspec.structs.replace(original(self, *args, **options), opened=0)

    return [Replacement(Breaker, "after_death", after)]


@mutation("the agent of a trial that lives does not close the breaker")
def _life_unheard() -> Replaced:
    return [Replacement(Breaker, "after_life", lambda self, attempt, claimed_at: self)]


@mutation("a charge is given back at each sweep")
def _gives_back_twice() -> Replaced:
    def rewritten(bead: Bead, record: Record, *args: Any, **fields: Any) -> Change:
        return rewrite(bead, record.change(died=bead.record.died), *args, **fields)

    return [Replacement(breaker_store, "rewrite", rewritten)]


@mutation("an unknown outcome does not count for the breaker")
def _unknown_uncounted() -> Replaced:
    return [Replacement(BreakerStore, "after_unknown", lambda self, death, trip_after: (Breaker(), False))]


@mutation("unknown outcomes that open the breaker stay charged")
def _unknown_charged() -> Replaced:
    return [Replacement(BreakerStore, "refunds", lambda self, found, skip=(): [])]
