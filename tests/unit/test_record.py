"""bdauto's record on a bead: read from metadata that anybody can write, and written as a difference."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.bd.change import NOW as WRITTEN_AT
from bdauto.bd.change import rewrite
from bdauto.domain.history import history_of
from bdauto.domain.record import KEPT_RUNS, Record, Result, Run, difference, metadata_of, read_record
from bdauto.domain.results import ended_run
from tests.support.fakes import NOW, bead

HOUR = timedelta(hours=1)
FULL = Run(
    attempt="w1",
    claimed_at=NOW - HOUR,
    job="j1",
    runner="moon",
    ended_at=NOW,
    seconds=60,
    result=Result.failed,
    cost_usd=0.5,
    turns=3,
    words='no "key"; é\\',
    reset_at=datetime(2026, 4, 19, 1, tzinfo=UTC),
)
RECORD = Record(
    attempt="w2",
    attempts=2,
    job="12e3",
    claimed_at=NOW,
    waited=0,
    assignee="agent",
    result="running",
    runs=(FULL, Run(attempt="w0")),
)


def test_what_is_written_is_read() -> None:
    assert read_record(metadata_of(RECORD)) == RECORD
    listed = metadata_of(RECORD) | {"bdauto.runs": json.loads(str(metadata_of(RECORD)["bdauto.runs"]))}
    assert read_record(listed) == RECORD  # a bd that parses the text stores the list


def test_the_list_of_runs_as_others_read_it() -> None:
    [first, second] = json.loads(str(metadata_of(RECORD)["bdauto.runs"]))
    assert first == {
        "attempt": "w1",
        "claimed": "2026-04-18T21:35:46Z",
        "job": "j1",
        "runner": "moon",
        "jobs_folder": "",
        "agent": None,
        "ended": "2026-04-18T22:35:46Z",
        "seconds": 60,
        "result": "failed",
        "why": None,
        "cost": 0.5,
        "tokens": None,
        "turns": 3,
        "session": None,
        "words": 'no "key"; é\\',
        "checked": False,
        "resets": "2026-04-19T01:00:00Z",
    }
    assert first.keys() == second.keys()


def test_a_difference_writes_what_differs_and_leaves_others_keys_alone() -> None:
    had = {"team": "a", **metadata_of(RECORD), "bdauto.write": "m1", "bdauto.job": ["nonsense"]}
    assert difference(had, RECORD.change(job="", attempts=3, waited=None)) == (
        {"bdauto.attempts": 3},
        ("bdauto.job", "bdauto.waited"),
    )
    assert difference(had, read_record(had).change(job="j9")) == ({"bdauto.job": "j9"}, ())


def test_a_time_that_the_tracker_fills_in_is_not_removed() -> None:
    had = bead(metadata=metadata_of(RECORD))
    change = rewrite(had, RECORD.change(claimed_at=None), times={"claimed_at": WRITTEN_AT}, act="claim", mark="m")
    assert (change.put, change.drop) == ({"bdauto.claimed_at": WRITTEN_AT}, ())


def test_a_change_that_is_undone_brings_a_list_of_runs_back() -> None:
    had = bead(metadata=metadata_of(RECORD) | {"bdauto.runs": [{"attempt": "w1"}]})
    change = rewrite(had, RECORD.change(runs=()), act="x", mark="m")
    assert read_record(dict(change.undone("m2").put)).runs == (Run(attempt="w1"),)


def test_the_last_runs_are_kept() -> None:
    record = Record()
    for number in range(30):
        record = record.change(attempt=f"w{number}").with_runs(record.all_runs)
        assert record.current
        record = record.with_end(ended_run(record.current, Run(result=Result.lost, ended_at=NOW, words="é" * 200)))
    assert [run.attempt for run in record.runs] == [f"w{number}" for number in range(10, 30)]
    assert len(str(metadata_of(record)["bdauto.runs"])) < KEPT_RUNS * 470


def test_a_bead_that_is_claimed_again_keeps_the_run_whose_end_nobody_recorded() -> None:
    record = Record(attempt="w1", claimed_at=NOW, job="j1", host="moon", result="running")
    again = record.change(attempt="w2", job="").with_runs(record.all_runs)
    assert [(run.attempt, run.job, run.runner) for run in again.all_runs] == [("w1", "j1", "moon"), ("w2", "", "moon")]
    ended = again.with_end(ended_run(again.all_runs[1], Run(result=Result.completed, ended_at=NOW)))
    assert ended.result == "running"  # of the first the end is not recorded yet
    assert [run.attempt for run in ended.unended] == ["w1"]


def test_a_claim_that_comes_to_nothing_is_no_run() -> None:
    record = Record(attempt="w2", attempts=1, claimed_at=NOW, result="running", runs=(FULL,))
    for after in (record.released(), record.blocked("why")):
        assert (after.all_runs, after.result) == ((FULL,), "failed")


FORGED: list[Any] = [
    "[", "[1]", "{}", "null", "12e3", 7, True, None, {}, [[]], [{"attempt": 1}], [{"attempt": "a b"}], "[" * 9999,
    [{"attempt": "a", "cost": -1}], [{"attempt": "a", "cost": "9"}], [{"attempt": "a", "cost": 1e300}],
    [{"attempt": "a", "ended": "yesterday"}], [{"attempt": "a", "ended": "2026-01-01T00:00:00"}],
    [{"attempt": "a", "claimed": "9999-12-31T23:59:59Z"}], [{"attempt": "a", "words": "x" * 201}],
    [{"attempt": "a", "result": "grand"}], [{"attempt": "a", "seconds": -1}],
]  # fmt: skip


@pytest.mark.parametrize("runs", FORGED, ids=lambda runs: str(runs)[:40])
def test_a_run_that_makes_no_sense_is_none(runs: Any) -> None:
    for form in (runs, json.dumps(runs)):
        found = read_record({"bdauto.runs": form, "bdauto.attempts": 1})
        assert (found.runs, found.attempts) == ((), 1)
    good = {"attempt": "w9", "cost": 1.0}
    mixed = [*runs, good] if isinstance(runs, list) else [runs, good]
    assert [run.attempt for run in read_record({"bdauto.runs": mixed}).runs] == ["w9"]


def test_a_run_counts_once_and_its_words_are_clean() -> None:
    entry = {"attempt": "w1", "cost": 1.0, "words": "\x1b[31mred\n\u202eover"}
    [run] = read_record({"bdauto.runs": [entry] * 30}).runs
    assert run.words == "[31mred over"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_keys = [f"bdauto.{name}" for name in Record.__struct_fields__] + ["bdauto.cost_usd", "bdauto.ended_at", "team"]


@given(st.dictionaries(st.sampled_from(_keys), _json))
def test_no_metadata_makes_reading_or_writing_fail(metadata: dict[str, Any]) -> None:
    record = read_record(metadata)
    put, drop = difference(metadata, record)
    after = {key: value for key, value in (metadata | put).items() if key not in drop}
    assert read_record(after) == record
    assert after.get("team") == metadata.get("team")
    history_of(bead(metadata=metadata))


class TestOldRuns:
    """A database of November 2026 has sums over all runs. The notes are not believed."""

    SUMS: ClassVar[dict[str, Any]] = {
        "bdauto.result": "failed",
        "bdauto.ended_at": "2026-04-18T21:35:46Z",
        "bdauto.runs": 3,
        "bdauto.seconds": 70,
        "bdauto.cost_usd": 1.25,
        "bdauto.turns": 9,
    }

    @pytest.mark.parametrize(("own", "attempts"), [
        ({"claimed_at": "2026-04-18T21:30:00Z", "attempt": "w1", "job": "j1"}, ["w1"]),
        ({"claimed_at": "2026-04-18T21:30:00Z", "job": "j1"}, ["j1"]),
        ({"claimed_at": "2026-04-18T22:30:00Z", "attempt": "w2", "job": "j2"}, ["unknown", "w2"]),
        ({}, ["unknown"]),
    ], ids=["closed by its agent", "blocked", "running again", "open again"])  # fmt: skip
    def test_the_sums_are_one_run(self, own: dict[str, str], attempts: list[str]) -> None:
        record = read_record(self.SUMS | {f"bdauto.{key}": value for key, value in own.items()})
        assert [run.attempt for run in record.all_runs] == attempts
        assert (record.runs[0].cost_usd, record.runs[0].seconds, record.runs[0].turns) == (1.25, 70, 9)
        assert record.runs[0].ended_at == datetime(2026, 4, 18, 21, 35, 46, tzinfo=UTC)

    def test_the_next_change_writes_the_list(self) -> None:
        put, drop = difference(self.SUMS, read_record(self.SUMS).change(attempt="w9"))
        assert drop == ("bdauto.ended_at", "bdauto.seconds", "bdauto.cost_usd", "bdauto.turns")
        after = {key: value for key, value in (self.SUMS | put).items() if key not in drop}
        assert read_record(after).runs == read_record(self.SUMS).runs

    def test_a_cancelled_job_whose_end_is_not_recorded(self) -> None:
        own = {"job": "w1", "claimed_at": "2026-04-18T21:30:00Z", "result": "running", "quarantined": "cancelled"}
        record = read_record({f"bdauto.{key}": value for key, value in own.items()})
        assert [run.attempt for run in record.unended] == ["w1"]
