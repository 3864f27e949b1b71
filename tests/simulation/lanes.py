"""Lanes of one tracker: several dispatchers, and people who change beads while they decide.

It uses the real dispatcher, the real turns of lanes, and the real count of slots. The model knows by itself to which
lane a bead belongs, and which lanes are held. `python -m tests.simulation --lives` runs many.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from bdauto.agents.answers import Answer, AtCapacity, Started
from bdauto.agents.local.jobs import JobRecord
from bdauto.agents.local.local_jobs import Origin
from bdauto.agents.local.runner import LocalAgent, machine_part
from bdauto.agents.runner import Place, Runner
from bdauto.agents.runner_status import Capacity, RunnerStatus
from bdauto.bd.change import Change
from bdauto.controllers import lane_turns
from bdauto.domain.bead import Bead
from bdauto.domain.breaker import Breaker, Death
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.outcome import BeadOutcome, Outcome, Report
from bdauto.domain.reaping import JobEvidence
from bdauto.domain.settings import BdSettings, DispatchSettings
from bdauto.loop.lane_group import LaneGroup
from bdauto.loop.loop import Loop
from bdauto.loop.loop_context import Turn
from tests.support.fakes import Clock, Tracker, dispatcher, row

ASSIGNEES, LABELS, TYPES = ("agent", "agent", "agent", "ann"), ("docs", "web"), ("task", "bug")
CREATORS = ("ada", "bob")
DAY = timedelta(days=1)
CALM = 14 * 24
"""Hours after the last change within which every bead that has a lane is closed: limits hold some for days."""


@dataclass
class Job:
    """A job on the machine."""

    bead: str
    lane: str
    assignee: str
    begun: datetime
    state: str = "running"


@dataclass(eq=False)
class Cycle:
    """One cycle of a lane, and what was true at some moment of it: only that can be held against it."""

    rules: Sequence[LaneRule]
    lane: str
    may: set[str] = field(default_factory=set)
    """The beads that this lane may start."""
    held: set[str] = field(default_factory=set)
    """How this lane was held: `suspended`, `limited`, `busy`."""
    free: bool = False
    """Whether no limit was reached since the last start."""


@dataclass
class World:
    """The tracker, the machine, and all who use them."""

    seed: int
    violation: str = ""
    starts: int = 0
    handed_over: int = 0
    calm: bool = False
    in_turn: bool = False
    """Whether the loop takes a turn: it takes one after the other."""
    jobs: dict[str, Job] = field(default_factory=dict)
    cycles: list[Cycle] = field(default_factory=list)
    passed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often in a row the loop passed over a lane that could dispatch, for which other one."""

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        self.clock = Clock()
        self.runtime = self.clock.runtime(self.seed)
        self.slots = rng.choice((None, 1, 1, 2, 4))
        self.of_all = rng.choice((None, None, 8))
        self.lane_slots = {f"l{number}": rng.choice((1, 1, 2, 3)) for number in range(5)}
        rules = self._rules(rng.randint(2, 5))
        gone = rng.choice(rules).name
        kept = [rule for rule in rules if rule.name != gone]
        self.files = (rules, [_without(rule, gone) for rule in kept])
        self.versions = [0] * rng.randint(2, 4)
        self.rows = {f"x-{number}": self._row(f"x-{number}") for number in range(rng.randint(6, 16))}
        self.store: dict[str, Any] = {}
        self.turns: dict[str, Turn] = {}

    def _rules(self, number: int) -> list[LaneRule]:
        rng, found = self.rng, list[LaneRule]()
        for name in [f"l{n}" for n in range(number)]:
            wants = DispatchSettings(
                labels=rng.choice(((), ("docs",), ("web",))),
                exclude_labels=rng.choice(((), (), ("web",))),
                types=rng.choice(((), (), ("bug",))),
                priorities=rng.choice(((), (), (0, 1))),
                trusted_creators=rng.choice(((), (), ("ada",))),
                max_per_day=rng.choice((None, None, 2, 4)),
                per_day_of_all=self.of_all,
                max_beads=rng.choice((1, 1, 3)),
                max_attempts=9,
            )
            found.append(LaneRule(name, rng.choice(ASSIGNEES), wants, local=True))
        order = rng.sample(range(number), number)  # a lane falls back on a later one of this order: there is no circle
        for at, which in enumerate(order):
            later = [found[other] for other in order[at + 1 :] if found[other].assignee == found[which].assignee]
            fallback = rng.choice(later).name if later and rng.random() < 0.7 else ""
            rule = found[which]
            found[which] = LaneRule(rule.name, rule.assignee, rule.wants, local=True, fallback=fallback)
        return found

    def _row(self, bead: str) -> dict[str, Any]:
        rng = self.rng
        labels = [label for label in LABELS if rng.random() < 0.4]
        fields = {"labels": labels, "issue_type": rng.choice(TYPES), "created_by": rng.choice(CREATORS)}
        return row(bead, priority=rng.randrange(4), assignee=rng.choice(ASSIGNEES), **fields)

    # What the model knows by itself

    def owner(self, rules: Sequence[LaneRule], bead: Mapping[str, Any]) -> LaneRule | None:
        """Return the first lane whose conditions a bead meets."""
        return next((rule for rule in rules if _meets(rule, bead)), None)

    def suspended(self, lane: str) -> bool:
        """Return whether a lane's breaker is open."""
        value = json.loads(self.store.get(f"bdauto.breaker.{lane}") or "{}").get("until")
        return bool(value) and self.clock.now() < datetime.fromisoformat(value)

    def limited(self, rules: Sequence[LaneRule], rule: LaneRule, *, claims: bool, alone: bool = False) -> bool:
        """Return whether a lane's limit is reached, or, unless it is asked `alone`, that of all.

        With `claims`, beads count that are claimed and not started yet.
        """
        mine = [job for job in self.jobs.values() if job.begun > self.clock.now() - DAY]
        started = {job.bead for job in mine if job.state == "running"}
        waiting = [one for one in self.rows.values() if one["status"] == "in_progress" and one["id"] not in started]
        heirs = [self._heir_of_run(rules, job) for job in mine]
        of_rule = [one for one in waiting if one["assignee"] == rule.assignee] if claims else []
        everyone = len([*filter(None, heirs)]) + (len(waiting) if claims else 0)
        if rule.wants.max_per_day is not None and heirs.count(rule.name) + len(of_rule) >= rule.wants.max_per_day:
            return True
        return not alone and self.of_all is not None and everyone >= self.of_all

    def _heir_of_run(self, rules: Sequence[LaneRule], job: Job) -> str:
        """Return the lane for whose limits a run counts: that which ran it, else that of the bead's last claim."""
        if any(rule.name == job.lane for rule in rules):
            return job.lane
        return _heir(rules, "", str(self.rows[job.bead].get("metadata", {}).get("bdauto.assignee", job.assignee)))

    def full(self, rules: Sequence[LaneRule], lane: str) -> bool:
        """Return whether a lane, or the machine, has no free slot."""
        running = [job for job in self.jobs.values() if job.state == "running"]
        own = sum(_heir(rules, job.lane, job.assignee) == lane for job in running)
        return own >= self.lane_slots[lane] or (self.slots is not None and len(running) >= self.slots)

    def may_start(self, rules: Sequence[LaneRule], lane: str, bead: Mapping[str, Any]) -> bool:
        """Return whether a bead is this lane's: it is the first, or all before it on the way of fallbacks are held."""
        by_name = {rule.name: rule for rule in rules}
        found = self.owner(rules, bead)
        while found and found.name != lane:
            held = self.suspended(found.name) or self.limited(rules, found, claims=True, alone=True)
            found = by_name.get(found.fallback) if held else None
        return found is not None

    def note(self) -> None:
        """Note for each cycle that is under way what is true now."""
        for cycle in self.cycles:
            rule = next(rule for rule in cycle.rules if rule.name == cycle.lane)
            cycle.may |= {key for key, one in self.rows.items() if self.may_start(cycle.rules, cycle.lane, one)}
            cycle.held |= {"suspended"} if f"bdauto.breaker.{cycle.lane}" in self.store else set()  # or half open
            cycle.held |= {"limited"} if self.limited(cycle.rules, rule, claims=True) else set()
            cycle.held |= {"busy"} if self.full(cycle.rules, cycle.lane) else set()
            cycle.free |= not self.limited(cycle.rules, rule, claims=False)

    # What happens

    def happen(self) -> None:
        """Let something happen while a cycle is under way, or between two."""
        if self.calm:
            return
        kinds: list[Callable[[], None]] = [self.change, self.change, self.pass_time, self.trip, self.end_job]
        kinds += [self.remove_lane] + [self.dispatch] * 2 * (len(self.cycles) < 3)
        self.note()
        self.rng.choice(kinds)()
        self.note()

    def change(self) -> None:
        """Let a person change a bead. A label does not move the time of the last update."""
        one = self.rng.choice([*self.rows.values()])
        match self.rng.choice(("label", "label", "priority", "type", "assignee", "open")):
            case "label":
                one["labels"] = sorted({*one["labels"]} ^ {self.rng.choice(LABELS)})
                return
            case "priority":
                one["priority"] = self.rng.randrange(4)
            case "type":
                one["issue_type"] = self.rng.choice(TYPES)
            case "assignee" if one["status"] == "open":
                one["assignee"] = self.rng.choice(ASSIGNEES)
            case "open" if one["status"] == "closed":
                one["status"] = "open"
            case _:
                return
        one["updated_at"] = self.clock.now()

    def pass_time(self) -> None:
        """Let some time pass."""
        self.clock.time += timedelta(seconds=self.rng.choice((1, 20, 300, 3000)) * self.rng.random())

    def trip(self, lane: str = "", hours: float = 0.0) -> None:
        """Open the breaker of a lane, or close it."""
        lane = lane or self.rng.choice(self.files[0]).name
        key = f"bdauto.breaker.{lane}"
        if key in self.store and not hours:
            del self.store[key]
            return
        until = self.clock.now() + timedelta(hours=hours or self.rng.choice((0.1, 1.0)))
        self.store[key] = Breaker((Death("z-1", "w0"),), until, 1, write=str(self.rng.random())).encode()

    def end_job(self, chosen: str = "") -> None:
        """Let an agent close its bead, or leave it to the lane of its claim, which opens it again."""
        running = [key for key, job in self.jobs.items() if job.state == "running"]
        started = [key for key in running if (self.rows[self.jobs[key].bead].get("metadata") or {}).get("bdauto.job")]
        if not started:
            return
        key = chosen or self.rng.choice(started)
        job, one = self.jobs[key], self.rows[self.jobs[key].bead]
        job.state = "completed"
        for rules in self.files:
            bead = Tracker(self.clock, one).bead(one["id"])
            owners = [rule.name for rule in rules if Lanes(rule.name, tuple(rules)).claimed(bead)]
            if owners != [name for name in [_heir(rules, job.lane, job.assignee)] if name]:
                self.violate(f"{one['id']}, which {job.lane} has claimed, is settled by {owners}")
        died = not self.calm and self.rng.random() < 0.2
        one |= {"status": "open" if died else "closed", "updated_at": self.clock.now()}
        if f'"trial":"{key}"' in str(self.store.get(f"bdauto.breaker.{job.lane}")):
            self.trip(job.lane, 1.0 if died else 0.0)

    def remove_lane(self) -> None:
        """Let a dispatcher read the file from which a lane has been removed."""
        self.versions[self.rng.randrange(len(self.versions))] = 1

    # Those who dispatch

    def dispatch(self) -> None:
        """Let a command dispatch some lanes or all, or the loop take a turn."""
        number = self.rng.randrange(len(self.versions))
        rules = self.files[self.versions[number]]
        if number == 0:
            if not self.in_turn:
                self.turn(rules)
        elif serves := [rule for rule in rules if rules and self.rng.random() < 0.8]:
            cycles = {rule.name: self._cycle(rules, rule) for rule in serves}
            lane_turns.dispatch_in_turns(cycles, {rule.name: rule.wants.max_beads for rule in serves}, self.rng)

    def turn(self, rules: Sequence[LaneRule]) -> None:
        """Let the loop take the turn that it chooses, if one is due."""
        now, names = self.clock.monotonic(), [rule.name for rule in rules]
        for name in names:
            self.turns.setdefault(name, Turn(lambda: None, now))
        workers = [SimpleNamespace(dispatching=self.turns[name], resting=False) for name in names]
        turns = [(worker.dispatching, number) for number, worker in enumerate(workers)]
        loop = cast(Loop, SimpleNamespace(_turns=turns, _workers=workers, runtime=self.runtime))
        turn, number = Loop._next_turn(loop)
        if turn.due > now or not rules:
            return
        able = [rule.name for rule in rules if self.turns[rule.name].due <= now and self.able(rules, rule)]
        self.in_turn = True
        report = self._cycle(rules, rules[number])(1)
        self.in_turn = False
        done = any(bead.outcome is BeadOutcome.dispatched for bead in report.beads)
        turn.due = self.clock.monotonic() + (0.1 if done else 60)
        if done:
            turn.served = self.clock.monotonic()
            self._pass_over(names[number], able)
        if report.outcome in (Outcome.suspended, Outcome.limited):
            lanes = [SimpleNamespace(bd=SimpleNamespace(lane=n, lanes=Lanes(n, tuple(rules)))) for n in names]
            LaneGroup(cast(Any, lanes), (), cast(Any, workers), self.runtime).held(cast(Any, lanes[number]))

    def able(self, rules: Sequence[LaneRule], rule: LaneRule) -> bool:
        """Return whether a lane has a bead of its own, and nothing holds it."""
        held = self.suspended(rule.name) or self.limited(rules, rule, claims=True)
        mine = (one for one in self.rows.values() if one["status"] == "open" and self.owner(rules, one) == rule)
        return not (held or self.full(rules, rule.name)) and any(mine)

    def _pass_over(self, chosen: str, able: Collection[str]) -> None:
        """Count who was passed over. A lane that could not dispatch begins anew."""
        kept = {pair: times for pair, times in self.passed.items() if pair[0] in able and pair[0] != chosen}
        self.passed = Counter(kept) + Counter((name, chosen) for name in able if name != chosen)
        if starved := [name for (name, _), times in self.passed.items() if times > 1]:
            self.violate(f"starved: the loop has passed over {starved} for {chosen}, and not for the first time")

    def _cycle(self, rules: Sequence[LaneRule], rule: LaneRule) -> Callable[[int], Report]:
        def cycle(most: int) -> Report:
            bd = SimTracker(self, rules, rule)
            settings = DispatchSettings(
                **{name: getattr(rule.wants, name) for name in rule.wants.__struct_fields__ if name != "max_beads"},
                max_beads=most,
            )
            runner = SimRunner(self, rules, rule)
            this = Cycle(rules, rule.name)
            self.cycles.append(this)
            self.note()
            try:
                report = dispatcher(bd, bd, lambda: runner, settings, self.runtime).cycle()
                self.note()
            finally:
                self.cycles.remove(this)
            for hold in (Outcome.suspended, Outcome.limited, Outcome.busy):
                if report.outcome is hold and hold.value not in this.held:
                    self.violate(f"{rule.name} is {hold.value} ({report.detail}) while it is not held")
            return report

        return cycle

    def start(self, runner: "SimRunner", bead: Bead, attempt: str) -> None:
        """Start an agent, and judge who starts it."""
        rule, cycle = runner.rule, next(one for one in reversed(self.cycles) if one.lane == runner.rule.name)
        running = [job for job in self.jobs.values() if job.state == "running"]
        if any(job.bead == bead.id for job in running):
            self.violate(f"{bead.id} is started twice")
        if bead.id not in cycle.may:
            first = self.owner(cycle.rules, self.rows[bead.id])
            self.violate(f"{rule.name} starts {bead.id}, which is of {first and first.name}")
        if not cycle.free:
            self.violate(f"{rule.name} starts {bead.id} over its limit")
        if self.full(cycle.rules, rule.name):
            self.violate(f"{rule.name} starts {bead.id} without a free slot")
        self.jobs[attempt] = Job(bead.id, rule.name, rule.assignee, self.clock.now())
        self.starts += 1
        first = self.owner(cycle.rules, self.rows[bead.id])
        self.handed_over += first is not None and first.name != rule.name
        cycle.free = False
        self.note()

    def violate(self, words: str) -> None:
        """Note the first broken promise."""
        self.violation = self.violation or words


