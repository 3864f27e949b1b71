"""A throw-away workspace of the real bd, for the demo: an embedded database in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bdauto.sandbox.call import Answer


class RealBd:
    """`with RealBd(path) as workspace: …`. Raises FileNotFoundError if there is no bd, RuntimeError if it fails."""

    def __init__(self, bd: str) -> None:
        found = shutil.which(bd)
        if found is None:
            raise FileNotFoundError(bd)
        self.bd = Path(found).absolute()
        self._folder = Path(tempfile.mkdtemp(prefix="bdauto-demo-"))
        self.db = self._folder / ".beads"
        self._home = self._folder / "home"
        self._home.mkdir()
        options = ("--prefix", "demo", "--non-interactive", "--quiet", "--skip-hooks", "--skip-agents")
        answer = self.run("init", *options)
        if answer.code != 0:
            self.close()
            raise RuntimeError(f"bd init failed: {answer.err.strip() or answer.out.strip()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the workspace."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, *args: str, actor: str = "demo") -> Answer:
        """Do one call of bd in the workspace."""
        done = subprocess.run(
            [str(self.bd), *args],
            cwd=self._folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._home), "BEADS_ACTOR": actor},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def age(self, bead: str, minutes: float) -> None:
        """Refuse: an embedded database cannot be edited past bd. The demo moves the clock instead."""
        raise NotImplementedError
