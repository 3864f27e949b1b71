"""The configuration file: its place, who may change it, its keys, and what goes before it."""

import json
import os
import re
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer.main

from bdauto import __main__ as start
from bdauto.agents.kinds import AgentSettings
from bdauto.bd import process
from bdauto.cli import app, config_file, config_keys
from bdauto.cli.commands.config import template
from bdauto.cli.lane_settings import KINDS, PerLane
from bdauto.cli.options import Offer, Part, with_options
from bdauto.common.errors import UsageError
from bdauto.domain.settings import Secret, StatusSettings, TelemetrySettings
from scripts import options_page


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give the process a home without a file, none of bdauto's variables, and its signals back."""
    for name in ("BDAUTO_CONFIG", "XDG_CONFIG_HOME", "BEADBOARD_URL", "BEADS_ACTOR", "API_BEARER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return what runs a command line and returns its exit status."""

    def run(*argv: str) -> int:
        monkeypatch.setattr("sys.argv", ["bdauto", *argv])
        return app.run()

    return run


@pytest.fixture
def shown(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return what gives the settings that `config show --json` prints with these options."""

    def shown(*argv: str) -> dict[str, Any]:
        assert run("config", "show", "--json", *argv) == 0, capsys.readouterr().err
        settings: dict[str, Any] = json.loads(capsys.readouterr().out)["settings"]
        return settings

    return shown


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Return what writes a file that can be trusted."""

    def written(text: str) -> Path:
        path = tmp_path / "bdauto.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return written


def own(text: str, folder: Path) -> Path:
    """Write the user's own file below a folder for configurations."""
    path = folder / "bdauto" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("key", "text", "file", "variable", "flag"),
    [
        ("max", "2", "2", ("BDAUTO_MAX", "3"), ("--max", "4")),
        ("threshold", '"2m"', "2m", ("BDAUTO_THRESHOLD", "3m"), ("--threshold", "4m")),
        ("on_stall", '"requeue"', "requeue", ("BDAUTO_ON_STALL", "block"), ("--on-stall", "requeue")),
        ("labels", '["a", "b"]', "a,b", ("BDAUTO_LABEL", "c,d"), ("--label", "e")),
        ("max_cost_per_day", "7", "7.0", ("BDAUTO_MAX_COST_PER_DAY", "8"), ("--max-cost-per-day", "9.5")),
        ("agent_worktree", "true", "true", ("BDAUTO_AGENT_WORKTREE", "0"), ("--agent-worktree",)),
        ("beadboard_url", '"http://a"', "http://a", ("BEADBOARD_URL", "http://b"), ("--beadboard-url", "http://c")),
        ("actor", '"Ada L"', "Ada L", ("BEADS_ACTOR", "bob"), ("--actor", "eve")),
        ("bd", '"/opt/bd"', "/opt/bd", ("BDAUTO_BD", "/bin/bd"), ("--bd", "bd2")),
        ("listen", "9464", "127.0.0.1:9464", ("BDAUTO_LISTEN", "1"), ("--listen", "2")),
        ("priorities", "[0, 1]", "0,1", ("BDAUTO_PRIORITY", "2"), ("--priority", "3,4")),
        ("slots", "2", "2", ("BDAUTO_AGENT_SLOTS", "3"), ("--agent-slots", "4")),
        ("exclude_types", "[]", None, ("BDAUTO_EXCLUDE_TYPE", "bug"), ("--exclude-type", "task")),
    ],
)
def test_flag_before_variable_before_file_before_default(
    key: str,
    text: str,
    file: str | None,
    variable: tuple[str, str],
    flag: tuple[str, ...],
    shown: Callable[..., dict[str, Any]],
    written: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = written(f"# {key}\n{key} = {text}\n")
    monkeypatch.setenv("BDAUTO_CONFIG", os.devnull)
    assert shown()[key]["source"] == "default"
    monkeypatch.setenv("BDAUTO_CONFIG", str(path))
    assert shown()[key] == {"value": file, "source": "file", "place": f"{path}:2"}
    monkeypatch.setenv(*variable)
    assert (shown()[key]["source"], shown()[key]["place"]) == ("variable", variable[0])
    assert shown()[key]["value"] != file
    assert (shown(*flag)[key]["source"], shown(*flag)[key]["place"]) == ("flag", flag[0])


def test_the_file_is_named_or_the_users_own(
    shown: Callable[..., dict[str, Any]],
    written: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert shown()["max"]["value"] == "1"
    own("max = 2", tmp_path / "home" / ".config")
    assert shown()["max"]["value"] == "2"
    own("max = 3", tmp_path / "xdg")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert shown()["max"]["value"] == "3"
    monkeypatch.setenv("BDAUTO_CONFIG", str(written("max = 4")))
    assert shown()["max"]["value"] == "4"
    other = tmp_path / "other.toml"
    other.write_text("max = 5")
    other.chmod(0o644)
    assert shown("--config", str(other))["max"]["value"] == "5"
    assert shown("--config", os.devnull)["max"]["value"] == "1"


@pytest.mark.parametrize("folder", [".", "", "sub"])
def test_a_file_in_a_repository_is_never_read_by_itself(
    folder: str, shown: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    own("max = 9", repository / folder)
    (repository / "bdauto.toml").write_text("max = 9")
    (repository / "config.toml").write_text("max = 9")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("XDG_CONFIG_HOME", folder)
    assert shown()["max"]["source"] == "default"


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_is_missing_is_an_error_only_if_named(
    named: bool, run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("config", "show", *(["--config", str(tmp_path / "none")] if named else [])) == (2 if named else 0)
    assert ("none: cannot be read: No such file" in capsys.readouterr().err) is named


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602, 0o777])
def test_a_file_that_others_can_write_is_refused(mode: int, written: Callable[[str], Path]) -> None:
    path = written("max = 2")
    path.chmod(mode)
    with pytest.raises(UsageError, match=rf"others can write it \(mode {mode:04o}\).*chmod go-w"):
        config_file.read(str(path))


@pytest.mark.parametrize(("owner", "good"), [(0, True), (501, True), (502, False)])
def test_a_file_of_another_user_is_refused(
    owner: int, good: bool, written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("max = 2")
    real = os.fstat
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:4], owner, *real(fd)[5:10]]))
    if good:
        assert config_file.read(str(path)).values == {"max": 2}
        return
    with pytest.raises(UsageError, match=r"belongs to another user \(uid 502\)"):
        config_file.read(str(path))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    large = tmp_path / "large"
    large.write_text("#" * 70_000)
    large.chmod(0o600)
    for path, words in ((tmp_path / "pipe", "not a file"), (tmp_path, "directory"), (large, "larger than 64 KiB")):
        with pytest.raises(UsageError, match=words):
            config_file.read(str(path))


