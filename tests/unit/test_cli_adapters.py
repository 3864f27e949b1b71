"""What the command lines of agents say, in streams after their documented schemas."""

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.agents.cli_adapters.permissions import lacks_permission
from bdauto.agents.cli_adapters.stream import LINE_LIMIT, values
from bdauto.agents.cli_adapters.table import ADAPTERS, Reader, last_event, read_end, reads_of
from bdauto.agents.cli_adapters.transcript import Transcript, events
from bdauto.agents.local.settings import AgentName
from bdauto.domain.agent_end import AgentEnd, Why

ENDED = datetime(2026, 11, 30, 11, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
STACK = "\n".join(f"    at run (/usr/lib/cli/chunk-{n}.js:{n}:14)" for n in range(20))


def lines(*objects: Any) -> str:
    return "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in objects)


def end_of(output: str | bytes, agent: str = "", *, failed: bool = False) -> AgentEnd:
    data = output.encode() if isinstance(output, str) else output
    return read_end([data], agent, ENDED, BERLIN, failed=failed)


def shown(output: str, agent: str = "") -> list[str]:
    return [event.line() for event in events([output.encode()], Transcript(), reads_of(agent))]


# Claude Code

SESSION = "7e0f6c1e-3b1a-4a55-9c53-0d5f6a2b9e10"
INIT = {"type": "system", "subtype": "init", "session_id": SESSION, "model": "claude-haiku", "tools": ["Bash"]}


def assistant(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": list(content)}, "session_id": SESSION}


def result(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 5}
    base = {"type": "result", "subtype": "success", "is_error": False, "duration_ms": 61_000, "num_turns": 7}
    more = {"result": "Wrote the haiku.", "session_id": SESSION, "total_cost_usd": 0.1234, "usage": usage}
    return {**base, **more, "permission_denials": [], **fields}


def tool_use(name: str, **given: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": given}


CLAUDE = lines(
    INIT,
    assistant({"type": "text", "text": "I'll write it."}, tool_use("Edit", file_path="haiku.txt")),
    {"type": "user", "message": {"content": [{"type": "tool_result", "content": "ok"}]}, "session_id": SESSION},
    assistant(tool_use("Bash", command="bd note x-1 claimed by agent j")),
    result(),
)
CLAUDE_END = AgentEnd(
    agent="claude",
    why=Why.ok,
    words="Wrote the haiku.",
    cost_usd=0.1234,
    tokens=135,
    turns=7,
    seconds=61,
    sessions=(SESSION,),
)

# Codex

THREAD = {"type": "thread.started", "thread_id": "0199a213-81c0-7800-8aa1-bbab2a035a53"}
CODEX = lines(
    THREAD,
    {"type": "turn.started"},
    {"type": "item.started", "item": {"id": "i0", "type": "command_execution", "command": "bash -lc ls"}},
    {"type": "item.completed", "item": {"id": "i0", "type": "command_execution", "command": "bash -lc ls"}},
    {"type": "item.completed", "item": {"id": "i1", "type": "file_change", "changes": [{"path": "haiku.txt"}]}},
    {"type": "item.completed", "item": {"id": "i2", "type": "agent_message", "text": "The haiku is written."}},
    {"type": "turn.completed", "usage": {"input_tokens": 900, "cached_input_tokens": 800, "output_tokens": 50}},
)
CODEX_END = AgentEnd(
    agent="codex",
    why=Why.ok,
    words="The haiku is written.",
    tokens=950,
    turns=1,
    sessions=("0199a213-81c0-7800-8aa1-bbab2a035a53",),
)

# Gemini


def gemini(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": "2026-11-30T10:59:00.000Z", **fields}


GEMINI = lines(
    gemini("init", session_id="g-1", model="gemini-3-pro"),
    gemini("message", role="user", content="Write a haiku"),
    gemini("message", role="assistant", content="Let me look.", delta=True),
    gemini("tool_use", tool_name="run_shell_command", tool_id="t1", parameters={"command": "bd note x-1 hello"}),
    gemini("tool_result", tool_id="t1", status="success", output="ok"),
    gemini("message", role="assistant", content="The haiku ", delta=True),
    gemini("message", role="assistant", content="is done.", delta=True),
    gemini("result", status="success", stats={"total_tokens": 1200, "duration_ms": 30_000, "tool_calls": 1}),
)
GEMINI_END = AgentEnd(
    agent="gemini", why=Why.ok, words="The haiku is done.", tokens=1200, seconds=30, sessions=("g-1",)
)
GEMINI_JSON = {
    "session_id": "g-1",
    "response": "The haiku is done.",
    "stats": {"models": {"gemini-3-pro": {"tokens": {"total": 1000}}, "flash": {"tokens": {"total": 200}}}},
}

# opencode


def opencode(kind: str, **part: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": 1796036400000, "sessionID": "ses_1", "part": part}


OPENCODE = lines(
    opencode("step_start"),
    opencode("tool_use", tool="edit", callID="c1", state={"status": "completed", "input": {"filePath": "haiku.txt"}}),
    opencode("step_finish", reason="tool-calls", cost=0.01, tokens={"input": 100, "output": 10, "reasoning": 0}),
    opencode("text", text="All done."),
    opencode("step_finish", reason="stop", cost=0.025, tokens={"input": 5, "output": 5, "cache": {"read": 80}}),
)
OPENCODE_END = AgentEnd(
    agent="opencode",
    why=Why.ok,
    words="All done.",
    cost_usd=0.035,
    tokens=200,
    turns=2,
    sessions=("ses_1",),
)

STREAMS = {
    "claude": (CLAUDE, CLAUDE_END),
    "codex": (CODEX, CODEX_END),
    "gemini": (GEMINI, GEMINI_END),
    "opencode": (OPENCODE, OPENCODE_END),
}
each = pytest.mark.parametrize("agent", STREAMS)


@each
def test_a_stream_is_read_by_its_adapter_and_by_shape(agent: str) -> None:
    stream, expected = STREAMS[agent]
    assert end_of(stream, agent) == expected
    assert end_of(stream) == expected


def in_noise(text: str) -> Iterator[bytes]:
    data = text.encode()
    yield b"\xef\xbb\xbf" + data
    yield data.replace(b"\n", b"\r\n")
    yield b"\x1b[32m" + data.replace(b"\n", b"\x1b[0m\n\x1b[2K")
    yield b"\x00" + data.replace(b"\n", b"\n\x00\xff\xfe\n")
    yield data.replace(b"\n", b"\nnpm warn something is deprecated\n")
    yield data + b"hook: one\nhook: two\nhook: three\nhook: four\nhook: five\nhook: six\n"
    yield data.rstrip(b"\n")
    yield data + b'{"result": "pass"}\n'


@each
def test_noise_around_a_stream_changes_nothing(agent: str) -> None:
    stream, expected = STREAMS[agent]
    for data in in_noise(stream):
        assert end_of(data, agent) == expected, data[-200:]
        assert end_of(data) == expected, data[-200:]


@each
def test_a_stream_may_come_in_pieces_of_any_size(agent: str) -> None:
    stream, expected = STREAMS[agent]
    for size in (1, 7, 1000):
        data = stream.encode()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert read_end(pieces, agent, ENDED, BERLIN, failed=False) == expected


@each
def test_a_stream_that_was_cut_anywhere_is_read_as_far_as_it_goes(agent: str) -> None:
    stream, expected = STREAMS[agent]
    data = stream.encode()
    for cut in range(0, len(data), 13):
        head, tail = end_of(data[:cut], agent, failed=True), end_of(data[cut:], agent)
        assert head.why is not None
        assert not head.words.startswith(("{", "}", "["))
        assert tail.why in (Why.ok, None)
        assert (head.cost_usd or 0.0) <= (expected.cost_usd or 0.0)


@each
def test_a_stream_of_50_mb_is_read_in_little_memory(agent: str) -> None:
    stream, expected = STREAMS[agent]
    *first, last = stream.encode().splitlines(keepends=True)
    filler = (b"building module " * 2500 + b"\n") * 25
    chunks = (filler for _ in range(50))
    assert read_end((*first, *chunks, last), agent, ENDED, BERLIN, failed=False) == expected


@each
def test_the_words_of_a_command_ask_for_a_stream(agent: str) -> None:
    words = ADAPTERS[agent].command("the-model", None, "")
    assert words[0] == agent
    assert {"stream-json", "json", "--json"} & set(words)
    assert words[words.index("--model") + 1] == "the-model"
    assert "--model" not in ADAPTERS[agent].command("", None, "")
    assert "s-1" in ADAPTERS[agent].command("", None, "s-1")


def test_the_agents_that_can_be_named_are_those_of_the_table() -> None:
    assert [*AgentName] == [*ADAPTERS]


@pytest.mark.parametrize(
    ("command", "agent"),
    [
        ("claude -p", "claude"),
        ("claude -p --permission-mode acceptEdits", "claude"),
        ("claude -p --allowedTools Edit,Write", "claude"),
        ("claude -p --allowedTools 'Bash(npm test:*)'", "claude"),
        ("/usr/bin/env A=1 /opt/bin/claude -p --output-format json", "claude"),
        ("sh -c 'claude -p | tee log'", "claude"),
        ("codex exec --json -", "codex"),
        ("codex exec --sandbox read-only", "codex"),
        ("gemini --approval-mode auto_edit", "gemini"),
        ("claude -p --dangerously-skip-permissions", ""),
        ("claude -p --permission-mode bypassPermissions", ""),
        ("claude -p --allowedTools 'Edit,Bash(bd:*)'", ""),
        ("claude -p --allowed-tools Edit Bash", ""),
        ("claude -p --allowedTools 'Bash(bd *)' --verbose", ""),
        ("codex exec --sandbox workspace-write -", ""),
        ("codex exec --dangerously-bypass-approvals-and-sandbox", ""),
        ("gemini --yolo", ""),
        ("opencode run", ""),
        ("aider --yes", ""),
        ("sh -c 'my-wrapper'", ""),
    ],
)
def test_a_command_that_may_not_run_bd_is_known(command: str, agent: str) -> None:
    assert lacks_permission(shlex.split(command), lambda _: "") == agent


@pytest.mark.parametrize(
    ("command", "file", "text", "permitted"),
    [
        ("claude -p", ".claude/settings.json", '{"permissions": {"allow": ["Edit", "Bash(bd:*)"]}}', True),
        ("claude -p", "~/.claude/settings.json", '{"permissions": {"defaultMode": "bypassPermissions"}}', True),
        ("claude -p", ".claude/settings.json", '{"permissions": {"allow": ["Edit"], "deny": ["Bash(bd:*)"]}}', False),
        ("codex exec -", "~/.codex/config.toml", 'model = "m"\nsandbox_mode = "workspace-write"\n', True),
        ("codex exec -", "~/.codex/config.toml", 'sandbox_mode = "read-only"\n', False),
    ],
)
def test_the_settings_of_an_agent_may_permit_bd(command: str, file: str, text: str, permitted: bool) -> None:
    found = lacks_permission(shlex.split(command), lambda name: text if name == file else "")
    assert (found == "") is permitted


@each
def test_an_agent_that_is_named_may_run_bd(agent: str) -> None:
    assert lacks_permission(ADAPTERS[agent].command("", None, ""), lambda _: "") == ""


def test_claude_is_given_the_limit_of_a_run() -> None:
    assert ADAPTERS["claude"].command("", 2.5, "")[-2:] == ["--max-budget-usd", "2.5"]


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (
            "claude",
            [
                f"● session {SESSION}, claude-haiku",
                "I'll write it.",
                "▸ Edit haiku.txt",
                "$ bd note x-1 claimed by agent j",
                "■ ok: Wrote the haiku.",
            ],
        ),
        (
            "codex",
            [f"● session {THREAD['thread_id']}", "$ bash -lc ls", "▸ Edit haiku.txt", "The haiku is written.", "■ ok"],
        ),
        (
            "gemini",
            ["● session g-1, gemini-3-pro", "Let me look.", "$ bd note x-1 hello", "The haiku is done.", "■ ok"],
        ),
        ("opencode", ["● session ses_1", "▸ edit haiku.txt", "All done.", "■ ok"]),
    ],
)
def test_what_an_agent_does_is_shown_on_a_line_each(agent: str, expected: list[str]) -> None:
    assert shown(STREAMS[agent][0], agent) == expected
    assert shown(STREAMS[agent][0]) == expected


def test_what_was_said_is_shown_on_its_own_lines() -> None:
    said = "First:\n\n- one\n\x1b[31m- two"
    [event] = events([lines(assistant({"type": "text", "text": said})).encode()], Transcript(), reads_of("claude"))
    assert event.lines() == "First:\n\n- one\n- two"
    assert event.line() == "First: - one - two"


def test_a_key_with_colour_or_invisible_characters_in_it_is_hidden() -> None:
    said = "it is sk-ant-\x1b[31mapi03-\u200bAbC0123456789"
    [event] = events([lines(assistant({"type": "text", "text": said})).encode()], Transcript(), reads_of("claude"))
    assert event.lines() == "it is ***"


def test_pieces_of_a_message_are_shown_line_by_line() -> None:
    def piece(text: str) -> str:
        return lines(gemini("message", role="assistant", content=text, delta=True))

    reader = Reader("gemini")
    assert [event.text for event in reader.feed(piece("one\ntw").encode())] == ["one"]
    assert [event.text for event in reader.feed(piece("o").encode())] == []
    assert [event.text for event in reader.feed(piece("\nthree").encode())] == ["two"]
    assert [event.text for event in reader.end()] == ["three"]


def test_limits_and_errors_are_shown() -> None:
    output = lines(limit_event("rejected"), result(is_error=True, result="API Error: 529 overloaded"))
    assert shown(output) == ["! limit reached: five_hour", "✗ API Error: 529 overloaded"]


def test_the_lines_of_a_plain_command_are_shown_as_they_come() -> None:
    """None is held back because it looks like the beginning of JSON."""
    reader = Reader()
    for line in ("[INFO] starting", "{braces} in text", "[1/3] Compiling", '{"level":"info","event":"ready"}'):
        assert [event.line() for event in reader.feed(f"{line}\n".encode())] == [line]


@pytest.mark.parametrize(
    ("agent", "last"),
    [("claude", "■ ok: Wrote the haiku."), ("codex", "■ ok"), ("gemini", "■ ok"), ("opencode", "■ ok")],
)
def test_the_last_event_of_the_end_of_an_output(agent: str, last: str) -> None:
    data = STREAMS[agent][0].encode()
    assert last_event([data[-700:].partition(b"\n")[2]], agent) == last
    assert last_event([b""], agent) == ""


# Claude: the ways to end


@pytest.mark.parametrize(
    ("fields", "why", "words"),
    [
        ({"subtype": "error_max_turns", "result": None, "errors": ["Reached 30 turns"]}, Why.turns, "Reached 30 turns"),
        (
            {"subtype": "error_max_budget_usd", "total_cost_usd": 5.01, "errors": ["over"]},
            Why.budget,
            "Wrote the haiku.",
        ),
        ({"is_error": True, "result": "API Error: 529 overloaded"}, Why.overloaded, "API Error: 529 overloaded"),
        ({"api_error_status": 529, "result": "API Error"}, Why.overloaded, "API Error"),
        ({"is_error": True, "api_error_status": 401, "result": "Please run /login"}, Why.login, "Please run /login"),
        (
            {"is_error": True, "result": "Invalid API key · Please run /login"},
            Why.login,
            "Invalid API key · Please run /login",
        ),
        (
            {"is_error": True, "result": "API Error: getaddrinfo ENOTFOUND"},
            Why.network,
            "API Error: getaddrinfo ENOTFOUND",
        ),
        ({"subtype": "error_during_execution", "result": None, "errors": ["boom"]}, Why.error, "boom"),
        (
            {"is_error": True, "result": "You've hit your limit · resets 3pm"},
            Why.limit,
            "You've hit your limit · resets 3pm",
        ),
    ],
)
def test_the_ways_claude_ends(fields: dict[str, Any], why: Why, words: str) -> None:
    end = end_of(lines(INIT, result(**fields)), "claude")
    assert (end.why, end.words) == (why, words)
    assert end.cost_usd == fields.get("total_cost_usd", 0.1234)


def test_denied_tools_are_named() -> None:
    denials: list[Any] = [
        {"tool_name": name, "tool_use_id": "t", "tool_input": {}} for name in ("Bash", "Write", "Bash")
    ]
    end = end_of(lines(result(permission_denials=denials)), "claude")
    assert (end.why, end.denied) == (Why.denied, ("Bash", "Write"))


def test_tools_that_gemini_and_opencode_refuse_are_named() -> None:
    call = gemini("tool_use", tool_name="run_shell_command", tool_id="t1", parameters={"command": "npm test"})
    error = {"type": "policy_violation", "message": "Tool execution denied by policy."}
    refused = gemini("tool_result", tool_id="t1", status="error", error=error)
    done = gemini("result", status="success", stats={})
    end = end_of(lines(call, refused, done), "gemini")
    assert (end.why, end.denied) == (Why.denied, ("run_shell_command",))
    rejected = {"type": "done", "sessionID": "s", "reason": "idle", "rejected": ["external_directory"]}
    end = end_of(OPENCODE + lines(rejected), "opencode")
    assert (end.why, end.denied) == (Why.denied, ("external_directory",))


def limit_event(status: str, wait: timedelta = timedelta(hours=3)) -> dict[str, Any]:
    info = {"status": status, "resetsAt": int((ENDED + wait).timestamp()), "rateLimitType": "five_hour"}
    return {"type": "rate_limit_event", "rate_limit_info": info, "uuid": "u", "session_id": SESSION}


def test_a_rejected_limit_says_when_it_ends() -> None:
    end = end_of(lines(INIT, limit_event("rejected"), result(is_error=True, result="You've hit your limit")), "claude")
    assert (end.why, end.reset_at) == (Why.limit, ENDED + timedelta(hours=3))


def test_a_rejected_limit_without_a_result_is_a_limit() -> None:
    end = end_of(lines(INIT, limit_event("rejected")), "claude", failed=True)
    assert (end.why, end.reset_at) == (Why.limit, ENDED + timedelta(hours=3))


@pytest.mark.parametrize(
    ("hours", "expected"), [((-2, 4), 4), ((3, 60), 60), ((60, 3), 60), ((3, 24 * 40), 3), ((24 * 40,), None)]
)
def test_of_several_limits_the_last_to_end_counts(hours: tuple[int, ...], expected: int | None) -> None:
    reached = [limit_event("rejected", timedelta(hours=each)) for each in hours]
    end = end_of(lines(INIT, *reached, result(is_error=True, result="limit")), "claude")
    assert end.reset_at == (ENDED + timedelta(hours=expected) if expected else None)


def test_a_warning_is_no_limit() -> None:
    end = end_of(lines(INIT, limit_event("allowed_warning"), result()), "claude")
    assert (end.why, end.reset_at) == (Why.ok, None)


def test_a_limit_that_the_command_got_round_is_none() -> None:
    assert end_of(lines(limit_event("rejected"), result()), "claude").why is Why.ok


@pytest.mark.parametrize(
    ("results", "cost", "sessions"),
    [
        ((("a", 0.5), ("b", 0.7), ("c", 0.2)), 1.4, ("a", "b", "c")),
        ((("a", 0.5), ("a", 1.2)), 1.2, ("a",)),
        ((("a", 0.5), ("b", 0.1), ("a", 0.9)), 1.0, ("b", "a")),
        (((None, 0.5), (None, 0.5)), 1.0, ()),
    ],
)
def test_costs_add_up_per_session(
    results: tuple[tuple[str | None, float], ...], cost: float, sessions: tuple[str, ...]
) -> None:
    output = lines(*(result(session_id=session, total_cost_usd=usd) for session, usd in results))
    end = end_of(output)
    assert (end.cost_usd, end.sessions) == (cost, sessions)


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(result()),
        json.dumps(result(), indent=2),
        json.dumps([INIT, result(), {"type": "system", "subtype": "hook_response", "session_id": SESSION}]),
        json.dumps([INIT, result(), {"type": "system", "session_id": SESSION}], indent=2),
        f"starting\n{json.dumps(result(), indent=2)}\nhook done\n" + "bye\n" * 6,
    ],
)
def test_claude_json_in_every_layout(output: str) -> None:
    assert end_of(output) == CLAUDE_END
    assert end_of(output, "claude") == CLAUDE_END


# The others


def test_a_turn_of_codex_that_failed() -> None:
    message = "unexpected status 401 Unauthorized: token expired"
    end = end_of(lines(THREAD, {"type": "turn.failed", "error": {"message": message}}), "codex")
    assert (end.why, end.words) == (Why.login, message)


def test_a_limit_of_codex() -> None:
    message = f"You've hit your usage limit. {'Upgrade to Pro. ' * 10} or try again at 4:37 PM."
    end = end_of(lines({"type": "error", "message": message}, {"type": "turn.failed", "error": {"message": message}}))
    assert (end.why, end.reset_at) == (Why.limit, datetime(2026, 11, 30, 15, 37, tzinfo=UTC))


def test_gemini_json_on_many_lines() -> None:
    end = end_of(json.dumps(GEMINI_JSON, indent=2))
    assert (end.why, end.words, end.tokens, end.cost_usd) == (Why.ok, "The haiku is done.", 1200, None)


def test_a_quota_of_gemini() -> None:
    error = {"type": "Error", "message": "You have exhausted your quota. It will reset after 45m12s.", "code": 429}
    end = end_of(json.dumps({"session_id": "g", "stats": {}, "error": error}, indent=2), "gemini")
    assert (end.why, end.reset_at) == (Why.limit, ENDED + timedelta(minutes=45, seconds=12))


def test_an_error_of_opencode() -> None:
    error = {"name": "APIError", "data": {"message": "Too many requests", "statusCode": 429}}
    end = end_of(lines({"type": "error", "sessionID": "s", "timestamp": 1, "error": error}), "opencode")
    assert (end.why, end.words) == (Why.limit, "Too many requests")


# Plain commands


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("working\nThe haiku is written.\ntokens used\n12,345\n", "The haiku is written."),
        ("The haiku is written.\n}\n", "The haiku is written."),
        ('all good\n{"event": "x", "n": 1}\n', "all good"),
        ("", ""),
        ("42\n", ""),
    ],
)
def test_the_last_words_of_a_plain_command_say_something(output: str, words: str) -> None:
    end = end_of(output)
    assert (end.why, end.words) == (None, words)


