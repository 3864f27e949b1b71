"""The scenes: which beads there are, which programs run there, and how it is known that they did their work."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bdauto.sandbox import FakeBeadBoard
from bdauto.sandbox.real_bd import environment
from benchmarks.beads import SeedBead, Shape, others, queue_of, stalled
from benchmarks.measure import Contender, Scene, nothing
from benchmarks.world import Tracker, World

BDAUTO, SCRIPT, BARE, SWITCH, LOOP = "bdauto", "script", "bare bd", "pause switch", "run"
PROGRAM = Path(sys.executable).parent / "bdauto"
INCUMBENT = Path(__file__).parent / "incumbent.sh"
STALLED = 10
LOGGED = ("--log-format", "json", "--verbose")


@dataclass
class Stage:
    """Makes scenes in a world."""

    world: World
    board: FakeBeadBoard
    _trackers: dict[str, Tracker] = field(default_factory=dict)

    def idle(self, command: str = "dispatch") -> Scene:
        """500 beads, none of them the agent's; nothing to do."""
        tracker = self._tracker("idle", others)
        return self._scene(command, tracker) | self._bare(tracker)

    def one(self) -> Scene:
        """One eligible bead among 500 others."""
        return self._dispatching(self._tracker("one", lambda: queue_of(1) + others()), 0)

    def stalled(self) -> Scene:
        """Ten stalled beads among 500 others, to be blocked."""
        tracker = self._tracker("stalled", lambda: stalled(STALLED) + others())

        def reaped() -> None:
            assert tracker.count("blocked") == STALLED, f"{tracker.count('blocked')} beads were reaped"

        return self._scene("reap", tracker, tracker.reset, reaped)

    def queue(self, length: int, shape: Shape) -> Scene:
        """`length` eligible beads and no others; one is dispatched, and bare bd lists them all."""
        tracker, best = self._queue(length, shape)
        return self._dispatching(tracker, best) | self._bare(tracker, tracker.reset)

    def several(self, length: int, most: int) -> Scene:
        """`length` eligible beads of one priority: one `dispatch` of one bead, and one of `most`."""
        tracker, _ = self._queue(length, "one priority")
        scene = {}
        for count in (1, most):
            posted: list[int] = []

            def before(posted: list[int] = posted) -> None:
                tracker.reset()
                posted[:] = [len(self.board.posts)]

            def after(posted: list[int] = posted, count: int = count) -> None:
                assert len(self.board.posts) == posted[0] + count, f"not {count} beads were dispatched"

            one = self._bdauto(["dispatch", "--max", str(count)], tracker)
            scene[f"{count}"] = replace(one, before=before, after=after)
        return scene

    def pod(self, length: int) -> Scene:
        """The same as a new pod sees it: a fresh folder with a metadata.json. bd exports after a write as it likes."""
        tracker, best = self._queue(length, "usual")
        scene = self._dispatching(tracker, best)
        for name, contender in scene.items():
            env = {
                key: value
                for key, value in contender.env.items()
                if key not in ("BD_EXPORT_AUTO", "BDAUTO_DB", "BEADS_DB")
            }
            db = tracker.workspace.db
            env |= {"BDAUTO_METADATA": str(db / "metadata.json"), "BEADS_METADATA": str(db)}
            scene[name] = replace(contender, env=env)
        return scene

    def loop(self, *options: str, queue: int = 0) -> Contender:
        """`bdauto run` with these options and a log of each step, where nothing or `queue` beads are eligible."""
        tracker = self._queue(queue, "usual")[0] if queue else self._tracker("idle", others)
        contender = self._bdauto(["run", *LOGGED, *options], tracker)
        return replace(contender, before=tracker.reset)

    def watching(self, tracker: Tracker) -> Contender:
        """`bdauto run` at its defaults on a tracker."""
        return self._bdauto(["run", *LOGGED], tracker)

    def bare(self) -> Scene:
        """Bare bd where there is nothing to do: the query, and the look at the pause switch."""
        tracker = self._tracker("idle", others)
        return {**self._bare(tracker), SWITCH: self._bd(tracker, "kv", "list", "--json")}

    def counted(self, contender: Contender, file: Path) -> Contender:
        """The same with a bd that adds a line to `file` each time it is started."""
        bd = file.with_suffix(".bd")
        bd.write_text(f'#!/bin/sh\necho >>"{file}"\nexec "{contender.env["BD"]}" "$@"\n', encoding="utf-8")
        bd.chmod(0o755)
        return replace(contender, env={**contender.env, "BD": str(bd), "BDAUTO_BD": str(bd)})

    def _queue(self, length: int, shape: Shape) -> tuple[Tracker, int]:
        beads = queue_of(length, shape)
        best = min(range(length), key=lambda number: (beads[number].priority, beads[number].updated))
        return self._tracker(f"{length} {shape}", lambda: beads), best

    def _tracker(self, name: str, beads: Callable[[], list[SeedBead]]) -> Tracker:
        if name not in self._trackers:
            self._trackers[name] = self.world.tracker(beads())
        return self._trackers[name]

    def _dispatching(self, tracker: Tracker, best: int) -> Scene:
        """The programs that dispatch one bead; bdauto has to take the best, the script only looks at 50."""
        posted: list[int] = []

        def before() -> None:
            tracker.reset()
            posted[:] = [len(self.board.posts)]

        def dispatched() -> None:
            assert len(self.board.posts) == posted[0] + 1, "not one bead was dispatched"

        def dispatched_best() -> None:
            dispatched()
            bead = self.board.posts[-1].task
            assert bead.endswith(f"-{best:05x}"), f"{bead} is not the best bead"

        scene = self._scene("dispatch", tracker, before, dispatched)
        return scene | {BDAUTO: replace(scene[BDAUTO], after=dispatched_best)}

    def _scene(
        self, command: str, tracker: Tracker, before: Callable[[], None] = nothing, after: Callable[[], None] = nothing
    ) -> Scene:
        bdauto = self._bdauto([command], tracker)
        scene = {BDAUTO: bdauto, SCRIPT: replace(bdauto, argv=[str(INCUMBENT), command])}
        return {name: replace(contender, before=before, after=after) for name, contender in scene.items()}

    def _bare(self, tracker: Tracker, before: Callable[[], None] = nothing) -> Scene:
        query = ("query", "assignee=agent AND status=open", "--json", "--limit", "0")
        return {BARE: replace(self._bd(tracker, *query), before=before)}

    def _bd(self, tracker: Tracker, *arguments: str) -> Contender:
        argv = [str(self.world.bd_path), "--db", str(tracker.workspace.db), *arguments]
        return replace(self._bdauto([], tracker), argv=argv)

    def _bdauto(self, arguments: list[str], tracker: Tracker) -> Contender:
        """bdauto on a tracker. The environment has the script's variables too; bd's export after writes is off."""
        bd_path, db = str(self.world.bd_path), str(tracker.workspace.db)
        env = environment(
            self.world.home,
            TMPDIR=str(self.world.home),
            BEADBOARD_URL=self.board.url,
            BDAUTO_BD=bd_path,
            BDAUTO_DB=db,
            BD=bd_path,
            BEADS_DB=db,
            BD_EXPORT_AUTO="false",
        )
        return Contender([str(PROGRAM), *arguments], env, self.world.home)
