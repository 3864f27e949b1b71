"""The tracker in memory: bd's reads, and one compare-and-set for each change, as `tests/contract` pins them.

Each write of bdauto has points before and after it at which its process can die, and faults of its own: not made, made
but not answered, made later. A person's or an agent's write is one blind `bd update`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from bdauto.bd.change import MARK, Change, Moment
from bdauto.bd.client import Bd
from bdauto.bd.running import RunningCommand
from bdauto.common.errors import BdConflict, BdDrift, BdError, BdFailed, BdTimeout
from bdauto.domain.bead import Bead, BeadList, Dependency
from bdauto.domain.notes import CLAIM_NOTE, WRITTEN
from bdauto.domain.record import CLAIMED_AT, PENDING_NOTE, PLACE
from bdauto.domain.settings import BdSettings
from tests.simulation.checker import changed, check_change, check_swap, note_fitness
from tests.simulation.plan import MINUTE, SLOW, BeadPlan
from tests.simulation.process import Process
from tests.simulation.world import ASSIGNEE, Row, World, shown

T = TypeVar("T")

SETTINGS = BdSettings()
BD_TIMEOUT = SETTINGS.bd_timeout.total_seconds()
LATE = MINUTE
"""A server may still do what a `bd` asked for that was killed: up to so long afterwards."""


def add_bead(world: World, plan: BeadPlan) -> None:
    """Create a bead as a person does."""
    created = _second(world.now - timedelta(seconds=plan.age))
    bead = Bead(
        id=plan.id,
        status="open",
        priority=plan.priority,
        created_at=created,
        updated_at=created,
        assignee=ASSIGNEE,
        acceptance_criteria="it works" if plan.acceptance else " ",
    )
    row = Row(bead, (plan.blocker,) if plan.blocker else (), [bead], world.scheduler.now)
    world.revision += 1
    world.rows[plan.id] = row
    row.place = created
    note_fitness(world, row)
    world.tell("people", "create {} priority {}", plan.id, plan.priority)
    world.moment("create")


def write(world: World, who: str, bead_id: str, *, note: str = "", skew: float = 0.0, **fields: Any) -> None:
    """Write as a person or an agent does: blindly, in one `bd update`, with the time of their own clock."""
    row = world.rows[bead_id]
    before = row.bead
    if note:
        fields["notes"] = f"{before.notes}\n{note}" if before.notes else note
    fields["updated_at"] = _second(world.now + timedelta(seconds=skew), half=True)
    if "status" in fields:
        fields["closed_at"] = fields["updated_at"] if fields["status"] == "closed" else None
        if fields["status"] != before.status:
            world.record(bead_id, "ann" if who == "people" else ASSIGNEE, fields["status"])
    row.put(msgspec.structs.replace(before, **fields))
    changed(world, who, row, before)


class Call(RunningCommand[T], Generic[T]):
    """A running `bd` that reads: at once or when it is waited for, as it happens."""

    def __init__(self, process: Process, verb: str, look: Callable[[], T], seen: Callable[[T, float], None]) -> None:
        process.at = verb
        process.step(0.02)
        self._of, self._verb_name, self._look, self._seen = process, verb, look, seen
        self._early: tuple[T, float] | None = None
        if process.task.rng.random() < 0.5:
            self._early = look(), process.world.scheduler.now

    def result(self) -> T:
        """Return the answer, or fail."""
        process = self._of
        process.at = self._verb_name
        process.step()
        _perhaps_slow(process)
        _perhaps_fail(process, f"bd {self._verb_name}")
        answer, at = self._early or (self._look(), process.world.scheduler.now)
        self._seen(answer, at)
        process.perhaps_suspended()
        return answer

    def kill(self) -> None:
        """There is nothing to end."""


class SimBd(Bd):
    """bd as one process calls it."""

    def __init__(self, process: Process) -> None:
        """Leave out what starts programs."""
        self.settings = SETTINGS
        self._of = process

    def ready(
        self, *, limit: int, priority: int | None = None, oldest: bool = False, place: str = "", parent: str = ""
    ) -> RunningCommand[BeadList]:
        """List the open beads that bd calls ready, in bd's order."""

        def look() -> BeadList:
            world = self._of.world
            assert not parent, "no bead of the simulation has one"
            beads = [_with_blockers(row) for row in world.rows.values() if _is_ready(world, row)]
            beads = [bead for bead in beads if priority in (None, bead.priority)]
            beads = [bead for bead in beads if place in ("", bead.metadata.get(PLACE))]
            beads.sort(key=lambda bead: bead.created_at, reverse=not oldest)
            if not oldest:
                beads.sort(key=lambda bead: bead.priority)
            return BeadList(tuple(beads[:limit] if limit else beads))

        def seen(found: BeadList, at: float) -> None:
            self._of.ready_at = at
            self._see(found, at)

        return Call(self._of, "ready", look, seen)

    def in_progress(self) -> RunningCommand[BeadList]:
        """List the beads in progress."""
        self._of.world.moment("sweep")

        def look() -> BeadList:
            rows = self._of.world.rows.values()
            return BeadList(
                tuple(r.bead for r in rows if r.bead.status == "in_progress" and r.bead.assignee == ASSIGNEE)
            )

        def seen(found: BeadList, at: float) -> None:
            self._of.listed = found.beads
            self._see(found, at)

        return Call(self._of, "list", look, seen)

    def assigned(self, statuses: Sequence[str]) -> RunningCommand[BeadList]:
        """List beads by status."""
        return self._list(lambda bead: bead.status in statuses and bead.assignee == ASSIGNEE)

    def with_metadata(self, **values: str) -> RunningCommand[BeadList]:
        """List all beads whose metadata has these texts under these keys of bdauto."""
        wanted = {f"bdauto.{key}": value for key, value in values.items()}
        return self._list(lambda bead: wanted.items() <= bead.metadata.items())

    def changed_since(self, moment: datetime) -> RunningCommand[BeadList]:
        """List beads that were updated since."""
        return self._list(lambda bead: bead.updated_at > moment)

    def read(self, ids: Sequence[str]) -> RunningCommand[BeadList]:
        """Read some beads."""
        rows = self._of.world.rows

        def seen(found: BeadList, at: float) -> None:
            self._of.read_at |= dict.fromkeys(ids, at)
            self._see(found, at)

        return Call(self._of, "list", lambda: BeadList(tuple(_with_blockers(rows[i]) for i in ids if i in rows)), seen)

    def comments(self, bead_id: str) -> list[str]:
        """Nobody comments here."""
        return []

    def recent(self, limit: int) -> RunningCommand[BeadList]:
        """List the beads that were updated last."""

        def look() -> BeadList:
            beads = [row.bead for row in self._of.world.rows.values() if row.bead.assignee == ASSIGNEE]
            return BeadList(tuple(sorted(beads, key=lambda bead: bead.updated_at, reverse=True)[:limit]))

        return Call(self._of, "list", look, self._see)

    def query(self, expression: str, *, limit: int) -> RunningCommand[BeadList]:
        """Understand the one expression that bdauto asks."""
        _, _, priority, before = expression.split(" AND ")
        moment = datetime.fromisoformat(before.removeprefix('updated<"').removesuffix('"'))
        wanted = int(priority.removeprefix("priority="))

        def look() -> BeadList:
            beads = [row.bead for row in self._of.world.rows.values() if row.bead.assignee == ASSIGNEE]
            found = [b for b in beads if b.status == "open" and b.priority == wanted and b.updated_at < moment]
            return BeadList(tuple(found[:limit] if limit else found))

        return Call(self._of, "query", look, self._see)

    def kv_list(self) -> RunningCommand[Mapping[str, Any]]:
        """Read the key-value store."""
        began = self._of.world.scheduler.now

        def seen(found: Mapping[str, Any], at: float) -> None:
            self._of.store = dict(found)
            self._of.look_took = self._of.world.scheduler.now - began
            self._of.looked_at = at if self._of.looked_at is None else self._of.looked_at
            self._of.world.moment("look")

        return Call(self._of, "kv list", lambda: dict(self._of.world.store), seen)

    def server_time(self) -> datetime | None:
        """Return the server's clock."""
        self._of.at = "server time"
        self._of.step()
        _perhaps_fail(self._of, "bd sql")
        return _second(self._of.world.now)

    def events(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return who changed the status of these beads."""
        self._of.at = "events"
        self._of.step()
        _perhaps_fail(self._of, "bd sql")
        return [row for row in self._of.world.events if row["issue_id"] in ids]

    def _list(self, wanted: Callable[[Bead], bool]) -> RunningCommand[BeadList]:
        rows = self._of.world.rows
        return Call(
            self._of, "list", lambda: BeadList(tuple(r.bead for r in rows.values() if wanted(r.bead))), self._see
        )

    def _see(self, found: BeadList, at: float) -> None:
        for bead in found.beads:
            self._of.seen[bead.id] = self._of.world.rows[bead.id].as_version(bead)


class SimWriter:
    """The writer of one process; see `bdauto.bd.change.Writer`."""

    def __init__(self, process: Process) -> None:
        self._of = process

    def prepare(self) -> None:
        """There is nothing to find out."""

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes, all or none of them."""
        self._of.tried.update(change.bead.id for change in changes)
        act = " and ".join(f"{change.act} {change.bead.id}" for change in changes)
        try:
            done = self._write(act, lambda writer: writer._apply(changes))
        except BdTimeout:  # perhaps it is written
            self._of.status_written += [change.bead.id for change in changes if change.status]
            raise
        if len(changes) > 1 and not all(done):
            raise BdFailed("a bead changed since it was read: none of them was written")
        return done

    def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Set a key of the store by compare-and-set."""
        return self._write(f"set {key}", lambda writer: writer._swap(key, old, new))

    def _write(self, act: str, effect: "Callable[[SimWriter], T]") -> T:
        process, world = self._of, self._of.world
        process.at = act.partition(" b-")[0].partition(" filler-")[0]
        process.step()
        for fault, error in (
            ("bd fails", BdFailed(f"bd failed at: {act}")),
            ("conflict", BdConflict(f"a conflict at: {act}")),
        ):
            if process.happens(fault):
                process.troubled = process.bd_failed = True
                process.tell("{}: {}, nothing written", act, fault)
                raise error
        if process.happens("write not made"):
            self._no_answer(act, "no answer from bd, and nothing written")
        if process.happens("write late"):
            then = process.as_now()
            delay = BD_TIMEOUT + process.task.rng.uniform(0, LATE)
            world.scheduler.later(delay, lambda: _late(then, act, effect))
            self._no_answer(act, "no answer from bd, which writes later")
        done = effect(self)
        if process.happens("write unanswered"):
            self._no_answer(act, "no answer from bd, though it was written")
        process.step()
        _perhaps_slow(process)
        process.perhaps_suspended()
        process.written_at = world.scheduler.now
        return done

    def _no_answer(self, act: str, words: str) -> NoReturn:
        self._of.tell("{}: {}", act, words)
        self._of.troubled = self._of.bd_failed = True
        self._of.wait(BD_TIMEOUT)
        raise BdTimeout(f"bd did not answer: {act}")

    def _apply(self, changes: Sequence[Change]) -> list[bool]:
        world = self._of.world
        rows = [world.rows[change.bead.id] for change in changes]
        pairs = list(zip(rows, changes, strict=True))
        can = [
            change.applied_to(row.bead) or (change.holds(row.bead) and change.allowed_by(world.store))
            for row, change in pairs
        ]
        if not all(can) and len(changes) > 1:
            return can
        for (row, change), possible in zip(pairs, can, strict=True):
            if possible and not change.applied_to(row.bead):
                self._put(row, change)
            elif not possible:
                self._of.tell("{} {}: it has changed, nothing written", change.act, row.bead.id)
        return can

    def _put(self, row: Row, change: Change) -> None:
        process, world = self._of, self._of.world
        check_change(world, process, row, change)
        world.moment(change.act)
        before, now = row.bead, _second(world.now)
        own = before.metadata
        claim_note = f"{CLAIM_NOTE}{own.get(CLAIMED_AT)}" if change.retracts_claim_note else None
        lines = [line for line in before.notes.splitlines() if line != claim_note]
        note = f"{CLAIM_NOTE}{Moment().at(now)}" if change.writes_claim_note else change.note
        if note and not (process.happens("note lost") and not change.writes_claim_note):
            lines.append(note)
        put = {key: value.at(now) if isinstance(value, Moment) else value for key, value in change.put.items()}
        if change.writes_claim_note:
            put[PENDING_NOTE] = f"{len(before.notes)} {WRITTEN}"
        drop = (*change.drop, PENDING_NOTE) if change.ends_claim else change.drop
        metadata = {k: v for k, v in {**own, **put, MARK: change.mark}.items() if k not in drop}
        status = change.status or before.status
        row.put(
            msgspec.structs.replace(
                before,
                notes="\n".join(lines),
                metadata=metadata,
                status=status,
                updated_at=before.updated_at if change.quiet else now,
                closed_at=before.closed_at or now if status == "closed" else None,
            )
        )
        process.tell("{} {}: {} {}", change.act, row.bead.id, row.bead.status, shown(put))
        process.changed.append((row.bead.id, change.act))
        if status != before.status:
            world.record(row.bead.id, ASSIGNEE if status == "closed" else SETTINGS.actor, status)
            process.status_written.append(row.bead.id)
        process.seen[row.bead.id] = row.bead
        changed(world, process, row, before, change)

    def _swap(self, key: str, old: str | None, new: str | None) -> bool:
        world = self._of.world
        if (world.store.get(key) or None) != old:
            self._of.tell("set {}: it has changed, nothing written", key)
            return False
        check_swap(world, self._of, key, new)
        world.store.pop(key, None)
        world.store |= {} if new is None else {key: new}
        world.revision += 1
        self._of.tell("set {} to {}", key, new)
        return True


class SimRevision:
    """The tracker's revision as a loop watches it; see `bdauto.bd.revision.Revision`."""

    def __init__(self, process: Process) -> None:
        """Connect, or fail."""
        process.at = "revision"
        process.step(0.05)
        _perhaps_fail(process, "the revision")
        self._of = process

    def read(self) -> str:
        """Return the revision."""
        self._of.at = "revision"
        self._of.step(0.01)
        _perhaps_fail(self._of, "the revision")
        return str(self._of.world.revision)

    def close(self) -> None:
        """Nothing is open."""


def _late(process: Process, act: str, effect: Callable[[SimWriter], object]) -> None:
    process.tell("{}: bd writes it only now", act)
    effect(SimWriter(process))


def _perhaps_slow(process: Process) -> None:
    if process.happens(SLOW):
        process.wait(process.task.rng.uniform(2, BD_TIMEOUT / 2))


def _perhaps_fail(process: Process, call: str) -> None:
    error: BdError
    if process.happens("bd fails"):
        error = BdFailed(f"{call} failed")
    elif process.happens("bd garbles"):
        error = BdDrift(f"{call}: not understood")
    elif process.happens("bd hangs"):
        process.wait(BD_TIMEOUT)
        error = BdTimeout(f"{call} did not answer")
    else:
        return
    process.troubled = process.bd_failed = True
    process.tell("{}: {}", call, error)
    raise error


def _with_blockers(row: Row) -> Bead:
    """Return the bead with its dependencies, which are rows of their own and no part of its versions."""
    if not row.blockers:
        return row.bead
    return msgspec.structs.replace(row.bead, dependencies=[Dependency("blocks", other) for other in row.blockers])


def _is_ready(world: World, row: Row) -> bool:
    bead = row.bead
    waits = any(world.rows[other].bead.status != "closed" for other in row.blockers if other in world.rows)
    deferred = bead.defer_until is not None and bead.defer_until > world.now
    return bead.status == "open" and bead.assignee == ASSIGNEE and not waits and not deferred


def _second(moment: datetime, *, half: bool = False) -> datetime:
    """Cut a time to seconds; bd itself rounds."""
    return (moment + timedelta(seconds=0.5 if half else 0)).replace(microsecond=0)
