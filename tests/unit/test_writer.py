"""Changes of beads: the SQL by its effect on rows, the embedded path by its options, and both as compare-and-set."""

import fcntl
import json
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdauto.bd.change import MARK, Change, DryWriter, LookBack, Moment, apply_each
from bdauto.bd.client import Bd
from bdauto.bd.running import RunningCommand
from bdauto.bd.sql import NOT_WRITTEN, NOTES_BYTES, OVERTAKEN
from bdauto.bd.writer import BdWriter, to_options
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdConflict, BdDrift, BdError, BdFailed, BdMoved, BdTimeout, BdUnsupported
from bdauto.domain.bead import Bead, BeadList
from bdauto.domain.life import sign_of_life
from bdauto.domain.settings import BdSettings
from tests.support.fakes import NOW, Answered, Clock, bead, change

LOST = BdFailed(f"bd sql failed (exit 1): exec error: Error 1644 (45000): {NOT_WRITTEN}")
CLAIM = "auto-dispatcher claimed at 2026-04-18T22:35:46Z"


def claim(of: Bead, **fields: Any) -> Change:
    plain: dict[str, Any] = {
        "act": "claim",
        "status": "in_progress",
        "writes_claim_note": True,
        "put": {"bdauto.attempt": "a1", "bdauto.attempts": 1},
        "drop": ("bdauto.retry_at",),
        "if_status": "open",
        "if_assignee": "agent",
        "if_updated_at": of.updated_at,
    }
    return change(of, **(plain | fields))


class Scripted(Bd):
    """bd with answers by script: what was asked of it is in `asked`."""

    def __init__(self, folder: Path | None = None, version: str = "1.0.3", db: Path | None = None) -> None:
        super().__init__(BdSettings(bd_timeout=timedelta(seconds=1), db=db))
        self.folder, self.number = folder, version
        self.answers: list[BdError | None] = []
        self.beads: dict[str, Bead | BdError] = {}
        self.asked: list[str] = []
        self.guard_error: BdError | None = None
        self.statements: list[str] = []
        self.updates: list[tuple[str, list[str]]] = []
        self.store: dict[str, Any] = {}
        self.on_read: Callable[[], None] = lambda: None
        self.touched = ""
        self.place: Path | BdError = folder or Path("/b")

    def version(self) -> RunningCommand[str]:
        self.asked.append("version")
        return Answered(lambda: self.number)

    def where(self) -> dict[str, Any]:
        self.asked.append("where")
        if isinstance(self.place, BdError):
            raise self.place
        name = "embeddeddolt" if self.folder else "dolt"
        return {"path": str(self.place), "database_path": f"{self.place}/{name}"}

    def sql(self, statements: str) -> None:
        self.asked.append("sql")
        if self.folder:
            raise BdFailed("bd sql failed (exit 1): 'bd sql' is not yet supported in embedded mode")
        self.statements.append(statements)
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer

    def read(self, ids: Sequence[str]) -> RunningCommand[BeadList]:
        self.asked.append("read")
        self.on_read()
        found = BeadList(tuple(found for found in map(self.beads.get, ids) if isinstance(found, Bead)))
        return Answered(lambda: found)

    def kv_list(self) -> RunningCommand[Mapping[str, Any]]:
        self.asked.append("kv")
        return Answered(lambda: self.store)

    def update(self, bead_id: str, options: Sequence[str]) -> Bead:
        found = self.beads[bead_id]
        self.asked.append("update")
        if self.guard_error and "--if-status" in options:
            raise self.guard_error
        if isinstance(found, BdError) or bead_id.startswith("bad"):
            raise BdFailed(f"bd update {bead_id} failed")
        self.updates.append((bead_id, list(options)))
        if self.folder:
            (self.folder / "last-touched").write_text(f"{self.touched or bead_id}\n")
        self.beads[bead_id] = msgspec.structs.replace(found, status="closed")
        return found


