"""bdauto's own metadata on a bead, read once as a `Record`, and written as the difference from what is there.

Each field is a flat key of its own, because a database that merges cell by cell merges each key by itself, and other
tools have keys beside them. Anybody can write metadata: a value that makes no sense is read as absent.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from bdauto.common.sanitize import clean
from bdauto.domain.old_runs import OLD_KEYS, has_old_runs, old_run
from bdauto.domain.record_values import (
    JOB_PATTERN,
    checked_count,
    read_count,
    read_id,
    read_text,
    read_time,
)
from bdauto.domain.times import check_time, format_time

PREFIX = "bdauto."
ATTEMPT, CLAIMED_AT = "bdauto.attempt", "bdauto.claimed_at"
"""The keys that SQL looks at: see `Record`."""
PLACE, KEPT = "bdauto.place", "kept"
"""The key by which bd lists the beads that keep their place in the queue, and its only value: see `Record`."""
ARMED_AT, RELEASED_AT = "bdauto.armed_at", "bdauto.released_at"
MARK = "bdauto.write"
"""Metadata key with the unique id of the last change: it tells an applied change from one that was never made."""
PENDING_NOTE = "bdauto.claim_note"
"""Metadata key: the length of the notes at the claim, and `written`, or the claim's note until that is written."""

KEPT_RUNS = 20
"""Runs that a bead's record keeps, the last ones. Each takes about 400 bytes."""
WORDS_LIMIT = 200
"""Characters of an agent's last line that are kept."""
CANCELLED = "cancelled by "
"""The start of `quarantined` on a bead whose job a person has cancelled. The person's name follows."""
DUE = "due"
"""The value of `Record.check`."""
RUNNING = "running"
"""The result of a bead from its claim until the ends of all its runs are recorded."""


class Result(StrEnum):
    """How a job ended. `stopped`: somebody ended it. `lost`: it is over, and nobody knows how."""

    completed = "completed"
    failed = "failed"
    timeout = "timeout"
    error = "error"
    stopped = "stopped"
    lost = "lost"


RESULTS = {result.value: result for result in Result}

