"""The table of answers to the POST in docs/decisions.md: each answer goes through a whole dispatch cycle.

The tracker and BeadBoard are the fakes of the tests. Only the words of the first column are written by hand.
"""

from collections.abc import Callable
from datetime import timedelta

import httpx
import msgspec

from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate
from bdauto.domain.outcome import Report
from bdauto.domain.settings import DispatchSettings
from scripts.markdown import table
from tests.support.fakes import NOW, Board, Clock, Reply, Tracker, row


class Case(msgspec.Struct, frozen=True):
    """Beads that are posted, and the answer to each POST. `attempts` and `error` are of earlier dispatches."""

    words: str
    reply: Callable[[], Reply]
    beads: int = 1
    attempts: int = 0
    age: timedelta = timedelta(hours=1)
    cycles: int = 1
    error: str = ""


def _http(status: int, **body: str) -> Callable[[], Reply]:
    return lambda: httpx.Response(status, json=body)


def _failing(error: Callable[[str], Exception]) -> Callable[[], Reply]:
    return lambda: error("")


NOT_FOUND = _http(400, error="Bead not found")
REFUSED = _http(400, error="no")
CASES = [
    Case("200 with a job id", _http(200, job_id="j-1")),
    Case("409", _http(409)),
    Case("400 with `not found`, for a bead created less than two minutes ago", NOT_FOUND, age=timedelta(seconds=119)),
    Case("400", REFUSED),
    Case("400, the `--max-attempts`th time", REFUSED, attempts=2),
    Case("400 for three beads in a row in one cycle", REFUSED, beads=3),
    *(Case(name, _http(int(name))) for name in ("302", "401", "403", "404", "429", "500")),
    Case("one of these, where the last dispatch of the bead failed, too", _http(500), error="HTTP 500"),
    *(Case(name, _http(int(name))) for name in ("502", "503", "507")),
    Case("no connection", _failing(httpx.ConnectError)),
    Case("502, 503 or no connection for three beads in a row in one cycle", _http(503), beads=3),
    Case("200 without a job id", _http(200)),
    *(Case(name, _http(int(name))) for name in ("202", "504")),
    Case("a time-out or a broken connection after sending", _failing(httpx.ReadTimeout)),
    Case("any of the last four for three beads in a row, in any cycles", _http(504), cycles=3),
]


def _cycles(case: Case, count: int, later: Reply | None = None) -> tuple[Tracker, Board, list[Report]]:
    """Run the cycles of a case on `count` beads. After its own replies comes the later one."""
    clock, since = Clock(), NOW - case.age
    own = {"bdauto.attempts": case.attempts, "bdauto.error": case.error}
    beads = [row(f"x-{n}", created_at=since, updated_at=since, metadata=own) for n in range(1, count + 1)]
    board = Board([*(case.reply() for _ in range(case.beads * case.cycles)), *([later] if later else [])])
    tracker, reports = Tracker(clock, *beads), []
    for _ in range(case.cycles):
        settings = DispatchSettings(max_beads=1 if case.cycles > 1 else count)
        runtime = clock.runtime(len(board.posts))
        services = board.services()
        gate = Gate(tracker, services, settings, clock.now)
        reports.append(Dispatcher(tracker, tracker, services, settings, runtime, gate).cycle())
    return tracker, board, reports


def _answer(case: Case) -> list[str]:
    count = case.beads * case.cycles
    tracker, _, reports = _cycles(case, count)
    found = tracker.bead("x-1")
    _, board, others = _cycles(case, count + 1, httpx.Response(200, json={"job_id": "j-9"}))
    goes_on = case.cycles == 1 and len(board.posts) > count
    status = str(reports[-1].exit_code)
    if goes_on and others[-1].exit_code != reports[-1].exit_code:
        status += f"; {others[-1].exit_code} where another bead was dispatched"
    return [
        case.words,
        f"`{reports[-1].beads[0].outcome}`",
        found.status.replace("_", " ") + (", with a backoff" if found.record.retry_at else ""),
        "charged" if found.record.attempts > case.attempts else "not charged",
        "goes on" if goes_on else "stops",
        status,
    ]


def answers() -> str:
    """Return the table of answers to the POST, with those that come to the same in one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for case in CASES:
        words, *rest = _answer(case)
        plain = case.beads == case.cycles == 1 and not case.attempts and not case.error
        rows.setdefault((*rest, "" if plain else words), []).append(words)
    head = "| answer | outcome | bead | attempt | the cycle | exit |"
    return table(head, ([", ".join(words), *key[:-1]] for key, words in rows.items()))
