"""The jobs' folder: a folder for each job, and what they say of its state. Nothing here waits.

A job's id is the id of the attempt that started it, so no attempt can be started twice. The supervisor holds a lock on
the job for as long as it lives: no process id is ever trusted, and a reboot ends every job.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from signal import Signals
from typing import Annotated, Literal, TypeVar

import msgspec

from bdauto.agents.local.files import is_folder, name_once, open_file, read_file
from bdauto.agents.local.supervisor import AGENT, CONTROL, END, GATES, GRACE, JOB, LOCK, MESSAGE
from bdauto.common.errors import ServiceDown, UsageError
from bdauto.common.lock import locked
from bdauto.common.sanitize import clean, without_secrets
from bdauto.domain.bead import MALFORMED
from bdauto.domain.results import exit_words, last_line, last_words
from bdauto.domain.values import format_duration

T = TypeVar("T")

RUNNING, DIED, UNKNOWN = "running", "died", "unknown"
EndState = Literal["completed", "failed", "timeout", "cancelled", "error", "unprepared"]
"""How a job or its check ended, as its supervisor says. The agent could write there, too: other states are none."""
LATEST = 1e11
"""The latest believable end of a job, in seconds since the epoch: the calendar ends soon after."""
RECORD_BYTES = 1 << 20
"""A larger record is none. A prompt among the command's words takes 128 KiB at most."""
LOCK_TIMEOUT = 1.0
"""Seconds to wait for another process that counts and begins jobs, which takes it milliseconds.

No longer: a pause may have begun since the claim, see `controllers.attempts`.
"""
LONGEST_GATE = 1e7
"""Seconds that a check may be said to have taken, at most."""
MAY_HAVE_LANDED = "it may or may not have landed"
"""What is known of a landing that did not come to its end."""
PLACE = ".place"
"""The file in the jobs' folder with its id. A host's name can change, and a host can have several such folders."""
PLACE_BYTES = 200
"""Bytes of that file that are read."""
RECORDED, DELETED, PASSED = "recorded", "deleted", "passed"
"""Files that mark a job: its end stands on its bead, its bead was deleted, its agent and all checks were successful."""
UNRECORDED_KEPT = 90 * 86_400.0
"""Seconds to keep the folder of a job whose end is not recorded on its bead: its cost is recorded nowhere else."""
NEW = ".new-"
"""How the name of a job's folder begins until everything is in it."""
FORBIDDEN = f"{NEW}forbidden-"
"""How the name of an empty folder begins that keeps a job from being started. It is removed with half-made ones."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a job. `text` names it for people, `stdin` is a file of the job's folder, "" for none.

    It runs in `directory` for `timeout` seconds at most. `cold` is the agent's command without a session, for one that
    refuses to go on in the session that `words` name.
    """

    kind: Literal["prepare", "agent", "look", "base", "check", "review", "land", "remove"]
    text: str = ""
    words: list[str]
    directory: str
    timeout: float
    stdin: str = ""
    cold: list[str] = []


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was started: the commands in the order in which they run, and the bead.

    `agent` is the adapter that reads the output, "" if each line is recognized by its shape. `tracker` is the id of the
    bead's tracker, `beads` the `.beads` folder, `assignee` whose queue the bead was in, `lane` the lane that
    took it, "" for the default one. `silence` is in seconds,
    `started` in seconds since the epoch, `max_cost` in US dollars. `variables` are what the steps of GATES get beside
    the agent's environment. `text` is a digest of the bead's text. `needs` are the beads that blocked the bead when it
    was claimed.

    `session` is the one that the agent goes on in, for the time `resumes`. It had `session_tokens` then.
    """

    bead: str
    attempt: str
    tracker: str
    beads: str = ""
    host: str
    assignee: str = ""
    lane: str = ""
    agent: str = ""
    started: float
    silence: float | None = None
    max_cost: float | None = None
    variables: dict[str, str] = {}
    needs: list[str] = []
    steps: list[Step]
    text: str = ""
    session: str = ""
    resumes: int = 0
    session_tokens: int = 0

    @property
    def agent_step(self) -> Step | None:
        """The step that runs the agent."""
        return next((step for step in self.steps if step.kind == AGENT), None)

    @property
    def program(self) -> str:
        """The first word of the agent's command, "" if there is none."""
        return next((word for step in self.steps if step.kind == AGENT for word in step.words), "")

    @property
    def longest(self) -> float:
        """Seconds after which it has ended."""
        return sum(step.timeout + GRACE for step in self.steps)

    @property
    def gates(self) -> list[Step]:
        """The steps that must succeed before the bead counts as done."""
        return [step for step in self.steps if step.kind in GATES]


class GateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a check, a review or a landing went, and the end of its output."""

    kind: Literal["check", "review", "land"]
    text: str = ""
    state: EndState
    exit_code: int | None = None
    signal: str | None = None
    detail: str = ""
    output: str = ""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    @property
    def words(self) -> str:
        """Which it was, how it ended and what it said last, on one line and without secrets."""
        code = exit_code(self)
        how = self.detail or (self.state if code is None else exit_words(code))
        took = format_duration(timedelta(seconds=round(min(self.seconds, LONGEST_GATE))))
        how = f"timed out after {took}" if self.state == "timeout" else how
        how += f": {MAY_HAVE_LANDED}" if self.kind == "land" and self.state in ("timeout", "cancelled") else ""
        return without_secrets(
            ": ".join(filter(None, [self.text, how, last_words(self.output.splitlines()) or last_line(self.output)]))
        )


class EndRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The file in which a supervisor says how a job ended.

    It is no `Run`, because a supervisor imports nothing of bdauto. `exit_code` is None after a signal. `by` says who
    asked for the end. `why` is "budget" if the supervisor ended it because of its costs. `lost` is output, in bytes.
    `refused`: the agent refused the session that it should go on in, and was started without one.
    `returned` says why nothing was checked. `gates` are the checks and what else must succeed before the bead counts
    as done, as far as they were begun.
    """

    state: EndState
    exit_code: int | None = None
    signal: str | None = None
    detail: str = ""
    by: str = ""
    why: Literal["", "budget"] = ""
    seconds: float = 0.0
    ended: Annotated[float, msgspec.Meta(ge=0, le=LATEST)] = 0.0
    lost: int = 0
    refused: bool = False
    returned: str = ""
    gates: list[GateRecord] = []

    def has_passed(self, record: JobRecord) -> bool:
        """Return whether the job had something to be checked, and all of it has succeeded."""
        wanted = [(step.kind, step.text) for step in record.gates]
        return bool(wanted) and wanted == [(gate.kind, gate.text) for gate in self.gates if gate.state == "completed"]

    @property
    def failed_gate(self) -> GateRecord | None:
        """The first of them that did not succeed, None if there is none. A landing that was stopped has not."""
        failed = (gate for gate in self.gates if gate.state != "completed")
        return next((gate for gate in failed if gate.state != "cancelled" or gate.kind == "land"), None)


def exit_code(end: GateRecord | EndRecord) -> int | None:
    """Return the exit status of a command, negative for a signal, None if it has none."""
    return -Signals[end.signal] if end.signal and end.signal in Signals.__members__ else end.exit_code


