"""The sandbox: a temporary folder with a workspace, bd, BeadBoard and an agent service, gone when it closes."""

import json
import os
import select
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from bdauto.sandbox.fake_bd import main as stand_in
from bdauto.sandbox.fake_bd.call import DATABASE, BdResult
from bdauto.sandbox.fake_bd.faults import Control, Fault, RecordedCall
from bdauto.sandbox.fake_bd.store import Store, stamp
from bdauto.sandbox.fake_beadboard import FakeBeadBoard, Post

Kind = Literal["hang", "exit", "die", "conflict", "pause", "slow", "replace", "half", "lost"]
When = Literal["before", "after"]
AGENT_SCRIPT = Path(__file__).with_name("agent.sh")
"""A tiny agent: the command of `bdauto demo --local`."""
Topology = Literal["server", "embedded", "proxied"]
"""A Dolt server that bd is told of, a database inside bd, or a Dolt server that bd starts behind a proxy (bd 1.3)."""
INIT: dict[Topology, list[str]] = {"server": ["--server"], "embedded": [], "proxied": ["--proxied-server"]}
"""Options of `bd init` of the stand-in."""


class Workspace(Protocol):
    """A bd and a workspace for it: the stand-in's, or a real one that somebody else set up."""

    bd_path: Path
    db: Path

    def run(self, *args: str, actor: str = ...) -> BdResult:
        """Do one call of bd in the workspace."""

    def age(self, bead: str, minutes: float) -> None:
        """Make a bead's last change `minutes` old."""


class StandIn:
    """The stand-in for bd, installed in a folder, with a workspace in it. `run` stays inside this process."""

    def __init__(self, folder: Path, *, topology: Topology, prefix: str) -> None:
        (folder / "bin").mkdir()
        (folder / "work").mkdir()
        self.folder = folder / "work"
        self.bd_path = Path(stand_in.install(str(folder / "bin")))
        self.db = self.folder / ".beads"
        self.run("init", *INIT[topology], "--prefix", prefix)
        self.db.chmod(0o755)  # bd then warns on stderr at every call, as it does in many a real workspace

    def run(self, *args: str, actor: str = "tester") -> BdResult:
        """Do one call of bd in the workspace, without faults and without a process."""
        return stand_in.run(args, env={"BEADS_ACTOR": actor}, cwd=str(self.folder))

    def edit(self, bead: str, **columns: object) -> None:
        """Set database columns of a bead without bd. `updated_at` stays as it is unless given."""
        store = Store(str(self.db / DATABASE))
        store.write(bead, columns)
        store.close()

    def age(self, bead: str, minutes: float) -> None:
        """Make a bead's last change `minutes` old."""
        self.edit(bead, updated_at=stamp(ago=minutes * 60 + 0.5))  # never younger by the rounding of `stamp`


