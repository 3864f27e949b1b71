"""The command line: one line and one exit status for each end that a command can have."""

import logging
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto import __version__
from bdauto.cli import app
from bdauto.common import errors
from bdauto.common.errors import BdautoError, PartlyDone
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.reaper import Reaper
from bdauto.domain.outcome import Outcome, Report

DISPATCH = ("dispatch", "--beadboard-url", "http://board.test")


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the process's logger and signals as they were, and hide its variables."""
    for name in ("BEADBOARD_URL", "BEADS_ACTOR", "API_BEARER_TOKEN", "BDAUTO_MAX", "BDAUTO_BD", "BDAUTO_DB"):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger("bdauto")
    state, handler = (logger.handlers[:], logger.propagate, logger.level), signal.getsignal(signal.SIGTERM)
    yield
    logger.handlers[:], logger.propagate, logger.level = state
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return what runs a command line and returns its exit status."""

    def run(*argv: str) -> int:
        monkeypatch.setattr("sys.argv", ["bdauto", *argv])
        return app.run()

    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let cycles and sweeps do nothing; the dispatchers and reapers that were run are in the list."""
    runs: list[Any] = []

    def note(runner: Any) -> Report:
        runs.append(runner)
        return Report(type(runner).__name__.lower(), Outcome.idle, runner.settings.dry_run)

    monkeypatch.setattr(Dispatcher, "cycle", note)
    monkeypatch.setattr(Reaper, "sweep", note)
    return runs


def leaves(base: type[BdautoError]) -> list[type[BdautoError]]:
    return [leaf for child in base.__subclasses__() for leaf in leaves(child) or [child]]


STATUS = {
    "UsageError": 2,
    "ServiceDown": 4,
    "TokenRefused": 4,
    "ServiceRefusal": 4,
    "AgentsDie": 4,
    "PartlyDone": 5,
    **dict.fromkeys(("BdMissing", "BdUnsupported", "BdTimeout", "BdFailed", "BdMoved", "BdConflict", "BdDrift"), 3),
    "NoSuchBead": 3,
}


@pytest.mark.parametrize("raised", [True, False], ids=["raised", "reported"])
@pytest.mark.parametrize("name", STATUS)
def test_each_error_is_one_line_on_stderr_and_its_status(
    name: str,
    raised: bool,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error: BdautoError = getattr(errors, name)("bd list: it\nbroke")

    def cycle(self: Dispatcher) -> Report:
        if raised:
            raise error
        return Report("dispatch", Outcome.failed, False, error=error)

    monkeypatch.setattr(Dispatcher, "cycle", cycle)
    assert run(*DISPATCH) == STATUS[name]
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if line.startswith("bdauto: ")] == ["bdauto: bd list: it broke"]
    assert "Traceback" not in captured.err
    assert captured.out == ("" if raised else "dispatch: failed\n")


def test_every_error_class_has_a_documented_status() -> None:
    raised: list[type[BdautoError]] = [*leaves(BdautoError), errors.BdFailed]  # which is raised itself, too
    assert {each.__name__: each.exit_code for each in raised} == STATUS
    assert PartlyDone.exit_code == 5


