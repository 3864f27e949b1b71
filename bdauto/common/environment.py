"""Environment variables that describe where bdauto was started, and must not reach the processes that it starts.

Imports nothing: see `bdauto.__main__`. docs/local-agent.md lists what an agent inherits.
"""

from collections.abc import Mapping

GIT = frozenset({
    # what `git rev-parse --local-env-vars` prints: repository, index and configuration of one git command
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_SUPER_PREFIX", "GIT_WORK_TREE",
    # what else git tells its hooks: a namespace of refs, objects in quarantine, the date and name of what is under way
    "GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE", "GIT_NAMESPACE", "GIT_PUSH_OPTION_COUNT", "GIT_QUARANTINE_PATH",
    "GIT_REFLOG_ACTION",
    # how one git command reads paths and attributes, and where that git has its programs
    "GIT_ATTR_SOURCE", "GIT_EXEC_PATH", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_LITERAL_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS", "GIT_OPTIONAL_LOCKS",
    "BD_GIT_HOOK",  # bd in a hook of git exports nothing
})  # fmt: skip
"""Variables of a git command that started bdauto, for example in a hook: where and how it works."""
SESSION = frozenset({
    "AI_AGENT", "CLAUDECODE", "CLAUDE_AGENT_SDK_VERSION", "CLAUDE_CODE_CHILD_SESSION",
    "CLAUDE_CODE_DIAGNOSTICS_FILE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_MESSAGING_SOCKET", "CLAUDE_CODE_MESSAGING_TOKEN", "CLAUDE_CODE_REMOTE_SESSION_ID",
    "CLAUDE_CODE_SESSION_ACCESS_TOKEN", "CLAUDE_CODE_SESSION_ATTENDED", "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_SSE_PORT", "CLAUDE_ENV_FILE", "CLAUDE_PID", "CLAUDE_PROJECT_DIR", "CLAUDE_SESSION_ID", "CODEX_CI",
    "CODEX_INTERNAL_ORIGINATOR_OVERRIDE", "CODEX_PERMISSION_PROFILE", "CODEX_SANDBOX",
    "CODEX_SANDBOX_NETWORK_DISABLED", "CODEX_SESSION_ID", "CODEX_SHELL", "CODEX_THREAD_ID", "GEMINI_CLI",
    "GEMINI_CLI_IDE_AUTH_TOKEN", "GEMINI_CLI_IDE_PID", "GEMINI_CLI_IDE_SERVER_PORT",
    "GEMINI_CLI_IDE_WORKSPACE_PATH", "GEMINI_SESSION_ID", "OPENCODE", "OPENCODE_CALLER", "OPENCODE_CLIENT",
    "OPENCODE_PID", "OPENCODE_PROCESS_ROLE", "OPENCODE_RUN_ID", "OPENCODE_SESSION_ID", "AMP_CURRENT_THREAD_ID",
    "AUGMENT_AGENT", "CLINE_ACTIVE", "COPILOT_AGENT_SESSION_ID", "COPILOT_CLI", "CURSOR_AGENT",
    "CURSOR_INVOKED_AS", "CURSOR_SESSION_ID", "CURSOR_TRACE_ID", "GOOSE_TERMINAL", "QWEN_CODE",
})  # fmt: skip
"""Marks of an agent's session. An agent's CLI that finds them takes itself for a part of that session.

Credentials and settings such as ANTHROPIC_API_KEY, CLAUDE_CONFIG_DIR and CODEX_HOME are not among them.
"""
SERVICE = frozenset({
    "FDSTORE", "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID",
    "MAINPID", "MANAGERPID", "MANAGERPIDFDID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID", "WATCHDOG_PID", "WATCHDOG_USEC",
})  # fmt: skip
"""What systemd tells the service that bdauto is (systemd.exec(5), sd_notify(3)). Only bdauto may answer it."""
_DROPPED = GIT | SESSION | SERVICE
_NUMBERED = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_", "GIT_PUSH_OPTION_")
"""Names that end in a number."""
LEAVE_INDEX = {"BD_EXPORT_GIT_ADD": "false"}
"""Setting for bd, unless the environment has another: up to 1.0.4 it runs `git add` on its export after a write.

The index belongs to the user, who may be about to commit something else. The export itself still happens.
"""


def foreign(environment: Mapping[str, str]) -> set[str]:
    """Return the names of those variables of an environment that describe where bdauto was started.

    A hook of `git commit --author` has that author in its environment, beside the date of the commit.
    """
    found = {name for name in environment if name in _DROPPED or name.rstrip("0123456789") in _NUMBERED}
    author = {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"} if "GIT_AUTHOR_DATE" in found else set()
    return found | (author & environment.keys())


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without foreign variables, for what bdauto starts."""
    dropped = foreign(environment)
    return {name: value for name, value in environment.items() if name not in dropped}
