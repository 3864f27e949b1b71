"""A job's output, read back from its segments, and what it says of the job's end."""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from bdauto.agents.cli_adapters import table
from bdauto.agents.local.files import name_once, open_file, read_file
from bdauto.agents.local.jobs import (
    DIED,
    LATEST,
    MAY_HAVE_LANDED,
    RUNNING,
    UNKNOWN,
    EndRecord,
    JobRecord,
    Jobs,
    exit_code,
    read_end,
)
from bdauto.agents.local.review import Review, read_review
from bdauto.agents.local.supervisor import FILES as FILES_OF_STEPS
from bdauto.agents.local.supervisor import HEAD, OUTPUT, SEGMENT, STEP, TAIL
from bdauto.agents.runner import LastEvent
from bdauto.common.sanitize import clean, without_secrets
from bdauto.domain.agent_end import OF_SERVICE, AgentEnd, Why
from bdauto.domain.bead import MALFORMED
from bdauto.domain.reaping import UNPREPARED
from bdauto.domain.reconcile import SILENCE
from bdauto.domain.record import RESULTS, WORDS_LIMIT, Result, Run
from bdauto.domain.results import ended_run, last_line, told_end, whole_seconds

FILES = tuple(FILES_OF_STEPS.values())
"""The beginnings of the names of the output's files, in the order in which they are written."""
EVENT_BYTES = 1 << 18
"""So much of the end of an output is looked at for its last event."""
STEP_BYTES, STEP_TEXT = 4096, 100
"""Bytes of the file that names the running step, and characters of its name that are shown."""
LONGEST = 1e9
"""Seconds that a job may be said to have run, at most. What exceeds a year is unknown."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class LocalOutput:
    """The output of a job of this machine. Each `read` returns what is new. `files` are those of FILES to read."""

    def __init__(self, jobs: Jobs, job: str, files: Sequence[str] = FILES) -> None:
        self._jobs = jobs
        self._job = job
        self._folder = jobs.path / job
        self._files = files
        self._place = (0, 0)
        self._offset = 0

    @property
    def agent(self) -> str:
        """The adapter that reads the output, "" if each object tells its form."""
        return agent_of(self._jobs.record(self._job))

    def state(self) -> str:
        """Return the job's state."""
        return self._jobs.state(self._job) or DIED

    def read(self) -> Iterator[bytes]:
        """Yield the output since the last call, with one line in place of each part that was cut."""
        while True:
            yield from self._rest()
            later = [place for place in self._places() if place > self._place]
            if not later:
                return
            yield from self._rest()  # a segment is complete once there is another
            (file, number), (next_file, next_number) = self._place, min(later)
            cut = (next_number - number - 1) * SEGMENT + max(SEGMENT - self._offset, 0)
            if next_file == file and next_number > number + 1:
                yield f"\n[… {cut} bytes cut …]\n".encode()
            self._place, self._offset = (next_file, next_number), 0

    def _rest(self) -> Iterator[bytes]:
        place, number = self._place
        segment = self._folder / f"{self._files[place]}{number}"
        try:
            with os.fdopen(open_file(segment), "rb") as file:
                file.seek(self._offset)
                while data := file.read(min(SEGMENT - self._offset, 1 << 16)):
                    self._offset += len(data)
                    yield data
        except FileNotFoundError:  # cut before it was read
            return
        except OSError as error:
            name_once(self._folder, error)

    def _places(self) -> list[tuple[int, int]]:
        """Return the segments that are there, in order: the place of their file, and the number."""
        return [(place, number) for place, name in enumerate(self._files) for number in segments(self._folder, name)]


def segments(folder: Path, name: str = OUTPUT) -> list[int]:
    """Return the numbers of the segments of one name, in order: as many as a supervisor keeps."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        name_once(folder, error)
        return []
    numbers = (_NUMBER.fullmatch(one.removeprefix(name)) for one in names if one.startswith(name))
    found = sorted(int(match[0]) for match in numbers if match)
    return found if len(found) <= HEAD + TAIL + 1 else [*found[:HEAD], *found[-TAIL - 1 :]]


def job_end(folder: Path, now: datetime) -> Run:
    """Return how the job of this folder ended, `lost` if nobody has written that down. It must not run any more."""
    end = read_end(folder)
    if end is None:
        said, step = said_end(folder, now, failed=False), running_step(folder)
        if step and step.kind == Why.land:
            words = f"{clean(step.text, STEP_TEXT)} was cut off: {MAY_HAVE_LANDED}"
            return told_end(Result.lost, now, said, words=words, why=Why.land)
        return told_end(Result.lost, now, said)
    ended_at = _ended_at(end.ended, now)
    said = said_end(folder, ended_at, failed=end.state == "failed")
    said = msgspec.structs.replace(said, why=Why.budget) if end.why else said
    silent = end.state == "cancelled" and end.by.startswith(SILENCE)
    found = told_end(
        _result(end),
        ended_at,
        said,
        seconds=whole_seconds(timedelta(seconds=min(max(end.seconds, 0.0), LONGEST))),
        words=last_line(end.detail or end.by.removeprefix(SILENCE)),
        why=Why.silence if silent else None,
        exit_code=None if end.why else exit_code(end),
    )
    found = _after_gates(found, end, Jobs(folder.parent).record(folder.name))
    reviewed = any(gate.kind == "review" for gate in end.gates)
    return _after_review(found, review) if reviewed and (review := read_review(folder)) else found


def _after_review(found: Run, review: Review) -> Run:
    """Return the end of a job with what its review cost. The reviewer's service may have failed, and not the work."""
    costs = [cost for cost in (found.cost_usd, review.cost_usd) if cost is not None]
    found = msgspec.structs.replace(found, cost_usd=sum(costs) if costs else None)
    if found.why != Why.review:
        return found
    words = without_secrets(review.problem, WORDS_LIMIT) or found.words
    if review.why in OF_SERVICE:
        return msgspec.structs.replace(found, why=review.why, words=words, reset_at=review.reset_at)
    unmet = [line for line in review.lines if "NOT met" in line]
    told = f"review: {review.problem or f'{len(unmet)} of {len(review.lines)} criteria are not met: {unmet[:1]}'}"
    return msgspec.structs.replace(found, words=without_secrets(told, WORDS_LIMIT))


