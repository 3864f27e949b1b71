"""Serves the fake BeadBoard and the fake agent service over HTTP: their usual answers, or what was ordered."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bdauto.sandbox.fake_beadboard import FakeBeadBoard

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

    def _usual(self, route: Route, body: bytes) -> tuple[int, dict[str, object]]:
        if route == "status":
            return 200, self.server.board.status()
        if route == "dispatch":
            return self.server.board.dispatch(body)
        if route == "beads":
            return 200, self.server.board.beads()
        if route == "health":
            return 200, self.server.board.health()
        authorization = self.headers.get("Authorization", "")
        if route == "execute":
            return self.server.board.execute(body, authorization)
        return self.server.board.job(self.path.removeprefix("/jobs/"), authorization)

    def do_GET(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = self._route()
        self.server.board.requests.append((self.command, self.path))
        if route is None:
            self._send(404, b"<html><body>Not Found</body></html>", {"Content-Type": "text/html"})
            return
        order = self.server.board.job_replies.get(self.path.removeprefix("/jobs/")) or self.server.board.ordered(route)
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

    def __init__(self, board: "FakeBeadBoard", *, agent: bool, port: int = 0) -> None:
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