class Closing(Scripted):
    """bd that closes beads, and may fail at it."""

    refusal: BdError | None = None

    def close(self, bead_id: str, reason: str, actor: str) -> None:
        self.asked.append(f"close {bead_id} as {actor}: {reason}")
        if self.refusal:
            raise self.refusal


def writer(bd: Bd, clock: Clock | None = None) -> BdWriter:
    return BdWriter(bd, (clock or Clock()).runtime())


def test_on_a_server_a_change_is_one_call_after_the_version_was_checked_once() -> None:
    bd = Scripted()
    bd.answers = [None, LOST]
    write = writer(bd)
    assert [write.apply([claim(bead())]), write.apply([claim(bead())])] == [[True], [False]]
    assert bd.asked == ["version", "sql", "where", "sql"]


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
        assert not {"sql", "read"} & set(bd.asked)


def test_the_version_is_asked_for_ahead_and_once() -> None:
    bd = Scripted()
    write = writer(bd)
    write.prepare()
    write.prepare()
    write.apply([claim(bead())])
    write.prepare()
    assert bd.asked == ["version", "sql", "where"]


def test_several_changes_are_one_call_and_where_one_bead_moved_one_call_each() -> None:
    bd = Scripted()
    assert apply_each(writer(bd), [claim(bead("x-1")), claim(bead("x-2"))]) == [True, True]
    assert bd.asked == ["version", "sql", "where"]
    bd.answers = [LOST, None, LOST]
    assert apply_each(writer(bd), [claim(bead("x-1")), claim(bead("x-2"))]) == [True, False]


def test_a_claim_that_dolt_merged_with_another_s_change_is_taken_back_and_lost() -> None:
    bd = Scripted()
    bd.answers = [BdFailed(f"bd sql failed (exit 1): exec error: Error 1644 (45000): {OVERTAKEN}"), None]
    assert writer(bd).apply([claim(bead())]) == [False]
    assert b"undo claim x-1".hex() in bd.statements[1]


def test_a_conflict_is_tried_again_with_jitter_and_not_for_ever() -> None:
    clock, bd = Clock(), Scripted()
    bd.answers = [BdConflict("1213"), BdConflict("1213"), None]
    assert writer(bd, clock).apply([claim(bead())]) == [True]
    assert len(clock.waited) == 2
    assert len(set(clock.waited)) == 2
    assert len(set(bd.statements)) == 1, "the very same change, so that it is written once"
    bd.answers = [BdConflict("1213")] * 100
    with pytest.raises(BdConflict):
        writer(bd, clock).apply([claim(bead())])
    assert sum(clock.waited) < 5


@pytest.mark.parametrize("error", [BdFailed("x"), BdTimeout("x"), BdDrift("x")])
def test_nothing_but_a_conflict_is_tried_again(error: BdError) -> None:
    bd = Scripted()
    bd.answers = [error]
    with pytest.raises(type(error)):
        writer(bd).apply([claim(bead())])
    assert bd.asked.count("sql") == 1


def test_an_embedded_change_looks_at_the_switch_under_the_lock(tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead()}
    bd.store = {"bdauto.paused": "x"}
    held = claim(bead(), if_store={"bdauto.paused": None})
    assert writer(bd).apply([held]) == [False]
    assert (bd.asked[-2:], bd.updates) == (["read", "kv"], [])
    bd.store = {}
    assert writer(bd).apply([held]) == [True]


def test_an_embedded_bead_is_read_again_and_updated_by_options(tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead()}
    assert writer(bd).apply([claim(bead())]) == [True]
    [(bead_id, options)] = bd.updates
    assert bead_id == "x-1"
    assert options[:2] == ["--status", "in_progress"]
    assert {"bdauto.attempt=a1", "bdauto.attempts=1"} <= set(options)
    assert ("--unset-metadata", "bdauto.retry_at") in zip(options[::2], options[1::2], strict=True)


@pytest.mark.parametrize(
    "moved", [{"status": "closed"}, {"assignee": "ann"}, {"updated_at": NOW}], ids=lambda moved: next(iter(moved))
)
def test_an_embedded_bead_that_moved_is_not_written(moved: dict[str, Any], tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead(**moved)}
    assert writer(bd).apply([claim(bead())]) == [False]
    assert bd.updates == []