def test_aider_tells_the_cost_of_its_session() -> None:
    said = "Tokens: 2.1k sent, 100 received. Cost: $0.0100 message, $0.01 session.\n"
    end = end_of(said + "Tokens: 3k sent, 9 received. Cost: $0.0300 message, $0.04 session.\nApplied edit to a.py\n")
    assert (end.cost_usd, end.words) == (0.04, "Applied edit to a.py")


RESETS = "resets 3pm (Europe/Berlin)"
HOOKS = "hook: formatted 3 files\nDone in 2.1s\n"
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
EXHAUSTED = {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED", "details": []}}
RETRY = {"error": {**EXHAUSTED["error"], "details": [{"@type": "type.example/RetryInfo", "retryDelay": "2475s"}]}}


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (f"Error: 429 Too Many Requests, retry in 34.07s\n{STACK}\n", Why.limit),
        (f"TypeError: fetch failed: getaddrinfo ENOTFOUND api.example\n{STACK}\n", Why.network),
        ("Error: 503 Service Unavailable\n", Why.overloaded),
        ("error: not logged in\n", Why.login),
        ("API Error: 529 overloaded\n" + HOOKS, Why.overloaded),
        (f"API Error: 529 {json.dumps(OVERLOADED)}\n", Why.overloaded),
        ("[API Error: You exceeded your current quota, please check your plan]\n" + HOOKS, Why.limit),
        ("API Error: Connection error.\n" + HOOKS, Why.network),
        ("API Error (Request timed out. fetch failed) · Retrying in 4 seconds… (attempt 3/10)\n" + HOOKS, Why.network),
        ("Failed to authenticate. API Error: 401 OAuth token has expired\n" + HOOKS, Why.login),
        ("Invalid API key · Please run /login\n" + HOOKS, Why.login),
        ("Credit balance is too low\n" + HOOKS, Why.limit),
        (f"You've hit your limit · {RESETS}\n/upgrade to increase your usage limit\n", Why.limit),
        ("You’ve reached your weekly limit\n" + HOOKS, Why.limit),
        (f"5-hour limit reached ∙ {RESETS}\n" + HOOKS, Why.limit),
        ("Claude AI usage limit reached|1796050000\n" + HOOKS, Why.limit),
        (f"⚠ Weekly limit reached · {RESETS}\n" + HOOKS, Why.limit),
        ("[2026-11-30T10:59:58] ERROR: You've hit your usage limit. Try again at 4:37 PM.\n" + HOOKS, Why.limit),
        ("ERROR: unexpected status 401 Unauthorized: token expired\n" + HOOKS, Why.login),
        ("ERROR: exceeded retry limit, last status: 429 Too Many Requests\n" + HOOKS, Why.limit),
        ("stream error: stream disconnected before completion; retrying 5/5\n" + HOOKS, Why.network),
        ("Attempt 3 failed with status 503. Retrying with backoff...\n" + HOOKS, Why.overloaded),
        ("litellm.AuthenticationError: AnthropicException - invalid x-api-key\n" + HOOKS, Why.login),
        ("openai.RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota'}}\n", Why.limit),
        ("The API provider has rate limited you. Try again later or check your quotas.\n" + HOOKS, Why.limit),
        (json.dumps(OVERLOADED) + "\n" + HOOKS, Why.overloaded),
        (json.dumps(OVERLOADED, indent=2) + "\n", Why.overloaded),
        (json.dumps(EXHAUSTED) + "\n" + HOOKS, Why.limit),
        ('{"type": "error", "message": "unexpected status 401 Unauthorized"}\n' + HOOKS, Why.login),
        ("", Why.error),
        ("make: *** [all] Error 2\n", Why.error),
        ("FAILED tests/test_login.py::test_401 - assert 401 == 200\n1 failed, 3 passed in 0.2s\n", Why.error),
        ("E       AssertionError: 401 Unauthorized\n", Why.error),
        ("test_quota.py::test_quota_exceeded FAILED\nmake: *** [test] Error 1\n", Why.error),
        ("tests/certificate_test.go:14: certificate has expired\nFAIL\n", Why.error),
        ("Error: 401 Unauthorized\n3 passing, 1 failing\n", Why.error),
        ("Error: 503 Service Unavailable\nI could not mend the proxy.\n", Why.error),
        ("  1) returns 429 when the quota is exceeded, retry after 30\n", Why.error),
        ("expected 'rate limit reached, try again in 30 s' to be 'ok'\n", Why.error),
        ("not ok 3 - overloaded server answers 503\n", Why.error),
        ("src/limits.rs:12: usage limit reached, resets at 12\n", Why.error),
        ("AssertionError: API Error: 529 was not raised\n", Why.error),
        ("requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: http://localhost\n", Why.error),
        ("I added the certificate, the quota and the login page. It answers 401 and 403 now.\n", Why.error),
        ('{"error": {"message": "no such user", "code": 401}}\n', Why.error),
        ('{"level": "error", "message": "quota exceeded", "type": "error"}\n', Why.error),
    ],
)
def test_why_a_plain_command_failed(output: str, why: Why) -> None:
    assert end_of(output, failed=True).why is why
    assert end_of(output).why is None


