"""Serves the fake BeadBoard and the fake agent service over HTTP: their usual answers, or what was ordered."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol

Route = Literal["status", "dispatch", "beads", "health", "job", "execute"]
_ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/api/agent-status"): "status",
    ("POST", "/api/agent-dispatch"): "dispatch",
    ("GET", "/api/beads/read"): "beads",
}


@dataclass(frozen=True)
class FakeReply:
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


class Answers(Protocol):
    """Whoever answers the requests, and keeps them."""

    requests: list[tuple[str, str]]

    def ordered(self, route: Route, job: str) -> FakeReply:
        """Return what was ordered for a request."""

    def usual(self, route: Route, job: str, body: bytes, authorization: str) -> tuple[int, dict[str, object]]:
        """Return the status and the body of the usual answer."""

    def record(self, raw: bytes, status: int) -> None:
        """Keep a request to start a bead that got an ordered answer."""


class _Handler(BaseHTTPRequestHandler):
    """Sends the usual answers, or what was ordered."""

    server: "FakeServer"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def _route(self) -> Route | None:
        if self.server.agent and self.command == "POST":
            return "execute" if self.path == "/execute" else None
        if self.server.agent:
            return "health" if self.path == "/health" else "job" if self.path.startswith("/jobs/") else None
        return _ROUTES.get((self.command, self.path))

    def do_GET(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = self._route()
        self.server.board.requests.append((self.command, self.path))
        if route is None:
            self._send(404, b"<html><body>Not Found</body></html>", {"Content-Type": "text/html"})
            return
        job = self.path.removeprefix("/jobs/")
        order = self.server.board.ordered(route, job)
        time.sleep(order.delay)
        self.close_connection = order.drop is not None
        if order.drop == "early":
            return
        if order.status is None:
            authorization = self.headers.get("Authorization", "")
            status, answer = self.server.board.usual(route, job, body, authorization)
            content, headers = json.dumps(answer).encode(), {"Content-Type": "application/json"}
        else:
            status, headers = order.status, dict(order.headers)
            content = order.body.encode() if isinstance(order.body, str) else order.body
            if route in ("dispatch", "execute"):
                self.server.board.record(body, status)
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


class FakeServer(ThreadingHTTPServer):
    """BeadBoard, or with `agent` the agent service, on a loopback port. Port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, board: Answers, *, agent: bool, port: int = 0) -> None:
        self.board, self.agent = board, agent
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        """Serve no more."""
        self.shutdown()
        self.server_close()
