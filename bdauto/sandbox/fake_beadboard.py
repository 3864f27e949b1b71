"""BeadBoard with a simulated agent service behind it, on two loopback ports.

The answers are those of the real ones. `FakeBeadBoard.reply_next` orders other answers. The agent does what the caller
says. BeadBoard reads and the agent writes beads through bd, so both work on the stand-in and on the real bd alike.
"""

import json
import re
import secrets
import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Protocol

from bdauto.sandbox.deaths import Death
from bdauto.sandbox.fake_bd.call import BdResult
from bdauto.sandbox.fake_http import FakeReply, FakeServer, Route

AGENT = "agent"


def _bead_of(prompt: str) -> str:
    """The bead that a prompt is about: that of the first command in it."""
    found = re.search(r"\bbd note (\S+)", prompt)
    return found[1] if found else ""


class RunBd(Protocol):
    """Runs bd in a workspace: `bd("show", "x-1", "--json", actor="me")`."""

    def __call__(self, *args: str, actor: str = ...) -> BdResult:
        """Do one call and return its exit code, stdout and stderr."""


@dataclass(frozen=True)
class Post:
    """A dispatch request that BeadBoard received: the bead, when (seconds since 1970), its answer's status, its job."""

    task: str
    at: float
    status: int
    job: str


@dataclass
class Job:
    """A job of the agent service. Its status is `queued`, `running`, `completed`, `failed`, `timeout` or `error`.

    `output` is what the agent printed. Times are in seconds since 1970.
    """

    id: str
    bead: str
    status: str
    died: Death | None = None
    output: str = ""
    started: float = 0.0
    finished: float = 0.0

    def as_json(self) -> dict[str, object]:
        """The answer about this job."""
        told: dict[str, object] = asdict(self.died) if self.died else {"output": self.output.splitlines()}
        times = {"started_at": self.started, "finished_at": self.finished}
        stamps = {name: datetime.fromtimestamp(moment, UTC).isoformat() for name, moment in times.items() if moment}
        return {"status": self.status, "job_id": self.id} | told | stamps


