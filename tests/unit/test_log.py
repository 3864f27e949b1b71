"""The log: one event a line, in each form, harmless whatever its values are."""

import json
import logging
from collections.abc import Iterator
from enum import StrEnum

import pytest

from bdauto.common import log
from bdauto.common.log import LogFormat

HOSTILE = 'a\x1b[2J\n\u202eb "c" = \\d'


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """Leave the process's logger as it was."""
    logger = logging.getLogger("bdauto")
    state = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate, logger.level = state


class Colour(StrEnum):
    red = "red"


def lines(capsys: pytest.CaptureFixture[str], form: LogFormat, *, verbose: bool = False) -> list[str]:
    log.configure(form, verbose)
    log.event("dispatched", bead="x-1", job="", attempt=None, n=3, seconds=1.23456, ok=True, error=ValueError(HOSTILE))
    log.warning("odd", what=Colour.red)
    log.debug("step")
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(json.loads, lines(capsys, LogFormat.json))
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "event": "dispatched",
        "bead": "x-1",
        "n": 3,
        "seconds": 1.235,
        "ok": True,
        "error": 'a[2J b "c" = \\d',
    }
    assert (second["level"], second["what"]) == ("warning", "red")


def test_key_value_lines(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = lines(capsys, LogFormat.keyvalue)
    stamp, _, rest = first.partition(" ")
    assert stamp.startswith("time=20")
    assert stamp.endswith("Z")
    assert rest == r'level=info event=dispatched bead=x-1 n=3 seconds=1.235 ok=true error="a[2J b \"c\" = \\d"'
    assert second.endswith("level=warning event=odd what=red")


def test_text_lines(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = lines(capsys, LogFormat.text)
    assert first[8:].startswith(" dispatched bead=x-1 n=3")
    assert second[8:] == " warning: odd what=red"
    assert all(line.isprintable() for line in (first, second))


def test_only_verbose_shows_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines(capsys, LogFormat.text)) == 2
    assert len(lines(capsys, LogFormat.text, verbose=True)) == 3


def test_a_value_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogFormat.keyvalue, verbose=False)
    log.error("big", detail="x" * 1_000_000)
    assert len(capsys.readouterr().err) < 700
