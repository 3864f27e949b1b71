"""Whether a command line of an agent may run `bd` without asking: it cannot ask when nobody is there.

Judged by its options and its settings, as far as they can be read. A policy of an organisation may say otherwise.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

import msgspec


class Permission(msgspec.Struct, frozen=True):
    """What permits `bd`: options, or text in one of the settings files, in the home folder or where the agent runs."""

    options: re.Pattern[str]
    files: tuple[str, ...]
    settings: re.Pattern[str]


_BASH = r"Bash(?![\w(])|Bash\(\s*(?:\*|bd\b)"
PERMISSIONS = {
    "claude": Permission(
        re.compile(
            r"--dangerously-skip-permissions|--permission-mode[ =](?:bypassPermissions|auto)\b"
            rf"|--permission-prompt-tool\b|--settings\b|--allowed-?[tT]ools[ =](?:(?! --).)*(?:{_BASH})"
        ),
        ("~/.claude/settings.json", ".claude/settings.json", ".claude/settings.local.json"),
        re.compile(rf'"allow"\s*:\s*\[[^\]]*"(?:{_BASH})|"defaultMode"\s*:\s*"(?:bypassPermissions|auto)"'),
    ),
    "codex": Permission(
        re.compile(
            r"--dangerously-bypass|--yolo\b|danger-full-access|(?:-s|--profile|-p)[ =](?!read-only)|--sandbox[ =]w"
        ),
        ("~/.codex/config.toml", ".codex/config.toml"),
        re.compile(r"""(?m)^\s*sandbox_mode\s*=\s*["'](?!read-only)|^\s*default_permissions\s*="""),
    ),
    "gemini": Permission(
        re.compile(r"--yolo\b|(?<!\S)-y\b|--approval-mode[ =]yolo|--(?:admin-)?policy\b|run_shell_command|ShellTool"),
        ("~/.gemini/settings.json", ".gemini/settings.json"),
        re.compile(r"run_shell_command|ShellTool"),
    ),
}
"""What permits `bd`, by agent. opencode runs it unless its configuration denies that."""


def lacks_permission(words: Sequence[str], read: Callable[[str], str]) -> str:
    """Return the agent that this command starts and that may not run `bd`, or "".

    `read` returns the text of a settings file, "" if there is none.
    """
    plain = [*_plain(words)]
    found = next(((place, PurePath(word).name) for place, word in enumerate(plain) if _is_agent(word)), None)
    if found is None:
        return ""
    place, agent = found
    permission, options = PERMISSIONS[agent], " ".join(plain[place + 1 :])
    permitted = permission.options.search(options) or any(
        permission.settings.search(read(file)) for file in permission.files
    )
    return "" if permitted else agent


def _is_agent(word: str) -> bool:
    return PurePath(word).name in PERMISSIONS


def _plain(words: Sequence[str]) -> Iterator[str]:
    """Yield the words, and in place of a script for a shell the words of that."""
    for word in words:
        try:
            inner = shlex.split(word) if any(name in word for name in PERMISSIONS) else [word]
        except ValueError:
            inner = word.split()
        yield from inner if any(map(_is_agent, inner)) else [word]
