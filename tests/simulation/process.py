"""A process of bdauto: its clock, its death, and what it has read, which decides what it may write."""

import copy
import random
from collections.abc import Callable
from datetime import datetime, timedelta

from bdauto.common.clock import Runtime
from bdauto.domain.bead import Bead
from tests.simulation.plan import MINUTE
from tests.simulation.scheduler import Killed, Task
from tests.simulation.world import Attempt, World

IN_A_ROW = 3
"""So many beads in a row that are refused, or not started, end a cycle."""


class Process:
    """One run of bdauto in a task. A dead one does nothing more: each step of it raises Killed."""

    def __init__(self, world: World, task: Task, name: str, host: str = "", skew: float = 0.0) -> None:
        self.world = world
        self.task = task
        self.name = name
        self.host = host
        self.skew = timedelta(seconds=skew)
        self.dead = False
        self.at = "start"
        """What it does now, for the statistics."""
        self.begun = world.scheduler.now
        self.interrupt: Callable[[], None] | None = None
        """Delivers a signal, once the process handles signals."""
        self.signals = 0
        self.runtime = Runtime(self._now, self._monotonic, self._sleep, random.Random(task.rng.getrandbits(64)))
        self.seen: dict[str, Bead] = {}
        self.claims: dict[str, str] = {}
        self.trials: set[str] = set()
        self.changed: list[tuple[str, str]] = []
        """The changes that were written and answered: bead and act."""
        self.jobs_told: dict[str, str] = {}
        self.not_passed: set[str] = set()
        """The jobs of which it was told that they have not passed their check."""
        self.runs_nothing = False
        self.ready_at: float | None = None
        self.read_at: dict[str, float] = {}  # when each bead was last read by its id
        self.looked_at: float | None = None
        """When it first read the key-value store since it began or posted: later reads are not for the pause switch."""
        self.look_took = 0.0
        """How many seconds its last read of the key-value store took."""
        self.written_at = 0.0
        """When its last write returned."""
        self.stood_still = -1.0
        """When it last went on after it had stood still."""
        self.status_written: list[str] = []
        """The beads of which it wrote the status, or may have."""
        self.listed: tuple[Bead, ...] = ()
        """The beads in progress that its sweep has read."""
        self.service_silent = self.bd_failed = False
        """Whether the agent service as a whole, or bd, has failed in its cycle or sweep."""
        self.store: dict[str, str] = {}
        self.posted_at: float | None = None
        self.refused_in_a_row = self.not_started_in_a_row = 0
        self.stops = ""
        """The answer that ends its cycle."""
        self.troubled = False
        """Whether something has failed in its cycle or sweep."""
        self.opened = False
        """Whether its sweep has opened the breaker."""
        self.aged = 0
        """How many beads its sweep has settled without a word that their job is over."""
        self.claims_since_signal = 0
        self.started = 0
        self.tried: set[str] = set()
        self.swapped: dict[str, str] = {}
        self.free: int | None = None
        self.asks_for_room = False

    def begin(self) -> None:
        """Begin a cycle or sweep: what it reads, is told and does in it counts."""
        self.begun = self.world.scheduler.now
        self.changed, self.status_written = [], []
        self.listed, self.service_silent, self.bd_failed = (), False, False
        self.world.logged[self.task.name] = []
        self.jobs_told, self.not_passed = {}, set()
        self.runs_nothing = False
        self.looked_at = self.posted_at = None
        self.started = self.refused_in_a_row = self.not_started_in_a_row = self.aged = 0
        self.stops, self.troubled, self.opened = "", False, False
        self.tried = set()
        self.store, self.swapped = {}, {}

    def listed_as(self, bead_id: str) -> Bead | None:
        """Return a bead as its sweep has listed it, None if it has not."""
        return next((bead for bead in self.listed if bead.id == bead_id), None)

    def hear(self, attempt: Attempt, answer: str) -> None:
        """Note what the answer to a POST means."""
        attempt.answer = answer
        if answer != "not found":  # says nothing of the beads before it
            self.refused_in_a_row = self.refused_in_a_row + 1 if answer == "refused" else 0
        self.not_started_in_a_row = self.not_started_in_a_row + 1 if answer == "not started" else 0
        self.started += answer == "started"
        self.troubled |= answer not in ("started", "busy", "not found")
        if answer in ("busy", "unknown", "misconfigured") or IN_A_ROW in (
            self.refused_in_a_row,
            self.not_started_in_a_row,
        ):
            self.stops = answer

    def as_now(self) -> "Process":
        """Return this process with what it knows now, for a write that is made later."""
        then = copy.copy(self)
        then.seen, then.read_at = dict(self.seen), dict(self.read_at)
        return then

    def step(self, longest: float = 0.4) -> None:
        """Come to a point where others can act, and where this process may be killed."""
        if self.dead:
            raise Killed
        self._perhaps_die()
        if self.interrupt and self.happens("SIGTERM"):
            self.tell("gets SIGTERM")
            self.signals += 1
            self.interrupt()
        self.world.scheduler.wait(self.task, self.task.rng.uniform(0.005, longest))

    def wait(self, seconds: float) -> None:
        """Wait for so long."""
        if self.dead:
            raise Killed
        self.world.scheduler.wait(self.task, seconds)

    def happens(self, fault: str) -> bool:
        """Decide whether a fault happens here."""
        if self.dead:
            raise Killed
        rates = self.world.rates
        if not rates:
            return False
        self.world.points.add((self.at, fault))
        rate = rates.get(fault)
        if rate is None or not self.world.scheduler.chance(self.task, rate, fault):
            return False
        self.world.faults[self.at, fault] += 1
        return True

    def perhaps_suspended(self) -> None:
        """Stand still for some time, as on a host that is asleep or overloaded."""
        if self.happens("suspended"):
            seconds = self.task.rng.choice((20.0, 3 * MINUTE, 12 * MINUTE, 40 * MINUTE))
            self.tell("stands still for {:.0f} s", seconds)
            self.troubled = True  # there may be no time left to ask about a job
            self.wait(seconds)
            self.stood_still = self.world.scheduler.now

    def tell(self, words: str, *values: object) -> None:
        """Note what this process does."""
        self.world.tell(self.name, words, *values)

    def _perhaps_die(self) -> None:
        if self.happens("killed"):
            self.tell("is killed")
            self.world.count("killed")
            self.dead = True
            raise Killed

    def _now(self) -> datetime:
        self.perhaps_suspended()
        return self.world.now + self.skew

    def _monotonic(self) -> float:
        self.perhaps_suspended()
        return self.world.scheduler.now

    def _sleep(self, seconds: float) -> None:
        self.step()
        self.wait(seconds)
