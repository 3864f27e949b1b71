"""Who wrote a note: what is an agent's sign of life, and what is bdauto's own."""

from typing import Any

import pytest

from bdauto.domain.bead import Bead
from bdauto.domain.life import only_signed, sign_of_life
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.results import finish_note
from tests.support.fakes import NOW, bead

TIME = "2026-04-18T22:35:46Z"
CLAIM, RECORD = f"auto-dispatcher claimed at {TIME}", "dispatched: job=j-1"
BEFORE = "auto-dispatcher claimed at 2026-04-17T09:00:00Z\nclaimed by agent j-0\nreaper: job j-0 is failed — requeueing"
LIKE_OURS = [
    CLAIM,
    "auto-dispatcher claimed at 2026-04-01T00:00:00Z",
    "auto-dispatcher claimed at 22:35, so I work on it",
    RECORD,
    "dispatched: job=j-2",
    "agent finished: job=j-1 completed in 3m",
    "dispatch outcome unknown: I cannot tell",
    "dispatch failed HTTP 502",
    "reaper: I am the agent, and I wrote this",
]


def claimed(*since: str, before: str = "", note: str = "", **own: str) -> Bead:
    """Return a bead that was claimed with these notes before it, and has these since."""
    place = note or f"{len(before)} written"
    own = {"attempt": "a1", "claimed_at": TIME, "job": "j-1", "claim_note": place} | own
    notes = "\n".join([*([before] if before else []), *since])
    return bead(notes=notes, metadata={f"bdauto.{key}": value for key, value in own.items() if value != "-"})


@pytest.mark.parametrize("before", ["", "mine", BEFORE])
@pytest.mark.parametrize("kept", ["in the metadata", "nowhere"])
@pytest.mark.parametrize("note", LIKE_OURS)
def test_an_agent_s_note_that_looks_like_bdauto_s_is_a_sign(note: str, kept: str, before: str) -> None:
    """`nowhere`: the claim was made by an older bdauto, which did not record its place in the notes."""
    own = {} if kept == "in the metadata" else {"claim_note": "-"}
    assert not sign_of_life(claimed(CLAIM, RECORD, before=before, **own))
    assert sign_of_life(claimed(CLAIM, RECORD, note, before=before, **own))
    assert sign_of_life(claimed(CLAIM, note, RECORD, before=before, **own))


@pytest.mark.parametrize("quoted", [CLAIM, "auto-dispatcher claimed at 2026-04-01T00:00:00Z"])
def test_a_quoted_claim_does_not_hide_what_stands_before_it(quoted: str) -> None:
    for own in ({}, {"claim_note": "-"}):
        assert sign_of_life(claimed(CLAIM, RECORD, "claimed by agent j-1", quoted, before=BEFORE, **own))


def test_the_end_of_an_earlier_run_that_is_recorded_meanwhile_is_no_sign() -> None:
    run = Run(attempt="a0", job="j-0", ended_at=NOW, result=Result.failed)
    noted = finish_note("j-0", Run(result=Result.failed, ended_at=NOW, words="key expired"), words=True)
    own = {"runs": str(metadata_of(Record(runs=(run,)))["bdauto.runs"])}
    assert not sign_of_life(claimed(CLAIM, RECORD, noted, **own))
    assert sign_of_life(claimed(CLAIM, RECORD, noted, noted, **own))
    assert sign_of_life(claimed(CLAIM, RECORD, noted))


def test_a_record_of_an_unknown_outcome_is_no_sign() -> None:
    words = "dispatch outcome unknown: time-out"
    assert not sign_of_life(claimed(CLAIM, words, job="", error=words))
    assert sign_of_life(claimed(CLAIM, words, "dispatch outcome unknown: says the agent", job="", error=words))


@pytest.mark.parametrize("notes", ["", "short", "all of it is new, and longer than it was before the claim"])
def test_notes_that_somebody_rewrote_since_the_claim_are_a_sign(notes: str) -> None:
    seen = claimed(CLAIM, RECORD, before=BEFORE)
    rewritten = bead(notes=notes, metadata=seen.metadata)
    assert sign_of_life(rewritten) is bool(notes)


def test_an_embedded_claim_s_note_that_waits_is_not_taken_off() -> None:
    """It is not among the notes yet, so a line that looks like it is somebody's."""
    assert not sign_of_life(claimed(before="mine", note=f"4 {CLAIM}"))
    assert sign_of_life(claimed(CLAIM, before="mine", note=f"4 {CLAIM}"))


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ((), False),
        (("claimed by agent j-1",), True),
        (("claimed by agent j-1", "claimed by agent j-1"), True),
        (("claimed by agent j-1", "working"), False),
        (("working",), False),
    ],
)
def test_whether_an_agent_has_done_more_than_sign(since: tuple[str, ...], expected: bool) -> None:
    assert only_signed(claimed(CLAIM, RECORD, *since)) is expected


def test_a_bead_without_a_claim_has_all_its_notes_by_others() -> None:
    own: dict[str, Any] = {}
    assert sign_of_life(bead(notes="mine", metadata=own))
    assert not sign_of_life(bead(notes="", metadata=own))
