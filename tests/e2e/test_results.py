"""How jobs ended, recorded on their beads, from the dispatch to the report: the agent service's, and this machine's."""

import json
from typing import Any

import pytest

from bdauto.sandbox import Sandbox
from tests.e2e.test_local_agent import RECORDED, Machine, machine, until
from tests.support.cli import dispatch, finish, metadata, reap, run, start, status, tell
from tests.support.recount import recount

__all__ = ["machine"]
CLAUDE = {"type": "result", "result": "Fixed it.", "num_turns": 12, "total_cost_usd": 0.42}
SUMS = {"cost_usd": "cost", "turns": "turns"}
KNOWN = {"result": "completed", "runs": 1, "cost_usd": 0.42, "turns": 12}


def recorded(world: Sandbox, bead: str) -> dict[str, Any]:
    """What is recorded of a bead's jobs, but for the times: the last result, how many ended, and their sums."""
    found = metadata(world, bead)
    runs = [run for run in json.loads(found.get("runs", "[]")) if run["ended"]]
    sums = {name: [run[key] for run in runs if run[key] is not None] for name, key in SUMS.items()}
    told = {"result": found["result"], "runs": len(runs)} if runs else {"result": found["result"]}
    return told | {name: round(sum(known), 4) for name, known in sums.items() if known}


def finish_notes(world: Sandbox, bead: str) -> list[str]:
    return [note for note in world.notes(bead) if note.startswith("agent finished: ")]


def job_of(world: Sandbox, bead: str) -> str:
    return world.board.job_of(bead).id


def test_a_bead_that_the_agent_closed(world: Sandbox) -> None:
    bead = world.create()
    dispatch(world, agent=True)
    assert recorded(world, bead) == {"result": "running"}
    assert reap(world, agent=True).outcomes == {bead: "kept"}
    job = job_of(world, bead)
    world.board.finish(job, json.dumps(CLAUDE))
    done = reap(world, agent=True)
    assert (done.code, done.json["outcome"], done.json["detail"]) == (
        0,
        "reaped",
        f"how the last run of {bead} ended is recorded",
    )
    [event] = [event for event in done.events if event["event"] == "result"]
    assert (event["bead"], event["job"], event["result"], event["cost_usd"]) == (bead, job, "closed", "0.42")
    assert recorded(world, bead) == KNOWN
    [note] = finish_notes(world, bead)
    assert note.startswith(f"agent finished: job={job} completed in ")
    assert ", $0.42 at " in note
    assert not note.endswith("Fixed it.")
    before = world.show(bead)
    reap(world, agent=True)
    assert world.show(bead) == before
    assert before["status"] == "closed"


def test_a_bead_that_the_agent_left_in_progress_and_then_closed(world: Sandbox) -> None:
    """The sums are over both attempts, and the report has them."""
    bead = world.create()
    dispatch(world, agent=True)
    first = job_of(world, bead)
    world.board.end(first, "failed", json.dumps(CLAUDE | {"result": "I could not."}))
    assert reap(world, agent=True).outcomes == {bead: "blocked"}
    [note] = finish_notes(world, bead)
    assert note.endswith("Z: I could not.")
    assert recorded(world, bead) == KNOWN | {"result": "failed"}
    tell(world, "update", bead, "-s", "open")
    dispatch(world, agent=True)
    assert recorded(world, bead) == KNOWN | {"result": "running"}
    world.board.finish(job_of(world, bead), json.dumps(CLAUDE))
    reap(world, agent=True)
    assert recorded(world, bead) == {"result": "completed", "runs": 2, "cost_usd": 0.84, "turns": 24}
    total = run(world, "report", "--json").json["total"]
    assert (total["dispatched"], total["closed"], total["closed_first"], total["failed"]) == (2, 1, 0, 1)
    assert (total["cost_usd"], total["costed"], total["running"]["count"]) == (0.84, 2, 2)


def test_a_bead_that_the_agent_blocked(world: Sandbox) -> None:
    bead = world.create()
    dispatch(world, agent=True)
    tell(world, "update", bead, "-s", "blocked", actor="agent")
    world.board.end(job_of(world, bead), "completed", "one\nI need a key\n")
    reap(world, agent=True)
    assert recorded(world, bead) == {"result": "completed", "runs": 1}
    assert finish_notes(world, bead)[0].endswith("Z: I need a key")
    assert status(world, bead) == "blocked"


def test_a_job_that_the_service_forgot(world: Sandbox) -> None:
    bead = world.create()
    dispatch(world, agent=True)
    job = job_of(world, bead)
    world.board.finish(job)
    world.board.forget(job)
    reap(world, agent=True)
    assert recorded(world, bead) == {"result": "lost", "runs": 1}
    assert " lost at " in finish_notes(world, bead)[0]


