"""Beads that their agents have closed before their checks have passed: they are opened again.

bd's record of who closed a bead decides. A bead that a person has closed stays closed. Where bd does not tell who it
was, the bead counts as closed by its agent.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from bdauto.bd.change import Change, LookBack, Writer, apply_each, as_read, mark_of, rewrite
from bdauto.bd.client import Bd
from bdauto.bd.edit_log import recorded_edits
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError
from bdauto.domain.bead import Bead
from bdauto.domain.edits import CHECKER, author
from bdauto.domain.eligibility import BLOCKING, FINISHED
from bdauto.domain.record import DUE

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


Opened = tuple[Bead, str]
"""A bead that was opened again, and why."""


class UncheckedBeads(msgspec.Struct, frozen=True):
    """Opens such beads again. Every method may raise BdError, and ServiceError before it has written anything.

    `store` is what the key-value store must still say. `naming` reports a bead as failed if bd fails to write it.
    """

    bd: Bd
    writer: Writer
    runtime: Runtime
    naming: Callable[[Bead], AbstractContextManager[None]]
    store: Mapping[str, str | None] = {}

    def open_here(self, runner: "Runner") -> list[Opened]:
        """Open those again whose job is known here. Asks bd only if there is one."""
        beads = runner.unchecked()
        return self.open(beads, runner) if beads else []

    def open(self, beads: Iterable[str], runner: "Runner") -> list[Opened]:
        """Open such beads among these again."""
        return self._open(self._read(beads), runner)[1]

    def in_the_way(self, bead: Bead, runner: "Runner") -> tuple[list[str], list[Opened]]:
        """Open such beads again before a bead with dependencies is dispatched.

        Return the beads among its blockers whose check is due, and what was opened. Each is read once: a blocker that
        somebody else opens again meanwhile is due all the same.
        """
        needs = [other for other in bead.dependencies or () if other.type in (*BLOCKING, "parent-child")]
        if not needs:
            return [], []
        marked = self.bd.with_metadata(check=DUE).result().beads
        known = {one.id for one in marked}
        found = (*marked, *self._read([one for one in runner.unchecked() if one not in known]))
        due, opened = self._open(found, runner)
        blockers = {other.depends_on_id for other in needs if other.type in BLOCKING}
        return sorted(blockers & due), opened

    def _read(self, ids: Iterable[str]) -> tuple[Bead, ...]:
        wanted = sorted(ids)
        return self.bd.read(wanted).result().beads if wanted else ()

    def _open(self, found: tuple[Bead, ...], runner: "Runner") -> tuple[set[str], list[Opened]]:
        """Open beads again that their agents have closed. Return all whose check is due, and what was opened.

        A bead without a mark counts if its last claim was for the job here: its agent has taken the mark away.
        """
        here = runner.unchecked()
        found = tuple(bead for bead in found if bead.record.check or bead.record.attempt in ("", here.get(bead.id)))
        finished = [bead for bead in found if bead.status in FINISHED]
        passed = {bead.id for bead in finished if runner.passed(bead.record.job or bead.record.attempt)}
        edits = recorded_edits(self.bd, [bead.id for bead in finished])
        due: set[str] = {bead.id for bead in found}
        opened: list[Opened] = []
        for bead in finished:
            closer = author(edits, bead.id, "status", bead.status)
            if closer not in (None, CHECKER, bead.record.assignee or self.bd.assignee):
                due.discard(bead.id)
                self._accept(bead)
            elif bead.id in passed:
                due.discard(bead.id)
            else:
                who = "its agent" if closer else "somebody, and bd does not tell who,"
                words = f"{'its check' if closer == CHECKER else who} closed it before its check had passed"
                if self._write(self._opened(bead, f"reaper: {words} — opened again")):
                    opened.append((bead, words))
        return due, opened

    def _write(self, change: Change) -> bool:
        """Apply a change. If bd did not confirm it, read the bead, and count the change if it is there."""
        [result] = apply_each(self.writer, [change], LookBack(self.bd.read))
        with self.naming(change.bead):
            if isinstance(result, BdError):
                raise result
        return result

    def _opened(self, bead: Bead, note: str) -> Change:
        """Return the change that opens a bead again. One whose job is not settled yet gets its claim back."""
        record = bead.record.change(check=DUE)
        claimed = record.current is not None and bead.assignee == (record.assignee or self.bd.assignee)
        return rewrite(
            bead,
            record,
            act="open again",
            mark=self.runtime.unique(),
            status="in_progress" if claimed else "open",
            note="" if note in bead.notes.splitlines() else note,  # an agent may close it again and again
            if_status=bead.status,
            if_store=self.store,
            **as_read(bead),
        )

    def _accept(self, bead: Bead) -> None:
        """Take the mark from a bead that a person has closed, so that it is not looked at again."""
        if bead.record.check:
            record = bead.record.change(check="")
            change = rewrite(
                bead,
                record,
                act="accept",
                mark=self.runtime.unique(),
                quiet=True,
                if_mark=mark_of(bead),
                if_store=self.store,
            )
            self.writer.apply([change])
