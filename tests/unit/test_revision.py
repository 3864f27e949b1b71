"""The tracker's revision: an embedded database's files, and the answers of an SQL server."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from bdauto.bd.client import Bd
from bdauto.bd.revision import ASK_EVERY, EmbeddedRevision, ServerRevision, open_revision
from bdauto.common.errors import BdDrift, BdFailed
from bdauto.domain.settings import BdSettings


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .beads folder of a database on a server."""
    monkeypatch.setenv("BEADS_DOLT_PASSWORD", "hunter2")
    name(tmp_path)
    return tmp_path


def name(folder: Path, **more: Any) -> None:
    """Let metadata.json name a database on a server, at another moment than before."""
    file = folder / "metadata.json"
    before = file.stat().st_mtime_ns if file.exists() else 0
    usual = {"dolt_mode": "server", "dolt_database": "work", "dolt_server_host": "db.example", "dolt_server_port": 3307}
    file.write_text(json.dumps(usual | more))
    os.utime(file, ns=(before + 1, before + 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The .beads folder of an embedded database."""
    noms = tmp_path / "embeddeddolt" / "work" / ".dolt" / "noms"
    noms.mkdir(parents=True)
    (noms / "manifest").write_text("5:a:b")
    (noms / ("v" * 32)).write_text("journal")
    return tmp_path


def journal(folder: Path) -> Path:
    return folder / "embeddeddolt" / "work" / ".dolt" / "noms" / ("v" * 32)


def grow(folder: Path) -> None:
    with journal(folder).open("a") as file:
        file.write("a change")


def touch(folder: Path) -> None:
    (folder / "last-touched").touch()


def collect_garbage(folder: Path) -> None:
    journal(folder).with_name("manifest").write_text("5:c:d")


@pytest.mark.parametrize("change", [grow, touch, collect_garbage])
def test_a_write_changes_the_revision(folder: Path, change: Callable[[Path], None]) -> None:
    revision = EmbeddedRevision(folder / "embeddeddolt" / "work", folder)
    before = revision.read()
    change(folder)
    assert revision.read() != before


def test_a_read_only_moves_the_journals_time(folder: Path) -> None:
    revision = EmbeddedRevision(folder / "embeddeddolt" / "work", folder)
    before = revision.read()
    os.utime(journal(folder), (1, 1))
    assert revision.read() == before


def test_a_database_that_is_gone(folder: Path) -> None:
    revision = EmbeddedRevision(folder / "embeddeddolt" / "work", folder)
    journal(folder).with_name("manifest").unlink()
    with pytest.raises(BdFailed, match="noms"):
        revision.read()


class Server:
    """A Dolt server: `answers` has what it says to each query, or raises. What it is asked is in `asked`."""

    def __init__(self, *answers: Any, refusal: Exception | None = None) -> None:
        self.answers = list(answers)
        self.refusal = refusal
        self.asked: list[str] = []
        self.login: dict[str, Any] = {}
        self.closed = False

    def connect(self, **login: Any) -> "Server":
        self.login = login
        if self.refusal:
            raise self.refusal
        return self

    def cursor(self) -> "Server":
        return self

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, query: str) -> None:
        self.asked.append(query)

    def fetchone(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """What makes the server that will be connected to."""

    def make(*answers: Any, refusal: Exception | None = None) -> Server:
        server = Server(*answers, refusal=refusal)
        monkeypatch.setattr(pymysql, "connect", server.connect)
        return server

    return make


def test_the_hash_of_the_working_set(remote: Path, serve: Callable[..., Server]) -> None:
    server = serve(("h1",), ("h1",), ("h2",))
    revision = ServerRevision(remote, remote / "dolt")
    assert [revision.read(), revision.read()] == ["h1", "h2"]
    assert set(server.asked) == {"SELECT @@`work_working`"}
    assert server.login["init_command"] == "SET SESSION TRANSACTION READ ONLY"
    assert server.login["ssl_disabled"]
    assert server.login["password"] == "hunter2"
    assert "hunter2" not in str(revision) + repr(vars(revision)["_address"])


# A server on this machine


@pytest.fixture
def local(remote: Path) -> Path:
    """The .beads folder of a database whose server bd has started on this machine."""
    noms = remote / "dolt" / "work" / ".dolt" / "noms"
    noms.mkdir(parents=True)
    (noms / "manifest").write_text("5:a:b")
    local_journal(remote).write_text("journal")
    serves(remote, 3307)
    name(remote, dolt_server_host="127.0.0.1")
    return remote


def local_journal(folder: Path) -> Path:
    return folder / "dolt" / "work" / ".dolt" / "noms" / ("v" * 32)


def serves(folder: Path, port: int) -> None:
    """Let the server of the folder say on which port it listens."""
    info = folder / "dolt" / ".dolt" / "sql-server.info"
    info.parent.mkdir(exist_ok=True)
    info.write_text(f"4711:{port}:7c2b3a")


def write(folder: Path) -> None:
    with local_journal(folder).open("a") as file:
        file.write("a change")


def test_a_server_here_is_asked_when_its_files_have_changed(local: Path, serve: Callable[..., Server]) -> None:
    server = serve(("h1",), ("h2",), ("h2",))
    revision = ServerRevision(local, local / "dolt")
    assert [revision.read() for _ in range(9)] == ["h1"] * 9
    assert len(server.asked) == 1
    write(local)
    assert [revision.read() for _ in range(9)] == ["h2"] * 9
    assert len(server.asked) == 2
    assert str(revision) == "the SQL server at 127.0.0.1:3307, and its files here"


def test_a_server_here_is_asked_now_and_then_all_the_same(local: Path, serve: Callable[..., Server]) -> None:
    server = serve(*[("h1",)] * 3)
    revision = ServerRevision(local, local / "dolt")
    for _ in range(2 * ASK_EVERY):
        revision.read()
    assert len(server.asked) == 3


def test_a_server_that_turns_out_to_write_elsewhere_is_asked_each_time(
    local: Path, serve: Callable[..., Server]
) -> None:
    server = serve(("h1",), ("h2",), ("h3",), ("h4",))
    revision = ServerRevision(local, local / "dolt")
    assert [revision.read() for _ in range(ASK_EVERY + 2)][-4:] == ["h1", "h2", "h3", "h4"]
    assert len(server.asked) == 4


def test_a_write_while_the_server_is_asked_does_not_make_its_files_others(
    local: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(("h1",), ("h2",), ("h2",), ("h3",))
    revision = ServerRevision(local, local / "dolt")
    for _ in range(ASK_EVERY - 1):
        revision.read()
    with monkeypatch.context() as patch:
        patch.setattr(server, "execute", lambda _query: write(local))
        assert revision.read() == "h2"
    assert [revision.read(), revision.read()] == ["h2", "h2"]
    assert str(revision).endswith("its files here")


def elsewhere(folder: Path) -> None:
    name(folder, dolt_server_host="db.example")


def on_another_port(folder: Path) -> None:
    serves(folder, 3308)


def unsaid(folder: Path) -> None:
    (folder / "dolt" / ".dolt" / "sql-server.info").unlink()


def garbled(folder: Path) -> None:
    (folder / "dolt" / ".dolt" / "sql-server.info").write_bytes(b"\xff")


def unreadable(folder: Path) -> None:
    local_journal(folder).with_name("manifest").unlink()


@pytest.mark.parametrize("change", [elsewhere, on_another_port, unsaid, garbled, unreadable])
def test_a_server_whose_files_are_not_known_is_asked_each_time(
    local: Path, serve: Callable[..., Server], change: Callable[[Path], None]
) -> None:
    change(local)
    server = serve(*[("h1",)] * 4)
    revision = ServerRevision(local, local / "dolt")
    assert [revision.read() for _ in range(3)] == ["h1"] * 3
    assert len(server.asked) == 4


def test_files_that_go_away_are_no_reason_to_stop(local: Path, serve: Callable[..., Server]) -> None:
    serve(*[("h1",)] * 3)
    revision = ServerRevision(local, local / "dolt")
    unreadable(local)
    assert [revision.read(), revision.read()] == ["h1", "h1"]


# Any server


def test_a_database_that_metadata_names_anew_is_noticed(remote: Path, serve: Callable[..., Server]) -> None:
    serve(("h1",), ("h1",))
    revision = ServerRevision(remote, remote / "dolt")
    name(remote)
    assert revision.read() == "h1", "written anew, with the same words"
    name(remote, dolt_database="other")
    with pytest.raises(BdFailed, match="another server or database"):
        revision.read()


def test_tls_checks_the_servers_certificate(remote: Path, serve: Callable[..., Server]) -> None:
    server = serve(("h1",))
    name(remote, dolt_server_tls=True)
    ServerRevision(remote, remote / "dolt")
    assert server.login["ssl"].check_hostname
    assert "ssl_disabled" not in server.login


@pytest.mark.parametrize(
    "error",
    [
        pymysql.OperationalError(1045, "Access denied for user 'root'"),
        pymysql.OperationalError(2003, "Can't connect to MySQL server"),
        pymysql.err.InternalError("Packet sequence number wrong"),
        RuntimeError("'cryptography' package is required"),
        IndexError("index out of range"),
        OSError(111, "refused"),
    ],
)
def test_a_server_that_lets_nobody_in(remote: Path, serve: Callable[..., Server], error: Exception) -> None:
    serve(refusal=error)
    with pytest.raises(BdFailed, match=r"the SQL server at db\.example:3307: ") as failure:
        ServerRevision(remote, remote / "dolt")
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize(
    "answer", [None, (), (None,), (7,), ("",), pymysql.OperationalError(1105, "Unknown system variable")]
)
def test_a_server_without_that_database(remote: Path, serve: Callable[..., Server], answer: Any) -> None:
    server = serve(answer)
    with pytest.raises(BdFailed, match="the SQL server at"):
        ServerRevision(remote, remote / "dolt")
    assert server.closed


def test_without_the_library_it_says_how_to_install_it(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdauto.bd.revision.missing", lambda extra: extra == "watch")
    with pytest.raises(BdFailed, match="pip install pymysql"):
        ServerRevision(remote, remote / "dolt")


class Workspace(Bd):
    def __init__(self, where: dict[str, Any]) -> None:
        super().__init__(BdSettings())
        self._where = where

    def where(self) -> dict[str, Any]:
        return self._where


def test_bd_says_which_of_them_it_is(folder: Path, serve: Callable[..., Server]) -> None:
    metadata = folder / "metadata.json"
    metadata.write_text('{"dolt_mode": "embedded", "dolt_database": "work"}')
    embedded = {"path": str(folder), "database_path": str(folder / "embeddeddolt")}
    assert isinstance(open_revision(Workspace(embedded)), EmbeddedRevision)
    metadata.write_text('{"dolt_mode": "server", "dolt_database": "work", "dolt_server_port": 3307}')
    serve(("h1",))
    assert isinstance(open_revision(Workspace(embedded | {"database_path": str(folder / "dolt")})), ServerRevision)
    with pytest.raises(BdDrift):
        open_revision(Workspace({"path": str(folder)}))
    metadata.write_text('{"dolt_mode": "embedded", "dolt_database": "other"}')
    with pytest.raises(BdFailed):
        open_revision(Workspace(embedded))
