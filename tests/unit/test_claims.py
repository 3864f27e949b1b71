"""A claim and the ways it can end, each as what it leaves on the bead."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bdauto.agents.runner import Place
from bdauto.bd.change import MARK, as_read
from bdauto.common.errors import BdFailed
from bdauto.controllers.claim_writes import Claim, ReleaseResult
from bdauto.controllers.claims import Claims
from bdauto.controllers.late_notes import DELAY
from bdauto.controllers.started_jobs import StartedJob
from bdauto.domain.notes import failure_note
from bdauto.domain.record import DUE
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, Clock, Tracker, bead, row

NOTE = "auto-dispatcher claimed at 2026-04-18T22:35:46Z"
WAITED = format_time(NOW - timedelta(hours=1))


def claimed(**fields: Any) -> tuple[Tracker, Claims, Claim]:
    """Return a tracker with bead x-1, and a claim on it."""
    tracker = Tracker(Clock(), row("x-1", **fields))
    claims = Claims(tracker, tracker, tracker.clock.runtime())
    claim = claims.claim(tracker.bead("x-1"), "w1")
    assert claim is not None
    return tracker, claims, claim


def test_a_claim_charges_the_attempt_and_forgets_the_job_before() -> None:
    old = {"bdauto.job": "j-0", "bdauto.attempts": 1, "bdauto.attempt": "w0", "team": "a"}
    tracker, _, claim = claimed(metadata=old, notes="mine")
    assert tracker.bead("x-1").status == "in_progress"
    assert tracker.notes("x-1") == ["mine", NOTE]
    own = {key: value for key, value in tracker.own("x-1").items() if key != "runs"}
    assert own == taken(claim.attempt, attempts=2) | {"team": "a"}
    assert [run.job for run in tracker.bead("x-1").record.runs] == ["j-0"]  # its end is not recorded yet
    assert claim.attempts == 2


def taken(attempt: str, *, attempts: int) -> dict[str, Any]:
    """Return what a claim leaves on a bead."""
    claim = {"attempt": attempt, "attempts": attempts, "claimed_at": format_time(NOW), "armed_at": WAITED}
    return claim | {"assignee": "agent", "result": "running"}


def test_a_claim_of_a_re_armed_bead_starts_afresh() -> None:
    tracker, _, claim = claimed(metadata={"bdauto.job": "j-0", "bdauto.attempts": 3, "bdauto.quarantined": "x"})
    assert tracker.own("x-1") == taken(claim.attempt, attempts=1)


def test_of_two_claims_on_what_was_read_one_is_lost() -> None:
    tracker = Tracker(Clock(), row("x-1"))
    seen = tracker.bead("x-1")
    claims = [Claims(tracker, tracker, tracker.clock.runtime(seed)).claim(seen, "w1") for seed in (1, 2)]
    assert [claim is not None for claim in claims] == [True, False]
    assert len(tracker.notes("x-1")) == 1


@pytest.mark.parametrize("act", ["claim", "restore", "exhaust"])
@pytest.mark.parametrize("earlier", [True, False], ids=["claimed before", "never claimed"])
def test_a_claim_does_not_overlook_what_was_recorded_since(act: str, earlier: bool) -> None:
    """A record does not move the time. The bead was opened during its POST, and a second dispatcher has read it."""
    before = {"bdauto.attempt": "w1", MARK: "w-of-the-claim"} if earlier else {}
    tracker = Tracker(Clock(), row("x-1", metadata=before))
    seen = tracker.bead("x-1")
    tracker.rows["x-1"]["metadata"] = before | {MARK: "w-of-the-record", "bdauto.attempt": "w1", "bdauto.job": "j-1"}
    claims = Claims(tracker, tracker, tracker.clock.runtime())
    acts: dict[str, Callable[[], object]] = {
        "claim": lambda: claims.claim(seen, "w2"),
        "restore": lambda: claims.restore(seen, StartedJob("w2", 1, "j-2")),
        "exhaust": lambda: claims.exhaust(seen, "opened again after 3 attempts"),
    }
    assert not acts[act]()
    assert (tracker.bead("x-1").status, tracker.bead("x-1").record.job) == ("open", "j-1")


@pytest.mark.parametrize("mark", [5, None, ["w"]])
def test_a_mark_that_is_no_text_keeps_no_bead_from_its_claim(mark: Any) -> None:
    assert as_read(bead(metadata={MARK: mark}))["if_mark"] is None
    claimed(metadata={MARK: mark})


def test_two_attempts_never_have_one_id() -> None:
    assert len({claimed()[2].attempt, Clock().runtime(2).unique()}) == 2


def test_a_claim_that_is_undone_leaves_nothing_but_the_bead_s_place() -> None:
    before = {"bdauto.attempts": 2, "team": "a"}
    tracker, claims, claim = claimed(notes="mine", metadata=before)
    claims.release(claim)
    assert (tracker.bead("x-1").status, tracker.notes("x-1")) == ("open", ["mine"])
    place = {"armed_at": WAITED, "released_at": format_time(NOW), "place": "kept"}
    assert tracker.own("x-1") == {"attempts": 2, "team": "a"} | place


@pytest.mark.parametrize("checked", [True, False])
def test_a_claim_says_whether_this_attempt_is_checked(checked: bool) -> None:
    """Whatever became of the attempt before. A claim that came to nothing leaves the mark as it was."""
    tracker = Tracker(Clock(), row("x-1", metadata={} if checked else {"bdauto.check": DUE}))
    claims = Claims(tracker, tracker, tracker.clock.runtime())
    claim = claims.claim(tracker.bead("x-1"), "w1", Place("p", "host", timedelta(hours=1), checked))
    assert claim is not None
    assert tracker.bead("x-1").record.check == (DUE if checked else "")
    claims.release(claim)
    assert tracker.bead("x-1").record.check == ("" if checked else DUE)


def test_an_earlier_error_stays_until_a_dispatch_and_an_unknown_one_until_the_next_claim() -> None:
    assert claimed(metadata={"bdauto.error": "HTTP 502"})[0].own("x-1")["error"] == "HTTP 502"
    assert "error" not in claimed(metadata={"bdauto.error": "dispatch outcome unknown: x"})[0].own("x-1")


@pytest.mark.parametrize("charged", [True, False])
def test_a_charge_is_kept_or_given_back(charged: bool) -> None:
    tracker, claims, claim = claimed(metadata={"bdauto.attempts": 1})
    claims.release(claim, error="HTTP 400: x", charged=charged)
    assert tracker.bead("x-1").record.attempts == (2 if charged else 1)


@pytest.mark.parametrize(("failures", "minutes"), [(0, 2), (1, 4), (2, 8), (4, 32), (5, 60), (50, 60)])
def test_each_failure_doubles_the_wait(failures: int, minutes: int) -> None:
    tracker, claims, claim = claimed(metadata={"bdauto.failures": failures})
    claims.release(claim, error="HTTP 502", back_off=True)
    bead = tracker.bead("x-1")
    assert bead.record.failures == failures + 1
    assert bead.record.retry_at is not None
    whole = timedelta(minutes=minutes)
    assert whole / 2 - timedelta(seconds=1) <= bead.record.retry_at - NOW <= whole


def test_a_bead_that_is_quarantined_keeps_why_and_how_often_it_was_tried() -> None:
    tracker, claims, claim = claimed(notes="mine", metadata={"bdauto.attempts": 1, "team": "a"})
    claims.quarantine(claim, "HTTP 400: no criteria")
    assert tracker.bead("x-1").status == "blocked"
    assert tracker.own("x-1") == {
        "attempts": 2,
        "claimed_at": format_time(NOW),
        "quarantined": "HTTP 400: no criteria",
        "team": "a",
    }
    mine, note = tracker.notes("x-1")
    assert mine == "mine"
    assert note == (
        "dispatch failed HTTP 400: no criteria — quarantined after 2 attempts; "
        "fix the bead, then re-arm it: bd update x-1 -s open"
    )


@pytest.mark.parametrize(
    "moved",
    [{"status": "closed"}, {"metadata": {"bdauto.attempt": "w9"}}, {"assignee": "bob"}],
    ids=["closed", "claimed anew", "taken over"],
)
def test_a_claim_that_somebody_else_ended_is_left_as_it_is(moved: dict[str, Any]) -> None:
    tracker, claims, claim = claimed()
    tracker.rows["x-1"].update(moved)
    before = dict(tracker.rows["x-1"])
    assert claims.release(claim, error="HTTP 502", back_off=True) is ReleaseResult.moved
    assert claims.quarantine(claim, "HTTP 400") is ReleaseResult.moved
    assert tracker.rows["x-1"] == before


NOTES = ["Working on it…", "claimed by agent j-1", "\n\nthree lines\nof a person\n"]


@pytest.mark.parametrize("note", NOTES, ids=["agent", "by the rules", "person"])
@pytest.mark.parametrize("before", ["", "mine", "claimed by agent j-0\nauto-dispatcher claimed at 2026"])
def test_a_claim_is_not_undone_once_somebody_has_written_on_the_bead(note: str, before: str) -> None:
    tracker, claims, claim = claimed(notes=before)
    tracker.rows["x-1"].update(notes=f"{tracker.rows['x-1']['notes']}\n{note}", updated_at=NOW + timedelta(seconds=1))
    seen = dict(tracker.rows["x-1"])
    assert claims.release(claim, error="HTTP 502", back_off=True) is ReleaseResult.alive
    assert claims.quarantine(claim, "HTTP 400") is ReleaseResult.alive
    assert tracker.rows["x-1"] == seen


def test_a_note_that_comes_between_the_look_and_the_release_counts() -> None:
    tracker, claims, claim = claimed()

    def write(_: object) -> None:
        tracker.rows["x-1"].update(notes=f"{NOTE}\nWorking on it…", updated_at=NOW + timedelta(seconds=1))

    tracker.before_write = write
    assert claims.release(claim) is ReleaseResult.alive
    assert tracker.bead("x-1").status == "in_progress"


def test_a_label_that_comes_between_the_look_and_the_release_does_not_keep_the_claim() -> None:
    tracker, claims, claim = claimed()
    writes: list[object] = []

    def touch(change: object) -> None:
        writes.append(change)
        if len(writes) == 1:
            tracker.rows["x-1"].update(labels=["new"], updated_at=NOW + timedelta(seconds=1))

    tracker.before_write = touch
    assert claims.release(claim) is ReleaseResult.written
    assert (tracker.bead("x-1").status, len(writes)) == ("open", 2)


def test_a_note_of_a_kind_of_error_is_written_once_however_its_words_change() -> None:
    tracker, claims, claim = claimed(metadata={"bdauto.error": "HTTP 502: request 81"})
    claims.release(claim, error="HTTP 502: request 82", back_off=True)
    assert tracker.notes("x-1") == []
    assert tracker.bead("x-1").record.error == "HTTP 502: request 82"


def test_a_job_is_recorded_even_when_the_agent_was_faster() -> None:
    tracker, claims, claim = claimed()
    tracker.rows["x-1"].update(status="closed", updated_at=NOW + timedelta(seconds=1))
    assert claims.record(claim, "j-1")
    claims.notes.write(tracker, tracker.clock.runtime())
    assert tracker.bead("x-1").status == "closed"
    assert tracker.notes("x-1")[-1] == "dispatched: job=j-1"


@pytest.mark.parametrize("record", ["job", "unknown"])
def test_a_record_leaves_the_notes_alone_and_its_note_comes_later(record: str) -> None:
    """The agent may write its first note at that very moment, and bd would refuse it."""
    tracker, claims, claim = claimed()
    if record == "job":
        claims.record(claim, "j-1")
    else:
        claims.unknown(claim, "time-out")
    assert (tracker.written[-1].quiet, tracker.written[-1].note) == (True, "")
    assert tracker.notes("x-1") == [NOTE]
    claims.notes.write(tracker, tracker.clock.runtime())
    assert tracker.clock.waited == [DELAY]
    note = "dispatched: job=j-1" if record == "job" else "dispatch outcome unknown: time-out"
    assert tracker.notes("x-1") == [NOTE, note]


def test_the_note_of_a_record_is_not_written_beside_that_of_a_sweep() -> None:
    tracker, claims, claim = claimed()
    claims.record(claim, "j-1")
    row = tracker.rows["x-1"]
    row["notes"] += "\ndispatched: job=j-1"
    row["metadata"] = row["metadata"] | {MARK: "w-of-the-sweep"}
    claims.notes.write(tracker, tracker.clock.runtime())
    assert tracker.notes("x-1").count("dispatched: job=j-1") == 1


def test_a_note_that_bd_cannot_write_is_tried_again() -> None:
    tracker, claims, claim = claimed()
    claims.record(claim, "j-1")
    errors = [BdFailed("away"), BdFailed("away")]

    def fail(_: object) -> None:
        if errors:
            raise errors.pop()

    tracker.before_write = fail
    claims.notes.write(tracker, tracker.clock.runtime())
    assert tracker.notes("x-1")[-1] == "dispatched: job=j-1"


def test_a_job_of_a_bead_that_was_claimed_anew_is_not_recorded() -> None:
    tracker, claims, claim = claimed()
    tracker.rows["x-1"]["metadata"] = {"bdauto.attempt": "w9"}
    assert not claims.record(claim, "j-1")


def test_a_record_waits_longer_each_time_up_to_five_seconds() -> None:
    tracker, claims, claim = claimed()

    def fail(_: object) -> None:
        raise BdFailed("away")

    tracker.before_write = fail
    with pytest.raises(BdFailed):
        claims.record(claim, "j-1")
    waits = tracker.clock.waited
    assert waits[:5] == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert set(waits[4:]) == {5.0}


@pytest.mark.parametrize(
    ("error", "note"),
    [("HTTP 502: x", "dispatch failed HTTP 502: x"), ("cannot connect", "dispatch failed: cannot connect")],
)
def test_the_note_of_a_failure(error: str, note: str) -> None:
    assert failure_note(error) == note


def test_a_bead_that_was_edited_since_it_was_read_is_not_claimed() -> None:
    tracker = Tracker(Clock(), row("x-1"))
    seen = tracker.bead("x-1")
    tracker.rows["x-1"].update(acceptance_criteria="", updated_at=NOW)
    assert Claims(tracker, tracker, tracker.clock.runtime()).claim(seen, "w1") is None
    assert tracker.bead("x-1").status == "open"
