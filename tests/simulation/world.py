"""What is true in a history, whoever knows it: the rows of the tracker, the attempts, the jobs, and what happened."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bdauto.domain.bead import Bead
from bdauto.domain.settings import DispatchSettings, OnStall, ReapSettings
from tests.simulation.plan import MINUTE, START, Plan
from tests.simulation.scheduler import Scheduler

ASSIGNEE = "agent"


@dataclass
class Job:
    """A job of the agent service. `attempt` is "" for a person's click.

    `alive` is what is true of its process, `state` what the service says, if it still knows the job.
    """

    id: str
    bead: str
    attempt: str
    begun: float
    state: str = "queued"
    alive: bool = True
    known: bool = True
    noted: bool = False
    ended: float = 0.0
    host: str = ""
    checked: bool = False
    check_failed: bool = False
    sick: str = ""
    """What the service answers about this job alone instead of its state, "" for its state."""


@dataclass
class Attempt:
    """A claim that was written. `answer` is what its dispatcher heard of its POST, `ended` who ended it and how."""

    id: str
    bead: str
    process: str
    at: float
    before: Bead
    posts: int = 0
    answer: str = ""
    ended: str = ""
    recorded: float | None = None
    heard: str = ""
    """The status of the answer to its POST."""
    noted_again: bool = False
    restored: bool = False
    """Whether its claim was written back: the bead was open in between."""
    touched: int | None = None
    """The row's version with the first note on the bead since that bdauto did not write."""
    jobs: list[Job] = field(default_factory=list)


@dataclass
class Row:
    """A bead in the tracker. `foreign` is the version of the last change that bdauto did not make."""

    bead: Bead
    blockers: tuple[str, ...] = ()
    versions: list[Bead] = field(default_factory=list)
    changed_at: float = 0.0
    fit_since: float | None = None
    reverted: bool = False
    place: datetime | None = None
    """Since when it waits by the table of places, None where that is not told apart."""
    claimed_place: datetime | None = None
    """Its place at its last claim. What people do with it while its run goes on does not change that."""
    lost_place: datetime | None = None
    """Its place before it was charged for a death."""
    given_back: datetime | None = None
    unfit_since: float | None = None
    """Since when it must not be dispatched, whatever its status and its backoff."""

    def put(self, bead: Bead) -> None:
        """Replace the bead."""
        self.bead = bead
        self.versions.append(bead)

    def as_version(self, bead: Bead) -> Bead:
        """Return the version of the row that was read as this bead, which may have its dependencies besides."""
        if bead.dependencies is None:
            return bead
        plain = msgspec.structs.replace(bead, dependencies=None)
        return next(version for version in reversed(self.versions) if version == plain)

    @property
    def version(self) -> int:
        """The number of the last change."""
        return len(self.versions) - 1

    def version_of(self, bead: Bead) -> int:
        """Return the version that somebody has read."""
        return next(n for n in range(len(self.versions) - 1, -1, -1) if self.versions[n] is bead)


@dataclass
class World:
    """One history under way."""

    plan: Plan
    scheduler: Scheduler
    rows: dict[str, Row] = field(default_factory=dict)
    store: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, str]] = field(default_factory=list)
    """What bd has recorded of changes of status: see `record`."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    spells: set[str] = field(default_factory=set)
    lines: list[tuple[float, str, str, tuple[object, ...]]] = field(default_factory=list)
    violation: tuple[str, str] | None = None
    quiet: bool = False
    rates: Mapping[str, float] = field(default_factory=dict)
    """How probable each fault is at each point where it can happen, now."""
    revision: int = 0
    """The number of writes to the tracker."""
    paused_at: float | None = None
    deaths: list[tuple[str, str, datetime]] = field(default_factory=list)
    """Early deaths: attempt, bead, time of the claim."""
    last_life: datetime = START - timedelta(days=1)
    """The time of the latest claim whose agent has shown life."""
    openings: int = 0
    """How often in a row the breaker has opened."""
    resumed_at: float | None = None
    """When a person last closed the breaker."""
    given_back: set[str] = field(default_factory=set)
    """The attempts whose charge was given back."""
    counts: dict[str, int] = field(default_factory=dict)
    faults: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    """How often each fault happened at each step."""
    points: set[tuple[str, str]] = field(default_factory=set)
    """The steps that were taken, with each fault that is possible there."""
    logged: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """What each task has logged of beads in its cycle, where somebody listens: event and bead."""
    waiting: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    """What happens at the next event of a name."""

    def record(self, bead_id: str, actor: str, status: str) -> None:
        """Record who gave a bead this status, as a Dolt server does."""
        at = f"{self.now:%Y-%m-%dT%H:%M:%SZ}"
        plain = {"issue_id": bead_id, "actor": actor, "event_type": "status_changed", "created_at": at}
        self.events.append(plain | {"new_value": f'{{"status":"{status}"}}'})

    def __post_init__(self) -> None:
        plan = self.plan
        self.rates = plan.rates
        common: dict[str, Any] = {"max_attempts": plan.max_attempts, "trip_after": plan.trip_after}
        common["grace"] = timedelta(seconds=plan.grace)
        self.dispatch_settings = DispatchSettings(max_beads=plan.max_beads, max_per_day=plan.max_per_day, **common)
        on_stall = OnStall.requeue if plan.requeue else OnStall.block
        self.reap_settings = ReapSettings(
            on_stall=on_stall, max_reap=plan.max_reap, threshold=timedelta(seconds=plan.threshold), **common
        )

    @property
    def now(self) -> datetime:
        """The true time, which is the database server's."""
        return START + timedelta(seconds=self.scheduler.now)

    def tell(self, who: str, words: str, *values: object) -> None:
        """Note what happened; `words` has a {} for each value."""
        self.lines.append((self.scheduler.now, who, words, values))

    def count(self, name: str) -> None:
        """Count what the statistics show."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def moment(self, name: str) -> None:
        """Say that an event comes, for those who wait for it: they act at about the same time."""
        for act in self.waiting.pop(name, []):
            act()

    def violate(self, kind: str, words: str) -> None:
        """End the history: a promise is broken. Only the first is kept."""
        if self.violation is None:
            self.violation = kind, words
            self.tell("checker", "VIOLATION {}: {}", kind, words)
            self.scheduler.stopped = True

    def passed(self, bead: str) -> bool:
        """Return whether a job of a bead has passed its check."""
        jobs = (job for job in self.jobs.values() if job.bead == bead and job.checked)
        return any(job.state == "completed" and not job.check_failed for job in jobs)

    def closer(self, bead: str) -> str:
        """Return who closed a bead last, "" if nobody has."""
        rows = [row for row in self.events if row["issue_id"] == bead and "closed" in row["new_value"]]
        return rows[-1]["actor"] if rows else ""

    def live_jobs(self, bead: str) -> list[Job]:
        """Return the jobs of a bead whose process runs."""
        return [job for job in self.jobs.values() if job.alive and job.bead == bead]

    def story(self) -> str:
        """Write the history line by line."""
        return "\n".join(f"{_clock(at)}  {who:<14} {words.format(*values)}" for at, who, words, values in self.lines)


def _clock(seconds: float) -> str:
    hours, rest = divmod(seconds, 60 * MINUTE)
    minutes, rest = divmod(rest, MINUTE)
    return f"{hours:02.0f}:{minutes:02.0f}:{rest:06.3f}"


def shown(values: Mapping[str, Any]) -> str:
    """Write metadata in short."""
    return " ".join(f"{key.removeprefix('bdauto.')}={value}" for key, value in values.items())
