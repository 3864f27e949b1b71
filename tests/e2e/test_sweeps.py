"""`bdauto reap`, the installed command, on the sandbox and on the real bd: what it believes, and what it writes."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import (
    FLAVOURS,
    ROUNDING,
    claimed,
    dispatch,
    finish,
    held,
    make_world,
    metadata,
    minutes_until,
    reap,
    run,
    start,
    started,
    status,
    tell,
    written,
)


@dataclass(frozen=True)
class Row:
    """One row of the evidence table: the agent service's word, the bead's age, and what follows."""

    name: str
    state: str
    minutes: float
    outcome: str
    note: str = ""
    agent: bool = True
    main: bool = False
    code: int = 0

    def __str__(self) -> str:
        return f"{self.name}-{self.minutes}m"


STALLED = "reaper: no progress for 45m (threshold 30m) — blocking"
OVER = "reaper: job JOB is {} but the bead is still in progress — blocking"
SAID = "reaper: no progress for 45m (threshold 30m); job JOB is {} — blocking"
NOT_ASKED_NOTE = (
    "reaper: no progress for 121m (threshold 120m); the agent service could not be asked about job JOB — blocking"
)
ROWS = (
    Row("running", "running", 90, "kept", main=True),
    Row("queued", "queued", 90, "kept"),
    *(
        Row(state, state, 1, "blocked", OVER.format(state))
        for state in ("error", "completed")
    ),
    Row("failed", "failed", 1, "blocked", OVER.format("failed"), main=True),
    Row("timeout", "timeout", 29, "kept", main=True),
    Row("timeout", "timeout", 45, "blocked", SAID.format("timeout")),
    Row("strange", "strange", 29, "kept"),
    Row("strange", "strange", 45, "blocked", SAID.format("strange")),
    Row("forgotten", "forgotten", 29, "kept"),
    Row("forgotten", "forgotten", 45, "blocked", STALLED, main=True),
    Row("down", "down", 119, "kept", code=4),
    Row("down", "down", 121, "blocked", NOT_ASKED_NOTE, code=4, main=True),
    Row("unasked", "running", 29, "kept", agent=False, main=True),
    Row("unasked", "failed", 29, "kept", agent=False),
    Row("unasked", "running", 45, "blocked", STALLED, agent=False, main=True),
)  # fmt: skip
CASES = [  # the embedded flavour writes in another way, but decides by the same code: the main rows will do
    pytest.param(flavour, row, id=f"{flavour}-{row}", marks=[pytest.mark.real_bd] if "real" in flavour else [])
    for flavour in (*FLAVOURS, *(f"real-{flavour}" for flavour in FLAVOURS))
    for row in ROWS
    if row.main or flavour == "server"
]


@pytest.mark.parametrize(("flavour", "row"), CASES)
def test_what_is_evidence(request: pytest.FixtureRequest, flavour: str, row: Row) -> None:
    """Kept or blocked, with the note that names the evidence; a blocked bead starts afresh when re-armed."""
    with make_world(request, flavour) as world:
        bead, job = started(world, row.minutes, row.state)
        if row.state == "forgotten":
            world.board.forget(job)
        if row.state == "down":
            world.board.agent_down()
        before = world.show(bead)
        done = reap(world, agent=row.agent)
        assert (done.code, done.outcomes) == (row.code, {bead: row.outcome}), done
        assert done.json["outcome"] == ("partial" if row.code else "reaped" if row.note else "idle")
        if row.outcome == "kept":
            assert world.show(bead) == before
            return
        assert status(world, bead) == "blocked"
        assert world.notes(bead)[-1] == row.note.replace("JOB", job)
        assert set(held(world, bead)) == {"quarantined", "attempts", "claimed_at", "job"}


def cost(sandbox: Sandbox, bead: str) -> float | None:
    """Return what the last run of a bead is recorded to have cost, in US dollars."""
    recorded: float | None = json.loads(metadata(sandbox, bead)["runs"])[-1]["cost"]
    return recorded


UNSHOWN = {
    "500": FakeReply(500, "Internal Server Error"),
    "422": FakeReply(422, '{"detail": []}'),
    "garbage": FakeReply(200, "<html>log in</html>"),
    "too large": FakeReply(200, '{"output": "' + "x" * (17 << 20)),
    "closed": FakeReply(drop="late"),
}


@pytest.mark.parametrize("reply", UNSHOWN.values(), ids=list(UNSHOWN))
def test_a_job_that_cannot_be_shown_holds_up_no_other(either: Sandbox, reply: FakeReply) -> None:
    """Neither beads in progress nor the result of a closed one wait behind it."""
    shy, unshown = started(either, 5)
    (over, _), (closed, done_job) = started(either, 1, "failed"), started(either, 1)
    tell(either, "update", closed, "--set-metadata", "bdauto.result=running", "--set-metadata", "bdauto.assignee=agent")
    either.board.finish(done_job, '{"total_cost_usd": 0.42}')
    either.board.job_replies[unshown] = reply
    done = reap(either, agent=True)
    assert (done.code, done.outcomes) == (4, {shy: "kept", over: "blocked"})
    assert (metadata(either, closed)["result"], cost(either, closed)) == ("completed", 0.42)
    assert unshown in done.json["beads"][0]["detail"] + done.json["beads"][1]["detail"]


def test_a_job_that_printed_17_megabytes_is_over_and_has_its_cost(either: Sandbox) -> None:
    """The agent service sends all of the output with the state."""
    (bead, job), (other, _) = started(either, 1), started(either, 1)
    either.board.end(job, "completed", "y" * 99 + "\n" + ("x" * 1023 + "\n") * (17 << 10) + '{"total_cost_usd": 0.42}')
    done = reap(either, agent=True)
    assert (done.code, done.outcomes) == (0, {bead: "blocked", other: "kept"})
    assert cost(either, bead) == 0.42


@pytest.mark.parametrize(
    ("minutes", "note", "error", "outcome"),
    [
        (9, "", "", "kept"),
        (11, "", "", "released"),
        (29, "claimed by agent 0b37aa7fd784", "", "kept"),
        (29, "Working on it…", "", "kept"),
        (45, "claimed by agent 0b37aa7fd784", "", "blocked"),
        (29, "", "dispatch outcome unknown: no answer within 30s", "kept"),
        (45, "", "dispatch outcome unknown: no answer within 30s", "released"),
    ],
)
def test_claims_without_a_job(either: Sandbox, minutes: int, note: str, error: str, outcome: str) -> None:
    """The service runs nothing: the grace period holds; with a note of others, or an unknown outcome, the threshold."""
    bead = claimed(either, minutes, note=note, error=error)
    assert reap(either, agent=True).outcomes == {bead: outcome}


def test_a_claim_without_a_job_waits_for_the_threshold_where_something_may_run(world: Sandbox) -> None:
    """Nobody can be asked, or the agent service runs something: it may be this bead."""
    bead = claimed(world, 29)
    assert reap(world).outcomes == {bead: "kept"}
    other, _ = started(world, 1)
    assert reap(world, agent=True).outcomes == {bead: "kept", other: "kept"}


def test_an_orphan_is_released_and_dispatched_again(world: Sandbox) -> None:
    """Killed between claim and POST: open again, the attempt charged, a note that says so; later a new attempt."""
    bead = claimed(world, 12)
    assert reap(world, agent=True).outcomes == {bead: "released"}
    assert status(world, bead) == "open"
    record = metadata(world, bead)
    assert (int(record["attempts"]), "attempt" in record) == (1, False)  # some versions leave it as text
    assert 0.9 <= minutes_until(record["retry_at"]) <= 2
    assert world.notes(bead)[-1] == (
        "reaper: claimed 12m ago, no job recorded, no sign of the agent, and its service runs nothing (grace 10m) "
        "— released"
    )
    assert dispatch(world).json["outcome"] == "idle"
    tell(world, "update", bead, "--unset-metadata", "bdauto.retry_at")
    assert dispatch(world).outcomes == {bead: "dispatched"}
    assert metadata(world, bead)["attempts"] == 2


def test_orphans_end_at_max_attempts(either: Sandbox) -> None:
    """A dispatcher that always dies before its record charges the bead each time."""
    bead = claimed(either, 31, attempts=3)
    assert reap(either, "--max-attempts", "3").outcomes == {bead: "blocked"}
    assert either.notes(bead)[-1] == (
        "reaper: claimed 31m ago, no job recorded and no sign of the agent (threshold 30m) — blocking after attempt 3"
    )


def test_a_wrong_token_condemns_nobody(world: Sandbox, tmp_path: Path) -> None:
    """Running jobs stay as they are, whatever their age; exit 4. A token that is rotated is read again."""
    bead, _ = started(world, 600)
    by_hand = world.create()
    tell(world, "update", by_hand, "-s", "in_progress")
    world.age(by_hand, 45 + ROUNDING)
    token = tmp_path / "token"
    token.write_text("wrong")
    before = world.show(bead)
    done = reap(world, agent=True, BDAUTO_AGENT_TOKEN_FILE=str(token))
    assert (done.code, done.outcomes) == (4, {bead: "kept", by_hand: "blocked"})
    assert "HTTP 401" in done.complaint
    assert "--agent-token-file" in done.complaint
    assert world.show(bead) == before
    token.write_text(world.token)
    assert reap(world, agent=True, BDAUTO_AGENT_TOKEN_FILE=str(token)).code == 0


def test_a_time_that_lies_ahead_is_not_believed(either: Sandbox) -> None:
    """A bead that was updated in a year to come is named; the time of its claim counts."""
    bead = claimed(either, 45, job="j1")
    either.edit(bead, updated_at="2100-01-01 00:00:00")
    done = reap(either)
    assert (done.code, done.outcomes) == (0, {bead: "blocked"})
    [said] = [event for event in done.events if event["event"] == "time-ahead"]
    assert (said["bead"], said["detail"]) == (bead, "updated at 2100-01-01T00:00:00Z: not believed")


def test_grace_and_threshold_are_settings(sandbox: Sandbox) -> None:
    """As options and as variables."""
    bead = claimed(sandbox, 3)
    assert reap(sandbox, "-n", "--grace", "2m", agent=True).outcomes == {bead: "released"}
    assert reap(sandbox, "-n", "--threshold", "2m").outcomes == {bead: "released"}
    assert reap(sandbox, "-n", agent=True, BDAUTO_GRACE="5m", BDAUTO_THRESHOLD="1h").outcomes == {bead: "kept"}
    tell(sandbox, "update", bead, "--append-notes", "claimed by agent 1", "--set-metadata", "bdauto.job=1")
    sandbox.age(bead, 3 + ROUNDING)
    assert reap(sandbox, "--threshold", "90s").outcomes == {bead: "blocked"}
    assert sandbox.notes(bead)[-1] == "reaper: no progress for 3m (threshold 1m30s) — blocking"


def test_requeue_until_the_attempts_are_used_up(either: Sandbox) -> None:
    """--on-stall requeue re-opens a stalled bead, then blocks it."""
    young, old = claimed(either, 45, job="j1", attempts=2), claimed(either, 45, job="j2", attempts=3)
    done = reap(either, "--on-stall", "requeue", "--max-attempts", "3")
    assert (done.code, done.outcomes) == (0, {young: "requeued", old: "blocked"})
    assert (status(either, young), metadata(either, young)["attempts"]) == ("open", 2)
    assert either.notes(young)[-1] == "reaper: no progress for 45m (threshold 30m) — requeueing"
    assert (status(either, old), set(held(either, old))) == (
        "blocked",
        {"quarantined", "attempts", "claimed_at", "job"},
    )


def test_beads_that_bdauto_never_claimed(world: Sandbox) -> None:
    """Dispatched by BeadBoard's button or by hand: the threshold alone."""
    old, young, other = (world.create(assignee=name) for name in ("agent", "agent", "somebody"))
    tell(world, "update", old, young, other, "-s", "in_progress")
    world.age(old, 45 + ROUNDING)
    world.age(other, 45 + ROUNDING)
    assert reap(world).outcomes == {old: "blocked", young: "kept"}
    assert world.notes(old) == ["reaper: no progress for 45m (threshold 30m) — blocking"]
    assert status(world, other) == "in_progress"