GUARDS = ["--if-status", "open", "--if-assignee", "agent"]
UNKNOWN = BdFailed("bd update failed (exit 1): Error: unknown flag: --if-status")


@pytest.mark.parametrize(
    ("version", "guards"), [("1.0.3", False), ("1.2.1", False), ("1.2.2", True), ("1.3.0", True), ("2.0.0-rc.1", True)]
)
def test_bd_looks_once_more_itself_where_it_has_guards(version: str, guards: bool, tmp_path: Path) -> None:
    bd = Scripted(tmp_path, version)
    bd.beads = {"x-1": bead()}
    assert writer(bd).apply([claim(bead())]) == [True]
    [(_, options)] = bd.updates
    assert (options[:4] == GUARDS) is guards


def test_a_bead_that_moved_after_the_look_is_lost_where_bd_has_guards(tmp_path: Path) -> None:
    bd = Scripted(tmp_path, "1.3.0")
    bd.beads, bd.guard_error = {"x-1": bead()}, BdMoved("bd update failed (exit 13): assignee mismatch")
    assert writer(bd).apply([claim(bead())]) == [False]
    assert bd.updates == []


def test_guards_that_bd_does_not_know_are_tried_once(tmp_path: Path) -> None:
    bd = Scripted(tmp_path, "1.2.2")
    bd.beads, bd.guard_error = {"x-1": bead(), "x-2": bead("x-2")}, UNKNOWN
    writes = writer(bd)
    assert [writes.apply([claim(bead(one))]) for one in ("x-1", "x-2")] == [[True], [True]]
    assert bd.asked.count("update") == 3
    assert [options[:2] for _, options in bd.updates] == [["--status", "in_progress"]] * 2


def test_another_failure_of_a_guarded_update_is_an_error(tmp_path: Path) -> None:
    bd = Scripted(tmp_path, "1.3.0")
    bd.beads, bd.guard_error = {"x-1": bead()}, BdFailed("bd update failed (exit 1): boom")
    with pytest.raises(BdFailed, match="boom"):
        writer(bd).apply([claim(bead())])


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

    bd.on_read = probe
    writer(bd).apply([claim(bead())])
    assert held == [True]


def test_beadboard_is_shown_a_change_on_a_server_by_the_time_of_last_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder that bd uses, which a redirect or a worktree's main folder may have named: asked for once."""
    monkeypatch.chdir(tmp_path)
    found, used = tmp_path / ".beads", tmp_path / "main" / ".beads"
    for folder in (found, used):
        folder.mkdir(parents=True)
        (folder / "last-touched").write_text("theirs\n")
        os.utime(folder / "last-touched", (0, 0))
    bd = Scripted()
    bd.place = used
    write = writer(bd)
    for number in (1, 2):
        os.utime(used / "last-touched", (0, 0))
        assert write.apply([claim(bead(), mark=f"w{number}")]) == [True]
        assert (used / "last-touched").stat().st_mtime > 0
    assert ((used / "last-touched").read_text(), (found / "last-touched").stat().st_mtime) == ("theirs\n", 0)
    assert bd.asked.count("where") == 1


def test_a_named_folder_need_not_be_asked_for(tmp_path: Path) -> None:
    bd = Scripted(db=tmp_path)
    assert writer(bd).apply([claim(bead())]) == [True]
    assert ((tmp_path / "last-touched").exists(), "where" in bd.asked) == (True, False)


@pytest.mark.parametrize("error", [BdTimeout("slow"), BdFailed("no_beads_directory")], ids=str)
def test_a_change_counts_though_bd_does_not_say_where_its_folder_is(error: BdError) -> None:
    bd = Scripted()
    bd.place = error
    assert writer(bd).apply([claim(bead())]) == [True]


