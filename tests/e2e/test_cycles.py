"""`bdauto dispatch`, the installed command, on the sandbox and on the real bd: which beads, in what order, and what
becomes of each after every answer that BeadBoard can give (the table in docs/decisions.md)."""

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import (
    CLAIM_NOTE,
    FLAVOURS,
    REAL_FLAVOURS,
    create_many,
    dispatch,
    finish,
    forget_backoff,
    make_world,
    metadata,
    minutes_until,
    posted,
    reap,
    run,
    start,
    status,
    tell,
    written,
)
from tests.support.patience import duration, seconds

SHORT = duration(1.5)
"""A time limit that only SILENT misses."""
SILENT = FakeReply(delay=seconds(4))


@dataclass(frozen=True)
class Row:
    """One row of the answer table: the answer, and what it makes of the bead and of the cycle."""

    name: str
    reply: FakeReply
    code: int
    outcome: str
    status: str = "open"
    note: str = ""
    charged: bool = False
    waits: bool = False
    main: bool = False


def _error(status: int) -> FakeReply:
    return FakeReply(status, '{"error": "no"}')


ROWS = (
    Row("409", _error(409), 0, "busy", main=True),
    Row("400", _error(400), 4, "refused", note="dispatch failed HTTP 400: no", charged=True, waits=True, main=True),
    *(Row(str(n), _error(n), 4, "misconfigured", note=f"dispatch failed HTTP {n}: no") for n in (401, 403, 404, 422)),
    Row("500", _error(500), 4, "misconfigured", note="dispatch failed HTTP 500: no", main=True),
    Row("302", FakeReply(302, "", {"Location": "/x"}), 4, "misconfigured", note="dispatch failed HTTP 302"),
    Row("503", _error(503), 4, "unavailable", note="dispatch failed HTTP 503: no", waits=True),
    Row("504", _error(504), 4, "unknown", "in_progress", "HTTP 504: no", charged=True, main=True),
    Row("502", _error(502), 4, "unavailable", note="dispatch failed HTTP 502: no", waits=True, main=True),
    Row("599", _error(599), 4, "unavailable", note="dispatch failed HTTP 599: no", waits=True),
    Row(
        "200 {}",
        FakeReply(200, "{}"),
        4,
        "unknown",
        "in_progress",
        "HTTP 200 without a job id",
        charged=True,
        main=True,
    ),
    Row("200 HTML", FakeReply(200, "<html>"), 4, "unknown", "in_progress", "HTTP 200 without a job id", charged=True),
    Row("200 job 7", FakeReply(200, '{"job_id": 7}'), 4, "unknown", "in_progress", "without a job id", charged=True),
    Row("202", FakeReply(202, "later"), 4, "unknown", "in_progress", "HTTP 202: later", charged=True),
    Row("dropped", FakeReply(drop="early"), 4, "unknown", "in_progress", "disconnected", charged=True),
    Row(
        "timeout",
        FakeReply(delay=seconds(3)),
        4,
        "unknown",
        "in_progress",
        f"no answer within {SHORT}",
        charged=True,
        main=True,
    ),
)
CASES = [  # the embedded flavour writes in another way, but decides by the same code: the main rows will do
    pytest.param(flavour, row, id=f"{flavour}-{row.name}", marks=[pytest.mark.real_bd] if "real" in flavour else [])
    for flavour in (*FLAVOURS, *(f"real-{flavour}" for flavour in FLAVOURS))
    for row in ROWS
    if row.main or flavour == "server"
]


@pytest.mark.parametrize(("flavour", "row"), CASES)
def test_what_an_answer_means(request: pytest.FixtureRequest, flavour: str, row: Row) -> None:
    """The bead's state, its record, its notes, the exit code and the report, for one answer to the POST."""
    with make_world(request, flavour) as world:
        bead = world.create()
        world.board.reply_next("dispatch", row.reply)
        done = dispatch(world, *(["--timeout", SHORT] if row.name == "timeout" else []))
        assert (done.code, done.outcomes) == (row.code, {bead: row.outcome}), done
        assert status(world, bead) == row.status
        record = metadata(world, bead)
        assert record.get("attempts", 0) == int(row.charged)
        assert ("attempt" in record) == (row.status == "in_progress")
        assert ("retry_at" in record) == row.waits
        notes = [note for note in world.notes(bead) if not note.startswith("claimed by agent")]
        if row.status == "in_progress":
            assert re.fullmatch(CLAIM_NOTE, notes[0])
            assert notes[1].startswith("dispatch outcome unknown: ")
            assert row.note in notes[1]
            assert len(notes) == 2
        else:
            assert [note.startswith(row.note) for note in notes] == ([True] if row.note else []), notes


