"""In which session a further attempt goes on, and when it starts without one."""

import json
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bdauto.agents.cli_adapters.table import ADAPTERS, since_resumed
from bdauto.agents.local.jobs import JobRecord, Jobs, Step
from bdauto.agents.local.sessions import resume
from bdauto.agents.local.settings import AgentName, LocalAgentSettings, check_local
from bdauto.agents.local.supervisor import _refused
from bdauto.agents.prompt import TEMPLATE, render_resumed, text_digest
from bdauto.agents.prompt_settings import parse_command
from bdauto.domain.agent_end import AgentEnd, Why
from bdauto.domain.bead import Bead
from bdauto.domain.earlier_attempts import describe_last
from bdauto.domain.record import Record, Result, Run, metadata_of
from bdauto.domain.resume import MOST_RESUMES, RESUMED_AFTER, may_resume
from tests.support.fakes import NOW, bead
from tests.unit.test_jobs import alive

SESSION = "7e0f6c1e-3b1a-4a55"

# Where each agent keeps its sessions


def kept(agent: str, home: Path, directory: Path, session: str = SESSION) -> Path:
    """Write a session of this folder where the agent keeps it, and return the file."""
    hashed = sha256(str(directory).encode()).hexdigest()
    name, text = {
        "claude": (
            f".claude/projects/{''.join(c if c.isalnum() else '-' for c in str(directory))}/{session}.jsonl",
            {"type": "user", "cwd": str(directory), "sessionId": session},
        ),
        "codex": (
            f".codex/sessions/2026/11/30/rollout-2026-11-30T10-00-00-{session}.jsonl",
            {"type": "session_meta", "payload": {"id": session, "cwd": str(directory)}},
        ),
        "gemini": (
            f".gemini/tmp/my-project/chats/session-2026-11-30T10-00-{session[:8]}.jsonl",
            {"sessionId": session, "projectHash": hashed},
        ),
        "opencode": (
            f".local/share/opencode/storage/session/p1/{session}.json",
            {"id": session, "directory": str(directory)},
        ),
    }[agent]
    file = home / name
    file.parent.mkdir(parents=True)
    file.write_text(f"{json.dumps(text)}\n")
    return file


@pytest.mark.parametrize("agent", ADAPTERS)
def test_a_session_is_found_for_its_folder_alone(tmp_path: Path, agent: str) -> None:
    folder, adapter, home = tmp_path / "work_tree.1", ADAPTERS[agent], {"HOME": str(tmp_path)}
    assert not adapter.can_resume(SESSION, folder, home)
    file = kept(agent, tmp_path, folder)
    assert adapter.can_resume(SESSION, folder, home)
    assert not adapter.can_resume(SESSION, tmp_path / "work_tree.2", home)
    assert not adapter.can_resume(SESSION.replace("7", "8", 1), folder, home)
    assert not adapter.can_resume(SESSION, folder, {"HOME": str(tmp_path / "nobody")})
    file.rename(file.with_name("real"))
    file.symlink_to(file.with_name("real"))
    assert not adapter.can_resume(SESSION, folder, home)


@pytest.mark.parametrize("agent", ADAPTERS)
@pytest.mark.parametrize("name", ["", "*", "../other", "--dangerously-skip-permissions", "-c", "a/b", "x" * 200, "a\0"])
def test_a_name_that_could_be_more_than_a_name_is_no_session(tmp_path: Path, agent: str, name: str) -> None:
    kept(agent, tmp_path, tmp_path)
    assert not ADAPTERS[agent].can_resume(name, tmp_path, {"HOME": str(tmp_path)})


def test_an_agent_s_own_variables_say_where_sessions_are(tmp_path: Path) -> None:
    for agent, variable, name in [
        ("claude", "CLAUDE_CONFIG_DIR", ".claude"),
        ("codex", "CODEX_HOME", ".codex"),
        ("gemini", "GEMINI_CLI_HOME", ""),
        ("opencode", "XDG_DATA_HOME", ".local/share"),
    ]:
        kept(agent, tmp_path, tmp_path)
        assert ADAPTERS[agent].can_resume(SESSION, tmp_path, {"HOME": "/nobody", variable: str(tmp_path / name)})


