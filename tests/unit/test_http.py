"""Where the listener listens. What it serves is in tests/e2e/test_listener.py."""

import pytest

from bdauto.domain.values import parse_address
from bdauto.errors import UsageError


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
