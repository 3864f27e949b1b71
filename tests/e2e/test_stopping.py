"""Who changed a running bead decides about its job: another person's change ends it, the agent's own never does."""

import json
import time
from typing import Any

import pytest

from tests.e2e.test_local_agent import RECORDED, Machine, machine, until
from tests.support.cli import Done, metadata, status, tell
from tests.support.patience import seconds

__all__ = ["machine"]

SIGNS = f'{RECORDED}\n$BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"'
WORKS = f"{SIGNS}\nsleep 3000"

CHANGES = {
    "close": (["close", "{id}", "--reason", "not needed"], "closed the bead"),
    "block": (["update", "{id}", "-s", "blocked"], "set the bead to blocked"),
    "defer": (["update", "{id}", "-s", "deferred"], "set the bead to deferred"),
    "reassign": (["update", "{id}", "-a", "bob"], "gave the bead to bob"),
    "take away": (["update", "{id}", "-a", ""], "took the bead from the agent"),
}
"""What somebody does to a bead, and how bdauto says so."""


def began(machine: Machine, script: str = WORKS) -> str:
    """Dispatch a bead, and wait until its agent has signed it."""
    machine.does(script)
    bead = machine.world.create("Fix it")
    assert machine.dispatch().outcomes == {bead: "dispatched"}
    until(lambda: "claimed by agent" in "\n".join(machine.world.notes(bead)))
    return bead


def changed_by(machine: Machine, actor: str, bead: str, words: list[str]) -> None:
    """Change a bead as somebody. bd 1.3 wants --force for what belongs to somebody else, and older ones refuse it."""
    filled = [word.replace("{id}", bead) for word in words]
    forced = "--force" in machine.world.run(words[0], "--help", actor=actor).out
    tell(machine.world, *filled, *(["--force"] if forced else []), actor=actor)


def swept(machine: Machine) -> Done:
    return machine.run("reap", "--json", command="true")


@pytest.mark.parametrize("what", CHANGES)
def test_somebody_s_change_ends_the_job_uncharged(machine: Machine, what: str) -> None:
    bead = began(machine)
    words, did = CHANGES[what]
    changed_by(machine, "ada", bead, words)
    after = machine.world.show(bead)
    [told] = swept(machine).json["beads"]
    assert (told["id"], told["outcome"], told["detail"]) == (bead, "stopping", f"ada {did}")
    machine.ended()
    swept(machine)
    notes = [note for note in machine.world.notes(bead) if note.startswith("agent finished")]
    assert len(notes) == 1
    assert " stopped in " in notes[0]
    assert notes[0].endswith(f": ada {did}")
    now = machine.world.show(bead)
    assert (now["status"], now.get("assignee")) == (after["status"], after.get("assignee"))
    [run] = json.loads(metadata(machine.world, bead)["runs"])
    assert (run["result"], run["why"]) == ("stopped", "stopped")


@pytest.mark.parametrize("what", CHANGES)
def test_the_agent_s_own_change_does_not_end_its_job(machine: Machine, what: str) -> None:
    words = " ".join(f"'{word}'" if not word or " " in word else word for word in CHANGES[what][0])
    bead = began(
        machine, f"{SIGNS}\n$BD {words.replace('{id}', '$BEAD_ID')} && touch {machine.world.folder}/did\nsleep 3000"
    )
    until(lambda: (machine.world.folder / "did").exists())
    assert {one["outcome"] for one in swept(machine).json["beads"]} <= {"kept"}
    assert machine.jobs.running()
    assert status(machine.world, bead) != "open"


