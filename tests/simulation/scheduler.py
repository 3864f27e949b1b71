"""Tasks that take turns on one clock: greenlets, switched wherever they wait, by a scheduler that a seed decides.

A task runs until it waits. It goes on when the clock has reached the time that it waits for, so random latencies give
random orders. Nothing here takes real time.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """The task is dead. It is raised at each further step too, so that its `finally` blocks do nothing."""


@dataclass
class Task:
    """One thread of control. `rng` is its own, so that leaving out an event of one task leaves the others alike."""

    name: str
    rng: random.Random
    dead: bool = False
    body: greenlet | None = None


@dataclass
class Scheduler:
    """Runs tasks in the order of the times that they wait for. `now` is in seconds since the start.

    `without` are events that do not happen, by name: this is how a history is made shorter.
    """

    seed: int
    without: Collection[str] = ()
    now: float = 0.0
    stopped: bool = False
    happened: list[str] = field(default_factory=list)
    crashed: list[tuple[str, Exception]] = field(default_factory=list)
    _queue: list[tuple[float, int, Task | Callable[[], object]]] = field(default_factory=list)
    _tasks: list[Task] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _names: "Counter[str]" = field(default_factory=Counter)
    current: Task | None = None

    def __post_init__(self) -> None:
        self._hub = getcurrent()
        self._until = 0.0

    def rng(self, name: str) -> random.Random:
        """Return a random source that depends on the seed and a name alone."""
        return random.Random(f"{self.seed}/{name}")

    def spawn(self, name: str, work: Callable[[Task], None], delay: float = 0.0) -> Task:
        """Begin a task after a delay."""
        task = Task(name, self.rng(name))

        def body() -> None:
            try:
                if not task.dead:
                    work(task)
            except Killed:
                pass
            except Exception as error:  # a defect: the history ends here
                self.crashed.append((name, error))
                self.stopped = True
            task.dead = True

        task.body = greenlet(body, parent=self._hub)
        self._tasks.append(task)
        self._push(delay, task)
        return task

    def later(self, delay: float, act: Callable[[], object]) -> None:
        """Do something after a delay. It must not wait."""
        self._push(delay, act)

    def wait(self, task: Task, seconds: float) -> None:
        """Let the other tasks go on for so long."""
        if task.dead or self.stopped:
            raise Killed
        at = self.now + max(seconds, 0.0)
        if at <= self._until and (not self._queue or at < self._queue[0][0]):
            self.now = at  # nobody else comes before
            return
        self._push(seconds, task)
        self._hub.switch()
        if task.dead or self.stopped:
            raise Killed

    def chance(self, task: Task, probability: float, name: str) -> bool:
        """Decide whether an event happens, and remember it by a unique name."""
        if task.rng.random() >= probability:
            return False
        return self.event(f"{task.name}: {name}")

    def event(self, name: str) -> bool:
        """Return whether an event happens: it does unless it is left out."""
        self._names[name] += 1
        unique = f"{name} #{self._names[name]}"
        if unique in self.without:
            return False
        self.happened.append(unique)
        return True

    def run(self, until: float) -> None:
        """Run tasks until a time, or until somebody sets `stopped`."""
        self._until = until
        while self._queue and not self.stopped and self._queue[0][0] <= until:
            self.now, _, next_one = heapq.heappop(self._queue)
            if isinstance(next_one, Task):
                self._resume(next_one)
            else:
                next_one()
        if not self.stopped:
            self.now = max(self.now, until)

    def close(self) -> None:
        """End all tasks."""
        self.stopped = True
        for task in self._tasks:
            task.dead = True
            if task.body is not None and not task.body.dead:
                self._resume(task)
            task.body = None

    def _resume(self, task: Task) -> None:
        if task.body is not None and not task.body.dead:
            self.current = task
            task.body.switch()
            self.current = None

    def _push(self, delay: float, what: "Task | Callable[[], object]") -> None:
        heapq.heappush(self._queue, (self.now + max(delay, 0.0), next(self._order), what))
