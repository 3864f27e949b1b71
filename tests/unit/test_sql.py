"""Changes as SQL, by their effect on the rows, the events and the commits of the sandbox's database."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdauto.bd.change import MARK, Change, Moment
from bdauto.bd.sql import NAMED, NOT_WRITTEN, NOTES_BYTES, OVERTAKEN, to_sql
from bdauto.common.errors import UsageError
from bdauto.domain.bead import Bead
from bdauto.sandbox.fake_bd.statements import SqlSession
from bdauto.sandbox.fake_bd.store import Store, plain_time
from tests.support.fakes import NOW, bead, change, row

HOSTILE = "'; DROP TABLE issues; -- \\' \" \x00 \u202e [bold] é 🙂"
CLAIM = "auto-dispatcher claimed at 2026-04-18T22:35:46Z"


class Rows:
    """A database with these issues, in which it is NOW."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.store = Store(":memory:")
        for one in rows:
            metadata = json.dumps(one["metadata"]) if "metadata" in one else None
            times = {key: plain_time(one[key].isoformat()) for key in ("created_at", "updated_at")}
            self.store.insert("issues", one | times | {"notes": one.get("notes") or "", "metadata": metadata})

    def apply(
        self, *changes: Change, actor: str = "me", now: datetime = NOW, between: str = "", local: datetime = NOW
    ) -> str:
        """Apply the changes as a server does, and return the error, or ""; `between` is another's write that merges.

        The server's local time is `local`.
        """
        session = SqlSession(self.store)
        self.store.db.create_function("UTC_TIMESTAMP", 0, lambda: f"{_stamp(now)}.9")
        self.store.db.create_function("NOW", 0, lambda: _stamp(local))
        if between:
            session.on_commit = lambda: self.store.db.execute(between)
        try:
            session.run(to_sql(changes, actor))
        except ValueError as error:
            return str(error)
        return ""

    def __getitem__(self, bead_id: str) -> dict[str, Any]:
        found = self.store.issue(bead_id) or {}
        return found | {"metadata": json.loads(str(found["metadata"] or "{}"))}

    def events(self) -> list[tuple[Any, ...]]:
        query = "SELECT issue_id, event_type, actor, old_value ->> 'status', new_value ->> 'status' FROM events"
        return [tuple(one) for one in self.store.db.execute(query)]

    def commits(self) -> list[tuple[str, ...]]:
        return [tuple(one) for one in self.store.db.execute("SELECT committer, email, message FROM dolt_log")]


HOUR = timedelta(hours=1)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def claim(of: Bead, **fields: Any) -> Change:
    plain: dict[str, Any] = {
        "act": "claim",
        "status": "in_progress",
        "writes_claim_note": True,
        "put": {"bdauto.attempt": "a1", "bdauto.attempts": 1, "bdauto.claimed_at": Moment()},
        "drop": ("bdauto.retry_at",),
        "if_status": "open",
        "if_assignee": "agent",
        "if_updated_at": of.updated_at,
    }
    return change(of, **(plain | fields))


def test_a_claim_writes_status_note_and_metadata_together() -> None:
    rows = Rows(row("x-1", notes="mine", metadata={"team": "a", "bdauto.retry_at": "2026"}), row("x-2"))
    assert rows.apply(claim(bead("x-1"))) == ""
    one = rows["x-1"]
    assert (one["status"], one["notes"]) == ("in_progress", f"mine\n{CLAIM}")
    own = {"bdauto.attempt": "a1", "bdauto.attempts": 1, "bdauto.claimed_at": "2026-04-18T22:35:46Z", MARK: "w1"}
    assert one["metadata"] == {"team": "a", "bdauto.claim_note": "0 written"} | own
    assert (one["updated_at"], one["started_at"]) == (_stamp(NOW), _stamp(NOW))
    assert rows["x-2"]["status"] == "open"


def test_a_change_leaves_an_event_and_a_commit_in_the_actor_s_name() -> None:
    rows = Rows(row("x-1"))
    rows.apply(claim(bead("x-1")), actor="beads-dispatcher")
    rows.apply(change(bead("x-1"), act="record", mark="w2", note="n"), actor="beads-dispatcher")
    assert rows.events() == [
        ("x-1", "status_changed", "beads-dispatcher", "open", "in_progress"),
        ("x-1", "updated", "beads-dispatcher", "in_progress", "in_progress"),
    ]
    author = ("beads-dispatcher", "beads-dispatcher@bdauto")
    assert rows.commits() == [(*author, "bdauto: claim x-1"), (*author, "bdauto: record x-1")]


