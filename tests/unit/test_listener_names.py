"""Where the listener listens. What it serves is in tests/e2e/test_listener.py."""

from types import SimpleNamespace

import pytest

from bdauto.common.errors import UsageError
from bdauto.domain.values import parse_address
from bdauto.loop.listener import is_own_name


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
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "x", "host:", "1.2.3.4", "host:99999", "a b:1", "::1:80", "http://x:1", "９４６４"]
)
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address: write it as"):
        parse_address(text)


LOOPBACK = ("127.0.0.1", "localhost", "::1", "127.0.0.5")
ALL = ("0.0.0.0", "::", "10.1.2.3")
OWN = ("127.0.0.1", "127.0.0.1:9464", "localhost", "LOCALHOST.:80", "[::1]", "[::1]:9464", "x.localhost:1", "")
OTHERS = (
    "evil.example",
    "evil.example:9464",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1,evil.example",
)
NETWORK = ("10.1.2.3", "10.1.2.3:9464", "[fd00::1]:9464", "beads-dispatcher:9464", "x.beads-server.svc", "mac.local")


@pytest.mark.parametrize("listening", [*LOOPBACK, *ALL])
def test_the_pages_answer_their_own_names_alone(listening: str) -> None:
    """A page of another site, whose name was pointed at this address, reads nothing."""
    assert all(is_own_name(name, listening) for name in OWN)
    assert not any(is_own_name(name, listening) for name in OTHERS)
    assert {is_own_name(name, listening) for name in NETWORK} == {listening in ALL}
    assert is_own_name("me.example:9464", "me.example")


def test_the_name_of_the_host_is_its_own_where_it_listens_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(nodename="Box.example.com"))
    assert is_own_name("box.example.com:9464", "0.0.0.0")
    assert not is_own_name("box.example.com:9464", "127.0.0.1")
