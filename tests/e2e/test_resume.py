"""A further attempt goes on in the session of the last one, or starts without it, on stand-ins of each agent."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.sandbox import Sandbox
from tests.e2e.test_agents import EMBEDDED, Place, until
from tests.support.cli import forget_backoff, make_world, metadata, status, tell
from tests.support.jobs import supervisor_of
from tests.support.stub_agents import STUBS

ASKS = """
Q=$($BD create "Which database?" -l human -d "Found two: red and blue." --silent)
$BD dep add $BEAD_ID $Q
$BD update $BEAD_ID --status open
"""
OVERLOADED = "exit 52"
"""What a stand-in does to end with an error: its status is 520 then, as a service has it that is overloaded."""


class Resumed(Place):
    """A workspace whose agents keep their sessions in a home folder of their own."""

    def __init__(self, world: Sandbox) -> None:
        super().__init__(world)
        self.home = world.folder / "home"
        self.home.mkdir()
        self.env["HOME"] = str(self.home)
        self.tell("keeps")

    def goes(self, agent: str, does: str = "", *words: str) -> None:
        """Dispatch to an agent that does this, or its work if it is nothing, and wait for its end."""
        self.tell("does", does) if does else (self.bin / "does").unlink(missing_ok=True)
        done = self.dispatch("--agent", agent, *words)
        assert [*done.outcomes.values()] == ["dispatched"], done
        self.ended()
        assert self.run("reap").code in (0, 4)

    @property
    def starts(self) -> list[dict[str, Any]]:
        """How the agents were started: words, prompt, and the session that they resume."""
        return [json.loads(line) for line in (self.bin / "starts").read_text().splitlines()]

    def runs(self, bead: str) -> list[dict[str, Any]]:
        return list(json.loads(str(metadata(self.world, bead)["runs"])))

    def transcripts(self) -> list[Path]:
        return [*(self.home / ".claude").rglob("*.jsonl")]

    def again(self, bead: str) -> None:
        """Make the bead ready, whatever has become of it, and the breaker closed."""
        self.run("resume")
        tell(self.world, "update", bead, "-s", "open", "-a", "agent", actor="ada")
        forget_backoff(self.world, bead)


@pytest.fixture(params=EMBEDDED)
def place(request: pytest.FixtureRequest) -> Iterator[Resumed]:
    with make_world(request, request.param) as world:
        made = Resumed(world)
        yield made
        for job in made.jobs.running():
            made.jobs.stop(job, "the test's end")
        made.ended()


@pytest.mark.parametrize("agent", STUBS)
def test_an_interrupted_agent_goes_on_in_its_session(place: Resumed, agent: str) -> None:
    bead = place.world.create("a haiku")
    place.goes(agent, OVERLOADED)
    [first] = place.runs(bead)
    assert (first["result"], first["why"]) == ("failed", "overloaded")
    tell(place.world, "note", bead, "please in English", actor="ada")
    place.again(bead)
    place.goes(agent)
    cold, resumed = place.starts
    assert (cold["session"], resumed["session"]) == ("", first["session"])
    assert "Acceptance criteria:" in cold["prompt"]
    assert "Acceptance criteria:" not in resumed["prompt"]
    for line in ("This is attempt 2 on this bead.", "1. failed (overloaded)", "> please in English", "bd show"):
        assert line in resumed["prompt"], line
    assert status(place.world, bead) == "closed"
    assert {run["session"] for run in place.runs(bead)} == {first["session"]}


@pytest.mark.parametrize("agent", STUBS)
def test_an_agent_that_refuses_its_session_starts_without_it(place: Resumed, agent: str) -> None:
    bead = place.world.create("a haiku")
    place.goes(agent, OVERLOADED)
    place.again(bead)
    place.tell("refuses")
    place.goes(agent)
    assert [bool(one["session"]) for one in place.starts] == [False, True, False]
    assert "Acceptance criteria:" in place.starts[2]["prompt"]
    first, second = place.runs(bead)
    assert (status(place.world, bead), second["result"], second["why"]) == ("closed", "completed", "ok")
    assert metadata(place.world, bead)["attempts"] == 1
    assert second["session"] != first["session"]


def test_the_costs_of_each_run_of_a_session_are_counted_once(place: Resumed) -> None:
    bead = place.world.create("a haiku")
    place.goes("claude", OVERLOADED)
    place.again(bead)
    place.goes("claude")
    assert [run["cost"] for run in place.runs(bead)] == [0.03, 0.1234]
    assert place.run("report", "--json").json["total"]["cost_usd"] == pytest.approx(0.1534)


@pytest.mark.timeout(900)  # it takes eight jobs
def test_a_session_is_resumed_five_times_and_then_left(place: Resumed) -> None:
    bead = place.world.create("a haiku")
    for _ in range(7):
        place.goes("claude", OVERLOADED)
        place.again(bead)
    sessions = [one["session"] for one in place.starts]
    assert [bool(session) for session in sessions] == [False, *[True] * 5, False]
    assert len(set(sessions[1:6])) == 1
    place.goes("claude")
    assert place.starts[7]["session"] not in ("", sessions[1])


@pytest.mark.parametrize("gone", ["transcript", "other folder", "emptied", "link"])
def test_without_its_transcript_an_agent_starts_anew(place: Resumed, gone: str) -> None:
    bead = place.world.create("a haiku")
    place.goes("claude", OVERLOADED)
    [file] = place.transcripts()
    text = file.read_text()
    file.unlink()
    match gone:
        case "other folder":
            file.write_text(json.dumps({**json.loads(text), "cwd": "/elsewhere"}))
        case "emptied":
            file.touch()
        case "link":
            (file.parent / "real").write_text(text)
            file.symlink_to(file.parent / "real")
    place.again(bead)
    place.goes("claude")
    assert [one["session"] for one in place.starts] == ["", ""]


@pytest.mark.parametrize("how", ["asked", "timeout", "stopped", "died", "rebooted", "failed check"])
def test_each_interruption_is_told_in_the_session(place: Resumed, how: str) -> None:
    bead = place.world.create("a haiku")
    check = f"sh -c 'test -e {place.home}/mended || {{ echo 2 tests failed; exit 1; }}'"
    words = {"timeout": ["--agent-timeout", "10s"], "failed check": ["--agent-check", check]}.get(how, [])
    if how == "failed check":
        place.goes("claude", "", *words)
        (place.home / "mended").touch()
    elif how in ("asked", "timeout"):
        place.goes("claude", ASKS if how == "asked" else "sleep 60", *words)
    else:
        interrupted(place, bead, how)
    if how == "asked":
        answer(place)
    else:
        place.again(bead)
    place.goes("claude", "", *words)
    assert [bool(one["session"]) for one in place.starts] == [False, True], place.runs(bead)
    expected = {
        "asked": "1. completed (question)",
        "timeout": "1. timeout after",
        "stopped": "Why: “cancelled by ",
        "died": "1. lost",
        "rebooted": "1. error",
        "failed check": "2 tests failed”",
    }
    prompt = place.starts[1]["prompt"]
    assert expected[how] in prompt
    assert ("> Take the blue one" in prompt) == (how == "asked")
    assert status(place.world, bead) == "closed"


def interrupted(place: Resumed, bead: str, how: str) -> None:
    """Let an agent work, and end its job from outside."""
    place.tell("does", "sleep 60")
    place.dispatch("--agent", "claude")
    until(lambda: "claimed by agent" in "\n".join(place.world.notes(bead)))
    job = str(metadata(place.world, bead)["job"])
    if how == "stopped":
        place.run("cancel", bead)
    else:
        os.kill(supervisor_of(place.jobs.path / job), signal.SIGKILL if how == "died" else signal.SIGTERM)
    place.ended()
    place.run("reap")


def answer(place: Resumed) -> None:
    listed = json.loads(place.world.run("list", "--label", "human", "--all", "--json").out)
    [question] = listed if isinstance(listed, list) else listed["issues"]
    tell(place.world, "close", question["id"], "--reason", "Take the blue one", actor="ada")


def test_a_removed_worktree_is_not_resumed_in(place: Resumed) -> None:
    bead = place.world.create("a haiku")
    for words in (["init", "-q"], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "0", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=place.world.db.parent, check=True)
    place.goes("claude", f"echo one > haiku.txt; {OVERLOADED}", "--agent-worktree")
    [file] = place.transcripts()
    folder = json.loads(file.read_text())["cwd"]
    assert (Path(folder) / "haiku.txt").exists()
    place.again(bead)
    place.goes("claude", OVERLOADED, "--agent-worktree")
    assert [bool(one["session"]) for one in place.starts] == [False, True]
    shutil.rmtree(folder)
    place.again(bead)
    place.goes("claude", "", "--agent-worktree")
    assert [bool(one["session"]) for one in place.starts] == [False, True, False]
