"""Every `bdauto` command line that is written down is one the real CLI accepts."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from bdauto.cli.variables import GIVEN_TO_AGENTS
from tests.support.manifests import (
    DEPLOY,
    OVERLAYS,
    ROOT,
    TERRAFORM,
    documents,
    markdown_commands,
    pod_spec,
    render,
    terraform_commands,
    workloads,
)


@cache
def cli() -> TyperGroup:
    """Return the real command line interface."""
    from bdauto.cli.app import application

    group = get_command(application())
    assert isinstance(group, TyperGroup)
    return group


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it; raises whatever the parser raises for one it does not accept."""
    group = cli()
    name, rest = arguments[0], arguments[1:]
    if name.startswith("-"):
        known = {
            option
            for parameter in group.get_params(group.make_context("bdauto", ["doctor"]))
            for option in parameter.opts
        }
        assert name in known, f"bdauto has no {name}"
        return
    if name == "help":
        assert set(rest) <= {"COMMAND", *group.commands}, rest
        return
    assert name in group.commands, f"bdauto has no command {name}"
    command = group.commands[name]
    if rest != ["--help"]:
        command.make_context(name, list(rest))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEADBOARD_URL", "BEADS_ACTOR", "API_BEARER_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def written_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (where it stands, its arguments), once each, of the command lines in the documents and the module."""
    found = [
        (str(path.relative_to(ROOT)), words) for path in documents() for words in markdown_commands(path.read_text())
    ]
    found += [("deploy/terraform", words) for words in terraform_commands()]
    yield from {(where, *words): (where, words) for where, words in found}.values()


@pytest.mark.parametrize(
    "arguments", [pytest.param(words, id=f"{where}: {' '.join(words)}") for where, words in written_commands()]
)
def test_written_command_line_is_accepted(arguments: list[str]) -> None:
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        assert arguments[0] in cli().commands  # named in a sentence, perhaps, and not a whole command line
    elif arguments[0] == "COMMAND":
        parse(["dispatch", *arguments[1:]])
    else:
        parse(arguments)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifest_command_line_is_accepted(overlay: str) -> None:
    for workload in workloads(render(overlay)):
        for container in pod_spec(workload)["containers"]:
            command = [str(word) for word in container["command"]]
            assert command[0] == "bdauto", "no shell in between"
            assert "args" not in container
            parse(command[1:])


def environment_names(text: str) -> set[str]:
    """Return the names of bdauto's environment variables in a text."""
    return set(re.findall(r"\b(?:BDAUTO_[A-Z_]+[A-Z]|BEADBOARD_URL|BEADS_ACTOR|API_BEARER_TOKEN)\b", text))


def deployed_files() -> list[Path]:
    """Return the files that set environment variables."""
    return [
        *(path for path in (DEPLOY / "kustomize").rglob("*") if path.is_file()),
        *TERRAFORM.rglob("*.tf*"),
        *(path for path in documents() if path.name != "CHANGELOG.md"),
        DEPLOY / "Dockerfile",
    ]


def test_every_environment_variable_is_one_that_the_cli_reads() -> None:
    read = {"API_BEARER_TOKEN", *NOT_READ_BY_THE_CLI}
    for command in cli().commands.values():
        for parameter in command.params:
            names = parameter.envvar
            read |= {names} if isinstance(names, str) else set(names or ())
    for path in deployed_files():
        unknown = environment_names(path.read_text()) - read
        assert not unknown, f"{path.relative_to(ROOT)} sets {sorted(unknown)}"


def test_no_page_installs_bdauto_from_the_package_index() -> None:
    """Its name is not registered there, and could be by anyone."""
    for path in documents():
        found = re.findall(r"\b(?:pipx?|uv tool|uv pip) install [^\n`]*(?<![\w./-])bdauto\b(?!\.)", path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: {found}"


NOT_READ_BY_THE_CLI = {"BDAUTO_VERSION", *GIVEN_TO_AGENTS, "BDAUTO_PORT", "BDAUTO_SERVICE_HOST"}
"""The Dockerfile's own build argument, what an agent is given, and what Kubernetes sets for a Service."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`bdauto reap --threshold 30m`", [["reap", "--threshold", "30m"]]),
        ("`bdauto` and `bdauto[metrics]`", []),
        ("`bdauto pause [REASON] [--for DUR]`", [["pause", "REASON", "--for", "DUR"]]),
        ("```sh\nBDAUTO_MAX=2 bdauto dispatch -n | head # not bdauto x\n```", [["dispatch", "-n"]]),
        ("```\n$ bdauto dispatch \\\n  --json > out\n```", [["dispatch", "--json"]]),
        ("```\nkubectl exec deploy/bdauto -- bdauto status; bdauto resume\n```", [["status"], ["resume"]]),
        ("```\nkubectl logs deploy/bdauto\nsee bdauto dispatch\n```", []),
    ],
)
def test_command_lines_are_found_in_markdown(text: str, found: list[list[str]]) -> None:
    assert list(markdown_commands(text)) == found


def test_command_lines_are_found_in_terraform() -> None:
    assert ["reap", "--threshold", "30m"] in list(terraform_commands())
    assert {words[0] for words in terraform_commands()} == {"dispatch", "reap", "run"}
