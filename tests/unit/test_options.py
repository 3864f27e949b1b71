"""Options come from the settings' types; each error names the option and what is accepted."""

import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer.main

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.agents.local.settings import AgentName, LocalAgentSettings, parse_model
from bdauto.agents.prompt_settings import parse_command
from bdauto.cli import app
from bdauto.cli.options import Offer, with_options
from bdauto.cli.validation import check_bd, check_dispatch
from bdauto.cli.variables import check_variables, known
from bdauto.common.errors import UsageError
from bdauto.domain.settings import BdSettings, DispatchSettings, OnStall, Option, ReapSettings, Secret
from scripts import options_page

HERE = Path("/")


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One field of each sort."""

    max_reap: Annotated[int, Option("A number.")] = 10
    threshold: Annotated[timedelta, Option("A duration.", env=None)] = timedelta(minutes=30)
    on_stall: Annotated[OnStall, Option("A choice.")] = OnStall.block
    labels: Annotated[tuple[str, ...], Option("A list.", flag="--label", metavar="LABEL")] = ("epic",)
    until: Annotated[timedelta | None, Option("No default.")] = None
    force: Annotated[bool, Option("A flag.", short="-f")] = False
    not_an_option: str = "kept"


def command_line(function: Callable[..., None]) -> Any:
    """Return the parser of one command."""
    application = typer.Typer()
    application.command()(with_options(function))
    return typer.main.get_command(application)


def sample(*words: str) -> Sample:
    """Return the settings that a command gets for these words."""
    seen: list[Sample] = []

    def command(settings: Sample) -> None:
        seen.append(settings)

    command_line(command)(list(words), standalone_mode=False)
    return seen[0]


def test_a_field_is_an_option_with_the_default_of_the_type() -> None:
    assert sample() == Sample()


def test_values_arrive_as_the_type_of_the_field() -> None:
    words = "--max-reap 3 --threshold 1h30m --on-stall requeue --label a,b --label c --until 5s -f"
    assert sample(*words.split()) == Sample(
        max_reap=3,
        threshold=timedelta(minutes=90),
        on_stall=OnStall.requeue,
        labels=("a", "b", "c"),
        until=timedelta(seconds=5),
        force=True,
    )


def test_the_variable_is_named_after_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDAUTO_MAX_REAP", "7")
    monkeypatch.setenv("BDAUTO_LABEL", "x,y z")
    monkeypatch.setenv("BDAUTO_THRESHOLD", "1s")
    monkeypatch.setenv("BDAUTO_FORCE", "1")
    assert sample() == Sample(max_reap=7, labels=("x", "y", "z"))
    assert sample("--max-reap", "8").max_reap == 8


@pytest.mark.parametrize(("text", "on"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_a_switch_has_a_variable_where_its_option_names_one(
    text: str, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[LocalAgentSettings] = []

    def command(local: LocalAgentSettings) -> None:
        seen.append(local)

    monkeypatch.setenv("BDAUTO_AGENT_WORKTREE", text)
    command_line(command)([], standalone_mode=False)
    assert seen[0].agent_worktree is on


def test_commands_stand_one_a_line_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LocalAgentSettings] = []

    def command(local: LocalAgentSettings) -> None:
        seen.append(local)

    monkeypatch.setenv("BDAUTO_AGENT_CHECK", "make lint\n\n make 'the tests'\n")
    command_line(command)([], standalone_mode=False)
    command_line(command)(["--agent-check", "make a", "--agent-check", "b"], standalone_mode=False)
    words = [[check.words for check in settings.agent_check] for settings in seen]
    assert words == [[("make", "lint"), ("make", "the tests")], [("make", "a"), ("b",)]]


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.5", "1" * 30, "1000001", "٣"])
def test_a_wrong_number_names_the_option_and_its_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^--max-reap '.*' is not a whole number from 1 to 1000000$"):
        sample("--max-reap", text)
    monkeypatch.setenv("BDAUTO_MAX_REAP", text)
    if text:  # an empty variable is none
        with pytest.raises(UsageError, match=r"^--max-reap \(BDAUTO_MAX_REAP\) "):
            sample()


def test_a_command_may_offer_some_fields_and_other_defaults() -> None:
    def command(
        *,
        few: Annotated[ReapSettings, Offer(only=("grace",))],
        most: Annotated[BdSettings, Offer(without=("assignee",))] = BdSettings(actor="me"),  # noqa: B008
    ) -> None:
        assert few == ReapSettings(grace=timedelta(minutes=1))
        assert most == BdSettings(actor="me", bd_path="/bin/bd")

    parser = command_line(command)
    names = {parameter.name for parameter in parser.params}
    assert names >= {"grace", "actor", "bd_path", "db"}
    assert not names & {"threshold", "assignee", "max_attempts"}
    parser(["--grace", "1m", "--bd", "/bin/bd"], standalone_mode=False)


def test_no_option_shows_the_name_of_a_python_type() -> None:
    command: Any = typer.main.get_command(app.application())
    for name, sub in command.commands.items():
        context = sub.make_context(name, [], resilient_parsing=True)
        for parameter in sub.params:
            metavar = "" if getattr(parameter, "is_flag", False) else parameter.make_metavar(context)
            assert "<" not in metavar, f"{name} {parameter.opts}: {metavar}"
            assert "range" not in metavar.lower()


def test_an_agent_is_started_by_its_own_words() -> None:
    settings = kinds.complete(AgentSettings(agent=AgentName.claude, model="haiku"))
    assert settings.agent_command is not None
    words = settings.agent_command.words
    assert words[:4] == ("claude", "-p", "--output-format", "stream-json")
    assert words[words.index("--model") + 1] == "haiku"


def test_beside_a_command_an_agent_says_how_output_is_read() -> None:
    settings = AgentSettings(agent=AgentName.codex, agent_command=parse_command("wrapper --fast"))
    assert kinds.complete(settings) == settings


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "haiku"},
        {"model": "haiku", "agent": AgentName.claude, "agent_command": parse_command("claude -p")},
        {"model": "haiku", "agent_command": parse_command("claude -p")},
    ],
)
def test_a_model_goes_with_an_agent_alone(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--model goes with --agent"):
        kinds.complete(AgentSettings(**settings))


COMMAND = parse_command("claude -p")


@pytest.mark.parametrize(
    ("agent", "command", "words"),
    [
        (None, None, "the agent of this command does not say its costs"),
        (None, COMMAND, "the agent of this command does not say its costs"),
        (AgentName.codex, None, "codex does not say its costs"),
        (AgentName.gemini, None, "gemini does not say its costs"),
        (AgentName.claude, COMMAND, "claude says its cost only at the end"),
        (AgentName.claude, None, ""),
        (AgentName.opencode, None, ""),
        (AgentName.opencode, COMMAND, ""),
    ],
)
def test_a_limit_on_a_run_holds_or_is_refused(agent: AgentName | None, command: Any, words: str) -> None:
    settings = AgentSettings(agent=agent, agent_command=command, max_cost_per_run=2.5)
    with pytest.raises(UsageError, match=words) if words else nullcontext():
        kinds.complete(settings)


def test_claude_holds_the_limit_on_a_run_itself() -> None:
    settings = kinds.complete(AgentSettings(agent=AgentName.claude, max_cost_per_run=2.5))
    assert settings.agent_command is not None
    assert settings.agent_command.words[-2:] == ("--max-budget-usd", "2.5")


@pytest.mark.parametrize(
    ("agent", "cost_per_run", "refused"),
    [
        ("codex", None, True),
        ("gemini", None, True),
        ("codex", 0.5, False),
        ("claude", None, False),
        (None, None, False),
    ],
)
def test_a_limit_on_a_day_holds_or_is_refused(agent: Any, cost_per_run: float | None, refused: bool) -> None:
    dispatch = DispatchSettings(max_cost_per_day=5.0, cost_per_run=cost_per_run)
    with (
        pytest.raises(UsageError, match="does not say what a run costs; give --cost-per-run")
        if refused
        else nullcontext()
    ):
        check_dispatch(dispatch, AgentSettings(agent=agent))


@pytest.mark.parametrize("name", ["", "--yolo", "a b", "x" * 101, "m\n"])
def test_the_name_of_a_model_is_no_option(name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a model"):
        parse_model(name)


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.folder)
def test_a_kind_of_agent_is_complete(kind: kinds.Kind) -> None:
    """What docs/architecture.md asks of a new kind, beside its three files."""
    project = tomllib.loads((options_page.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    [apart] = [contract for contract in contracts if contract["name"] == "Kinds of agents do not know each other"]
    assert f"bdauto.agents.{kind.folder}" in apart["modules"]
    if kind.chosen_by.endswith("_url"):
        with pytest.raises(UsageError, match=f"{kind.flag} .* is not a URL"):
            kinds.check(AgentSettings(**{kind.chosen_by: "no-url"}))


def test_a_variable_is_named_after_its_flag() -> None:
    foreign = {"BEADBOARD_URL", "BEADS_ACTOR"}
    for row in options_page._rows():
        flag, variable = row.option.split("`")[1].split()[0], row.variable.strip("`")
        assert variable in ("", *foreign, f"BDAUTO_{flag[2:].replace('-', '_').upper()}"), row


@pytest.mark.parametrize("file", options_page.LISTS, ids=lambda file: file.name)
def test_the_lists_of_variables_are_current(file: Path) -> None:
    names = options_page.variables(*options_page.LISTS[file])
    assert file.read_text(encoding="utf-8") == options_page.with_names(file, names), "run `make docs`"


def test_every_variable_of_every_command_is_known() -> None:
    assert frozenset(options_page.variables()) == known()
    check_variables(dict.fromkeys(known(), "x"))


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("BDAUTO_MAX_COST_PER_DAYS", "BDAUTO_MAX_COST_PER_DAY"),
        ("BDAUTO_ACTIVE_HOUR", "BDAUTO_ACTIVE_HOURS"),
        ("BDAUTO_LABELS", "BDAUTO_LABEL"),
        ("BDAUTO_NOTIFY_URLS", "BDAUTO_NOTIFY_URL"),
        ("BDAUTO_AGENT_CMD", "BDAUTO_AGENT_COMMAND"),
        ("BDAUTO_active_hours", ""),
        ("BDAUTO_", ""),
        ("BDAUTO_XYZZY", ""),
        ("BDAUTO_LISTEN_PORT", "BDAUTO_LISTEN"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(name: str, like: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}.* is no setting of bdauto") as error:
        check_variables({name: "9464", "PATH": "/bin", "BDAUTO_MAX": "5"})
    assert (f"did you mean {like}?" in error.value.message) is bool(like)


def test_many_misspelt_variables_are_one_line() -> None:
    with pytest.raises(UsageError) as error:
        check_variables({f"BDAUTO_XYZZY_{n}": "" for n in range(9)})
    assert "and 4 more are no settings" in error.value.message


@pytest.mark.parametrize(
    "variables",
    [
        {"BDAUTO_SERVICE_HOST": "10.0.0.1", "BDAUTO_SERVICE_PORT": "8080", "BDAUTO_SERVICE_PORT_HTTP": "8080"},
        {"BDAUTO_PORT": "tcp://10.0.0.1:8080"},
        {f"BDAUTO_PORT_8080_TCP{part}": "x" for part in ("", "_PROTO", "_PORT", "_ADDR")},
        {"BDAUTO_METRICS_SERVICE_HOST": "10.0.0.1", "BDAUTO_METRICS_PORT": "tcp://10.0.0.1:9464"},
        {"BDAUTO_JOB": "w1", "BEAD_ID": "x-1"},
        {"_BDAUTO_COMPLETE": "complete_bash", "MY_BDAUTO_X": "1"},
    ],
)
def test_what_kubernetes_and_agents_are_given_is_no_mistake(variables: dict[str, str]) -> None:
    check_variables(variables)


def test_the_page_of_options_is_current() -> None:
    assert options_page.PAGE.read_text(encoding="utf-8") == options_page.page(), "run `make docs`"


def test_the_options_in_the_readme_are_those_of_the_command_line() -> None:
    readme = (options_page.PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    table = readme.split("## Options")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `--")]
    page = options_page.page()
    assert len(rows) == 10
    for option, variable, default, _ in rows:
        assert f"{option} | {variable} | {default} |" in page


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check_bd(BdSettings(db=HERE, metadata=HERE)), "--db and --metadata exclude each other"),
        (lambda: check_bd(BdSettings(db=HERE / "no" / "such")), "--db /no/such: no metadata.json in it"),
        (lambda: kinds.check(AgentSettings(beadboard_url="board")), "--beadboard-url 'board' is not a URL"),
        (lambda: kinds.check(AgentSettings(agent_url="http://h:x")), "--agent-url 'http://h:x' is not a URL"),
        (
            lambda: kinds.check(AgentSettings(agent_url="http://a", agent_token_file=HERE / "none")),
            "--agent-token-file /none",
        ),
    ],
)
def test_a_wrong_value_names_its_option(call: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["Ada Lovelace", "José Ñandú", "J. R. O'Neil, Jr. (work)", "dependabot[bot]", "x" * 255]
)
def test_an_actor_may_be_a_person_s_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bd's own default is git's `user.name`."""
    seen = []

    def command(bd: BdSettings) -> None:
        seen.append(bd.actor)

    command_line(command)(["--actor", name], standalone_mode=False)
    monkeypatch.setenv("BEADS_ACTOR", name)
    command_line(command)([], standalone_mode=False)
    assert seen == [name, name]


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        *(
            (flag, name)
            for flag in ("--assignee", "--actor")
            for name in ('a" OR status=closed', "", "a\nb", "x" * 256, "-rf", "--dry-run")
        ),
        ("--assignee", "a b"),
        *(("--actor", name) for name in ("-rf /", " a", "a ", "a  b", "a\tb", "a\u202eb", "a\udce9")),
    ],
)
def test_a_name_that_could_change_a_query_is_refused(flag: str, name: str) -> None:
    def command(bd: BdSettings) -> None:
        raise AssertionError(bd)

    with pytest.raises(UsageError, match=f"^{flag} "):
        command_line(command)([flag, name], standalone_mode=False)