def test_started(world: Sandbox) -> None:
    """200 with a job id: claimed, noted and recorded, in the words that existing greps know.

    An embedded database gets the claim's note with the record: by then this agent has noted its first line.
    """
    bead = world.create()
    done = dispatch(world)
    assert (done.code, done.json["outcome"], done.outcomes) == (0, "dispatched", {bead: "dispatched"})
    job = world.board.job_of(bead).id
    embedded = world.topology == "embedded"
    first, second, dispatched = world.notes(bead)
    sign, claimed = (first, second) if embedded else (second, first)
    assert re.fullmatch(CLAIM_NOTE, claimed)
    assert (sign, dispatched) == (f"claimed by agent {job}", f"dispatched: job={job}")
    assert status(world, bead) == "in_progress"
    record = metadata(world, bead)
    assert (record["job"], record["attempts"]) == (job, 1)
    assert claimed.endswith(record["claimed_at"])
    assert posted(world) == [bead]
    assert dispatch(world).json["outcome"] == "idle"


@pytest.fixture
def refusing() -> Iterator[str]:
    """A BeadBoard that says it is not busy and then is gone: the POST's connection is refused."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        listener.close()
        connection.recv(4096)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"busy": false}')
        connection.close()

    thread = threading.Thread(target=answer)
    port = listener.getsockname()[1]
    thread.start()
    yield f"http://127.0.0.1:{port}"
    thread.join(10)


def test_a_refused_connection(sandbox: Sandbox, refusing: str) -> None:
    """Nothing was sent, so nothing started: open again, with a backoff."""
    bead = sandbox.create()
    done = dispatch(sandbox, BEADBOARD_URL=refusing)
    assert (done.code, done.outcomes) == (4, {bead: "unavailable"}), done
    assert status(sandbox, bead) == "open"
    assert "retry_at" in metadata(sandbox, bead)
    [note] = sandbox.notes(bead)
    assert note.startswith("dispatch failed: cannot connect to BeadBoard")


def test_a_refused_bead_is_quarantined_and_starts_afresh_when_re_armed(world: Sandbox) -> None:
    """Three refusals, each charged and each later than the one before; then `blocked`, with a note how to go on."""
    bead = world.create()
    for attempt in (1, 2):
        world.board.reply_next("dispatch", FakeReply(400, '{"error": "not so"}'))
        assert dispatch(world).code == 4
        record = metadata(world, bead)
        assert (record["attempts"], record["failures"]) == (attempt, attempt)
        assert 2**attempt / 2 - 0.1 <= minutes_until(record["retry_at"]) <= 2**attempt
        assert dispatch(world).json["outcome"] == "idle"
        forget_backoff(world, bead)
    world.board.reply_next("dispatch", FakeReply(400, '{"error": "not so"}'))
    done = dispatch(world)
    assert (done.code, done.outcomes) == (0, {bead: "quarantined"})
    assert status(world, bead) == "blocked"
    kept = metadata(world, bead)
    assert (kept["quarantined"], kept["attempts"], "attempt" in kept) == ("HTTP 400: not so", 3, False)
    first, last = world.notes(bead)
    assert first == "dispatch failed HTTP 400: not so"
    assert f"bd update {bead} -s open" in last
    assert posted(world) == [bead] * 3
    tell(world, "update", bead, "--title", "mended")
    tell(world, "update", bead, "-s", "open")
    assert dispatch(world).outcomes == {bead: "dispatched"}
    assert metadata(world, bead)["attempts"] == 1
    assert "quarantined" not in metadata(world, bead)


def test_three_beads_refused_in_a_row_speak_against_beadboard(either: Sandbox) -> None:
    """It looks at another database, perhaps: exit 4, nothing charged. They wait, so that the next bead is tried."""
    *beads, last = [either.create(priority=priority) for priority in (0, 0, 0, 1)]
    either.board.reply_next("dispatch", FakeReply(400, '{"error": "Bead X is odd."}'), times=3)
    done = dispatch(either)
    assert done.code == 4
    assert "same database" in done.complaint
    for bead in beads:
        assert (status(either, bead), len(either.notes(bead))) == ("open", 1)
        assert "retry_at" in metadata(either, bead)
        assert not {"attempts", "attempt"} & set(metadata(either, bead))
    assert dispatch(either).outcomes == {last: "dispatched"}


def test_a_refused_bead_does_not_starve_the_next(either: Sandbox) -> None:
    """The same cycle goes on with the bead behind it, and says that it is partly done."""
    bad, good = either.create(priority=0), either.create(priority=1)
    either.board.reply_next("dispatch", FakeReply(400, '{"error": "no"}'))
    done = dispatch(either)
    assert (done.code, done.json["outcome"]) == (5, "partial")
    assert done.outcomes == {bad: "refused", good: "dispatched"}
    assert metadata(either, bad)["attempts"] == 1


def test_a_service_outage_harms_no_bead(either: Sandbox) -> None:
    """At most three tries a cycle, every bead open and uncharged, and one line of notes, however long it takes."""
    beads = [either.create(priority=n) for n in range(4)]
    either.board.reply_next("dispatch", FakeReply(502, '{"error": "Agent service is unreachable."}'), times=50)
    for _ in range(3):
        done = dispatch(either)
        assert done.code == 4
        assert list(done.outcomes.values()) == ["unavailable"] * 3
        forget_backoff(either, *beads)
    assert posted(either) == beads[:3] * 3
    for bead in beads[:3]:
        assert status(either, bead) == "open"
        assert either.notes(bead) == ["dispatch failed HTTP 502: Agent service is unreachable."]
        assert "attempts" not in metadata(either, bead)
        assert metadata(either, bead)["failures"] == 3
    assert either.notes(beads[3]) == []


def test_an_outage_backs_off_per_bead(sandbox: Sandbox) -> None:
    """Between the tries of one bead lie minutes, so the next cycle goes on with the others."""
    first, second = sandbox.create(priority=0), sandbox.create(priority=1)
    sandbox.board.reply_next("dispatch", FakeReply(503))
    assert dispatch(sandbox).outcomes == {first: "unavailable", second: "dispatched"}
    assert 0.9 <= minutes_until(metadata(sandbox, first)["retry_at"]) <= 2
    assert dispatch(sandbox).json["outcome"] == "idle"


def test_a_new_error_is_noted_once_more(sandbox: Sandbox) -> None:
    """One line when the error changes."""
    bead = sandbox.create()
    for code in (502, 502, 503, 503):
        sandbox.board.reply_next("dispatch", FakeReply(code, '{"error": "x"}'))
        dispatch(sandbox)
        forget_backoff(sandbox, bead)
    assert sandbox.notes(bead) == ["dispatch failed HTTP 502: x", "dispatch failed HTTP 503: x"]


def test_an_unknown_outcome_is_never_posted_again_by_itself(either: Sandbox) -> None:
    """The job may run: the bead waits, claimed, for the agent or for the reaper's threshold."""
    bead, other = either.create(priority=0), either.create(priority=1)
    either.board.capacity = 2
    either.board.reply_next("dispatch", FakeReply(drop="late"))
    done = dispatch(either, "--max", "2")
    assert (done.code, done.outcomes) == (4, {bead: "unknown"})
    assert "until the reaper settles it" in done.complaint
    assert dispatch(either).outcomes == {other: "dispatched"}
    either.age(bead, 29)
    assert run(either, "reap").code == 0
    assert status(either, bead) == "in_progress"
    assert posted(either) == [bead, other]