def _after_gates(found: Run, end: EndRecord, record: JobRecord | None) -> Run:
    """Return the end of a job with what its checks have said. Only an agent that has completed is checked."""
    if gate := end.failed_gate:
        if found.result is Result.completed or gate.state == "cancelled":
            words = clean(gate.words, WORDS_LIMIT)
            return msgspec.structs.replace(found, result=Result.failed, why=Why(gate.kind), words=words)
        return found
    checked = record is not None and end.has_passed(record) and found.result is Result.completed
    landed = True if checked and end.gates[-1].kind == Why.land else msgspec.UNSET
    return msgspec.structs.replace(found, checked=checked, landed=landed)


def _result(end: EndRecord) -> Result:
    """Return the result of an end. A signal to the supervisor, as at a reboot, is nobody's wish to stop this job."""
    if end.state == "cancelled" and end.by.startswith(SILENCE):
        return Result.timeout
    if end.state == "cancelled":
        return Result.error if end.by in signal.Signals.__members__ else Result.stopped
    return Result.error if end.state == UNPREPARED else RESULTS.get(end.state, Result.failed)


def heard_at(jobs: Jobs, job: str) -> datetime | None:
    """Return when a job's output last grew, None if there is none."""
    newest = _newest(jobs.path / job)
    return newest[1] if newest else None


class RunningStep(msgspec.Struct, frozen=True):
    """A step after the agent that was begun: a check, say. `since` is in seconds since the epoch."""

    kind: str
    text: str
    since: Annotated[float, msgspec.Meta(ge=0, le=LATEST)]


def running_step(folder: Path) -> RunningStep | None:
    """Return the step that a job is at, None before its agent has ended."""
    try:
        return msgspec.json.decode(read_file(folder / STEP, STEP_BYTES), type=RunningStep)
    except (OSError, *MALFORMED):
        return None


def last_event(jobs: Jobs, job: str) -> LastEvent | None:
    """Return the last event in the end of a job's output, or its step after the agent. None if there is none."""
    if step := running_step(jobs.path / job):
        return LastEvent(f"{clean(step.text, STEP_TEXT)} runs", datetime.fromtimestamp(step.since, UTC))
    if (newest := _newest(jobs.path / job)) is None:
        return None
    try:
        data = read_file(newest[0], EVENT_BYTES, end=True)
    except OSError:
        return None
    if len(data) == EVENT_BYTES:
        data = data.partition(b"\n")[2]  # its first line is cut
    text = table.last_event([data], agent_of(jobs.record(job)))
    return LastEvent(text, newest[1]) if text else None


def _newest(folder: Path) -> tuple[Path, datetime] | None:
    """Return the segment of the agent's output that was written last, and when. None if there is none."""
    try:
        grew, newest = max((segment.lstat().st_mtime, segment) for segment in folder.glob(f"{OUTPUT}[0-9]*"))
        return newest, datetime.fromtimestamp(grew, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def agent_of(record: JobRecord | None) -> str:
    """Return the name of the adapter that reads a job's output, "" if each line is recognized by its shape."""
    return record.agent if record and record.agent in table.ADAPTERS else ""


def said_end(folder: Path, ended: datetime, *, failed: bool) -> AgentEnd:
    """Return the end that the job's agent told. A time of day without a zone is in this machine's zone."""
    jobs = Jobs(folder.parent)
    record = jobs.record(folder.name)
    output = LocalOutput(jobs, folder.name, (OUTPUT,)).read()
    said = table.read_end(output, agent_of(record), ended, ended.astimezone().tzinfo, failed=failed)
    if record and record.session_tokens and said.sessions[-1:] == (record.session,):
        said = table.since_resumed(said, record.session_tokens)
    return said if said.agent else msgspec.structs.replace(said, agent=_named(record))


def _named(record: JobRecord | None) -> str | None:
    """Return the agent that a record names: its adapter, else the program of its command."""
    if record is None:
        return None
    return agent_of(record) or clean(Path(record.program).name, 40) or None


def job_run(jobs: Jobs, job: str, now: datetime) -> Run | None:
    """Return a job of this machine as a run, None where its record cannot be read.

    A job that died without recording its end has ended by its time limit at the latest.
    """
    record, state = jobs.record(job), jobs.state(job)
    if record is None:
        return None
    run = started_run(record, now)
    if state in (RUNNING, UNKNOWN):
        return run
    end = job_end(jobs.path / job, now)
    latest = _ended_at(record.started + record.longest, now) if state == DIED else end.ended_at
    return ended_run(run, msgspec.structs.replace(end, ended_at=latest))


def started_run(record: JobRecord, now: datetime) -> Run:
    """Return a job of this machine as a run, without its end."""
    return Run(
        attempt=record.attempt,
        job=record.attempt,
        runner=record.host,
        agent=_named(record),
        claimed_at=_ended_at(record.started, now),
        lane=record.lane or msgspec.UNSET,
    )


def _ended_at(seconds: float, now: datetime) -> datetime:
    """Return the time of an end that is given in seconds since the epoch: now, if that makes no sense."""
    try:
        return min(datetime.fromtimestamp(seconds, UTC), now) if seconds else now
    except (ValueError, OverflowError, OSError):
        return now
