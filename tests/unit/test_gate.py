"""Who holds a bead back first, at each step of a cycle."""

from collections.abc import Callable

import httpx
import pytest

from bdauto.controllers import gate
from bdauto.controllers.gate import Gate, Known, Step
from bdauto.domain.active_hours import parse_active_hours
from bdauto.domain.pause import KEY, Pause
from bdauto.domain.record import Record, metadata_of
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, Board, Clock, Tracker, row

WHO = ("stop", "life", "hours", "day", "room", "posts", "pause")
ORDER = {
    Step.start: ["life", "hours", "room", "pause"],
    Step.queue: ["stop", "pause"],
    Step.first: ["hours", "day", "room"],
    Step.further: ["stop", "posts", "pause"],
    Step.claim: ["hours", "day"],
    Step.post: ["stop", "pause"],
}


def held(step: Step, who: set[str]) -> str | None:
    """Return who holds a bead back at a step, if all of these would."""
    asked: list[str] = []

    def ask(name: str) -> Callable[[], bool]:
        return lambda: asked.append(name) or name in who  # type: ignore[func-returns-value]

    waiting = ask("life")
    known = Known(ask("stop"), lambda: "waiting" if waiting() else "", ask("posts"), lambda: True)
    settings = DispatchSettings(
        active_hours=parse_active_hours("01:00-02:00 UTC") if "hours" in who else None,
        max_per_day=1 if "day" in who else None,
    )
    record = Record(attempt="w1", claimed_at=NOW)
    tracker = Tracker(Clock(), row("x-1", status="in_progress", updated_at=NOW, metadata=metadata_of(record)))
    board = Board(status=httpx.Response(200, json={"busy": "room" in who}))
    here = Gate(tracker, board.services(), settings, tracker.clock.now, known)
    if "pause" in who:
        tracker.store[KEY] = Pause("deploy").encode()
        here.switch.hold()  # at the start only a pause that is known is asked about
    hold = here.hold(step)
    if hold is None:
        return None
    words = {"waiting": "life", "outside": "hours", "1": "day", "the": "room", "paused:": "pause"}
    return words.get(hold.detail.split(" ")[0]) or asked[-1]


@pytest.mark.parametrize("step", Step)
def test_each_step_asks_in_one_order(step: Step) -> None:
    who, found = set(WHO), []
    while name := held(step, who):
        found.append(name)
        who.remove(name)
    assert found == ORDER[step]
    assert found == [name for name in WHO if name in found], "it is the same order at each step"


@pytest.mark.parametrize("step", Step)
def test_the_documented_table_says_who_is_asked_when(step: Step) -> None:
    assert gate.__doc__
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in gate.__doc__.splitlines() if "|" in line]
    column = lines[0].index(step.name)
    marked = [cells[0] for cells in lines[2:] if cells[column] and "started on this machine" not in cells[0]]
    words = {"stop": "stop", "life": "life", "hours": "hours", "day": "limits", "room": "room", "posts": "POSTs"}
    assert [next((name for name in words if words[name] in who), "pause") for who in marked] == ORDER[step]
