"""Fill a tracker with a made-up history, to look at `bdauto report`.

    .venv/bin/python scripts/history.py --weeks 2 --beads 900 --bd bd --folder ~/scratch
    .venv/bin/python scripts/history.py > history.jsonl

The folder is one that `bd init` has made. A bead is made up with its id, so a second history of the same length and
prefix replaces the first.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bdauto.sandbox.history import weeks_until


def main() -> None:
    """Print the history, or import it."""
    parser = argparse.ArgumentParser(description="Make up a history of beads, for `bdauto report`.")
    parser.add_argument("--weeks", type=float, default=1)
    parser.add_argument("--beads", type=int, default=500)
    parser.add_argument("--slots", type=int, default=1, help="beads that are worked on at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", default="web", help="of the ids: what `bd init --prefix` was given")
    parser.add_argument("--bd", default="bd", metavar="PATH")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="import there, instead of printing")
    told = parser.parse_args()
    options = {name: getattr(told, name) for name in ("weeks", "beads", "seed", "prefix", "slots")}
    text = weeks_until(**options).jsonl()
    if told.folder is None:
        sys.stdout.write(text)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(text)
        file.flush()
        subprocess.run([told.bd, "import", file.name], cwd=told.folder, check=True)


if __name__ == "__main__":
    main()
