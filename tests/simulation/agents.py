"""The agents: what a job's process does on its bead, and how it ends."""

from tests.simulation.plan import MINUTE
from tests.simulation.scheduler import Task
from tests.simulation.tracker import write
from tests.simulation.world import Job, World

LOCAL_TIME_LIMIT = 45 * MINUTE
"""After it a job on a host is ended."""
SICK = ("500", "422", "401", "no answer", "too large")
"""What a service may say of one job alone."""
TIME_LIMIT = 15 * MINUTE
"""After it the service marks a job `timeout` and leaves its process alone."""


def slots_taken(world: World) -> int:
    """Return how many jobs the service runs or queues."""
    return sum(job.known and job.state in ("queued", "running") for job in world.jobs.values())


def begin_job(world: World, bead_id: str, attempt: str, host: str = "") -> Job:
    """Queue a job, whose process begins when there is a slot. One on a host has the attempt's id."""
    job = Job(attempt if host else f"j{len(world.jobs) + 1}", bead_id, attempt, world.scheduler.now, host=host)
    job.checked = host != "" and world.plan.checked
    world.jobs[job.id] = job
    rng = world.scheduler.rng(f"health of {job.id}")
    if rng.random() < world.plan.sick_jobs and not world.quiet and world.scheduler.event(f"{job.id} cannot be shown"):
        job.sick = rng.choice(SICK)
    if attempt in world.attempts:
        world.attempts[attempt].jobs.append(job)
    world.count("jobs")
    world.tell(host or "agent service", "takes job {} for {}", job.id, bead_id)
    world.scheduler.spawn(f"agent {job.id}", lambda task: _Agent(world, job, task).live(), 0.1)
    return job


def restart(world: World, survive: bool) -> None:
    """Restart the service: it forgets all jobs, whose processes end with it or survive it."""
    world.tell("agent service", "restarts; its agents {}", "survive" if survive else "die")
    for job in world.jobs.values():
        job.known = job.host != ""
        if job.alive and (job.host or not survive):
            job.alive = False
            job.state, job.ended = "died" if job.host else job.state, world.scheduler.now


class _Agent:
    """The process of one job."""

    def __init__(self, world: World, job: Job, task: Task) -> None:
        self._world = world
        self._job = job
        self._task = task

    def live(self) -> None:
        """Wait for a slot, work, and end."""
        job, world = self._job, self._world
        while not self._may_run():
            self._wait(5.0)
            if not job.alive:
                return
        job.state = "running" if job.known else job.state
        world.scheduler.later(LOCAL_TIME_LIMIT if job.host else TIME_LIMIT, self._time_out)
        lives = world.plan.lives
        life = "finishes" if world.quiet else self._task.rng.choice(lives)
        if "agents die at once" in world.spells:
            life = "dies silent"
        if life != "finishes" and not world.scheduler.event(f"{self._task.name} {life}"):
            life = "finishes"
        self._wait(self._task.rng.choice((1.0, 5.0, 40.0)))
        getattr(self, f"_{life.replace(' ', '_')}")()

    def _may_run(self) -> bool:
        jobs = self._world.jobs.values()
        return (
            self._job.host != ""
            or sum(job.known and job.state == "running" for job in jobs) < self._world.plan.capacity
        )

    def _time_out(self) -> None:
        job = self._job
        if job.state == "running":
            job.state, job.ended = "timed out" if job.host else "timeout", self._world.scheduler.now
            job.alive = job.host == ""

    def _finishes(self) -> None:
        self._claim_note()
        for _ in range(self._task.rng.choice((0, 1, 3))):
            self._wait(self._task.rng.uniform(30, 4 * MINUTE))
            self._note("progress")
        self._wait(self._task.rng.uniform(5, 2 * MINUTE))
        self._done("done")

    def _fails_the_check(self) -> None:
        self._claim_note()
        self._wait(self._task.rng.uniform(1, 5 * MINUTE))
        self._done("done, I think", passes=False)

    def _done(self, words: str, *, passes: bool = True) -> None:
        """Say that it is done, and be checked. Some agents close their beads all the same."""
        if not self._job.checked or self._task.rng.random() < (0.3 if passes else 0.8):
            self._set("closed", words)
        else:
            self._note(f"finished: {words}")
        if self._job.checked:
            self._wait(self._task.rng.choice((5.0, MINUTE, 12 * MINUTE)))
            self._job.check_failed = not passes
        self._end("completed")

    def _gives_up(self) -> None:
        self._claim_note()
        self._wait(60)
        self._set("blocked", "I need help")
        self._end("completed")

    def _leaves(self) -> None:
        self._claim_note()
        self._wait(3 * MINUTE)
        self._note("I leave it there")
        self._end("completed")

    def _dies(self) -> None:
        self._claim_note()
        self._wait(self._task.rng.uniform(1, 5 * MINUTE))
        self._end("failed")

    def _dies_silent(self) -> None:
        self._end("failed")

    def _hangs(self) -> None:
        self._claim_note()
        self._wait(50 * MINUTE)
        self._end("failed")

    def _hangs_silent(self) -> None:
        self._wait(50 * MINUTE)
        self._end("failed")

    def _wakes_late(self) -> None:
        """Sleep for some time, and perhaps wake just when a reaper looks for beads like this."""
        if self._task.rng.random() < 0.5:
            self._claim_note()
        self._wait(self._task.rng.uniform(2, 40) * MINUTE)
        if self._task.rng.random() < 0.3:
            self._wake()
        else:
            self._world.waiting.setdefault("sweep", []).append(self._wake_soon)

    def _wake_soon(self) -> None:
        name = f"{self._task.name} awake"
        self._world.scheduler.spawn(name, lambda task: self._wake(), self._task.rng.choice((0.1, 1.0, 5.0)))

    def _wake(self) -> None:
        if self._job.alive:
            self._note("awake again")
            self._world.scheduler.later(20, self._close_late)

    def _close_late(self) -> None:
        if self._job.alive:
            self._job.check_failed = self._job.checked  # nobody waits for it
            self._set("closed", "done late")
            self._end("completed")

    def _restless(self) -> None:
        """Work for longer than the threshold, and note it all the time."""
        self._claim_note()
        for _ in range(5):
            self._wait(self._task.rng.uniform(8, 13) * MINUTE)
            self._note("still at it")
        self._done("done at last")

    def _claim_note(self) -> None:
        self._note(f"claimed by agent {self._job.id}")
        self._job.noted = True

    def _wait(self, seconds: float) -> None:
        self._world.scheduler.wait(self._task, seconds)
        if not self._job.alive:
            self._task.dead = True
            self._world.scheduler.wait(self._task, 0)

    def _note(self, words: str) -> None:
        world = self._world
        rate = world.rates.get("note lost")
        if rate and world.scheduler.chance(self._task, 3 * rate, "note lost"):
            world.tell(self._task.name, "notes {!r} on {}: bd loses it", words, self._job.bead)
            return
        world.tell(self._task.name, "notes {!r} on {}", words, self._job.bead)
        write(world, self._task.name, self._job.bead, note=words)

    def _set(self, status: str, words: str) -> None:
        self._world.tell(self._task.name, "sets {} {}", self._job.bead, status)
        write(self._world, self._task.name, self._job.bead, note=words, status=status)

    def _end(self, state: str) -> None:
        job, world = self._job, self._world
        job.alive = False
        if job.state in ("running", "queued"):
            job.state = state
        job.ended = world.scheduler.now
        world.tell(self._task.name, "ends: {}", state)
