"""Reading a job's record that is too large to be held, in whatever pieces it comes."""

import json
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.http import BODY_LIMIT
from bdauto.agents.job_reader import JobReader
from bdauto.agents.service_output import job_end
from bdauto.common.errors import ServiceDown, ServiceDrift
from bdauto.domain.settings import Secret
from tests.support.fakes import AGENT, NOW, TOKEN, Wire, bead

LARGE = 5 << 20
FIGURES = {"result": "Found it.", "total_cost_usd": 0.42, "num_turns": 12}
LINES: list[Any] = [
    [*["y" * 1023 + "\n"] * (LARGE >> 10), json.dumps(FIGURES) + "\n"],
    ["x" * LARGE + "\n", json.dumps(FIGURES)],
    ["x" * LARGE, json.dumps(FIGURES)],
    "y\n" * (LARGE >> 1) + json.dumps(FIGURES),
    ['{"status":"running","a":[]}, "status":"queued"\\\n' * 999] * (LARGE // 49_000) + [json.dumps(FIGURES)],
]


def services(answer: httpx.Response | Exception) -> BeadBoardRunner:
    def reply(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    settings = BeadBoardSettings(agent_url=AGENT, agent_token=Secret(TOKEN))
    return BeadBoardRunner(settings, httpx.MockTransport(reply))


@pytest.mark.parametrize("output", LINES, ids=["lines", "a long line", "no newline", "a text", "hostile"])
@pytest.mark.parametrize("first", ["status", "output"])
def test_a_job_that_printed_megabytes_has_its_state_and_its_figures(output: Any, first: str) -> None:
    job = {
        "status": "completed",
        "prompt": "p",
        "output": output,
        "stderr": "warning\n",
        "finished_at": "2026-04-18T22:00:00Z",
    }
    ordered = {first: job[first]} | job
    asked = services(httpx.Response(200, stream=Wire(json.dumps(ordered).encode())))
    evidence, error = asked.evidence([bead("x-1", metadata={"bdauto.job": "j-1"})])
    assert (error, evidence.states) == (None, {"x-1": "completed"})
    end = evidence.ends["x-1"]
    assert (end.cost_usd, end.turns, end.words) == (0.42, 12, "Found it.")
    assert f"{end.ended_at:%H}" == "22"


def test_of_a_job_that_runs_no_more_is_read_than_its_state() -> None:
    wire = Wire(json.dumps({"prompt": "p" * BODY_LIMIT, "status": "running", "output": ["x" * 99] * 30_000}).encode())
    assert services(httpx.Response(200, stream=wire)).job_state("j-1") == "running"
    assert wire.sent < 2 * BODY_LIMIT


class Broken(Wire):
    def __iter__(self) -> Any:
        yield from super().__iter__()
        raise httpx.RemoteProtocolError("peer closed connection")


def test_a_large_record_that_breaks_off_has_its_state_and_no_figures() -> None:
    whole = json.dumps({"status": "failed", "error": "bad", "output": ["x" * 80] * 50_000}).encode()
    job = services(httpx.Response(200, stream=Broken(whole[:-9]))).job("j-1")
    assert job == {"status": "failed"}
    end = job_end(job, NOW)
    assert end is not None
    assert end.words == ""
    for part in (whole[:99], whole.replace(b'"status"', b'"stat"')):
        with pytest.raises(ServiceDown):
            services(httpx.Response(200, stream=Broken(part))).job("j-1")


@pytest.mark.parametrize("body", [b"[" * LARGE, b"<html>" * LARGE, b'{"a": ]' + b" " * LARGE, b"{}" + b"}" * LARGE])
def test_megabytes_of_garbage_are_an_error_of_this_job(body: bytes) -> None:
    with pytest.raises((ServiceDown, ServiceDrift)) as caught:
        services(httpx.Response(200, stream=Wire(body))).job("j-1")
    assert "/jobs/j-1" in str(caught.value)
    assert not getattr(caught.value, "silent", False)


def test_the_token_is_in_no_text_of_a_large_record() -> None:
    job = {"status": "failed", "stderr": f"{TOKEN}\n" * (LARGE // 16)}
    found = services(httpx.Response(200, stream=Wire(json.dumps(job).encode()))).job("j-1")
    assert found is not None
    assert TOKEN not in str(found)
    assert found["stderr"].endswith("***\n")


_texts = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\\n,[]{}:'))
_lines = _texts | st.lists(_texts, min_size=1)
_values = st.recursive(
    _lines | st.integers() | st.none() | st.booleans(), lambda inner: st.lists(inner) | st.dictionaries(_texts, inner)
)
_jobs = st.fixed_dictionaries(
    {},
    optional={"output": _lines, "status": _texts, "metadata": _values, "error": _texts, "x": _values, "stderr": _lines},
)


@given(_jobs, st.lists(st.integers(1, 40)), st.booleans())
def test_in_any_pieces_the_members_are_those_of_the_record(job: dict[str, Any], pieces: list[int], ascii: bool) -> None:
    body, reader = (
        json.dumps(job, ensure_ascii=ascii, indent=1 if pieces[:1] == [1] else None).encode(),
        JobReader(1 << 20),
    )
    for size in pieces:
        reader.feed(body[:size])
        body = body[size:]
    reader.feed(body)
    wanted = {name: value for name, value in job.items() if name not in ("metadata", "x")}
    assert reader.record() == wanted


@given(st.lists(_texts, min_size=1), st.integers(16, 64), st.booleans(), st.booleans())
def test_what_is_cut_leaves_the_end(lines: list[str], keep: int, ascii: bool, listed: bool) -> None:
    job = {"output": lines if listed else "".join(lines), "status": "failed"}
    body, reader = json.dumps(job, ensure_ascii=ascii).encode(), JobReader(keep)
    for place in range(0, len(body), 7):
        reader.feed(body[place : place + 7])
    kept = reader.record().get("output", "")  # unknown where a character was cut
    assert "".join(lines).endswith("".join(kept))
    assert reader.record()["status"] == "failed"
    assert msgspec.json.decode(body)["status"] == "failed"
