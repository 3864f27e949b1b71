"""What a benchmark runs on: databases full of beads on a Dolt server of its own, and a BeadBoard that answers at once.

Everything lives in one temporary folder and on loopback, and is gone when the context ends.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bdauto.sandbox import FakeBeadBoard
from bdauto.sandbox.fake_bd.call import BdResult
from bdauto.sandbox.real_bd import RealBd, on_server
from benchmarks.beads import SeedBead, seed_sql
from tests.support.dolt import dolt_server, dolt_sql


@dataclass(frozen=True)
class World:
    """bd, dolt, and a Dolt server at `port`. `home` is the folder for everything."""

    bd_path: Path
    dolt_path: Path
    home: Path
    port: int

    @property
    def data(self) -> Path:
        """The folder with the server's databases."""
        return self.home / "server"

    def workspace(self, prefix: str) -> RealBd:
        """Make a workspace with an empty database on the server."""
        return RealBd.create(self.bd_path, self.home, prefix, *on_server(self.port))

    def tracker(self, beads: list[SeedBead]) -> "Tracker":
        """Make a workspace with these beads. They are inserted past bd, which would take minutes."""
        tracker = Tracker(self, self.workspace(f"bench{len(list(self.home.iterdir()))}"))
        commit = "CALL DOLT_COMMIT('-A', '-m', 'seeded');\nCALL DOLT_TAG('seeded');\n"
        tracker.sql(seed_sql(tracker.name, beads) + commit)
        return tracker


@dataclass(frozen=True)
class Tracker:
    """A database of beads on the server, and the workspace that names it."""

    world: World
    workspace: RealBd

    @property
    def name(self) -> str:
        """The database's name, which is the prefix of its beads too."""
        return self.workspace.folder.name

    def sql(self, statements: str, *options: str) -> str:
        """Run statements past bd and return what Dolt's client prints."""
        return dolt_sql(self.world.dolt_path, self.world.port, self.name, statements, *options)

    def reset(self) -> None:
        """Go back to the beads as they were inserted."""
        self.sql("CALL DOLT_RESET('--hard', 'seeded');")

    def count(self, status: str) -> int:
        """Return how many of the agent's beads have a status."""
        query = f"SELECT COUNT(*) AS n FROM issues WHERE assignee='agent' AND status='{status}';"
        return int(json.loads(self.sql(query, "-r", "json"))["rows"][0]["n"])


@contextlib.contextmanager
def dolt_world() -> Iterator[World]:
    """Start a Dolt server in a temporary folder and yield the world on it. Exits if bd or dolt is not on PATH."""
    found = {name: shutil.which(name) for name in ("bd", "dolt")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        sys.exit(f"bench: {' and '.join(missing)} must be on PATH")
    bd_path, dolt_path = (Path(str(path)).absolute() for path in found.values())
    with tempfile.TemporaryDirectory(prefix="bdauto-bench-", ignore_cleanup_errors=True) as name:
        data = Path(name) / "server"
        data.mkdir()
        with dolt_server(dolt_path, data) as port:
            yield World(bd_path, dolt_path, Path(name), port)


def instant_beadboard() -> FakeBeadBoard:
    """Return a BeadBoard that is never busy and asks bd nothing, so that only its callers are measured."""

    def bd(*_args: str, actor: str = "") -> BdResult:  # noqa: ARG001
        return BdResult(0, '[{"acceptance_criteria": "it works"}]', "")

    board = FakeBeadBoard(bd, capacity=1_000_000)
    board.signs = False
    return board
