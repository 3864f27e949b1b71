"""Lanes: several agents, assignees and trackers in one bdauto."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdauto.sandbox import Sandbox
from tests.support.cli import REAL_FLAVOURS, dispatch, finish, make_world, metadata, posted, reap, run, start, tell
from tests.support.patience import seconds
from tests.support.running_loop import Loop

Ran = Callable[[], list[list[str]]]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """What the agents' stub has noted: for each run the words that it was given, its bead and its actor."""

    def found() -> list[list[str]]:
        log = tmp_path / "ran"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    return found


def written(tmp_path: Path, text: str, world: Sandbox, says: str = "") -> str:
    """Write a configuration file in which STUB is the agents' stub. It closes its bead, unless it `dies`.

    Its output ends with what it `says`.
    """
    stub, close = tmp_path / "stub", f'[ "$1" != dies ] && {world.bd_path} close "$2" -r done'
    stub.write_text(f"#!/bin/sh\necho \"$1 $2 $BEADS_ACTOR\" >> {tmp_path}/ran\n{close}\necho '{says}'\n")
    stub.chmod(0o700)
    text = text.replace("FIRST", str(world.db))
    file = tmp_path / "lanes.toml"
    file.write_text(text.replace("STUB", str(tmp_path / "stub")))
    file.chmod(0o600)
    return str(file)


def variables(tmp_path: Path) -> dict[str, Any]:
    """Return the environment: a jobs folder of the test's own, and no BeadBoard."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "BEADBOARD_URL": "", "BDAUTO_DB": ""}


def wait_until(true: Callable[[], bool], limit: float = 240) -> None:
    end = time.monotonic() + seconds(limit)
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.5)


FOUR = """
assignee = "agent"
db = "FIRST"
slots = 6
agent_command = "STUB plain {id}"

[lanes.docs]
labels = ["docs"]
agent_command = "STUB small-model {id}"

[lanes.checked]
types = ["bug"]
agent_command = "STUB checked {id}"
agent_check = ["true"]

[lanes.ann]
assignee = "ann"

[lanes.web]
db = "OTHER"
agent_command = "STUB web {id}"
"""


@pytest.mark.real_bd
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("each", [15])
def test_each_bead_goes_once_to_its_lane(each: int, request: pytest.FixtureRequest, tmp_path: Path, ran: Ran) -> None:
    with make_world(request, "real-server") as first, make_world(request, "real-embedded") as second:
        file = written(tmp_path, FOUR.replace("OTHER", str(second.db)), first)
        kinds = {"small-model": ("-l", "docs"), "checked": ("-t", "bug"), "plain": ("-a", "ann")}
        wanted = {}
        for number in range(each):
            for word, options in kinds.items():
                wanted[create(first, *options, title=f"{word} {number}")] = word
            wanted[create(second, title=f"web {number}")] = "web"
        loop = Loop(first, "--config", file, "--reap-every", "1m", **variables(tmp_path))
        wait_until(lambda: len(ran()) >= len(wanted) or loop.process.poll() is not None, 900)
        time.sleep(1)
        loop.stop()
        found = ran()
        assert Counter(bead for _, bead, _ in found) == Counter(dict.fromkeys(wanted, 1)), "each bead once"
        assert {bead: word for word, bead, _ in found} == wanted
        assert {actor for word, _, actor in found if word == "plain"} == {"ann"}
        assert len(wanted) == 4 * each


def create(world: Sandbox, *options: str, title: str = "a bead") -> str:
    """Create a bead that may be dispatched."""
    done = world.run("create", title, "-a", "agent", "--acceptance", "it works", *options, "--json")
    return str(json.loads(done.out)["id"])


TWO = """
assignee = "agent"
db = "FIRST"
slots = 2
trip_after = 1

[lanes.hard]
priorities = [0, 1]
agent_command = "STUB dies {id}"
fallback = "docs"

