"""What differs in bd 1.3 on a proxied server, and what bdauto does about it: on the sandbox and on the real bd."""

import json
from collections.abc import Iterator

import pytest

from bdauto.bd.client import Bd
from bdauto.bd.writer import BdWriter
from bdauto.common.clock import Runtime
from bdauto.domain.bead import Bead
from bdauto.domain.settings import BdSettings
from bdauto.sandbox import Sandbox
from bdauto.sandbox.fake_bd.call import BdResult
from tests.support.cli import make_world
from tests.support.fakes import change


@pytest.fixture(params=["proxied", pytest.param("real-proxied", marks=pytest.mark.real_bd)])
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A workspace on a proxied server."""
    with make_world(request, request.param) as sandbox:
        yield sandbox


def bd(world: Sandbox, *args: str, actor: str = "tester") -> BdResult:
    """One call of bd with --json, which may fail."""
    return world.workspace.run(*args, "--json", actor=actor)


def client(world: Sandbox, *, readonly: bool = False) -> Bd:
    """bdauto's way to this bd."""
    return Bd(BdSettings(bd_path=str(world.bd_path), db=world.db, actor="beads-dispatcher"), readonly=readonly)


def read(world: Sandbox, bead: str) -> Bead:
    """A bead as bdauto reads it."""
    return client(world).read([bead]).result().beads[0]


@pytest.mark.parametrize("verb", [("ready",), ("list",), ("update", "no.such", "-s", "open"), ("sql", "SELECT 1")])
def test_readonly_is_refused(world: Sandbox, verb: tuple[str, ...]) -> None:
    answer = bd(world, "--readonly", *verb)
    assert (answer.code, answer.out) == (1, "")
    assert "Error: strict readonly is unavailable for dolt proxied-server backend; refusing" in answer.err


def test_bdauto_reads_without_it(world: Sandbox) -> None:
    bead = world.create()
    reader = client(world, readonly=True)
    assert bead in [found.id for found in reader.ready(limit=0).result().beads]
    assert not reader.takes_readonly
    with pytest.raises(AssertionError):
        reader.update(bead, ["--status", "blocked"])
    assert world.show(bead)["status"] == "open"


def test_where_and_metadata(world: Sandbox) -> None:
    where = json.loads(bd(world, "where").out)
    assert (where["path"], where["database_path"]) == (str(world.db), f"{world.db}/dolt")
    assert json.loads((world.db / "metadata.json").read_bytes())["dolt_mode"] == "proxied-server"


def test_sql_counts_the_rows_of_one_statement_and_of_several_none(world: Sandbox) -> None:
    bead = world.create()
    update = f"UPDATE issues SET notes = 'x' WHERE id = '{bead}'"
    assert json.loads(bd(world, "sql", update).out)["rows_affected"] == 1
    assert json.loads(bd(world, "sql", f"SET @a = 1; {update}").out)["status"] == "ok"
    assert json.loads(bd(world, "sql", "SELECT 1 AS one").out) == [{"one": 1}]


def test_sql_tells_the_error_of_one_statement_of_several(world: Sandbox) -> None:
    answer = bd(world, "sql", "SET @a = 1; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'")
    assert answer.code == 1
    assert json.loads(answer.out)["error"].endswith("Error 1644 (45000): no")


def test_a_change_is_written_once_and_recorded(world: Sandbox) -> None:
    bead = world.create()
    writer, seen = BdWriter(client(world), Runtime()), read(world, bead)
    claim = change(seen, act="claim", mark="m1", status="in_progress", note="n", if_status="open", if_assignee="agent")
    late = change(seen, act="claim", mark="m2", status="in_progress", note="n", if_status="open", if_assignee="agent")
    assert (writer.apply([claim]), writer.apply([claim]), writer.apply([late])) == ([True], [True], [False])
    shown = world.show(bead)
    assert (shown["status"], shown["notes"], shown["metadata"]["bdauto.write"]) == ("in_progress", "n", "m1")
    log = json.loads(bd(world, "sql", "SELECT committer, message FROM dolt_log").out)
    assert [one for one in log if bead in one["message"]] == [
        {"committer": "beads-dispatcher", "message": f"bdauto: claim {bead}"}
    ]
    events = f"SELECT actor, event_type FROM events WHERE issue_id = '{bead}' AND event_type = 'status_changed'"
    assert json.loads(bd(world, "sql", events).out) == [{"actor": "beads-dispatcher", "event_type": "status_changed"}]


def test_a_key_is_swapped_once(world: Sandbox) -> None:
    writer = BdWriter(client(world), Runtime())
    world.run("kv", "clear", "bdauto.test")
    swaps = [writer.swap("bdauto.test", *pair) for pair in ((None, "a"), (None, "b"), ("a", "c"), ("b", "d"))]
    assert swaps == [True, False, True, False]
    assert client(world).kv_list().result()["bdauto.test"] == "c"


def test_only_its_assignee_closes_a_bead(world: Sandbox) -> None:
    """Why the agent runs with BEADS_ACTOR=agent."""
    bead = world.create()
    answer = bd(world, "close", bead)
    assert answer.code == 1
    assert f'cannot close {bead}: assignee is "agent", actor is "tester"; reclaim or use --force' in answer.err
    assert bd(world, "close", bead, actor="agent").code == 0


def test_nobody_else_takes_a_bead_in_progress_away(world: Sandbox) -> None:
    bead = world.create()
    world.run("update", bead, "-s", "in_progress")
    answer = bd(world, "update", bead, "-a", "")
    assert answer.code == 1
    assert f'cannot reassign {bead}: held by "agent" (in_progress)' in answer.err
    assert bd(world, "update", bead, "-a", "", actor="agent").code == 0


def test_guards(world: Sandbox) -> None:
    bead = world.create()
    for guard in (("--if-status", "blocked"), ("--if-assignee", "bob"), ("--if-assignee", "")):
        answer = bd(world, "update", bead, *guard, "-s", "closed", "--append-notes", "n", "--set-metadata", "k=v")
        assert (answer.code, answer.out) == (13, ""), answer
        assert '"guard_mismatch":true' in answer.err.replace(" ", "")
    assert (world.show(bead)["status"], world.notes(bead)) == ("open", [])
    assert bd(world, "update", bead, "--if-status", "open", "--if-assignee", "agent", "-s", "blocked").code == 0
    assert world.show(bead)["status"] == "blocked"
