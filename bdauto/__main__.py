"""`python -m bdauto` and the `bdauto` command.

Every dispatch begins with the same read and every sweep with the same two, and importing the command line takes as
long as bd takes to answer. So they are started first, where the environment alone says what they will be; should the
command line turn out to want something else, they are ended unread.
"""

import contextlib
import os
import sys

from bdauto import argv, process

READS = {"dispatch": "beads-dispatcher", "reap": "beads-reaper"}
"""The commands that begin with reads, and whom they write as by default."""
OTHERWISE = ("--db", "--metadata", "--bd", "--assignee", "--actor", "--ignore-pause", "--dry-run", "-n", "--help", "-h")
"""Options that change the reads, or need none."""


def main() -> None:
    """Run bdauto, and exit with its status.

    The process ends at once: taking the interpreter down module by module would take a tenth of an idle tick.
    """
    _start_reads(sys.argv[1:])
    from bdauto.cli import run

    status = run()
    process.end_unwanted()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _start_reads(words: list[str]) -> None:
    if not words or words[0] not in READS or os.environ.get("BDAUTO_METADATA"):
        return
    if any(word.startswith(OTHERWISE) for word in words):
        return
    bd, db = os.environ.get("BDAUTO_BD") or "bd", os.environ.get("BDAUTO_DB")
    prefix = argv.prefix(bd, db, os.environ.get("BEADS_ACTOR") or READS[words[0]])
    assignee = os.environ.get("BDAUTO_ASSIGNEE") or "agent"
    reads = [argv.ready(assignee, argv.PAGE)] if words[0] == "dispatch" else [argv.in_progress(assignee), argv.KV_LIST]
    for read in reads:
        process.start_ahead([*prefix, *read], argv.environment())


if __name__ == "__main__":
    main()
