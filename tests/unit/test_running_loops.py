"""What commands know of the agent that a `bdauto run` on this machine was given."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.agents.local.settings import AgentName
from bdauto.bd.tracker import tracker_of
from bdauto.cli.context import open_runner
from bdauto.cli.running_loops import RunningLane, given_to_run, lane_of, published
from bdauto.domain.settings import BdSettings

GIVEN: list[dict[str, Any]] = [
    {"agent": AgentName.claude, "agent_slots": 2, "agent_dir": Path("/work"), "agent_jobs": Path("/jobs")},
    {"agent_url": "http://127.0.0.1:1", "timeout": timedelta(seconds=5)},
    {"beadboard_url": "http://127.0.0.1:2"},
    {"kubernetes_template": "beads", "kubernetes_namespace": "agents"},
]
QUEUE = BdSettings()


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def lane(name: str = "", tracker: str = "t-1", **given: Any) -> RunningLane:
    return lane_of(tracker, QUEUE, name, kinds.complete(AgentSettings(**given)))


def seen(name: str = "", tracker: str = "t-1", bd: BdSettings = QUEUE, **own: Any) -> AgentSettings:
    return given_to_run(AgentSettings(**own), tracker, bd, name)


@pytest.mark.parametrize("given", GIVEN)
def test_a_command_knows_what_a_run_was_given_while_it_lives(given: dict[str, Any]) -> None:
    with published([lane(**given)]):
        assert seen() == kinds.complete(AgentSettings(**given))
    assert seen() == AgentSettings()


def test_what_a_command_was_given_itself_counts() -> None:
    with published([lane(agent=AgentName.claude)]):
        own = AgentSettings(agent_url="http://127.0.0.1:3")
        assert seen(agent_url="http://127.0.0.1:3") == own


def test_the_run_of_another_queue_says_nothing() -> None:
    with published([lane(agent=AgentName.claude)]):
        assert seen(tracker="t-2") == AgentSettings()
        assert seen(bd=BdSettings(assignee="other")) == AgentSettings()


def test_of_several_lanes_the_one_of_that_name_counts() -> None:
    with published([lane("day", agent=AgentName.claude), lane("night", agent=AgentName.codex)]):
        assert (seen("day").agent, seen("night").agent, seen("new").agent) == ("claude", "codex", "claude")


def test_a_run_that_was_killed_says_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "bdauto" / "running"
    with published([lane(agent=AgentName.claude)]):
        [file] = folder.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        left = file.read_bytes()
    (folder / "left").write_bytes(left)
    assert seen() == AgentSettings()
    with published([]):
        assert not (folder / "left").exists()
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("text", [b"", b"[", b'[{"tracker": 1}]', b'[{"tracker":"t-1","assignee":"agent","lane":"",'])
def test_a_file_that_makes_no_sense_is_ignored(tmp_path: Path, text: bytes) -> None:
    with published([lane(agent=AgentName.claude)]):
        [file] = (tmp_path / "bdauto" / "running").iterdir()
        file.write_bytes(text)
        assert seen() == AgentSettings()


def test_options_of_a_later_version_are_ignored() -> None:
    for options in ({"agent": "hal"}, {"agent_slots": "many"}):
        with published([RunningLane("t-1", "agent", "", options)]):
            assert seen() == AgentSettings()


def test_what_cannot_be_used_here_stops_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell with another PATH, and a token that was removed since."""
    monkeypatch.setenv("PATH", str(tmp_path))
    gone = {"agent_url": "http://127.0.0.1:1", "agent_token_file": str(tmp_path / "gone")}
    bd = BdSettings(metadata=tmp_path / "metadata.json")
    for options in ({"agent": "claude"}, gone):
        with published([RunningLane(tracker_of(bd), "agent", "", options)]):
            assert open_runner(AgentSettings(), bd) is None


def test_an_option_of_a_later_version_does_not_hide_the_others() -> None:
    with published([RunningLane("t-1", "agent", "", {"agent": "claude", "agent_mood": "good"})]):
        assert seen().agent == "claude"


def test_a_state_folder_that_cannot_be_written_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with published([lane(agent=AgentName.claude)]):
        assert seen() == AgentSettings()


def test_a_folder_that_others_may_write_to_is_not_believed(tmp_path: Path) -> None:
    with published([lane(agent=AgentName.claude)]):
        os.chmod(tmp_path / "bdauto" / "running", 0o777)  # noqa: PTH101
        assert seen() == AgentSettings()