def test_sweeps_at_once_record_an_end_once(world: Sandbox) -> None:
    bead = world.create()
    dispatch(world, agent=True)
    world.board.finish(job_of(world, bead), json.dumps(CLAUDE))
    sweeps = [start(world, "reap", "--json", agent=True) for _ in range(4)]
    assert {finish(sweep, world).code for sweep in sweeps} == {0}
    assert recorded(world, bead) == KNOWN
    assert len(finish_notes(world, bead)) == 1


PRINTS = f"""
{RECORDED}
$BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"
echo '{json.dumps(CLAUDE)}'
"""


@pytest.mark.parametrize("ending", ["$BD close $BEAD_ID --reason ok", ":"], ids=["closed", "left"])
def test_a_job_of_this_machine(machine: Machine, ending: str) -> None:
    machine.does(PRINTS + ending)
    bead = machine.world.create()
    machine.dispatch()
    machine.ended()
    assert machine.run("reap", "--json").code == 0
    assert recorded(machine.world, bead) == KNOWN
    assert finish_notes(machine.world, bead)[0].endswith("Fixed it.") is (ending == ":")
    explained = machine.run("explain", bead, "--json").json
    result = "failed" if ending == ":" else "closed"
    assert (explained["result"], explained["runs"], explained["cost_usd"]) == (result, 1, 0.42)
    tell(machine.world, "update", bead, "-s", "open")
    assert machine.run("runs", "--json").json["runs"][0]["result"] == result, "it stays"


def test_a_cancelled_job(machine: Machine) -> None:
    machine.does('echo "working"; sleep 300')
    bead = machine.world.create()
    machine.dispatch()
    until(machine.jobs.running)
    assert machine.run("cancel", bead).code == 0
    machine.run("reap", "--json")
    assert recorded(machine.world, bead) == {"result": "stopped", "runs": 1}
    assert "cancelled by " in finish_notes(machine.world, bead)[0]


FORGES = r"""
$BD note $BEAD_ID "auto-dispatcher claimed at $(date -u +%Y-%m-%dT%H:%M:%SZ)
agent finished: job=f1 completed in 1m, \$900.00 at $(date -u +%Y-%m-%dT%H:%M:%SZ)" >/dev/null 2>&1
"""


def test_an_agent_s_notes_are_no_figures(machine: Machine) -> None:
    """It forges notes like bdauto's own, and somebody rewrites all of them: neither changes what is counted."""
    machine.does(PRINTS + FORGES * 3 + "$BD close $BEAD_ID --reason ok")
    bead = machine.world.create()
    machine.dispatch()
    machine.ended()
    machine.run("reap", "--json")
    for notes in ("", "nothing happened here"):
        if notes:
            tell(machine.world, "update", bead, "--notes", notes)
        total = machine.run("report", "--json").json["total"]
        assert (total["dispatched"], total["cost_usd"]) == (1, 0.42)
    machine.world.create()
    held = machine.dispatch("--dry-run", "--max-cost-per-day", "0.42").json
    assert held["detail"].startswith("$0.42 spent in 24 hours, at most $0.42")
    free = machine.dispatch("--dry-run", "--max-per-day", "2", "--max-cost-per-day", "1").json
    assert free["outcome"] == "dispatched"


def test_a_bead_that_its_agent_deletes_takes_no_cost_along(machine: Machine) -> None:
    machine.does(PRINTS + "$BD delete $BEAD_ID --force >/dev/null")
    bead = machine.world.create()
    machine.dispatch()
    machine.ended()
    assert machine.run("explain", bead).code != 0
    machine.world.create()
    for limit in (("--max-per-day", "1"), ("--max-cost-per-day", "0.42")):
        assert machine.dispatch(*limit).json["outcome"] == "limited"
    assert machine.dispatch("--max-per-day", "2", "--max-cost-per-day", "0.43").json["outcome"] == "dispatched"


def test_the_report_says_what_an_independent_count_says(world: Sandbox) -> None:
    """Of some beads with every end there is: each figure, by day, label, type and creator."""
    world.board.capacity = 3
    for number in range(4):
        world.create(f"bead {number}", type=("task", "bug")[number % 2], more=["-l", ("api", "web")[number % 2]])
    dispatch(world, "--max", "3", agent=True)
    first, second, third = (job.id for job in world.board.jobs.values())
    world.board.finish(first, json.dumps(CLAUDE))
    world.board.end(second, "error", "no key for x-17")
    tell(world, "update", world.board.jobs[third].bead, "-s", "blocked", actor="agent")
    world.board.end(third, "timeout", json.dumps(CLAUDE | {"total_cost_usd": 1.5}))
    reap(world, agent=True)
    dispatch(world, agent=True)
    for by in ("day", "label", "type", "creator"):
        report = run(world, "report", "--json", "--by", by).json
        counted = recount(exported(world), report["since"], report["until"], by)
        assert counted == {key: report[key] for key in counted}
    assert report["total"]["ended"] >= 3


def exported(world: Sandbox) -> list[dict[str, Any]]:
    """All beads, as JSON lines hold them."""
    found: list[dict[str, Any]] = json.loads(world.run("list", "--all", "--limit", "0", "--json").out)
    return found
