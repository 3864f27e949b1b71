"""Run one job to its end: a program of its own, started as `python -I -S supervisor.py FOLDER LOCK`.

FOLDER is the job's folder. LOCK is an open file on which this process holds a lock for its whole life: whoever finds
the lock free and no `end.json` knows that the job died. The supervisor runs the steps that `job.json` lists, bounds
their time and output, and writes the end. Its environment is the agent's.

It lives as long as the agent does, so it imports little, and nothing of bdauto.
"""

import contextlib
import errno
import json
import math
import os
import re
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOB, END, LOCK, PROMPT, CONTROL = "job.json", "end.json", "lock", "prompt", "control"
"""The files of a job's folder, except the output."""
COLD_PROMPT = "prompt.cold"
"""The whole prompt, for an agent that refuses the session that it should go on in."""
STEP = "step"
"""The file that says which step runs, once the agent has ended."""
AGENT, CHECK, REVIEW, OUTPUT = "agent", "check", "review", "output."
FILES = {"prepare": "before.", AGENT: OUTPUT, CHECK: "check.", REVIEW: "review.", "land": "land.", "remove": "after."}
"""The files of the output of each kind of step, in the order in which they are written.

Each is in segments: `output.0`, `output.1` and so on. So what a check prints is never taken for the agent's words.
"""
LOOK_BYTES = 1 << 20
"""Bytes of bd's answer about the bead that are read."""
GATES = (CHECK, REVIEW, "land")
"""The kinds of steps that must succeed before the bead counts as done. They run if all before them have succeeded."""
SEGMENT = 5 << 20
"""Bytes of one segment."""
HEAD = TAIL = 5
"""Segments that are kept from the start of the output, and from its end, of each kind of step."""
GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN = 0.5
"""Seconds to read on after a command's end, when a process that left its group still holds its output open."""
LAST = 2000
"""Bytes of a check's output that its end keeps."""
LINE = 1 << 20
"""Bytes of a line that are looked at for costs."""
NOISE = b"\x00\x1b\xef"
"""How a line may begin that has colour, NUL or a byte order mark before its JSON."""
MOST_SESSIONS = 1000
"""Sessions of an agent whose costs are added up."""
REFUSAL = 60.0
"""Seconds within which an agent says that it cannot go on in its session. Some look it up in a database."""
NO_SESSION = re.compile(
    rb"no (?:saved |previous )?(?:conversation|rollout|session|thread)s? (?:was )?found"
    rb"|(?:conversation|session|thread)[^\n]{0,80}not (?:found|loaded)|invalid session",
    re.IGNORECASE,
)
"""What agents say then, next to no output of their own, or as a result."""
MESSAGE = 400
"""Bytes of a message in the control pipe. A pipe takes so many in one piece."""
GUARD = ["/bin/sh", "-c", "read _; kill -KILL 0"]
"""A process in each command's group. Its input ends when the supervisor dies, and then it kills the group."""
GROUP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals that an agent may send to its own group. The guard starts with them blocked, so none ever ends it."""

Job = dict[str, "Any"]
"""What `job.json` says."""
Step = dict[str, "Any"]
"""One command in the job's list of steps: see `jobs.Step`."""
CommandResult = dict[str, object]
"""How a command or the job ended, as `end.json` says it."""


