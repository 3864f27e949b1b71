"""A lane, the beads of one assignee, and what the lanes of a loop share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bdauto.bd.change import Writer
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, BdError
from bdauto.controllers.late_notes import LateNotes
from bdauto.domain.settings import DispatchSettings, ReapSettings, RunSettings
from bdauto.loop.dependency_health import DependencyHealth
from bdauto.loop.shared_page import SharedPage
from bdauto.loop.shutdown import Stop
from bdauto.loop.watcher import Watcher
from bdauto.telemetry.recorder import Telemetry

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner
    from bdauto.diagnostics.snapshot import Snapshot
    from bdauto.domain.figures import Figures

ShowQueue = Callable[[str, "Snapshot", "Figures"], None]


@dataclass(frozen=True)
class Lane:
    """What one lane is. `bd` is its client, which knows its name and its assignee. `agent` opens what runs its agent.

    Its limits are settings of `dispatch`. `writer` opens a writer, and `watcher` follows its tracker. Where they are
    None, they are the loop's.
    """

    bd: Bd
    agent: "Callable[[], Runner]"
    dispatch: DispatchSettings
    reap: ReapSettings
    writer: Callable[[], Writer] | None = None
    watcher: Watcher | None = None


@dataclass
class LoopContext:
    """The process round a lane. `call_ended` is called at each sign that a cycle or sweep goes on.

    `pages` has the first page of the queue, which lanes of one tracker and one assignee share. `slot_freed` is called
    when a job on this machine has ended, and `held` when the lane can dispatch nothing for a while.
    """

    settings: RunSettings
    open_writer: Callable[[], Writer]
    runtime: Runtime
    stop: Stop
    telemetry: Telemetry
    watcher: Watcher
    health: DependencyHealth
    call_ended: Callable[[], None]
    counting: bool
    """Whether somebody reads the metrics of the queue."""
    show_queue: "ShowQueue | None" = None
    """Gets a lane's queue when it was counted, and what the runs of this day came to."""
    pages: SharedPage = field(default_factory=SharedPage)
    alone: bool = True
    """Whether there is no other tracker, which a slow one would hold up."""
    slot_freed: Callable[[], None] = lambda: None
    held: Callable[[], None] = lambda: None
    notes: LateNotes = field(default_factory=LateNotes)
    _writer: Writer | None = field(default=None, init=False)

    def writer(self) -> Writer:
        """Return the writer. Its first change begins a critical section."""
        if self._writer is None:
            self._writer = self.open_writer()
        return self.stop.shield(self._writer)

    def bd_used(self, user: str, error: BdautoError | None) -> None:
        """Note whether bd did what this user of it wanted. After an outage it may be another version."""
        self.health.bd(user, error)
        if isinstance(error, BdError):
            self._writer = None


@dataclass
class Turn:
    """Work that the loop does again and again. `take` sets when it is due next, by the monotonic clock."""

    take: Callable[[], None]
    due: float
    served: float = float("-inf")
    """When it last dispatched a bead."""

    def by(self, moment: float) -> None:
        """Let it be due at this moment, unless it is due before."""
        self.due = min(self.due, moment)
