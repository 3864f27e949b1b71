"""Gemini CLI: `gemini --output-format stream-json`, and its `json`.

Written for 0.11 to 0.56. Events `init`, `message` (in pieces), `tool_use`, `tool_result`, `error`, `result`. As `json`
one object with `response`, `stats` and `error`. It tells no cost.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from bdauto.agents.cli_adapters.claude import tool
from bdauto.agents.cli_adapters.session_files import first_bytes, home, spellings
from bdauto.agents.cli_adapters.transcript import Event, Transcript, counts, mapping
from bdauto.domain.agent_end import Why, cause
from bdauto.domain.record_values import checked_count
from bdauto.domain.results import whole_milliseconds

PROGRAM = "gemini"


def command(model: str, cost_usd: float | None, session: str) -> list[str]:  # noqa: ARG001  # it has no such limit
    """Return the command line. The prompt is its standard input. It may edit files, run `bd` and git, and what its own
    policies allow."""
    words = [PROGRAM, "--output-format", "stream-json", "--approval-mode", "auto_edit"]
    words += ["--allowed-tools", "run_shell_command(bd),run_shell_command(git)"]
    words += ["--model", model] if model else []
    return words + (["--resume", session] if session else [])


def has_session(session: str, directory: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a session of this folder is on this machine: `tmp/PROJECT/chats/session-TIME-SESSION.json`.

    PROJECT is the hash of the folder's path, or a short name. The file has that hash, too, and the session's whole
    name: its own name has eight characters of it.
    """
    projects = Path(environment.get("GEMINI_CLI_HOME") or home(environment)) / ".gemini" / "tmp"
    hashes = [sha256(path.encode(errors="surrogateescape")).hexdigest() for path in spellings(directory)]
    for file in projects.glob(f"*/chats/session-*{session[:8]}.json*"):
        head = (first_bytes(file) or b"").decode(errors="replace")
        if f'"{session}"' in head and any(one == file.parent.parent.name or one in head for one in hashes):
            return True
    return False


def read(value: dict[str, Any], run: Transcript) -> Iterable[Event] | None:
    """Turn one object of the output into events. None: it is not one of this command's."""
    kind = value.get("type")
    if kind is None and "stats" in value and {"response", "error"} & value.keys():
        return _whole(value, run)
    if "timestamp" not in value and kind != "result":
        return None
    match kind:
        case "init":
            return run.begun(value.get("session_id"), value.get("model"))
        case "message" if isinstance(value.get("content"), str):
            return (
                _message(value["content"], run, delta=value.get("delta") is True)
                if value.get("role") == "assistant"
                else ()
            )
        case "tool_use" if "tool_name" in value:
            run.call(value.get("tool_id"), value["tool_name"])
            return (*run.end_piece(), tool(str(value["tool_name"]), mapping(value.get("parameters"))))
        case "tool_result" if "tool_id" in value:
            called = run.called(value["tool_id"])
            if mapping(value.get("error")).get("type") == "policy_violation":
                run.deny(called)
            return ()
        case "error" if "severity" in value:
            error = run.failed(value.get("message")) if value["severity"] == "error" else ()
            return (*run.end_piece(), *error)
        case "result" if value.get("status") in ("success", "error"):
            return _result(value, run)
        case _:
            return None


def _message(text: str, run: Transcript, *, delta: bool) -> Iterator[Event]:
    if delta:
        yield from run.piece(text)
    else:
        yield from (*run.end_piece(), *run.said(text))


def _result(value: dict[str, Any], run: Transcript) -> Iterator[Event]:
    stats = mapping(value.get("stats"))
    figures = run.figures(run.last_session or "session")
    figures.tokens = checked_count(stats.get("total_tokens")) or figures.tokens
    figures.seconds = whole_milliseconds(stats.get("duration_ms")) or figures.seconds
    yield from run.end_piece()
    yield from _ending(mapping(value.get("error")), "", run) if value["status"] == "error" else run.ended("")


def _whole(value: dict[str, Any], run: Transcript) -> Iterator[Event]:
    figures = run.figures(run.session(value.get("session_id")) or "session")
    models = mapping(mapping(value.get("stats")).get("models"))
    figures.tokens = counts(*(mapping(mapping(model).get("tokens")).get("total") for model in models.values()))
    error = mapping(value.get("error"))
    return _ending(error, value.get("response"), run) if error else run.ended(value.get("response"))


def _ending(error: dict[str, Any], response: object, run: Transcript) -> Iterator[Event]:
    message = error.get("message") or response
    turns = "MaxSessionTurns" in str(error.get("type")) or error.get("code") == 53
    return run.failed(message, Why.turns if turns else cause(f"{message} {error.get('code', '')}"))
