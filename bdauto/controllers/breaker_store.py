"""The circuit breaker in the tracker: read with the pause switch, changed by compare-and-set."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bdauto import log
from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.clock import Runtime
from bdauto.domain import breaker
from bdauto.domain.breaker import KEY, Breaker

TRIES = 8
"""Several dispatchers and reapers may change the breaker at once: each reads it anew after it lost."""


class BreakerStore(msgspec.Struct, frozen=True):
    """Changes the breaker. Every method may raise BdError."""

    bd: Bd
    writer: Writer
    runtime: Runtime

    def update(self, change: Callable[[Breaker], Breaker], store: Mapping[str, Any] | None = None) -> Breaker:
        """Apply `change` to the breaker as it is now, and return what it is afterwards.

        `change` is called anew for each try and returns its argument to leave the breaker as it is. `store` is the
        key-value store if it was just read. After TRIES losses the breaker is returned as others left it.
        """
        found = Breaker()
        for _ in range(TRIES):
            current = self.bd.kv_list().result() if store is None else store
            store = None
            found = breaker.read(current)
            wanted = change(found)
            if wanted == found:
                return found
            wanted = msgspec.structs.replace(wanted, write=self.runtime.unique())
            if self.writer.swap(KEY, current.get(KEY) or None, wanted.encode()):
                _log(found, wanted, self.runtime)
                return wanted
        return found

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


def _log(before: Breaker, after: Breaker, runtime: Runtime) -> None:
    now = runtime.now()
    if after.until is None:
        if before.until is not None:
            log.event("breaker-closed")
    elif after.trial:
        log.event("breaker-half-open", bead=after.trial_bead, attempt=after.trial)
    elif after.opened != before.opened:
        log.error("breaker-open", detail=after.describe(), seconds=(after.until - now).total_seconds())
