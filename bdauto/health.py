"""The HTTP listener of `bdauto run`: a few pages to GET, and nothing else.

At most CONNECTIONS requests are served at once, each for at most TIMEOUT seconds of silence.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from socketserver import TCPServer
from typing import Any

from bdauto.errors import UsageError

CONNECTIONS = 16
TIMEOUT = 5.0
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Page:
    """An answer."""

    status: int
    body: bytes
    content_type: str = TEXT


Pages = Mapping[str, Callable[[], Page]]


class Listener:
    """Serves pages by path from daemon threads, until it is closed."""

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        """Bind the address, port 0 being a free one; raises UsageError."""
        host, port = address
        server = _ServerV6 if ":" in host else _Server
        try:
            self._server = server(address, pages)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"--listen {_written(host, port)}: {reason}; choose another address") from None
        self.address = _written(host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="bdauto-listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.pages = pages
        self._room = threading.Semaphore(CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer looks up its own name here, which can take long and serves nobody.
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no event."""


class _ServerV6(_Server):
    address_family = AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        self._answer(page() if page else Page(404, b"not found\n"))

    def _refuse(self) -> None:
        self._answer(Page(405, b"GET only\n"), allow="GET")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # whatever the method is called
            return self._refuse
        raise AttributeError(name)

    def _answer(self, page: Page, **headers: str) -> None:
        self.send_response(page.status)
        for name, value in {
            "content-type": page.content_type,
            "content-length": str(len(page.body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def version_string(self) -> str:
        return "bdauto"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: probes come every few seconds."""
