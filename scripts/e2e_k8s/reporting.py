"""Says what holds, and ends the script with status 1 at the first thing that does not."""

import contextlib
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import TypeVar

import sh

T = TypeVar("T")


def say(text: object) -> None:
    """Print one line at once."""
    print(str(text).rstrip(), flush=True)


def check(condition: bool, what: str) -> None:
    """Say that something holds, or exit 1 because it does not."""
    if not condition:
        sys.exit(f"FAILED: {what}")
    say(f"ok: {what}")


def until(what: str, seconds: float, attempt: Callable[[], T]) -> T:
    """Return the first true result of `attempt`, called twice a second; exits 1 after `seconds` without one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, sh.ErrorReturnCode):
            result = attempt()
            if result:
                return result
        time.sleep(0.5)
    sys.exit(f"FAILED: no {what} within {seconds:g} s")


def fetch(port: int, path: str) -> tuple[int, str]:
    """GET a page from loopback and return its status and text."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def free_port() -> int:
    """Return a TCP port that is free on loopback just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
