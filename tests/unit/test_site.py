"""The first page and the report in it, which is read beside it: when that is, and what readers see meanwhile."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.errors import BdFailed
from bdauto.web.site import Html, Site
from tests.support.fakes import NOW, Board, Clock, row
from tests.support.scene import Queue

BEING_READ, NEWER = "The report is being read.", "A newer report is being read."
STATUS, REPORT = ["assigned", "ready", "kv", "labelled"], ["list", "ready"]
SOON, LATER = '<meta http-equiv="refresh" content="2">', '<meta http-equiv="refresh" content="30">'


class Reader:
    """Somebody who looks at the page of a tracker. Threads that the site starts run when `read_report` is called."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tracker = Queue(self.clock, row("x-1", metadata={"bdauto.claimed_at": "2026-04-18T20:00:00Z"}))
        services = Board().services()
        self.site = Site(self.tracker, services, DispatchSettings(), ReapSettings(), self.clock.runtime())
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
    reader.break_reads("list", "<no> database")
    reader.look()
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
    reader.break_reads("list", "gone")
    reader.look(after=61)
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


def test_the_page_of_a_bead_that_is_not_there_is_404_and_of_a_bd_that_fails_503(reader: Reader) -> None:
    page = reader.site.bead("x-2")
    assert (page.status, "no bead x-2 in this database" in page.text) == (404, True)
    reader.break_reads("list", "no database")
    page = reader.site.bead("x-1")
    assert (page.status, "no database" in page.text) == (503, True)