_Id = Annotated[str, msgspec.Meta(pattern=JOB_PATTERN)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]
_Cost = Annotated[float, msgspec.Meta(ge=0, lt=1e6)]
_Words = Annotated[str, msgspec.Meta(max_length=WORDS_LIMIT)]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch of a bead: the claim, the job, and the end as far as it is known. What is unknown is None.

    The end of a job is a run, too: what a runner knows of it, with a result and a time. `domain.results` puts it
    together with the claim. `attempt` is "" there if the runner does not know it, and in no record.
    `lane` is absent for the default lane. `runner` is the host of a local agent, `jobs_folder` the id of its jobs
    folder. `agent` is the name of the agent's command line, such as `claude`. `cost_usd` is in US dollars, `why` a word
    of `domain.agent_end.Why`, `session` the agent's last one, `words` the last line that it wrote. `checked`: all its
    checks have passed. `landed`: its work has landed since. `reset_at` is when the limit ends that it ran into.
    `exit_code` is the exit status of an agent that failed, negative for a signal. `status` is the bead's status when
    the end was recorded: as its agent had left it, or `closed` if bdauto closed it then. UNSET: not known.
    """

    attempt: _Id = ""
    claimed_at: _Time | None = msgspec.field(name="claimed", default=None)
    job: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,100}\Z")] = ""
    runner: _Words | None = None
    jobs_folder: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,100}\Z")] = ""
    agent: _Words | None = None
    ended_at: _Time | None = msgspec.field(name="ended", default=None)
    seconds: _Count | None = None
    result: Result | None = None
    why: _Words | None = None
    cost_usd: _Cost | None = msgspec.field(name="cost", default=None)
    tokens: _Count | None = None
    turns: _Count | None = None
    session: _Words | None = None
    lane: _Words | UnsetType = UNSET
    words: _Words = ""
    checked: bool = False
    landed: bool | UnsetType = UNSET
    status: _Words | UnsetType = UNSET
    exit_code: Annotated[int, msgspec.Meta(ge=-64, le=255)] | UnsetType = msgspec.field(name="exit", default=UNSET)
    reset_at: _Time | None = msgspec.field(name="resets", default=None)

    @property
    def local(self) -> bool:
        """True: an agent command on some machine ran it, not a service."""
        return bool(self.jobs_folder or self.runner)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What bdauto has written on a bead. A field that is absent has its default.

    attempt: the unique id of the current attempt.
    lane: the lane of the current claim, "" for the default one.
    attempts: dispatches charged since the bead was last re-armed.
    check: DUE from a claim whose agent is checked until bdauto has closed the bead, or an attempt without a check
    claims it.
    failed_checks: failed checks and reviews since the bead was last re-armed. They charge no attempt.
    failures, deaths: failed dispatches, and agents that died early, in a row. The backoff grows with both.
    job: the job of the current attempt. jobs_folder: the id of the folder that it is in, "" where a service runs
    it. host: the name of the machine with that folder, for people. ends_by: when the job has ended at the latest.
    error: what the last failed dispatch answered. quarantined: why bdauto blocked the bead.
    pod: the uid of the pod that has taken the attempt, in Kubernetes. No other pod starts an agent for it.
    died: the attempt that is charged for an early death, or for a POST with an unknown outcome.
    noted: the attempt whose lost note was written again.
    unclaimed: a job that was started and could not be recorded, because the claim was gone. The bead is open.
    adopted: the attempt that claims the bead for a job that bdauto did not start.
    given_up: the job that was settled though the agent service called it alive. It no longer keeps the bead.
    armed_at: when the bead began to wait for its current or last claim. retry_at: not dispatched before this.
    place: KEPT on an open bead that waits since armed_at. released_at: when bdauto gave it back with its place.
    waited: seconds that it waited for its last dispatch. assignee: whose queue it was dispatched from.
    result: RUNNING while the end of a run is not recorded, else the last run's result.
    runs: the runs before the current one, and the current one once its end is recorded. The oldest comes first.
    """

    attempt: str = ""
    lane: str = ""
    attempts: int = 0
    check: str = ""
    failed_checks: int = 0
    failures: int = 0
    deaths: int = 0
    job: str = ""
    jobs_folder: str = ""
    host: str = ""
    ends_by: datetime | None = None
    error: str = ""
    quarantined: str = ""
    died: str = ""
    noted: str = ""
    unclaimed: str = ""
    adopted: str = ""
    given_up: str = ""
    pod: str = ""
    claimed_at: datetime | None = None
    armed_at: datetime | None = None
    released_at: datetime | None = None
    place: str = ""
    retry_at: datetime | None = None
    waited: int | None = None
    assignee: str = ""
    result: str = ""
    runs: tuple[Run, ...] = ()

    @property
    def cancelled(self) -> bool:
        """True: a person has cancelled the bead's job, so bdauto asks nobody about it."""
        return self.quarantined.startswith(CANCELLED)

    @property
    def current(self) -> Run | None:
        """The run of the current attempt. None if there is no attempt, or once its end is recorded."""
        if not self.attempt or any(run.attempt == self.attempt for run in self.runs):
            return None
        return Run(
            attempt=self.attempt,
            claimed_at=self.claimed_at,
            job=self.job,
            runner=self.host or None,
            jobs_folder=self.jobs_folder,
            lane=self.lane or UNSET,
        )

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """All known runs with the current one, the oldest first."""
        return (*self.runs, self.current) if self.current else self.runs

    @property
    def unended(self) -> tuple[Run, ...]:
        """The runs whose end is not recorded."""
        return tuple(run for run in self.all_runs if run.ended_at is None)

    def change(self, **fields: Any) -> "Record":
        """Return the record with other values in these fields."""
        return msgspec.structs.replace(self, **fields)

    def with_runs(self, runs: tuple[Run, ...]) -> "Record":
        """Return the record with these runs before the current one, and the result that follows from them."""
        after = self.change(runs=runs[-KEPT_RUNS:])
        last = runs[-1].result if runs else None
        return after.change(result=RUNNING if after.unended else last.value if last else "")

    def with_end(self, ended: Run) -> "Record":
        """Return the record with this ended run, which replaces the run of the same attempt or is added."""
        kept = tuple(ended if run.attempt == ended.attempt else run for run in self.runs)
        return self.with_runs(kept if ended in kept else (*kept, ended))

    def released(self) -> "Record":
        """Return the record of a bead that is open again: nothing is left of its claim, its counters and its errors."""
        kept = ("waited", "assignee", "noted", "quarantined", "unclaimed", "given_up", "check", "failed_checks")
        return Record(**{name: getattr(self, name) for name in kept}).with_runs(self.runs)

    def in_place(self, since: datetime | None) -> "Record":
        """Return the record of an open bead that keeps its place in the queue, having waited since then.

        The caller must write `released_at` too. None: the bead does not keep its place.
        """
        return self.change(armed_at=since, place=KEPT if since else "", released_at=None)

    def blocked(self, why: str) -> "Record":
        """Return the record of a bead that bdauto blocks. Its attempts, times and job stay readable."""
        after = self.change(attempt="", retry_at=None, error="", failures=0, deaths=0).in_place(None)
        return after.change(quarantined=why, adopted="").with_runs(self.runs)


