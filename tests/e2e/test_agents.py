"""Agents that are named, from start to record, on stand-ins that stream as the real ones do."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.local.jobs import Jobs
from bdauto.sandbox import Sandbox
from tests.support.cli import REAL_FLAVOURS, Done, finish, forget_backoff, make_world, metadata, run, start, status
from tests.support.patience import seconds
from tests.support.stub_agents import install

EMBEDDED = ["embedded", next(flavour for flavour in REAL_FLAVOURS if flavour.values == ("real-embedded",))]


class Place:
    """A workspace, a jobs' folder, and a folder on PATH with the agents."""

    def __init__(self, world: Sandbox) -> None:
        self.world = world
        self.jobs = Jobs(world.folder / "jobs")
        self.bin = install(world.folder / "agents")
        self.env: dict[str, Any] = {
            "BEADBOARD_URL": "",
            "BD": str(world.bd_path),
            "BDAUTO_AGENT_JOBS": str(self.jobs.path),
            "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]]),
        }

    def run(self, *words: str, **env: Any) -> Done:
        return run(self.world, *words, **{**self.env, **env})

    def dispatch(self, *words: str, **env: str) -> Done:
        return self.run("dispatch", "--json", *words, **env)

    def tell(self, name: str, text: str = "") -> Path:
        """Tell the stand-ins something by a file."""
        file = self.bin / name
        file.write_text(text)
        return file

    def ended(self) -> None:
        """Wait until no job runs."""
        until(lambda: not self.jobs.running())


def until(true: Callable[[], object], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


@pytest.fixture(params=EMBEDDED)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with make_world(request, request.param) as world:
        made = Place(world)
        yield made
        for job in made.jobs.running():
            made.jobs.stop(job, "the test's end")
        made.ended()


SAID: dict[str, dict[str, Any]] = {
    "claude": {"cost_usd": 0.1234, "tokens": 135, "turns": 7, "session": "c-1", "detail": "Wrote the haiku."},
    "codex": {"cost_usd": None, "tokens": 950, "turns": 1, "session": "0199-codex", "detail": "The haiku is written."},
    "gemini": {"cost_usd": None, "tokens": 1200, "turns": None, "session": "g-1", "detail": "The haiku is done."},
    "opencode": {"cost_usd": 0.035, "tokens": 200, "turns": 2, "session": "ses_1", "detail": "All done."},
}


def test_the_record_of_a_run_is_what_its_agent_said(place: Place) -> None:
    expected = {}
    for agent, said in SAID.items():
        bead = place.world.create(f"a haiku by {agent}")
        assert place.dispatch("--agent", agent).outcomes == {bead: "dispatched"}
        place.ended()
        assert place.run("reap").code == 0
        assert status(place.world, bead) == "closed"
        expected[bead] = {"title": f"a haiku by {agent}", "agent": agent, "result": "closed", "why": "ok", **said}
    runs = place.run("runs", "--json").json["runs"]
    assert [run["bead"] for run in runs] == [*expected][::-1]
    assert {run["bead"]: {key: run[key] for key in expected[run["bead"]]} for run in runs} == expected
    [one] = place.run("runs", "--json", "--bead", runs[0]["bead"]).json["runs"]
    assert one == runs[0]


def test_a_limit_in_the_middle_of_work_blocks_and_charges_no_bead(place: Place) -> None:
    """Five beads, two slots. The breaker stays open until the stated time, then one tries, then all go."""
    beads = [place.world.create(f"bead {n}") for n in range(5)]
    words = ("--agent", "claude", "--agent-slots", "2", "--max", "5")
    swept: list[Done] = []
    while not swept or swept[-1].code == 0:
        assert len(swept) < 3
        resets_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds(30))
        limit = place.tell("limit", str(int(resets_at.timestamp())))
        assert len(place.dispatch(*words).json["beads"]) >= 2
        place.ended()
        swept.append(place.run("reap", "--json"))
        assert {status(place.world, bead) for bead in beads} == {"open"}
    assert swept[-1].code == 4
    assert all("attempts" not in metadata(place.world, bead) for bead in beads)
    shown = place.run("status", "--json").json
    assert shown["suspended_until"] == f"{resets_at:%Y-%m-%dT%H:%M:%SZ}"
    assert place.dispatch(*words).json["outcome"] == "suspended"
    until(lambda: datetime.now(UTC) > resets_at, seconds(90))
    limit.unlink()
    forget_backoff(place.world, *beads)
    assert len([one for one in place.dispatch(*words).json["beads"] if one["outcome"] == "dispatched"]) == 1
    for _ in range(5):
        place.ended()
        assert place.run("reap").code == 0
        if {status(place.world, bead) for bead in beads} == {"closed"}:
            break
        place.dispatch(*words)
    assert {status(place.world, bead) for bead in beads} == {"closed"}
    assert {run["why"] for run in place.run("runs", "--json").json["runs"]} == {"ok", "limit"}