@pytest.mark.parametrize(("schema", "written"), [(32, NOW + 9 * HOUR), (60, NOW + 9 * HOUR), (61, NOW), (65, NOW)])
def test_an_event_has_the_time_that_this_bd_writes(schema: int, written: datetime) -> None:
    """The server is in Tokyo. An older bd leaves the time of an event to it, a newer one writes UTC."""
    rows = Rows(row("x-1"))
    rows.store.db.execute("UPDATE schema_migrations SET version = ?", (schema,))
    rows.apply(claim(bead("x-1")), local=NOW + 9 * HOUR)
    assert [one[0] for one in rows.store.db.execute("SELECT created_at FROM events")] == [_stamp(written)]


@pytest.mark.parametrize("actor", ["", "<>", "a b <c@d>", "é\n", HOSTILE])
def test_any_actor_is_an_author(actor: str) -> None:
    rows = Rows(row("x-1"))
    assert rows.apply(claim(bead("x-1")), actor=actor) == ""
    [(name, email, _)] = rows.commits()
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    assert email == f"{name}@bdauto"


@pytest.mark.parametrize(
    "moved",
    [{"status": "in_progress"}, {"status": "closed"}, {"assignee": "ann"}, {"updated_at": NOW}, {"id": "y-1"}],
    ids=lambda moved: next(iter(moved)),
)
def test_a_bead_that_is_not_what_was_seen_is_not_written(moved: dict[str, Any]) -> None:
    rows = Rows(row("x-1") | moved)
    before = rows[moved.get("id", "x-1")]
    assert NOT_WRITTEN in rows.apply(claim(bead("x-1")))
    assert rows[moved.get("id", "x-1")] == before
    assert (rows.events(), rows.commits()) == ([], [])


@pytest.mark.parametrize("metadata", [None, {}, [], "null", {"bdauto.attempt": "a2"}])
def test_only_the_attempt_that_claimed_a_bead_may_end_its_claim(metadata: Any) -> None:
    rows = Rows(row("x-1", metadata=metadata))
    assert NOT_WRITTEN in rows.apply(change(note="mine", if_attempt="a1"))
    assert Rows(row("x-1", metadata={"bdauto.attempt": "a1"})).apply(change(if_attempt="a1")) == ""


@pytest.mark.parametrize(("there", "written"), [({}, True), (None, True), ({MARK: "w0"}, False)])
def test_a_bead_that_had_no_mark_is_not_written_once_it_has_one(there: Any, written: bool) -> None:
    rows = Rows(row("x-1", metadata=there))
    said = rows.apply(claim(bead("x-1"), if_mark="", if_attempt=""))
    assert (NOT_WRITTEN not in said) is written


@pytest.mark.parametrize("metadata", [None, [], [1], "text", 5, True])
def test_metadata_that_is_no_object_is_taken_as_empty(metadata: Any) -> None:
    rows = Rows(row("x-1", metadata=metadata))
    assert rows.apply(claim(bead("x-1"))) == ""
    assert rows["x-1"]["metadata"]["bdauto.attempt"] == "a1"
    assert NOT_WRITTEN in rows.apply(claim(bead("x-1"), mark="w2"))
    assert rows.apply(change(mark="w3", status="open", drop=("bdauto.attempt",), if_attempt="a1")) == ""


def test_a_change_that_is_sent_again_is_written_once() -> None:
    rows = Rows(row("x-1", metadata={"bdauto.attempt": "a1"}))
    record = change(note="dispatched: job=j", put={"bdauto.job": "j"}, if_attempt="a1")
    assert [rows.apply(record) for _ in range(3)] == ["", "", ""]
    assert rows["x-1"]["notes"] == "dispatched: job=j"
    assert (len(rows.events()), len(rows.commits())) == (1, 1)


def test_a_quiet_change_leaves_notes_and_time_alone() -> None:
    """So a note that somebody writes at that moment does not conflict with it."""
    seen = row("x-1", metadata={"bdauto.attempt": "a1"}, notes="mine")
    rows = Rows(seen, row("x-2", metadata={"bdauto.attempt": "a2"}))
    before = rows["x-1"]["updated_at"]
    record = change(put={"bdauto.job": "j"}, if_attempt="a1", quiet=True, comment="dispatched: job=j")
    assert "notes = " not in to_sql([record], "me")
    note = change(bead("x-2"), mark="w2", note="n", if_attempt="a2")
    assert rows.apply(record, note) == ""
    assert (rows["x-1"]["notes"], rows["x-1"]["updated_at"], rows["x-1"]["metadata"]["bdauto.job"]) == (
        "mine",
        before,
        "j",
    )
    assert (rows["x-2"]["notes"], rows["x-2"]["updated_at"]) == ("n", _stamp(NOW))
    assert [one[0] for one in rows.store.db.execute("SELECT comment FROM events")] == ["dispatched: job=j", None]


