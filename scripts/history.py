"""A made-up history of a dispatcher's weeks, as believable as figures need it: for looking at reports, not for proofs.

    .venv/bin/python -m scripts.history --weeks 2 --beads 900 --bd bd --folder ~/scratch
    .venv/bin/python -m scripts.history > history.jsonl

It is written in the words that bdauto itself uses, and imported with `bd import`, so any bd can hold it. The folder is
one that `bd init` has made. A bead is made up with its id, so a second history of the same length and prefix replaces
the first.
"""

import argparse
import heapq
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bdauto.domain.notes import AGENT_SIGN, CLAIM_NOTE, JOB_NOTE
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.results import ended_run, finish_note
from bdauto.domain.times import format_time

VERBS = (
    "Fix",
    "Speed up",
    "Rewrite",
    "Document",
    "Test",
    "Tidy up",
    "Translate",
    "Trace",
    "Retry",
    "Cache",
    "Validate",
)
OBJECTS = (
    "the login redirect", "the CSV export", "the upload form", "the nightly backup", "the billing webhook",
    "the search index", "the onboarding pages", "the rate limiter", "the settings page", "the release notes",
    "the mail templates", "the health check", "the invoice numbers", "the password reset", "the image resizer",
    "the audit log", "the feature flags", "the date picker", "the API client", "the Helm chart",
)  # fmt: skip
TYPES = {"task": 5, "bug": 4, "feature": 2, "chore": 1}
LABELS = ("api", "web", "infra", "docs", "tests")
CREATORS = {"ann": 5, "bob": 3, "mira": 2, "triage-bot": 4}
PRIORITIES = {0: 1, 1: 3, 2: 6, 3: 3}
FAILURES: dict[Any, tuple[str, ...]] = {
    Result.failed: ("API Error: 529 overloaded", "Credit balance is too low", "error: patch does not apply"),
    Result.error: ("git clone failed (128): could not read from remote repository",),
    Result.timeout: ("",),
    Result.lost: ("",),
    "blocked": ("Which of the two time zones is meant?", "I need access to the staging database."),
    Result.completed: (
        "I could not reproduce it; please add the steps.",
        "The tests need a database that is not here.",
    ),
}
OUTCOMES = {"closed": 86, "blocked": 4, Result.failed: 3, Result.timeout: 3, Result.lost: 2, Result.completed: 2}
NO_KEY = "Invalid API key · Please run /login"


@dataclass
class _Issue:
    """A bead in the making, as `bd import` takes it."""

    row: dict[str, Any]
    armed_at: datetime
    notes: list[str] = field(default_factory=list)
    record: Record = field(default_factory=Record)

    def change(self, moment: datetime, note: str = "", **fields: Any) -> None:
        self.row |= fields | {"updated_at": format_time(moment)}
        self.notes += [note] if note else []

    def export(self) -> dict[str, Any]:
        return self.row | {"notes": "\n".join(self.notes), "metadata": metadata_of(self.record)}


