"""One history: everybody lives at once until the faults end, and then until everything is settled."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import msgspec

from bdauto.loop.shutdown import Stopped
from tests.simulation.listener import LogListener
from tests.simulation.people import end_spell, people, resume, weather
from tests.simulation.plan import MINUTE, QUIET, BeadPlan, Plan, make_plan
from tests.simulation.process import Process
from tests.simulation.programs import dispatch, reap
from tests.simulation.programs import run as run_loop
from tests.simulation.scheduler import Killed, Scheduler, Task
from tests.simulation.tracker import add_bead
from tests.simulation.world import ASSIGNEE, Row, World

DISPATCH_EVERY = 2 * MINUTE


@dataclass
class History:
    """What became of a history. `violation` is its kind and its words, None where every promise was kept."""

    plan: Plan
    violation: tuple[str, str] | None
    happened: tuple[str, ...]
    story: Callable[[], str]
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    faults: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    points: set[tuple[str, str]] = field(default_factory=set)


def run(seed: int, without: Collection[str] = ()) -> History:
    """Run the history of a seed, without some of its events."""
    plan = make_plan(seed)
    scheduler = Scheduler(seed, without)
    world = World(plan, scheduler)
    _begin(world)
    listener = LogListener(world)
    try:
        scheduler.run(plan.faults_until)
        if not scheduler.stopped:
            _calm(world)
            scheduler.run(plan.faults_until + QUIET)
        for name, error in scheduler.crashed:
            world.violate("crash", f"{name}: {type(error).__name__}: {error}")
        if world.violation is None:
            _check_settled(world)
    finally:
        scheduler.close()
        listener.close()
    return History(
        plan,
        world.violation,
        tuple(scheduler.happened),
        world.story,
        scheduler.now,
        world.counts,
        world.faults,
        world.points,
    )


def _begin(world: World) -> None:
    plan, scheduler = world.plan, world.scheduler
    for number in range(plan.fillers):
        priority = 2 if plan.fillers_alike else number % 5
        add_bead(world, BeadPlan(f"filler-{number}", priority, 9000.0 + number, acceptance=False))
    for bead in plan.beads:
        if bead.from_minute == 0 or not scheduler.event(f"{bead.id} comes late"):
            add_bead(world, bead)
        else:
            scheduler.later(bead.from_minute * MINUTE, lambda bead=bead: add_bead(world, bead))  # type: ignore[misc]
    programs = (
        ("dispatcher", plan.dispatchers, DISPATCH_EVERY, dispatch),
        ("reaper", plan.reapers, plan.reap_every, reap),
        ("loop", plan.loops, MINUTE, run_loop),
    )
    for kind, count, every, program in programs:
        for number in range(1, count + 1):
            host = f"host-{number % plan.hosts}" if plan.hosts else ""
            _cron(world, f"{kind} {number}", host, every, program)
    for number, (act, moment, nth) in enumerate(plan.acts, 1):
        people(world, number, act, moment, nth)
    for spell in plan.spells:
        weather(world, spell)


def _cron(world: World, name: str, host: str, every: float, program: Callable[[Process], None]) -> None:
    """Start a program at each tick, unless the one before still runs. Without ticks it starts again when it ends."""

    def live(task: Task) -> None:
        offset = task.rng.choice((0.0, 0.0, task.rng.uniform(0, every)))
        skew = world.plan.skews.get(name, 0.0)
        if skew and not world.scheduler.event(f"{name}: clock wrong by {skew:.0f} s"):
            skew = 0.0
        number = 0
        while True:
            passed = int((world.scheduler.now - offset) / every + 0.001)
            world.scheduler.wait(task, offset + (passed + 1) * every - world.scheduler.now)
            number += 1
            process = Process(world, task, f"{name}.{number}", host, skew)
            try:
                process.step()
                program(process)
            except Killed:
                if not process.dead:
                    raise
            except (Stopped, KeyboardInterrupt):  # before it handles signals, or by a second one
                process.tell("is interrupted")

    world.scheduler.spawn(name, live)


def _watch(world: World) -> None:
    """End the history as soon as everything is settled."""
    if _settled(world):
        world.scheduler.stopped = True
    world.scheduler.later(DISPATCH_EVERY, lambda: _watch(world))


def _calm(world: World) -> None:
    """End the faults: from here on people do nothing more, and agents finish."""
    world.quiet, world.rates = True, {}
    world.reap_settings = msgspec.structs.replace(world.reap_settings, max_reap=0)
    world.tell("weather", "the faults end")
    for spell in sorted(world.spells):
        end_spell(world, spell)
    resume(world)
    _watch(world)


def _check_settled(world: World) -> None:
    for row in world.rows.values():
        if not _final(world, row):
            bead = row.bead
            world.violate("not settled", f"{bead.id} is {bead.status} hours after the last fault: {bead.metadata}")


def _settled(world: World) -> bool:
    return all(_final(world, row) for row in world.rows.values())


def _final(world: World, row: Row) -> bool:
    bead = row.bead
    runs = bead.record.job and bead.metadata.get("bdauto.result") == "running"  # without its job it is lost after a day
    if runs and (world.plan.agent_service or world.plan.hosts):
        return bead.status == "in_progress" and bead.assignee != ASSIGNEE
    if bead.status == "in_progress":
        return bead.assignee != ASSIGNEE
    most = world.plan.max_per_day
    limited = most is not None and len(world.attempts) >= most
    return bead.status != "open" or row.unfit_since is not None or row.reverted or limited