def test_too_many_at_once_look_like_a_wrong_clock(either: Sandbox) -> None:
    """More than --max-reap by age: nothing is written, exit 5, with the way out; evidence from jobs does not count."""
    beads = [claimed(either, 45, job=f"j{n}") for n in range(4)]
    before = [either.show(bead) for bead in beads]
    done = reap(either, "--max-reap", "3")
    assert (done.code, set(done.outcomes.values())) == (5, {"kept"})
    assert all(word in done.complaint for word in ("4 beads", "--max-reap 3", "clock", "--max-reap 0"))
    assert [either.show(bead) for bead in beads] == before
    assert written(either) == []
    done = reap(either, "--max-reap", "0")
    assert (done.code, done.outcomes) == (0, dict.fromkeys(beads, "blocked"))


def test_failed_jobs_are_not_a_matter_of_clocks(sandbox: Sandbox) -> None:
    """The mass guard is for what only age speaks against."""
    beads = [started(sandbox, 1, "failed")[0] for _ in range(3)]
    assert reap(sandbox, "--max-reap", "2", agent=True).outcomes == dict.fromkeys(beads, "blocked")


@pytest.mark.parametrize("change", [("--append-notes", "half way"), ("-s", "closed"), ("-s", "blocked")])
def test_the_agent_always_wins(either: Sandbox, change: tuple[str, str]) -> None:
    """What the agent writes between the reaper's look and its write stands."""
    bead = claimed(either, 45, job="j1")
    pause = either.pause("list", when="after")
    process = start(either, "reap", "--json")
    pause.wait()
    tell(either, "update", bead, *change, actor="beads-task-runner")
    after = either.show(bead)
    pause.release()
    done = finish(process, either)
    assert (done.code, done.outcomes) == (0, {bead: "lost"})
    assert either.show(bead) == after


