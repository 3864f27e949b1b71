"""The end of a job, read from what services and agents say; and what is recorded of it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.agents.kubernetes.message import message_of
from bdauto.agents.kubernetes.message import said as pod_end
from bdauto.agents.service_output import job_end
from bdauto.domain.agent_end import AgentEnd, Why
from bdauto.domain.record import Result, Run
from bdauto.domain.results import describe_end, detail, ended_run, finish_note, format_cost, last_words, lost, told_end
from tests.support.fakes import NOW

CLAUDE = {
    "type": "result",
    "is_error": False,
    "duration_ms": 251_700,
    "num_turns": 12,
    "result": "Found it.\n\nThe session cookie lacked a path.\n",
    "total_cost_usd": 0.41996,
    "usage": {"input_tokens": 100, "output_tokens": 20},
    "session_id": "s-1",
}
STARTED, FINISHED = "2026-04-18T22:30:00+00:00", "2026-04-18T22:34:12.400000+00:00"
TOLD: dict[str, Any] = {
    "agent": "claude",
    "why": Why.ok,
    "cost_usd": 0.42,
    "tokens": 120,
    "turns": 12,
    "session": "s-1",
    "words": "The session cookie lacked a path.",
}


def _job(**fields: Any) -> dict[str, Any]:
    job = {"status": "completed", "started_at": STARTED, "finished_at": FINISHED, "output": [json.dumps(CLAUDE)]}
    return job | fields


ENDED = datetime.fromisoformat(FINISHED)
ENDS: list[tuple[str, dict[str, Any], Run | None]] = [
    (
        "completed",
        _job(),
        Run(result=Result.completed, ended_at=ENDED, seconds=252, **TOLD),
    ),
    ("running", _job(status="running"), None),
    ("a state of tomorrow", _job(status="cancelling"), None),
    ("a state of another type", _job(status=["failed"]), None),
    (
        "stderr, when nothing was said",
        _job(status="failed", output=[], stderr="warning\nInvalid API key\n"),
        Run(result=Result.failed, ended_at=ENDED, seconds=252, why=Why.login, words="Invalid API key"),
    ),
    (
        "what went wrong comes first",
        _job(status="error", error="git clone failed (128): fatal"),
        Run(
            result=Result.error,
            ended_at=ENDED,
            seconds=252,
            **TOLD | {"why": Why.error, "words": "git clone failed (128): fatal"},
        ),
    ),
    (
        "failed though its agent was content",
        _job(status="failed"),
        Run(result=Result.failed, ended_at=ENDED, seconds=252, **TOLD | {"why": Why.error}),
    ),
    (
        "a time of day in a zone that nobody knows: a trial in an hour",
        _job(output=[json.dumps(CLAUDE | {"is_error": True, "result": "usage limit reached, resets 3pm"})]),
        Run(
            result=Result.failed,
            ended_at=ENDED,
            seconds=252,
            reset_at=ENDED + timedelta(hours=1),
            **TOLD | {"why": Why.limit, "words": "usage limit reached, resets 3pm"},
        ),
    ),
    (
        "a tool prints after the agent's own result",
        _job(output=[json.dumps(CLAUDE), '{"result": "pass"}', "6 hooks ran"]),
        Run(result=Result.completed, ended_at=ENDED, seconds=252, **TOLD),
    ),
    (
        "an older service says nothing but the state",
        {"status": "timeout"},
        Run(result=Result.timeout, ended_at=NOW, why=Why.timeout),
    ),
    (
        "it ends in the future, before it began",
        _job(finished_at="2031-01-01T00:00:00Z", started_at="2032-01-01T00:00:00Z", output=7),
        Run(result=Result.completed, ended_at=NOW, why=Why.ok),
    ),
    (
        "times that are none",
        _job(finished_at="yesterday", started_at=12, output=None, stderr={}),
        Run(result=Result.completed, ended_at=NOW, why=Why.ok),
    ),
]


@pytest.mark.parametrize(("job", "end"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_how_a_job_ended(job: dict[str, Any], end: Run | None) -> None:
    assert job_end(job, NOW) == end


FAILURES = [Why.error, Why.limit, Why.login, Why.overloaded, Why.network, Why.turns, Why.budget]


@pytest.mark.parametrize("why", [None, Why.ok, Why.denied, *FAILURES])
def test_a_job_has_failed_where_its_agent_says_so(why: Why | None) -> None:
    end = told_end(Result.completed, NOW, AgentEnd(why=why))
    assert (end.result, end.why) == (Result.failed if why in FAILURES else Result.completed, why or Why.ok)


@pytest.mark.parametrize(
    ("result", "why"), [(Result.timeout, Why.timeout), (Result.lost, Why.lost), (Result.error, Why.error)]
)
def test_a_state_that_says_why_counts_before_the_agent(result: Result, why: Why) -> None:
    assert told_end(result, NOW, AgentEnd(why=Why.ok)).why is why
    assert told_end(result, NOW, AgentEnd(), why=Why.stopped).why is Why.stopped


def test_the_tools_that_an_agent_was_denied_are_named() -> None:
    end = told_end(Result.completed, NOW, AgentEnd(why=Why.denied, denied=("Bash", "Write"), words="Done."))
    assert end.words == "was not allowed to use Bash, Write: Done."


def test_all_that_an_agent_tells_reaches_its_run() -> None:
    """A new field of AgentEnd is told here first. It is lost where one of the ways does not pass it on."""
    told = AgentEnd(
        agent="claude",
        why=Why.limit,
        words="limit reached",
        cost_usd=0.5,
        tokens=900,
        turns=3,
        seconds=12,
        sessions=("s-1",),
        denied=("Bash",),
        reset_at=NOW,
    )
    facts = msgspec.structs.asdict(told)
    assert [name for name, value in facts.items() if value == getattr(AgentEnd(), name)] == [], "give it a value above"
    run = told_end(Result.failed, NOW, told)
    facts |= {"session": facts.pop("sessions")[-1]}
    del facts["denied"]  # the words name them
    assert {name: getattr(run, name) for name in facts} == facts
    assert pod_end(message_of(run, "failed"), checked=False) == msgspec.structs.replace(told, denied=()), "from a pod"


def test_a_run_records_the_whole_end() -> None:
    run = ended_run(Run(attempt="w1"), Run(result=Result.completed, ended_at=NOW, **TOLD))
    assert {name: getattr(run, name) for name in TOLD} == TOLD
    assert ended_run(Run(attempt="w1"), lost(NOW)).why is Why.lost


_json = st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text() | st.integers())


@given(st.dictionaries(st.sampled_from(["output", "stderr", "error", "started_at", "finished_at"]), _json))
def test_no_answer_makes_it_fail(job: dict[str, Any]) -> None:
    end = job_end(job | {"status": "failed"}, NOW)
    assert end is not None
    assert end.ended_at is not None
    assert end.ended_at <= NOW
    assert "\n" not in end.words
    assert len(end.words) <= 200


def test_the_note() -> None:
    end = Run(
        result=Result.completed,
        ended_at=datetime(2026, 4, 18, 20, 0, tzinfo=UTC),
        seconds=252,
        cost_usd=0.42,
        words="done",
    )
    assert finish_note("j1", end, words=False) == (
        "agent finished: job=j1 completed in 4m12s, $0.42 at 2026-04-18T20:00:00Z"
    )
    assert finish_note("j1", end, words=True).endswith("Z: done")
    nothing = Run(result=Result.lost, ended_at=NOW)
    assert finish_note("j1", nothing, words=True) == "agent finished: job=j1 lost at 2026-04-18T22:35:46Z"


def test_amounts() -> None:
    assert [format_cost(n) for n in (0, 0.42, 0.4213, 0.031, 12)] == ["$0.00", "$0.42", "$0.4213", "$0.031", "$12.00"]


@pytest.mark.parametrize(
    ("exit_code", "why", "told"),
    [
        (3, Why.error, "exit status 3: boom"),
        (137, Why.error, "exit status 137 (SIGKILL): boom"),
        (255, Why.unknown, "exit status 255: boom"),
        (-11, Why.error, "killed by SIGSEGV: boom"),
        (-9, Why.limit, "killed by SIGKILL: boom"),
        (-64, Why.error, "killed by SIGRTMAX: boom"),
        (-35, Why.error, "killed by signal 35: boom"),
        (1, Why.limit, "boom"),
    ],
)
def test_a_crash_says_its_exit_status_unless_its_cause_is_known(exit_code: int, why: Why, told: str) -> None:
    end = told_end(Result.failed, NOW, AgentEnd(why=why, words="boom"), exit_code=exit_code, seconds=4)
    assert detail(end) == told
    assert describe_end(end).startswith(f"failed after 4s: {told}")
    assert finish_note("j", end, words=True).endswith(f": {told}")


@pytest.mark.parametrize(
    ("result", "exit_code"), [(Result.completed, 0), (Result.timeout, -15), (Result.stopped, -15), (Result.failed, 999)]
)
def test_how_bdauto_ended_an_agent_is_no_exit_status(result: Result, exit_code: int) -> None:
    assert told_end(result, NOW, AgentEnd(), exit_code=exit_code) == told_end(result, NOW, AgentEnd())


COMPILER = (
    "cc -c main.c\nmain.c:3:5: error: expected ';'\n    3 |   int x\n      |   ^\n1 error generated.\n"
    "make: *** [all] Error 1"
)
PYTHON = (
    'step 1\nTraceback (most recent call last):\n  File "x.py", line 3, in <module>\n    raise KeyError("a")\n'
    "KeyError: 'a'"
)
NODE = "/x.js:3\n    throw new Error()\n    ^\n\nError: boom\n    at Object.<anonymous> (/x.js:3:7)\n\nNode.js v20.1.0"
GO = "ok so far\npanic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:4 +0x1d\nexit status 2"
RUST = "thread 'main' panicked at src/main.rs:2:5:\nboom\nnote: run with `RUST_BACKTRACE=1` to display a backtrace"
JAVA = 'Exception in thread "main" java.lang.IllegalStateException: boom\n\tat X.main(X.java:3)'
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----\nfatal: bad key"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (COMPILER, "main.c:3:5: error: expected ';' | make: *** [all] Error 1"),
        (PYTHON, "KeyError: 'a'"),
        (f"{PYTHON}\nthe agent gave up", "KeyError: 'a' | the agent gave up"),
        (NODE, "Error: boom"),
        (GO, "panic: boom | exit status 2"),
        (RUST, "thread 'main' panicked at src/main.rs:2:5: | boom"),
        (JAVA, 'Exception in thread "main" java.lang.IllegalStateException: boom'),
        (
            "pushing\nthe branch is protected\n--agent-land failed: exit status 3",
            "pushing | the branch is protected | --agent-land failed: exit status 3",
        ),
        ("/bin/sh: 1: claud: not found", "/bin/sh: 1: claud: not found"),
        ("1 passed, 0 failed\nno errors\nbye", "1 passed, 0 failed | no errors | bye"),
        ("[ERROR] boom\n[INFO] end\n]", "[ERROR] boom | [INFO] end"),
        ("one\ntwo\nthree\nfour", "two | three | four"),
        (KEY, "fatal: bad key"),
        ("error: x\n" * 50, "error: x"),
        (f"error: {'x' * 500}", f"error: {'x' * 192}…"),
        (f"error: {'x' * 150}\nerror: {'y' * 150}", f"error: {'y' * 150}"),
        ("\x1b[31merror\x1b[0m: boom\u202e", "error: boom"),
        ("", ""),
        ("}\n]", ""),
    ],
)
def test_a_crash_is_told_by_the_lines_that_name_an_error(output: str, words: str) -> None:
    assert last_words(output.splitlines()) == words