WRONG = {
    "max_cost_per_days = 5": (1, "'max_cost_per_days' is no key (did you mean max_cost_per_day?)"),
    "\n\nlables = ['a']": (3, "'lables' is no key (did you mean labels?)"),
    "slot = 4": (1, "(did you mean slots?)"),
    "labels = ['a']\nlabel = ['b']": (2, "label and labels are the same key; write one of them"),
    "priorities = ['0']": (1, "priorities has a value of the wrong type; write it as priorities = [0, 1]"),
    "priorities = [true]": (1, "priorities has a value of the wrong type"),
    "priorities = [5]": (1, "priorities '5' is not a priority from 0 to 4"),
    "fallback = 'a'": (1, "fallback is a key of lanes; write it into a table [lanes.NAME]"),
    "max-per-day = 4": (1, "(did you mean max_per_day?)"),
    "BDAUTO_MAX_REAP = 4": (1, "(did you mean max_reap?)"),
    "xyzzy = 1": (1, "'xyzzy' is no key;"),
    "json = true": (1, "'json' is no key"),
    "max = 1\n[retries]\nmax = 2": (2, "'retries' is no key"),
    "max = 1\n\n[lanes.docs]\nlables = ['docs']": (4, "'lables' is no key (did you mean labels?)"),
    "[lanes.a]\nmodel = 'x'\n[lanes.b]\nmodel = 1": (4, "model has a value of the wrong type"),
    "[lanes.a]\ndispatch_every = '1m'": (2, "dispatch_every is for the whole process; write it above the first table"),
    "[lanes.a]\nnotify_url = ['$X']": (2, "notify_url is for the whole process"),
    "[lanes.a]\nagent_jobs = '/x'": (2, "agent_jobs is for the whole process"),
    "max = 1\nlanes = 3": (2, "lanes is no table; write a table [lanes.NAME] for each lane"),
    "lanes = [1]": (1, "lanes is no table"),
    "[lanes]\ndocs = 'x'": (2, "docs is no lane; write a table [lanes.docs]"),
    "[lanes.Docs]": (1, "'Docs' is no name of a lane; use lowercase letters, digits, - and _"),
    "\n[lanes.'a b']": (2, "'a b' is no name of a lane"),
    "[lanes.'{x=<b>']": (1, "is no name of a lane"),
    "[lanes.'" + "a" * 41 + "']": (1, "is no name of a lane"),
    "[lanes.a]\n\nfallback = 'b'": (3, "'b' is no lane of this file; name one of the others: none"),
    "[lanes.a]\nfallback = 3\n[lanes.b]": (2, "'3' is no lane of this file; name one of the others: b"),
    "[lanes.a]\nfallback = 'a'": (2, "the fallback of a leads back to it: a → a"),
    "[lanes.a]\nfallback = 'b'\n[lanes.b]\nfallback = 'a'": (2, "the fallback of a leads back to it: a → b → a"),
    "[lanes.a.b]\nmax = 1": (1, "'b' is no key"),
    'max = "4"': (1, "max has a value of the wrong type; write it as max = 1"),
    "max = 1.5": (1, "max has a value of the wrong type"),
    "max = true": (1, "max has a value of the wrong type"),
    "max = 0": (1, "max '0' is not a whole number from 1 to 1000000"),
    "max = -1": (1, "max '-1' is not a whole number"),
    "timeout = 30": (1, 'timeout has a value of the wrong type; write it as timeout = "DURATION"'),
    "timeout = '30'": (1, "timeout '30' is not a duration: write it as 500ms, 90s"),
    "timeout = 1979-05-27": (1, "timeout has a value of the wrong type"),
    "agent_worktree = 'yes'": (1, "write it as agent_worktree = true"),
    "label = 'docs'": (1, 'label has a value of the wrong type; write it as label = ["LABEL"]'),
    "label = ['docs', 1]": (1, "label has a value of the wrong type"),
    "label = {a = 1}": (1, "label has a value of the wrong type"),
    "on_stall = 'kill'": (1, "on_stall is one of block, requeue, not 'kill'"),
    "agent = 'cluade'": (1, "agent is one of claude, codex, gemini, opencode"),
    "max_cost_per_day = inf": (1, "max_cost_per_day 'inf' is not an amount of US dollars"),
    "max_cost_per_day = 1e-9": (1, "is not an amount of US dollars"),
    'agent_command = "claude \'x"': (1, "agent_command cannot be split into words"),
    "model = '--yolo'": (1, "model '--yolo' is not the name of a model"),
    "assignee = ''": (1, "assignee is empty"),
    'db = "a\\u0000b"': (1, "db is empty or holds a null character"),
    "db = '~nobody-such/x'": (1, "there is no such home"),
    "listen = 99999": (1, "listen '99999' is not an address"),
    "active_hours = 'night'": (1, "active_hours "),
    "max = 1\nmax = 2": (2, "not TOML: "),
    "max = 1\nagent = claude": (2, "not TOML: "),
    'max = 1\nagent = """': (2, "not TOML: "),
    "max = " + "9" * 5000: (1, "not TOML: "),
    "max = 0x" + "f" * 5000: (1, "not TOML: "),
    "priorities = [0x" + "f" * 5000 + "]": (1, "not TOML: "),
    "[lanes.a]\nfallback = 0x" + "f" * 5000: (2, "not TOML: "),
    "max = " + "[" * 5000: (1, "not TOML: "),
}