def test_busy_claims_nothing(world: Sandbox) -> None:
    """BeadBoard's word before the claim."""
    bead = world.create()
    world.board.reply_next("status", FakeReply(200, '{"busy": true}'))
    done = dispatch(world)
    assert (done.code, done.json["outcome"], done.json["beads"]) == (0, "busy", [])
    assert (status(world, bead), world.notes(bead), posted(world)) == ("open", [], [])


def test_busy_at_the_post_leaves_nothing_but_the_bead_s_place(either: Sandbox) -> None:
    """409: the slot went to somebody else; the bead is as it was."""
    bead = either.create()
    before = either.show(bead)
    either.board.reply_next("status", FakeReply(200, '{"busy": false}'))
    either.board.capacity = 0
    assert dispatch(either).json["outcome"] == "busy"
    after = either.show(bead)
    assert (after["status"], after.get("notes")) == ("open", before.get("notes"))
    assert metadata(either, bead).keys() == {"armed_at", "released_at", "place"}


def test_a_bead_that_was_given_back_is_the_first_again(world: Sandbox) -> None:
    """Its release moved its last update."""
    first, second = world.create(), world.create()
    world.age(first, 60)
    world.age(second, 30)
    world.board.reply_next("status", FakeReply(200, '{"busy": false}'))
    world.board.capacity = 0
    assert dispatch(world).outcomes == {first: "busy"}
    world.board.capacity = 1
    assert dispatch(world).outcomes == {first: "dispatched"}


