"""What `bdauto run` shows on a terminal."""

import io
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from bdauto.cli.run_screen import Screen
from bdauto.common import log
from bdauto.diagnostics.snapshot import Snapshot
from bdauto.domain.figures import Figures
from tests.support.fakes import NOW, bead, two_services

AT = datetime(2026, 4, 18, 22, 35, 46)


class Terminal:
    """A screen on a terminal of so many columns, and what it shows."""

    def __init__(self, width: int = 100, *, verbose: bool = False, encoding: str = "utf-8", live: bool = False) -> None:
        self.file = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace", write_through=True)
        console = Console(file=self.file, width=width, force_terminal=live, highlight=False, emoji=False, markup=False)
        self.screen = Screen(console, verbose=verbose, now=lambda: AT)
        log.send_to(self.screen, logging.DEBUG if verbose else logging.INFO)

    @property
    def lines(self) -> list[str]:
        self.file.flush()
        assert isinstance(self.file.buffer, io.BytesIO)
        return self.file.buffer.getvalue().decode(self.file.encoding).splitlines()

    @property
    def last_line(self) -> str:
        return self.screen._last_line().plain


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """Leave the process's logger as it was."""
    logger = logging.getLogger("bdauto")
    state = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate, logger.level = state


def start(bead_id: str = "bd-12", title: str = "Fix login") -> None:
    log.event("dispatched", bead=bead_id, job="w1", attempt="w1", title_=title)


def end(status: str, bead_id: str = "bd-12", how: str = "failed after 12s: API Error: 529", **fields: Any) -> None:
    told = {"result": "completed", "seconds": 12, "cost_usd": 0.12, **fields}
    log.event("result", bead=bead_id, job="w1", status=status, title_="Fix login", how_=how, **told)


def test_a_bead_that_is_closed() -> None:
    there = Terminal()
    start()
    end("closed")
    assert there.lines == ["22:35:46 ● bd-12 Fix login started", "22:35:46 ✓ bd-12 Fix login closed after 12s, $0.12"]


@pytest.mark.parametrize(
    ("outcome", "then"), [("blocked", "blocked"), ("requeued", "open again"), ("released", "open again")]
)
def test_a_run_that_failed_is_one_line_with_its_cause(outcome: str, then: str) -> None:
    there = Terminal()
    start()
    end("in_progress")
    log.warning(outcome, bead="bd-12", job="w1", detail="job w1 is failed, and so on")
    assert there.lines[1:] == [f"22:35:46 ✗ bd-12 Fix login failed after 12s: API Error: 529; it is {then}, $0.12"]


def test_an_agent_that_asks_or_blocks_its_bead() -> None:
    there = Terminal()
    start()
    end("open", cost_usd=None)
    log.event("asks", bead="bd-12", detail="bd-15: Which vault?")
    start()
    end("blocked", result="failed", seconds=None, cost_usd=None)
    assert [line[9:] for line in there.lines if "started" not in line] == [
        "? bd-12 Fix login asks: bd-15: Which vault?",
        "? bd-12 Fix login failed: blocked by its agent",
    ]


def test_settings_and_steps_are_shown_only_with_verbose() -> None:
    for verbose in (False, True):
        there = Terminal(verbose=verbose)
        log.event("start", command="run", version="1.2", assignee="agent", max_beads="1")
        log.event("cycle", command="dispatch", outcome="idle")
        log.debug("step")
        text = "\n".join(there.lines)
        assert ("max_beads=1" in text, "cycle" in text, "step" in text) == (verbose, verbose, verbose)
        assert verbose or text.endswith("bdauto 1.2 takes the beads of agent. Ctrl-C ends it.")


def test_warnings_that_have_no_line_of_their_own_are_shown() -> None:
    there = Terminal()
    log.warning("note-lost", bead="bd-1", job="w1")
    log.error("outage", target="bd", error="bd list: {detail} no")
    assert there.lines[0].endswith("warning: note-lost bead=bd-1 job=w1")
    assert there.lines[1] == "22:35:46 ! bd is down: bd list: {detail} no"


def test_the_last_line() -> None:
    there = Terminal()
    start()
    assert there.last_line == "1 running"
    blocked = (bead("bd-3", status="blocked"),)
    found = Snapshot(NOW, two_services(), (), (), (), (), blocked, (), timedelta(minutes=30))
    there.screen.show_queue("default", found, Figures(closed=7, cost_usd=3.1))
    there.screen.next_look = lambda: 12.4
    assert there.last_line == "1 running · 1 blocked · 7 closed today · $3.10 today · next look in 12s"
    end("closed")
    assert there.last_line.startswith("0 running")