class Breakpoint:
    """A place where calls of bd wait: `wait` until they are there, look around, `release` them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pipes = []
        for name in ("reached", "release"):
            os.mkfifo(folder / name)
            self._pipes.append(os.open(folder / name, os.O_RDWR))

    def wait(self, calls: int = 1, timeout: float = 90.0) -> None:
        """Wait until `calls` more calls are here. Raises TimeoutError after `timeout` seconds for one of them."""
        for _ in range(calls):
            if not select.select([self._pipes[0]], [], [], timeout)[0]:
                raise TimeoutError("no call of bd came here")
            os.read(self._pipes[0], 1)

    def release(self, calls: int = 1) -> None:
        """Let `calls` calls go on."""
        os.write(self._pipes[1], b"." * calls)

    def close(self) -> None:
        """Release all calls, and stop no more."""
        self.release(64)
        for name in ("reached", "release"):
            (self.folder / name).unlink()
        for pipe in self._pipes:
            os.close(pipe)


class Sandbox:
    """A self-contained world for bdauto: `with Sandbox() as sandbox: …`. Nothing is left behind."""

    def __init__(
        self,
        *,
        topology: Topology = "server",
        capacity: int = 1,
        queue: int = 0,
        prefix: str = "sb",
        real: Workspace | None = None,
    ) -> None:
        """Start the sandbox.

        topology: where the workspace's database is.
        capacity, queue: of the agent service.
        real: a workspace of the real bd instead of the stand-in, without faults, calls and `edit`.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="bdauto-sandbox-"))
        self._stand_in = StandIn(self.folder, topology=topology, prefix=prefix) if real is None else None
        workspace = real or self._stand_in
        assert workspace is not None
        self.workspace: Workspace = workspace
        self.topology = topology
        self.bd_path, self.db = workspace.bd_path, workspace.db
        self.board = FakeBeadBoard(workspace.run, capacity=capacity, queue=queue)
        self._pauses: list[Breakpoint] = []
        if real is None and topology == "proxied":
            self.set_version("1.3.0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the services, let paused calls go, remove the folder."""
        for pause in self._pauses:
            pause.close()
        self.board.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """BeadBoard's address."""
        return self.board.url

    @property
    def agent_url(self) -> str:
        """The agent service's address."""
        return self.board.agent_url

    @property
    def token(self) -> str:
        """The agent service's bearer token."""
        return self.board.token

    @property
    def posts(self) -> list[Post]:
        """The dispatch requests that BeadBoard received, in order."""
        return self.board.posts

    def env(self, *, agent: bool = False, **more: str) -> dict[str, str]:
        """The environment to run `bdauto` with: this sandbox, PATH and `more`. `agent` adds the agent service."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "BDAUTO_DB": str(self.db),
            "BDAUTO_BD": str(self.bd_path),
            "BEADBOARD_URL": self.url,
        }
        if agent:
            env |= {"BDAUTO_AGENT_URL": self.agent_url, "API_BEARER_TOKEN": self.token}
        return env | more

    def run(self, *args: str, actor: str = "tester") -> BdResult:
        """Do one call of bd in the workspace, as another program would, without faults. Asserts that it succeeds."""
        answer = self.workspace.run(*args, actor=actor)
        assert answer.code == 0, answer
        return answer

    def create(
        self,
        title: str = "a bead",
        *,
        priority: int = 2,
        acceptance: str = "it works",
        assignee: str = "agent",
        type: str = "task",
        more: Sequence[str] = (),
    ) -> str:
        """Create a bead and return its id. `more` are further arguments for `bd create`."""
        told = ["--acceptance", acceptance] if acceptance else []
        told += ["-a", assignee] if assignee else []
        answer = self.run("create", title, "-p", str(priority), "-t", type, *told, *more, "--json")
        return str(json.loads(answer.out)["id"])

    def show(self, bead: str) -> dict[str, Any]:
        """A bead as `bd show --json` has it."""
        found: list[dict[str, Any]] = json.loads(self.run("show", bead, "--json").out)
        return found[0]

    def notes(self, bead: str) -> list[str]:
        """The lines of a bead's notes."""
        return str(self.show(bead).get("notes", "")).splitlines()

    def age(self, bead: str, minutes: float) -> None:
        """Make a bead's last change `minutes` old."""
        self.workspace.age(bead, minutes)

    def edit(self, bead: str, **columns: object) -> None:
        """Set database columns of a bead past bd (stand-in only): what no bd call can set, or a malformed bead."""
        assert self._stand_in is not None, "the real bd's database cannot be edited"
        self._stand_in.edit(bead, **columns)

    @property
    def _control(self) -> Control:
        assert self._stand_in is not None, "the real bd takes no orders"
        return Control(str(self.bd_path.parent / stand_in.CONTROL))

    def fault(
        self,
        verb: str,
        kind: Kind,
        *,
        when: When = "before",
        skip: int = 0,
        times: int = 1,
        match: str = "",
        text: str = "",
        code: int = 1,
    ) -> None:
        """Make calls of bd fail: `times` calls (-1: all) of `verb` (`*`: any) after the first `skip`.

        Only calls with `match` in their arguments count, texts in SQL made readable. For kinds, see `faults.Fault`.
        """
        control = self._control
        control.add(Fault(verb, kind, when, text, code), skip=skip, times=times, match=match)
        control.close()

    def pause(self, verb: str, *, when: When = "before", skip: int = 0, times: int = 1, match: str = "") -> Breakpoint:
        """Let calls of bd stop until released, before or after they do their work."""
        pause = Breakpoint(Path(tempfile.mkdtemp(dir=self.folder)))
        self._pauses.append(pause)
        self.fault(verb, "pause", when=when, skip=skip, times=times, match=match, text=str(pause.folder))
        return pause

    def clear_faults(self) -> None:
        """Forget the faults that have not happened yet."""
        control = self._control
        control.clear()
        control.close()

    def set_version(self, version: str) -> None:
        """What `bd version` reports from now on."""
        control = self._control
        control.set("version", version)
        control.close()

    @property
    def calls(self) -> list[RecordedCall]:
        """The processes of bd that were started, in order."""
        control = self._control
        found = control.calls()
        control.close()
        return found