class Output:
    """The output of the job's commands: the agent's, until `begin` says otherwise.

    When the disk is full, output is lost and the job goes on.
    """

    def __init__(self, folder: str) -> None:
        self.lost = 0
        self._folder = folder
        self._segments: list[str] = []
        self._file = -1
        self._name = ""
        self.begin(OUTPUT)

    def begin(self, name: str) -> None:
        """From now on write to files with this prefix. The first one is made when there is output."""
        if name != self._name:
            self._close()
            self._name, self._number, self._size = name, -1, SEGMENT

    def make(self, name: str) -> None:
        """Begin, and make the first file at once: it tells when the agent was started, which may be silent."""
        self.begin(name)
        if self._number < 0:
            self._next()

    def write(self, data: bytes) -> None:
        """Append to the last segment, and begin another where that one is full."""
        while data:
            if self._size >= SEGMENT:
                self._next()
            try:
                written = os.write(self._file, data[: SEGMENT - self._size])
            except OSError:
                self.lost += len(data)
                return
            self._size += written
            data = data[written:]

    def make_room(self) -> bool:
        """Remove the last segment that is left. Return False if there was none."""
        while self._segments:
            with contextlib.suppress(OSError):
                os.unlink(self._segments.pop())
                return True
        return False

    def _next(self) -> None:
        self._close()
        self._number += 1
        self._size = 0
        self._segments.append(f"{self._folder}/{self._name}{self._number}")
        try:
            # the agent may have put a pipe there
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(self._segments[-1], flags, 0o600)
        except OSError:
            self._file = os.open(os.devnull, os.O_RDONLY)  # each write to it fails and is counted as lost
        if self._number >= HEAD + TAIL:
            with contextlib.suppress(OSError):
                os.unlink(self._segments.pop(-1 - TAIL))

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Costs:
    """Adds up what an agent says that it has cost: the steps of opencode, the sums of Claude Code's sessions."""

    def __init__(self, limit: object) -> None:
        """Take the limit in US dollars, None for no limit."""
        self._limit = float(str(limit)) if limit is not None else math.inf
        self._line = b""
        self._sums: dict[str, float] = {}

    def feed(self, data: bytes) -> str:
        """Take output. Return what it cost if that is more than the limit, else ""."""
        if self._limit == math.inf:
            return ""
        *lines, self._line = (self._line + data)[-LINE:].split(b"\n")
        for line in lines:
            if b"cost" in line:
                self._add(line)
        total = sum(self._sums.values())
        return f"ended because it cost ${total:.2f}, more than ${self._limit:.2f}" if total > self._limit else ""

    def _add(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError, OverflowError):
            start = line.index(b"{") if line[:1] in NOISE else 0
            value = json.loads(line[start : line.rindex(b"}") + 1])
            step = value["part"]["cost"] if value.get("type") == "step_finish" else None
            cost = float(value["total_cost_usd"] if step is None else step)
            if 0 <= cost < 1e6 and len(self._sums) < MOST_SESSIONS:
                name = str(value.get("session_id")) if step is None else "steps"
                self._sums[name] = cost if step is None else self._sums.get(name, 0.0) + cost