def read_record(metadata: Mapping[str, Any]) -> Record:
    """Read the record in a bead's metadata."""
    own = {name: read(metadata[key]) for name, (key, read) in _FIELDS.items() if key in metadata}
    record = Record(**own) if own else _EMPTY
    old = old_run(own, metadata) if own and not record.runs else None
    if old is None:
        return record
    result = {"result": RESULTS.get(old["result"], Result.lost)} if "result" in old else {}
    return record.change(runs=(Run(**(old | result)),))


def invalid_metadata(metadata: Mapping[str, Any], record: Record) -> tuple[str, ...]:
    """Return the keys whose values are invalid and read as absent."""
    absent = (key for name, (key, _) in _FIELDS.items() if getattr(record, name) == _DEFAULTS[name])
    return tuple(key for key in absent if metadata.get(key) not in (None, "", 0, "0", "[]", []))


def difference(metadata: Mapping[str, Any], after: Record) -> tuple[dict[str, str | int], tuple[str, ...]]:
    """Return what to write into the metadata, and the keys to remove from it, to make this record of it."""
    before, old = read_record(metadata), has_old_runs(metadata)
    put: dict[str, str | int] = {}
    drop = [key for key in OLD_KEYS if key in metadata]
    for name, (key, _) in _FIELDS.items():
        value = getattr(after, name)
        if value == _DEFAULTS[name]:
            drop += [key] if key in metadata else []
        elif value != getattr(before, name) or (name == "runs" and old):
            put[key] = _written(value)
    return put, tuple(drop)


def metadata_of(record: Record) -> dict[str, str | int]:
    """Return the metadata that holds this record and nothing else."""
    return difference({}, record)[0]


def _runs(value: object) -> tuple[Run, ...]:
    """Read a list of runs: JSON as text, as bdauto writes it, or a list, as a bd that parses values stores it."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (ValueError, RecursionError):
            return ()
    return tuple(_believable(value[-KEPT_RUNS:])) if isinstance(value, list) else ()


def _believable(entries: list[object]) -> Iterator[Run]:
    seen = set()
    for entry in entries:
        try:
            run = msgspec.convert(entry, Run)
            for moment in (run.claimed_at, run.ended_at, run.reset_at):
                check_time(moment)
        except (msgspec.ValidationError, OverflowError):
            continue
        if run.attempt and run.attempt not in seen:
            seen.add(run.attempt)
            yield msgspec.structs.replace(run, words=clean(run.words, WORDS_LIMIT))


def _written(value: object) -> str | int:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple):
        return msgspec.json.encode([*map(_in_seconds, value)]).decode()
    assert isinstance(value, str | int)
    return value


def _in_seconds(run: Run) -> Run:
    moments = {"claimed_at": run.claimed_at, "ended_at": run.ended_at, "reset_at": run.reset_at}
    rounded = {name: at and at.astimezone(UTC).replace(microsecond=0) for name, at in moments.items()}
    return msgspec.structs.replace(run, **rounded)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("attempt", "job", "jobs_folder", "unclaimed", "adopted", "given_up", "pod"), read_id),
    **dict.fromkeys(("attempts", "failed_checks", "failures", "deaths"), read_count),
    **dict.fromkeys(("host", "error", "quarantined", "died", "noted", "assignee"), read_text),
    **dict.fromkeys(("result", "place", "lane"), read_text),
    "check": read_text,
    **dict.fromkeys(("claimed_at", "ends_by", "armed_at", "released_at", "retry_at"), read_time),
    "waited": checked_count,
    "runs": _runs,
}
_FIELDS = {name: (f"{PREFIX}{name}", read) for name, read in _READERS.items()}
_EMPTY = Record()
_DEFAULTS = {name: getattr(_EMPTY, name) for name in _FIELDS}
assert set(_FIELDS) == set(Record.__struct_fields__)