def test_a_part_of_a_session_s_name_is_not_the_session(tmp_path: Path) -> None:
    for agent in ADAPTERS:
        kept(agent, tmp_path, tmp_path)
        for part in (SESSION[9:], SESSION[-4:], SESSION[:8]):
            assert not ADAPTERS[agent].can_resume(part, tmp_path, {"HOME": str(tmp_path)}), (agent, part)


def test_a_long_path_is_cut_by_claude(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 150) / ("y" * 150)
    name = "".join(c if c.isalnum() else "-" for c in str(folder))[:200]
    file = tmp_path / ".claude" / "projects" / f"{name}-1a2b3c" / f"{SESSION}.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"cwd": str(folder)}))
    assert ADAPTERS["claude"].can_resume(SESSION, folder, {"HOME": str(tmp_path)})
    assert not ADAPTERS["claude"].can_resume(SESSION, folder.with_name("z" * 150), {"HOME": str(tmp_path)})


@pytest.mark.parametrize("rows", ["session (id TEXT, directory TEXT)", "other (id TEXT)"])
def test_opencode_s_database_is_read(tmp_path: Path, rows: str) -> None:
    data = tmp_path / ".local" / "share" / "opencode"
    data.mkdir(parents=True)
    with closing(sqlite3.connect(data / "opencode.db")) as database:
        database.execute(f"CREATE TABLE {rows}")
        if rows.startswith("session"):
            database.execute("INSERT INTO session VALUES (?, ?)", (SESSION, str(tmp_path)))
        database.commit()
    found = ADAPTERS["opencode"].can_resume(SESSION, tmp_path, {"HOME": str(tmp_path)})
    assert found == rows.startswith("session")
    assert not ADAPTERS["opencode"].can_resume(SESSION, tmp_path / "other", {"HOME": str(tmp_path)})


# When it is resumed


@pytest.mark.parametrize("why", Why)
def test_only_an_interrupted_run_is_resumed(why: Why) -> None:
    run = Run(attempt="a1", why=why, session=SESSION)
    assert may_resume([run], SESSION, 0, interrupted=False) == (why in RESUMED_AFTER)
    assert may_resume([run], SESSION, 0, interrupted=True)


def test_a_session_is_resumed_five_times_on_whatever_machine() -> None:
    runs = [Run(attempt=f"a{n}", why="limit", session=SESSION) for n in range(MOST_RESUMES + 1)]
    assert may_resume(runs[:-1], SESSION, 0, interrupted=False)
    assert not may_resume(runs, SESSION, 0, interrupted=False)
    assert not may_resume(runs[:1], SESSION, MOST_RESUMES, interrupted=True)
    assert may_resume(runs, "another", 0, interrupted=False)


class Place:
    """A jobs' folder in which claude has worked on x-1, and its home."""

    def __init__(self, folder: Path) -> None:
        self.home, self.directory = folder, folder / "project"
        self.directory.mkdir()
        self.jobs = Jobs(folder / "jobs")
        self.jobs.path.mkdir()
        self.settings = check_local(LocalAgentSettings(agent=AgentName.claude, model="m"))
        self.file = kept("claude", folder, self.directory)

    def record(self, job: str, **fields: Any) -> JobRecord:
        assert self.settings.agent_command
        words, directory = [*self.settings.agent_command.words], fields.pop("directory", str(self.directory))
        base: dict[str, Any] = {"bead": "x-1", "tracker": "t", "host": "here", "agent": "claude"}
        step = Step(kind="agent", words=words, directory=directory, timeout=1.0, stdin="prompt")
        return JobRecord(**{**base, "attempt": job, "started": float(ord(job[0])), "steps": [step], **fields})

    def ran(self, job: str, session: str = SESSION, end: dict[str, Any] | None = None, **fields: Any) -> Path:
        folder = self.jobs.path / job
        folder.mkdir()
        (folder / "job.json").write_bytes(msgspec.json.encode(self.record(job, **fields)))
        (folder / "lock").touch()
        said = {"type": "system", "subtype": "init", "session_id": session, "uuid": "u"}
        (folder / "output.0").write_text(f"{json.dumps(said)}\n")
        (folder / "end.json").write_text(json.dumps({"state": "failed", "exit_code": 1, "ended": 1.0, **(end or {})}))
        return folder

    def resumed(self, *runs: Run, **fields: Any) -> JobRecord | None:
        tried = bead(metadata=metadata_of(Record(runs=runs)))
        return resume(self.record("z", **fields), tried, self.jobs, self.settings, {"HOME": str(self.home)})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def limited(job: str = "a", **fields: Any) -> Run:
    return Run(attempt=job, job=job, ended_at=NOW, result=Result.failed, why="limit", **fields)


