"""The first page and the report in it, which is read beside it: when that is, and what readers see meanwhile."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from bdauto.common.errors import BdFailed
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.loop.listener import ANSWER_TIMEOUT
from bdauto.web.log_pages import STREAMS, Streams
from bdauto.web.routes import answer
from bdauto.web.site import Html, LaneReader, Site
from tests.support.fakes import NOW, Board, Clock, row
from tests.support.scene import Queue

BEING_READ, NEWER = "The report is being read.", "A newer report is being read."
STATUS, REPORT = ["assigned", "ready", "kv", "labelled", "list"], ["list", "ready"]
SOON, LATER = '<meta http-equiv="refresh" content="2">', '<meta http-equiv="refresh" content="30">'


class Reader:
    """Somebody who looks at the page of a tracker. Threads that the site starts run when `read_report` is called."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tracker = Queue(self.clock, row("x-1", metadata={"bdauto.claimed_at": "2026-04-18T20:00:00Z"}))
        services = Board().services()
        lane = LaneReader(self.tracker, services, DispatchSettings(), ReapSettings())
        self.site = Site({"": lane}, lambda _bead: "", self.clock.runtime())
        self.threads: list[Callable[[], None]] = []

    def look(self, after: float = 0) -> Html:
        self.clock.sleep(after)
        return self.site.front()

    def read_report(self) -> None:
        self.threads.pop(0)()
        assert not self.threads, "one at a time"

    def break_reads(self, failing: str, words: str) -> None:
        """Let the reads of this kind fail."""

        def fail(verb: str) -> None:
            if verb == failing:
                raise BdFailed(words)

        self.tracker.before_read = fail


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()

    class Thread:
        def __init__(self, target: Callable[[], None], **_options: object) -> None:
            self.start = lambda: made.threads.append(target)

    monkeypatch.setattr(threading, "Thread", Thread)
    return made


def test_the_first_answer_does_not_wait_for_the_report(reader: Reader) -> None:
    first = reader.look()
    assert reader.tracker.reads == STATUS
    assert first.status == 200
    assert "Queue: 1 eligible" in first.text
    assert BEING_READ in first.text
    assert SOON in first.text
    assert "every 2 seconds" in first.text
    reader.read_report()
    second = reader.look(2)
    assert BEING_READ not in second.text
    assert "Runs that ended" in second.text
    assert LATER in second.text
    assert all(reader.look() == second for _ in range(100))
    assert reader.tracker.reads == STATUS + REPORT


def test_what_is_in_progress_and_blocked_is_on_the_page(reader: Reader) -> None:
    job = {"bdauto.attempt": "a", "bdauto.claimed_at": "2026-04-18T20:00:00Z", "bdauto.job": "j-1"}
    why = {"bdauto.quarantined": "refused three times"}
    reader.tracker.rows |= {
        "x-2": row("x-2", status="in_progress", metadata=job),
        "x-3": row("x-3", status="blocked", metadata=why),
        "x-4": row("x-4", status="blocked", notes="waits for ann"),
    }
    text = reader.look().text
    for words in ('<td class="id">j-1</td>', "refused three times", "waits for ann"):
        assert words in text


def test_a_report_that_takes_long_is_read_once(reader: Reader) -> None:
    assert all(BEING_READ in reader.look(after=20).text for _ in range(10))
    reader.read_report()
    assert "Runs that ended" in reader.look().text
    assert reader.tracker.reads == STATUS * 10 + REPORT


def test_the_report_before_is_shown_with_its_time_while_a_newer_one_is_read(reader: Reader) -> None:
    reader.look()
    reader.read_report()
    assert NEWER not in reader.look(after=59).text
    reader.clock.time = NOW + timedelta(hours=2)
    page = reader.look().text
    assert f"As of 2026-04-18 22:35. {NEWER}" in page
    assert "Runs that ended" in page
    assert SOON in page
    reader.read_report()
    page = reader.look(2).text
    assert "As of 2026-04-19 00:35." in page
    assert NEWER not in page
    assert LATER in page


