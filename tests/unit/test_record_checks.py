"""What `doctor` says of bd's own record, and of failures of its schema."""

from collections.abc import Iterator

import pytest

from bdauto.bd.running import schema_hint
from bdauto.diagnostics.record_checks import Topology, record_checks
from bdauto.domain.findings import Check, Level
from bdauto.sandbox import Sandbox
from bdauto.sandbox.fake_bd.call import DATABASE
from bdauto.sandbox.fake_bd.store import Store, stamp
from tests.support.sandbox_bd import InProcess


@pytest.fixture
def world() -> Iterator[Sandbox]:
    """bd 1.3 on a proxied server."""
    with Sandbox(topology="proxied") as sandbox:
        yield sandbox


def look(world: Sandbox, topology: Topology = Topology.proxied) -> dict[str, Check]:
    return {check.name: check for check in record_checks(InProcess(world, readonly=True), topology)}


def insert(world: Sandbox, table: str, **row: object) -> None:
    store = Store(str(world.db / DATABASE))
    store.insert(table, row)
    store.close()


def test_all_is_well(world: Sandbox) -> None:
    found = look(world)
    assert {check.level for check in found.values()} == {Level.ok}
    assert list(found) == ["uncommitted", "closing", "leases"]
    assert "BEADS_ACTOR=agent" in found["closing"].detail


def test_uncommitted_tables_are_named_with_what_commits_them(world: Sandbox) -> None:
    for table in ("config", "issues", "events"):
        insert(world, "dolt_status", table_name=table, staged=0, status="modified")
    found = look(world)["uncommitted"]
    assert (found.level, found.detail.partition(".")[0]) == (Level.warn, "in no Dolt commit: events, issues")
    assert "DOLT_COMMIT" in found.hint


def test_bd_init_leaves_its_configuration_uncommitted(world: Sandbox) -> None:
    insert(world, "dolt_status", table_name="config", staged=0, status="modified")
    assert look(world)["uncommitted"].level is Level.ok


@pytest.mark.parametrize(
    ("status", "minutes", "level"),
    [("in_progress", 1, Level.warn), ("in_progress", -1, Level.ok), ("open", 1, Level.ok)],
)
def test_a_lease_that_ran_out_on_a_bead_in_progress(world: Sandbox, status: str, minutes: int, level: Level) -> None:
    bead = world.create()
    world.edit(bead, status=status)
    insert(world, "leases", issue_id=bead, holder="agent", lease_expires_at=stamp(ago=minutes * 60))
    found = look(world)["leases"]
    assert found.level is level
    assert (bead in found.detail) is (level is Level.warn)


def test_bd_before_1_3_can_revert_on_a_server() -> None:
    with Sandbox() as world:
        assert list(look(world, Topology.server)) == ["uncommitted", "reverts"]
    with Sandbox(topology="embedded") as world:
        assert look(world, Topology.embedded) == {}


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("schema version mismatch: database is at v65, binary knows up to v49 (16 migrations ahead)", "or a later one"),
        ("database is at v53, binary expects v65, and the read-only open cannot migrate it", "bd migrate schema"),
        ("search count issues: Error 1146 (HY000): table not found: leases", "bd migrate schema"),
        ('Error 1105 (HY000): column "is_blocked" could not be found in any table in scope', "bd migrate schema"),
        ("pending schema migrations alter pre-existing dirty tables: issues", "bd dolt commit"),
        ("connection refused", ""),
    ],
)
def test_a_failure_of_the_schema_says_what_to_do(said: str, hint: str) -> None:
    assert hint in schema_hint(said)
    assert bool(schema_hint(said)) is bool(hint)