def test_the_last_job_s_session_is_resumed(place: Place) -> None:
    place.ran("a")
    record = place.resumed(limited())
    assert record
    [step], [cold] = record.steps, place.record("z").steps
    assert (record.session, record.resumes, step.words[-2:]) == (SESSION, 1, ["--resume", SESSION])
    assert step.cold == cold.words
    place.ran("b", session=SESSION, resumes=4)
    assert place.resumed(limited(), limited("b")) is not None
    place.ran("c", session=SESSION, resumes=5)
    record = place.resumed(limited(), limited("b"), limited("c"))
    assert record is not None, "the job of an agent that forks is counted by its record"


def test_resumes_are_counted_along_the_jobs(place: Place) -> None:
    """Some versions give a resumed session another name."""
    folder = place.ran("a")
    record = msgspec.structs.replace(place.record("a"), session="an-earlier-name", resumes=4)
    (folder / "job.json").write_bytes(msgspec.json.encode(record))
    found = place.resumed(limited())
    assert found
    assert found.resumes == 5
    (folder / "job.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(record, resumes=5)))
    assert place.resumed(limited()) is None
    end = {"state": "failed", "exit_code": 1, "ended": 1.0, "refused": True}
    (folder / "end.json").write_text(json.dumps(end))
    found = place.resumed(limited())
    assert found
    assert found.resumes == 1


@pytest.mark.parametrize(
    "end",
    [{"state": "cancelled", "by": "SIGTERM"}, {"state": "completed", "gates": [{"kind": "check", "state": "failed"}]}],
)
def test_a_reboot_and_a_failed_check_are_interruptions(place: Place, end: dict[str, Any]) -> None:
    place.ran("a", end=end)
    assert place.resumed(Run(attempt="a", job="a", result=Result.error, why="error"))


def test_a_forged_record_names_no_other_session(place: Place) -> None:
    place.ran("a")
    kept("codex", place.home, place.directory, "somebody-else")
    record = place.resumed(limited(session="somebody-else"))
    assert record
    assert record.session == SESSION
    assert place.resumed(limited("b", session=SESSION)) is None


COLD: dict[str, dict[str, Any]] = {
    "another agent": {"agent": "codex"},
    "another folder": {"directory": "/tmp"},
    "another tracker": {"tracker": "other"},
    "another lane": {"assignee": "agent-2"},
    "another bead": {"bead": "x-2"},
}


@pytest.mark.parametrize("what", COLD)
def test_a_job_that_differs_is_not_gone_on_with(place: Place, what: str) -> None:
    folder = place.ran("a")
    record = place.record("a", **COLD[what])
    (folder / "job.json").write_bytes(msgspec.json.encode(record))
    assert place.resumed(limited()) is None


def test_what_is_not_there_any_more_is_not_gone_on_with(place: Place) -> None:
    assert place.resumed(limited()) is None, "no job"
    place.ran("a")
    assert place.resumed(limited())
    (place.jobs.path / "a" / "output.0").unlink()
    assert place.resumed(limited()) is None, "no session told"
    place.ran("b")
    assert place.resumed(limited(), limited("b"))
    place.file.unlink()
    assert place.resumed(limited(), limited("b")) is None, "no transcript"
    place.file.write_text(json.dumps({"cwd": str(place.directory)}))
    assert place.resumed(limited(), limited("b"))
    place.directory.rmdir()
    assert place.resumed(limited(), limited("b")) is None, "no folder"
    place.directory.symlink_to(place.home)
    assert place.resumed(limited(), limited("b")) is None, "a link"


def test_a_later_job_of_the_bead_makes_a_session_old(place: Place) -> None:
    place.ran("a")
    place.ran("b")
    assert place.resumed(limited()) is None


def test_two_jobs_never_go_on_in_one_session(place: Place) -> None:
    place.ran("a")
    other = place.ran("b", bead="x-2")
    record = msgspec.structs.replace(place.record("b"), bead="x-2", session=SESSION)
    (other / "job.json").write_bytes(msgspec.json.encode(record))
    with alive(other):
        assert place.resumed(limited()) is None
    assert place.resumed(limited())


def test_a_command_of_one_s_own_takes_no_session(place: Place) -> None:
    place.ran("a")
    place.settings = check_local(LocalAgentSettings(agent=AgentName.claude, agent_command=parse_command("my-claude")))
    assert place.resumed(limited()) is None


@pytest.mark.parametrize("agent", ["codex", "claude"])
def test_tokens_of_earlier_runs_of_a_session_are_taken_off(agent: str) -> None:
    end = AgentEnd(agent=agent, tokens=900)
    assert since_resumed(end, 700).tokens == (200 if agent == "codex" else 900)
    assert since_resumed(end, 1000).tokens == 900


# A refusal

JSON_LINE = b'{"type": "result", "is_error": true}'
REFUSALS = [
    ("failed", b"No conversation found with session ID: abc\n", True),
    ("failed", b"Error: thread/resume: thread/resume failed: no rollout found for thread id 01 (code -32600)\n", True),
    ("failed", b'Error resuming session: Invalid session identifier "abc".\n', True),
    ("completed", b'NotFoundError: NotFoundError\n data: {\n  message: "Session not found: ses_1",\n}\n', True),
    ("completed", b"", True),
    ("failed", JSON_LINE[:-1] + b', "errors": ["No conversation found with session ID: abc"]}\n', True),
    ("failed", JSON_LINE[:-1] + b', "result": "You\'ve hit your limit"}\n', False),
    ("completed", b'{"type": "result", "result": "the session is not found in the shop"}\n', False),
    ("error", b"", False),
    ("timeout", b"", False),
]


@pytest.mark.parametrize(("state", "output", "refused"), REFUSALS)
def test_a_refused_session_is_told_from_a_failed_run(state: str, output: bytes, refused: bool) -> None:
    assert _refused({"state": state}, output) is refused


# What is said in the session


def tried(**fields: Any) -> Bead:
    return bead(metadata=metadata_of(Record(runs=(limited(), limited("b", words="5-hour limit")))), **fields)


def test_only_what_is_new_is_said_in_a_session() -> None:
    notes = "dispatched: job=a\nold\ndispatched: job=b\nclaimed by agent b\nhalf done\nagent finished: job=b\nhurry"
    text = describe_last(tried(notes=notes), "exit 1: 2 failed")
    assert text.splitlines() == [
        "This is attempt 3 on this bead. How the last one ended:",
        "",
        "2. failed (limit) at 2026-04-18T22:35:46Z.",
        "   Its last words: “5-hour limit”",
        "   Its check failed: “exit 1: 2 failed”",
        "",
        "What was written on the bead since that one began, the newest last:",
        "",
        "> half done",
        "> hurry",
    ]


@pytest.mark.parametrize("changed", [True, False])
def test_a_bead_s_text_is_repeated_if_it_has_changed(changed: bool) -> None:
    again = tried(description="Use {job} and $(it)")
    text = render_resumed(TEMPLATE, again, "c", "(earlier)", changed=changed)
    assert ("Use {job} and $(it)" in text) == changed
    for part in ("claimed by agent c", "(earlier)", "bd close x-1", "bd show x-1"):
        assert part in text
    assert "{" not in text.replace("{job}", "")


def test_a_template_of_one_s_own_is_not_contradicted() -> None:
    assert "bd close" not in render_resumed("mine", tried(), "c", "", changed=False)


def test_a_digest_follows_the_text_alone() -> None:
    assert text_digest(tried()) == text_digest(tried(notes="x", priority=0))
    assert len({text_digest(tried(**{name: "new"})) for name in ("title", "description", "acceptance_criteria")}) == 3
