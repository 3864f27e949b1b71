"""bd: each verb's command line, the environment it gets, what its failures mean, and a bd that drifts."""

import errno
import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytest_subprocess import FakeProcess

from bdauto.bd import command, process
from bdauto.bd.bead_lists import checked_id
from bdauto.bd.client import Bd
from bdauto.bd.folder import private_db
from bdauto.bd.running import RunningCommand
from bdauto.bd.versions import check_version
from bdauto.cli.validation import check_bd
from bdauto.common.errors import BdConflict, BdDrift, BdError, BdFailed, BdMissing, BdTimeout, BdUnsupported, UsageError
from bdauto.domain.bead import BeadList
from bdauto.domain.settings import BdSettings
from tests.support.fakes import row

BEAD = msgspec.json.encode([row("x-1")]).decode()
PLAIN = ["bd", "--actor", "beads-dispatcher", "--json"]


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Record what would be killed: a fake process has no group of its own."""
    groups: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda group, sign: groups.append((group, sign)))
    return groups


def bd(**settings: Any) -> Bd:
    return Bd(BdSettings(**settings))


def answers(fp: FakeProcess, stdout: str | bytes = "", *, stderr: str = "", code: int = 0) -> None:
    fp.register([fp.any()], stdout=stdout, stderr=stderr, returncode=code)


VERBS: list[tuple[str, Callable[[Bd], object], str, list[str]]] = [
    ("ready", lambda bd: bd.ready(limit=20).result(), "[]", ["ready", "--assignee", "agent", "--limit", "20"]),
    (
        "ready of one priority",
        lambda bd: bd.ready(limit=0, priority=0, oldest=True).result(),
        "[]",
        ["ready", "--assignee", "agent", "--limit", "0", "--priority", "0", "--sort", "oldest"],
    ),
    (
        "list",
        lambda bd: bd.in_progress().result(),
        "[]",
        ["list", "--assignee", "agent", "--status", "in_progress", "--limit", "0"],
    ),
    ("query", lambda bd: bd.query("status=open", limit=0).result(), "[]", ["query", "status=open", "--limit", "0"]),
    (
        "read",
        lambda bd: bd.read(["x-1", "x-2.1"]).result(),
        BEAD,
        [
            *("list", "--id", "x-1,x-2.1", "--all"),
            *("--include-gates", "--include-infra", "--include-templates", "--limit", "0"),
        ],
    ),
    ("update", lambda bd: bd.update("x-1", ["--status", "open"]), BEAD, ["update", "x-1", "--status", "open"]),
    ("sql", lambda bd: bd.sql("UPDATE x"), '{"rows_affected": 1}', ["sql", "UPDATE x"]),
    ("sql without a count", lambda bd: bd.sql("A; B"), '{"status": "ok"}', ["sql", "A; B"]),
    ("kv list", lambda bd: bd.kv_list().result(), "{}", ["kv", "list"]),
    ("kv set", lambda bd: bd.kv_set("k", "v"), "{}", ["kv", "set", "k", "v"]),
    ("kv clear", lambda bd: bd.kv_set("k", None), "{}", ["kv", "clear", "k"]),
    ("dolt commit", lambda bd: bd.commit("m"), "Committed.", ["dolt", "commit", "-m", "m"]),
    ("version", lambda bd: bd.version().result(), '{"version": "1.0.3"}', ["version"]),
    ("where", lambda bd: bd.where(), '{"path": "/b"}', ["where"]),
]


@pytest.mark.parametrize(("call", "answer", "argv"), [v[1:] for v in VERBS], ids=[v[0] for v in VERBS])
def test_each_verb_is_one_command(fp: FakeProcess, call: Callable[[Bd], object], answer: str, argv: list[str]) -> None:
    fp.register([*PLAIN, *argv], stdout=answer)
    call(bd())
    assert len(fp.calls) == 1


def test_the_database_the_actor_and_the_assignee_are_the_settings(fp: FakeProcess, tmp_path: Path) -> None:
    answers(fp, "[]")
    (tmp_path / "metadata.json").touch()
    settings = BdSettings(bd_path="/opt/bd", db=tmp_path, actor="me", assignee="bot")
    Bd(settings, readonly=True).in_progress().result()
    [argv] = fp.calls
    assert list(argv)[:7] == ["/opt/bd", "--db", str(tmp_path), "--actor", "me", "--json", "--readonly"]
    assert list(argv)[7:10] == ["list", "--assignee", "bot"]


def test_a_folder_that_is_gone_is_an_error_and_no_empty_database(fp: FakeProcess, tmp_path: Path) -> None:
    answers(fp, "[]")
    with pytest.raises(BdFailed, match=r"no metadata\.json"):
        bd(db=tmp_path / ".beads").ready(limit=20)
    assert not fp.calls


def test_bd_gets_no_secret(fp: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_BEARER_TOKEN", "BDAUTO_NOTIFY_URL", "BDAUTO_PUSHGATEWAY"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("BEADS_DOLT_PASSWORD", "bd's own")
    monkeypatch.delenv("BD_EXPORT_AUTO", raising=False)
    started: list[Mapping[str, str]] = []

    def start(argv: Sequence[str], environment: Mapping[str, str]) -> process.Process:
        started.append(environment)
        return process.Process(argv, environment)

    monkeypatch.setattr(process, "start", start)
    fp.keep_last_process(True)
    answers(fp, "[]")
    bd().in_progress().result()
    Bd(BdSettings(), private=True).in_progress().result()
    assert all("s3cret" not in environment.values() for environment in started)
    assert started[0]["BEADS_DOLT_PASSWORD"] == "bd's own"
    assert [environment.get("BD_EXPORT_AUTO") for environment in started] == [None, "false"]


def test_bd_collects_no_garbage_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOGC", raising=False)
    monkeypatch.setenv("GOMEMLIMIT", "64MiB")
    assert {key: command.environment()[key] for key in ("GOGC", "GOMEMLIMIT")} == {"GOGC": "off", "GOMEMLIMIT": "64MiB"}


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_INDEX_FILE", "GIT_CONFIG_VALUE_0", "BD_GIT_HOOK", "NOTIFY_SOCKET"])
def test_bd_does_not_get_what_a_hook_or_a_service_was_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert name not in command.environment()


@pytest.mark.parametrize(("own", "given"), [(None, "false"), ("true", "true")])
def test_bd_leaves_the_index_alone_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, own: str | None, given: str
) -> None:
    monkeypatch.delenv("BD_EXPORT_GIT_ADD", raising=False)
    if own:
        monkeypatch.setenv("BD_EXPORT_GIT_ADD", own)
    assert command.environment()["BD_EXPORT_GIT_ADD"] == given


def hanging(fp: FakeProcess, patch: pytest.MonkeyPatch, error: BaseException, bd: Bd) -> RunningCommand[BeadList]:
    """Return a call of a bd that still runs, the wait for which ends in an error."""
    answers(fp, "[]")
    call = bd.in_progress()

    def wait(*_: object, **__: object) -> None:
        raise error

    patch.setattr(call._process, "wait", wait)
    patch.setattr(call._process.child, "poll", lambda: None)
    return call


def test_a_bd_that_hangs_is_killed_with_its_group(
    fp: FakeProcess, killed: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = process.TimeoutExpired("bd", 1)
    call = hanging(fp, monkeypatch, late, bd(bd_timeout=timedelta(milliseconds=1)))
    with pytest.raises(BdTimeout, match=r"bd list did not answer within 1ms and was killed; .*--bd-timeout"):
        call.result()
    assert killed == [(call._process.child.pid, signal.SIGKILL)]


def test_the_end_of_each_call_is_told_answered_or_not(fp: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a sign of life of `bdauto run`."""
    called, ended = bd(), list[int]()
    called.call_ended = lambda: ended.append(1)
    answers(fp, "[]")
    called.in_progress().result()
    answers(fp, "", code=1)
    with pytest.raises(BdFailed):
        called.in_progress().result()
    waiting = hanging(fp, monkeypatch, process.TimeoutExpired("bd", 1), called)
    with pytest.raises(BdTimeout):
        waiting.result()
    assert len(ended) == 3


