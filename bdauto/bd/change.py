"""One change of one bead, and the two kinds of writers that apply it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from bdauto.bd.running import RunningCommand
from bdauto.common import log
from bdauto.common.errors import BdConflict, BdDrift, BdError, BdFailed, BdMissing, BdMoved, BdTimeout, BdUnsupported
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.record import ARMED_AT, ATTEMPT, KEPT, PLACE, PREFIX, RELEASED_AT, Record, difference, metadata_of
from bdauto.domain.record import MARK as MARK
from bdauto.domain.times import format_time


class Moment(msgspec.Struct, frozen=True):
    """The time at which a change is written, plus a delay.

    Whoever writes fills it in: a Dolt server from its own clock, an embedded database from this host's. So several
    hosts with different clocks agree on the times that bdauto records.
    """

    delay: timedelta = timedelta()

    def at(self, now: datetime) -> str:
        """Return the time as metadata holds it, for a change that is written now."""
        return format_time(now + self.delay)


NOW = Moment()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one bead. The `if_…` fields that are given must still be true of the bead.

    `if_attempt` and `if_mark` are "" where the bead must have none. `act` is what bd's record says was done, e.g.
    `claim`. `mark` is unique to the change: applied twice, it is written once. A claim's note is CLAIM_NOTE and the
    time of the claim. A claim that is undone takes it back.

    A `quiet` change has no status and no note. It writes the metadata alone, and on a server it does not even move
    `updated_at`: so it never conflicts with a note that somebody else writes at that moment. `comment` is what its
    event says there. A bead is closed in the name of its assignee, with `reason`.
    """

    bead: Bead
    act: str
    mark: str
    status: str | None = None
    reason: str = ""
    note: str = ""
    writes_claim_note: bool = False
    retracts_claim_note: bool = False
    put: Mapping[str, str | float | Moment] = msgspec.field(default_factory=dict)
    drop: tuple[str, ...] = ()
    quiet: bool = False
    comment: str = ""
    if_status: str | None = None
    if_assignee: str | None = None
    if_attempt: str | None = None
    if_mark: str | None = None
    if_updated_at: datetime | None = None
    if_store: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    """Values that keys of the key-value store must still have. None: the key must have no value."""

    def allowed_by(self, store: Mapping[str, Any]) -> bool:
        """True: the key-value store still has the values that this change expects."""
        return all((store.get(key) or None) == value for key, value in self.if_store.items())

    @property
    def crosses_closed(self) -> bool:
        """True: it closes the bead or opens a closed one. bd itself does that, as others' readiness follows from it."""
        return self.status is not None and (self.status == "closed") != (self.if_status == "closed")

    @property
    def ends_claim(self) -> bool:
        """True: no attempt is left on the bead."""
        return self.retracts_claim_note or ATTEMPT in self.drop

    def holds(self, bead: Bead) -> bool:
        """Whether the bead still is what this change expects."""
        return (
            self.if_status in (None, bead.status)
            and self.if_assignee in (None, bead.assignee)
            and self.if_attempt in (None, bead.record.attempt)
            and self.if_mark in (None, mark_of(bead))
            and self.if_updated_at in (None, bead.updated_at)
        )

    def applied_to(self, bead: Bead) -> bool:
        """Whether this very change is the last one that bdauto made of the bead."""
        return mark_of(bead) == self.mark and (not self.crosses_closed or bead.status == self.status)

    def undone(self, mark: str) -> "Change":
        """Return the change that restores what this one wrote, unless it was changed since. Notes stay.

        A claim that is undone keeps the bead's place in the queue.
        """
        place: dict[str, str | float | Moment] = {}
        if ARMED_AT in self.put:
            place = {ARMED_AT: format_time(self.bead.waiting_since), PLACE: KEPT, RELEASED_AT: NOW}
        keys = sorted({*self.put, *self.drop} - place.keys())
        old = {key: _scalar(value) for key, value in self.bead.metadata.items() if value is not None}
        return Change(
            bead=self.bead,
            act=f"undo {self.act}",
            mark=mark,
            status=None if self.status is None else self.bead.status,
            retracts_claim_note=self.writes_claim_note,
            put={key: old[key] for key in keys if key in old} | place,
            drop=tuple(key for key in keys if key not in old),
            if_status=self.status,
            if_mark=self.mark,
        )


def rewrite(
    bead: Bead, record: Record, before: Record | None = None, times: Mapping[str, Moment] | None = None, **fields: Any
) -> Change:
    """Return the change that makes this the bead's record. It writes what differs and leaves other tools' keys alone.

    `before` is the record that will be there by then, where that is not the one of the bead as it was read. `times` are
    the fields that whoever writes fills in. `fields` are those of `Change`.
    """
    put, drop = difference(bead.metadata if before is None else metadata_of(before), record)
    moments = {f"{PREFIX}{name}": moment for name, moment in (times or {}).items()}
    return Change(bead=bead, put={**put, **moments}, drop=tuple(key for key in drop if key not in moments), **fields)


