"""`bdauto explain`, the installed command: on the sandbox and the real bd; its remedies are run; ids are completed."""

import json
import shlex
from datetime import UTC, datetime, timedelta

import pytest

from bdauto.sandbox import Sandbox
from tests.support.cli import REAL_FLAVOURS, claimed, dispatch, metadata, real_world, run, started, tell, written


def test_the_next_and_a_waiting_bead(world: Sandbox) -> None:
    first, second = world.create("First", priority=0), world.create("Second", priority=1)
    waiting = world.create("Waiting")
    tell(world, "dep", "add", waiting, second)

    done = run(world, "explain", first)
    assert done.code == 0
    assert done.out.startswith(f"{first}  First\nnext\nbdauto's turn: place 1 of 2 eligible\n")
    assert run(world, "explain", second, "--json").json["place"] == 2
    done = run(world, "explain", waiting)
    assert f"waiting: blocked by {second}\n" in done.out
    assert f"no  ready       blocked by {second}\n" in done.out
    shown = run(world, "explain", waiting, "--json").json
    assert [one["name"] for one in shown["conditions"] if not one["passed"]] == ["ready"]
    assert (shown["schema_version"], shown["command"], shown["eligible"]) == (1, "explain", False)


@pytest.mark.parametrize("flavour", REAL_FLAVOURS)
def test_every_remedy_mends_what_it_is_for(request: pytest.FixtureRequest, flavour: str) -> None:
    """Take a bead with everything against it, run each command that explain gives, and dispatch it."""
    with real_world(request, flavour) as world:
        _mend_everything(world)


def _mend_everything(world: Sandbox) -> None:
    blockers = [world.create("First"), world.create("Second")]
    labels = ["--label", "agent-ok,two words", "--exclude-label", "secret", "--exclude-type", "bug"]
    later = datetime.now(UTC) + timedelta(hours=1)
    retry = json.dumps({"bdauto.retry_at": f"{later:%Y-%m-%dT%H:%M:%SZ}"})
    more = ["--defer", "+2d", "--metadata", retry, "--labels", "secret"]
    bead = world.create("Hopeless", type="bug", assignee="bob", acceptance="", more=more)
    for blocker in blockers:
        tell(world, "dep", "add", bead, blocker)
        tell(world, "update", blocker, "-s", "blocked")
    tell(world, "update", bead, "-s", "deferred")
    tell(world, "kv", "set", "bdauto.paused", '{"reason": "deploy"}')

    failed = _failed(world, bead, labels)
    assert set(failed) == {
        *("status", "assignee", "acceptance", "type", "deferred", "backoff", "label", "exclude-label", "ready"),
        "pause",
    }
    assert failed.pop("pause") == "bdauto resume"
    tell(world, "kv", "clear", "bdauto.paused")
    for _ in blockers:  # one of them is named at a time
        commands = [command for fix in failed.values() for command in fix.split(" && ")]
        for command in commands:
            program, *words = shlex.split(command.rpartition("or if it is done: ")[2])
            assert program == "bd"
            tell(world, *words, actor="agent")  # bd 1.3 lets nobody else close its bead
        failed = _failed(world, bead, labels)
    assert _failed(world, bead, labels) == {}
    assert dispatch(world, *labels).outcomes == {bead: "dispatched"}


def _failed(world: Sandbox, bead: str, options: list[str]) -> dict[str, str]:
    shown = run(world, "explain", bead, "--json", *options).json
    return {one["name"]: one["fix"] for one in shown["conditions"] if not one["passed"]}


def test_trust(world: Sandbox) -> None:
    theirs = world.create("Theirs", priority=0)
    world.run("create", "Ours", "-a", "agent", "--acceptance", "ok", "--json", actor="ann")
    [ours] = [one["id"] for one in run(world, "status", "--json").json["queue"] if one["title"] == "Ours"]
    shown = run(world, "explain", theirs, "--trusted-creator", "ann", "--json").json
    assert shown["reason"] == "created by tester, who is not trusted"
    assert "trust" not in [one["name"] for one in run(world, "explain", theirs, "--json").json["conditions"]]
    assert dispatch(world, BDAUTO_TRUSTED_CREATOR="bob,ann").outcomes == {ours: "dispatched"}
    assert run(world, "explain", theirs, "--trusted-creator", "ann", "--trusted-creator", "tester").code == 0