def test_idle(world: Sandbox) -> None:
    """Nothing to do is exit 0, and asks nobody for capacity."""
    world.create(assignee="somebody")
    done = dispatch(world)
    assert (done.code, done.json["outcome"]) == (0, "idle")
    assert world.board.requests == []


def test_paused_by_a_key_in_the_tracker(world: Sandbox) -> None:
    """Dispatch and reap stand still, whoever set the key; --ignore-pause works on."""
    bead = world.create()
    tell(world, "kv", "set", "bdauto.paused", "by hand")
    done = dispatch(world)
    assert (done.code, done.json["outcome"]) == (0, "paused")
    assert run(world, "reap").out.startswith("reap: paused")
    assert posted(world) == []
    assert dispatch(world, "--ignore-pause").outcomes == {bead: "dispatched"}


def test_dry_run_decides_and_writes_nothing(world: Sandbox) -> None:
    """The same decision as the real run, and not a trace of it."""
    bead = world.create()
    before = world.show(bead)
    done = dispatch(world, "--dry-run")
    assert (done.code, done.json["dry_run"], done.outcomes) == (0, True, {bead: "dispatched"})
    assert [event["event"] for event in done.events if event.get("bead") == bead] == ["would-dispatch"]
    assert world.show(bead) == before
    assert posted(world) == []


def test_dry_run_cannot_write(either: Sandbox) -> None:
    """No call of bd in a dry run is of a verb that writes, and each has --readonly unless bd refuses that here."""
    for _ in range(25):
        either.create()
    stalled = either.create()
    tell(either, "update", stalled, "-s", "in_progress")
    either.age(stalled, 90)
    assert dispatch(either, "-n", "--max", "30", agent=True).code == 0
    assert reap(either, "-n").outcomes == {stalled: "blocked"}
    assert status(either, stalled) == "in_progress"
    assert written(either) == []
    assert either.topology == "proxied" or all("--readonly" in call.argv for call in either.calls)
    assert [request for request in either.board.requests if request[0] != "GET"] == []


def test_max_takes_so_many_and_asks_once(sandbox: Sandbox) -> None:
    """Up to --max beads. The status is asked once, and a bead that BeadBoard has no room for ends the cycle."""
    beads = [sandbox.create(priority=n) for n in range(4)]
    sandbox.board.capacity = 10
    assert list(dispatch(sandbox, "--max", "2").outcomes) == beads[:2]
    assert sandbox.board.requests.count(("GET", "/api/agent-status")) == 1
    sandbox.board.capacity = 3
    done = dispatch(sandbox, "--max", "5")
    assert (done.code, done.outcomes) == (0, {beads[2]: "dispatched", beads[3]: "busy"})
    assert [status(sandbox, bead) for bead in beads] == ["in_progress"] * 3 + ["open"]


@pytest.mark.parametrize(("active", "queue", "most", "taken"), [(0, 0, 5, 3), (2, 0, 5, 1), (3, 0, 5, 0), (0, 0, 2, 2)])
def test_capacity_bounds_a_cycle(sandbox: Sandbox, active: int, queue: int, most: int, taken: int) -> None:
    """At most capacity - active - queued beads, whatever --max says."""
    sandbox.board.capacity, sandbox.board.queue = 3, queue
    for n in range(active):
        assert sandbox.board.dispatch(f'{{"taskId": "{sandbox.create(assignee="")}"}}'.encode())[0] == 200, n
    beads = [sandbox.create() for _ in range(5)]
    sandbox.posts.clear()
    done = dispatch(sandbox, "--max", str(most), agent=True)
    assert done.code == 0
    assert (len(posted(sandbox)), len(set(posted(sandbox)) & set(beads))) == (taken, taken)
    assert done.json["outcome"] == ("dispatched" if taken else "busy")


def test_queued_jobs_count(sandbox: Sandbox) -> None:
    """A queue that would take more is not capacity."""
    sandbox.board.capacity, sandbox.board.queue = 1, 100
    sandbox.board.dispatch(f'{{"taskId": "{sandbox.create(assignee="")}"}}'.encode())
    sandbox.create()
    assert dispatch(sandbox, agent=True).json["outcome"] == "busy"