class FakeBeadBoard:
    """BeadBoard and the agent service.

    Public attributes may be changed at any time:

    capacity, queue: of the agent service.
    signs: the agent writes its first note when a job starts.
    dies: each job that starts dies so, at once and without a word on its bead. None: it lives.
    configured: BeadBoard has an agent at all.
    hidden: beads that BeadBoard does not see, as if they were not in its export yet.
    old_health: the agent service's health has `busy` alone.
    job_replies: the answers to every question about these jobs.
    cache: for how many seconds BeadBoard repeats its status (the real one: 2).

    `posts` are the requests to start a bead, and `executed` the bodies of those that the agent service got itself.
    `url` and `agent_url` are the addresses of the two.
    """

    def __init__(self, bd: RunBd, *, capacity: int = 1, queue: int = 0) -> None:
        self.bd = bd
        self.capacity, self.queue = capacity, queue
        self.hidden: set[str] = set()
        self.job_replies: dict[str, FakeReply] = {}
        self.signs, self.configured, self.old_health, self.cache = True, True, False, 0.0
        self.dies: Death | None = None
        self.token = secrets.token_hex(16)
        self.posts: list[Post] = []
        self.executed: list[dict[str, object]] = []
        self.requests: list[tuple[str, str]] = []
        self.jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._replies: defaultdict[Route, deque[FakeReply]] = defaultdict(deque)
        self._cached: tuple[float, bool] | None = None
        self._board = FakeServer(self, agent=False)
        self._agent: FakeServer | None = FakeServer(self, agent=True)
        self.url, self.agent_url = self._board.url, self._agent.url

    def close(self) -> None:
        """Stop both services."""
        self.agent_down()
        self._board.stop()

    def agent_down(self) -> None:
        """The agent service stops: connections are refused, and it forgets its jobs."""
        if self._agent:
            self._agent.stop()
        self._agent = None
        self.jobs.clear()

    def agent_up(self) -> None:
        """The agent service starts again, on the same port."""
        if self._agent is None:
            self._agent = FakeServer(self, agent=True, port=int(self.agent_url.rpartition(":")[2]))

    def reply_next(self, route: Route, reply: FakeReply, times: int = 1) -> None:
        """Order the answer to the next `times` requests of a route."""
        self._replies[route].extend([reply] * times)

    def ordered(self, route: Route, job: str = "") -> FakeReply:
        """The answer ordered for this request, or an empty one."""
        with self._lock:
            first = self._replies[route].popleft if self._replies[route] else FakeReply
            return self.job_replies.get(job) or first()

    def usual(self, route: Route, job: str, body: bytes, authorization: str) -> tuple[int, dict[str, object]]:
        """The status and the body of the usual answer."""
        if route == "dispatch":
            return self.dispatch(body)
        if route == "execute":
            return self.execute(body, authorization)
        if route == "job":
            return self.job(job, authorization)
        told = {"status": self.status, "beads": self.beads, "health": self.health}
        return 200, told[route]()

    def count(self, status: str) -> int:
        """How many jobs have a status."""
        return sum(job.status == status for job in list(self.jobs.values()))

    @property
    def busy(self) -> bool:
        """Whether the agent service takes no further job."""
        return self.count("running") >= self.capacity and self.count("queued") >= self.queue

    def job_of(self, bead: str) -> Job:
        """The youngest job of a bead. Raises LookupError."""
        return next(job for job in reversed(list(self.jobs.values())) if job.bead == bead)

    def progress(self, job: str, text: str) -> None:
        """The agent notes its progress on the bead."""
        self.bd("update", self.jobs[job].bead, "--append-notes", text, "--json", actor=AGENT)

    def finish(self, job: str, output: str = "") -> None:
        """The agent closes its bead, and the job is completed."""
        self.bd("close", self.jobs[job].bead, "--json", actor=AGENT)
        self.end(job, "completed", output)

    def end(self, job: str, status: str = "failed", output: str = "") -> None:
        """The job ends without a word on the bead: `failed`, `timeout`, `error` or `completed`."""
        with self._lock:
            ended = self.jobs[job]
            ended.status, ended.output, ended.finished = status, output, time.time()
        self._start_queued()

    def forget(self, job: str) -> None:
        """The service forgets a job, as it does an hour after its end and at its own restart."""
        with self._lock:
            del self.jobs[job]

    def _start_queued(self) -> None:
        with self._lock:
            for job in list(self.jobs.values()):
                if job.status == "queued" and self.count("running") < self.capacity:
                    self._start(job)

    def _start(self, job: Job) -> None:
        job.died, job.started = self.dies, time.time()
        job.status = job.died.status if job.died else "running"
        if self.signs and not job.died:
            text = f"claimed by agent {job.id}"
            self.bd("update", job.bead, "--append-notes", text, "--json", actor=AGENT)

    def status(self) -> dict[str, object]:
        """BeadBoard's status of the agent: not busy, too, while the agent service is down."""
        with self._lock:
            now = time.monotonic()
            if self._cached is None or now - self._cached[0] >= self.cache:
                self._cached = now, self._agent is not None and self.busy
            return {"busy": self._cached[1]}

    def dispatch(self, raw: bytes) -> tuple[int, dict[str, object]]:
        """BeadBoard's answer to a dispatch request. Starts the job if nothing speaks against it."""
        try:
            body = json.loads(raw)
        except ValueError:
            return 400, {"error": "Invalid JSON body."}
        task = body.get("taskId") if isinstance(body, dict) else None
        if not isinstance(task, str) or not task:
            return 400, {"error": "taskId is required."}
        status, answer = self._dispatch(task)
        self.record(raw, status, str(answer.get("job_id", "")))
        return status, answer

    def record(self, raw: bytes, status: int, job: str = "") -> None:
        """Remember a dispatch request and its answer."""
        body = json.loads(raw)
        task = body["taskId"] if "taskId" in body else _bead_of(body["prompt"])
        with self._lock:
            self.posts.append(Post(str(task), time.time(), status, job))

    def _dispatch(self, task: str) -> tuple[int, dict[str, object]]:
        if not self.configured:
            return 500, {"error": "Agent dispatch is not configured."}
        shown = self.bd("show", task, "--json", actor="beadboard")
        if shown.code != 0 or task in self.hidden:
            return 400, {"error": f"Bead {task} not found."}
        if not str(json.loads(shown.out)[0].get("acceptance_criteria", "")).strip():
            return 400, {"error": f"Bead {task} is missing acceptance criteria."}
        with self._lock:
            if self._agent is None:
                return 502, {"error": "Agent service is unreachable."}
            if self.busy:
                return (
                    (502, {"error": "Agent service failed: 429"}) if self.queue else (409, {"error": "Agent is busy"})
                )
            job = Job(secrets.token_hex(6), task, "queued")
            self.jobs[job.id] = job
        self._start_queued()
        return 200, {"job_id": job.id}

    def execute(self, raw: bytes, authorization: str) -> tuple[int, dict[str, object]]:
        """The agent service's answer to a job that is posted to it without BeadBoard. Starts the job."""
        if not self._authorized(authorization):
            return 401, {"detail": "Invalid token"}
        body = json.loads(raw)
        missing = [name for name in ("prompt", "agent") if not isinstance(body.get(name), str)]
        if missing:
            return 422, {"detail": [{"type": "missing", "loc": ["body", name]} for name in missing]}
        self.executed.append(body)
        with self._lock:
            if self.busy:
                self.record(raw, 429)
                return 429, {"detail": "Queue full"}
            job = Job(secrets.token_hex(6), _bead_of(body["prompt"]), "queued")
            self.jobs[job.id] = job
        self.record(raw, 202, job.id)
        self._start_queued()
        return 202, {"job_id": job.id, "status": "queued"}

    def _authorized(self, authorization: str) -> bool:
        return secrets.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())

    def beads(self) -> dict[str, object]:
        """All beads, as BeadBoard's own page reads them."""
        listed = self.bd("list", "--all", "--limit", "0", "--json", actor="beadboard")
        return {"ok": True, "issues": [bead for bead in json.loads(listed.out) if bead["id"] not in self.hidden]}

    def health(self) -> dict[str, object]:
        """The agent service's health."""
        with self._lock:
            if self.old_health:
                return {"busy": self.busy}
            counts = {"active": self.count("running"), "queued": self.count("queued"), "capacity": self.capacity}
            return {"status": "ok", "busy": self.busy} | counts

    def job(self, name: str, authorization: str) -> tuple[int, dict[str, object]]:
        """The agent service's answer about a job."""
        if not self._authorized(authorization):
            return 401, {"detail": "Invalid or missing token"}
        with self._lock:
            found = self.jobs.get(name)
            return (200, found.as_json()) if found else (404, {"detail": "Job not found"})
