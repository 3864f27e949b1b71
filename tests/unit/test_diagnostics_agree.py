"""`status`, `explain` and what a dispatch then does agree, bead for bead, on queues of every kind."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bdauto.bd.writer import BdWriter
from bdauto.common.clock import Runtime
from bdauto.diagnostics.explanation import explanation
from bdauto.diagnostics.snapshot import gather
from bdauto.domain import pause
from bdauto.domain.eligibility import Verdict
from bdauto.domain.outcome import BeadOutcome
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time
from bdauto.sandbox import Sandbox
from bdauto.sandbox.fake_bd.store import Store
from tests.support.fakes import Board, dispatcher
from tests.support.sandbox_bd import InProcess

NAMES = ("alice", "mallory", "o'hara $(x)")
LABELS = ("agent-ok", "secret")


@dataclass(frozen=True)
class Made:
    """A bead to make; `waits_for` counts back from it, times are minutes from now."""

    priority: int
    age: int
    acceptance: str
    type: str
    assignee: str
    status: str
    creator: str
    labels: frozenset[str]
    defer: int | None
    retry: int | None
    flag: str | None
    dependency: str | None
    waits_for: int


mostly = st.sampled_from
beads = st.builds(
    Made,
    priority=st.integers(0, 4),
    age=mostly((0, 1, 1, 30, 500)),
    acceptance=mostly(("it works", "it works", "it works", "", " \n\t")),
    type=mostly(("task", "task", "bug", "epic")),
    assignee=mostly(("agent", "agent", "agent", "bob", "")),
    status=mostly(("open", "open", "open", "open", "in_progress", "blocked", "deferred", "closed")),
    creator=mostly(NAMES),
    labels=st.frozensets(mostly(LABELS)),
    defer=mostly((None, None, None, -60, 60)),
    retry=mostly((None, None, None, -5, 5)),
    flag=mostly((None, None, None, None, None, "pinned", "ephemeral")),
    dependency=mostly((None, None, "blocks", "conditional-blocks", "parent-child")),
    waits_for=st.integers(1, 3),
)
rules = st.builds(
    DispatchSettings,
    max_beads=st.just(99),
    exclude_types=mostly((("epic",), (), ("bug", "epic"))),
    trusted_creators=mostly(((), (), ("alice",), NAMES[1:])),
    labels=mostly(((), (), ("agent-ok",))),
    exclude_labels=mostly(((), (), ("secret",))),
)


def fill(sandbox: Sandbox, made: list[Made], now: datetime) -> list[str]:
    """Write the beads into the sandbox's database, past bd."""
    store = Store(str(sandbox.db / "sandbox.db"))
    with store.writing():
        for table in ("issues", "labels", "dependencies", "config"):
            store.db.execute(f"DELETE FROM {table}")
        store.insert("config", {"key": "issue_prefix", "value": "sb"})
        ids = [f"sb-{place}" for place in range(len(made))]
        for place, (bead_id, bead) in enumerate(zip(ids, made, strict=True)):
            store.insert("issues", _row(bead_id, bead, now))
            for label in bead.labels:
                store.insert("labels", {"issue_id": bead_id, "label": label})
            if bead.dependency and bead.waits_for <= place:
                other = ids[place - bead.waits_for]
                store.insert("dependencies", {"issue_id": bead_id, "depends_on_id": other, "type": bead.dependency})
                at = {"created_at": _stamp(now), "created_by": bead.creator}
                store.db.execute("UPDATE dependencies SET created_at = ?, created_by = ?", (*at.values(),))
    store.close()
    return ids