def test_an_older_agent_service_has_busy_alone(sandbox: Sandbox) -> None:
    """A missing field falls back to `busy`."""
    sandbox.board.old_health = True
    beads = [sandbox.create(priority=n) for n in range(3)]
    sandbox.board.capacity = 2
    outcomes = dispatch(sandbox, "--max", "5", agent=True).outcomes
    assert outcomes == {beads[0]: "dispatched", beads[1]: "dispatched", beads[2]: "busy"}


@pytest.mark.parametrize("flavour", [*FLAVOURS, REAL_FLAVOURS[0]])
def test_order_is_exact_however_long_the_queue(request: pytest.FixtureRequest, flavour: str) -> None:
    """More beads than any page: by priority, then the longest wait since the last update, which bd does not sort by."""
    real = flavour.startswith("real-")
    with make_world(request, flavour) as world:
        world.board.capacity = 100
        beads = create_many(world, 23 if real else 63)
        touched = [beads[n] for n in (22, 20, 7)]
        for n, bead in enumerate(touched):
            world.age(bead, 100 - n)
        for bead in beads:
            if bead not in touched and not real:
                world.age(bead, 50)
        urgent = world.create("urgent", priority=1)
        done = dispatch(world, "--max", "4")
        assert (done.code, posted(world)) == (0, [urgent, *touched])


def test_only_what_bd_calls_ready(world: Sandbox) -> None:
    """Not with an open blocker, deferred, without acceptance criteria worth the name, or an epic."""
    blocked, blocker = world.create("blocked", priority=0), world.create("blocker", assignee="somebody")
    tell(world, "dep", "add", blocked, blocker)
    world.create("deferred", priority=0, more=["--defer", "+6h"])
    world.create("blank", priority=0, acceptance=" \n\t ")
    world.create("none", priority=0, acceptance="")
    world.create("epic", priority=0, type="epic")
    good = world.create("good", priority=4)
    world.board.capacity = 9
    assert dispatch(world, "--max", "9").outcomes == {good: "dispatched"}
    tell(world, "close", blocker, actor="somebody")  # bd 1.3 lets nobody else close it
    assert dispatch(world, "--max", "9").outcomes == {blocked: "dispatched"}


@pytest.mark.parametrize(
    "columns",
    [
        {"pinned": 1},
        {"is_template": 1},
        {"ephemeral": 1},
        {"issue_type": "gate"},
        {"issue_type": "message"},
        {"status": "weird"},
        {"defer_until": "2999-01-01 00:00:00"},
    ],
    ids=str,
)
def test_never_dispatched(sandbox: Sandbox, columns: dict[str, object]) -> None:
    """What only looks like work."""
    sandbox.edit(sandbox.create(priority=0), **columns)
    good = sandbox.create(priority=1)
    assert dispatch(sandbox, "--max", "9").outcomes == {good: "dispatched"}


def test_who_may_have_beads_dispatched(sandbox: Sandbox) -> None:
    """Types, creators and labels, as the operator asks."""
    bug = sandbox.create(type="bug", more=["-l", "ai"])
    task = sandbox.create(more=["-l", "ai,risky"])
    assert dispatch(sandbox, "--exclude-type", "bug,epic", "--exclude-label", "risky").json["outcome"] == "idle"
    assert dispatch(sandbox, "--trusted-creator", "boss").json["outcome"] == "idle"
    assert dispatch(sandbox, "--label", "ai", "--label", "risky").outcomes == {task: "dispatched"}
    sandbox.board.finish(sandbox.board.job_of(task).id)
    done = dispatch(sandbox, BDAUTO_TRUSTED_CREATOR="boss,tester", BDAUTO_LABEL="ai", BDAUTO_EXCLUDE_LABEL="x,y")
    assert done.outcomes == {bug: "dispatched"}


def test_an_edit_between_the_look_and_the_claim_wins(either: Sandbox) -> None:
    """Compare-and-set on what was read: the bead is left to whoever changed it, and the cycle goes on."""
    taken, other = either.create(priority=0), either.create(priority=1)
    pause = either.pause("ready", when="after")
    process = start(either, "dispatch", "--json")
    pause.wait()
    tell(either, "update", taken, "-s", "blocked", "--append-notes", "not now", actor="a person")
    pause.release()
    done = finish(process, either)
    assert (done.code, done.outcomes) == (0, {taken: "lost", other: "dispatched"})
    assert (status(either, taken), either.notes(taken)) == ("blocked", ["not now"])