def test_a_report_that_cannot_be_read_is_said_and_tried_again_with_the_next_page(reader: Reader) -> None:
    reader.look()
    reader.break_reads("list", "<no> database")
    reader.read_report()
    page = reader.look(2).text
    assert "The report could not be read: &lt;no&gt; database" in page
    assert "Queue: 1 eligible" in page
    assert BEING_READ not in page
    assert LATER in page
    assert not reader.threads, "the page is kept"
    reader.break_reads("", "")
    reader.look(after=30)
    reader.read_report()
    page = reader.look(2).text
    assert "could not be read" not in page
    assert "Runs that ended" in page
    reader.look(after=61)
    reader.break_reads("list", "gone")
    reader.read_report()
    page = reader.look().text
    assert "could not be read: gone" in page
    assert "Runs that ended" in page, "the one before, with its time"


def test_a_report_that_arrives_does_not_hide_that_bd_fails(reader: Reader) -> None:
    reader.look()
    reader.break_reads("kv", "no database")
    assert reader.look(after=16).status == 503
    reader.read_report()
    page = reader.look()
    assert (page.status, "no database" in page.text) == (503, True)


def test_the_api_says_what_was_known_while_others_read_it_anew(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdauto.web.site.WAITING", 1)
    busy, answers = Reader(), []
    busy.look()

    def another(_verb: str) -> None:
        for path in ("/api/status", "/api/beads"):
            answers.append(answer(lambda: busy.site, path, ""))

    busy.tracker.before_read = another
    busy.look(after=16)
    assert answers
    assert {found and (found.status, json.loads(found.body).get("command")) for found in answers} == {
        (200, "status"),
        (200, "beads"),
    }
    assert len(reader.threads) == 1, "the report is read once"


def test_the_page_of_a_bead_that_is_not_there_is_404_and_of_a_bd_that_fails_503(reader: Reader) -> None:
    page = reader.site.bead("x-2")
    assert (page.status, "no bead x-2 in this database" in page.text) == (404, True)
    reader.break_reads("list", "no database")
    page = reader.site.bead("x-1")
    assert (page.status, "no database" in page.text) == (503, True)


def ran(number: int, **end: object) -> dict[str, object]:
    """A run as it is recorded on a bead, which began so many hours before now."""
    began = NOW - timedelta(hours=number)
    return {"attempt": f"a{number}", "claimed": began.isoformat(), "job": f"j-{number}", **end}


def with_runs(reader: Reader) -> None:
    """Beads whose runs closed them, failed, and run."""
    done = ran(3, ended=(NOW - timedelta(hours=2)).isoformat(), result="completed", why="ok", seconds=60, cost=0.5)
    broke = ran(2, ended=(NOW - timedelta(hours=1)).isoformat(), result="failed", why="error", words="<boom>")
    late = {"bdauto.attempt": "a1", "bdauto.claimed_at": (NOW - timedelta(hours=1)).isoformat(), "bdauto.job": "j-1"}
    reader.tracker.rows |= {
        "x-5": row(
            "x-5", title="Haiku", status="closed", closed_at=done["ended"], metadata={"bdauto.runs": json.dumps([done])}
        ),
        "x-6": row(
            "x-6", title="Dark mode", status="in_progress", metadata={"bdauto.runs": json.dumps([broke]), **late}
        ),
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["x-6", "x-6", "x-5"]),
        ({"result": "failed"}, ["x-6"]),
        ({"result": "running"}, ["x-6"]),
        ({"result": "nonsense", "since": "9y"}, ["x-6", "x-6", "x-5"]),
        ({"q": "HAIKU"}, ["x-5"]),
        ({"q": "boom"}, ["x-6"]),
        ({"q": "haiku", "result": "failed"}, []),
    ],
)
def test_runs_are_filtered_and_searched_by_the_query(reader: Reader, query: dict[str, str], found: list[str]) -> None:
    with_runs(reader)
    answered = answer(lambda: reader.site, "/api/runs", urlencode(query))
    assert answered
    assert answered.content_type == "application/json"
    assert [one["bead"] for one in json.loads(answered.body)["runs"]] == found
    page = reader.site.runs(query)
    assert page.status == 200
    assert page.text.count('href="/beads/') == len(found)
    assert "<boom>" not in page.text


