"""`bdauto doctor`, the installed command: on the sandbox and the real bd."""

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import run


def levels(world: Sandbox, *args: str, agent: bool = True, **env: str) -> tuple[int, dict[str, str]]:
    """The exit status, and the checks that are not ok, by name."""
    done = run(world, "doctor", "--json", *args, agent=agent, **env)
    assert (done.json["schema_version"], done.json["command"]) == (1, "doctor")
    assert done.json["ok"] == (done.code == 0)
    return done.code, {one["name"]: one["level"] for one in done.json["checks"] if one["level"] != "ok"}


def test_all_is_well(world: Sandbox) -> None:
    world.create()
    world.db.chmod(0o700)
    assert levels(world) == (0, {})
    done = run(world, "doctor", agent=True)
    assert done.code == 0
    assert max(len(line) for line in done.out.splitlines()) <= 80
    *lines, verdict = done.out.splitlines()
    assert {line[:4].strip() for line in lines} <= {"ok", ""}
    assert verdict == "Ready"


def test_the_agent_service_is_down(world: Sandbox) -> None:
    world.create()
    world.db.chmod(0o700)
    world.board.agent_down()
    assert levels(world) == (4, {"agent service": "fail", "token": "warn", "busy": "fail"})
    done = run(world, "doctor", agent=True)
    assert done.complaint.startswith("bdauto: agent service: ")
    assert "BeadBoard says idle while the agent service does not" in done.out


def test_it_writes_nothing(world: Sandbox) -> None:
    world.create()
    before = world.run("list", "--all", "--json").out, world.run("kv", "list", "--json").out
    run(world, "doctor", agent=True)
    assert (world.run("list", "--all", "--json").out, world.run("kv", "list", "--json").out) == before
    assert world.posts == []


@pytest.mark.parametrize(("version", "code"), [("1.0.1", 3), ("1.0.2", 0), ("1.0.4", 3), ("1.0.5", 0), ("nonsense", 3)])
def test_versions(sandbox: Sandbox, version: str, code: int) -> None:
    sandbox.db.chmod(0o700)
    sandbox.set_version(version)
    assert levels(sandbox) == (code, {"version": "fail"} if code else {})


def test_bd_hangs(sandbox: Sandbox) -> None:
    sandbox.fault("*", "hang", times=-1)
    code, found = levels(sandbox, "--bd-timeout", "1s")
    assert code == 3
    assert found["version"] == "fail"


def test_the_first_failure_decides(sandbox: Sandbox) -> None:
    sandbox.board.reply_next("status", FakeReply(200, "<html>"), times=9)
    assert levels(sandbox)[0] == 4
    assert levels(sandbox, "--bd", "/nowhere/bd")[0] == 3
    assert levels(sandbox, BEADBOARD_URL="", BDAUTO_AGENT_URL="")[0] == 2
    assert levels(sandbox, BDAUTO_AGENT_URL="ftp://x")[0] == 2


def test_a_wrong_token(sandbox: Sandbox) -> None:
    assert levels(sandbox, API_BEARER_TOKEN="wrong") == (4, {"metadata.json": "warn", "token": "fail"})
    assert levels(sandbox, API_BEARER_TOKEN="") == (4, {"metadata.json": "warn", "token": "fail"})


def test_metadata_to_copy(sandbox: Sandbox) -> None:
    file = sandbox.folder / "metadata.json"
    file.write_text("[]")
    code, found = levels(sandbox, "--metadata", str(file), BDAUTO_DB="")
    assert (code, found) == (2, {"metadata.json": "fail", "database": "warn"})
    assert not list(sandbox.folder.glob("bdauto-*"))


def test_no_agent_service_is_configured(sandbox: Sandbox) -> None:
    sandbox.db.chmod(0o700)
    assert levels(sandbox, agent=False) == (0, {"agent service": "warn", "busy": "warn"})


@pytest.mark.parametrize("command", ["status", "explain", "doctor"])
def test_help_has_two_examples(sandbox: Sandbox, command: str) -> None:
    done = run(sandbox, command, "--help", COLUMNS="80")
    examples = done.out.partition("Examples: ")[2]
    assert examples.count(f"bdauto {command}") == 2
    assert max(len(line) for line in done.out.splitlines()) <= 80