def _row(bead_id: str, bead: Made, now: datetime) -> dict[str, object]:
    metadata = {"bdauto.retry_at": format_time(now + timedelta(minutes=bead.retry))} if bead.retry else {}
    return {
        "id": bead_id,
        "title": f"title of {bead_id}",
        "acceptance_criteria": bead.acceptance,
        "status": bead.status,
        "priority": bead.priority,
        "issue_type": bead.type,
        "assignee": bead.assignee,
        "created_by": bead.creator,
        "created_at": _stamp(now - timedelta(minutes=600 - bead.age)),
        "updated_at": _stamp(now - timedelta(minutes=bead.age)),
        "defer_until": _stamp(now + timedelta(minutes=bead.defer)) if bead.defer else None,
        "metadata": json.dumps(metadata),
    } | ({bead.flag: 1} if bead.flag else {})


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture(scope="module")
def world() -> Iterator[Sandbox]:
    """One sandbox, which each example fills anew."""
    with Sandbox() as made:
        yield made


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(made=st.lists(beads, max_size=8), rule=rules, paused=mostly((False, False, False, True)), busy=st.booleans())
def test_status_and_explain_say_what_dispatch_then_does(
    world: Sandbox, made: list[Made], rule: DispatchSettings, paused: bool, busy: bool
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ids = fill(world, made, now)
    if paused:
        world.run("kv", "set", pause.KEY, pause.Pause("lunch").encode())
    board = Board(status=httpx.Response(200, json={"busy": busy}))
    services, bd, reap = board.services(), InProcess(world), ReapSettings()

    snapshot = gather(bd, services(), rule, reap, now)
    explained = {bead: explanation(bd, services(), bead, rule, reap, now) for bead in ids}
    report = dispatcher(bd, BdWriter(bd, Runtime()), services, rule, Runtime(now=lambda: now)).cycle()

    assert report.error is None, report
    assert {found.bead.id for found in snapshot.queue if not (found.bead.pinned or found.bead.ephemeral)} == {
        bead
        for bead, one in zip(ids, made, strict=True)
        if one.assignee == "agent" and one.status in ("open", "deferred") and not one.flag
    }
    dispatched = [bead.id for bead in report.beads if bead.outcome is BeadOutcome.dispatched]
    eligible = [found.bead.id for found in snapshot.queue if found.eligible]
    assert dispatched == ([] if paused or busy else eligible)
    placed = {bead: found.place for bead, found in explained.items() if found.place}
    assert sorted(placed, key=lambda bead: placed[bead] or 0) == eligible
    assert sorted(placed.values()) == [*range(1, len(eligible) + 1)]
    for bead, found in explained.items():
        goes = bool(found.conditions) and all(condition.passed for condition in found.conditions)
        assert goes == (bead in dispatched), bead
    for listed in snapshot.queue:
        assert _judged(listed) == _judged(explained[listed.bead.id].verdict)


def _judged(found: Verdict) -> tuple[str, dict[str, bool]]:
    return found.reason, {condition.name: condition.passed for condition in found.conditions}


def test_a_queue_longer_than_a_page_is_shown_in_the_order_in_which_it_is_dispatched(world: Sandbox) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    plain = Made(2, 0, "it works", "task", "agent", "open", "alice", frozenset(), None, None, None, None, 1)
    made = [
        Made(
            **{**plain.__dict__, "priority": place % 3, "age": place * 37 % 101, "acceptance": "x" if place % 4 else ""}
        )
        for place in range(70)
    ]
    fill(world, made, now)
    board, bd, rule = Board(), InProcess(world), DispatchSettings(max_beads=99)
    snapshot = gather(bd, None, rule, ReapSettings(), now)
    dispatcher(bd, BdWriter(bd, Runtime()), board.services(), rule, Runtime(now=lambda: now)).cycle()
    assert board.posts == [found.bead.id for found in snapshot.queue if found.eligible]
    assert len(board.posts) == 52


def test_looking_writes_nothing(world: Sandbox) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    blocked = Made(0, 5, "ok", "task", "agent", "open", "alice", frozenset(), None, None, None, "blocks", 1)
    ids = fill(world, [Made(**{**blocked.__dict__, "dependency": None}), blocked], now)
    bd = InProcess(world, readonly=True)
    before = [world.show(bead) for bead in ids]
    gather(bd, None, DispatchSettings(), ReapSettings(), now)
    explanation(bd, None, ids[1], DispatchSettings(), ReapSettings(), now)
    assert [world.show(bead) for bead in ids] == before
    assert set(bd.verbs) == {"list", "ready", "kv list"}