@pytest.mark.parametrize("before", ["theirs\n", ""])
@pytest.mark.parametrize("meanwhile", ["", "another"])
def test_the_bead_that_a_person_touched_last_stays_the_one(tmp_path: Path, before: str, meanwhile: str) -> None:
    bd, file = Scripted(tmp_path), tmp_path / "last-touched"
    bd.beads, bd.touched = {"x-1": bead()}, meanwhile
    if before:
        file.write_text(before)
    writer(bd).apply([claim(bead())])
    assert file.read_text().strip() == (meanwhile or before.strip())


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
    bd.answers = [BdFailed("together"), None, BdFailed("alone"), LOST]
    results = apply_each(writer(bd), [claim(bead(f"x-{n}")) for n in range(3)])
    assert [results[0], type(results[1]), results[2]] == [True, BdFailed, False]


def test_a_bd_that_hangs_is_not_asked_once_more_for_each_bead() -> None:
    bd = Scripted()
    bd.answers = [BdTimeout("late")]
    results = apply_each(writer(bd), [claim(bead(f"x-{n}")) for n in range(3)])
    assert [str(result) for result in results] == ["late; the change may have been made"] * 3
    assert bd.asked.count("sql") == 1


def test_beads_that_are_changed_one_by_one_are_left_alone_once_bd_hangs() -> None:
    bd = Scripted()
    bd.answers = [BdFailed("together"), None, BdTimeout("late"), BdTimeout("late")]
    changes = [claim(bead(f"x-{n}")) for n in range(5)]
    results = apply_each(writer(bd), changes, LookBack(bd.read))
    assert results[0] is True
    assert [str(result) for result in results[1:3]] == ["late; the change may have been made"] * 2
    assert [str(result) for result in results[3:]] == ["not tried, since bd failed before: late"] * 2
    assert bd.asked.count("sql") == 4


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
    options = to_options(change(put={"bdauto.job": job, "bdauto.attempts": 2}), bead(), NOW)
    stored = dict(pair.split("=", 1) for pair in options if "=" in pair)
    assert stored["bdauto.attempts"] == "2"
    with pytest.raises(json.JSONDecodeError):
        json.loads(stored["bdauto.job"])
    assert bead(metadata={"bdauto.job": stored["bdauto.job"]}).record.job == job


WAITING = {"bdauto.claim_note": f"1 {CLAIM}"}
EMBEDDED_NOTES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("a note", {"notes": "a"}, {"note": "new"}, "a\nnew"),
    ("a claim, whose note waits", {"notes": "a"}, {"writes_claim_note": True}, "a"),
    ("after a claim", {"notes": "a", "metadata": WAITING}, {"note": "new"}, f"a\n{CLAIM}\nnew"),
    ("the first after a claim", {"metadata": WAITING}, {"note": "new"}, f"{CLAIM}\nnew"),
    ("nothing after a claim", {"metadata": WAITING}, {}, CLAIM),
    ("a claim that came to nothing", {"notes": "a", "metadata": WAITING}, {"retracts_claim_note": True}, "a"),
    ("that failed", {"metadata": WAITING}, {"retracts_claim_note": True, "note": "why"}, "why"),
    ("full notes", {"notes": "x" * (NOTES_BYTES - 3)}, {"note": "new"}, "x" * (NOTES_BYTES - 3)),
]


@pytest.mark.parametrize(
    ("has", "fields", "after"), [n[1:] for n in EMBEDDED_NOTES], ids=[n[0] for n in EMBEDDED_NOTES]
)
def test_an_embedded_bead_s_notes_are_only_appended_to(has: dict[str, Any], fields: dict[str, Any], after: str) -> None:
    options = to_options(change(**fields), bead(**has), NOW)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert "--notes" not in dict(pairs)
    appended = dict(pairs).get("--append-notes", "")
    assert "\n".join(filter(None, [has.get("notes", ""), appended])) == after
    waits_no_longer = ("--unset-metadata", "bdauto.claim_note"), ("--set-metadata", "bdauto.claim_note=1 written")
    assert any(pair in pairs for pair in waits_no_longer) is ("metadata" in has)


