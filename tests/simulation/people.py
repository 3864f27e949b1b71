"""People, who change beads by hand as they like, and the weather: spells in which a service fails."""

from datetime import timedelta

from bdauto.domain import breaker, pause
from bdauto.domain.pause import Pause
from tests.simulation.agents import restart
from tests.simulation.checker import note_fitness
from tests.simulation.plan import MINUTE
from tests.simulation.scheduler import Task
from tests.simulation.services import click
from tests.simulation.tracker import write
from tests.simulation.world import ASSIGNEE, Row, World


def people(world: World, number: int, act: str, moment: str, nth: int) -> None:
    """Plan one act of somebody for some moment before the faults end."""
    name = f"person {number}"

    def live(task: Task) -> None:
        if not world.quiet and world.scheduler.event(f"{name} {act}"):
            _Person(world, task).act(act)

    def later(left: int) -> None:
        if left > 1:
            world.waiting.setdefault(moment, []).append(lambda: later(left - 1))
        else:
            world.scheduler.spawn(name, live, rng.choice((0.1, 1.0, 5.0)) * rng.random())

    rng = world.scheduler.rng(name)
    if moment:
        world.waiting.setdefault(moment, []).append(lambda: later(nth))
    else:
        world.scheduler.spawn(name, live, rng.uniform(MINUTE, world.plan.faults_until - MINUTE))


def weather(world: World, spell: str) -> None:
    """Plan a spell, which ends when the faults do at the latest."""

    def live(task: Task) -> None:
        begins = task.rng.uniform(0, world.plan.faults_until)
        world.scheduler.wait(task, task.rng.choice((0.0, begins, begins)))
        if world.quiet or not world.scheduler.event(spell):
            return
        world.spells.add(spell)
        world.tell("weather", "{} begins", spell)
        world.scheduler.wait(task, task.rng.choice((2, 10, 40)) * MINUTE)
        end_spell(world, spell)

    world.scheduler.spawn(spell, live)


def end_spell(world: World, spell: str) -> None:
    """End a spell."""
    if spell in world.spells:
        world.spells.discard(spell)
        world.tell("weather", "{} ends", spell)


def resume(world: World) -> None:
    """End a pause."""
    if world.paused_at is not None:
        world.tell("people", "resume")
        world.store[pause.KEY] = ""
        world.revision += 1
        world.paused_at = None


def _revert(world: World, row: Row) -> None:
    """Take a claim back that was committed, as some versions of bd do on a server."""
    attempt = world.attempts.get(row.bead.record.attempt)
    if attempt and not attempt.ended and row.bead.status == "in_progress":
        world.tell("bd", "takes the claim of {} back", row.bead.id)
        row.put(attempt.before)
        world.revision += 1
        row.reverted, row.changed_at, attempt.ended = True, world.scheduler.now, "reverted"
        attempt.touched = None  # what its agent has noted is gone, too
        note_fitness(world, row)


class _Person:
    """Somebody at a terminal, whose clock may be wrong."""

    def __init__(self, world: World, task: Task) -> None:
        self._world = world
        self._task = task
        self._skew = task.rng.choice((0.0, 0.0, 0.0, -1200.0, 1200.0))

    def act(self, act: str) -> None:
        """Do what was planned."""
        world, rows = self._world, list(self._world.rows.values())
        row = self._task.rng.choice(rows)
        if act == "re-opens":
            row = self._task.rng.choice([r for r in rows if r.bead.status not in ("open", "closed")] or rows)
        if act == "signs for another" or (act == "clicks" and self._task.rng.random() < 0.7):
            waiting = [r for r in rows if r.bead.status == "open" and r.bead.acceptance_criteria.strip()]
            row = self._task.rng.choice(waiting or rows)
        world.tell("people", "somebody {} ({}, {})", act, row.bead.id, row.bead.status)
        match act:
            case "notes":
                self._write(row, note="a person's remark")
            case "edits":
                self._write(row, title="another title", priority=self._task.rng.randrange(5))
            case "takes":
                self._write(row, assignee="bob")
                world.scheduler.wait(self._task, self._task.rng.uniform(1, 10 * MINUTE))
                self._write(row, assignee=ASSIGNEE)
            case "re-opens":
                self._write(row, status="open")
            case "closes":
                self._write(row, status="closed")
            case "defers":
                until = world.now + timedelta(minutes=10)
                self._write(row, defer_until=until)
                world.scheduler.wait(self._task, 10 * MINUTE)
                self._write(row, defer_until=None)
            case "adds a blocker":
                self._block(row)
            case "pauses":
                self._pause()
            case "clicks":
                click(world, row.bead.id)
            case "signs for another":
                self._sign(row)
            case "restarts agent":
                restart(world, self._task.rng.random() < 0.5)
            case "reverts":
                _revert(world, row)
            case "resumes":
                world.store[breaker.KEY] = ""
                world.revision += 1
                world.deaths.clear()
                world.openings = 0
                world.resumed_at = world.scheduler.now

    def _write(self, row: Row, *, note: str = "", **fields: object) -> None:
        write(self._world, "people", row.bead.id, note=note, skew=self._skew, **fields)

    def _sign(self, row: Row) -> None:
        """Note a job that another bead records, rather one that runs."""
        recorded = {other.bead.record.job for other in self._world.rows.values() if other is not row}
        jobs = [job.id for job in self._world.jobs.values() if job.id in recorded and not job.host]
        if jobs:
            running = [job for job in jobs if self._world.jobs[job].alive]
            self._write(row, note=f"claimed by agent {self._task.rng.choice(running or jobs)}")

    def _block(self, row: Row) -> None:
        """Make a bead wait for one that somebody closes in some minutes; this does not move its last update."""
        others = [other for other in self._world.rows.values() if other is not row and not other.blockers]
        if row.blockers or not others:
            return
        self._world.revision += 1
        row.blockers = (others[0].bead.id,)
        note_fitness(self._world, row)

    def _pause(self) -> None:
        world = self._world
        world.store[pause.KEY] = Pause("for a while").encode()
        world.paused_at = world.scheduler.now
        world.revision += 1
        world.scheduler.wait(self._task, self._task.rng.choice((1, 7, 30)) * MINUTE)
        resume(world)
