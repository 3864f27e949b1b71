"""The end of a job, read from what services and agents say; and what is recorded of it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.domain.record import Result
from bdauto.domain.results import (
    JobEnd,
    Output,
    finish_note,
    format_cost,
    format_seconds,
    job_end,
    read_output,
)
from tests.support.fakes import NOW

CLAUDE = {
    "type": "result",
    "is_error": False,
    "duration_ms": 251_700,
    "num_turns": 12,
    "result": "Found it.\n\nThe session cookie lacked a path.\n",
    "total_cost_usd": 0.41996,
}
STARTED, FINISHED = "2026-04-18T22:30:00+00:00", "2026-04-18T22:34:12.400000+00:00"
SAID = Output("The session cookie lacked a path.", 0.42, 12, 252)

OUTPUTS: list[tuple[str, str, Output]] = [
    ("Claude's object", json.dumps(CLAUDE), SAID),
    ("over several lines", json.dumps(CLAUDE, indent=2), SAID),
    ("as a list of events", json.dumps([{"type": "system"}, CLAUDE]), SAID),
    ("as a stream of events", '{"type": "system"}\n' + json.dumps(CLAUDE) + "\n", SAID),
    ("after other text", f"cloning …\n{json.dumps(CLAUDE)}\nbye\n", SAID),
    ("cost alone", '{"total_cost_usd": 1}', Output("", 1.0)),
    ("free of charge", '{"total_cost_usd": 0, "num_turns": 0}', Output("", 0.0, 0)),
    ("numbers as text", '{"total_cost_usd": "0.5", "num_turns": "3"}', Output("", 0.5, 3)),
    ("plain text", "one\ntwo\n\n", Output("two")),
    ("nothing", "", Output()),
    ("another object", '{"message": "hi"}', Output('{"message": "hi"}')),
    ("cut JSON", '{"total_cost_usd": 1', Output('{"total_cost_usd": 1')),
    ("nested without end", "[" * 100_000, Output("[" * 199 + "…")),
    ("escapes and bidi", '{"result": "ok \\u001b[31m\\u202e red"}', Output("ok [31m red")),
]
NONSENSE: list[object] = [-1, True, None, [], {}, "NaN", "1e999", "x", 1e12]


@pytest.mark.parametrize(("output", "said"), [case[1:] for case in OUTPUTS], ids=[case[0] for case in OUTPUTS])
def test_what_an_output_says(output: str, said: Output) -> None:
    assert read_output(output) == said


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
def test_nonsense_is_unknown_and_not_zero(value: object) -> None:
    said = read_output(json.dumps({"total_cost_usd": value, "num_turns": value, "duration_ms": value}))
    assert (said.cost_usd, said.turns) == (None, None)


def _job(**fields: Any) -> dict[str, Any]:
    job = {"status": "completed", "started_at": STARTED, "finished_at": FINISHED, "output": [json.dumps(CLAUDE)]}
    return job | fields


ENDED = datetime.fromisoformat(FINISHED)
ENDS: list[tuple[str, dict[str, Any], JobEnd | None]] = [
    (
        "completed",
        _job(),
        JobEnd(result=Result.completed, ended_at=ENDED, seconds=252, cost_usd=0.42, turns=12, words=SAID.words),
    ),
    ("running", _job(status="running"), None),
    ("a state of tomorrow", _job(status="cancelling"), None),
    ("a state of another type", _job(status=["failed"]), None),
    (
        "stderr, when nothing was said",
        _job(status="failed", output=[], stderr="warning\nInvalid API key\n"),
        JobEnd(result=Result.failed, ended_at=ENDED, seconds=252, words="Invalid API key"),
    ),
    (
        "what went wrong comes first",
        _job(status="error", error="git clone failed (128): fatal"),
        JobEnd(
            result=Result.error,
            ended_at=ENDED,
            seconds=252,
            cost_usd=0.42,
            turns=12,
            words="git clone failed (128): fatal",
        ),
    ),
    (
        "an older service says nothing but the state",
        {"status": "timeout"},
        JobEnd(result=Result.timeout, ended_at=NOW),
    ),
    (
        "it ends in the future, before it began",
        _job(finished_at="2031-01-01T00:00:00Z", started_at="2032-01-01T00:00:00Z", output=7),
        JobEnd(result=Result.completed, ended_at=NOW),
    ),
    (
        "times that are none",
        _job(finished_at="yesterday", started_at=12, output=None, stderr={}),
        JobEnd(result=Result.completed, ended_at=NOW),
    ),
]


@pytest.mark.parametrize(("job", "end"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_how_a_job_ended(job: dict[str, Any], end: JobEnd | None) -> None:
    assert job_end(job, NOW) == end


_json = st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text() | st.integers())


@given(st.dictionaries(st.sampled_from(["output", "stderr", "error", "started_at", "finished_at"]), _json))
def test_no_answer_makes_it_fail(job: dict[str, Any]) -> None:
    end = job_end(job | {"status": "failed"}, NOW)
    assert end is not None
    assert end.ended_at <= NOW
    assert "\n" not in end.words
    assert len(end.words) <= 200


def test_the_note() -> None:
    end = JobEnd(
        result=Result.completed,
        ended_at=datetime(2026, 4, 18, 20, 0, tzinfo=UTC),
        seconds=252,
        cost_usd=0.42,
        words="done",
    )
    assert finish_note("j1", end, words=False) == (
        "agent finished: job=j1 completed in 4m12s, $0.42 at 2026-04-18T20:00:00Z"
    )
    assert finish_note("j1", end, words=True).endswith("Z: done")
    nothing = JobEnd(result=Result.lost, ended_at=NOW)
    assert finish_note("j1", nothing, words=True) == "agent finished: job=j1 lost at 2026-04-18T22:35:46Z"


def test_amounts() -> None:
    assert [format_seconds(n) for n in (0, 59, 60, 252, 3600, 3605, 90_061)] == [
        "0s", "59s", "1m", "4m12s", "1h", "1h5s", "25h1m1s",
    ]  # fmt: skip
    assert [format_cost(n) for n in (0, 0.42, 0.4213, 0.031, 12)] == ["$0.00", "$0.42", "$0.4213", "$0.031", "$12.00"]
