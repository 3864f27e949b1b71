"""bd's own record of what bdauto changes: events, Dolt commits, history, and nothing that is left uncommitted.

Only the real bd keeps one.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from bdauto.sandbox.fake_bd.call import BdResult
from tests.support.cli import REAL_FLAVOURS, dispatch, forget_backoff, make_world, metadata, reap, run

DISPATCHER, REAPER = "beads-dispatcher", "beads-reaper"


@pytest.fixture(params=REAL_FLAVOURS)
def real(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A real bd, with nothing left uncommitted: `bd init` leaves its configuration so in an embedded database."""
    with make_world(request, request.param) as world:
        if world.topology == "embedded":
            world.run("dolt", "commit", "-m", "begin")
        yield world


def rows(world: Sandbox, query: str) -> list[dict[str, Any]]:
    """What a query gives, on a server."""
    found: list[dict[str, Any]] = json.loads(world.run("sql", query, "--json").out)
    return found


def uncommitted(world: Sandbox) -> list[str]:
    """The tables with changes that are in no Dolt commit."""
    if world.topology == "embedded":
        said = world.run("dolt", "commit", "-m", "is anything left?").out
        return [] if "Nothing to commit." in said else [said]
    return [str(row["table_name"]) for row in rows(world, "SELECT table_name FROM dolt_status")]


def commits(world: Sandbox, bead: str) -> list[tuple[str, str]]:
    """Author and message of each of bdauto's commits of a bead."""
    found = rows(world, "SELECT committer, message FROM dolt_log WHERE message LIKE 'bdauto: %' ORDER BY date")
    return [(row["committer"], row["message"]) for row in found if bead in row["message"]]


def moves(world: Sandbox, bead: str) -> set[tuple[str, str, str]]:
    """Actor, old and new status of each change of status in `events`."""
    found = rows(world, f"SELECT * FROM events WHERE issue_id = '{bead}' AND event_type = 'status_changed'")
    return {(row["actor"], *(json.loads(row[f"{when}_value"])["status"] for when in ("old", "new"))) for row in found}


def history(world: Sandbox, bead: str) -> list[tuple[str, str]]:
    """Committer and status of each version of a bead, oldest first, without repetitions."""
    found = json.loads(world.run("history", bead, "--json").out)
    steps = [(one["Committer"], one["Issue"]["status"]) for one in reversed(found)]
    return [step for n, step in enumerate(steps) if n == 0 or step != steps[n - 1]]


def test_claim_record_and_reap(real: Sandbox) -> None:
    bead = real.create()
    assert dispatch(real).outcomes == {bead: "dispatched"}
    assert uncommitted(real) == []
    job = real.board.job_of(bead).id
    real.board.progress(job, "half of it is done")
    real.board.end(job)
    assert reap(real, agent=True).outcomes == {bead: "blocked"}
    assert uncommitted(real) == []
    statuses = [status for _, status in history(real, bead)]
    assert [status for n, status in enumerate(statuses) if n == 0 or status != statuses[n - 1]] == [
        *("open", "in_progress", "blocked")
    ]
    if real.topology == "embedded":
        return
    assert commits(real, bead) == [
        (DISPATCHER, f"bdauto: claim {bead}"),
        (DISPATCHER, f"bdauto: record {bead}"),
        (DISPATCHER, f"bdauto: note the record of {bead}"),
        (REAPER, f"bdauto: block {bead}"),
    ]
    assert moves(real, bead) == {(DISPATCHER, "open", "in_progress"), (REAPER, "in_progress", "blocked")}
    assert {(DISPATCHER, "in_progress"), (REAPER, "blocked")} <= set(history(real, bead))


def test_release_and_quarantine(real: Sandbox) -> None:
    bead = real.create()
    real.board.reply_next("dispatch", FakeReply(502, '{"error": "down"}'))
    assert dispatch(real).outcomes == {bead: "unavailable"}
    assert uncommitted(real) == []
    forget_backoff(real, bead)
    real.board.reply_next("dispatch", FakeReply(400, '{"error": "no"}'))
    assert dispatch(real, "--max-attempts", "1").outcomes == {bead: "quarantined"}
    assert uncommitted(real) == []
    assert metadata(real, bead)["quarantined"]
    if real.topology != "embedded":
        assert {author for author, _ in commits(real, bead)} == {DISPATCHER}
        assert len(commits(real, bead)) == 4
        assert moves(real, bead) == {
            (DISPATCHER, "open", "in_progress"),
            (DISPATCHER, "in_progress", "open"),
            (DISPATCHER, "in_progress", "blocked"),
        }


def test_the_pause_switch(real: Sandbox) -> None:
    for command in ("pause", "resume"):
        assert run(real, command, BEADS_ACTOR="ann").code == 0
        assert uncommitted(real) == []
    if real.topology != "embedded":
        query = "SELECT committer, message FROM dolt_log WHERE message LIKE '%bdauto.paused%'"
        assert rows(real, query) == [{"committer": "ann", "message": "bdauto: set bdauto.paused by ann"}] * 2


def test_an_agent_s_first_note_is_not_pushed_aside(real: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may write it at the moment when bdauto records its job. The note of the record comes later, once."""
    notes: list[tuple[BdResult, str, str]] = []
    agents: list[threading.Timer] = []
    record = real.board.record

    def write(bead: str, job: str) -> None:
        notes.append((real.run("note", bead, f"claimed by agent {job}", actor="agent"), bead, job))

    def started(raw: bytes, code: int, job: str = "") -> None:
        record(raw, code, job)
        agents.append(threading.Timer(0.02 * len(agents), write, (json.loads(raw)["taskId"], job)))
        agents[-1].start()

    monkeypatch.setattr(real.board, "record", started)
    real.board.signs, real.board.capacity = False, 20
    for _ in range(12):
        real.create()
        assert dispatch(real).code == 0
    for agent in agents:
        agent.join()
    assert len(notes) == 12
    for said, bead, job in notes:
        assert said.code == 0, said
        written = real.notes(bead)
        assert written.count(f"dispatched: job={job}") == 1
        assert f"claimed by agent {job}" in written
