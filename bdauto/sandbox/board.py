"""BeadBoard with a simulated agent service behind it, on two loopback ports.

The answers are those of the real ones. `Board.reply_next` orders other answers; the agent does what the caller says.
BeadBoard reads and the agent writes beads through bd, so both work on the stand-in and on the real program alike.
"""

import contextlib
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol

from bdauto.sandbox.call import Answer

Route = Literal["status", "dispatch", "health", "job"]
AGENT = "beads-task-runner"


class Bd(Protocol):
    """Runs bd in a workspace: `bd("show", "x-1", "--json", actor="me")`."""

    def __call__(self, *args: str, actor: str = ...) -> Answer:
        """Do one call; answers exit code, stdout and stderr."""


@dataclass(frozen=True)
class Reply:
    """An answer ordered for one request. Without a status the usual answer is sent, but late, or cut, or not at all.

    delay: seconds before the first byte. trickle: seconds between the bytes. drop: close the connection `early`, before
    the request is handled, or `late`, after it was handled (the job is started) but before it is answered.
    """

    status: int | None = None
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    trickle: float = 0.0
    drop: Literal["early", "late"] | None = None


@dataclass(frozen=True)
class Post:
    """A dispatch request that BeadBoard received: the bead, when (seconds since 1970), its answer's status, its job."""

    task: str
    at: float
    status: int
    job: str


@dataclass
class Job:
    """A job of the agent service; status is `queued`, `running`, `completed`, `failed`, `timeout` or `error`."""

    id: str
    bead: str
    status: str


class Board:
    """BeadBoard and the agent service.

    Public attributes may be changed at any time: `capacity` and `queue` of the agent service; `signs`: whether the
    agent's first note is written when a job starts; `configured`: whether BeadBoard has an agent at all; `old_health`:
    the agent's answer has `busy` alone; `cache`: for how many seconds BeadBoard repeats its status (the real one: 2).
    """

    def __init__(self, bd: Bd, *, capacity: int = 1, queue: int = 0) -> None:
        self.bd = bd
        self.capacity, self.queue = capacity, queue
        self.signs, self.configured, self.old_health, self.cache = True, True, False, 0.0
        self.token = secrets.token_hex(16)
        self.posts: list[Post] = []
        self.requests: list[tuple[str, str]] = []
        self.jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._replies: dict[Route, deque[Reply]] = {
            "status": deque(),
            "dispatch": deque(),
            "health": deque(),
            "job": deque(),
        }
        self._cached: tuple[float, bool] | None = None
        self._board = _serve(self, agent=False)
        self._agent: _Server | None = _serve(self, agent=True)
        self._agent_port: int = self._agent.server_address[1]

    @property
    def url(self) -> str:
        """BeadBoard's address."""
        return f"http://127.0.0.1:{self._board.server_address[1]}"

    @property
    def agent_url(self) -> str:
        """The agent service's address."""
        return f"http://127.0.0.1:{self._agent_port}"

    def close(self) -> None:
        """Stop both services."""
        self.agent_down()
        _stop(self._board)

    def agent_down(self) -> None:
        """The agent service stops: connections are refused, and it forgets its jobs."""
        if self._agent:
            _stop(self._agent)
        self._agent = None
        self.jobs.clear()

    def agent_up(self) -> None:
        """The agent service starts again, on the same port."""
        if self._agent is None:
            self._agent = _serve(self, agent=True, port=self._agent_port)

    def reply_next(self, route: Route, reply: Reply, times: int = 1) -> None:
        """Order the answers to the next `times` requests of a route: `status`, `dispatch`, `health` or `job`."""
        self._replies[route].extend([reply] * times)

    def ordered(self, route: Route) -> Reply:
        """The answer ordered for this request; an empty one when none was."""
        with self._lock:
            return self._replies[route].popleft() if self._replies[route] else Reply()

    def count(self, status: str) -> int:
        """How many jobs have a status."""
        return sum(job.status == status for job in self.jobs.values())

    @property
    def busy(self) -> bool:
        """Whether the agent service takes no further job."""
        return self.count("running") >= self.capacity and self.count("queued") >= self.queue

    def job_of(self, bead: str) -> Job:
        """The youngest job of a bead. Raises LookupError."""
        return next(job for job in reversed(self.jobs.values()) if job.bead == bead)

    def progress(self, job: str, text: str) -> None:
        """The agent notes its progress on the bead."""
        self.bd("update", self.jobs[job].bead, "--append-notes", text, "--json", actor=AGENT)

    def finish(self, job: str) -> None:
        """The agent closes its bead, and the job is completed."""
        self.bd("close", self.jobs[job].bead, "--json", actor=AGENT)
        self.end(job, "completed")

    def end(self, job: str, status: str = "failed") -> None:
        """The job ends without a word on the bead: `failed`, `timeout`, `error` or `completed`."""
        with self._lock:
            self.jobs[job].status = status
        self._start_queued()

    def forget(self, job: str) -> None:
        """The service forgets a job, as it does an hour after its end and at its own restart."""
        with self._lock:
            del self.jobs[job]

    def _start_queued(self) -> None:
        with self._lock:
            for job in self.jobs.values():
                if job.status == "queued" and self.count("running") < self.capacity:
                    self._start(job)

    def _start(self, job: Job) -> None:
        job.status = "running"
        if self.signs:
            text = f"claimed by agent {job.id}"
            self.bd("update", job.bead, "--append-notes", text, "--json", actor=AGENT)

    def status(self) -> dict[str, object]:
        """BeadBoard's word on the agent. It says not busy, too, when the agent service is down."""
        with self._lock:
            now = time.monotonic()
            if self._cached is None or now - self._cached[0] >= self.cache:
                self._cached = now, self._agent is not None and self.busy
            return {"busy": self._cached[1]}

    def dispatch(self, raw: bytes) -> tuple[int, dict[str, object]]:
        """BeadBoard's answer to a dispatch request; starts the job when there is nothing against it."""
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
        with self._lock:
            self.posts.append(Post(str(json.loads(raw)["taskId"]), time.time(), status, job))

    def _dispatch(self, task: str) -> tuple[int, dict[str, object]]:
        if not self.configured:
            return 500, {"error": "Agent dispatch is not configured."}
        shown = self.bd("show", task, "--json", actor="beadboard")
        if shown.code != 0:
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

    def health(self) -> dict[str, object]:
        """The agent service's health."""
        with self._lock:
            if self.old_health:
                return {"busy": self.busy}
            counts = {"active": self.count("running"), "queued": self.count("queued"), "capacity": self.capacity}
            return {"status": "ok", "busy": self.busy} | counts

    def job(self, name: str, authorization: str) -> tuple[int, dict[str, object]]:
        """The agent service's word on a job."""
        if not secrets.compare_digest(authorization.encode(), f"Bearer {self.token}".encode()):
            return 401, {"detail": "Invalid or missing token"}
        with self._lock:
            found = self.jobs.get(name)
            return (200, {"job_id": name, "status": found.status}) if found else (404, {"detail": "Job not found"})


