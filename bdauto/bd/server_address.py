"""Where the tracker's Dolt server is, and who bd is there.

As bd takes it from its environment variables, `metadata.json`, and its file of credentials. `bd context` would say
some of it, but only inside a git repository.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bdauto.common.errors import BdFailed
from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED
from bdauto.domain.settings import Secret

PROXY = Path("dolt", "proxy.pid")
"""The file in the .beads folder in which bd's proxy says on which port it listens."""


class ServerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A database on a Dolt server. `socket` replaces host and port where it is given."""

    host: str
    port: int
    database: str
    user: str = "root"
    password: Secret = Secret("")
    tls: bool = False
    socket: str = ""

    @property
    def where(self) -> str:
        """Return the server in words."""
        return self.socket or f"{self.host}:{self.port}"


def database_name(metadata: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return the database's name, which is safe in SQL and in a path. Raises BdFailed if it is not."""
    name = environment.get("BEADS_DOLT_SERVER_DATABASE") or metadata.get("dolt_database") or "beads"
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise BdFailed(f"metadata.json: {clean(str(name), 60)!r} is not the name of a database")
    return name


def server_address(folder: Path, metadata: Mapping[str, Any], environment: Mapping[str, str]) -> ServerAddress:
    """Return the address of the server of a .beads folder. Raises BdFailed if something is missing."""
    database = database_name(metadata, environment)
    if metadata.get("dolt_mode") == "proxied-server":
        return ServerAddress(host="127.0.0.1", port=_proxy_port(folder), database=database)

    def setting(variable: str, key: str, default: str = "") -> str:
        return environment.get(f"BEADS_DOLT_{variable}") or str(metadata.get(key) or default)

    host = setting("SERVER_HOST", "dolt_server_host", "127.0.0.1")
    port = _port(folder, metadata, environment)
    return ServerAddress(
        host=host,
        port=port,
        database=database,
        user=setting("SERVER_USER", "dolt_server_user", "root"),
        password=Secret(environment.get("BEADS_DOLT_PASSWORD") or _from_file(host, port, environment)),
        tls=setting("SERVER_TLS", "dolt_server_tls").lower() in ("1", "true"),
        socket=setting("SERVER_SOCKET", "dolt_server_socket"),
    )


def read_object(file: Path) -> Mapping[str, Any]:
    """Return the JSON object in a file, an empty one if there is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, *MALFORMED):
        return {}


def _port(folder: Path, metadata: Mapping[str, Any], environment: Mapping[str, str]) -> int:
    """Return the port from the variables, the file of a bd that runs its own server, or metadata.json."""
    started = ""
    with contextlib.suppress(OSError, ValueError):
        started = (folder / "dolt-server.port").read_text().strip()
    named = environment.get("BEADS_DOLT_SERVER_PORT") or environment.get("BEADS_DOLT_PORT") or started
    port = int(named) if re.fullmatch(r"[0-9]{1,5}", named) else metadata.get("dolt_server_port")
    return _checked(port, folder / "metadata.json")


def _proxy_port(folder: Path) -> int:
    file = folder / PROXY
    return _checked(read_object(file).get("port"), file)


def _checked(port: object, file: Path) -> int:
    if not isinstance(port, int) or not 0 < port < 65_536:
        raise BdFailed(f"{file} names no port of the SQL server")
    return port


def _from_file(host: str, port: int, environment: Mapping[str, str]) -> str:
    """Return the password of a server from bd's file of credentials, "" if it has none."""
    named = environment.get("BEADS_CREDENTIALS_FILE")
    file = Path(named) if named else Path(environment.get("HOME", os.sep), ".config", "beads", "credentials")
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError):
        return ""
    section = ""
    for line in (line.partition("#")[0].strip() for line in lines):
        key, equals, value = line.partition("=")
        if line.startswith("[") and line.endswith("]"):
            section = line
        elif section == f"[{host}:{port}]" and equals and key.strip() == "password":
            return value.strip()
    return ""
