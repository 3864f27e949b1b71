"""The two stateful doubles that the unit tests run on: a tracker, and the services; and a clock that waits at once."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import msgspec

from bdauto.agents.beadboard.runner import BeadBoardRunner, board_part
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.runner import Runner
from bdauto.agents.runner_status import Part, RunnerStatus
from bdauto.agents.service_runner import service_part
from bdauto.bd.change import MARK, Change, Moment, Writer
from bdauto.bd.client import Bd
from bdauto.bd.parsing import parse_beads
from bdauto.bd.running import RunningCommand
from bdauto.common.clock import Runtime
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate, Known
from bdauto.controllers.started_jobs import StartedJobs
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.notes import CLAIM_NOTE
from bdauto.domain.record import CLAIMED_AT, PLACE
from bdauto.domain.settings import BdSettings, DispatchSettings, Secret

T = TypeVar("T")

NOW = datetime(2026, 4, 18, 22, 35, 46, tzinfo=UTC)
BOARD, AGENT, TOKEN = "http://board.test:3000", "http://agent.test:8000", "s3cret-t0ken"


BLOCKED = {"type": "blocks", "depends_on_id": "blocker-1"}
"""The dependency of a bead of which a test says that it is blocked, on BLOCKER."""


@dataclass
class Clock:
    """A clock on which waiting takes no time; `waited` has every wait in seconds."""

    time: datetime = NOW
    waited: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.time += timedelta(seconds=seconds)

    def runtime(self, seed: int = 1) -> Runtime:
        return Runtime(self.now, self.monotonic, self.sleep, random.Random(seed))


def row(bead_id: str, **fields: Any) -> dict[str, Any]:
    """Return an issue as bd holds it: open, assigned to the agent, with acceptance criteria, an hour old."""
    plain = {
        "id": bead_id,
        "title": f"title of {bead_id}",
        "status": "open",
        "priority": 2,
        "issue_type": "task",
        "assignee": "agent",
        "acceptance_criteria": "it works",
        "created_at": NOW - timedelta(hours=1),
        "updated_at": NOW - timedelta(hours=1),
    }
    return plain | fields


BLOCKER = row("blocker-1", assignee="ann")


def bead(bead_id: str = "x-1", **fields: Any) -> Bead:
    """Return the same as bdauto reads it."""
    return msgspec.convert(row(bead_id, **fields), Bead)


def change(of: Bead | None = None, **fields: Any) -> Change:
    """Return a change of a bead that expects nothing, unless the fields say otherwise."""
    return Change(bead=of or bead(), **({"act": "test", "mark": "w1"} | fields))


class Answered(RunningCommand[T]):
    """A call of bd that has its answer, or its error, already; whether it was ended is in `ended`."""

    def __init__(self, answer: Callable[[], T]) -> None:
        self._answer = answer
        self.ended = False

    def result(self) -> T:
        return self._answer()

    def kill(self) -> None:
        self.ended = True


class Tracker(Bd):
    """bd and the writer to it, in memory: the same pages in the same order, and a compare-and-set on each write.

    `server_clock` is the Dolt server's, None where there is none. `blocked` are the ids that bd does not call ready,
    `broken` the fields that make an issue unreadable. `before_read` and `before_write` are called first, and may change
    the rows, or raise. `after_write` is called when changes, or a key's value, are written, and may raise.
    """

    def __init__(self, clock: Clock, *rows: dict[str, Any], settings: BdSettings | None = None) -> None:
        super().__init__(settings or BdSettings())
        self.clock = clock
        self.rows = {row["id"]: row for row in rows}
        self.store: dict[str, Any] = {}
        self.server_clock: datetime | None = None
        self.blocked: set[str] = set()
        self.broken: dict[str, dict[str, Any]] = {}
        self.recorded: list[Mapping[str, Any]] = []
        self.before_read: Callable[[str], None] = lambda verb: None
        self.before_write: Callable[[Change], None] = lambda change: None
        self.after_write: Callable[[Sequence[Change]], None] = lambda changes: None
        self.reads: list[str] = []
        self.written: list[Change] = []
        self.calls: list[Answered[Any]] = []

    def ready(
        self, *, limit: int, priority: int | None = None, oldest: bool = False, place: str = "", parent: str = ""
    ) -> RunningCommand[BeadList]:
        """Sort as bd does: by priority, the newest created first; with `oldest` by creation alone."""
        rows = [r for r in self._rows("open") if r["id"] not in self.blocked and not r.get("ephemeral")]
        rows = [r for r in rows if priority in (None, r["priority"]) and not self._waits(r)]
        rows = [r for r in rows if place in ("", (r.get("metadata") or {}).get(PLACE))]
        rows = [r for r in rows if not parent or _needs(r, "parent-child") == [parent]]
        rows.sort(key=lambda r: r["id"])
        rows.sort(key=lambda r: r["created_at"], reverse=not oldest)
        if not oldest:
            rows.sort(key=lambda r: r["priority"])
        return self._answer("ready", rows[:limit] if limit else rows, understood=priority is not None)

    def events(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return what a test says that bd has recorded of these beads."""
        return [one for one in self.recorded if one["issue_id"] in ids]

    def labelled(self, label: str) -> RunningCommand[BeadList]:
        rows = self.rows.values()
        return self._answer("labelled", [r for r in rows if label in r.get("labels", ()) and r["status"] != "closed"])

    def comments(self, bead_id: str) -> list[str]:
        """Return what a test says that people have commented."""
        return list(self.rows[bead_id].get("commented", ()))

    def in_progress(self) -> RunningCommand[BeadList]:
        return self._answer("list", self._rows("in_progress"))

    def changed_since(self, moment: datetime) -> RunningCommand[BeadList]:
        return self._answer("list", [r for r in self.rows.values() if r["updated_at"] > moment])

    def with_metadata(self, **values: str) -> RunningCommand[BeadList]:
        wanted = {f"bdauto.{key}": value for key, value in values.items()}
        rows = [r for r in self.rows.values() if wanted.items() <= (r.get("metadata") or {}).items()]
        return self._answer("results", rows)

    def query(self, expression: str, *, limit: int) -> RunningCommand[BeadList]:
        """Understand the one expression that bdauto asks."""
        assignee, status, priority, before = expression.split(" AND ")
        assert (assignee, status) == (f'assignee="{self.assignee}"', "status=open")
        moment = datetime.fromisoformat(before.removeprefix('updated<"').removesuffix('"'))
        wanted = int(priority.removeprefix("priority="))
        rows = [r for r in self._rows("open") if r["priority"] == wanted and r["updated_at"] < moment]
        return self._answer("query", rows[:limit] if limit else rows)

    def read(self, ids: Sequence[str]) -> RunningCommand[BeadList]:
        known = {BLOCKER["id"]: BLOCKER} | self.rows
        blocked = {bead_id: {"dependencies": [BLOCKED]} for bead_id in self.blocked}
        return self._answer("list", [known[i] | blocked.get(i, {}) for i in ids if i in known])

    def kv_list(self) -> RunningCommand[Mapping[str, Any]]:
        return self._call("kv", lambda: self.store)

    def recent(self, limit: int) -> RunningCommand[BeadList]:
        rows = [r for r in self.rows.values() if r["assignee"] == self.assignee]
        return self._answer("recent", sorted(rows, key=lambda r: r["updated_at"], reverse=True)[:limit])

    def server_time(self) -> datetime | None:
        self.reads.append("server_time")
        return self.server_clock

    def prepare(self) -> None:
        """There is nothing to find out."""

    def swap(self, key: str, old: str | None, new: str | None) -> bool:
        if (self.store.get(key) or None) != old:
            return False
        self.store.pop(key, None)
        self.store |= {} if new is None else {key: new}
        self.after_write([])
        return True

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Write as `Writer` promises: all or, when something is raised, nothing."""
        for change in changes:
            self.before_write(change)
        written = [self._apply(change) for change in changes]
        self.after_write(changes)
        return written

    def bead(self, bead_id: str) -> Bead:
        """Return a bead as it is now."""
        return msgspec.convert(self.rows[bead_id], Bead)

    def notes(self, bead_id: str) -> list[str]:
        """Return the lines of a bead's notes."""
        return str(self.rows[bead_id].get("notes", "")).splitlines()

    def own(self, bead_id: str) -> dict[str, Any]:
        """Return bdauto's metadata on a bead, without the prefix and the mark of the last write."""
        metadata = self.rows[bead_id].get("metadata") or {}
        return {key.removeprefix("bdauto."): value for key, value in metadata.items() if key != MARK}

    def _apply(self, change: Change) -> bool:
        row, now = self.rows[change.bead.id], self.clock.now()
        if change.applied_to(self.bead(change.bead.id)):
            return True
        if not change.holds(self.bead(change.bead.id)) or not change.allowed_by(self.store):
            return False
        self.written.append(change)
        metadata = row.get("metadata") or {}
        claim_note = f"{CLAIM_NOTE}{metadata.get(CLAIMED_AT)}" if change.retracts_claim_note else None
        lines = [line for line in self.notes(change.bead.id) if line != claim_note]
        note = f"{CLAIM_NOTE}{Moment().at(now)}" if change.writes_claim_note else change.note
        row["notes"] = "\n".join([*lines, note] if note else lines)
        put = {key: value.at(now) if isinstance(value, Moment) else value for key, value in change.put.items()}
        row["metadata"] = {
            key: value for key, value in {**metadata, **put, MARK: change.mark}.items() if key not in change.drop
        }
        row["status"] = change.status or row["status"]
        row["updated_at"] = row["updated_at"] if change.quiet else now
        return True

    def _waits(self, row: dict[str, Any]) -> bool:
        """Whether a bead or its parent has an open blocker."""
        of = [row, *(self.rows[other] for other in _needs(row, "parent-child") if other in self.rows)]
        blockers = [self.rows[other] for one in of for other in _needs(one, "blocks") if other in self.rows]
        return any(blocker["status"] != "closed" for blocker in blockers)

    def _rows(self, status: str) -> list[dict[str, Any]]:
        return [r for r in self.rows.values() if r["status"] == status and r["assignee"] == self.assignee]

    def _answer(self, verb: str, rows: list[dict[str, Any]], *, understood: bool = False) -> RunningCommand[BeadList]:
        answer = msgspec.json.encode([r | self.broken.get(r["id"], {}) for r in rows])
        return self._call(verb, lambda: parse_beads(answer, f"bd {verb}", understood=understood))

    def _call(self, verb: str, answer: Callable[[], T]) -> RunningCommand[T]:
        def result() -> T:
            self.before_read(verb)
            return answer()

        self.reads.append(verb)
        call = Answered(result)
        self.calls.append(call)
        return call