def test_an_interrupted_wait_kills_bd(
    fp: FakeProcess, killed: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = hanging(fp, monkeypatch, KeyboardInterrupt(), bd())
    with pytest.raises(KeyboardInterrupt):
        call.result()
    assert len(killed) == 1


IMPORTS = "auto-importing 4711 bytes from /b/.beads/issues.jsonl into empty database...\n"


@pytest.mark.parametrize(
    "write", [lambda bd: bd.sql("U"), lambda bd: bd.update("x-1", []), lambda bd: bd.kv_set("k", None)]
)
def test_a_bd_that_undoes_others_changes_writes_no_more(fp: FakeProcess, write: Callable[[Bd], object]) -> None:
    answers(fp, BEAD, stderr=IMPORTS)
    one = bd()
    one.in_progress().result()
    with pytest.raises(BdUnsupported, match=r"imported issues.jsonl .* install bd 1.0.5"):
        write(one)
    assert len(fp.calls) == 1


def test_a_write_that_undid_others_changes_is_an_error(fp: FakeProcess) -> None:
    answers(fp, '{"rows_affected": 1}', stderr=IMPORTS)
    with pytest.raises(BdUnsupported):
        bd().sql("U")


def test_warnings_on_stderr_are_not_the_answer(fp: FakeProcess) -> None:
    answers(fp, BEAD, stderr='warning: {"error": "folder is 0755"}')
    assert [bead.id for bead in bd().in_progress().result().beads] == ["x-1"]


FAILURES: list[tuple[str, dict[str, Any], type[BdError], str]] = [
    (
        "on stdout",
        {"stdout": '{"error": "no such table"}', "code": 1},
        BdFailed,
        "bd list failed (exit 1): no such table",
    ),
    ("on stderr", {"stderr": '{"error": "locked"}', "code": 1}, BdFailed, "bd list failed (exit 1): locked"),
    (
        "after a warning",
        {"stderr": 'Warning: permissions\n{\n  "error": "locked",\n  "schema_version": 1\n}\n', "code": 1},
        BdFailed,
        "bd list failed (exit 1): locked",
    ),
    (
        "as plain text",
        {"stderr": "Error: cannot\n  connect", "code": 1},
        BdFailed,
        "failed (exit 1): Error: cannot connect",
    ),
    ("as text on stdout", {"stdout": "usage: bd", "code": 2}, BdFailed, "failed (exit 2): usage: bd"),
    ("in silence", {"code": 1}, BdFailed, "failed (exit 1) with no output"),
    ("by a signal", {"code": -9}, BdFailed, "bd list was killed by signal 9"),
    (
        "as a conflict",
        {"stdout": '{"error": "Error 1213 (40001): serialization failure: try restarting transaction"}', "code": 1},
        BdConflict,
        "serialization failure",
    ),
    (
        "as a conflict in plain text",
        {"stderr": "Error 1213 (40001): serialization failure: try restarting transaction", "code": 1},
        BdConflict,
        "serialization failure",
    ),
    ("with escapes", {"stderr": "\x1b[31mred\x07\u202e \xff", "code": 1}, BdFailed, "[31mred ÿ"),
    ("at length", {"stderr": "x" * 100_000, "code": 1}, BdFailed, "xxx…"),
    ("in a broken object", {"stdout": '{"error": 5}', "code": 1}, BdFailed, '{"error": 5}'),
]


@pytest.mark.parametrize(("how", "error", "words"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_failure_is_one_bounded_line(fp: FakeProcess, how: dict[str, Any], error: type[BdError], words: str) -> None:
    answers(fp, **how)
    with pytest.raises(error) as caught:
        bd().in_progress().result()
    assert type(caught.value) is error
    text = str(caught.value)
    assert words in text
    assert text.isprintable()
    assert len(text) < 400


DRIFT: list[tuple[str, Callable[[Bd], object], str, str]] = [
    ("nothing", lambda bd: bd.in_progress().result(), "", "bd list: "),
    ("garbage", lambda bd: bd.in_progress().result(), "Segmentation fault", "bd list: JSON is malformed"),
    ("half an answer", lambda bd: bd.in_progress().result(), BEAD[: len(BEAD) // 2], "bd list: "),
    ("another shape", lambda bd: bd.in_progress().result(), '{"issues": []}', "expected a JSON list of issues"),
    ("a list of text", lambda bd: bd.in_progress().result(), '["x-1"]', "entry 0: Expected `object`"),
    (
        "another type",
        lambda bd: bd.in_progress().result(),
        BEAD.replace('"priority":2', '"priority":"high"'),
        "$.priority",
    ),
    ("a field that is gone", lambda bd: bd.in_progress().result(), BEAD.replace('"status"', '"state"'), "`status`"),
    ("two updated issues", lambda bd: bd.update("x-1", []), f"[{BEAD[1:-1]},{BEAD[1:-1]}]", "expected the one updated"),
    ("no updated issue", lambda bd: bd.update("x-1", []), "[]", "expected the one updated issue, got 0"),
    ("neither rows nor status", lambda bd: bd.sql("U"), "{}", "neither `rows_affected` nor `status`"),
    ("a status that is not ok", lambda bd: bd.sql("U"), '{"status": "queued"}', "neither `rows_affected` nor `status`"),
    ("a list for an object", lambda bd: bd.where(), "[]", "bd where: Expected `object`"),
    ("no version", lambda bd: bd.version().result(), '{"build": 5}', "bd version: no text `version`"),
    ("a version as number", lambda bd: bd.version().result(), '{"version": 1.3}', "bd version: no text `version`"),
]


@pytest.mark.parametrize(("call", "answer", "words"), [d[1:] for d in DRIFT], ids=[d[0] for d in DRIFT])
def test_a_bd_that_drifts_is_refused_by_name(
    fp: FakeProcess, call: Callable[[Bd], object], answer: str, words: str
) -> None:
    answers(fp, answer)
    with pytest.raises(BdDrift) as caught:
        call(bd())
    assert words in str(caught.value)
    assert "bd" in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), PermissionError(13, "Permission denied")])
def test_a_bd_that_is_not_there_says_how_to_name_it(
    fp: FakeProcess, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(process, "start", refuse)
    with pytest.raises(BdMissing, match=r"cannot run '/no/bd': .*--bd or BDAUTO_BD"):
        bd(bd_path="/no/bd").in_progress()


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EMFILE, "open files"),
        (errno.ENFILE, "open files"),
        (errno.EAGAIN, "limit of processes"),
        (errno.ENOMEM, "memory"),
        (errno.ENOSPC, "TMPDIR"),
        (errno.EPERM, "security profile"),
    ],
)
def test_a_host_that_starts_no_process_is_not_called_a_missing_bd(
    number: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(process, "start", refuse)
    with pytest.raises(BdFailed, match=r"no process can be started: .*") as caught:
        bd().in_progress()
    assert os.strerror(number) in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "install" not in (caught.value.hint or "")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux only")
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_refused_memory_file_is_replaced_by_a_file(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's profile may refuse memfd_create."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with process._unnamed_file() as file:
        file.write(b"answer")
        file.seek(0)
        assert file.read() == b"answer"


def test_a_command_line_that_is_too_long_is_a_failure_of_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(7, "Argument list too long")

    monkeypatch.setattr(process, "start", refuse)
    with pytest.raises(BdFailed, match="too long"):
        bd().sql("UPDATE")


@pytest.mark.parametrize("bead_id", ["--help", "-s", "", "a b", "x;rm", "x\n", "../x", "é", "x" * 256])
def test_what_is_no_id_reaches_no_command_line(fp: FakeProcess, bead_id: str) -> None:
    for call in (lambda: bd().read([bead_id]), lambda: bd().update(bead_id, [])):
        with pytest.raises(UsageError, match="not a bead id"):
            call()
    assert list(fp.calls) == []


@pytest.mark.parametrize("bead_id", ["x-1", "code-abc.12", "A_b-9", "x" * 255])
def test_ids_of_bd_are_ids(bead_id: str) -> None:
    assert checked_id(bead_id) == bead_id


VERSIONS: list[tuple[str, bool, type[BdError] | None]] = [
    ("0.60.0", False, BdUnsupported),
    ("1.0.1", False, BdUnsupported),
    ("1.0.1", True, BdUnsupported),
    ("1.0.2", True, None),
    ("1.0.3", True, None),
    ("1.0.4", True, BdUnsupported),
    ("1.0.4", False, None),
    ("1.0.5", True, None),
    ("1.3.0-rc1 (abc)", True, None),
    ("1.10.0", True, None),
    ("2.0.0", True, None),
    ("dev", False, BdDrift),
    ("", False, BdDrift),
    ("v1", False, BdDrift),
]


@pytest.mark.parametrize(("version", "server", "error"), VERSIONS)
def test_which_bd_may_write(version: str, server: bool, error: type[BdError] | None) -> None:
    if error is None:
        check_version(version, lambda: server)
        return
    with pytest.raises(error):
        check_version(version, lambda: server)


def test_the_mode_is_asked_only_where_it_matters() -> None:
    def ask() -> bool:
        raise AssertionError

    check_version("1.0.3", ask)


def test_a_private_copy_of_the_metadata_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    source = tmp_path / "metadata.json"
    source.write_text('{"database": "dolt"}')
    with private_db(source) as db:
        copy = db / "metadata.json"
        assert json.loads(copy.read_text()) == {"database": "dolt"}
        assert [path.stat().st_mode & 0o777 for path in (copy, db, db.parent)] == [0o600, 0o700, 0o700]
    assert not db.parent.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.json"]


def test_a_private_copy_is_removed_after_a_failure_too(tmp_path: Path) -> None:
    source = tmp_path / "metadata.json"
    source.write_text("{}")
    with pytest.raises(KeyboardInterrupt), private_db(source) as db:
        raise KeyboardInterrupt
    assert not db.parent.exists()


@pytest.mark.parametrize("gone", ["metadata.json", "", "..", "../.."])
def test_a_private_copy_that_a_cleaner_removes_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp: FakeProcess, gone: str
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    source = tmp_path / "metadata.json"
    source.write_text('{"database": "dolt"}')
    with private_db(source) as db:
        one = Bd(BdSettings(db=db), private=True)
        place = Path(os.path.normpath(db / gone))
        place.unlink() if place.is_file() else shutil.rmtree(place)
        answers(fp, "[]")
        one.ready(limit=1).result()
        assert [path.name for path in db.iterdir()] == ["metadata.json"]
        assert (db / "metadata.json").read_bytes() == source.read_bytes()
        assert [path.stat().st_mode & 0o777 for path in (db / "metadata.json", db, db.parent)] == [0o600, 0o700, 0o700]
    assert not db.parent.exists()


@pytest.mark.parametrize("taken", ["link", "open"])
def test_a_private_copy_is_not_made_where_somebody_else_may_write(tmp_path: Path, fp: FakeProcess, taken: str) -> None:
    """Whoever makes a folder of this name in /tmp would else say which database is used."""
    source = tmp_path / "metadata.json"
    source.write_text('{"database": "dolt"}')
    with private_db(source) as db:
        one = Bd(BdSettings(db=db), private=True)
        shutil.rmtree(db.parent)
        if taken == "link":
            (tmp_path / "mine" / ".beads").mkdir(parents=True)
            db.parent.symlink_to(tmp_path / "mine")
        else:
            db.parent.mkdir()
            db.parent.chmod(0o777)
        with pytest.raises(BdFailed, match="private copy of --metadata"):
            one.ready(limit=1)
        assert not fp.calls
        db.parent.unlink() if taken == "link" else None


def test_without_a_folder_for_the_copy_it_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose file system is read-only."""
    source = tmp_path / "metadata.json"
    source.write_text("{}")

    def refuse(**_: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UsageError, match=r"cannot be copied: .*TMPDIR"), private_db(source):
        pass


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b'{"a": "\xff"}'])
def test_a_metadata_file_that_is_none_is_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "metadata.json"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UsageError, match="--metadata"), private_db(source):
        pass


@pytest.mark.parametrize("mode", ["embedded", "proxied-server"])
def test_a_metadata_file_whose_database_is_beside_it_is_a_usage_error(tmp_path: Path, mode: str) -> None:
    """bd would silently make an empty database beside the copy, and the dispatcher would idle for ever."""
    source = tmp_path / "metadata.json"
    source.write_text(json.dumps({"dolt_mode": mode}))
    with pytest.raises(UsageError, match=r"is in the folder of this file, .*; name the .beads folder with --db"):
        private_db(source).__enter__()


@pytest.mark.parametrize("mark", ["config.yaml", "embeddeddolt", "dolt", "beads.db"])
def test_a_beads_folder_without_metadata_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, fp: FakeProcess
) -> None:
    """bd would make an empty database there, which looks idle."""
    (tmp_path / ".beads").mkdir()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("BEADS_DIR", raising=False)
    assert check_bd(BdSettings()) == BdSettings()  # bd looks further up
    (tmp_path / ".beads" / mark).touch()
    with pytest.raises(UsageError, match=r"no metadata\.json in it.*--db"):
        check_bd(BdSettings())
    with pytest.raises(BdFailed, match=r"no metadata\.json in it any more"):
        bd().ready(limit=1)
    assert not fp.calls
    (tmp_path / ".beads" / "redirect").touch()
    assert check_bd(BdSettings()) == BdSettings()
    (tmp_path / ".beads" / "redirect").unlink()
    (tmp_path / ".beads" / "metadata.json").touch()
    assert check_bd(BdSettings()) == BdSettings()


def test_the_folder_of_beads_dir_without_metadata_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").touch()
    monkeypatch.setenv("BEADS_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"no metadata\.json in it"):
        check_bd(BdSettings())


def test_a_folder_above_the_repository_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a linked worktree bd takes the tracker of the main checkout."""
    (tmp_path / ".beads").mkdir()
    (tmp_path / ".beads" / "config.yaml").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ".git").touch()
    monkeypatch.chdir(tmp_path / "tree")
    monkeypatch.delenv("BEADS_DIR", raising=False)
    assert command.unconfigured_folder() == ""


def test_a_bd_that_says_that_it_takes_an_empty_database_is_not_believed(fp: FakeProcess) -> None:
    answers(fp, "[]", stderr='warning: no beads configuration found in /x/.beads; using default database name "beads"')
    with pytest.raises(BdFailed, match="takes an empty database"):
        bd().ready(limit=1).result()


@pytest.mark.parametrize(
    "words",
    [
        "Warning: /x/.beads has permissions 0755 (recommended: 0700). Run: chmod 700 /x/.beads",
        "warning: beads.role not configured (GH#2950).\n  Fix: git config beads.role maintainer",
    ],
)
def test_standing_advice_of_bd_is_no_warning_of_each_tick(
    fp: FakeProcess, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    answers(fp, "[]", stderr=words)
    bd().ready(limit=1).result()
    assert caplog.messages == []


@pytest.mark.parametrize("error", [OSError("none"), ValueError("embedded null byte"), KeyboardInterrupt()])
def test_a_command_that_cannot_be_started_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise error

    output = tempfile.TemporaryFile()  # noqa: SIM115 - it is for the command to close
    monkeypatch.setattr(process, "_unnamed_file", lambda: output)
    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(type(error)):
        process.start(["bd"], {})
    assert output.closed


def test_what_bd_warns_of_is_logged_once(fp: FakeProcess, caplog: pytest.LogCaptureFixture) -> None:
    one = bd()
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        answers(fp, "[]", stderr=f"Warning: no role\nNote: {'x' * 99_999}\npassword=hunter22\n")
        one.ready(limit=1).result()
    said = [record for record in caplog.records if record.message == "bd-said"]
    assert [(record.levelname, len(record.fields["detail"]) < 20_000) for record in said] == [  # type: ignore[attr-defined]
        ("WARNING", True),
        ("DEBUG", True),
    ]
    assert "hunter" not in str([record.fields for record in said])  # type: ignore[attr-defined]