@pytest.mark.parametrize(("text", "line", "words"), [(text, *found) for text, found in WRONG.items()])
@pytest.mark.parametrize("command", ["status", "config check"])
def test_a_mistake_is_2_with_its_file_and_line(
    command: str,
    text: str,
    line: int,
    words: str,
    run: Callable[..., int],
    written: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(text)
    assert run(*command.split(), "--config", str(path)) == 2
    [complaint] = capsys.readouterr().err.splitlines()
    assert complaint.startswith(f"bdauto: {path}:{line}: ")
    assert words in complaint
    assert len(complaint) < 500


def test_a_file_that_is_no_utf8_is_refused_with_the_line(written: Callable[[str], Path]) -> None:
    path = written("")
    path.write_bytes(b"max = 1\n# \xff\n")
    with pytest.raises(UsageError, match=r"bdauto.toml:2: not UTF-8"):
        config_file.read(str(path))


def test_all_mistakes_are_listed_by_check(
    run: Callable[..., int], written: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("maxx = 1\nmax = 0\nlabel = 1\n")
    assert run("config", "check", str(path)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"bdauto: {path}:1: 'maxx' is no key (did you mean max?) (and 2 more, on stdout)")
    assert [line.split(" ")[0] for line in captured.out.splitlines()] == [f"{path}:2:", f"{path}:3:"]
    assert run("status", "--config", str(path)) == 2
    assert "(and 2 more: see `bdauto config check`)" in capsys.readouterr().err


CONTRADICTIONS = {
    "max = 1\ndb = '/a'\nmetadata = '/b'": ("--db and --metadata exclude each other", (2, 3)),
    "beadboard_url = 'http://b'\nagent = 'claude'": ("--agent and --beadboard-url exclude each other", (2, 1)),
    "agent_url = 'http://b'\nagent_command = 'x'": ("--agent-command and --agent-url exclude each other", (2, 1)),
    "beadboard_url = 'http://b'\nacceptance = 'optional'": ("--acceptance optional does not go with", (2, 1)),
    "model = 'haiku'": ("--model goes with --agent", (1,)),
    "agent = 'codex'\nmax_cost_per_run = 1": ("--max-cost-per-run cannot be held", (2,)),
    "agent = 'codex'\nmax_cost_per_day = 1": ("--max-cost-per-day cannot be held", (2,)),
    "[lanes.a]\nlabels = ['x']\nmodel = 'haiku'": ("--model goes with --agent", (3,)),
    "agent = 'claude'\n[lanes.a]\nlabels = ['x']\n[lanes.b]\ndb = '/a'\nmetadata = '/b'": (
        "--db and --metadata exclude each other",
        (5, 6),
    ),
    "agent = 'codex'\n[lanes.a]\nmax_cost_per_day = 1": ("--max-cost-per-day cannot be held", (3,)),
    "max_cost_per_day = 1\n[lanes.a]\nagent = 'codex'": ("--max-cost-per-day cannot be held", ()),
    "beadboard_url = 'board'": ("--beadboard-url 'board' is not a URL", (1,)),
    "pushgateway = 'http://h:x'": ("--pushgateway is not a URL", (1,)),
}


@pytest.mark.parametrize(("text", "words", "lines"), [(text, *found) for text, found in CONTRADICTIONS.items()])
def test_a_contradiction_is_refused_with_its_lines(
    text: str,
    words: str,
    lines: tuple[int, ...],
    run: Callable[..., int],
    written: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(text)
    for command in (("config", "check", str(path)), ("dispatch", "--config", str(path))):
        assert run(*command) == 2
        err = capsys.readouterr().err
        assert words in err
        assert all(f" at {path}:{line}" in err for line in lines), err


def test_a_flag_that_contradicts_the_file_is_told_the_line(
    run: Callable[..., int], written: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("agent = 'claude'")
    assert run("dispatch", "--config", str(path), "--beadboard-url", "http://b") == 2
    assert f"--agent and --beadboard-url exclude each other (agent at {path}:1)" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("explain", "x-1"), ("status",), ("doctor",)], ids=lambda words: words[0])
def test_a_command_that_only_looks_names_the_lane_that_cannot_work(
    command: tuple[str, ...],
    run: Callable[..., int],
    written: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written("[lanes.a]\nlabels = ['x']\n[lanes.b]\nacceptance = 'optional'\nbeadboard_url = 'http://b'")
    assert run(*command, "--config", str(path)) == 2
    err = capsys.readouterr().err
    assert "lane b: --acceptance optional does not go with --beadboard-url" in err
    assert f"acceptance at {path}:4" in err


def test_keys_of_other_commands_are_fine(run: Callable[..., int], written: Callable[[str], Path]) -> None:
    path = written("watch = 'off'\ndispatch_every = '1m'\nnotify_url = ['$NOT_SET']\nlisten = 1\n")
    seen: list[StatusSettings] = []

    def command(view: StatusSettings, agent: Annotated[AgentSettings, Offer(only=("timeout",))]) -> None:
        seen.append(view)

    invoke(command, "--config", str(path))
    assert seen == [StatusSettings()], "`watch` is the option of `run`"


def invoke(command: Callable[..., None], *words: str) -> None:
    """Run a function as a command."""
    application = typer.Typer()
    application.command()(with_options(command))
    parser: Any = typer.main.get_command(application)
    parser(list(words), standalone_mode=False)


def telemetry(path: Path) -> TelemetrySettings:
    """Return the settings of telemetry that a command gets from a file."""
    seen: list[TelemetrySettings] = []

    def command(settings: Annotated[TelemetrySettings, Offer(check=False)]) -> None:
        seen.append(settings)

    invoke(command, "--config", str(path))
    return seen[0]


def test_a_secret_comes_from_a_variable_or_a_file_that_is_named(
    written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hooks").write_text("json://a/s3cret\njson://b/s3cret\n")
    monkeypatch.setenv("GATEWAY", "http://ann:s3cret@gateway.test")
    path = written("pushgateway = '$GATEWAY'\nnotify_url = ['file:hooks', '$HOOK']")
    monkeypatch.setenv("HOOK", "json://c")
    found = telemetry(path)
    assert found.pushgateway == Secret("http://ann:s3cret@gateway.test")
    assert found.notify_urls == (Secret("json://a/s3cret"), Secret("json://b/s3cret"), Secret("json://c"))
    assert not {"GATEWAY", "HOOK"} & os.environ.keys(), "neither bd nor an agent inherits them"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("notify_url = ['$HOOK']", "notify_url names the variable HOOK, which is not set"),
        ("notify_url = ['file:none']", "none: cannot be read"),
        ("pushgateway = 'file:empty'", "which is empty"),
    ],
)
def test_a_secret_that_is_not_there_is_an_error(
    text: str, words: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError, match=words):
        telemetry(written(text))


@pytest.mark.parametrize(
    "text",
    [
        "notify_url = ['slack://s3cret/x']",
        "notify_url = ['$HOOK', 'slack://s3cret/x']",
        "pushgateway = 'http://ann:s3cret@gateway.test'",
        "beadboard_url = 'https://s3cret@board.test'",
        "agent_url = 'http://agent.test?key=s3cret'",
    ],
)
def test_a_secret_in_the_file_is_refused_without_showing_it(
    text: str, run: Callable[..., int], written: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("config", "check", str(written(text))) == 2
    err = capsys.readouterr().err
    assert 'holds a secret, which does not belong into this file; name a variable, "$NAME"' in err
    assert "s3cret" not in err


def test_show_hides_secrets(
    run: Callable[..., int],
    written: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for words in ((), ("--json",)):
        monkeypatch.setenv("HOOK", "slack://s3cret/x")
        monkeypatch.setenv("BDAUTO_PUSHGATEWAY", "http://a:s3cret@b")
        monkeypatch.setenv("BEADBOARD_URL", "http://a:s3cret@b")
        assert run("config", "show", "--config", str(written("notify_url = ['$HOOK']")), *words) == 0
        out = capsys.readouterr().out
        assert "s3cret" not in out
        assert out.count("***") == 3


def test_paths_begin_at_the_folder_of_the_file(
    shown: Callable[..., dict[str, Any]], written: Callable[[str], Path], tmp_path: Path
) -> None:
    path = written("agent_prompt = 'prompt.md'\nagent_dir = '~/work'\nagent_jobs = '/var/jobs'\n")
    found = shown("--config", str(path))
    assert found["agent_prompt"]["value"] == str(tmp_path / "prompt.md")
    assert found["agent_dir"]["value"] == str(tmp_path / "home" / "work")
    assert found["agent_jobs"]["value"] == "/var/jobs"


def test_the_line_of_a_key_is_where_its_statement_begins() -> None:
    text = "# max = 1\nagent_command = '''\nmax = 3\n'''\nlabel = [ # max\n 'max',\n]\n\"max\" = 4\n[lanes.max]\nx = 1"
    file = config_file.ConfigFile("f", text)
    lines = {key: file.place(key) for key in file.values}
    assert lines == {"agent_command": "f:2", "label": "f:5", "max": "f:8", "lanes": "f:9"}


def test_init_writes_a_file_of_this_user_once(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "home" / ".config" / "bdauto" / "config.toml"
    assert run("config", "init") == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert (path.stat().st_mode & 0o777, tomllib.loads(path.read_text())) == (0o600, {})
    assert run("config", "check") == 0
    assert capsys.readouterr().out == f"{path}: no mistake found; keys: 0\n"
    path.write_text("max = 2")
    assert run("config", "init") == 2
    assert "exists; give --force to overwrite it" in capsys.readouterr().err
    assert path.read_text() == "max = 2"
    assert run("config", "init", "--force") == 0
    assert path.read_text() == template()
    assert [*path.parent.iterdir()] == [path]


def test_init_replaces_nothing_but_files(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("config", "init", "--force", "--config", str(tmp_path)) == 2
    assert run("config", "init", "--force", "--config", os.devnull) == 2


def test_check_without_a_file_says_how_to_get_one(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "check") == 2
    assert "no configuration file; `bdauto config init` writes one" in capsys.readouterr().err


def test_the_written_file_has_every_key_with_its_default() -> None:
    lines = [line[1:] for line in template().splitlines() if line.startswith("#") and not line.startswith("# ")]
    values = tomllib.loads("\n".join(lines))
    assert values.keys() == config_keys.keys().keys()
    file = config_file.ConfigFile("f", "\n".join(lines))
    wrong = {error.message.split(": ")[1].split()[0] for error in config_keys.mistakes(file)}
    chosen = {"active_hours", "digest_at", "kubernetes_namespace", "kubernetes_template", "listen", "notify_on"}
    assert wrong == chosen, "only these have a value that must be chosen"


def test_every_option_with_a_variable_is_a_key() -> None:
    known = {field.variable for field in config_keys.keys().values()}
    assert known - {"BEADBOARD_URL", "BEADS_ACTOR"} == {*options_page.variables()} - {"BDAUTO_CONFIG"}


@pytest.mark.parametrize(
    ("named", "text", "ahead"),
    [
        *((named, "db = '/elsewhere'", False) for named in ("variable", "flag", "home")),
        *(("variable", f"{key} = 'x'", False) for key in ("metadata", "bd", "assignee", "actor")),
        ("variable", "max = ", False),
        ("variable", "[lanes.a]\nlabels = ['x']", False),
        ("variable", "notify_url = ['$HOOK']", False),
        ("variable", "max = 3", True),
        ("home", "max = 3", True),
        ("", "", True),
    ],
)
def test_reads_are_prefetched_unless_the_file_changes_them(
    named: str,
    text: str,
    ahead: bool,
    written: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The file may name another database, another bd, or a variable that bd must not get."""
    started: list[Any] = []
    monkeypatch.setattr(process, "start_ahead", lambda *call: started.append(call))
    monkeypatch.chdir(tmp_path)
    for name in ("BEADS_DIR", "BDAUTO_METADATA", "BDAUTO_DB"):
        monkeypatch.delenv(name, raising=False)
    path = written(text)
    if named == "variable":
        monkeypatch.setenv("BDAUTO_CONFIG", str(path))
    if named == "home":
        own(text, tmp_path / "home" / ".config")
    start._start_reads(["dispatch", *(["--config", str(path)] if named == "flag" else [])])
    assert bool(started) is ahead


LANES = """
assignee = "agent"
slots = 4
agent = "claude"
max_per_day = 9

[lanes.docs]
labels = ["docs"]
model = "haiku"
max_cost_per_day = 5

[lanes.hard]
priorities = [0, 1]
agent = "codex"
fallback = "docs"

[lanes.web]
db = "../web/.beads"
agent_command = "./agent.sh {id}"
slots = 2
"""


def lanes(path: Path, *words: str) -> PerLane:
    """Return the lanes that a command gets from a file."""
    seen: list[PerLane] = []

    def command(lanes: Annotated[PerLane, *(Part(kind, Offer(check=False)) for kind in KINDS)]) -> None:
        seen.append(lanes)

    invoke(command, "--config", str(path), *words)
    return seen[0]


def test_a_lane_has_what_stands_at_the_top_under_its_table(written: Callable[[str], Path], tmp_path: Path) -> None:
    docs, hard, web = lanes(written(LANES)).serves
    assert (docs.agent.agent, docs.agent.model, docs.dispatch.labels) == ("claude", "haiku", ("docs",))
    assert (docs.dispatch.max_cost_per_day, docs.dispatch.max_per_day, docs.dispatch.per_day_of_all) == (5.0, None, 9)
    assert (hard.agent.agent, hard.dispatch.priorities, hard.fallback) == ("codex", (0, 1), "docs")
    assert web.bd.db == tmp_path / ".." / "web" / ".beads"
    assert (web.agent.agent, str(web.agent.agent_command)) == (None, "./agent.sh"), "it has an agent of its own"
    slots = [(one.agent.agent_slots, one.agent.slots_of_all) for one in (docs, hard, web)]
    assert slots == [(4, 4), (4, 4), (2, 4)]
    assert {one.bd.assignee for one in (docs, hard, web)} == {"agent"}


def test_a_flag_goes_before_the_file_for_all_lanes(written: Callable[[str], Path]) -> None:
    path = written(LANES)
    found = lanes(path, "--threshold", "2m", "--max-per-day", "3", "--agent-slots", "1").serves
    assert {str(one.reap.threshold) for one in found} == {"0:02:00"}
    assert {(one.dispatch.per_day_of_all, one.dispatch.max_per_day) for one in found} == {(3, None)}
    assert {(one.agent.agent_slots, one.agent.slots_of_all) for one in found} == {(1, 1)}


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (("--label", "x"), "labels at {}:8"),
        (("--agent-url", "http://a"), "agent at {}:14"),
        (("--agent", "gemini"), "agent at {}:14"),
        (("--metadata", "m.json"), "db at {}:18"),
        (("--priority", "1"), "priorities at {}:13"),
    ],
)
def test_a_flag_replaces_no_agent_and_no_tracker_of_a_lane(
    words: tuple[str, ...], own: str, written: Callable[[str], Path]
) -> None:
    path = written(LANES)
    with pytest.raises(UsageError, match=re.escape(own.format(path))):
        lanes(path, *words)
    name = {"8": "docs", "14": "hard", "18": "web", "13": "hard"}[own.rpartition(":")[2]]
    [one] = lanes(path, *words, "--lane", name).serves
    assert one.name == name, "for one lane it is clear what is meant"


@pytest.mark.parametrize("words", [("--priority", "3"), ("--agent-command", "./x"), ("--db", "/other/.beads")])
def test_a_flag_for_one_lane_takes_nothing_from_the_others(
    words: tuple[str, ...], written: Callable[[str], Path]
) -> None:
    """Else `--lane rest --priority 3` dispatches nothing: the lane before would have these beads."""
    path = written(f"{LANES}\n[lanes.rest]\n")
    before = {one.name: one for one in lanes(path).known}
    found = lanes(path, "--lane", "rest", *words)
    [rest] = found.serves
    assert rest[1:] != before["rest"][1:]
    own = {"--priority": ("hard", 3), "--agent-command": ("hard", 1), "--db": ("web", 2)}[words[0]]
    other = next(one for one in found.known if one.name == own[0])
    assert other[own[1]] == before[own[0]][own[1]]


def test_only_the_named_lanes_are_served(written: Callable[[str], Path]) -> None:
    path = written(LANES)
    found = lanes(path, "--lane", "web", "--lane", "docs")
    assert ([one.name for one in found.serves], len(found.known)) == (["docs", "web"], 3)
    with pytest.raises(UsageError, match="there is no lane 'none'; the lanes of the file are docs, hard, web"):
        lanes(path, "--lane", "none")
    plain = written("max = 2")
    assert [one.name for one in lanes(plain, "--lane", "default").serves] == ["default"]
    with pytest.raises(UsageError, match="the configuration file has no lanes"):
        lanes(plain, "--lane", "docs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[lanes.a]\n[lanes.b]\nlabels = ['x']", ":2: lane b never gets a bead: lane a takes all"),
        ("[lanes.a]\n[lanes.b]\nassignee = 'bob'", ""),
        ("[lanes.a]\n[lanes.b]\ndb = '/b'", ""),
        ("[lanes.a]\n[lanes.b]\nexclude_types = []", ""),
        ("[lanes.a]\npriorities = [0]\n[lanes.b]", ""),
        ("[lanes.a]\nlabels = ['x']\nfallback = 'b'\n[lanes.b]\nassignee = 'bob'", ":3: lane b has another assignee"),
    ],
)
def test_lanes_that_cannot_work_are_found(
    text: str, words: str, run: Callable[..., int], written: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("config", "check", str(written(text))) == (2 if words else 0)
    assert words in capsys.readouterr().err


def test_show_prints_what_is_different_in_each_lane(
    run: Callable[..., int], written: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(LANES)
    assert run("config", "show", "--json", "--config", str(path)) == 0
    found = json.loads(capsys.readouterr().out)["lanes"]
    assert found["docs"].keys() == {"model", "labels", "max_cost_per_day"}
    assert found["hard"]["fallback"] == {"value": "docs", "source": "file", "place": f"{path}:15"}
    assert found["web"]["agent"]["value"] is None
    assert found["web"]["slots"] == {"value": "2", "source": "file", "place": f"{path}:20"}


def test_each_file_of_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    files = [config_file.ConfigFile("f", text) for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
    assert len(files) >= 5
    for file in files:
        assert [*config_keys.mistakes(file), *config_keys.contradictions(file)] == []