class SimTracker(Tracker):
    """The shared tracker, as one lane of one process sees it. Others go on between its reads and writes."""

    def __init__(self, world: World, rules: Sequence[LaneRule], rule: LaneRule) -> None:
        super().__init__(world.clock, settings=BdSettings(assignee=rule.assignee))
        self.rows, self.store, self.lane = world.rows, world.store, rule.name
        self.lanes = Lanes(rule.name, tuple(rules))

        def meanwhile(_what: str | Change) -> None:
            if world.rng.random() < 0.15:
                world.happen()

        self.before_read = self.before_write = meanwhile


class SimRunner(Runner):
    """The agents of a lane on the machine, with the real count of slots."""

    knows_jobs = True

    def __init__(self, world: World, rules: Sequence[LaneRule], rule: LaneRule) -> None:
        self.world, self.rule = world, rule
        self.origin = Origin("t", rule.assignee, "b", Lanes(rule.name, tuple(rules)))
        slots = world.lane_slots[rule.name]
        self.settings = SimpleNamespace(agent_command="x", agent_slots=slots, slots_of_all=world.slots)
        self.jobs = SimpleNamespace(running=self._running, record=self._record)

    def capacity(self) -> Capacity:
        """Return how many of this lane's slots are free."""
        return LocalAgent.capacity(cast(LocalAgent, self))

    def _counts(self, job: str) -> bool:
        return LocalAgent._counts(cast(LocalAgent, self), job)

    def _running(self) -> list[str]:
        return [key for key, job in self.world.jobs.items() if job.state == "running"]

    def _record(self, key: str) -> JobRecord:
        job = self.world.jobs[key]
        return cast(JobRecord, SimpleNamespace(tracker="t", assignee=job.assignee, lane=job.lane))

    def status(self) -> RunnerStatus:
        """Return how many slots are free."""
        return RunnerStatus((machine_part(self.capacity()),))

    def place(self) -> Place:
        """Return the one jobs folder."""
        return Place("p", "h", timedelta(hours=1))

    def owns(self, bead: Bead) -> bool:
        """True: there is one machine."""
        return True

    def evidence(self, beads: Collection[Bead], status: RunnerStatus | None = None) -> tuple[JobEvidence, None]:
        """Return the states of the jobs of beads."""
        return JobEvidence({bead.id: self.world.jobs[key].state for bead in beads for key in self.jobs_of(bead)}), None

    def job_state(self, job: str) -> str | None:
        """Return the state of a job."""
        return self.world.jobs[job].state if job in self.world.jobs else None

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the jobs of a bead."""
        return [key for key, job in self.world.jobs.items() if job.bead == bead.id]

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return the jobs of a bead that run."""
        return [key for key in self.jobs_of(bead) if self.world.jobs[key].state == "running"]

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Start the agent, unless there is no slot or a job of the bead runs."""
        if self.capacity().free == 0 or self.jobs_at_work(bead):
            return AtCapacity()
        self.world.start(self, bead, attempt)
        return Started(attempt)


def _meets(rule: LaneRule, bead: Mapping[str, Any]) -> bool:
    wants, labels = rule.wants, set(bead["labels"])
    return (
        bead["assignee"] == rule.assignee
        and labels.issuperset(wants.labels)
        and labels.isdisjoint(wants.exclude_labels)
        and (not wants.types or bead["issue_type"] in wants.types)
        and (not wants.priorities or bead["priority"] in wants.priorities)
        and (not wants.trusted_creators or bead["created_by"] in wants.trusted_creators)
    )


def _heir(rules: Sequence[LaneRule], lane: str, assignee: str) -> str:
    """Return the lane of a claim: the one that it names, else the first of its assignee. All run on the machine."""
    mine = [rule.name for rule in rules if rule.assignee == assignee]
    return lane if lane in mine else next(iter(mine), "")


def _without(rule: LaneRule, gone: str) -> LaneRule:
    fallback = "" if rule.fallback == gone else rule.fallback
    return LaneRule(rule.name, rule.assignee, rule.wants, local=True, fallback=fallback)


def dispatches(seed: int) -> World:
    """Let several dispatchers work on one tracker, then wait until every bead that has a lane is closed."""
    world = World(seed)
    for _ in range(60):
        world.happen()
        if world.violation:
            return world
    world.calm = True
    rules = world.files[1]
    world.store.clear()
    world.versions = [1]
    broken = world.rng.choice([rule.name for rule in rules if rule.fallback] or [""])
    for _ in range(CALM):
        if broken:
            world.trip(broken, 2.0)  # its agent is out of order for good: its fallback has its beads
        for key in [key for key, job in world.jobs.items() if job.state == "running"]:
            world.end_job(key)
        for _ in range(2 * len(rules)):
            world.turn(rules)
            world.clock.time += timedelta(seconds=1)
        left = [key for key, one in world.rows.items() if one["status"] != "closed" and world.owner(rules, one)]
        if world.violation or not left:
            return world
        world.clock.time += timedelta(hours=1)
    world.violate(f"not settled within {CALM} hours: {left}")
    return world