def test_a_bead_in_progress_and_its_story(sandbox: Sandbox) -> None:
    bead, job = started(sandbox, 40)
    done = run(sandbox, "explain", bead, agent=True)
    assert f"in progress: kept: job {job} is running; 40m since the last update" in done.out
    assert f"dispatched: job={job}" in done.out
    orphan = claimed(sandbox, 15)
    assert (
        "in progress: kept: claimed 15m ago, no job recorded; within the threshold"
        in run(sandbox, "explain", orphan).out
    )


def test_after_a_failure_it_tells_the_error_and_the_backoff(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    sandbox.board.agent_down()
    assert dispatch(sandbox).code == 4
    shown = run(sandbox, "explain", bead, "--json").json
    assert shown["error"] == "HTTP 502: Agent service is unreachable."
    assert shown["retry_at"] == metadata(sandbox, bead)["retry_at"]
    assert shown["reason"].startswith("backing off until ")
    assert shown["notes"] == ["dispatch failed HTTP 502: Agent service is unreachable."]


def test_an_unknown_id(world: Sandbox) -> None:
    done = run(world, "explain", "sb-nope")
    assert done.code == 3
    assert done.complaint.startswith("bdauto: no bead sb-nope in this database")
    assert run(world, "explain", "--", "--db=/").code == 2
    assert run(world, "explain", "x'; DROP TABLE issues").code == 2


def test_it_writes_nothing(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    run(sandbox, "explain", bead, agent=True)
    assert written(sandbox) == []


class TestCompletion:
    """What the shell gets when somebody presses Tab."""

    def complete(self, sandbox: Sandbox, words: str, shell: str = "bash", **env: str) -> list[str]:
        asked = {"_BDAUTO_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = run(sandbox, agent=False, **asked, _TYPER_COMPLETE_ARGS=words, **env)
        assert (done.code, done.err) == (0, "")
        return [line for line in done.out.splitlines() if line]

    def test_ids(self, sandbox: Sandbox) -> None:
        beads = sorted(sandbox.create() for _ in range(3))
        closed, theirs = sandbox.create(), sandbox.create(assignee="bob")
        tell(sandbox, "close", closed)
        assert sorted(self.complete(sandbox, "bdauto explain ")) == beads
        assert self.complete(sandbox, f"bdauto explain {beads[0][:-1]}") == [
            bead for bead in beads if bead.startswith(beads[0][:-1])
        ]
        assert theirs not in beads
        assert written(sandbox) == []

    def test_silent_when_bd_fails_or_is_missing(self, sandbox: Sandbox) -> None:
        sandbox.fault("list", "exit", text="boom\n")
        assert self.complete(sandbox, "bdauto explain ") == []
        assert self.complete(sandbox, "bdauto explain ", BDAUTO_BD="/nowhere/bd") == []

    def test_a_title_cannot_reach_the_shell(self, sandbox: Sandbox) -> None:
        bead = sandbox.create("\"'$(touch x)`id`:\\ ok 日本")
        assert self.complete(sandbox, "bdauto explain ", "zsh") == [
            f'_arguments \'*: :(("{bead}":"touch x id ok 日本"))\''
        ]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_every_command_that_takes_an_id_completes_it(self, sandbox: Sandbox, shell: str) -> None:
        waiting, running, closed = (sandbox.create(f"Bead {number}") for number in range(3))
        tell(sandbox, "update", running, "-s", "in_progress")
        tell(sandbox, "close", closed)
        env = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
        for words, offered in (
            ("bdauto explain ", {waiting, running}),
            ("bdauto cancel ", {running}),
            ("bdauto logs ", {waiting, running, closed}),
            ("bdauto runs --bead ", {waiting, running, closed}),
        ):
            found = " ".join(self.complete(sandbox, words, shell, **env))
            assert {bead for bead in (waiting, running, closed) if bead in found} == offered, words

    @pytest.mark.parametrize(
        ("shell", "words"), [("bash", "complete"), ("zsh", "#compdef bdauto"), ("fish", "complete --command bdauto")]
    )
    def test_each_shell_gets_its_own_script(self, sandbox: Sandbox, shell: str, words: str) -> None:
        script = run(sandbox, "completion", shell, SHELL="/bin/bash").out
        assert words in script
        assert f"complete_{shell}" in script
        assert shell != "zsh" or script.startswith("#compdef bdauto\n"), "a function that zsh loads begins so"


def test_help_is_a_word_too(sandbox: Sandbox) -> None:
    assert run(sandbox, "help").out == run(sandbox, "--help").out
    assert run(sandbox, "help", "cancel").out == run(sandbox, "cancel", "--help").out
    assert run(sandbox, "help", "nonsense").code == 2