class Jobs(msgspec.Struct, frozen=True):
    """The jobs in a folder of this machine."""

    path: Path

    def folder(self, job: str) -> Path | None:
        """Return a job's folder, None if there is none of this id. Raises OSError if the folder cannot be looked up."""
        folder = self.path / job
        if not _ID.fullmatch(job) or not is_folder(folder):
            return None
        with contextlib.suppress(FileNotFoundError):
            (folder / JOB).lstat()
            return folder
        return None

    def state(self, job: str) -> str | None:
        """Return `running`, `died`, or the state in which the job ended. None if this folder does not know the job.

        A job runs as long as its lock is held, whatever its agent wrote as its end. It is `unknown` if a file that is
        needed is not a regular file or cannot be read.
        """
        folder = self.path / job
        try:
            if self.folder(job) is None:
                return None
            os.close(open_file(folder / JOB))
            if is_locked(folder / LOCK):
                return RUNNING
            end = _decoded(folder / END, EndRecord)  # looked at after the lock: a job may end in between
        except OSError as error:
            name_once(folder, error)
            return UNKNOWN
        return end.state if end else DIED

    def place(self) -> str:
        """Return the folder's own id, which claims name. "" before the first claim.

        It ends with the file's inode, so a copy of the folder, on another host say, has another id.
        """
        try:
            text = read_file(self.path / PLACE, PLACE_BYTES).decode("ascii").strip()
            return f"{text}-{(self.path / PLACE).stat().st_ino:x}" if _ID.fullmatch(text) else ""
        except (OSError, UnicodeDecodeError):
            return ""

    def make_place(self) -> str:
        """Return the folder's own id, and make folder and id if there are none. Raises UsageError.

        The file is written under another name and then linked, so it is never half written, and one of several
        processes wins.
        """
        private_folder(self.path)
        new = self.path / f"{NEW}{uuid.uuid4().hex}"
        try:
            if not self.place():
                new.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="ascii")
                with contextlib.suppress(FileExistsError):
                    (self.path / PLACE).hardlink_to(new)
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror}", hint="name another folder with --agent-jobs") from None
        finally:
            new.unlink(missing_ok=True)
        if place := self.place():
            return place
        raise UsageError(f"{self.path / PLACE} holds no id", hint="remove it once no job runs")

    def running(self) -> list[str]:
        """Return the ids of the jobs that run."""
        return [job for job in self.ids() if self.state(job) == RUNNING]

    def ids(self) -> list[str]:
        """Return the ids of all jobs. Raises ServiceDown when the folder cannot be read."""
        try:
            entries = [*os.scandir(self.path)]
        except FileNotFoundError:
            return []
        except OSError as error:
            words = f"the jobs' folder {self.path} cannot be read: {error.strerror}"
            raise ServiceDown(words, hint="name another with --agent-jobs") from None
        return [entry.name for entry in entries if _ID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]

    def of_bead(self, bead: str, tracker: str, jobs: Sequence[str] | None = None) -> list[str]:
        """Return the ids of a bead's jobs, the oldest first. `tracker` is the id of the bead's tracker.

        Where `jobs` are given, only those are looked at.
        """
        found = {job: record for job in (self.ids() if jobs is None else jobs) if (record := self.record(job))}
        mine = [job for job, record in found.items() if record.bead == bead and record.tracker == tracker]
        return sorted(mine, key=lambda job: found[job].started)

    def at_work(self, bead: str, tracker: str) -> list[str]:
        """Return the ids of a bead's jobs that run, the oldest first."""
        return self.of_bead(bead, tracker, self.running())

    def ends_of(self, tracker: str) -> Iterator[tuple[JobRecord, EndRecord]]:
        """Yield the jobs of a tracker that have ended."""
        for job in self.ids():
            end, record = read_end(self.path / job), self.record(job)
            if end and record and record.tracker == tracker and self.state(job) == end.state:
                yield record, end

    def record(self, job: str) -> JobRecord | None:
        """Return what was started, None when this folder does not know the job."""
        with contextlib.suppress(OSError):  # `state` names it
            if folder := self.folder(job):
                return _read(folder / JOB, JobRecord)
        return None

    def stop(self, job: str, why: str) -> bool:
        """Ask a job's supervisor to end it, which takes up to 10 s. Return False if the job does not run.

        `why` becomes `by` in the job's end.
        """
        if self.state(job) != RUNNING:
            return False
        try:
            pipe = os.open(self.path / job / CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:  # nobody reads it: the supervisor ends, or has not begun to read
            return False
        try:
            if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
                return False
            os.write(pipe, clean(why, MESSAGE // 4).encode()[:MESSAGE] + b"\n")
        except OSError:  # it is full
            return False
        finally:
            os.close(pipe)
        return True

    def forbid(self, job: str) -> None:
        """Keep a job from being started from now on, if it has not been yet. Raises OSError."""
        with only_one(self.path):
            if not self.folder(job):
                (self.path / f"{FORBIDDEN}{job}").mkdir(mode=0o700, exist_ok=True)

    def is_forbidden(self, job: str) -> bool:
        """Return whether a job must not be started. `only_one` must be held."""
        return os.path.lexists(self.path / f"{FORBIDDEN}{job}")

    def mark(self, job: str, mark: str) -> None:
        """Mark a job as RECORDED, DELETED or PASSED. If RECORDED fails, the job is kept for UNRECORDED_KEPT."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            os.close(os.open(self.path / job / mark, flags, 0o600))

    def marked(self, job: str, *marks: str) -> bool:
        """Return whether a job has one of these marks."""
        return any(os.path.lexists(self.path / job / mark) for mark in marks)

    def prune(self, before: float) -> None:
        """Remove jobs that are over, recorded and unchanged since `before`. Remove half-made ones, too.

        `before` is in seconds since the epoch. Jobs whose end is not recorded are kept for UNRECORDED_KEPT at least.
        """
        long_before = min(before, time.time() - UNRECORDED_KEPT)
        for entry in os.scandir(self.path):
            with contextlib.suppress(OSError):  # another process removes old jobs at this moment, too
                if not entry.is_dir(follow_symlinks=False) or entry.stat().st_mtime > before:
                    continue
                if not entry.name.startswith(NEW) and self.state(entry.name) in (None, RUNNING):
                    continue
                kept = not entry.name.startswith(NEW) and not self.marked(entry.name, RECORDED)
                if not kept or entry.stat().st_mtime <= long_before:
                    shutil.rmtree(entry.path, ignore_errors=True)


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return where jobs are kept unless the user says otherwise, as the XDG specification has it."""
    state = Path(environment.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return state / "bdauto" / "jobs"


def only_one(jobs: Path) -> AbstractContextManager[None]:
    """Return the lock under which jobs are counted and begun, so that there are never more than allowed.

    Raises TimeoutError when another process holds it for too long: a start that waits comes too late for its claim.
    """
    return locked(jobs / ".lock", LOCK_TIMEOUT, create=True)


def private_folder(path: Path) -> None:
    """Make a folder for the user alone, if there is none. Raises UsageError if others may write to it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name another folder with --agent-jobs") from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UsageError(f"{path}: others may write to it", hint=f"chmod 700 {path}, or name another with --agent-jobs")


def is_locked(file: Path) -> bool:
    """Return whether another process holds the lock on a file. Raises OSError for what is no regular file."""
    try:
        probe = open_file(file)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look at once do not see each other
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False


def read_end(folder: Path) -> EndRecord | None:
    """Return the end that the supervisor wrote, None when there is none."""
    return _read(folder / END, EndRecord)


def _read(file: Path, shape: type[T]) -> T | None:
    try:
        return _decoded(file, shape)
    except OSError as error:
        name_once(file.parent, error)
        return None


def _decoded(file: Path, shape: type[T]) -> T | None:
    """Return a record, None when there is none or it is garbage. Raises OSError for one that cannot be read."""
    try:
        return msgspec.json.decode(read_file(file, RECORD_BYTES), type=shape)
    except (FileNotFoundError, *MALFORMED):
        return None


def failed_gates(jobs: Jobs, tracker: str, bead_id: str) -> dict[str, str]:
    """Return the last lines of what failed after the agent's end, for each of the bead's jobs."""
    return {
        record.attempt: gate.words
        for record, end in jobs.ends_of(tracker)
        if record.bead == bead_id and (gate := end.failed_gate)
    }