def test_several_lanes_are_named_and_counted_together() -> None:
    there = Terminal()
    log.event("start", version="1.2", lane="night", assignee="owl")
    log.event("dispatched", bead="bd-12", job="w1", lane="night", title_="Fix login")
    assert there.lines == [
        "22:35:46   lane night of bdauto 1.2 takes the beads of owl. Ctrl-C ends it.",
        "22:35:46 ● bd-12 (night) Fix login started",
    ]
    found = Snapshot(NOW, two_services(), (), (), (), (), (bead("bd-3", status="blocked"),), (), timedelta(minutes=30))
    for lane in ("day", "night"):
        there.screen.show_queue(lane, found, Figures(closed=2, cost_usd=1.25))
    assert there.last_line == "1 running · 2 blocked · 4 closed today · $2.50 today"


def test_beads_that_a_sweep_finds_at_work_are_running() -> None:
    there = Terminal()
    log.event("kept", bead="bd-1", job="w1", detail="job w1 is running", title_="Old")
    log.event("kept", bead="bd-2", detail="claimed 5s ago")
    assert there.screen.running == {"bd-1": "Old"}
    assert there.lines == []


def test_the_end_says_which_jobs_go_on_and_what_can_be_done() -> None:
    there = Terminal()
    start("bd-12", "Fix login")
    start("bd-9", "Add tests")
    there.screen.goodbye(there.screen.running)
    assert there.lines[2:] == [
        "22:35:46 ■ stopped; these jobs go on:",
        "  bd-12  Fix login",
        "  bd-9  Add tests",
        "  bdauto logs -f bd-12  follows it",
        "  bdauto cancel bd-12  ends it",
    ]
    quiet = Terminal()
    quiet.screen.goodbye([])
    assert quiet.lines == ["22:35:46 ■ stopped"]


def test_many_jobs_that_go_on_are_counted() -> None:
    there = Terminal()
    there.screen.goodbye([f"bd-{number}" for number in range(500)])
    assert len(there.lines) == 14
    assert "  … and 490 more: bdauto runs --running" in there.lines


HOSTILE = ["[red]x[/red]", "a\nb\r\n", "\x1b[31mred\x1b]0;t\x07", "\u202eevil\u2066", "x" * 10_000, "", "{detail} {}"]


@pytest.mark.parametrize("title", HOSTILE)
@pytest.mark.parametrize("width", [30, 80, 140])
def test_a_hostile_title_stays_one_title(title: str, width: int) -> None:
    there = Terminal(width)
    start("bd-12", title)
    end("in_progress", how=title)
    log.warning("blocked", bead="bd-12", detail=title)
    text = "\n".join(there.lines)
    assert not {"\x1b", "\u202e", "\u2066", "\r", "\x07"} & {*text}
    assert sum("started" in line for line in there.lines) == 1
    assert len(text) < 800
    assert "[red]x[/red]" in text or "red" not in title or width == 30 or "\x1b" in title


def test_a_title_from_right_to_left_leaves_what_follows_in_its_place() -> None:
    there = Terminal()
    start("bd-12", "תקן כניסה")
    assert there.lines == ["22:35:46 ● bd-12 תקן כניסה\u200e started"]


def test_a_locale_without_these_symbols_has_plain_ones() -> None:
    there = Terminal(encoding="ascii")
    start()
    end("closed")
    assert there.lines == ["22:35:46 * bd-12 Fix login started", "22:35:46 + bd-12 Fix login closed after 12s, $0.12"]


def test_a_narrow_terminal_has_no_time() -> None:
    there = Terminal(50)
    start()
    assert there.lines == ["● bd-12 Fix login started"]


def test_no_color_and_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    coloured = Terminal(live=True)
    start()
    assert "\x1b[36m" in coloured.lines[0]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal(live=True)
    start()
    assert "\x1b[3" not in plain.lines[0]
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal(live=True)
    with dumb.screen:
        start()
        dumb.screen.goodbye([])
    assert dumb.lines == ["22:35:46 ● bd-12 Fix login started", "22:35:46 ■ stopped"]


def test_a_screen_that_fails_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Terminal()
    told: list[str] = []
    monkeypatch.setattr(Screen, "handleError", lambda _self, record: told.append(record.getMessage()))
    monkeypatch.setattr(there.screen, "_line", None)
    start()
    assert told == ["dispatched"]


def test_what_is_only_for_the_screen_is_in_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    for form in log.LogFormat:
        log.configure(form, verbose=True)
        end("closed")
        written = capsys.readouterr().err
        assert "closed" in written
        assert "Fix login" not in written
        assert "API Error" not in written
