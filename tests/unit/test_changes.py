"""Changes of beads: the SQL by its effect on rows, the embedded path by its options, and both as compare-and-set."""

import fcntl
import json
import os
import random
import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdauto.bd import Bd, Call
from bdauto.changes import MARK, NOTES_BYTES, BdWriter, Change, DryWriter, apply_each, to_options, to_sql
from bdauto.errors import BdConflict, BdDrift, BdError, BdFailed, BdTimeout, BdUnsupported, UsageError
from bdauto.models import Bead, BeadList
from bdauto.runtime import Runtime
from bdauto.settings import BdSettings

from .doubles import NOW, Answered, Clock, bead, row

HOSTILE = "'; DROP TABLE issues; -- \\' \" \x00 \u202e [bold] é 🙂"
CLAIM = "auto-dispatcher claimed at 2026-04-18T22:35:46Z"


class Rows:
    """The issues table of a Dolt server as far as one UPDATE of it goes: SQLite with MySQL's functions."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.row_factory = sqlite3.Row
        self.db.create_function("CONCAT", -1, lambda *parts: None if None in parts else "".join(parts))
        self.db.create_function("JSON_UNQUOTE", 1, lambda value: value)
        self.db.execute("CREATE TABLE issues (id, status, assignee, notes, metadata, updated_at, started_at)")
        for one in rows:
            notes, metadata = one.get("notes"), one.get("metadata")
            values = (
                one["id"],
                one["status"],
                one["assignee"],
                notes,
                None if metadata is None else json.dumps(metadata),
            )
            self.db.execute("INSERT INTO issues VALUES (?, ?, ?, ?, ?, ?, NULL)", (*values, _stamp(one["updated_at"])))

    def apply(self, *changes: Change, mark: str = "w1", now: datetime = NOW) -> int:
        return self.db.execute(to_sql(changes, mark, now)).rowcount

    def __getitem__(self, bead_id: str) -> dict[str, Any]:
        found = dict(self.db.execute("SELECT * FROM issues WHERE id = ?", (bead_id,)).fetchone())
        return found | {"metadata": json.loads(found["metadata"] or "{}")}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def claim(of: Bead, **fields: Any) -> Change:
    plain: dict[str, Any] = {
        "status": "in_progress",
        "note": CLAIM,
        "put": {"bdauto.attempt": "a1", "bdauto.attempts": 1},
        "drop": ("bdauto.retry_at",),
        "if_status": "open",
        "if_assignee": "agent",
        "if_updated_at": of.updated_at,
    }
    return Change(bead=of, **(plain | fields))


def test_a_claim_writes_status_note_and_metadata_together() -> None:
    rows = Rows(row("x-1", notes="mine", metadata={"team": "a", "bdauto.retry_at": "2026"}), row("x-2"))
    assert rows.apply(claim(bead("x-1"))) == 1
    one = rows["x-1"]
    assert (one["status"], one["notes"]) == ("in_progress", f"mine\n{CLAIM}")
    assert one["metadata"] == {"team": "a", "bdauto.attempt": "a1", "bdauto.attempts": 1, MARK: "w1"}
    assert (one["updated_at"], one["started_at"]) == (_stamp(NOW), _stamp(NOW))
    assert rows["x-2"]["status"] == "open"


@pytest.mark.parametrize(
    "moved",
    [{"status": "in_progress"}, {"status": "closed"}, {"assignee": "ann"}, {"updated_at": NOW}, {"id": "y-1"}],
    ids=lambda moved: next(iter(moved)),
)
def test_a_bead_that_is_not_what_was_seen_is_not_written(moved: dict[str, Any]) -> None:
    rows = Rows(row("x-1") | moved)
    before = rows[moved.get("id", "x-1")]
    assert rows.apply(claim(bead("x-1"))) == 0
    assert rows[moved.get("id", "x-1")] == before


@pytest.mark.parametrize("metadata", [None, {}, {"bdauto.attempt": "a2"}])
def test_only_the_attempt_that_claimed_a_bead_may_end_its_claim(metadata: dict[str, Any] | None) -> None:
    rows = Rows(row("x-1", metadata=metadata))
    assert rows.apply(Change(bead=bead(), note="mine", if_attempt="a1")) == 0
    assert Rows(row("x-1", metadata={"bdauto.attempt": "a1"})).apply(Change(bead=bead(), if_attempt="a1")) == 1


NOTES: list[tuple[str, str | None, str, str, str]] = [
    ("the first note", None, "", "new", "new"),
    ("after others", "a\nb", "", "new", "a\nb\nnew"),
    ("taken back alone", CLAIM, CLAIM, "", ""),
    ("taken back at the end", f"a\n{CLAIM}", CLAIM, "", "a"),
    ("taken back at the start", f"{CLAIM}\nb", CLAIM, "", "b"),
    ("taken back between", f"a\n{CLAIM}\nb", CLAIM, "", "a\nb"),
    ("taken back and noted", f"a\n{CLAIM}", CLAIM, "new", "a\nnew"),
    ("taken back, the only one, and noted", CLAIM, CLAIM, "new", "new"),
    ("nothing to take back", "a", CLAIM, "new", "a\nnew"),
    ("a full column keeps what it has", "x" * (NOTES_BYTES - 3), "", "new", "x" * (NOTES_BYTES - 3)),
    ("a full column when taken back", f"{CLAIM}\n{'x' * 65_480}", CLAIM, "n" * 60, "x" * 65_480),
    ("hostile text", f"{CLAIM}\n';--", CLAIM, "\\'; DROP", "';--\n\\'; DROP"),
]


@pytest.mark.parametrize(("notes", "retract", "note", "after"), [n[1:] for n in NOTES], ids=[n[0] for n in NOTES])
def test_notes_on_a_server(notes: str | None, retract: str, note: str, after: str) -> None:
    rows = Rows(row("x-1", notes=notes))
    rows.apply(Change(bead=bead(), note=note, retract=retract))
    assert (rows["x-1"]["notes"] or "") == after


@pytest.mark.parametrize(("notes", "retract", "note", "after"), [n[1:] for n in NOTES], ids=[n[0] for n in NOTES])
def test_notes_in_an_embedded_database(notes: str | None, retract: str, note: str, after: str) -> None:
    options = to_options(Change(bead=bead(), note=note, retract=retract), notes or "", "w1")
    assert applied(options, notes or "") == after


def applied(options: list[str], notes: str) -> str:
    """Return the notes that `bd update` leaves."""
    given_to = dict(zip(options[::2], options[1::2], strict=True))
    if "--append-notes" in given_to:
        return "\n".join(filter(None, [notes, given_to["--append-notes"]]))
    return given_to.get("--notes", notes)


def test_a_row_without_metadata_gets_it() -> None:
    rows = Rows(row("x-1"))
    rows.apply(Change(bead=bead(), put={"bdauto.job": "j"}))
    assert rows["x-1"]["metadata"] == {"bdauto.job": "j", MARK: "w1"}


def test_started_at_is_set_once() -> None:
    rows = Rows(row("x-1"))
    rows.apply(Change(bead=bead(), status="in_progress"), now=NOW - timedelta(days=1))
    rows.apply(Change(bead=bead(), status="in_progress"), now=NOW)
    assert rows["x-1"]["started_at"] == _stamp(NOW - timedelta(days=1))


def test_several_beads_in_one_statement_each_get_their_own() -> None:
    rows = Rows(*[row(f"x-{n}", notes=f"n{n}") for n in range(4)])
    changes = [
        claim(bead("x-0")),
        Change(bead=bead("x-1"), status="blocked", note="why", put={"bdauto.blocked": "y"}, if_status="open"),
        claim(bead("x-2"), if_status="closed"),
    ]
    assert rows.apply(*changes) == 2
    assert [rows[f"x-{n}"]["status"] for n in range(4)] == ["in_progress", "blocked", "open", "open"]
    assert [rows[f"x-{n}"]["notes"] for n in range(4)] == [f"n0\n{CLAIM}", "n1\nwhy", "n2", "n3"]
    assert [rows[f"x-{n}"]["metadata"].get(MARK) for n in range(4)] == ["w1", "w1", None, None]
    assert "bdauto.attempt" not in rows["x-1"]["metadata"]


@given(st.text(max_size=80), st.text(max_size=40), st.dictionaries(st.sampled_from(["bdauto.a", "b"]), st.text()))
@settings(max_examples=60, deadline=None)
def test_no_text_is_ever_read_as_sql(note: str, assignee: str, put: dict[str, str]) -> None:
    change = Change(bead=bead(), note=note, put=put, retract=note[::-1], if_assignee=assignee, if_attempt=note)
    statement = to_sql([change], HOSTILE, NOW)
    bare = re.sub(r"CAST\(X'[0-9a-f]*' AS CHAR\)|'\$\.\"[\w.]+\"'", "", statement)
    assert re.fullmatch(r"[A-Za-z_=,()<>0-9 .]*(''[A-Za-z_=,()<>0-9 .]*)*", bare), bare


def test_hostile_text_arrives_as_it_is() -> None:
    rows = Rows(row("x-1"))
    rows.apply(Change(bead=bead(), note=HOSTILE, put={"bdauto.error": HOSTILE}))
    assert (rows["x-1"]["notes"], rows["x-1"]["metadata"]["bdauto.error"]) == (HOSTILE, HOSTILE)


@pytest.mark.parametrize("bead_id", ["x'1", "-rf", "x 1", "x\n", "", "x;y", "é"])
def test_an_id_that_is_none_reaches_neither_sql_nor_an_argv(bead_id: str) -> None:
    broken = msgspec.structs.replace(bead(), id=bead_id)
    with pytest.raises(UsageError, match="not a bead id"):
        to_sql([Change(bead=broken)], "w1", NOW)


def test_a_metadata_key_that_is_none_is_a_defect() -> None:
    with pytest.raises(ValueError, match="not a metadata key"):
        to_sql([Change(bead=bead(), put={"a'b": 1})], "w1", NOW)


class Scripted(Bd):
    """bd with answers by script: what was asked of it is in `asked`."""

    def __init__(self, folder: Path | None = None, version: str = "1.0.3") -> None:
        super().__init__(BdSettings(bd_timeout=timedelta(seconds=1)))
        self.folder, self.number = folder, version
        self.rows: list[int | BdError] = []
        self.beads: dict[str, Bead | BdError] = {}
        self.asked: list[str] = []
        self.updates: list[tuple[str, list[str]]] = []
        self.on_show: Callable[[], None] = lambda: None

    def version(self) -> Call[str]:
        self.asked.append("version")
        return Answered(lambda: self.number)

    def where(self) -> dict[str, Any]:
        self.asked.append("where")
        name = "embeddeddolt" if self.folder else "dolt"
        return {"path": str(self.folder or "/b"), "database_path": f"{self.folder or '/b'}/{name}"}

    def sql(self, statement: str) -> int:
        self.asked.append("sql")
        if self.folder:
            raise BdFailed("bd sql failed (exit 1): 'bd sql' is not yet supported in embedded mode")
        answer = self.rows.pop(0) if self.rows else statement.count("(id = ")
        if isinstance(answer, BdError):
            raise answer
        return answer

    def show(self, ids: Sequence[str]) -> BeadList:
        self.asked.append("show")
        self.on_show()
        return BeadList(tuple(found for found in map(self.beads.get, ids) if isinstance(found, Bead)))

    def update(self, bead_id: str, options: Sequence[str]) -> Bead:
        found = self.beads[bead_id]
        if isinstance(found, BdError) or bead_id.startswith("bad"):
            raise BdFailed(f"bd update {bead_id} failed")
        self.updates.append((bead_id, list(options)))
        self.beads[bead_id] = msgspec.structs.replace(found, status="closed")
        return found


def writer(bd: Bd, clock: Clock | None = None) -> BdWriter:
    return BdWriter(bd, (clock or Clock()).runtime())


def test_on_a_server_a_change_is_one_call_after_the_version_was_checked_once() -> None:
    bd = Scripted()
    bd.rows = [1, 0]
    write = writer(bd)
    assert [write.apply([claim(bead())]), write.apply([claim(bead())])] == [[True], [False]]
    assert bd.asked == ["version", "sql", "sql"]


@pytest.mark.parametrize(
    ("number", "embedded", "good"), [("1.0.1", True, False), ("1.0.4", True, True), ("1.0.4", False, False)]
)
def test_a_harmful_bd_never_writes(number: str, embedded: bool, good: bool, tmp_path: Path) -> None:
    bd = Scripted(tmp_path if embedded else None, number)
    bd.beads = {"x-1": bead()}
    if good:
        assert writer(bd).apply([claim(bead())]) == [True]
    else:
        with pytest.raises(BdUnsupported):
            writer(bd).apply([claim(bead())])
        assert not {"sql", "show"} & set(bd.asked)


def test_the_version_is_asked_for_ahead_and_once() -> None:
    bd = Scripted()
    write = writer(bd)
    write.prepare()
    write.prepare()
    write.apply([claim(bead())])
    write.prepare()
    assert bd.asked == ["version", "sql"]


def test_of_several_changes_the_mark_says_which_were_written() -> None:
    class Marked(random.Random):
        def getrandbits(self, k: int) -> int:
            return 1

    bd = Scripted()
    bd.rows = [1]
    runtime = Runtime(now=lambda: NOW, rng=Marked())
    bd.beads = {"x-1": bead("x-1"), "x-2": bead("x-2", metadata={MARK: runtime.unique()})}
    assert BdWriter(bd, runtime).apply([claim(bead("x-1")), claim(bead("x-2"))]) == [False, True]


def test_a_conflict_is_tried_again_with_jitter_and_not_for_ever() -> None:
    clock, bd = Clock(), Scripted()
    bd.rows = [BdConflict("1213"), BdConflict("1213"), 1]
    assert writer(bd, clock).apply([claim(bead())]) == [True]
    assert len(clock.waited) == 2
    assert len(set(clock.waited)) == 2
    bd.rows = [BdConflict("1213")] * 100
    with pytest.raises(BdConflict):
        writer(bd, clock).apply([claim(bead())])
    assert sum(clock.waited) < 5


@pytest.mark.parametrize("error", [BdFailed("x"), BdTimeout("x"), BdDrift("x")])
def test_nothing_but_a_conflict_is_tried_again(error: BdError) -> None:
    bd = Scripted()
    bd.rows = [error]
    with pytest.raises(type(error)):
        writer(bd).apply([claim(bead())])
    assert bd.asked.count("sql") == 1


def test_more_rows_than_beads_is_drift() -> None:
    bd = Scripted()
    bd.rows = [7]
    with pytest.raises(BdDrift, match="7 rows"):
        writer(bd).apply([claim(bead())])


def test_an_embedded_bead_is_read_again_and_updated_by_options(tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead()}
    assert writer(bd).apply([claim(bead())]) == [True]
    [(bead_id, options)] = bd.updates
    assert bead_id == "x-1"
    assert options[:4] == ["--status", "in_progress", "--append-notes", CLAIM]
    assert {"bdauto.attempt=a1", "bdauto.attempts=1"} <= set(options)
    assert options[-2:] == ["--unset-metadata", "bdauto.retry_at"]


@pytest.mark.parametrize(
    "moved", [{"status": "closed"}, {"assignee": "ann"}, {"updated_at": NOW}], ids=lambda moved: next(iter(moved))
)
def test_an_embedded_bead_that_moved_is_not_written(moved: dict[str, Any], tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead(**moved)}
    assert writer(bd).apply([claim(bead())]) == [False]
    assert bd.updates == []


def test_an_embedded_bead_that_is_gone_is_lost(tmp_path: Path) -> None:
    assert writer(Scripted(tmp_path)).apply([claim(bead())]) == [False]


def test_another_bdauto_is_locked_out_between_the_look_and_the_write(tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead()}
    held: list[bool] = []

    def probe() -> None:
        rival = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(rival, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(True)
        finally:
            os.close(rival)

    bd.on_show = probe
    writer(bd).apply([claim(bead())])
    assert held == [True]


def test_a_lock_that_is_held_for_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    bd, clock = Scripted(tmp_path), Clock()
    rival = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(rival, fcntl.LOCK_EX)
        with pytest.raises(BdTimeout, match=re.escape(str(tmp_path))):
            writer(bd, clock).apply([claim(bead())])
    finally:
        os.close(rival)
    assert sum(clock.waited) >= 1


def test_in_an_embedded_database_one_bead_s_failure_leaves_the_others_as_reported(tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {name: bead(name) for name in ("x-1", "bad-2", "x-3")}
    results = apply_each(writer(bd), [claim(bead(name)) for name in bd.beads])
    assert [results[0], type(results[1]), results[2]] == [True, BdFailed, True]
    assert [name for name, _ in bd.updates] == ["x-1", "x-3"], "each is written once"


def test_on_a_server_one_bead_s_failure_leaves_the_others_as_reported() -> None:
    bd = Scripted()
    bd.rows = [BdFailed("together"), 1, BdFailed("alone"), 0]
    results = apply_each(writer(bd), [claim(bead(f"x-{n}")) for n in range(3)])
    assert [results[0], type(results[1]), results[2]] == [True, BdFailed, False]


def test_a_bd_that_hangs_is_not_asked_once_more_for_each_bead() -> None:
    bd = Scripted()
    bd.rows = [BdTimeout("late")]
    with pytest.raises(BdTimeout):
        apply_each(writer(bd), [claim(bead(f"x-{n}")) for n in range(3)])
    assert bd.asked.count("sql") == 1


def test_no_changes_are_no_call() -> None:
    bd = Scripted()
    assert apply_each(writer(bd), []) == []
    assert bd.asked == []


def test_a_dry_writer_says_yes() -> None:
    write = DryWriter()
    write.prepare()
    assert write.apply([claim(bead("x-1")), claim(bead("x-2"))]) == [True, True]


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=50)
def test_no_unique_id_looks_like_a_number(bits: int) -> None:
    class Fixed(random.Random):
        def getrandbits(self, k: int) -> int:
            return bits

    unique = Runtime(rng=Fixed()).unique()
    with pytest.raises(ValueError, match="could not convert"):
        float(unique)
    assert len(unique) < 20


@pytest.mark.parametrize("job", ["0b37aa7fd784", "12e3", "1234567e9012", "123456789012345678901", "0123", "true", "1."])
def test_a_job_stays_a_text_in_an_embedded_database(job: str) -> None:
    """bd stores what looks like JSON as JSON: a number is rounded, or cannot be read at all."""
    options = to_options(Change(bead=bead(), put={"bdauto.job": job, "bdauto.attempts": 2}), "", "w1")
    stored = dict(pair.split("=", 1) for pair in options if "=" in pair)
    assert stored["bdauto.attempts"] == "2"
    with pytest.raises(json.JSONDecodeError):
        json.loads(stored["bdauto.job"])
    assert bead(metadata={"bdauto.job": stored["bdauto.job"]}).job == job