PHASES = {
    "before its first note": "sleep 3000",
    "at work": "$BD note $BEAD_ID 'claimed by agent'; touch $HERE/ready-$BEAD_ID; sleep 3000",
    "in a tool call": """echo '{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Bash",'
echo '"input":{"command":"make"}}]},"session_id":"s"}'; sleep 3000""",
    "in its check": "exit 0",
}
"""What an agent is at when somebody changes its bead."""
UNASSIGNED = ["update", "{id}", "-a", ""]
TAKEN = ["update", "{id}", "-a", "agent-2"]
CLOSED, BLOCKED = CHANGES["close"][0], CHANGES["block"][0]
TITLE, PRIORITY = ["update", "{id}", "--title", "Another"], ["update", "{id}", "-p", "0"]
CASES: list[tuple[str, str, str, list[list[str]], bool]] = [
    ("at work", "ada", "closes", [CLOSED], False),
    ("at work", "ada", "blocks", [BLOCKED], False),
    ("at work", "ada", "defers", [CHANGES["defer"][0]], False),
    ("at work", "ada", "gives to bob", [CHANGES["reassign"][0]], False),
    ("at work", "ada", "takes away", [UNASSIGNED], False),
    ("at work", "agent-2", "closes", [CLOSED], False),
    ("at work", "agent-2", "takes for itself", [TAKEN], False),
    ("at work", "ada", "deletes", [["delete", "{id}", "--force"]], True),
    ("at work", "ada", "changes the priority", [PRIORITY], True),
    ("at work", "ada", "changes the title", [TITLE], True),
    ("at work", "ada", "comments", [["comment", "{id}", "how is it?"]], True),
    ("at work", "ada", "notes", [["note", "{id}", "use the blue one"]], True),
    ("at work", "ada", "opens", [["update", "{id}", "-s", "open"]], True),
    ("at work", "ada", "closes and opens", [CLOSED, ["update", "{id}", "-s", "open"]], True),
    ("at work", "beads-dispatcher", "notes", [["note", "{id}", "dispatched: job=x"]], True),
    ("at work", "agent", "closes", [CLOSED], True),
    ("at work", "agent", "blocks", [BLOCKED], True),
    ("at work", "agent", "defers", [CHANGES["defer"][0]], True),
    ("at work", "agent", "gives to bob", [CHANGES["reassign"][0]], True),
    ("at work", "agent", "takes away", [UNASSIGNED], True),
    ("at work", "agent", "notes and changes the priority", [["note", "{id}", "half done"], PRIORITY], True),
    ("at work", "agent, then ada", "closes, then the title", [CLOSED, TITLE], True),
    ("before its first note", "ada", "closes", [CLOSED], False),
    ("before its first note", "ada", "changes the title", [TITLE], True),
    ("in a tool call", "ada", "blocks", [BLOCKED], False),
    ("in a tool call", "ada", "gives to bob", [CHANGES["reassign"][0]], False),
    ("in a tool call", "agent", "closes", [CLOSED], True),
    ("in its check", "ada", "closes", [CLOSED], False),
    ("in its check", "agent-2", "takes for itself", [TAKEN], False),
    ("in its check", "ada", "notes", [["note", "{id}", "look at the log"]], True),
]
"""When, who, what, by which calls of bd, and whether the job goes on."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("phase", PHASES)
def test_who_did_what_and_when_decides_about_each_job(machine: Machine, phase: str) -> None:
    cases = [case for case in CASES if case[0] == phase]
    machine.does(f"HERE={machine.world.folder}; cd $HERE; until [ -e go ]; do sleep 0.1; done; {PHASES[phase]}")
    beads = [machine.world.create(f"{who} {what}") for _, who, what, _, _ in cases]
    check = ("--agent-check", "sleep 1500") if phase == "in its check" else ()
    sent = machine.dispatch("--max", "40", "--agent-slots", "40", *check)
    assert set(sent.outcomes) == set(beads)
    jobs = {bead: machine.job(bead) for bead in beads}
    (machine.world.folder / "go").touch()
    if phase == "at work":
        until(lambda: all((machine.world.folder / f"ready-{bead}").exists() for bead in beads))
    if phase == "in its check":
        until(lambda: all((machine.jobs.path / job / "step").exists() for job in jobs.values()))
    for bead, (_, who, _, calls, _) in zip(beads, cases, strict=True):
        actors = who.split(", then ")
        for number, words in enumerate(calls):
            changed_by(machine, actors[min(number, len(actors) - 1)], bead, words)
    swept(machine)
    ends = [bead for bead, case in zip(beads, cases, strict=True) if not case[4]]
    asked = time.monotonic()
    until(lambda: not any(machine.jobs.state(jobs[bead]) == "running" for bead in ends))
    assert time.monotonic() - asked < seconds(10)
    swept(machine)
    lives = {bead: machine.jobs.state(jobs[bead]) == "running" for bead in beads}
    wrong = {(who, what) for bead, (_, who, what, _, goes) in zip(beads, cases, strict=True) if lives[bead] != goes}
    assert not wrong


def test_an_agent_that_has_closed_its_bead_is_ended_after_a_while(machine: Machine) -> None:
    bead = began(machine, f"{SIGNS}\n$BD close $BEAD_ID && touch {machine.world.folder}/did\nsleep 300")
    until(lambda: (machine.world.folder / "did").exists())
    beads: list[dict[str, str]] = []

    def told() -> object:  # Dolt rounds the time up to a second
        beads.extend(machine.run("reap", "--json", "--agent-linger", "1ms", command="true").json["beads"])
        return beads

    until(told)
    assert [(one["id"], one["outcome"]) for one in beads] == [(bead, "stopping")]
    machine.ended()
    assert status(machine.world, bead) == "closed"


def test_a_deleted_bead_is_named_and_its_job_goes_on(machine: Machine) -> None:
    bead = began(machine)
    tell(machine.world, "delete", bead, "--force", actor="ada")
    [told] = swept(machine).json["beads"]
    assert (told["id"], told["outcome"]) == (bead, "unclear")
    assert "bd does not tell by whom" in told["detail"]
    assert machine.jobs.running()


def test_a_bead_that_a_person_opens_keeps_its_job(machine: Machine) -> None:
    bead = began(machine)
    changed_by(machine, "ada", bead, ["update", "{id}", "-s", "open"])
    assert swept(machine).json["beads"] == []
    assert machine.dispatch("--agent-slots", "2").outcomes == {bead: "reverted"}
    assert machine.jobs.running()


def test_a_pause_that_stops_ends_every_job_and_charges_nothing(machine: Machine) -> None:
    bead = began(machine)
    done: Any = machine.run("pause", "--stop", "--json", "deploy").json
    assert done["stopped"] == 1
    machine.ended()
    assert swept(machine).json["outcome"] == "paused"
    machine.run("resume")
    assert swept(machine).outcomes == {bead: "released"}
    assert (status(machine.world, bead), "attempts" in metadata(machine.world, bead)) == ("open", False)


@pytest.mark.parametrize("note", [False, True], ids=["silent", "notes"])
def test_a_job_that_says_nothing_is_ended_and_a_note_is_a_word(machine: Machine, note: bool) -> None:
    keeps = "while sleep 1; do $BD note $BEAD_ID busy; done" if note else "sleep 3000"
    machine.does(f"{SIGNS}; touch {machine.world.folder}/began; {keeps}")
    bead, limit = machine.world.create("Fix it"), seconds(10)
    assert machine.dispatch("--agent-silence", f"{limit:.0f}s").outcomes == {bead: "dispatched"}
    until(lambda: (machine.world.folder / "began").exists())
    time.sleep(limit + 1)
    outcomes = {one["outcome"] for one in swept(machine).json["beads"]}
    assert outcomes == ({"kept"} if note else {"stopping"})
    if not note:
        machine.ended()
        swept(machine)
        [run] = json.loads(metadata(machine.world, bead)["runs"])
        assert (run["result"], run["why"]) == ("timeout", "silence")


def test_a_pause_that_stops_is_heeded_where_the_jobs_are(machine: Machine) -> None:
    """It is set on another host, whose jobs' folder has none."""
    bead = began(machine)
    elsewhere = str(machine.world.folder / "other jobs")
    done: Any = machine.run("pause", "--stop", "--json", "deploy", BDAUTO_AGENT_JOBS=elsewhere).json
    assert (done["stopped"], len(machine.jobs.running())) == (0, 1)
    [told] = swept(machine).json["beads"]
    assert (told["id"], told["outcome"]) == (bead, "stopping")
    assert "paused dispatching and stopped what runs" in told["detail"]
    machine.ended()


def test_every_job_can_be_cancelled_at_once(machine: Machine) -> None:
    bead = began(machine)
    done: Any = machine.run("cancel", "--all", "--json").json
    assert [(one["id"], one["state"], one["blocked"]) for one in done["beads"]] == [(bead, "cancelled", True)]
    swept(machine)
    shown: Any = machine.run("status", "--json", "--check")
    assert (shown.code, [one["id"] for one in shown.json["cancelled"]]) == (0, [bead])