def test_filtering_reads_the_tracker_once(reader: Reader) -> None:
    with_runs(reader)
    for result in ("", "failed", "running", "closed"):
        assert reader.site.runs({"result": result, "q": result}).status == 200
    assert len(reader.tracker.reads) == 1


def test_a_bead_shows_its_text_its_attempts_and_what_happened_when(reader: Reader) -> None:
    with_runs(reader)
    reader.tracker.rows["x-6"] |= {"description": "Black.\n\n<b>Not white.</b>", "acceptance_criteria": "It is dark."}
    text = reader.site.bead("x-6").text
    assert "Black.\n\n&lt;b&gt;Not white.&lt;/b&gt;" in text
    assert "It is dark." in text
    assert "Attempts: 2" in text
    moments = [text.index(words) for words in ("run 1 began", "run 1: failed", "run 2 began")]
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("path", "command", "field"),
    [("status", "status", "queue"), ("beads", "beads", "beads"), ("beads/x-1", "explain", "conditions")],
)
def test_the_api_has_what_the_commands_print(reader: Reader, path: str, command: str, field: str) -> None:
    answered = answer(lambda: reader.site, f"/api/{path}", "")
    assert answered
    assert answered.status == 200
    found = json.loads(answered.body)
    assert (found["schema_version"], found["command"], bool(found[field])) == (1, command, True)


def test_the_api_says_as_json_what_fails(reader: Reader) -> None:
    answered = answer(lambda: reader.site, "/api/beads/x-2", "")
    assert answered
    assert (answered.status, "no bead x-2" in json.loads(answered.body)["error"]) == (404, True)
    reader.break_reads("kv", "no database")
    answered = answer(lambda: reader.site, "/api/status", "")
    assert answered
    assert (answered.status, "no database" in json.loads(answered.body)["error"]) == (503, True)


def test_the_title_counts_what_needs_a_person_and_each_stands_once(reader: Reader) -> None:
    before = re.findall(r"<title>\((\d+)\) bdauto</title>", reader.look().text) or [0]
    reader.tracker.rows |= {
        "x-3": row("x-3", status="blocked", metadata={"bdauto.quarantined": "refused three times"}),
        "x-4": row("x-4", status="blocked", notes="waits for ann"),
    }
    text = reader.look(after=16).text
    assert f"<title>({int(before[0]) + 2}) bdauto</title>" in text
    assert text.count("refused three times") == 1
    assert text.count("waits for ann") == 1


class Output:
    """The output of a job that grows with each look."""

    agent = ""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [*pieces]

    def read(self) -> Iterator[bytes]:
        yield self.pieces.pop(0) if self.pieces else b""

    def state(self) -> str:
        return "running" if self.pieces else "completed"


def test_a_stream_has_the_end_of_the_log_then_what_comes_and_the_end() -> None:
    waits: list[float] = []
    stream = Streams(waits.append).open(Output(b"one\n", b"two\n", b"three"))
    assert stream
    events = [event for event in b"".join(stream).decode().split("\n\n") if event and not event.startswith(":")]
    assert events[:2] == ["event: log\ndata: one", "event: more\ndata: two"]
    assert events[2:] == ["event: more\ndata: three", "event: end\ndata: completed"]
    assert set(waits) == {1.0}


def test_streams_are_few_and_each_gives_its_place_back_once() -> None:
    streams = Streams()
    opened = [streams.open(Output()) for _ in range(STREAMS)]
    assert all(opened)
    assert streams.open(Output()) is None
    for one in (opened[0], opened[0]):
        assert one
        one.close()
    assert streams.open(Output())
    assert streams.open(Output()) is None


