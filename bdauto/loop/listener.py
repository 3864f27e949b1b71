"""The HTTP listener of `bdauto run`: a few pages to GET, and nothing else.

waitress reads all connections in one thread, so a slow client holds up nobody. At most CONNECTIONS are open, each for
at most TIMEOUT seconds. A new one takes the place of the oldest that has not asked: a probe asks at once.
"""

import logging
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.wasyncore import close_all

from bdauto.common import log
from bdauto.common.errors import UsageError
from bdauto.common.sanitize import hide_secrets

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CONNECTIONS = 256
TIMEOUT = 5.0
THREADS = 7
"""Threads that answer. A page takes seconds to make, a stream of events holds one, and a probe must not wait.

At most four streams are open, so three threads are left for pages and probes.
"""
ANSWER_TIMEOUT = 60.0
"""Seconds that a connection may be open whose request is being answered."""
HEADER_LIMIT, BODY_LIMIT = 8192, 1024
FOR_ALL = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that answer any Host. Probes and scrapers use unknown addresses and names, and these pages show no bead."""
NOT_PUBLIC = (".local", ".internal", ".svc", ".home.arpa", ".test", ".localdomain")
"""Suffixes that nobody can register in public DNS. They name hosts of the local network."""
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Page:
    """An answer. `chunks` is sent in place of the body as it comes, and closed at the end."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    chunks: Iterable[bytes] | None = None


Pages = Mapping[str, Callable[[], Page]]
Others = Callable[[str, str], Page | None]
"""Answers a path and a query that are none of the pages. None: there is no such page."""


class Listener:
    """Serves pages by path from daemon threads, until it is closed."""

    def __init__(self, address: tuple[str, int], pages: Pages, others: Others = lambda *_: None) -> None:
        """Bind the address, port 0 being a free one. Raises UsageError."""
        host, port = address
        self._sockets: dict[int, Any] = {}
        silent = logging.getLogger("waitress")  # a client that went away is no event
        silent.addHandler(logging.NullHandler())
        silent.propagate = False
        try:
            answer = _application(pages, others, host)
            self._server = _Server(answer, self._sockets, adj=_adjustments(host, port))
        except (OSError, OverflowError, ValueError) as error:
            close_all(self._sockets)
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"--listen {_written(host, port)}: {reason}", hint="choose another address") from None
        self.address = _written(host, self._server.socket.getsockname()[1])
        self._thread = threading.Thread(target=self._server.run, name="bdauto-listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and close all connections: in the thread that serves them."""
        if self._thread.is_alive():
            self._server.trigger.pull_trigger(lambda: close_all(self._sockets))
            self._thread.join(TIMEOUT)
            self._server.task_dispatcher.shutdown()


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _adjustments(host: str, port: int) -> Any:
    return Adjustments(
        host=host,
        port=port,
        ident="bdauto",
        threads=THREADS,
        connection_limit=2 * CONNECTIONS,  # never reached: `_Server` makes room
        cleanup_interval=1,
        max_request_header_size=HEADER_LIMIT,
        max_request_body_size=BODY_LIMIT,
        asyncore_use_poll=True,
        log_socket_errors=False,
    )


def _page(pages: Pages, others: Others, path: str, query: str) -> Page:
    if path in pages:
        return pages[path]()
    return others(path, query) or Page(404, f"not found; there are {', '.join(sorted(pages))}\n".encode())


def _tried(make: Callable[[], Page], path: str) -> Page:
    """Return the page. A page that fails is a defect: the log has the details, and the client sees none."""
    try:
        return make()
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__} in {place.filename}:{place.lineno}: {error}"
        log.error("defect", page=path, error=hide_secrets(words))
        return Page(500, b"a defect in bdauto: see its log\n")


def is_own_name(asked: str, listening: str) -> bool:
    """True: a Host header names this listener, not a foreign name that resolves to its address.

    With DNS rebinding, a web page lets its own name resolve to this address and reads the answers. On loopback, own
    names are loopback names and addresses and the host of --listen. Elsewhere every address is accepted, because
    addresses cannot be rebound. So are the host's name and names that no public DNS has (RFC 6761, RFC 6762).
    """
    name = asked.rpartition(":")[0] if re.search(r":\d*\Z", asked) and not asked.endswith("]") else asked
    name = name.lower().rstrip(".")
    if name in ("", "localhost", listening.lower()) or name.endswith(".localhost"):
        return True
    asked_ip, own_ip = _address(name.strip("[]")), _address(listening)
    loopback = listening.lower() == "localhost" or (own_ip is not None and own_ip.is_loopback)
    if asked_ip is not None:
        return asked_ip.is_loopback or not loopback
    return not loopback and (name == os.uname().nodename.lower() or "." not in name or name.endswith(NOT_PUBLIC))


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _application(
    pages: Pages, others: Others, listening: str
) -> "Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]":
    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        headers: list[tuple[str, str]] = []
        path = environ["PATH_INFO"]
        if path not in FOR_ALL and not is_own_name(environ.get("HTTP_HOST", ""), listening):
            found = Page(403, b"this is not a name of bdauto: ask by its address\n")
        elif environ["REQUEST_METHOD"] == "GET":
            found = _tried(lambda: _page(pages, others, path, environ.get("QUERY_STRING", "")), path)
        else:
            found = Page(405, b"GET only\n")
            headers.append(("allow", "GET"))
        headers += [("content-type", found.content_type), *found.headers]
        headers += [] if found.chunks is not None else [("content-length", str(len(found.body)))]
        start_response(f"{found.status} {HTTPStatus(found.status).phrase}", headers)
        return [found.body] if found.chunks is None else found.chunks

    return answer


class _Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    def handle_accept(self) -> None:
        """Take a connection. Then close the oldest if there are too many: before, the new one could get its number."""
        super().handle_accept()
        channels = self.active_channels.values()
        if len(channels) > CONNECTIONS:
            min(channels, key=lambda channel: (bool(channel.requests), channel.creation_time)).handle_close()

    def maintenance(self, now: float) -> None:
        """Have what is too old closed, whatever it does: waitress itself would wait while bytes trickle in."""
        for channel in self.active_channels.values():
            if now - channel.creation_time > (ANSWER_TIMEOUT if channel.requests else TIMEOUT):
                channel.will_close = True