def test_one_bead_does_not_end_the_sweep(either: Sandbox) -> None:
    """bd fails for one of three: the others are settled, exit 5."""
    beads = [claimed(either, 45, job=f"j{n}") for n in range(3)]
    embedded = either.topology == "embedded"
    either.fault("update" if embedded else "sql", "exit", match=beads[1], text="Error: boom\n", times=-1)
    done = reap(either)
    assert (done.code, done.json["outcome"]) == (5, "partial")
    assert done.outcomes == {beads[0]: "blocked", beads[1]: "failed", beads[2]: "blocked"}
    assert "boom" in next(bead["detail"] for bead in done.json["beads"] if bead["id"] == beads[1])
    assert [status(either, bead) for bead in beads] == ["blocked", "in_progress", "blocked"]


def test_a_conflict_is_tried_again(either: Sandbox) -> None:
    """Dolt's serialization failure had no effect: once more, and the bead is reaped."""
    bead = claimed(either, 45, job="j1")
    either.fault("sql", "conflict", match="issues", times=2)
    assert reap(either).outcomes == {bead: "blocked"}


def test_a_conflict_without_end_is_bounded(sandbox: Sandbox) -> None:
    """And then it is that bead's failure."""
    bead = claimed(sandbox, 45, job="j1")
    sandbox.fault("sql", "conflict", match="issues", times=-1)
    done = reap(sandbox)
    assert (done.code, done.outcomes) == (5, {bead: "failed"})
    assert 3 <= len(written(sandbox)) <= 20


def test_a_lost_note_is_written_again_once(either: Sandbox) -> None:
    """bd said that the note was written, and it was not: the record is on the bead, so the reaper writes the note."""
    bead = claimed(either, 5, job="j1")
    tell(either, "update", bead, "--notes", "auto-dispatcher claimed at 2026-04-18T22:35:46Z")
    assert reap(either).outcomes == {bead: "kept"}
    assert either.notes(bead)[-1] == "dispatched: job=j1"
    tell(either, "update", bead, "--notes", "by hand")
    assert reap(either).code == 0
    assert either.notes(bead) == ["by hand"]


def test_for_people(sandbox: Sandbox) -> None:
    """Each bead with its age and the evidence."""
    old, young = claimed(sandbox, 45, job="j1"), claimed(sandbox, 5, job="j2")
    done = run(sandbox, "reap")
    head, *rows = done.out.splitlines()
    assert head == "reap: reaped"
    assert {(row.split()[0], row.split()[1]) for row in rows} == {(old, "blocked"), (young, "kept")}
    assert "no progress for 45m (threshold 30m)" in done.out
    assert "5m since the last update" in done.out