@pytest.mark.parametrize(
    ("output", "words", "reset_at"),
    [
        (f"You've hit your limit · {RESETS}\n{HOOKS}", f"You've hit your limit · {RESETS}", ENDED + timedelta(hours=3)),
        (json.dumps(RETRY) + "\n", "API Error: Quota exceeded", ENDED + timedelta(seconds=2475)),
        (json.dumps(RETRY, indent=2) + "\n", "API Error: Quota exceeded", ENDED + timedelta(seconds=2475)),
        (
            "the room is available at 12:30\nmake: *** Error 2\n",
            "the room is available at 12:30 | make: *** Error 2",
            None,
        ),
    ],
)
def test_a_plain_command_is_quoted_by_its_error(output: str, words: str, reset_at: datetime | None) -> None:
    end = end_of(output, failed=True)
    assert end.words.startswith(words)
    assert end.reset_at == reset_at


def test_an_error_that_a_tool_printed_fails_no_run() -> None:
    for value in ({"type": "error", "message": "no such user"}, OVERLOADED):
        assert end_of(lines("working", value, "done")).why is None


# Whatever comes


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"cut \ud83d", "cut \ufffd"),
        (r"cut \uDE00.", "cut \ufffd."),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"C:\\ud83d \ud83d", "C:\\ud83d \ufffd"),
    ],
)
def test_half_of_a_character_loses_no_cost(written: str, read: str) -> None:
    """JavaScript cuts texts within an emoji and writes the half as an escape."""
    output = lines(result(result="@", total_cost_usd=3.5)).replace("@", written)
    end = end_of(output, "claude")
    assert (end.why, end.cost_usd, end.words) == (Why.ok, 3.5, read)


