"""The circuit breaker in the tracker: read with the pause switch, changed by compare-and-set."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec

from bdauto.bd.change import NOW, Change, Writer, as_read, rewrite, swap_and_look
from bdauto.bd.client import Bd
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import AgentsDie
from bdauto.domain import breaker
from bdauto.domain.bead import Bead
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.constants import SWAP_TRIES
from bdauto.domain.life import sign_of_life
from bdauto.domain.notes import UNKNOWN

RECENT = 50
"""How many of the last updated beads are searched for agents that have shown life since."""
Life = tuple[str, datetime]
"""An attempt whose agent gave a sign of life, and when it was claimed."""


class BreakerStore(msgspec.Struct, frozen=True):
    """Changes the breaker. Every method may raise BdError."""

    bd: Bd
    writer: Writer
    runtime: Runtime

    def update(self, change: Callable[[Breaker], Breaker], store: Mapping[str, Any] | None = None) -> Breaker:
        """Apply `change` to the breaker as it is now, and return what it is afterwards.

        `change` is called anew for each try and returns its argument to leave the breaker as it is. `store` is the
        key-value store if it was just read. After SWAP_TRIES losses the breaker is returned as others left it.
        """
        found, key = Breaker(), breaker.key_of(self.bd.lane)
        for _ in range(SWAP_TRIES):
            current = self.bd.kv_list().result() if store is None else store
            store = None
            found = breaker.read(current, self.bd.lane)
            wanted = change(found)
            if wanted == found:
                return found
            wanted = msgspec.structs.replace(wanted, write=self.runtime.unique())
            if swap_and_look(self.writer, self.bd.kv_list, key, current.get(key) or None, wanted.encode()):
                _log(found, wanted, self.runtime)
                return wanted
        return found

    def count_unknown(self, bead: str, attempt: str, error: str, trip_after: int) -> tuple[Breaker, AgentsDie | None]:
        """Count a POST with an unknown outcome. Return the breaker, and the error if this opened it."""
        death = breaker.unknown_outcome(bead, attempt, error, self.runtime.now())
        found, opened = self.after_unknown(death, trip_after)
        if not opened:
            return found, None
        return found, AgentsDie(
            f"{bead}: {UNKNOWN}: {death.short_words}; {found.describe()}",
            hint="see what stands between bdauto and the agent service; one bead then tries it, or `bdauto resume`",
        )

    def after_unknown(self, death: Death, trip_after: int) -> tuple[Breaker, bool]:
        """Count a POST with an unknown outcome. Return the breaker, and whether this opened it.

        The POSTs are in a row if no bead that was claimed between them has a job, or an agent that has shown life.
        """
        opened = False
        recent: list[Bead] | None = None

        def change(before: Breaker) -> Breaker:
            nonlocal opened, recent
            now = self.runtime.now()
            after = before.after_death(death, trip_after, now)
            if after.opened > before.opened:
                recent = recent_of_lane(self.bd) if recent is None else recent
                after = _without_started(before, recent).after_death(death, trip_after, now)
            opened = after.opened > before.opened
            return after

        found = self.update(change)
        return found, opened

    def refunds(self, found: Breaker, skip: Collection[str] = ()) -> list[Change]:
        """Return the changes that give the beads of an open breaker their charges back, except those in `skip`.

        The beads are open after an early death, or still claimed after an unknown outcome. No charge is given back
        twice. A change that could not be written is returned again in the next sweep, or at the next unknown outcome.
        """
        attempts = {death.attempt for death in found.deaths} if found.until else set()
        beads = self.bd.read(sorted({death.bead for death in found.deaths})).result().beads if attempts else ()
        return [
            self._uncharged(bead)
            for bead in beads
            if bead.record.died in attempts and bead.id not in skip
            if bead.status == "open" or (bead.status == "in_progress" and bead.record.died == bead.record.attempt)
        ]

    def _uncharged(self, bead: Bead) -> Change:
        waits = bead.status == "open" and bead.record.armed_at is not None
        record = bead.record.change(attempts=max(bead.record.attempts - 1, 0), died="")
        return rewrite(
            bead,
            record.in_place(bead.record.armed_at) if waits else record,
            times={"released_at": NOW} if waits else {},
            act="give back the charge of",
            mark=self.runtime.unique(),
            if_status=bead.status,
            **as_read(bead),
        )

    def take_trial(self, attempt: str, bead: str) -> bool:
        """Take the one place of a half-open breaker for an attempt. Return False if somebody else has it."""

        def take(found: Breaker) -> Breaker:
            now = self.runtime.now()
            return found.with_trial(attempt, bead, now) if found.state(now) == "half-open" else found

        return self.update(take).trial == attempt

    def return_trial(self, attempt: str) -> None:
        """Give the place back: no job of this attempt runs."""

        def give(found: Breaker) -> Breaker:
            if found.trial != attempt:
                return found
            return msgspec.structs.replace(found, trial="", trial_bead="", until=self.runtime.now())

        self.update(give)


def recent_of_lane(bd: Bd) -> list[Bead]:
    """Return the beads of this lane among those that were updated last. Agents of other lanes are no sign of life."""
    return [bead for bead in bd.recent(RECENT).result().beads if bd.lanes.claimed(bead)]


def life_of(bead: Bead) -> Life | None:
    """Return the life of an agent that has written on its bead since the claim."""
    if not bead.record.attempt or bead.record.claimed_at is None or not sign_of_life(bead):
        return None
    return bead.record.attempt, bead.record.claimed_at


def finished(bead: Bead) -> Life | None:
    """Return the life of an agent that has closed its bead, or blocked it."""
    if (
        not bead.record.attempt
        or bead.record.claimed_at is None
        or bead.record.quarantined
        or bead.status not in ("closed", "blocked")
    ):
        return None
    return bead.record.attempt, bead.record.claimed_at


def _without_started(before: Breaker, recent: Collection[Bead]) -> Breaker:
    """Return the breaker updated by the answered POSTs and the signs of life that the beads show."""
    for bead in sorted(recent, key=lambda bead: bead.updated_at):
        if life := life_of(bead) or finished(bead):
            before = before.after_life(*life)
        if bead.record.attempt and bead.record.job and bead.record.claimed_at:
            before = before.after_start(bead.record.claimed_at)
    return before


def _log(before: Breaker, after: Breaker, runtime: Runtime) -> None:
    now = runtime.now()
    if after.until is None:
        if before.until is not None:
            log.event("breaker-closed")
    elif after.trial:
        log.event("breaker-half-open", bead=after.trial_bead, attempt=after.trial)
    elif after.opened != before.opened:
        log.error("breaker-open", detail=after.describe(), seconds=(after.until - now).total_seconds())