class Command:
    """A running command, and the guard that leads its process group. Raises OSError when it cannot be started."""

    def __init__(self, words: list[str], stdin: str, variables: dict[str, str]) -> None:
        self.output, writer = os.pipe()
        watched, self._held = os.pipe()
        source = os.open(stdin, os.O_RDONLY)
        self._group = 0
        try:
            self._group = _spawn(GUARD, 0, {0: watched}, {}, GROUP_SIGNALS)
            self.pid = _spawn(words, self._group, {0: source, 1: writer, 2: writer}, variables)
        except OSError:
            self.close()
            raise
        finally:
            for file in (writer, watched, source):
                os.close(file)

    def kill(self, number: int) -> None:
        """Send a signal to the group, and to the command in case it left the group."""
        for send, target in ((os.killpg, self._group), (os.killpg, self.pid), (os.kill, self.pid)):
            with contextlib.suppress(OSError):
                send(target, number)

    def ended(self) -> int | None:
        """Return the exit status, negative for a signal, or None while the command runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        """Kill what is left of the group, the guard included. `output` can still be read."""
        if self._group:
            with contextlib.suppress(OSError):
                os.killpg(self._group, signal.SIGKILL)
            os.waitpid(self._group, 0)
        os.close(self._held)


class Supervisor:
    """Runs a job's steps one after another. `stopped` says who asked for the job's end, or is ""."""

    def __init__(self, folder: str) -> None:
        self.output = Output(folder)
        self.stopped = ""
        self._last = b""
        self._keep = LAST
        self._costs = Costs(None)
        self._too_dear = ""
        self._folder = folder
        self._control = os.open(f"{folder}/{CONTROL}", os.O_RDONLY | os.O_NONBLOCK)
        os.open(f"{folder}/{CONTROL}", os.O_WRONLY)  # a writer of its own, or the pipe would read as ended
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._stop(signal.Signals(number).name))

    def run(self, job: Job) -> CommandResult:
        """Run the steps in their order. Return the job's end: that of its agent, and those of its gates."""
        started = time.monotonic()
        end = self._all(job)
        seconds = round(time.monotonic() - started, 3)
        return {**end, "by": self.stopped, "seconds": seconds, "ended": time.time(), "lost": self.output.lost}

    def _all(self, job: Job) -> CommandResult:
        end: CommandResult = {}
        gates: list[CommandResult] = []
        for step in job["steps"]:
            kind = step["kind"]
            if kind == "look":
                if end["state"] == "completed" and not end.get("returned"):
                    end["returned"] = self._look(step, job)
            elif kind == "base":
                if base := self._answer(step).decode(errors="replace").strip():
                    job["variables"]["BEAD_BASE"] = base
            elif kind in GATES:
                passes = end["state"] == "completed" and not end.get("returned")
                if passes and all(gate["state"] == "completed" for gate in gates):
                    gates.append(self._gate(step, job["variables"]))
                    end["state"] = "cancelled" if self.stopped else "completed"
            elif kind == AGENT:
                end = self._agent(step, job.get("max_cost"))
            elif kind == "prepare":
                done = self._one(step, {})
                if done["state"] != "completed":
                    return {**done, "state": "cancelled" if self.stopped else "unprepared", "detail": self._said(done)}
            elif not self.stopped:
                self._one(step, {})
        return {**end, "gates": gates}

    def _agent(self, step: Step, max_cost: object) -> CommandResult:
        """Run the agent. Where it refuses the session that it should go on in, start it once more, without one."""
        self._costs = Costs(max_cost)
        self.output.make(OUTPUT)
        began = time.monotonic()
        end = self._one(step, {})
        took = time.monotonic() - began
        if step["cold"] and took < REFUSAL and not self._too_dear and _refused(end, self._last):
            cold = {**step, "words": step["cold"], "stdin": COLD_PROMPT, "timeout": step["timeout"] - took}
            end = {**self._one(cold, {}), "refused": True}
        self._costs = Costs(None)
        if self._too_dear and end["state"] != "cancelled":
            end = {**end, "state": "failed", "detail": self._too_dear, "why": "budget"}
        self._too_dear = ""
        return end

    def _look(self, step: Step, job: Job) -> str:
        """Ask bd for the bead. Return why its work is not to be checked, "" if it is, or if bd does not tell."""
        answer = self._answer(step)
        return returned(answer, job) if answer else ""

    def _answer(self, step: Step) -> bytes:
        """Return what a command prints, b"" if it fails."""
        self._keep = LOOK_BYTES
        done = self._one(step, {})
        self._keep = LAST
        return self._last if done["state"] == "completed" else b""

    def _gate(self, step: Step, variables: dict[str, str]) -> CommandResult:
        """Run a step that must succeed. Return its end with the last part of its output.

        What lands is on record before: nobody could tell otherwise that a job died of which a part may have landed.
        """
        step_file = {"kind": step["kind"], "text": step["text"], "since": time.time()}
        failed, started = write_file(self._folder, STEP, step_file), time.monotonic()
        if failed and step["kind"] == "land":
            done = _error(f"nothing was landed: {failed.filename} cannot be written: {failed.strerror}")
        else:
            done = self._one(step, variables)
        output, seconds = self._last.decode(errors="replace"), round(time.monotonic() - started, 3)
        return {**done, "kind": step["kind"], "text": step["text"], "output": output, "seconds": seconds}

    def _said(self, done: CommandResult) -> str:
        lines = [line for line in self._last.decode(errors="replace").splitlines() if line.strip()]
        return str(done["detail"]) or " | ".join(lines[-3:]) or str(done["state"])

    def _one(self, step: Step, variables: dict[str, str]) -> CommandResult:
        """Run one step to its end and describe it."""
        self._last = b""
        words, directory = step["words"], step["directory"]
        self.output.begin(FILES.get(step["kind"], ""))
        stdin = f"{self._folder}/{step['stdin']}" if step["stdin"] else os.devnull
        if self.stopped:
            return {"state": "cancelled", "exit_code": None, "signal": None, "detail": ""}
        try:
            os.chdir(directory)
            command = Command(words, stdin, {**variables, "PWD": directory})  # some agents believe PWD more
        except OSError as error:
            return _error(f"{error.strerror}: cannot run {words[0]} in {directory}")  # a long path may be cut
        state, code = self._wait(command, time.monotonic() + step["timeout"])
        command.close()
        self._drain(command.output)
        state = "cancelled" if self.stopped else state or ("failed" if code else "completed")
        name = signal.Signals(-code).name if code < 0 else None
        return {"state": state, "exit_code": code if code >= 0 else None, "signal": name, "detail": ""}

    def _wait(self, command: Command, deadline: float) -> tuple[str, int]:
        """Read the output until the command ends. End the command at the deadline or when asked to stop."""
        state, number = "", signal.SIGTERM
        sources = [self._woken, self._control, command.output]
        while (code := command.ended()) is None:
            now = time.monotonic()
            if now >= deadline or ((self.stopped or self._too_dear) and number is signal.SIGTERM):
                state = state or "timeout"
                command.kill(number)
                number, deadline = signal.SIGKILL, now + GRACE
            ready = select.select(sources, [], [], max(deadline - now, 0.0))[0]
            if self._woken in ready:
                os.read(self._woken, 512)
            if self._control in ready:
                self._stop(os.read(self._control, MESSAGE).decode(errors="replace").strip() or "unknown")
            if command.output in ready and not self._read(command.output):
                sources.remove(command.output)
        return state, code

    def _drain(self, reader: int) -> None:
        deadline = time.monotonic() + DRAIN
        while select.select([reader], [], [], max(deadline - time.monotonic(), 0.0))[0] and self._read(reader):
            pass
        os.close(reader)

    def _read(self, reader: int) -> bool:
        data = os.read(reader, 1 << 16)
        if self._keep == LAST:
            self.output.write(data)
        self._too_dear = self._too_dear or self._costs.feed(data)
        self._last = (self._last + data)[-self._keep :]
        return bool(data)

    def _stop(self, who: str) -> None:
        self.stopped = self.stopped or who


