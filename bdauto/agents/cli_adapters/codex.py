"""Codex: `codex exec --json`.

Written for 0.40 to 0.147. Events `thread.started`, `turn.started`, `item.started|updated|completed`, `turn.failed`,
`error`, and `turn.completed` with the usage of the thread so far. It tells no cost.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bdauto.agents.cli_adapters.session_files import home, is_of_folder
from bdauto.agents.cli_adapters.transcript import Event, Transcript, counts, mapping

PROGRAM = "codex"
_ERROR = {"type", "message"}
"""The members of its error event. A tool's object with others is not one."""


def command(model: str, cost_usd: float | None, session: str) -> list[str]:  # noqa: ARG001  # it has no such limit
    """Return the command line. The prompt is its standard input. It may do whatever its user may do.

    In its other sandboxes `.git` cannot be written, nor a `.beads` folder outside of a bead's worktree.
    """
    words = [PROGRAM, "exec", "--json", "--skip-git-repo-check", "--sandbox", "danger-full-access"]
    words += ["--model", model] if model else []
    return [*words, *(["resume", session] if session else []), "-"]


def has_session(session: str, directory: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a session of this folder is on this machine: `sessions/YYYY/MM/DD/rollout-TIME-SESSION.jsonl`."""
    sessions = Path(environment.get("CODEX_HOME") or home(environment) / ".codex") / "sessions"
    return is_of_folder(sessions.glob(f"*/*/*/rollout-????-??-??T??-??-??-{session}.jsonl*"), directory)


def read(value: dict[str, Any], run: Transcript) -> Iterable[Event] | None:
    """Turn one object of the output into events. None: it is not one of this command's."""
    match value.get("type"):
        case "thread.started":
            return run.begun(value.get("thread_id"))
        case "turn.started":
            figures = run.figures(run.last_session or "thread")
            figures.turns = (figures.turns or 0) + 1
        case "turn.completed":
            usage = mapping(value.get("usage"))
            figures = run.figures(run.last_session or "thread")
            figures.tokens = counts(usage.get("input_tokens"), usage.get("output_tokens")) or figures.tokens
            return run.ended("")
        case "turn.failed":
            return run.failed(mapping(value.get("error")).get("message"))
        case "error" if isinstance(value.get("message"), str) and run.last_session and value.keys() <= _ERROR:
            return run.failed(value["message"])
        case "item.started" | "item.completed" as kind:
            return _item(mapping(value.get("item")), run, done=kind == "item.completed")
        case "item.updated":
            return ()
        case _:
            return None
    return ()


def _item(item: dict[str, Any], run: Transcript, *, done: bool) -> Iterable[Event]:
    kind = item.get("type") or item.get("item_type")
    if kind in ("agent_message", "assistant_message"):
        return run.said(item.get("text")) if done else ()
    if kind == "command_execution":
        return () if done else (Event("tool", str(item.get("command", "")), "$"),)
    if kind == "file_change" and done:
        changes = item.get("changes")
        paths = [str(mapping(change).get("path", "")) for change in changes] if isinstance(changes, list) else []
        return (Event("tool", " ".join(paths), "Edit"),)
    if kind == "mcp_tool_call" and not done:
        return (Event("tool", str(item.get("server", "")), str(item.get("tool", ""))),)
    if kind == "error" and done:  # it goes on
        return (Event("error", str(item.get("message", ""))),)
    if kind == "web_search" and done:
        return (Event("tool", str(item.get("query", "")), "Search"),)
    return ()