def test_a_claim_that_merges_with_another_s_assignment_is_told_from_one_that_was_never_written() -> None:
    rows = Rows(row("x-1", metadata={"team": "a", "bdauto.attempts": 2}))
    seen = bead("x-1", metadata={"team": "a", "bdauto.attempts": 2})
    mine = claim(seen)
    assert OVERTAKEN in rows.apply(mine, between="UPDATE issues SET assignee = 'bob'")
    assert rows["x-1"]["status"] == "in_progress"
    assert rows.apply(mine.undone("w2")) == ""
    one = rows["x-1"]
    assert (one["status"], one["assignee"], one["notes"]) == ("open", "bob", "")
    assert one["metadata"] == {"team": "a", "bdauto.attempts": 2, MARK: "w2"}


PAUSE = "INSERT INTO config (`key`, value) VALUES ('kv.bdauto.paused', 'x')"


@pytest.mark.parametrize(
    ("stored", "expected", "written"),
    [(None, None, True), ("", None, True), ("x", None, False), (None, "x", False), ("x", "x", True), ("x", "y", False)],
)
def test_a_change_holds_only_while_the_store_says_so(stored: str | None, expected: str | None, written: bool) -> None:
    rows = Rows(row("x-1"))
    if stored is not None:
        rows.store.db.execute(PAUSE.replace("'x'", f"'{stored}'"))
    said = rows.apply(claim(bead("x-1"), if_store={"bdauto.paused": expected}))
    assert (NOT_WRITTEN not in said, rows["x-1"]["status"] == "in_progress") == (written, written)


def test_a_pause_that_dolt_merges_with_a_claim_is_seen() -> None:
    rows = Rows(row("x-1"))
    assert OVERTAKEN in rows.apply(claim(bead("x-1"), if_store={"bdauto.paused": None}), between=PAUSE)


def test_what_was_moved_since_is_not_undone() -> None:
    rows = Rows(row("x-1", assignee="bob", status="closed", metadata={MARK: "w1"}))
    assert NOT_WRITTEN in rows.apply(claim(bead("x-1")).undone("w2"))


NOTES: list[tuple[str, str | None, bool, str, str]] = [
    ("the first note", None, False, "new", "new"),
    ("after others", "a\nb", False, "new", "a\nb\nnew"),
    ("taken back alone", CLAIM, True, "", ""),
    ("taken back at the end", f"a\n{CLAIM}", True, "", "a"),
    ("taken back at the start", f"{CLAIM}\nb", True, "", "b"),
    ("taken back between", f"a\n{CLAIM}\nb", True, "", "a\nb"),
    ("taken back and noted", f"a\n{CLAIM}", True, "new", "a\nnew"),
    ("taken back, the only one, and noted", CLAIM, True, "new", "new"),
    ("nothing to take back", "a", True, "new", "a\nnew"),
    ("a claim before it", f"{CLAIM[:-3]}00Z\n{CLAIM}", True, "", f"{CLAIM[:-3]}00Z"),
    ("a full column keeps what it has", "x" * (NOTES_BYTES - 3), False, "new", "x" * (NOTES_BYTES - 3)),
    ("a full column when taken back", f"{CLAIM}\n{'x' * 65_480}", True, "n" * 60, "x" * 65_480),
    ("hostile text", f"{CLAIM}\n';--", True, "\\'; DROP", "';--\n\\'; DROP"),
]


@pytest.mark.parametrize(("notes", "retract", "note", "after"), [n[1:] for n in NOTES], ids=[n[0] for n in NOTES])
def test_notes(notes: str | None, retract: bool, note: str, after: str) -> None:
    rows = Rows(row("x-1", notes=notes, metadata={"bdauto.claimed_at": "2026-04-18T22:35:46Z"}))
    rows.apply(change(note=note, retracts_claim_note=retract, drop=("bdauto.claimed_at",)))
    assert rows["x-1"]["notes"] == after


def test_without_a_time_of_the_claim_no_note_is_taken_back() -> None:
    rows = Rows(row("x-1", notes=CLAIM))
    rows.apply(change(retracts_claim_note=True))
    assert rows["x-1"]["notes"] == CLAIM


