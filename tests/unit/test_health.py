"""The listener: addresses, pages, and that it is bounded. It is served over socket pairs: no connection is made."""

import socket
import threading
from collections.abc import Callable

import pytest

from bdauto.errors import UsageError
from bdauto.health import CONNECTIONS, Listener, Page
from bdauto.options import listen_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_an_address_without_a_host_is_loopback(text: str, address: tuple[str, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "x", "host:", "1.2.3.4", "host:99999", "a b:1", "::1:80", "http://x:1", "９４６４"]
)
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        listen_address(text)


def ask(request: bytes, **pages: Callable[[], Page]) -> bytes:
    """Hand a request to a listener and return its whole answer."""
    listener = Listener(("127.0.0.1", 0), {f"/{name}": page for name, page in pages.items()})
    try:
        here, there = socket.socketpair()
        with here:
            here.sendall(request)
            listener._server.process_request(there, ("test", 0))
            answer = b""
            while piece := here.recv(65536):
                answer += piece
        return answer
    finally:
        listener.close()


def test_a_page() -> None:
    answer = ask(b"GET /healthz?x=1 HTTP/1.0\r\n\r\n", healthz=lambda: Page(503, b"no\n"))
    assert answer.startswith(b"HTTP/1.0 503 ")
    assert answer.endswith(b"\r\n\r\nno\n")
    assert b"Server: bdauto\r\n" in answer
    assert b"Python" not in answer


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "BREW"])
def test_nothing_but_get(method: str) -> None:
    called: list[int] = []

    def page() -> Page:
        called.append(1)
        return Page(200, b"")

    answer = ask(f"{method} /metrics HTTP/1.1\r\nconnection: close\r\n\r\n".encode(), metrics=page)
    assert answer.startswith((b"HTTP/1.0 405 ", b"HTTP/1.1 405 "))
    assert b"allow: GET\r\n" in answer
    assert called == []


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../metrics", "/etc/passwd"])
def test_no_other_path(path: str) -> None:
    assert b" 404 " in ask(f"GET {path} HTTP/1.0\r\n\r\n".encode(), metrics=lambda: Page(200, b"x")).splitlines()[0]


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000 + b"\r\n"]
)
def test_what_is_no_request_does_no_harm(request_: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    here, there = socket.socketpair()
    listener = Listener(("127.0.0.1", 0), {})
    try:
        listener._server.process_request(there, ("test", 0))
        here.sendall(request_)
        here.shutdown(socket.SHUT_WR)
        while here.recv(65536):
            pass
    except ConnectionError:
        pass
    finally:
        here.close()
        listener.close()
    assert capfd.readouterr().err == ""


def test_too_many_connections_at_once_are_closed() -> None:
    listener = Listener(("127.0.0.1", 0), {})
    pairs = [socket.socketpair() for _ in range(CONNECTIONS + 3)]
    try:
        for _, there in pairs:
            listener._server.process_request(there, ("test", 0))
        for here, _ in pairs[CONNECTIONS:]:
            here.settimeout(2)  # less than a connection that is served may be silent
            assert here.recv(1) == b""
        assert threading.active_count() <= CONNECTIONS + 5
    finally:
        for here, _ in pairs:
            here.close()
        listener.close()


def test_an_address_that_cannot_be_bound() -> None:
    with pytest.raises(UsageError, match=r"--listen 192\.0\.2\.1:9464"):
        Listener(("192.0.2.1", 9464), {})