def test_a_stream_ends_before_the_listener_would_end_it() -> None:
    waits: list[float] = []
    output = Output(*[b"line\n"] * 1000)
    stream = Streams(waits.append).open(output)
    assert stream
    assert len([*stream]) < ANSWER_TIMEOUT
    assert sum(waits) < ANSWER_TIMEOUT


def with_lanes(reader: Reader) -> Queue:
    """Give the site two lanes, each with a tracker, and return that of the second one."""
    other = Queue(reader.clock, row("y-1", title="Docs", status="blocked", notes="waits for ann"))
    first = reader.site.lanes[""]
    second = LaneReader(other, first.runner, first.dispatch, first.reap)
    lane_of = {"x-1": "hard", "y-1": "docs"}.__getitem__
    reader.site = Site({"hard": first, "docs": second}, lane_of, reader.clock.runtime())
    return other


def read_json(reader: Reader, path: str) -> dict[str, Any]:
    answered = answer(lambda: reader.site, path, "")
    assert answered
    assert answered.status == 200
    found: dict[str, Any] = json.loads(answered.body)
    return found


def test_the_page_and_the_api_show_each_lane_by_name(reader: Reader) -> None:
    other = with_lanes(reader)
    done = ran(3, ended=(NOW - timedelta(hours=2)).isoformat(), result="completed", why="ok", lane="docs")
    other.rows["y-2"] = row("y-2", status="closed", metadata={"bdauto.runs": json.dumps([done])})
    reader.look()
    reader.read_report()
    text = reader.look().text
    for words in ("Queue in lane hard: 1 eligible", "Blocked, not by bdauto in lane docs: 1", "<h2>Lane docs</h2>"):
        assert words in text
    status = read_json(reader, "/api/status")
    assert [status["lanes"][name]["counts"]["blocked"] for name in ("hard", "docs")] == [0, 1]
    assert any(words.startswith("lane docs: blocked: y-1") for words in status["alerts"])
    beads = read_json(reader, "/api/beads")["beads"]
    assert {one["id"]: one["lane"] for one in beads} == {"x-1": "hard", "y-1": "docs"}
    assert {(one["bead"], one["lane"]) for one in read_json(reader, "/api/runs")["runs"]} >= {("y-2", "docs")}
    assert "<td>docs</td>" in reader.site.runs({}).text
    assert "Lane docs" in reader.site.bead("y-1").text


def test_a_lane_that_cannot_be_read_does_not_hide_the_other(reader: Reader) -> None:
    other = with_lanes(reader)

    def fail(_verb: str) -> None:
        raise BdFailed("<no> database")

    other.before_read = fail
    page = reader.look()
    assert (page.status, "Queue in lane hard: 1 eligible" in page.text) == (200, True)
    assert "Lane docs cannot be read: &lt;no&gt; database" in page.text
    assert read_json(reader, "/api/status")["lanes"]["docs"] == {"error": "<no> database"}
    assert read_json(reader, "/api/beads")["errors"] == {"docs": "<no> database"}
    reader.read_report()
    assert "could not be read: lane docs: &lt;no&gt; database" in reader.look().text
    reader.tracker.before_read = fail
    assert reader.look(after=16).status == 503


def test_the_page_and_the_api_say_what_became_of_today(reader: Reader) -> None:
    reader.clock.time = NOW.astimezone().replace(hour=12)
    done = {"attempt": "a1", "claimed": (reader.clock.time - timedelta(hours=2)).isoformat(), "cost": 0.5}
    done |= {"ended": (reader.clock.time - timedelta(hours=1)).isoformat(), "result": "completed", "why": "ok"}
    record = {"bdauto.runs": json.dumps([done])}
    reader.tracker.rows["x-5"] = row("x-5", status="closed", closed_at=done["ended"], metadata=record)
    reader.tracker.rows["x-4"] = row("x-4", status="blocked", notes="waits for ann")
    assert '<dt>today</dt><dd class="">1 closed, 0 failed, 1 needs you, $0.50</dd>' in reader.look().text
    today = read_json(reader, "/api/status")["today"]
    assert today == {"closed": 1, "failed": 0, "need_you": 1, "cost_usd": 0.5}
