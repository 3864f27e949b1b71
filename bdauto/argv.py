"""bd's command lines, and the environment of its processes. Imports nothing that takes time: see `bdauto.__main__`."""

import os

PAGE = 20
"""Beads in one small page of the queue: bd answers 20 as fast as one."""

GO_SETTINGS = {"GOGC": "off", "GOMEMLIMIT": "128MiB"}
"""What Go's runtime is told, unless the environment says otherwise: to collect no garbage below this much memory.

bd is gone before it has made much. It takes a fifth off the CPU time of a small read (docs/performance.md).
"""
SECRET_VARIABLES = frozenset({"API_BEARER_TOKEN", "BDAUTO_NOTIFY_URLS", "BDAUTO_PUSHGATEWAY"})
"""Environment variables that bd's processes do not get."""


def prefix(bd: str, db: str | None, actor: str, *, readonly: bool = False) -> list[str]:
    """Return the start of every command line: the program, the database, who writes, and that the answer be JSON."""
    argv = [bd, *(["--db", db] if db else []), "--actor", actor, "--json"]
    return [*argv, "--readonly"] if readonly else argv


def ready(assignee: str, limit: int, priority: int | None = None, *, oldest: bool = False) -> list[str]:
    """Return `bd ready`; bd sorts by priority and then the newest created first, or by the oldest created alone."""
    argv = ["ready", "--assignee", assignee, "--limit", str(limit)]
    if priority is not None:
        argv += ["--priority", str(priority)]
    return [*argv, "--sort", "oldest"] if oldest else argv


def in_progress(assignee: str) -> list[str]:
    """Return `bd list` of an assignee's beads in progress, all of them."""
    return ["list", "--assignee", assignee, "--status", "in_progress", "--limit", "0"]


KV_LIST = ["kv", "list"]
"""All of the shared key-value store; twice as fast as `bd kv get`, which opens the database for writing."""


def environment(*, private: bool = False) -> dict[str, str]:
    """Return the environment of bd's processes: this one's without its secrets, over GO_SETTINGS.

    In a `private` database folder, which nobody else reads, bd's export of all issues after a write is switched off: it
    takes seconds.
    """
    variables = GO_SETTINGS | {key: value for key, value in os.environ.items() if key not in SECRET_VARIABLES}
    return variables | {"BD_EXPORT_AUTO": "false"} if private else variables
