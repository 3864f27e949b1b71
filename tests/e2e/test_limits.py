"""The limits on a day's dispatches, through the command line."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bdauto.sandbox import Sandbox
from tests.support.cli import dispatch, posted, reap, run


def test_so_many_a_day(world: Sandbox) -> None:
    """Of three beads and two slots for the day, two are dispatched; the third waits, and status and explain say so."""
    world.board.capacity = 10
    beads = [world.create() for _ in range(3)]
    limit = ("--max-per-day", "2")
    done = dispatch(world, "--max", "5", *limit)
    assert (done.code, len(posted(world))) == (0, 2), done
    again = dispatch(world, *limit)
    assert (again.code, again.json["outcome"], len(posted(world))) == (0, "limited", 2)
    words = "2 dispatched in 24 hours, at most 2; goes on at "
    assert again.json["detail"].startswith(words)
    waiting = next(bead for bead in beads if bead not in posted(world))
    explained = run(world, "explain", waiting, "--json", *limit).json
    assert [c["detail"] for c in explained["conditions"] if c["name"] == "limit"] == [explained["limited"]]
    assert explained["limited"].startswith(words)
    assert explained["verdict"].startswith("next, but nothing is dispatched now: ")
    assert words.strip() in " ".join(run(world, "status", *limit).out.split())
    assert dispatch(world, "--max-per-day", "3").outcomes == {waiting: "dispatched"}


def test_so_much_a_day(either: Sandbox) -> None:
    either.create()
    dispatch(either, agent=True)
    [job] = either.board.jobs
    either.board.finish(job, json.dumps({"total_cost_usd": 7.5}))
    reap(either, agent=True)
    either.create()
    assert dispatch(either, "--max-cost-per-day", "7.50").json["outcome"] == "limited"
    assert dispatch(either, "--max-cost-per-day", "7.51").json["outcome"] == "dispatched"


def test_what_is_no_limit_is_a_usage_error(sandbox: Sandbox) -> None:
    for words in (("--active-hours", "22:00-07:00 Mars/Base"), ("--max-per-day", "0"), ("--max-cost-per-day", "free")):
        done = dispatch(sandbox, *words)
        assert (done.code, done.complaint.startswith(f"bdauto: {words[0]} ")) == (2, True), done
    assert dispatch(sandbox, BDAUTO_ACTIVE_HOURS="x").code == 2


@pytest.mark.parametrize("command", ["dispatch", "status", "explain"])
def test_outside_the_active_hours(sandbox: Sandbox, command: str) -> None:
    bead = sandbox.create()
    words = [command, *([bead] if command == "explain" else []), "--json", "--active-hours", hours_ahead()]
    found = run(sandbox, *words).json
    assert "outside the active hours" in (found["detail"] if command == "dispatch" else found["limited"])
    assert posted(sandbox) == []


def hours_ahead() -> str:
    """Return hours that begin in six hours."""
    start = datetime.now(UTC) + timedelta(hours=6)
    return f"{start:%H:%M}-{start + timedelta(hours=1):%H:%M} UTC"
