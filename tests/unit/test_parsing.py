"""What bd answers, parsed: what is fine, what is skipped and named, and what is refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bdauto.bd.parsing import parse_beads, parse_object
from bdauto.bd.sql import to_sql
from bdauto.common.errors import BdDrift
from bdauto.domain.bead import BeadList
from bdauto.domain.eligibility import verdict
from bdauto.domain.reaping import JobEvidence, decide_reap
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time, parse_time
from tests.support.fakes import NOW, bead, change

GOOD: dict[str, Any] = {
    "id": "x-1",
    "title": "t",
    "status": "open",
    "priority": 2,
    "created_at": "2026-04-18T22:35:46Z",
    "updated_at": "2026-04-18T22:35:46Z",
}


def parse(*issues: object) -> tuple[list[str], tuple[str, ...]]:
    page = parse_beads(json.dumps(issues).encode(), "bd list")
    return [bead.id for bead in page.beads], page.malformed


FINE: list[tuple[str, dict[str, Any]]] = [
    ("an unknown field", {"future": {"deep": [1]}}),
    ("an unknown status", {"status": "hooked"}),
    ("an unknown type", {"issue_type": "spike"}),
    ("null for absent", {"metadata": None, "labels": None, "dependencies": None, "defer_until": None}),
    ("a long fraction", {"updated_at": "2026-04-18T22:35:46.123456789Z"}),
    ("an offset", {"updated_at": "2026-04-18T22:35:46+02:00"}),
    ("a dependency of bd ready", {"dependencies": [{"issue_id": "x-1", "depends_on_id": "x-2", "type": "blocks"}]}),
    ("a dependency of bd show", {"dependencies": [{"id": "x-2", "status": "open", "dependency_type": "blocks"}]}),
    ("foreign metadata", {"metadata": {"team": ["a"], "bdauto.attempts": 2, "n": 1.5}}),
    ("a number too large", {"metadata": {"n": 10**40}}),
    *((f"metadata that is {value!r}", {"metadata": value}) for value in ("{}", [1], 5, True)),
    ("our own time broken", {"metadata": {"bdauto.retry_at": "tomorrow", "bdauto.claimed_at": "2026-02-30T00:00:00Z"}}),
]


@pytest.mark.parametrize("fields", [f[1] for f in FINE], ids=[f[0] for f in FINE])
def test_what_bdauto_does_not_know_is_fine(fields: dict[str, Any]) -> None:
    assert parse(GOOD | fields) == (["x-1"], ())


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("priority as text", {"priority": "2"}, "$.priority"),
    ("priority out of range", {"priority": 5}, "$.priority"),
    ("priority as yes", {"priority": True}, "$.priority"),
    ("status as number", {"status": 1}, "$.status"),
    ("notes as list", {"notes": []}, "$.notes"),
    ("labels as text", {"labels": "a"}, "$.labels"),
    ("pinned as text", {"pinned": "no"}, "$.pinned"),
    ("an impossible day", {"updated_at": "2026-02-30T00:00:00Z"}, "$.updated_at"),
    ("an impossible hour", {"created_at": "2026-04-18T25:00:00Z"}, "$.created_at"),
    ("a time without an offset", {"updated_at": "2026-04-18T22:35:46"}, "$.updated_at"),
    ("no time", {"updated_at": ""}, "$.updated_at"),
    ("the end of the calendar", {"updated_at": "9999-12-31T23:59:59Z"}, "date value out of range"),
    ("before the calendar", {"defer_until": "0001-01-01T00:00:00+14:00"}, "date value out of range"),
    ("an id that is an option", {"id": "--db"}, "$.id"),
    ("an id with a newline", {"id": "x-1\n"}, "$.id"),
    ("no id", {"id": ""}, "$.id"),
]


@pytest.mark.parametrize(("fields", "words"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_malformed_bead_is_skipped_and_named_among_good_ones(fields: dict[str, Any], words: str) -> None:
    ids, [line] = parse(GOOD, GOOD | {"id": "x-2"} | fields, GOOD | {"id": "x-3"})
    assert ids == ["x-1", "x-3"]
    assert line.startswith("bd list: entry 1")
    assert words in line
    assert "id" in fields or "(x-2)" in line


DRIFT: list[tuple[str, dict[str, Any]]] = [
    ("priority as text", {"priority": "P2"}),
    ("status as number", {"status": 1}),
    ("time as number", {"updated_at": 1_776_551_746}),
    ("no id", {"id": None}),
]


@pytest.mark.parametrize("fields", [d[1] for d in DRIFT], ids=[d[0] for d in DRIFT])
def test_a_list_in_which_none_has_the_shape_of_a_bead_is_drift(fields: dict[str, Any]) -> None:
    with pytest.raises(BdDrift, match=r"none of 2 can be read.*bd version"):
        parse(GOOD | fields, GOOD | fields)


def test_a_list_of_malformed_beads_alone_is_no_drift() -> None:
    ids, lines = parse(GOOD | {"updated_at": "2026-02-30T00:00:00Z"}, GOOD | {"priority": 5}, GOOD | {"id": "--db"})
    assert (ids, len(lines)) == ([], 3)


DEEP = 100_000
"""More levels than any version of Python reads: the limit differs between them."""


@pytest.mark.parametrize("around", ["{}", '{{"schema_version": 2, "data": {}}}'], ids=["a list", "an envelope"])
@pytest.mark.parametrize("deep", ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP], ids=["lists", "objects"])
def test_a_bead_that_is_nested_too_deeply_is_named_and_hides_no_other(deep: str, around: str) -> None:
    issues = [json.dumps(GOOD | {"id": f"x-{n}", "title": 'a "quoted" ]}, title\\'}) for n in range(3)]
    issues[1] = issues[1].removesuffix("}") + f', "metadata": {{"a": {deep}}}}}'
    page = parse_beads(around.format(f"[{', '.join(issues)}]").encode(), "bd list")
    assert [bead.id for bead in page.beads] == ["x-0", "x-2"]
    assert len(page.malformed) == 1
    assert page.malformed[0].startswith("bd list: entry 1 (x-1): ")
    alone = parse_beads(around.format(f"[{issues[1]}]").encode(), "bd list")
    assert (alone.beads, len(alone.malformed)) == ((), 1)


def test_a_value_of_ours_that_makes_no_sense_is_named() -> None:
    metadata = {"bdauto.retry_at": "tomorrow", "bdauto.attempts": [1], "bdauto.job": "j-1", "other": "tomorrow"}
    [line, other] = parse_beads(json.dumps([GOOD | {"metadata": metadata}]).encode(), "bd list").invalid_metadata
    assert (line, other) == ("x-1: bdauto.attempts='[1]'", "x-1: bdauto.retry_at='tomorrow'")


@pytest.mark.parametrize("job", ["x" * 101, "j-1\nclaimed by agent j-1", "\x1b[31m", "a b"])
def test_a_job_that_is_no_id_is_absent(job: str) -> None:
    """It would go into a URL, a note and a terminal."""
    [bead] = parse_beads(
        json.dumps([GOOD | {"metadata": {"bdauto.job": job, "bdauto.attempt": job}}]).encode(), "x"
    ).beads
    assert (bead.record.job, bead.record.attempt, len(bead.invalid_metadata)) == ("", "", 2)


@pytest.mark.parametrize("note", ["5 x\u0000y", "5 a person wrote this", "5 written"])
def test_a_claim_s_note_that_is_none_is_not_written(note: str) -> None:
    [bead] = parse_beads(json.dumps([GOOD | {"metadata": {"bdauto.claim_note": note}}]).encode(), "x").beads
    assert bead.pending_note == ""


def test_an_answer_in_bd_s_envelope_is_taken_out_of_it() -> None:
    envelope = json.dumps({"schema_version": 2, "data": [GOOD]}).encode()
    assert [bead.id for bead in parse_beads(envelope, "bd list").beads] == ["x-1"]
    assert parse_object(b' {"schema_version": 2, "data": {"version": "1.3.0"}}', "bd version") == {"version": "1.3.0"}
    assert parse_object(b'{"schema_version": 1, "version": "1.0.3"}', "bd version")["version"] == "1.0.3"


def test_an_empty_list_is_an_answer() -> None:
    assert parse() == ([], ())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
mangled = st.builds(
    lambda fields: json.dumps([GOOD | fields]).encode(),
    st.dictionaries(st.sampled_from([*GOOD, "metadata", "labels", "notes", "assignee", "defer_until"]), json_values),
)
timed = st.builds(
    lambda moment, own: json.dumps(
        [GOOD | {"updated_at": moment, "defer_until": moment, "metadata": {"bdauto.retry_at": own}}]
    ).encode(),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()) | st.text(max_size=30),
)


@given(st.binary(max_size=200) | mangled | timed | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200)
@example(b"[" * 100_000)
@example(b'{"data":' * 50_000)
@example(b'{"data": ["\xff"]}')
@example(b'{"\xff": 1}')
@example(b'[{"id": "x-1", "status": "\\ud800"}]')
@example(b"\xef\xbb\xbf[]")
@example(b'[{"a":' * 50_000 + b"}]" * 50_000)
@example(b"[" * 3_000 + b"]" * 2_999)
@example(b'[{"id": "' + b"a" * 1_000_000 + b'"}]')
def test_any_bytes_are_read_or_refused_and_what_is_read_can_be_worked_with(answer: bytes) -> None:
    page, words = BeadList(()), ""
    try:
        page = parse_beads(answer, "bd list")
    except BdDrift as error:
        words = str(error)
    assert all(line.isprintable() and len(line) < 600 for line in (words, *page.malformed))
    for one in page.beads:
        _ = one.record.attempts, one.record.failures, one.record.job, one.record.error
        verdict(one, True, "agent", DispatchSettings(), NOW)
        decide_reap(one, JobEvidence(), ReapSettings(), NOW)
        to_sql([change(one, if_updated_at=one.updated_at)], "me")


OWN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {"attempt": "", "attempts": 0, "failures": 0, "job": "", "error": "", "retry_at": None}),
    ("what bd made a number", {"bdauto.job": 123456789012}, {"job": "123456789012"}),
    ("a count as text", {"bdauto.attempts": "2", "bdauto.failures": "x"}, {"attempts": 2, "failures": 0}),
    ("no count", {"bdauto.attempts": True, "bdauto.failures": -1}, {"attempts": 0, "failures": 0}),
    ("a count without end", {"bdauto.attempts": 10**40, "bdauto.failures": "9" * 40}, {"attempts": 0, "failures": 0}),
    ("no text", {"bdauto.job": ["j"], "bdauto.attempt": {"a": 1}, "bdauto.error": False}, {"job": "", "attempt": ""}),
    ("no time", {"bdauto.retry_at": "tomorrow", "bdauto.claimed_at": 5}, {"retry_at": None, "claimed_at": None}),
    ("the end of the calendar", {"bdauto.retry_at": "9999-12-31T23:59:59Z"}, {"retry_at": None}),
    ("a time", {"bdauto.claimed_at": "2026-04-18T22:35:46Z"}, {"claimed_at": NOW}),
]


@pytest.mark.parametrize(("metadata", "values"), [o[1:] for o in OWN], ids=[o[0] for o in OWN])
def test_bdauto_s_own_metadata(metadata: dict[str, Any], values: dict[str, Any]) -> None:
    one = bead(metadata=metadata)
    assert {name: getattr(one.record, name) for name in values} == values


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.timezones()))
@settings(max_examples=100)
def test_times_come_back_as_they_were_written_to_the_second(moment: datetime) -> None:
    assert abs(parse_time(format_time(moment)) - moment) < timedelta(seconds=1)
    assert format_time(moment).endswith("Z")


def test_a_time_without_an_offset_is_utc() -> None:
    assert parse_time("2026-04-18T22:35:46") == datetime(2026, 4, 18, 22, 35, 46, tzinfo=UTC)


def test_an_agent_that_quotes_the_claim_s_note_still_gives_a_sign_of_life() -> None:
    notes = "auto-dispatcher claimed at 2026-04-18T22:35:46Z\nit was auto-dispatcher claimed at 22:35, working now"
    page = parse_beads(json.dumps([GOOD | {"notes": notes}]).encode(), "bd list")
    assert "working now" in page.beads[0].notes_since_claim
    assert page.beads[0].notes_since_claim.startswith("auto-dispatcher claimed at 2026-04-18")
