"""The SQL server as bd takes it: from its own word, metadata.json, its variables and its file of credentials."""

from pathlib import Path
from typing import Any

import pytest

from bdauto.bd.server_address import ServerAddress, server_address
from bdauto.common.errors import BdFailed
from bdauto.domain.settings import Secret


def address(folder: Path, environment: dict[str, str] | None = None, **metadata: Any) -> ServerAddress:
    """The address of a server that metadata.json names."""
    usual = {
        "dolt_mode": "server",
        "dolt_database": "work-1",
        "dolt_server_host": "db.example",
        "dolt_server_port": 3307,
    }
    return server_address(folder, usual | metadata, environment or {"HOME": str(folder)})


def test_by_default_it_is_root_without_a_password_and_without_tls(tmp_path: Path) -> None:
    found = address(tmp_path)
    assert (found.where, found.database, found.user) == ("db.example:3307", "work-1", "root")
    assert (found.password, found.tls, found.socket) == (Secret(""), False, "")


def test_metadata_names_user_and_tls(tmp_path: Path) -> None:
    found = address(tmp_path, dolt_server_user="ann", dolt_server_tls=True, dolt_server_socket="/run/dolt.sock")
    assert (found.user, found.tls, found.where) == ("ann", True, "/run/dolt.sock")


def test_variables_come_before_metadata(tmp_path: Path) -> None:
    variables = {
        "BEADS_DOLT_SERVER_USER": "bob",
        "BEADS_DOLT_SERVER_TLS": "0",
        "BEADS_DOLT_SERVER_SOCKET": "/tmp/x.sock",
        "BEADS_DOLT_PASSWORD": "hunter2",
    }
    found = address(tmp_path, variables, dolt_server_user="ann", dolt_server_tls=True)
    assert (found.user, found.tls, found.socket) == ("bob", False, "/tmp/x.sock")
    assert found.password.value == "hunter2"
    assert "hunter2" not in repr(found)


CREDENTIALS = """
# of all servers
[other.example:3307]
password=wrong
[db.example:3307]
user = nobody
password = hunter2  # of the team
[db.example:3308]
password=wrong
"""


@pytest.mark.parametrize("variable", [True, False])
def test_the_file_of_credentials_has_a_password_for_each_server(tmp_path: Path, variable: bool) -> None:
    file = tmp_path / ("mine" if variable else ".config/beads/credentials")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(CREDENTIALS)
    variables = {"HOME": str(tmp_path)} | ({"BEADS_CREDENTIALS_FILE": str(file)} if variable else {})
    assert address(tmp_path, variables).password.value == "hunter2"
    assert address(tmp_path, variables, dolt_server_port=3309).password.value == ""


def test_a_file_of_credentials_that_is_binary_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"\xff\xfe\x00")
    variables = {"BEADS_CREDENTIALS_FILE": str(tmp_path / "mine")}
    assert address(tmp_path, variables).password.value == ""


def test_bds_proxy_says_its_port_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "dolt").mkdir()
    (tmp_path / "dolt" / "proxy.pid").write_text('{"pid": 7, "port": 40123}')
    found = address(tmp_path, {"BEADS_DOLT_PASSWORD": "of another server"}, dolt_mode="proxied-server")
    assert (found.where, found.user, found.password.value) == ("127.0.0.1:40123", "root", "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"port": "7"}', '{"port": 0}', '{"port": 70000}'])
def test_a_proxy_that_does_not_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "dolt").mkdir()
    (tmp_path / "dolt" / "proxy.pid").write_text(text)
    with pytest.raises(BdFailed, match=r"proxy\.pid names no port"):
        address(tmp_path, dolt_mode="proxied-server")


def test_the_port_is_of_the_variable_or_of_the_server_that_bd_started_or_of_metadata(tmp_path: Path) -> None:
    assert address(tmp_path).port == 3307
    (tmp_path / "dolt-server.port").write_text("40001\n")
    assert address(tmp_path).port == 40001
    assert address(tmp_path, {"BEADS_DOLT_PORT": "40002"}).port == 40002
    assert address(tmp_path, {"BEADS_DOLT_SERVER_PORT": "40003", "BEADS_DOLT_PORT": "40002"}).port == 40003


@pytest.mark.parametrize(
    "wrong",
    [
        {"dolt_database": "a`; DROP DATABASE b"},
        {"dolt_database": "../x"},
        {"dolt_database": 7},
        {"dolt_server_port": 0},
    ],
)
def test_what_nothing_says_is_not_guessed(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(BdFailed, match="metadata"):
        address(tmp_path, **wrong)
