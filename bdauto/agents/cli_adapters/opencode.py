"""opencode: `opencode run --format json`.

Written for 1.4 to 1.18. Events `step_start`, `text`, `tool_use`, `error`, `step_finish` with the cost and tokens of one
step, and since 1.18 `done` with the permissions that were refused.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bdauto.agents.cli_adapters.claude import tool
from bdauto.agents.cli_adapters.session_files import home, is_of_folder, spellings
from bdauto.agents.cli_adapters.transcript import Event, Transcript, counts, mapping
from bdauto.domain.agent_end import Why, cause, cause_of_status
from bdauto.domain.record_values import checked_cost, checked_count

PROGRAM = "opencode"


def command(model: str, cost_usd: float | None, session: str) -> list[str]:  # noqa: ARG001  # it has no such limit
    """Return the command line. The prompt is its standard input. It may do what its configuration does not deny."""
    words = [PROGRAM, "run", "--format", "json", "--dangerously-skip-permissions"]
    words += ["--model", model] if model else []
    return words + (["--session", session] if session else [])


def has_session(session: str, directory: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a session of this folder is on this machine: a row of `opencode.db`, a file before 1.2."""
    data = Path(environment.get("XDG_DATA_HOME") or home(environment) / ".local" / "share") / "opencode"
    files = (data / "storage" / "session").glob(f"*/{session}.json")
    return _folder(data / "opencode.db", session) in spellings(directory) or is_of_folder(files, directory)


def _folder(database: Path, session: str) -> str | None:
    """Return the folder of a session in the database, None if there is none."""
    import sqlite3  # few need it

    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as opened:
            row = opened.execute("SELECT directory FROM session WHERE id = ?", (session,)).fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def read(value: dict[str, Any], run: Transcript) -> Iterable[Event] | None:
    """Turn one object of the output into events. None: it is not one of this command's."""
    if "sessionID" not in value and "part" not in value:
        return None
    known = run.last_session
    session = run.session(value.get("sessionID")) or run.last_session or "session"
    part = mapping(value.get("part"))
    match value.get("type"):
        case "text":
            return run.said(part.get("text"))
        case "tool_use" | "tool":
            return (tool(str(part.get("tool", "")), _given(part)),)
        case "step_finish":
            _step(part, run, session)
            return run.ended("") if part.get("reason") not in ("tool-calls", "tool_calls") else ()
        case "error":
            return _error(mapping(value.get("error")), run)
        case "done":
            rejected = value.get("rejected")
            for name in rejected if isinstance(rejected, list) else ():
                run.deny(name)
            return ()
        case "step_start" if not known:
            return run.begun(value.get("sessionID"))
        case "step_start" | "reasoning":
            return ()
        case _:
            return None


def _given(part: dict[str, Any]) -> dict[str, Any]:
    given = mapping(mapping(part.get("state")).get("input"))
    return {"file_path": given.get("filePath"), **given}


def _step(part: dict[str, Any], run: Transcript, session: str) -> None:
    figures = run.figures(session)
    cost = checked_cost(part.get("cost"))
    if cost is not None:
        figures.cost_usd = (figures.cost_usd or 0.0) + cost
    tokens, cache = mapping(part.get("tokens")), mapping(mapping(part.get("tokens")).get("cache"))
    each = (*(tokens.get(key) for key in ("input", "output", "reasoning")), cache.get("read"), cache.get("write"))
    used = checked_count(tokens.get("total")) or counts(*each)
    figures.tokens = (figures.tokens or 0) + used if used is not None else figures.tokens
    figures.turns = (figures.turns or 0) + 1


def _error(error: dict[str, Any], run: Transcript) -> Iterable[Event]:
    data = mapping(error.get("data"))
    message = data.get("message") or error.get("message") or error.get("name")
    why = cause_of_status(data.get("statusCode")) or cause(str(message))
    if error.get("name") == "ProviderAuthError":
        why = Why.login
    return run.failed(message, why)