def _needs(row: dict[str, Any], kind: str) -> list[str]:
    return [other["depends_on_id"] for other in row.get("dependencies") or () if other["type"] == kind]


Reply = httpx.Response | Exception


def two_services(board: Part | None = None, agent: Part | None = None) -> RunnerStatus:
    """Return the status of BeadBoard, which is up by default, and of the agent service, by default not configured."""
    return RunnerStatus((board or board_part(), agent or service_part(configured=False)))


@dataclass
class Board:
    """BeadBoard and the agent service as `contracts.md` has them, with answers to POSTs by script.

    When the script is over, a POST starts a job `job-N`. `jobs` has the states of jobs, or errors. `health` has the
    answers of /health, of which the last stays; without one the service does not count. `started` is called with the
    bead's id at each POST.
    """

    script: list[Reply] = field(default_factory=list)
    busy: list[bool] = field(default_factory=list)
    health: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, str | Reply] = field(default_factory=dict)
    posts: list[str] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    posted: Callable[[str], None] = lambda bead_id: None
    status: Reply | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path == "/api/agent-dispatch":
            return _raise(self._dispatch(msgspec.json.decode(request.content)["taskId"]))
        if path == "/api/agent-status":
            busy = self.busy.pop(0) if self.busy else False
            return _raise(self.status or httpx.Response(200, json={"busy": busy}))
        if path == "/health":
            health = self.health.pop(0) if len(self.health) > 1 else [*self.health, {"busy": False}][0]
            return _raise(httpx.Response(200, json=health))
        job = self.jobs.get(path.removeprefix("/jobs/"), httpx.Response(404))
        return _raise(httpx.Response(200, json={"status": job}) if isinstance(job, str) else job)

    def services(self, *, agent: bool = False) -> Callable[[], BeadBoardRunner]:
        """Return what opens the services: BeadBoard, and with `agent` the agent service too."""
        settings = BeadBoardSettings(
            beadboard_url=BOARD, agent_url=AGENT if agent else None, agent_token=Secret(TOKEN) if agent else None
        )
        services = BeadBoardRunner(settings, httpx.MockTransport(self))
        return lambda: services

    def _dispatch(self, bead_id: str) -> Reply:
        self.posts.append(bead_id)
        self.posted(bead_id)
        if self.script:
            return self.script.pop(0)
        return httpx.Response(200, json={"job_id": f"job-{len(self.posts)}"})


class Wire(httpx.SyncByteStream):
    """A body as it comes from a socket: in pieces; `sent` counts the bytes that were taken."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.sent < len(self._body):
            piece = self._body[self.sent : self.sent + 65_536]
            self.sent += len(piece)
            yield piece


def _raise(reply: Reply) -> httpx.Response:
    if isinstance(reply, Exception):
        raise reply
    if isinstance(reply.stream, Wire):
        return reply
    return httpx.Response(reply.status_code, headers=reply.headers, stream=Wire(reply.content))


def no_services() -> BeadBoardRunner:
    """Stand for the services where nobody may ask them."""
    raise AssertionError("the services were asked")


def dispatcher(
    bd: Bd,
    writer: Writer,
    services: Callable[[], Runner],
    settings: DispatchSettings,
    runtime: Runtime,
    *,
    stopping: Callable[[], bool] = lambda: False,
    started_jobs: StartedJobs | None = None,
) -> Dispatcher:
    """Return one cycle of a one-shot command with a gate of its own."""
    gate = Gate(bd, services, settings, runtime.now, Known(stopping=stopping))
    return Dispatcher(bd, writer, services, settings, runtime, gate, started_jobs or StartedJobs())