def test_a_row_without_metadata_gets_it() -> None:
    rows = Rows(row("x-1"))
    rows.apply(change(put={"bdauto.job": "j"}))
    assert rows["x-1"]["metadata"] == {"bdauto.job": "j", MARK: "w1"}


def test_times_are_the_database_s_and_whole_seconds() -> None:
    rows = Rows(row("x-1"))
    rows.apply(change(put={"bdauto.retry_at": Moment(timedelta(minutes=2, milliseconds=1400))}))
    assert rows["x-1"]["metadata"]["bdauto.retry_at"] == "2026-04-18T22:37:47Z"
    assert rows["x-1"]["updated_at"] == _stamp(NOW)


def test_started_at_is_set_once() -> None:
    rows = Rows(row("x-1"))
    rows.apply(change(status="in_progress"), now=NOW - timedelta(days=1))
    rows.apply(change(status="in_progress", mark="w2"), now=NOW)
    assert rows["x-1"]["started_at"] == _stamp(NOW - timedelta(days=1))


def several() -> list[Change]:
    why = {"status": "blocked", "note": "why", "put": {"bdauto.quarantined": "y"}, "if_status": "open"}
    return [claim(bead("x-0")), change(bead("x-1"), act="block", mark="w2", **why)]


def test_several_beads_each_get_their_own() -> None:
    rows = Rows(*[row(f"x-{n}", notes=f"n{n}") for n in range(3)])
    assert rows.apply(*several()) == ""
    assert [rows[f"x-{n}"]["status"] for n in range(3)] == ["in_progress", "blocked", "open"]
    assert [rows[f"x-{n}"]["notes"] for n in range(3)] == [f"n0\n{CLAIM}", "n1\nwhy", "n2"]
    assert [rows[f"x-{n}"]["metadata"].get(MARK) for n in range(3)] == ["w1", "w2", None]
    assert "bdauto.attempt" not in rows["x-1"]["metadata"]
    assert [event[3:] for event in rows.events()] == [("open", "in_progress"), ("open", "blocked")]
    assert [message for *_, message in rows.commits()] == ["bdauto: claim x-0, block x-1"]


def test_several_beads_change_together_or_not_at_all() -> None:
    rows = Rows(row("x-0"), row("x-1", status="closed"))
    assert NOT_WRITTEN in rows.apply(*several())
    assert [rows[f"x-{n}"]["status"] for n in range(2)] == ["open", "closed"]
    assert (rows.events(), rows.commits()) == ([], [])


def test_a_commit_s_message_names_some_of_many_beads() -> None:
    rows = Rows(*[row(f"x-{n}") for n in range(NAMED + 5)])
    rows.apply(*[change(bead(f"x-{n}"), act="block", mark=f"w{n}", status="blocked") for n in range(NAMED + 5)])
    [(*_, message)] = rows.commits()
    assert message.endswith(f"block x-{NAMED - 1}, and 5 more")


def without_literals(text: str) -> str:
    """Return the SQL for a bead with this text in every place that takes one, with its hex literals left out."""
    fields: dict[str, Any] = dict.fromkeys(
        ("act", "mark", "status", "note", "if_status", "if_assignee", "if_attempt"), text
    )
    statements = to_sql([change(bead(), put={"bdauto.error": text}, **fields)], text)
    return re.sub(r"(X'+)[0-9a-f]+", r"\1", statements)


@given(st.text(min_size=1, max_size=80))
@settings(max_examples=40, deadline=None)
def test_no_text_is_ever_read_as_sql(text: str) -> None:
    assert without_literals(text) == without_literals("x")


def test_hostile_text_arrives_as_it_is() -> None:
    rows = Rows(row("x-1"))
    rows.apply(change(note=HOSTILE, put={"bdauto.error": HOSTILE}))
    assert (rows["x-1"]["notes"], rows["x-1"]["metadata"]["bdauto.error"]) == (HOSTILE, HOSTILE)


@pytest.mark.parametrize("bead_id", ["x'1", "-rf", "x 1", "x\n", "", "x;y", "é"])
def test_an_id_that_is_none_reaches_no_sql(bead_id: str) -> None:
    broken = msgspec.structs.replace(bead(), id=bead_id)
    with pytest.raises(UsageError, match="not a bead id"):
        to_sql([change(broken)], "me")


def test_a_metadata_key_that_is_none_is_a_defect() -> None:
    with pytest.raises(ValueError, match="not a metadata key"):
        to_sql([change(put={"a'b": 1})], "me")