class _Handler(BaseHTTPRequestHandler):
    """Sends the usual answers, or what was ordered."""

    board: Board
    agent: bool
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def _route(self) -> Route | None:
        if self.agent:
            return "health" if self.path == "/health" else "job" if self.path.startswith("/jobs/") else None
        wanted: dict[tuple[str, str], Route] = {
            ("GET", "/api/agent-status"): "status",
            ("POST", "/api/agent-dispatch"): "dispatch",
        }
        return wanted.get((self.command, self.path))

    def _usual(self, route: Route, body: bytes) -> tuple[int, dict[str, object]]:
        if route == "status":
            return 200, self.board.status()
        if route == "dispatch":
            return self.board.dispatch(body)
        if route == "health":
            return 200, self.board.health()
        return self.board.job(self.path.removeprefix("/jobs/"), self.headers.get("Authorization", ""))

    def do_GET(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = self._route()
        self.board.requests.append((self.command, self.path))
        if route is None:
            self._send(404, b"<html><body>Not Found</body></html>", {"Content-Type": "text/html"})
            return
        order = self.board.ordered(route)
        time.sleep(order.delay)
        self.close_connection = order.drop is not None
        if order.drop == "early":
            return
        if order.status is None:
            status, answer = self._usual(route, body)
            content, headers = json.dumps(answer).encode(), {"Content-Type": "application/json"}
        else:
            status, headers = order.status, dict(order.headers)
            content = order.body.encode() if isinstance(order.body, str) else order.body
            if route == "dispatch":
                self.board.record(body, status)
        if order.drop is None:
            self._send(status, content, headers, order.trickle)

    do_POST = do_GET

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], trickle: float = 0.0) -> None:
        pieces = [body[place : place + 1] for place in range(len(body))] if trickle else [body]
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)
                time.sleep(trickle)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _serve(board: Board, *, agent: bool, port: int = 0) -> _Server:
    handler = type("Handler", (_Handler,), {"board": board, "agent": agent})
    server = _Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def _stop(server: _Server) -> None:
    server.shutdown()
    server.server_close()
