"""bd's command lines, and the environment of its processes. Imports nothing that takes time: see `bdauto.__main__`."""

import os

from bdauto.common.environment import LEAVE_INDEX, inherited
from bdauto.domain import defaults

PAGE = 20
"""Beads in one small batch of the queue: bd answers 20 as fast as one."""

GO_SETTINGS = {"GOGC": "off", "GOMEMLIMIT": "128MiB"}
"""Settings for bd's Go runtime, unless the environment has others: collect no garbage below this much memory.

bd exits before collection would pay off. This takes a fifth off the CPU time of a small read (docs/performance.md).
"""
PROJECT_FILES = ("config.yaml", "embeddeddolt", "dolt")
"""Besides metadata.json, bd recognizes its folder by these files."""
OWN_VARIABLES = ("BDAUTO_", "BEADBOARD_URL", "API_BEARER_TOKEN")
"""Prefixes of bdauto's own variables. They hold secrets, and nothing that bd or an agent needs."""


def prefix(bd: str, db: str | None, actor: str, *, readonly: bool = False) -> list[str]:
    """Return the start of every command line: the program, the database, who writes, and that the answer be JSON."""
    argv = [bd, *(["--db", db] if db else []), "--actor", actor, "--json"]
    return [*argv, "--readonly"] if readonly else argv


def is_database(folder: str) -> bool:
    """Whether a folder is bd's. bd silently makes an empty database in any other."""
    return os.path.isfile(os.path.join(folder, "metadata.json"))  # noqa: PTH113, PTH118 - pathlib takes time to import


def unconfigured_folder() -> str:
    """Return the `.beads` folder that bd would use from here without a metadata.json in it, "" if there is none.

    bd takes the folder of BEADS_DIR, or the nearest with PROJECT_FILES or a `*.db` in it, and makes an empty database
    there. It looks no higher than the root of the git repository. In a linked git worktree without a database it takes
    the main checkout's.
    """
    try:
        found = nearest_folder()
        unfinished = bool(found) and not is_database(found) and not os.path.exists(os.path.join(found, "redirect"))  # noqa: PTH110, PTH118
        return found if unfinished and _has_project(found) else ""
    except OSError:  # bd will say what is wrong with the folder
        return ""


def nearest_folder() -> str:
    """Return the `.beads` folder that bd would use from here, as far as that is certain without bd, or ""."""
    try:
        return os.environ.get("BEADS_DIR") or _nearest(os.getcwd())  # noqa: PTH109 - as above
    except OSError:
        return ""


def _nearest(folder: str) -> str:
    while not os.path.isfile(os.path.join(folder, ".git")):  # noqa: PTH113, PTH118 - as above
        beads = os.path.join(folder, ".beads")  # noqa: PTH118 - as above
        above = os.path.dirname(folder)  # noqa: PTH120
        if is_database(beads) or (os.path.isdir(beads) and (_has_project(beads) or "redirect" in os.listdir(beads))):  # noqa: PTH112, PTH208
            return beads
        if above == folder or os.path.exists(os.path.join(folder, ".git")):  # noqa: PTH110, PTH118
            return ""
        folder = above
    return ""


def _has_project(folder: str) -> bool:
    return any(name in PROJECT_FILES or name.endswith(".db") for name in os.listdir(folder))  # noqa: PTH208 - as above


def ready(assignee: str, limit: int, priority: int | None = None, *, oldest: bool = False) -> list[str]:
    """Return `bd ready`. bd sorts by priority and then the newest created first, or only by the oldest created."""
    argv = ["ready", "--assignee", assignee, "--limit", str(limit)]
    if priority is not None:
        argv += ["--priority", str(priority)]
    return [*argv, "--sort", "oldest"] if oldest else argv


def in_progress(assignee: str) -> list[str]:
    """Return `bd list` of an assignee's beads in progress, all of them."""
    return ["list", "--assignee", assignee, "--status", "in_progress", "--limit", "0"]


KV_LIST = ["kv", "list"]
"""All of the shared key-value store. It is twice as fast as `bd kv get`, which opens the database for writing."""


BEGINNINGS = {"dispatch": defaults.DISPATCHER, "reap": defaults.REAPER}
"""The commands of bdauto that begin with reads, and their default actor."""


def beginning(name: str) -> list[list[str]]:
    """Return the command lines of the reads that a command of BEGINNINGS begins with, as the environment has it."""
    bd, db = os.environ.get("BDAUTO_BD") or defaults.BD, os.environ.get("BDAUTO_DB")
    start = prefix(bd, db, os.environ.get("BEADS_ACTOR") or BEGINNINGS[name])
    assignee = os.environ.get("BDAUTO_ASSIGNEE") or defaults.ASSIGNEE
    reads = [ready(assignee, PAGE)] if name == "dispatch" else [in_progress(assignee), KV_LIST]
    return [[*start, *read] for read in reads]


def environment(*, private: bool = False) -> dict[str, str]:
    """Return the environment of bd's processes: what is inherited without OWN_VARIABLES, over settings for bd.

    In a `private` database folder, which nobody else reads, bd's export of all issues after a write is switched off: it
    takes seconds.
    """
    variables = GO_SETTINGS | LEAVE_INDEX | inherited(without_own())
    return variables | {"BD_EXPORT_AUTO": "false"} if private else variables


def without_own() -> dict[str, str]:
    """Return this process's environment without OWN_VARIABLES."""
    return {key: value for key, value in os.environ.items() if not key.startswith(OWN_VARIABLES)}
