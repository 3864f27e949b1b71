"""`python -m bdauto` and the `bdauto` command.

Every dispatch begins with the same read, and every sweep with the same two. Importing the command line takes as long as
bd takes to answer. So these reads are prefetched if the environment alone determines them. If the command line turns
out to need something else, they are ended unread.
"""

import os
import sys

from bdauto.bd import command, process
from bdauto.cli import config_file, streams
from bdauto.domain import defaults
from bdauto.errors import UsageError

PREFETCHING = {"dispatch": defaults.DISPATCHER, "reap": defaults.REAPER}
"""The commands that begin with reads, and their default actor."""
OPTIONS_WITHOUT_PREFETCH = (
    "--db",
    "--metadata",
    "--bd",
    "--config",
    "--assignee",
    "--actor",
    "--ignore-pause",
    "--dry-run",
    "-n",
    "--help",
    "-h",
)
"""Options that change the reads or need none."""
KEYS_WITHOUT_PREFETCH = {"db", "metadata", "bd", "assignee", "actor", "lanes"}
"""Keys of the configuration file that change the reads."""


def main() -> None:
    """Run bdauto, and exit with its status.

    The process ends at once: taking the interpreter down module by module would take a tenth of an idle tick.
    """
    streams.protect()
    _start_reads(sys.argv[1:])
    from bdauto.cli.app import run

    status = run()
    process.end_unwanted()
    streams.close()
    os._exit(status)


def _start_reads(words: list[str]) -> None:
    if not words or words[0] not in PREFETCHING or os.environ.get("BDAUTO_METADATA"):
        return
    if any(word.startswith(OPTIONS_WITHOUT_PREFETCH) for word in words):
        return
    if _file_changes_reads():
        return
    bd, db = os.environ.get("BDAUTO_BD") or defaults.BD, os.environ.get("BDAUTO_DB")
    redirect = db and os.path.exists(os.path.join(db, "redirect"))  # noqa: PTH110, PTH118 - pathlib takes time to import
    if redirect or (not command.is_database(db) if db else command.unconfigured_folder()):
        return
    prefix = command.prefix(bd, db, os.environ.get("BEADS_ACTOR") or PREFETCHING[words[0]])
    assignee = os.environ.get("BDAUTO_ASSIGNEE") or defaults.ASSIGNEE
    reads = (
        [command.ready(assignee, command.PAGE)]
        if words[0] == "dispatch"
        else [command.in_progress(assignee), command.KV_LIST]
    )
    for read in reads:
        process.start_ahead([*prefix, *read], command.environment())


def _file_changes_reads() -> bool:
    """Return whether the configuration file names another database, bd or person, or is refused later.

    Also for one that may name a variable: it holds a secret, which bd does not get once the file's keys are known.
    """
    path = config_file.path_in_force(os.environ.get("BDAUTO_CONFIG"), os.environ)
    try:
        values = config_file.read(path).values if path else {}
    except UsageError:
        return True
    return not KEYS_WITHOUT_PREFETCH.isdisjoint(values) or "$" in str(values)


if __name__ == "__main__":
    main()