@dataclass
class FakeHistory:
    """Makes up `beads` beads over the `weeks` weeks before `now`. The same seed makes the same history."""

    now: datetime
    weeks: float = 1
    beads: int = 500
    seed: int = 1
    prefix: str = "web"
    slots: int = 1

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.start = self.now - timedelta(weeks=self.weeks)
        outage = self.start + (self.now - self.start) * 0.6
        self.outage = outage.replace(hour=14, minute=10, second=0), outage.replace(hour=16, minute=40, second=0)

    def issues(self) -> Iterator[dict[str, Any]]:
        """Yield the beads as `bd export` writes them, one after the other."""
        arrivals = sorted(self._moment() for _ in range(self.beads))
        made = [self._issue(number, moment) for number, moment in enumerate(arrivals)]
        self._work(made)
        yield from (issue.export() for issue in made)

    def jsonl(self) -> str:
        """Return the beads as a file for `bd import`."""
        return "".join(f"{json.dumps(issue)}\n" for issue in self.issues())

    def _moment(self) -> datetime:
        """Return a moment at which somebody may hand over work: by day rather than by night, seldom at weekends."""
        while True:
            moment = self.start + (self.now - self.start) * self.rng.random()
            weight = 1.0 if 8 <= moment.hour < 19 else 0.12
            if self.rng.random() < weight * (0.25 if moment.weekday() > 4 else 1):
                return moment.replace(microsecond=0)

    def _issue(self, number: int, moment: datetime) -> _Issue:
        pick, rng = self._pick, self.rng
        row = {
            "id": f"{self.prefix}-{number:04x}",
            "title": f"{rng.choice(VERBS)} {rng.choice(OBJECTS)}",
            "acceptance_criteria": "The tests pass.",
            "status": "open",
            "priority": pick(PRIORITIES),
            "issue_type": pick(TYPES),
            "assignee": "agent",
            "created_by": pick(CREATORS),
            "created_at": format_time(moment),
            "updated_at": format_time(moment),
            "labels": sorted(rng.sample(LABELS, rng.choice((0, 1, 1, 1, 2)))),
        }
        if rng.random() < 0.01:
            row["acceptance_criteria"] = ""
        return _Issue(row, moment)

    def _pick(self, weights: dict[Any, int]) -> Any:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def _work(self, made: list[_Issue]) -> None:
        """Let the dispatcher take the most urgent bead whenever a slot is free."""
        arriving = [(issue.armed_at, number, issue) for number, issue in enumerate(made)]
        heapq.heapify(arriving)
        free = [self.start] * self.slots
        queue: list[tuple[int, datetime, int, _Issue]] = []
        while arriving or queue:
            moment = heapq.heappop(free)
            if not queue:
                moment = max(moment, arriving[0][0])
            while arriving and arriving[0][0] <= moment:
                armed, number, issue = heapq.heappop(arriving)
                if issue.row["acceptance_criteria"]:
                    heapq.heappush(queue, (issue.row["priority"], armed, number, issue))
            if not queue:
                heapq.heappush(free, moment)
                if not arriving:
                    return
                continue
            _, _, number, issue = heapq.heappop(queue)
            claimed = max(moment, issue.armed_at) + timedelta(seconds=self.rng.randint(2, 15))
            if claimed >= self.now:
                return
            ended, again = self._run(issue, claimed)
            heapq.heappush(free, ended)
            if again and again < self.now:
                issue.armed_at = again
                heapq.heappush(arriving, (again, number, issue))

    def _run(self, issue: _Issue, claimed: datetime) -> tuple[datetime, datetime | None]:
        """Run a bead once. Return when its slot is free and when the bead is in the queue again, or None."""
        rng = self.rng
        if rng.random() < 0.012:
            return self._refuse(issue, claimed)
        job = f"{rng.getrandbits(48):012x}"
        self._claim(issue, claimed, job)
        if self.outage[0] <= claimed < self.outage[1]:
            outcome, seconds, words = Result.failed, rng.randint(4, 11), NO_KEY
        else:
            outcome, seconds = self._pick(OUTCOMES), min(int(rng.lognormvariate(5.6, 0.8)) + 20, 900)
            words = rng.choice(FAILURES.get(outcome, ("Done.",)))
            seconds = 900 if outcome is Result.timeout else seconds
        ended = claimed + timedelta(seconds=seconds + 1)
        if ended >= self.now:
            return self.now, None
        return self._end(issue, job, outcome, seconds, ended, words)

    def _refuse(self, issue: _Issue, moment: datetime) -> tuple[datetime, None]:
        error = "HTTP 400: Bead is missing a description."
        note = f"dispatch failed {error} — quarantined after 3 attempts; fix the bead, then re-arm it"
        issue.record = Record(assignee="agent", quarantined=error)
        issue.change(moment, note, status="blocked")
        return moment, None

    def _claim(self, issue: _Issue, claimed: datetime, job: str) -> None:
        record = issue.record.change(
            assignee="agent",
            attempt=f"w{self.rng.getrandbits(64):016x}",
            attempts=issue.record.attempts + 1,
            claimed_at=claimed.replace(microsecond=0),
            job=job,
            quarantined="",
            waited=int((claimed - issue.armed_at).total_seconds()),
        )
        issue.record = record.with_runs(issue.record.all_runs)
        issue.change(claimed, f"{CLAIM_NOTE}{format_time(claimed)}", status="in_progress")
        issue.change(claimed + timedelta(seconds=1), f"{JOB_NOTE}{job}")
        issue.row.setdefault("started_at", format_time(claimed))

    def _end(
        self, issue: _Issue, job: str, outcome: Any, seconds: int, ended: datetime, words: str
    ) -> tuple[datetime, datetime | None]:
        rng = self.rng
        if words != NO_KEY:
            issue.change(ended, f"{AGENT_SIGN} {job}")
        known = outcome not in (Result.timeout, Result.lost, Result.error)
        result = outcome if isinstance(outcome, Result) else Result.completed
        end = Run(
            result=result,
            ended_at=ended,
            seconds=None if result is Result.lost else seconds,
            cost_usd=round(seconds * rng.uniform(0.0008, 0.002), 4) if known else None,
            turns=max(seconds // 20, 1) if known else None,
            words=words,
        )
        assert issue.record.current
        issue.record = issue.record.with_end(
            ended_run(issue.record.current, end, "closed" if outcome == "closed" else "")
        )
        issue.change(ended, finish_note(job, end, words=outcome != "closed"))
        if outcome == "closed":
            issue.change(ended, status="closed", closed_at=format_time(ended), close_reason=words)
        elif outcome == "blocked":
            issue.change(ended, "blocked: it needs a decision", status="blocked")
        elif words == NO_KEY and issue.record.attempts < 3:
            issue.change(ended, status="open")
            return ended, ended + timedelta(minutes=rng.uniform(2, 40) * issue.record.attempts)
        else:
            return ended, self._block(issue, result, job, ended)
        return ended, None

    def _block(self, issue: _Issue, result: Result, job: str, ended: datetime) -> datetime | None:
        """The reaper blocks the bead. In most cases somebody re-arms it some working hours later."""
        evidence = f"job {job} is {result} but the bead is still in progress"
        if result is Result.lost:
            evidence = "no progress for 31m (threshold 30m)"
        issue.record = issue.record.blocked(evidence).change(attempts=0, claimed_at=None, job="")
        issue.change(ended, f"reaper: {evidence} — blocking", status="blocked")
        again = ended + timedelta(hours=self.rng.uniform(0.5, 30))
        if self.rng.random() < 0.35 or again >= self.now:
            return None
        issue.change(again, status="open")
        return again


def weeks_until(now: datetime | None = None, **options: Any) -> FakeHistory:
    """Return a history that ends now."""
    return FakeHistory(now=(now or datetime.now(UTC)).replace(microsecond=0), **options)


def main() -> None:
    """Print the history, or import it."""
    parser = argparse.ArgumentParser(description="Make up a history of beads, for `bdauto report`.")
    parser.add_argument("--weeks", type=float, default=1)
    parser.add_argument("--beads", type=int, default=500)
    parser.add_argument("--slots", type=int, default=1, help="beads that are worked on at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", default="web", help="of the ids: what `bd init --prefix` was given")
    parser.add_argument("--bd", default="bd", metavar="PATH")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="import there, instead of printing")
    told = parser.parse_args()
    options = {name: getattr(told, name) for name in ("weeks", "beads", "seed", "prefix", "slots")}
    text = weeks_until(**options).jsonl()
    if told.folder is None:
        sys.stdout.write(text)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(text)
        file.flush()
        subprocess.run([told.bd, "import", file.name], cwd=told.folder, check=True)


if __name__ == "__main__":
    main()
