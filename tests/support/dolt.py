"""A Dolt SQL server for tests and benchmarks, and its own client."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sh

from bdauto.sandbox.real_bd import environment

START_SECONDS = 30.0
"""How long a Dolt server may take to accept connections."""


def free_port() -> int:
    """Return a loopback port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def dolt_server(dolt_path: Path, folder: Path) -> Iterator[int]:
    """Run a Dolt SQL server with its data in `folder` and yield its port. Raises TimeoutError if it does not start."""
    port, lines, ready = free_port(), list[str](), threading.Event()

    def listen(line: str) -> None:
        lines.append(line)
        if "Server ready" in line:
            ready.set()

    server = sh.Command(str(dolt_path))(
        *("sql-server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", "."),
        _cwd=str(folder),
        _env=environment(folder),
        _bg=True,
        _bg_exc=False,
        _new_session=True,
        _tty_out=False,
        _out=listen,
        _err=listen,
    )
    try:
        if not ready.wait(START_SECONDS):
            raise TimeoutError(f"dolt did not start: {''.join(lines)}")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill_group()
        with contextlib.suppress(sh.ErrorReturnCode):
            server.wait()


def dolt_sql(dolt_path: Path, port: int, database: str, statements: str, *options: str) -> str:
    """Run statements with Dolt's client and return what it prints. Raises sh.ErrorReturnCode if one of them fails."""
    login = ("--host", "127.0.0.1", "--port", str(port), "--user", "root", "--password", "", "--no-tls")
    client: Any = sh.Command(str(dolt_path)).bake(*login, "--use-db", database, "sql", _tty_out=False)
    return str(client(*options, _in=statements))