[lanes.docs]
labels = ["docs"]
agent_command = "STUB docs {id}"
"""


@pytest.mark.parametrize("flavour", ["embedded", *REAL_FLAVOURS[:2]])
def test_a_suspended_lane_leaves_its_beads_to_its_fallback(
    flavour: str, request: pytest.FixtureRequest, tmp_path: Path, ran: Ran
) -> None:
    state = variables(tmp_path)
    with make_world(request, flavour) as world:
        file = written(tmp_path, TWO, world)
        hard, docs = create(world, "-p", "0"), create(world, "-l", "docs", "-p", "2")
        options = ("--config", file, "--max", "5")
        assert dispatch(world, *options, **state).outcomes == {hard: "dispatched", docs: "dispatched"}
        wait_until(lambda: len(ran()) == 2)
        assert sorted(word for word, *_ in ran()) == ["dies", "docs"]
        wait_until(lambda: reap(world, "--config", file, **state).outcomes.get(hard, "kept") != "kept")
        said = run(world, "status", "--json", "--config", file, **state).json["lanes"]
        assert said["hard"]["suspended"], "its agent dies"
        assert not said["docs"]["suspended"], "a lane holds itself and no other"
        tell(world, "update", hard, "--unset-metadata", "bdauto.retry_at")
        assert run(world, "explain", hard, "--config", file, **state).code == 0
        report = dispatch(world, *options, **state).json
        assert {(bead["id"], bead["lane"]) for bead in report["beads"]} == {(hard, "docs")}
        wait_until(lambda: len(ran()) == 3)
        assert ran()[-1][:2] == ["docs", hard]
        reap(world, "--config", file, **state)
        assert run(world, "resume", "--config", file, **state).code == 0
        again = create(world, "-p", "1")
        report = dispatch(world, *options, **state).json
        assert {(bead["id"], bead["lane"]) for bead in report["beads"]} == {(again, "hard")}, "its beads are back"


def test_a_bead_that_no_lane_takes_is_named(tmp_path: Path) -> None:
    with Sandbox() as world:
        file = written(tmp_path, TWO, world)
        bead = create(world, "-p", "3")
        state = variables(tmp_path)
        assert dispatch(world, "--config", file, **state).json["beads"] == []
        assert "In no lane, so not dispatched: 1" in run(world, "status", "--config", file, **state).out
        said = run(world, "explain", bead, "--config", file, **state).out
        assert "no lane takes it: not hard: priority 3 is not 0 or 1, not docs:" in " ".join(said.split())


OVERLAPPING = (
    '[lanes.a]\nlabels = ["docs"]\n[lanes.b]\npriorities = [0, 1]\nfallback = "rest"\n[lanes.rest]\n',
    "[lanes.x]\npriorities = [0]\n[lanes.rest]\n",
)
"""The lanes of two files that take the same beads."""


def owners_of(urgent: int, docs: int) -> set[str]:
    """Return the lane of a bead in each of both files."""
    return {"a" if docs else "b" if urgent < 2 else "rest", "rest" if urgent else "x"}


@pytest.mark.parametrize("flavour", ["server", *REAL_FLAVOURS[:1]])
def test_no_bead_is_posted_twice_by_processes_with_other_lanes(
    flavour: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with make_world(request, flavour) as world:
        world.board.capacity = 100
        owners = {}
        for number in range(16):
            bead = create(world, "-p", str(number % 3), *(["-l", "docs"] * (number % 2)))
            owners[bead] = owners_of(number % 3, number % 2)
        files = []
        for number, text in enumerate(OVERLAPPING):
            files.append(tmp_path / f"{number}.toml")
            files[-1].write_text(text)
            files[-1].chmod(0o600)
        processes = [start(world, "dispatch", "--max", "3", "--config", str(files[n % 2])) for n in range(16)]
        for process in processes:
            finish(process, world)
        first = len(posted(world))
        dispatch(world, "--max", "16", "--config", str(files[0]))  # what they left to each other
        assert Counter(posted(world)) == Counter(dict.fromkeys(owners, 1)), "each once"
        assert first >= 3
        wrong = {bead: lane for bead in owners if (lane := metadata(world, bead).get("lane")) not in owners[bead]}
        assert wrong == {}, "each by its lane in one of the files"


BUDGETS = """
assignee = "agent"
db = "FIRST"
slots = 4

[lanes.dear]
priorities = [0, 1]
agent_command = "STUB dear {id}"
max_cost_per_day = 1
fallback = "cheap"

[lanes.cheap]
labels = ["docs"]
agent_command = "STUB cheap {id}"
max_per_day = 3
"""


@pytest.mark.parametrize("flavour", ["server", *REAL_FLAVOURS[:1]])
def test_a_lane_over_its_budget_hands_over_and_no_lane_spends_more(
    flavour: str, request: pytest.FixtureRequest, tmp_path: Path, ran: Ran
) -> None:
    state = variables(tmp_path)
    with make_world(request, flavour) as world:
        file = written(tmp_path, BUDGETS, world, says='{"result": "done", "total_cost_usd": 0.6}')

        def dispatched() -> dict[str, str]:
            """Dispatch, wait until the costs are recorded, and return which lane has dispatched each bead."""
            report = dispatch(world, "--config", file, "--max", "5", **state).json
            found = {bead["id"]: bead["lane"] for bead in report["beads"] if bead["outcome"] == "dispatched"}

            def recorded() -> bool:
                reap(world, "--config", file, **state)
                return all(metadata(world, bead).get("result") not in (None, "running") for bead in found)

            wait_until(recorded)
            return found

        for _ in range(2):
            bead = create(world, "-p", "0")
            assert dispatched() == {bead: "dear"}, "its budget is not spent"
        third = create(world, "-p", "0")
        assert dispatched() == {third: "cheap"}, "1.20 of 1.00 are spent: its fallback takes over"
        docs = [create(world, "-l", "docs", "-p", "2") for _ in range(3)]
        found = dispatched()
        assert (len(found), {*found.values()}) == (2, {"cheap"}), "three a day, the one of the other lane counts"
        assert {*found} < {*docs}
        last = create(world, "-p", "0")
        assert dispatched() == {}, "both have reached a limit"
        said = run(world, "status", "--json", "--config", file, **state).json["lanes"]
        assert "$1.20 spent in 24 hours" in said["dear"]["limited"]
        assert "3 dispatched in 24 hours, at most 3" in said["cheap"]["limited"]
        assert Counter(word for word, *_ in ran()) == {"dear": 2, "cheap": 3}
        assert last not in {one for _, one, _ in ran()}