def _scalar(value: object) -> str | int | float:
    return value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()


def mark_of(bead: Bead) -> str | None:
    """Return the mark of the last change that bdauto made of the bead, "" if there is none, None if it is no text."""
    mark = bead.metadata.get(MARK, "")
    return mark if isinstance(mark, str) else None


def as_read(bead: Bead) -> dict[str, Any]:
    """Return the conditions of `Change` by which it holds only for the bead as it was read.

    The time of the last update is not enough. A record does not move it, and two changes within a second have one time.
    """
    return {"if_mark": mark_of(bead), "if_updated_at": bead.updated_at}


class Writer(Protocol):
    """Applies changes."""

    def prepare(self) -> None:
        """Say that a change is coming: what has to be found out before the first one may start now."""

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply each change whose conditions hold. Return for each whether it was applied. Raises BdError."""

    def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Set a key of the key-value store, or clear it, if it still has the value `old`. None is no value.

        Return whether it has the new value now. `new` must be unique where it matters who set it. Raises BdError.
        """


class DryWriter:
    """A writer that writes nothing and says that everything was applied."""

    def prepare(self) -> None:
        """Do nothing."""

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Return True for each change."""
        return [True for _ in changes]

    def swap(self, key: str, old: str | None, new: str | None) -> bool:  # noqa: ARG002
        """Return True."""
        return True


class LookBack:
    """After a failed write, reads its beads once and finds by their marks the changes that were made nevertheless.

    `error` is the first failure of bd itself, as opposed to one of a single bead.
    """

    def __init__(self, read: Callable[[Sequence[str]], RunningCommand[BeadList]]) -> None:
        self._read = read
        self.error: BdError | None = None
        self.failed = 0
        """Failures of bd itself so far, and one more for each read that failed."""

    def after(self, error: BdError, changes: Sequence[Change]) -> list[bool | BdError]:
        """Return for each change True if it was made, else the error, which says if it may have been made."""
        if isinstance(error, BdTimeout | BdDrift | BdMissing | BdUnsupported):
            self.error = self.error or error
            self.failed += 1
        if isinstance(error, BdMissing | BdMoved | BdConflict):  # it had no effect
            return [error] * len(changes)
        try:
            there = {bead.id: bead for bead in self._read([change.bead.id for change in changes]).result().beads}
        except BdError:
            self.failed += 1
            there = {}
        results: list[bool | BdError] = []
        for change in changes:
            bead = there.get(change.bead.id)
            written = bead is not None and change.applied_to(bead)
            ended = bead is not None and not isinstance(error, BdTimeout)  # else it may be written yet
            results.append(written or (error if ended else in_doubt(error)))
            if written or not ended:
                log.warning("write-unanswered", bead=change.bead.id, act=change.act, written=written, error=error)
        return results


def swap_and_look(
    writer: Writer, store: Callable[[], RunningCommand[Mapping[str, Any]]], key: str, old: str | None, new: str | None
) -> bool:
    """Swap as Writer does. After a failure read once whether the new value was written. Raises BdError."""
    try:
        return writer.swap(key, old, new)
    except BdError as error:
        written = False
        with contextlib.suppress(BdError):
            written = (store().result().get(key) or None) == new
        log.warning("write-unanswered", act=f"set {key}", written=written, error=error)
        if written:
            return True
        raise in_doubt(error) from None


def in_doubt(error: BdError) -> BdError:
    """Return the error of a change that may have been made."""
    return type(error)(f"{error.message}; the change may have been made", hint=error.hint)


def apply_each(writer: Writer, changes: Sequence[Change], look_back: LookBack | None = None) -> list[bool | BdError]:
    """Apply the changes together. If that fails, apply them one by one, so that one bead cannot fail the others.

    Returns a result for each change, whatever fails. `look_back` finds changes that were made although bd reported a
    failure. After a failure of bd itself, changes that were applied together are not tried one by one. After two such
    failures among single changes, the rest is not tried at all.
    """
    try:
        return list(writer.apply(changes)) if changes else []
    except BdError as caught:
        error = caught
    if len(changes) == 1 or isinstance(error, BdTimeout | BdDrift | BdMissing | BdUnsupported):
        return look_back.after(error, changes) if look_back else [in_doubt(error)] * len(changes)
    results: list[bool | BdError] = []
    before = look_back.failed if look_back else 0
    for change in changes:
        if look_back and look_back.failed - before > 1:
            words = f"not tried, since bd failed before: {look_back.error}"
            results.append(BdFailed(words))
        else:
            results += apply_each(writer, [change], look_back)
    return results