def test_a_defect_is_a_traceback_with_what_to_report(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cycle(self: Dispatcher) -> Report:
        raise KeyError("nothing")

    monkeypatch.setattr(Dispatcher, "cycle", cycle)
    assert run(*DISPATCH) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "KeyError: 'nothing'" in err
    last = err.splitlines()[-1]
    for word in ("defect in bdauto", __version__, "Python 3.", "report", "bd version"):
        assert word in last


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_is_130_without_a_traceback(
    end: signal.Signals,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Dispatcher, "cycle", lambda self: signal.raise_signal(end))
    assert run(*DISPATCH) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_success_is_0_with_the_result_on_stdout(
    run: Callable[..., int], seen: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*DISPATCH) == 0
    captured = capsys.readouterr()
    assert captured.out == "dispatcher: idle\n"
    first, last = captured.err.splitlines()
    assert f"event=start command=dispatch version={__version__}" in first
    assert "event=end outcome=idle" in last


def test_without_a_command_the_help_is_shown(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "Dispatch ready beads" in capsys.readouterr().out


def test_the_version(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"bdauto {__version__}\n"


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("dispatch",), "--beadboard-url or BEADBOARD_URL"),
    (("dispatch",), "--agent-command or BDAUTO_AGENT_COMMAND"),
    ((*DISPATCH, "--agent-command", "claude -p"), "--agent-command and --beadboard-url exclude each other"),
    ((*DISPATCH, "--agent-check", "make test"), "--agent-check does nothing with BeadBoard"),
    ((*DISPATCH, "--agent-review", "claude"), "--agent-review does nothing with BeadBoard"),
    ((*DISPATCH, "--agent-land", "git push"), "--agent-land does nothing with BeadBoard"),
    ((*DISPATCH, "--agent-silence", "5m"), "--agent-silence does nothing with BeadBoard"),
    (("dispatch", "--agent-command", ""), "--agent-command is empty"),
    (("dispatch", "--agent-command", "claude 'x"), "--agent-command cannot be split into words"),
    (("nonsense",), "nonsense"),
    (("--nonsense",), "(see `bdauto --help`)"),
    ((*DISPATCH, "--nonsense"), "No such option: --nonsense (see `bdauto dispatch --help`)"),
    ((*DISPATCH, "--max"), "(see `bdauto dispatch --help`)"),
    ((*DISPATCH, "--max", "0"), "--max"),
    ((*DISPATCH, "--max", "many"), "--max"),
    ((*DISPATCH, "--max-attempts", "0"), "--max-attempts"),
    ((*DISPATCH, "--timeout", "30"), "write it as 500ms, 90s, 30m, 1h30m or 2d"),
    ((*DISPATCH, "--bd-timeout", "0s"), "write it as 500ms, 90s, 30m, 1h30m or 2d"),
    (("reap", "--threshold", "half an hour"), "write it as 500ms, 90s, 30m, 1h30m or 2d"),
    (("reap", "--grace=-1m"), "write it as 500ms, 90s, 30m, 1h30m or 2d"),
    (("reap", "--on-stall", "kill"), "--on-stall"),
    (("reap", "--max-reap", "-1"), "--max-reap"),
    (("reap", "--db", "/no/such/folder"), "--db"),
    (("reap", "--metadata", "/no/such/file"), "--metadata"),
    (("reap", "--log-format", "xml"), "--log-format"),
    (("reap", "--agent-url", "http://a", "--agent-token-file", "/no/such/file"), "--agent-token-file"),
]


@pytest.mark.parametrize(("argv", "words"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_a_wrong_command_line_is_2_in_one_line(
    argv: tuple[str, ...], words: str, run: Callable[..., int], seen: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    captured = capsys.readouterr()
    [line] = [line for line in captured.err.splitlines() if not line.startswith("time=")]
    assert line.startswith("bdauto: ")
    assert words in line
    assert (captured.out, seen) == ("", [])


def test_a_flag_goes_before_the_environment_and_that_before_the_default(
    run: Callable[..., int], seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*DISPATCH)
    monkeypatch.setenv("BDAUTO_MAX", "4")
    monkeypatch.setenv("BEADS_ACTOR", "me")
    run(*DISPATCH)
    run(*DISPATCH, "--max", "7", "--actor", "you")
    assert [runner.settings.max_beads for runner in seen] == [1, 4, 7]
    assert [runner.bd.settings.actor for runner in seen] == ["beads-dispatcher", "me", "you"]


def database(folder: Path) -> Path:
    """Make a folder look like bd's."""
    (folder / "metadata.json").write_text("{}")
    return folder


def test_dispatch_from_the_environment_alone(
    run: Callable[..., int], seen: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = {
        "BEADBOARD_URL": "http://board.test",
        "BDAUTO_DB": str(database(tmp_path)),
        "BDAUTO_BD": "/opt/bd",
        "BDAUTO_BD_TIMEOUT": "5s",
        "BDAUTO_ASSIGNEE": "bot",
        "BDAUTO_MAX": "3",
        "BDAUTO_MAX_ATTEMPTS": "2",
        "BDAUTO_EXCLUDE_TYPE": "epic,chore",
        "BDAUTO_TRUSTED_CREATOR": "ann,bob",
        "BDAUTO_LABEL": "a",
        "BDAUTO_EXCLUDE_LABEL": "x,y",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run("dispatch") == 0
    [runner] = seen
    assert (runner.bd.settings.db, runner.bd.settings.bd_path, runner.bd.assignee) == (
        tmp_path,
        "/opt/bd",
        "bot",
    )
    assert runner.bd.settings.bd_timeout == timedelta(seconds=5)
    assert (runner.settings.max_beads, runner.settings.max_attempts) == (3, 2)
    assert (runner.settings.exclude_types, runner.settings.trusted_creators) == (("epic", "chore"), ("ann", "bob"))
    assert (runner.settings.labels, runner.settings.exclude_labels) == (("a",), ("x", "y"))


def test_reap_from_the_environment_alone(
    run: Callable[..., int], seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "BDAUTO_THRESHOLD": "1h",
        "BDAUTO_GRACE": "5m",
        "BDAUTO_ON_STALL": "requeue",
        "BDAUTO_MAX_ATTEMPTS": "5",
        "BDAUTO_MAX_REAP": "3",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run("reap") == 0
    settings = seen[0].settings
    assert (settings.threshold, settings.grace) == (timedelta(hours=1), timedelta(minutes=5))
    assert (settings.on_stall, settings.max_attempts, settings.max_reap) == ("requeue", 5, 3)
    assert seen[0].bd.settings.actor == "beads-reaper"


def test_a_dry_run_reads_readonly_and_has_a_writer_that_does_not_write(
    run: Callable[..., int], seen: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(*DISPATCH, "-n")
    run("reap", "--dry-run", "--ignore-pause", "--max-reap", "0")
    assert [type(runner.writer._writer).__name__ for runner in seen] == ["DryWriter", "DryWriter"]
    assert ["--readonly" in runner.bd._prefix for runner in seen] == [True, True]
    assert (seen[1].settings.ignore_pause, seen[1].settings.max_reap) == (True, 0)
    assert "dry run: nothing was written" in capsys.readouterr().out


def test_secrets_are_in_no_line_of_the_log(
    run: Callable[..., int], seen: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_BEARER_TOKEN", "s3cret")
    run("dispatch", "--beadboard-url", "http://me:s3cret@board.test", "--agent-url", "http://a.test?k=s3cret", "-v")
    captured = capsys.readouterr()
    assert "agent_token=***" in captured.err
    assert "s3cret" not in captured.err + captured.out


def test_the_result_as_json_is_all_that_is_on_stdout(
    run: Callable[..., int], seen: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run("reap", "--json", "--log-format", "json")
    captured = capsys.readouterr()
    assert captured.out.startswith('{"schema_version": 1,')
    assert len(captured.out.splitlines()) == 1
    assert all(line.startswith("{") for line in captured.err.splitlines())