@pytest.mark.parametrize("url", ["http://ann:s3cret@a.test", "https://s3cret@a.test/x", "http://:s3cret@a.test"])
def test_an_agent_url_with_a_password_is_refused_without_showing_it(url: str) -> None:
    """It would replace the bearer token."""
    with pytest.raises(UsageError, match="--agent-url holds a user name or a password") as caught:
        kinds.check(AgentSettings(agent_url=url))
    assert "s3cret" not in str(caught.value)


def test_the_token_comes_from_the_file_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def token(file: Path | None, url: str | None = "http://a") -> object:
        return kinds.check(AgentSettings(agent_url=url, agent_token_file=file)).agent_token

    monkeypatch.setenv("API_BEARER_TOKEN", "of-environment")
    file = tmp_path / "token"
    file.write_text("of-file\n")
    assert token(file) == Secret("of-file")
    assert token(None) == Secret("of-environment")
    assert token(file, url=None) is None, "nobody to send it to"
    file.write_text("\n")
    assert token(file) is None


@pytest.mark.parametrize("content", [b"two words", b"a\nb", b"\xc3\xa9", b"\xff", b"a\x00b"])
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        kinds.check(AgentSettings(agent_url="http://a", agent_token_file=file))
    assert "two words" not in str(caught.value)