def test_what_an_agent_does_is_seen_while_it_works(place: Place) -> None:
    bead = place.world.create("a haiku")
    waits = place.tell("wait")
    place.dispatch("--agent", "claude")
    until(lambda: "$ bd note" in place.run("logs", bead).out)
    [running] = place.run("status", "--json").json["in_progress"]
    assert running["last_event"] == f"$ bd note {bead} hello"
    assert running["last_event_seconds"] < 60
    assert f"ago: $ bd note {bead} hello" in " ".join(place.run("status").out.split())
    [run] = place.run("runs", "--json").json["runs"]
    assert (run["ended"], run["result"], run["agent"]) == (None, "running", "claude")
    follower = start(place.world, "logs", bead, "--follow", **place.env)
    time.sleep(1)
    waits.unlink()
    followed = finish(follower, place.world).out.splitlines()
    assert followed == ["● session c-1, claude-haiku", f"$ bd note {bead} hello", "■ ok: Wrote the haiku."]
    raw = place.run("logs", bead, "--raw").out
    assert [json.loads(line)["type"] for line in raw.splitlines()] == ["system", "assistant", "result"]


def test_a_run_that_costs_too_much_is_ended(place: Place) -> None:
    bead = place.world.create("a long story")
    place.tell("spend")
    place.dispatch("--agent", "opencode", "--max-cost-per-run", "1")
    place.ended()
    swept = place.run("reap", "--json")
    assert swept.outcomes == {bead: "blocked"}
    [run] = place.run("runs", "--json").json["runs"]
    assert (run["result"], run["why"]) == ("failed", "budget")
    assert run["cost_usd"] > 1
    assert "more than $1.00" in run["detail"]
    assert "raise its limit of costs, or split the bead" in swept.json["beads"][0]["detail"]


def test_a_limit_on_costs_that_cannot_hold_is_refused(place: Place) -> None:
    bead = place.world.create("a haiku")
    refused = place.dispatch("--agent", "codex", "--max-cost-per-day", "5")
    assert refused.code == 2
    assert "codex does not say what a run costs; give --cost-per-run USD" in refused.complaint
    assert place.dispatch("--agent", "gemini", "--max-cost-per-run", "1").code == 2
    misspelt = place.dispatch("--agent", "claude", BDAUTO_MAX_COST_PER_DAYS="5")
    assert misspelt.code == 2
    assert "did you mean BDAUTO_MAX_COST_PER_DAY?" in misspelt.complaint
    assert status(place.world, bead) == "open"
    assert place.dispatch("--agent", "codex", "--max-cost-per-day", "5", "--cost-per-run", "5").outcomes
    place.ended()
    place.world.create("another")
    limited = place.dispatch("--agent", "codex", "--max-cost-per-day", "5", "--cost-per-run", "5")
    assert (limited.code, limited.json["outcome"]) == (0, "limited")


def test_doctor_says_the_version_of_an_agent_and_who_may_not_run_bd(place: Place) -> None:
    found = place.run("doctor", "--agent", "claude").out
    assert "2.1.34 (Claude Code); bdauto was written for 1.0 to 2.1" in " ".join(found.split())
    found = place.run("doctor", "--agent-command", "claude -p --permission-mode acceptEdits").out
    assert "claude may not run bd" in " ".join(found.split())
    slow = place.tell("slow", "#!/bin/sh\nsleep 60\n")
    slow.chmod(0o700)
    slow.replace(place.bin / "gemini")
    began = time.monotonic()
    found = place.run("doctor", "--agent", "gemini").out
    assert time.monotonic() - began < 55
    assert "did not end within 10s" in " ".join(found.split())


def test_an_agent_that_a_git_hook_starts_commits_on_its_own_branch(place: Place) -> None:
    """The hook is one of a linked worktree, in which somebody has staged a file."""
    root, linked = place.world.db.parent, place.world.folder / "linked"

    def git(*words: str, at: Path = root) -> str:
        told = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *words]
        return subprocess.run(told, cwd=at, capture_output=True, text=True, check=True).stdout

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", "-b", "mine", str(linked))
    (linked / "staged").write_text("mine\n")
    git("add", "staged", at=linked)
    folder = git("rev-parse", "--absolute-git-dir", at=linked).strip()
    before = git("ls-files", "-s", at=linked)
    bead = place.world.create("a commit")
    identity = "-c user.name=a -c user.email=a@a"
    script = f"cat >/dev/null; echo 1 >work; git add work; git {identity} commit -qm work; $BD close $BEAD_ID"
    hook = {"GIT_DIR": folder, "GIT_INDEX_FILE": f"{folder}/index", "GIT_PREFIX": "", "GIT_WORK_TREE": str(linked)}
    assert place.dispatch("--agent-command", f"sh -c '{script}'", "--agent-worktree", **hook).outcomes
    place.ended()
    assert git("log", "-1", "--format=%s", f"agent/{bead}").strip() == "work"
    assert git("log", "-1", "--format=%s", "mine").strip() == "first"
    assert git("ls-files", "-s", at=linked) == before
