"""The HTTP listener of `bdauto run` over real connections: its pages, and clients that are slow, or talk nonsense."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from bdauto.common.errors import UsageError
from bdauto.loop import listener as listener_module
from bdauto.loop.listener import CONNECTIONS, Listener, Page

Serve = Callable[..., Listener]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts listeners on free ports, with the pages given by name."""
    with ExitStack() as stack:

        def start(**pages: Callable[[], Page]) -> Listener:
            listener = Listener(("127.0.0.1", 0), {f"/{name}": page for name, page in pages.items()})
            stack.callback(listener.close)
            return listener

        yield start


def connect(listener: Listener) -> socket.socket:
    """Open a connection."""
    host, _, port = listener.address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


def ask(listener: Listener, request: bytes) -> bytes:
    """Send a request and return the whole answer."""
    with connect(listener) as client:
        client.sendall(request)
        answer = b""
        with suppress(ConnectionError):
            while piece := client.recv(65536):
                answer += piece
    return answer


def healthy() -> Page:
    """Answer as /healthz does."""
    return Page(200, b"alive\n")


def test_a_page(serve: Serve) -> None:
    answer = ask(serve(healthz=lambda: Page(503, b"no\n")), b"GET /healthz?x=1 HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 503 Service Unavailable\r\n")
    assert answer.endswith(b"\r\n\r\nno\n")
    assert b"Server: bdauto\r\n" in answer


def test_another_name_gets_no_page_and_a_probe_is_answered_by_any(serve: Serve) -> None:
    """DNS rebinding: a page of another site has its name resolve to 127.0.0.1. Kubernetes probes by a pod's address."""
    listener = serve(beads=healthy, healthz=healthy, readyz=healthy, metrics=healthy)
    for path, host, status in (
        ("beads", "evil.example", 403),
        ("beads", "evil.example:9464", 403),
        ("nothing", "evil.example", 403),
        ("beads", "localhost:9464", 200),
        ("beads", listener.address, 200),
        ("healthz", "10.1.2.3:9464", 200),
        ("readyz", "beads-dispatcher.beads-server.svc:9464", 200),
        ("metrics", "evil.example", 200),
    ):
        answer = ask(listener, f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (path, host, answer)
        assert (b"alive" in answer) == (status == 200)


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "BREW"])
def test_nothing_but_get(serve: Serve, method: str) -> None:
    called: list[int] = []

    def page() -> Page:
        called.append(1)
        return Page(200, b"")

    answer = ask(serve(metrics=page), f"{method} /metrics HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: GET\r\n" in answer
    assert called == []


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../metrics", "/etc/passwd", "/%ff"])
def test_no_other_path(serve: Serve, path: str) -> None:
    answer = ask(serve(metrics=healthy), f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert b" 404 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 70_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    ],
)
def test_what_is_no_request_does_no_harm(
    serve: Serve, request_: bytes, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "TIMEOUT", 1.0)
    listener = serve(healthz=healthy)
    assert b" 200 " not in ask(listener, request_)
    assert ask(listener, b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"alive\n")
    assert capfd.readouterr().err == ""


def test_a_page_that_fails_is_an_error_whose_details_are_in_the_log_alone(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Page:
        raise ValueError("s3cret")

    answer = ask(serve(metrics=fail), b"GET /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 500 ")
    assert b"s3cret" not in answer
    [said] = [one for one in caplog.records if one.message == "defect"]  # other threads may log, too
    fields = said.__dict__["fields"]
    assert (said.message, said.levelname, fields["page"]) == ("defect", "ERROR", "/metrics")
    assert re.fullmatch(r"ValueError in .*test_listener\.py:\d+: s3cret", fields["error"])


def test_slow_clients_keep_no_probe_waiting(serve: Serve) -> None:
    """More of them than there are places, each sending a byte now and then: a probe takes the place of the oldest."""
    listener = serve(healthz=healthy)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(listener)) for _ in range(CONNECTIONS + 4)]
        for _ in range(9):
            for client in slow:
                with suppress(ConnectionError):
                    client.sendall(b"G")
            assert ask(listener, b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"alive\n")
        assert threading.active_count() < 10


def test_a_connection_never_suffers_from_the_end_of_another(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives the new one the number of the old one."""
    monkeypatch.setattr(listener_module, "TIMEOUT", 0.5)
    listener = serve(healthz=healthy)
    for _ in range(8):
        assert ask(listener, b"G") == b""
        assert ask(listener, b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"alive\n")


def test_a_whole_request_has_a_deadline(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly its bytes trickle in."""
    monkeypatch.setattr(listener_module, "TIMEOUT", 0.5)
    with connect(serve(healthz=healthy)) as client:
        client.settimeout(0.2)
        started = time.monotonic()
        while time.monotonic() - started < 20:
            try:
                client.sendall(b"G")
                if client.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("it is still served")


def test_connections_are_closed_at_the_end(serve: Serve) -> None:
    listener = serve(healthz=healthy)
    with connect(listener) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"alive\n"):
            answer += client.recv(65536)
        listener.close()
        assert client.recv(1) == b""
    with pytest.raises(ConnectionError):
        connect(listener)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_cannot_be_bound(host: str) -> None:
    with pytest.raises(UsageError, match=rf"--listen {host}:9464"):
        Listener((host, 9464), {})
