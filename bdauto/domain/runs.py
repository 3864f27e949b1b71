"""A bead's history as it stands on the bead: one run for each time that it was dispatched.

The dated notes tell the runs apart. The metadata is the record: it fills in what a lost or overwritten note leaves out,
and where the two contradict each other it is believed.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from bdauto.domain.bead import Bead
from bdauto.domain.notes import CLAIM_NOTE, FINISH_NOTE, JOB_NOTE
from bdauto.domain.results import Recorded, Result, checked_cost, checked_count, recorded

_TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
_CLAIM = re.compile(re.escape(CLAIM_NOTE) + _TIME)
_JOB = re.compile(re.escape(JOB_NOTE) + r"([A-Za-z0-9._-]{1,100})")
_FINISH = re.compile(
    re.escape(FINISH_NOTE) + r"([A-Za-z0-9._-]{1,100}) (completed|failed|timeout|error|lost)"
    r"(?: in (?:(\d{1,5})h)?(?:(\d{1,2})m)?(?:(\d{1,2})s)?)?(?:, \$(\d{1,6}\.\d{2,4}))? at " + _TIME + r"(?:: (.*))?"
)
_RELEASED = re.compile(r"reaper: claimed .* — released")


class Run(msgspec.Struct, kw_only=True):
    """One dispatch of a bead: the claim, the job, and its end as far as it is known."""

    claimed_at: datetime | None = None
    job: str = ""
    result: Result | None = None
    ended_at: datetime | None = None
    seconds: int | None = None
    cost_usd: float | None = None
    words: str = ""


class History(msgspec.Struct, frozen=True):
    """A bead with its runs, the oldest first, and the number of them even where some are not known any more.

    `waited` is how many seconds the bead waited for the last of them.
    """

    bead: Bead
    runs: Sequence[Run]
    attempts: int
    waited: int | None

    @property
    def last(self) -> Run | None:
        """The last run."""
        return self.runs[-1] if self.runs else None

    @property
    def closed_at(self) -> datetime | None:
        """When the bead was closed. None if it is not closed or was never dispatched."""
        return self.bead.closed_at if self.bead.status == "closed" and self.runs else None

    @property
    def blocked_at(self) -> datetime | None:
        """Since when the bead is blocked: since its last run ended, else since its last change. None if it is not."""
        if self.bead.status != "blocked":
            return None
        return (self.last and self.last.ended_at) or self.bead.updated_at

    def ended_at(self, run: Run) -> datetime | None:
        """When a run ended: as recorded, else for the last run of a closed bead when the bead was closed."""
        return run.ended_at or (self.closed_at if run is self.last else None)

    def seconds(self, run: Run) -> int | None:
        """How long a run took: as recorded, else where no end is recorded from the claim to the closing of the bead."""
        ended_at = self.ended_at(run)
        if run.ended_at or ended_at is None or run.claimed_at is None:
            return run.seconds
        return max(round((ended_at - run.claimed_at).total_seconds()), 0)

    def succeeded(self, run: Run) -> bool:
        """Whether this run closed the bead."""
        return run is self.last and self.closed_at is not None


def history_of(bead: Bead) -> History:
    """Read a bead's history from its notes and its metadata."""
    known = recorded(bead)
    runs = _runs(bead, known)
    attempts = max(len(runs), known.runs)
    return History(bead, runs, attempts, checked_count((bead.metadata or {}).get("bdauto.waited")))


def dispatched_for(bead: Bead, assignee: str) -> bool:
    """Whether the bead was claimed from this assignee's queue, even if it is somebody else's by now."""
    return bool((bead.metadata or {}).get("bdauto.assignee", bead.assignee) == assignee)


def _runs(bead: Bead, known: Recorded) -> list[Run]:
    runs: list[Run] = []
    for line in _lines(bead.notes):
        _read(line, runs)
    claimed_at = bead.claimed_at
    if claimed_at and all(run.claimed_at != claimed_at for run in runs):
        runs.append(Run(claimed_at=claimed_at, job=bead.job))
    if known.ended_at:
        _settle(known, known.ended_at, runs)
    return runs


def _lines(notes: str) -> Iterator[str]:
    if CLAIM_NOTE in notes or FINISH_NOTE in notes:
        yield from notes.split("\n")


def _read(line: str, runs: list[Run]) -> None:
    """Take one line of the notes into the runs so far."""
    if match := _CLAIM.fullmatch(line):
        moment = _moment(match[1])
        runs += [Run(claimed_at=moment)] if moment else []
    elif match := _JOB.fullmatch(line):
        if runs and runs[-1].job in ("", match[1]):
            runs[-1].job = match[1]
    elif match := _FINISH.fullmatch(line):
        _finish(match, runs)
    elif runs and not runs[-1].job and _RELEASED.match(line):
        runs.pop()


def _finish(match: re.Match[str], runs: list[Run]) -> None:
    ended_at = _moment(match[7])
    if ended_at is None:
        return
    run = next((run for run in reversed(runs) if run.job == match[1]), None)
    if run is None:
        run = runs[-1] if runs and not runs[-1].job else Run()
        if not runs or run is not runs[-1]:
            runs.append(run)
    run.job, run.result, run.ended_at, run.words = match[1], Result(match[2]), ended_at, match[8] or ""
    hours, minutes, seconds = (int(part or 0) for part in match.group(3, 4, 5))
    run.seconds = hours * 3600 + minutes * 60 + seconds if any(match.group(3, 4, 5)) else None
    run.cost_usd = checked_cost(match[6])


def _settle(known: Recorded, ended_at: datetime, runs: list[Run]) -> None:
    """Let the metadata complete the runs: the last end if no note tells it, and what the notes miss of the sums."""
    last = next((run for run in runs if run.ended_at == ended_at), None)
    if last is None:
        unended = (run for run in reversed(runs) if run.ended_at is None)
        last = next((run for run in unended if run.claimed_at and run.claimed_at <= ended_at), None)
        if last is None:
            last = Run()
            runs.append(last)
        last.ended_at, last.result = ended_at, known.result or Result.lost
        runs.sort(key=lambda run: run.claimed_at or run.ended_at or ended_at)
    place = runs.index(last)
    seconds = _balanced(known.seconds, [run.seconds for run in runs], place)
    costs = _balanced(known.cost_usd, [run.cost_usd for run in runs], place)
    for run, took, cost in zip(runs, seconds, costs, strict=True):
        run.seconds = None if took is None else int(took)
        run.cost_usd = cost


def _balanced(total: float | None, parts: Sequence[float | None], last: int) -> list[float | None]:
    """Return parts that add up to the total: the last run takes what the others leave.

    Without a total no part is known. Parts that exceed the total are not believed.
    """
    if total is None:
        return [None] * len(parts)
    others: list[float | None] = [None if place == last else part for place, part in enumerate(parts)]
    rest = round(total - sum(part or 0 for part in others), 4)
    if rest < 0:
        others, rest = [None] * len(parts), total
    others[last] = rest if rest or parts[last] is not None else None
    return others


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
