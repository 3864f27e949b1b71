"""Chains of attempts on one bead: in which session each goes on, on two machines, with agents that refuse or fork.

It knows which agent ran where, what is still there, and how often a session was resumed. An attempt that goes on in a
session against the rules is a violation, and so is one that starts cold although it could go on.
"""

import json
import random
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bdauto.agents.local.jobs import JobRecord, Jobs, Step
from bdauto.agents.local.sessions import resume
from bdauto.agents.local.settings import AgentName, LocalAgentSettings, check_local
from bdauto.domain.record import Record, Result, Run, metadata_of
from tests.support.fakes import NOW, bead
from tests.unit.test_jobs import alive
from tests.unit.test_sessions import kept

ATTEMPTS = 14
ENDS = ("limit", "limit", "overloaded", "network", "timeout", "stopped", "question", "lost", "error", "silence", "ok")
RESUMED = frozenset(("limit", "overloaded", "network", "timeout", "stopped", "question", "lost"))
MOST = 5


@dataclass
class Chain:
    """One bead's attempts. `violation` says which rule was broken."""

    seed: int
    violation: str = ""
    resumed: int = 0
    runs: list[Run] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)
    """How often each session was resumed, under whatever name."""


def attempts(seed: int) -> Chain:
    """Make attempts until a rule is broken, and return the chain."""
    chain, rng = Chain(seed), random.Random(seed)
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name,
        ExitStack() as held,
    ):
        hosts = [_Host(Path(name) / host) for host in ("one", "two")]
        last: _Job | None = None
        for number in range(ATTEMPTS):
            host = hosts[rng.random() < 0.1]
            agent = AgentName.codex if rng.random() < 0.1 else AgentName.claude
            if last and rng.random() < 0.1:
                last.transcript.unlink(missing_ok=True)
            other = held if last and rng.random() < 0.05 else None
            if other is not None and last:
                other.enter_context(host.runs_in(last.session, number))
            job = _attempt(chain, rng, host, agent, number, last, in_use=other is not None)
            if chain.violation:
                break
            held.close()
            last = job
    return chain


@dataclass
class _Job:
    """The last job: where it ran, in which session, and whether its agent may go on."""

    host: "_Host"
    agent: AgentName
    session: str
    root: str
    """The first name of a session that a version of the agent names anew at each resume."""
    transcript: Path
    goes_on: bool


class _Host:
    def __init__(self, folder: Path) -> None:
        self.home, self.directory, self.jobs = folder, folder / "project", Jobs(folder / "jobs")
        self.directory.mkdir(parents=True)
        self.jobs.path.mkdir()

    def record(self, job: str, agent: AgentName, number: float, **fields: Any) -> tuple[JobRecord, LocalAgentSettings]:
        settings = check_local(LocalAgentSettings(agent=agent))
        assert settings.agent_command
        words = [*settings.agent_command.words]
        step = Step(kind="agent", words=words, directory=str(self.directory), timeout=1.0, stdin="prompt")
        common: dict[str, Any] = {"bead": "x-1", "tracker": "t", "host": "h", "agent": agent, "started": number}
        return JobRecord(**{**common, "attempt": job, "steps": [step], **fields}), settings

    def write(self, record: JobRecord, session: str, end: dict[str, Any] | None) -> Path:
        folder = self.jobs.path / record.attempt
        folder.mkdir()
        (folder / "job.json").write_bytes(msgspec.json.encode(record))
        (folder / "lock").touch()
        said = {"type": "system", "subtype": "init", "session_id": session, "uuid": "u"}
        said = said if record.agent == "claude" else {"type": "thread.started", "thread_id": session}
        (folder / "output.0").write_text(f"{json.dumps(said)}\n")
        if end is not None:
            (folder / "end.json").write_text(json.dumps({"ended": 1.0, **end}))
        return folder

    def runs_in(self, session: str, number: int) -> Any:
        """Let a job of another bead go on in this session while the context is open."""
        record, _ = self.record(f"other{number}", AgentName.claude, number, bead="x-2", session=session)
        return alive(self.write(record, session, None))


def _attempt(
    chain: Chain, rng: random.Random, host: _Host, agent: AgentName, number: int, last: _Job | None, *, in_use: bool
) -> _Job:
    """Make one attempt, judge in which session it goes on, and let it end somehow."""
    cold, settings = host.record(f"a{number}", agent, number)
    tried = bead(metadata=metadata_of(Record(runs=tuple(chain.runs))))
    found = resume(cold, tried, host.jobs, settings, {"HOME": str(host.home)}) if chain.runs else None
    may = (
        last is not None
        and last.goes_on
        and (last.host, last.agent) == (host, agent)
        and last.transcript.exists()
        and chain.times.get(last.root, 0) < MOST
        and not in_use
    )
    if (found is not None) != may or (found and last and found.session != last.session):
        chain.violation = f"attempt {number} {'goes on' if found else 'starts cold'}, and {'may' if may else 'may not'}"
    refuses, forks = rng.random() < 0.1, rng.random() < 0.1
    goes_on = found is not None and last is not None and not refuses
    session = last.session if goes_on and last and not forks else f"session-{number}"
    root = last.root if goes_on and last else session
    if goes_on:
        chain.times[root] = chain.times.get(root, 0) + 1
        chain.resumed += 1
    why = rng.choice(ENDS)
    checked = why == "ok" and rng.random() < 0.5
    gates = [{"kind": "check", "state": "failed"}] if checked else []
    state = "completed" if why == "ok" else "failed"
    told = {"state": state, "gates": gates, "refused": bool(found and refuses)}
    host.write(found or cold, session, None if why == "lost" else told)
    transcript = _transcript(host, agent, session)
    result = Result.lost if why == "lost" else Result.completed if why == "ok" else Result.failed
    chain.runs.append(
        Run(attempt=f"a{number}", job=f"a{number}", ended_at=NOW, result=result, why=why, session=session)
    )
    if why == "lost" and found and refuses:
        chain.times[session] = found.resumes  # nobody has written that it refused, so its count goes on
    return _Job(host, agent, session, root, transcript, why in RESUMED or checked)


def _transcript(host: _Host, agent: AgentName, session: str) -> Path:
    found = [*host.home.rglob(f"*{session}.jsonl")]
    if found:
        return found[0]
    with tempfile.TemporaryDirectory(dir=host.home) as name:
        made = kept(agent, Path(name), host.directory, session)
        file = host.home / made.relative_to(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        return made.rename(file)
