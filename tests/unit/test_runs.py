"""The runs of a bead, from its notes and its metadata, also where a note is lost, overwritten, or made up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.domain.bead import Bead, format_time
from bdauto.domain.results import JobEnd, Result, finish_note, with_result
from bdauto.domain.runs import Run, history_of
from tests.support.fakes import bead

DAY = datetime(2026, 4, 18, 12, tzinfo=UTC)


def runs_of(bead_: Bead) -> list[Run]:
    return list(history_of(bead_).runs)


def _claim(moment: datetime, job: str = "") -> list[str]:
    return [f"auto-dispatcher claimed at {format_time(moment)}", *([f"dispatched: job={job}"] if job else [])]


def _end(moment: datetime, cost: float | None = 0.5, result: Result = Result.failed, words: str = "") -> JobEnd:
    return JobEnd(result=result, ended_at=moment, seconds=60, cost_usd=cost, turns=1, words=words)


def _told(*runs: tuple[datetime, str, JobEnd | None]) -> Bead:
    """A bead as it is after these runs: claimed when, the job, its end."""
    notes: list[str] = []
    metadata: dict[str, Any] = {}
    for moment, job, end in runs:
        notes += [*_claim(moment, job), f"claimed by agent {job}", "progress: 40%"]
        metadata |= {"bdauto.claimed_at": format_time(moment), "bdauto.job": job, "bdauto.result": "running"}
        if end:
            metadata |= with_result(bead(metadata=metadata), end)
            notes.append(finish_note(job, end, words=True))
    return bead(notes="\n".join(notes), metadata=metadata)


LATER = DAY + timedelta(days=1)
TWICE = _told(
    (DAY, "j1", _end(DAY + timedelta(minutes=5), 0.5, words="boom: no key")),
    (LATER, "j2", _end(LATER + timedelta(minutes=5), 0.25, Result.completed)),
)
FIRST = Run(
    claimed_at=DAY,
    job="j1",
    result=Result.failed,
    ended_at=DAY + timedelta(minutes=5),
    seconds=60,
    cost_usd=0.5,
    words="boom: no key",
)
SECOND = Run(
    claimed_at=LATER,
    job="j2",
    result=Result.completed,
    ended_at=LATER + timedelta(minutes=5),
    seconds=60,
    cost_usd=0.25,
)


def _without(bead_: Bead, *starts: str) -> Bead:
    lines = [line for line in bead_.notes.split("\n") if not line.startswith(starts)]
    return msgspec.structs.replace(bead_, notes="\n".join(lines))


def test_two_runs() -> None:
    assert runs_of(TWICE) == [FIRST, SECOND]


def test_nothing_is_made_up() -> None:
    assert runs_of(bead(notes="hello\nthe auto-dispatcher claimed at noon\n")) == []


def test_a_run_that_goes_on() -> None:
    once_more = _told((DAY, "j1", _end(DAY + timedelta(minutes=5))), (LATER, "j2", None))
    assert [(run.job, run.result) for run in runs_of(once_more)] == [("j1", Result.failed), ("j2", None)]


def test_a_claim_that_the_reaper_released_was_no_run() -> None:
    notes = [*_claim(DAY), "reaper: claimed 12m ago, no job recorded and no sign of the agent (grace 10m) — released"]
    assert runs_of(bead(notes="\n".join([*notes, *_claim(LATER, "j2")]))) == [Run(claimed_at=LATER, job="j2")]


def test_a_claim_whose_note_was_lost_is_in_the_metadata() -> None:
    lost = bead(metadata={"bdauto.claimed_at": format_time(DAY), "bdauto.job": "j1"})
    assert runs_of(lost) == [Run(claimed_at=DAY, job="j1")]


class TestLostNotes:
    """The sums stand in the metadata: whatever the notes say, the runs add up to them."""

    def test_the_last_end(self) -> None:
        assert runs_of(_without(TWICE, "agent finished: job=j2")) == [FIRST, SECOND]

    def test_the_first_end(self) -> None:
        first, second = runs_of(_without(TWICE, "agent finished: job=j1"))
        assert (first.ended_at, first.cost_usd) == (None, None)
        assert (second.ended_at, second.cost_usd, second.seconds) == (SECOND.ended_at, 0.75, 120)

    def test_all(self) -> None:
        assert runs_of(_without(TWICE, "")) == [
            Run(
                claimed_at=LATER,
                job="j2",
                result=Result.completed,
                ended_at=SECOND.ended_at,
                seconds=120,
                cost_usd=0.75,
            )
        ]

    def test_the_first_while_the_second_runs(self) -> None:
        again = _told((DAY, "j1", _end(DAY + timedelta(minutes=5))), (LATER, "j2", None))
        first, second = runs_of(_without(again, "agent finished"))
        assert (first.result, first.ended_at, first.cost_usd) == (Result.lost, DAY + timedelta(minutes=5), 0.5)
        assert second == Run(claimed_at=LATER, job="j2")


MADE_UP = [
    "agent finished: job=j1 completed in 1s, $999999.00 at 2026-04-18T12:01:00Z",
    "agent finished: job=x9 completed in 1s, $1.00 at 2026-04-18T12:01:00Z",
    "agent finished: job=j1 completed in 1s, $-1.00 at 2026-04-18T12:01:00Z",
    "agent finished: job=j1 completed at 2026-99-99T12:01:00Z",
    "agent finished: job=j1 completed",
    "auto-dispatcher claimed at 2026-13-01T00:00:00Z",
]


@pytest.mark.parametrize("line", MADE_UP)
def test_a_line_that_somebody_made_up_changes_no_sum(line: str) -> None:
    told = _told((DAY, "j1", _end(DAY + timedelta(minutes=5), 0.5)))
    forged = bead(notes=f"{told.notes}\n{line}", metadata=told.metadata)
    assert sum(run.cost_usd or 0 for run in runs_of(forged)) == 0.5


def test_without_a_recorded_sum_no_note_is_believed() -> None:
    note = "agent finished: job=j1 completed in 4m12s, $0.42 at 2026-04-18T12:05:00Z"
    told = bead(notes="\n".join([*_claim(DAY, "j1"), note]), metadata={"bdauto.ended_at": "2026-04-18T12:05:00Z"})
    assert [(run.cost_usd, run.seconds) for run in runs_of(told)] == [(None, None)]


_lines = st.lists(
    st.sampled_from([*TWICE.notes.split("\n"), *MADE_UP, "reaper: claimed 9m ago, x — released", "", "hello"]),
    max_size=12,
)


@given(_lines)
def test_the_runs_always_add_up(lines: list[str]) -> None:
    runs = runs_of(bead(notes="\n".join(lines), metadata=TWICE.metadata))
    assert round(sum(run.cost_usd or 0 for run in runs), 4) == 0.75
    assert sum(run.seconds or 0 for run in runs) == 120
