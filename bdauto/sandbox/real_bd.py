"""The real bd on a workspace of its own: for the demo, the tests and the benchmarks."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from bdauto.sandbox.fake_bd.call import BdResult

TIMEOUT = 60.0
"""Seconds after which one call of bd raises subprocess.TimeoutExpired."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment with `more` and nothing of the user's but PATH."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "BD_DISABLE_METRICS": "1", **more}


def on_server(port: int) -> tuple[str, ...]:
    """Return the options of `bd init` for a Dolt server on this loopback port."""
    return ("--server", "--server-host", "127.0.0.1", "--server-port", str(port), "--external")


class RealBd:
    """bd, and a workspace for it in a folder that the caller removes. Each call of bd is a process."""

    def __init__(self, bd_path: Path, folder: Path, home: Path) -> None:
        self.bd_path, self.folder, self.home = bd_path, folder, home
        self.db = folder / ".beads"

    @classmethod
    def create(cls, bd_path: Path, root: Path, prefix: str, *options: str) -> Self:
        """Make a workspace in the new folder `root/prefix`. `options` go to `bd init`, whose default is embedded.

        Raises RuntimeError if `bd init` fails.
        """
        made = cls(bd_path, root / prefix, root / "home")
        made.folder.mkdir()
        made.home.mkdir(exist_ok=True)
        quiet = ("--non-interactive", "--quiet", "--skip-hooks", "--skip-agents")
        result = made.run("init", *options, "--prefix", prefix, *quiet)
        if result.code != 0:
            raise RuntimeError(f"bd init failed: {result.err.strip() or result.out.strip()}")
        return made

    def run(self, *args: str, actor: str = "tester", cwd: Path | None = None, **env: str) -> BdResult:
        """Do one call of bd in the workspace, or in `cwd`."""
        done = subprocess.run(
            [self.bd_path, *args],
            cwd=cwd or self.folder,
            env=environment(self.home, BEADS_ACTOR=actor, **env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        return BdResult(done.returncode, done.stdout.decode(), done.stderr.decode())

    def age(self, bead: str, minutes: float) -> None:
        """Make a bead's last change `minutes` old. Raises AssertionError if bd does not let it."""
        moment = datetime.now(UTC) - timedelta(minutes=minutes)
        metadata = json.loads((self.db / "metadata.json").read_bytes())
        if metadata["dolt_mode"] == "embedded":
            self._import_aged(bead, moment)
            return
        update = f"UPDATE issues SET updated_at = '{moment:%Y-%m-%d %H:%M:%S}' WHERE id = '{bead}'"  # noqa: S608
        result = self.run("sql", f"{update}; CALL DOLT_COMMIT('--skip-empty', '-A', '-m', 'aged')")
        assert result.code == 0, result

    def _import_aged(self, bead: str, moment: datetime) -> None:
        """Import the bead with the older time. bd 1.0.5 and later takes that only of a bead that it does not have.

        bd 1.0.2 takes it, and prints nothing.
        """
        shown = json.loads(self.run("show", bead, "--json").out)[0]
        file = self.folder / "aged.jsonl"
        file.write_text(json.dumps(shown | {"updated_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}))
        result = self.run("import", str(file), "--json")
        if result.code == 0 and result.out and not json.loads(result.out)["created"]:
            self.run("delete", bead, "--force")
            result = self.run("import", str(file), "--json")
        assert result.code == 0, result
