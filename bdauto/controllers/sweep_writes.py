"""Writes for a sweep. It stops when dispatching is paused, and keeps every failure for the report."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bdauto.bd.change import Change, LookBack, Writer, apply_each
from bdauto.bd.client import Bd
from bdauto.bd.prefetch import Prefetch
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError
from bdauto.controllers.gate import Expected, expected_values
from bdauto.domain import pause
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import BeadOutcome, BeadReport
from bdauto.domain.pause import Pause


class SweepWrites:
    """The writer of one sweep. Each change holds only while the switch says what it said when it was read last.

    Once it says `paused`, nothing more is written. `store` is the key-value store as the sweep read it, None if a pause
    does not matter.
    """

    def __init__(self, writer: Writer, bd: Bd, runtime: Runtime, store: Mapping[str, Any] | None) -> None:
        self._writer = writer
        self._now = runtime.now
        self._look = Prefetch(bd.kv_list, runtime.now)
        self._look_back = LookBack(bd.read)
        self._expected: Expected | None = None if store is None else expected_values(store, pause.KEY)
        self.paused: Pause | None = None
        self.failures: dict[str, BeadReport] = {}
        """Reports of the beads whose change failed, by id."""
        self.unread: BdError | None = None
        """The error if the sweep could not read all beads that it may have to write."""
        self.recorded: list[tuple[str, str]] = []
        """Bead and job of each run whose end this sweep has recorded."""
        self.cost_usd = 0.0
        """What the runs cost whose end this sweep has recorded, as far as it is known."""

    @property
    def error(self) -> BdError | None:
        """The first failure of bd itself, as opposed to one of a single bead."""
        return self._look_back.error or self.unread

    def each(self, changes: Sequence[Change]) -> list[bool | BdError]:
        """Apply the changes, see `apply_each`, and note failures. A change that a pause prevented is False."""
        results = apply_each(self, changes, self._look_back)
        for change, result in zip(changes, results, strict=True):
            if isinstance(result, BdError):
                self.fail(change.bead, f"{change.act}: {result}")
        return results

    def fail(self, bead: Bead, words: str) -> None:
        """Note why a bead could not be written."""
        self.failures[bead.id] = BeadReport(bead.id, BeadOutcome.failed, bead.record.job, words, bead.record.attempt)

    @contextlib.contextmanager
    def naming(self, bead: Bead) -> Iterator[None]:
        """Report the bead as failed if bd fails in the block."""
        try:
            yield
        except BdError as error:
            self.fail(bead, str(error))
            raise

    def prepare(self) -> None:
        """Prepare the writer for a change."""
        self._writer.prepare()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply the changes if the pause switch is as it was read. If not, read it anew and try once more."""
        while self.paused is None:
            expected = self._expected
            written = self._writer.apply(
                [msgspec.structs.replace(change, if_store=expected or {}) for change in changes]
            )
            if expected is None or all(written):
                return written
            self._read_switch()
            if self._expected == expected:
                return written
        return [False] * len(changes)

    def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Set or clear a key of the key-value store as Writer does, unless the pause switch says `paused`."""
        if self._expected is not None:
            self._read_switch()
        return self.paused is None and self._writer.swap(key, old, new)

    def _read_switch(self) -> None:
        store = self._look.result()
        self._expected, self.paused = expected_values(store, pause.KEY), pause.read(store, self._now())
