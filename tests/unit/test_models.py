"""What bd answers, parsed: what is fine, what is skipped and named, and what is refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bdauto.changes import Change, to_sql
from bdauto.errors import BdDrift
from bdauto.models import BeadList, format_time, parse_beads, parse_object, parse_time
from bdauto.policy import settle, verdict
from bdauto.settings import DispatchSettings, ReapSettings

from .doubles import NOW, bead

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
    ("metadata as text", {"metadata": "{}"}, "$.metadata"),
    ("an impossible day", {"updated_at": "2026-02-30T00:00:00Z"}, "$.updated_at"),
    ("an impossible hour", {"created_at": "2026-04-18T25:00:00Z"}, "$.created_at"),
    ("a time without an offset", {"updated_at": "2026-04-18T22:35:46"}, "$.updated_at"),
    ("no time", {"updated_at": ""}, "$.updated_at"),
    ("the end of the calendar", {"updated_at": "9999-12-31T23:59:59Z"}, "date value out of range"),
    ("before the calendar", {"defer_until": "0001-01-01T00:00:00+14:00"}, "date value out of range"),
    ("our own time broken", {"metadata": {"bdauto.retry_at": "soon"}}, "'soon' is not an ISO 8601 time"),
    ("our own time impossible", {"metadata": {"bdauto.claimed_at": "2026-02-30T00:00:00Z"}}, "not an ISO 8601 time"),
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


@pytest.mark.parametrize(("fields", "words"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_list_in_which_none_can_be_read_is_drift(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BdDrift, match=r"none of 2 can be read.*bd version"):
        parse(GOOD | fields, GOOD | fields)


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
@settings(max_examples=200, deadline=None)
@example(b"[" * 100_000)
@example(b'{"data":' * 50_000)
@example(b'{"data": ["\xff"]}')
@example(b'{"\xff": 1}')
@example(b'[{"id": "x-1", "status": "\\ud800"}]')
@example(b"\xef\xbb\xbf[]")
@example(b'[{"id": "' + b"a" * 1_000_000 + b'"}]')
def test_any_bytes_are_read_or_refused_and_what_is_read_can_be_worked_with(answer: bytes) -> None:
    page, words = BeadList(()), ""
    try:
        page = parse_beads(answer, "bd list")
    except BdDrift as error:
        words = str(error)
    assert all(line.isprintable() and len(line) < 600 for line in (words, *page.malformed))
    for one in page.beads:
        _ = one.attempts, one.failures, one.job, one.error
        verdict(one, True, "agent", DispatchSettings(), NOW)
        settle(one, None, ReapSettings(), NOW)
        to_sql([Change(bead=one, if_updated_at=one.updated_at)], "w1", NOW)


OWN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {"attempt": "", "attempts": 0, "failures": 0, "job": "", "error": "", "retry_at": None}),
    ("what bd made a number", {"bdauto.job": 123456789012}, {"job": "123456789012"}),
    ("a count as text", {"bdauto.attempts": "2", "bdauto.failures": -1}, {"attempts": 0, "failures": 0}),
    ("a count as yes", {"bdauto.attempts": True}, {"attempts": 0}),
    ("a time", {"bdauto.claimed_at": "2026-04-18T22:35:46Z"}, {"claimed_at": NOW}),
]


@pytest.mark.parametrize(("metadata", "values"), [o[1:] for o in OWN], ids=[o[0] for o in OWN])
def test_bdauto_s_own_metadata(metadata: dict[str, Any], values: dict[str, Any]) -> None:
    one = bead(metadata=metadata)
    assert {name: getattr(one, name) for name in values} == values


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.timezones()))
@settings(max_examples=100, deadline=None)
def test_times_come_back_as_they_were_written_to_the_second(moment: datetime) -> None:
    assert abs(parse_time(format_time(moment)) - moment) < timedelta(seconds=1)
    assert format_time(moment).endswith("Z")


def test_a_time_without_an_offset_is_utc() -> None:
    assert parse_time("2026-04-18T22:35:46") == datetime(2026, 4, 18, 22, 35, 46, tzinfo=UTC)
