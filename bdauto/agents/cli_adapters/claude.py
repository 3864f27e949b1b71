"""Claude Code: `claude -p --output-format stream-json`, and its `json`.

Written for 1.0 to 2.1. One object a line: `system` (with the session), `assistant` and `user` (messages),
`rate_limit_event`, and a `result` at the end.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bdauto.agents.cli_adapters.session_files import home, is_of_folder, spellings
from bdauto.agents.cli_adapters.transcript import Event, Transcript, counts, mapping
from bdauto.domain.agent_end import Why, cause, cause_of_status
from bdauto.domain.record_values import checked_cost, checked_count
from bdauto.domain.results import whole_milliseconds

PROGRAM = "claude"
TYPES = frozenset({"system", "assistant", "user", "result", "rate_limit_event", "stream_event"})
SUBTYPES = {"error_max_turns": Why.turns, "error_max_budget_usd": Why.budget}
LONGEST_FOLDER = 200
"""Characters of a path in the name of the folder with its sessions."""
_SUBJECTS = ("command", "file_path", "path", "pattern", "query", "url", "description", "prompt", "notebook_path")


def command(model: str, cost_usd: float | None, session: str) -> list[str]:
    """Return the command line. The prompt is its standard input. It may edit files, run `bd` and git, and what its own
    settings allow."""
    words = [PROGRAM, "-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "acceptEdits"]
    words += ["--allowedTools", "Bash(bd:*),Bash(git:*)"]
    words += ["--model", model] if model else []
    words += ["--max-budget-usd", f"{cost_usd:g}"] if cost_usd is not None else []
    return words + (["--resume", session] if session else [])


def has_session(session: str, directory: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a session of this folder is on this machine: `projects/FOLDER/SESSION.jsonl`.

    FOLDER is the path with a hyphen for each character that is neither a letter nor a digit. It is cut where it is
    long, and a hash follows.
    """
    projects = Path(environment.get("CLAUDE_CONFIG_DIR") or home(environment) / ".claude") / "projects"
    for path in spellings(directory):
        name = re.sub(r"[^A-Za-z0-9]", "-", path)
        folders = [projects / name] if len(name) <= LONGEST_FOLDER else projects.glob(f"{name[:LONGEST_FOLDER]}-*")
        if is_of_folder((folder / f"{session}.jsonl" for folder in folders), directory):
            return True
    return False


def read(value: dict[str, Any], run: Transcript) -> Iterable[Event] | None:
    """Turn one object of the output into events. None: it is not one of this command's."""
    kind = value.get("type")
    if not isinstance(kind, str | None):
        return None
    if kind == "result" or (kind is None and {"total_cost_usd", "num_turns"} & value.keys()):
        return _result(value, run)
    if kind not in TYPES or not ({"session_id", "message", "rate_limit_info", "uuid"} & value.keys()):
        return None
    if kind == "system" and value.get("subtype") == "init":
        return run.begun(value.get("session_id"), value.get("model"))
    run.session(value.get("session_id"))
    if kind == "assistant":
        return _message(mapping(value.get("message")), run)
    if kind == "rate_limit_event":
        return _limit(mapping(value.get("rate_limit_info")) or value, run)
    return ()


def _result(value: dict[str, Any], run: Transcript) -> Iterator[Event] | None:
    if "status" in value:  # the result of another command
        return None
    figures = run.figures(run.session(value.get("session_id")))
    cost = checked_cost(value.get("total_cost_usd"))
    figures.cost_usd = max(cost, figures.cost_usd or 0.0) if cost is not None else figures.cost_usd
    usage = mapping(value.get("usage"))
    tokens = counts(
        *(usage.get(f"{key}_tokens") for key in ("input", "cache_creation_input", "cache_read_input", "output"))
    )
    figures.tokens = tokens if tokens is not None else figures.tokens
    figures.turns = checked_count(value.get("num_turns")) or figures.turns
    figures.seconds = whole_milliseconds(value.get("duration_ms")) or figures.seconds
    denials = value.get("permission_denials")
    for denial in denials if isinstance(denials, list) else ():
        run.deny(mapping(denial).get("tool_name"))
    return _ending(value, run)


def _ending(value: dict[str, Any], run: Transcript) -> Iterator[Event]:
    errors = value.get("errors")
    told = (
        [error if isinstance(error, str) else str(mapping(error).get("message", "")) for error in errors or ()]
        if isinstance(errors, list)
        else []
    )
    result = value.get("result")
    text = result if isinstance(result, str) and result.strip() else "\n".join(told)
    subtype = value.get("subtype")
    if isinstance(subtype, str) and subtype in SUBTYPES:
        return run.ended(text, SUBTYPES[subtype])
    by_status = cause_of_status(value.get("api_error_status"))
    if by_status or value.get("is_error") is True or (isinstance(subtype, str) and subtype.startswith("error")):
        return run.failed(text, by_status or cause(text) or (Why.limit if run.limit_reached else Why.error))
    return run.ended(text)


def _message(message: dict[str, Any], run: Transcript) -> Iterator[Event]:
    content = message.get("content")
    if isinstance(content, str):
        yield from run.said(content)
    for part in content if isinstance(content, list) else ():
        block = mapping(part)
        if block.get("type") == "text":
            yield from run.said(block.get("text"))
        elif block.get("type") == "tool_use":
            yield tool(str(block.get("name", "")), mapping(block.get("input")))


def tool(name: str, given: dict[str, Any]) -> Event:
    """Return the event of a tool that was called with these arguments."""
    subject = next((given[key] for key in _SUBJECTS if isinstance(given.get(key), str)), "")
    shell = name.lower() in ("bash", "shell", "run_shell_command")
    return Event("tool", subject, "$" if shell else name)


def _limit(info: dict[str, Any], run: Transcript) -> Iterable[Event]:
    """Read a report about a limit: only the status `rejected` means that it is reached."""
    if info.get("status") != "rejected":
        return ()
    at = info.get("resetsAt")
    known = isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 1e11
    reset_at = datetime.fromtimestamp(float(at), UTC) if known and at is not None else None
    return run.limited(f"limit reached: {info.get('rateLimitType', 'unknown')}", reset_at)