def test_a_line_without_end_is_bounded() -> None:
    found = list(values(b"x" * (1 << 20) for _ in range((LINE_LIMIT >> 20) + 8)))
    assert sum(map(len, found)) < LINE_LIMIT


KEYS = [
    "type",
    "result",
    "usage",
    "part",
    "item",
    "error",
    "message",
    "content",
    "session_id",
    "sessionID",
    "stats",
    "errors",
    "permission_denials",
    "timestamp",
    "status",
    "text",
    "changes",
    "models",
    "tokens",
    "code",
    "total_cost_usd",
    "rate_limit_info",
    "resetsAt",
    "role",
    "delta",
]
TYPES = [
    "result",
    "assistant",
    "rate_limit_event",
    "item.completed",
    "turn.completed",
    "message",
    "step_finish",
    "error",
    "init",
    "text",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*TYPES, "rejected", "error"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
)
OBJECTS = st.builds(
    lambda kind, value: {**value, "type": kind},
    st.sampled_from(TYPES) | JSON,
    st.dictionaries(st.sampled_from(KEYS), JSON),
)


@given(st.binary(max_size=400) | OBJECTS.map(lambda value: json.dumps(value).encode()))
def test_no_output_is_too_strange(data: bytes) -> None:
    for agent in ("", *ADAPTERS):
        end = end_of(data, agent, failed=True)
        assert len(end.words) <= 200
