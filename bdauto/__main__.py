"""`python -m bdauto` and the `bdauto` command.

Every dispatch begins with the same read, and every sweep with the same two. Importing the command line takes as long as
bd takes to answer. So these reads are prefetched if the environment alone determines them. If the command line turns
out to need something else, they are ended unread.
"""

import os
import sys

from bdauto.bd import command, process
from bdauto.cli import config_file, streams

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
    if not words or words[0] not in command.BEGINNINGS or os.environ.get("BDAUTO_METADATA"):
        return
    if any(word.startswith(OPTIONS_WITHOUT_PREFETCH) for word in words):
        return
    if config_file.may_set(KEYS_WITHOUT_PREFETCH, os.environ):
        return
    db = os.environ.get("BDAUTO_DB")
    redirect = db and os.path.exists(os.path.join(db, "redirect"))  # noqa: PTH110, PTH118 - pathlib takes time to import
    if redirect or (not command.is_database(db) if db else command.unconfigured_folder()):
        return
    for argv in command.beginning(words[0]):
        process.start_ahead(argv, command.environment())


if __name__ == "__main__":
    main()
