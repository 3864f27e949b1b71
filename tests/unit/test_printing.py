"""The result on stdout: the JSON contract, pinned, and the lines for people."""

import json

import pytest

from bdauto.cli.printing import align, render, show
from bdauto.common.errors import ServiceDown
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report

FULL = Report(
    "dispatch",
    Outcome.partial,
    False,
    (
        BeadReport("x-1", BeadOutcome.dispatched, "job-1", "", "w1"),
        BeadReport("x-22", BeadOutcome.unavailable, "", "HTTP 502: \x1b[31m[bold]down[/bold]\n\u202e"),
    ),
    "",
    ("bd ready: entry 3 (x-3): odd",),
    ServiceDown("down"),
)
EMPTY = Report("reap", Outcome.idle, True)


def test_the_json_contract() -> None:
    assert json.loads(render(FULL, as_json=True)) == {
        "schema_version": 1,
        "command": "dispatch",
        "dry_run": False,
        "outcome": "partial",
        "detail": None,
        "error": "down",
        "malformed": ["bd ready: entry 3 (x-3): odd"],
        "beads": [
            {"id": "x-1", "outcome": "dispatched", "job": "job-1", "detail": None},
            {
                "id": "x-22",
                "outcome": "unavailable",
                "job": None,
                "detail": "HTTP 502: \x1b[31m[bold]down[/bold]\n\u202e",
            },
        ],
    }
    assert json.loads(render(EMPTY, as_json=True)) == {
        "schema_version": 1,
        "command": "reap",
        "dry_run": True,
        "outcome": "idle",
        "detail": None,
        "error": None,
        "malformed": [],
        "beads": [],
    }


def test_the_json_is_one_line_of_ascii() -> None:
    text = render(FULL, as_json=True)
    assert text.isascii()
    assert text.isprintable()


def test_the_outcomes_are_those_that_programs_know() -> None:
    assert {*Outcome} == {"dispatched", "reaped", "idle", "busy", "paused", "suspended", "limited", "partial", "failed"}
    assert {*BeadOutcome} == {
        *("dispatched", "lost", "busy", "refused", "quarantined", "unavailable", "misconfigured", "unknown", "failed"),
        *("adopted", "reverted", "not_visible", "kept", "released", "requeued", "blocked"),
        *("asks", "closed", "stopping", "unclear"),
    }


def test_people_get_aligned_harmless_lines() -> None:
    head, first, second = render(FULL, as_json=False).split("\n")
    assert head == "dispatch: partial"
    assert first == "  x-1   dispatched   job job-1"
    assert second == "  x-22  unavailable             HTTP 502: [31m[bold]down[/bold]"


def test_a_dry_run_and_a_reason_stand_in_the_first_line() -> None:
    report = Report("reap", Outcome.paused, True, detail="paused by ann: \x1b[31mdeploy")
    text = render(report, as_json=False)
    assert text == "reap: paused (dry run: nothing was written) by ann: [31mdeploy"


def test_nothing_is_said_twice() -> None:
    report = Report("dispatch", Outcome.paused, False, detail="paused by ada: release day")
    assert render(report, False) == "dispatch: paused by ada: release day"
    kept = BeadReport("x-1", BeadOutcome.kept, "9c1d", "job 9c1d is running; 4m since the last update")
    assert render(Report("reap", Outcome.idle, False, (kept,)), False) == (
        "reap: idle\n  x-1  kept  job 9c1d is running; 4m since the last update"
    )


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([("a", "", "c")], ["  a  c"]),
        ([("a", "b"), ("long", "")], ["  a     b", "  long"]),
    ],
)
def test_columns(rows: list[tuple[str, ...]], lines: list[str]) -> None:
    assert align(rows) == lines


@pytest.mark.parametrize("as_json", [True, False])
def test_a_pipe_gets_no_colour(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    show(FULL, as_json)
    assert capsys.readouterr().out == render(FULL, as_json) + "\n"


@pytest.mark.parametrize("no_color", [True, False])
def test_a_terminal_gets_colour_unless_told_not_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    show(FULL, as_json=False)
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out.partition("\n")[2], "nothing of a bead's text is a colour"
    assert ("\x1b[1;31m" in out) != no_color
    assert "[bold]down[/bold]" in out, "nothing of a bead's text is markup"