def test_a_note_that_an_agent_wrote_before_the_claim_s_own_note_is_a_sign_of_life() -> None:
    claimed = bead(notes="earlier", metadata={"bdauto.claim_note": f"7 {CLAIM}"})
    options = to_options(change(note="dispatched: job=j"), claimed, NOW)
    assert "bdauto.claim_note=7 written" in options
    recorded = bead(notes=f"earlier\nclaimed by agent j\n{CLAIM}", metadata={"bdauto.claim_note": "7 written"})
    assert "claimed by agent j" in recorded.notes_since_claim
    assert recorded.pending_note == ""


def test_the_note_of_an_embedded_claim_waits_with_its_place() -> None:
    options = to_options(change(writes_claim_note=True), bead(notes="a"), NOW)
    assert f"bdauto.claim_note=1 {CLAIM}" in options


def test_the_note_of_an_earlier_claim_that_waited_is_no_sign_of_life() -> None:
    """Somebody opened the bead during its POST. The next claim writes the note of the one before."""
    options = to_options(change(writes_claim_note=True), bead(notes="a", metadata=WAITING), NOW)
    notes = f"a\n{CLAIM}"
    place = f"{len(notes)} {CLAIM}"
    assert f"bdauto.claim_note={place}" in options
    own = {"bdauto.attempt": "w2", "bdauto.claim_note": place}
    assert not sign_of_life(bead(status="in_progress", notes=notes, metadata=own))


def test_times_in_an_embedded_database_are_this_host_s(tmp_path: Path) -> None:
    options = to_options(change(put={"bdauto.retry_at": Moment(timedelta(minutes=2))}), bead(), NOW)
    assert "bdauto.retry_at=2026-04-18T22:37:46Z" in options


def test_a_change_that_is_applied_again_to_an_embedded_bead_is_written_once(tmp_path: Path) -> None:
    bd = Scripted(tmp_path)
    bd.beads = {"x-1": bead(metadata={MARK: "w1"}, status="in_progress")}
    assert writer(bd).apply([claim(bead())]) == [True]
    assert bd.updates == []


def closing() -> Change:
    of = bead("x-1", status="in_progress")
    return change(of, act="close", status="closed", reason="All done.", if_status="in_progress")


@pytest.mark.parametrize("embedded", [False, True])
def test_bd_itself_closes_a_bead_as_its_assignee_after_the_rest_is_written(tmp_path: Path, embedded: bool) -> None:
    bd = Closing(tmp_path if embedded else None)
    bd.beads["x-1"] = closing().bead
    assert writer(bd).apply([closing()]) == [True]
    assert bd.asked[-1] == "close x-1 as agent: All done."
    assert bd.asked.index("update" if embedded else "sql") < len(bd.asked) - 1
    assert [options for _, options in bd.updates if "--status" in options] == []
    assert b"closed".hex() not in "".join(bd.statements)


@pytest.mark.parametrize("embedded", [False, True])
def test_a_bead_that_bd_does_not_close_is_not_said_to_be_closed(tmp_path: Path, embedded: bool) -> None:
    bd = Closing(tmp_path if embedded else None)
    bd.refusal, bd.beads["x-1"] = BdFailed("it has open children"), closing().bead
    with pytest.raises(BdFailed, match="open children"):
        writer(bd).apply([closing()])
    written = msgspec.structs.replace(closing().bead, metadata={MARK: closing().mark})
    assert not closing().applied_to(written)
    assert closing().applied_to(msgspec.structs.replace(written, status="closed"))


def test_bd_itself_opens_a_closed_bead() -> None:
    bd = Closing()
    of = bead("x-1", status="closed")
    bd.beads["x-1"] = of
    assert writer(bd).apply([change(of, status="in_progress", if_status="closed")]) == [True]
    assert bd.updates == [("x-1", ["--status", "in_progress"])]


def test_a_bead_that_is_closed_is_changed_by_itself() -> None:
    other = change(bead("x-2", status="in_progress"), status="open", if_status="in_progress")
    with pytest.raises(BdFailed, match="by itself"):
        writer(Closing()).apply([closing(), other])
