"""Which `.beads` folder bd uses."""

import os
from pathlib import Path


def beads_folder(db: Path | None) -> Path | None:
    """Return the folder that bd uses: `--db`, BEADS_DIR, or the nearest from the working folder upwards, or None."""
    named = db or os.environ.get("BEADS_DIR")
    if named:
        return Path(named).absolute()
    here = Path.cwd()
    return next((folder / ".beads" for folder in (here, *here.parents) if (folder / ".beads").is_dir()), None)