def _refused(end: CommandResult, output: bytes) -> bool:
    """Return whether an agent has ended without a word of its own, or says that it does not know its session.

    Each line of its own is a JSON object. Some agents end with status 0.
    """
    silent = not any(line.startswith(b'{"') for line in output.splitlines())
    return (silent and end["state"] in ("completed", "failed")) or (
        end["state"] == "failed" and NO_SESSION.search(output) is not None
    )


def returned(answer: bytes, job: Job) -> str:
    """Return why the agent's bead is not to be checked, "" if it is or the answer makes no sense.

    An agent that needs a person, or has given up, opens or blocks its bead, or adds a question that blocks it.
    """
    try:
        found = json.loads(answer)
        found = found.get("data", found) if isinstance(found, dict) else found
        if not found:
            return "the bead is gone"
        bead = found[0]
        needs = {str(other["depends_on_id"]) for other in bead.get("dependencies") or () if other["type"] == "blocks"}
        if bead["status"] not in ("in_progress", "closed"):
            return f"the bead is {bead['status']}"
        if bead.get("assignee", "") != job["assignee"]:
            return "the bead was given to somebody else"
        return "the bead waits for others" if needs - set(job["needs"]) else ""
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        return ""


def _error(detail: str) -> CommandResult:
    return {"state": "error", "exit_code": None, "signal": None, "detail": detail}


def write_end(folder: str, end: CommandResult, output: Output) -> None:
    """Write the end in one piece. On a full disk it makes room for it, and gives up when there is none to make."""
    while (error := write_file(folder, END, end)) is not None:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not output.make_room():
            raise error


def write_file(folder: str, name: str, value: object) -> OSError | None:
    """Write JSON to a file in one piece. Return the error if that fails."""
    path = f"{folder}/{name}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.new")
        with open(f"{path}.new", "x") as file:  # a new file: what the agent put there could be a pipe or a link
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)  # or the file could be gone after a loss of power
        os.close(directory)
    except OSError as error:
        return error
    return None


def _spawn(
    words: list[str],
    group: int,
    files: dict[int, int],
    variables: dict[str, str],
    blocked: tuple[signal.Signals, ...] = (),
) -> int:
    return os.posix_spawnp(
        words[0],
        words,
        {**os.environ, **variables},
        file_actions=[(os.POSIX_SPAWN_DUP2, file, target) for target, file in files.items()],
        setpgroup=group,
        setsigmask=blocked,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT],  # Python or a shell ignores them
    )


def main() -> None:
    """Read the job, run it, write its end."""
    folder, lock = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(lock, False)  # the lock is this process's alone
    with open(f"{folder}/{JOB}", encoding="utf-8") as file:
        job = json.load(file)
    supervisor = Supervisor(folder)
    write_end(folder, supervisor.run(job), supervisor.output)


if __name__ == "__main__":
    main()
