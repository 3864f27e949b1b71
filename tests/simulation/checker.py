"""The promises of docs/reliability.md, checked at each write, each POST and the end of each cycle.

The checker knows what is true and what each process has read and been told. It does not use the code that it checks,
but for the values that the tracker holds.
"""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bdauto.bd.change import Change, Moment
from bdauto.domain import breaker
from bdauto.domain.bead import Bead
from bdauto.domain.breaker import Breaker
from bdauto.domain.notes import AGENT_SIGN, FINISH_NOTE, UNKNOWN
from bdauto.domain.reaping import ALIVE, FORGOTTEN, NO_ANSWER, NO_ANSWER_LIMIT, NOT_STARTED, TOKEN_REFUSED
from tests.simulation.plan import MINUTE, START
from tests.simulation.process import IN_A_ROW, Process
from tests.simulation.world import ASSIGNEE, Attempt, Job, Row, World

ENDED = frozenset({"completed", "failed", "error", "timed out", "died"})
NAMED = re.compile(r"^(claimed by agent |dispatched: job=)([\w.-]+)", re.MULTILINE)
ROUNDING = timedelta(seconds=2)
AFRESH = ("bdauto.attempt", "bdauto.retry_at", "bdauto.failures")
"""What a blocked bead must not keep, so that it is dispatched at once when somebody opens it again."""
EXPORT_DELAY = timedelta(minutes=2)
UNTOLD = timedelta(minutes=30)
"""So long after its claim a bead that somebody has opened during its POST may have a job that nobody knows."""
UNCHARGED = frozenset({"busy", "not found", "not started", "misconfigured", ""})
"""What a dispatcher can hear of its POST that leaves the attempt uncharged; "" is that it made none."""


def check_change(world: World, process: Process, row: Row, change: Change) -> None:
    """Judge a change of bdauto's that is about to be made."""
    _check_blind(world, process, row, change)
    _check_runs(world, process, row, change)
    if change.act == "claim":
        _check_claim(world, process, row, str(change.put["bdauto.attempt"]))
        if row.bead.record.job and "bdauto.job" not in change.drop:
            world.violate("claim", f"{process.name} claims {row.bead.id} with {row.bead.record.job}, an earlier job")
    elif change.act == "settle the opened":
        _check_pause(world, process, change)
        _check_opened(world, process, row.bead, change)
    elif change.act == "record the result of":
        _check_pause(world, process, change)
        _check_result(world, process, row, change)
        if row.bead.status == "open" and change.ends_claim:
            _check_opened(world, process, row.bead, change)
    elif change.act == "open again":
        _check_pause(world, process, change)
        _check_reopening(world, process, row)
    elif change.note.rpartition("\n")[2].startswith("reaper: ") or change.act == "close":
        _check_pause(world, process, change)
        _check_settling(world, process, row, change)
    elif change.act == "quarantine" and row.bead.status == "open":
        _check_exhausted(world, process, row, change)
    elif change.act in ("release", "quarantine"):
        _check_fence(world, process, row, change)
        _check_end(world, process, row, change)
    elif change.act == "record":
        _check_fence(world, process, row, change)
        job = world.jobs.get(str(change.put["bdauto.job"]))
        if job is None or job.attempt != row.bead.record.attempt:
            world.violate("fence", f"{process.name} records a job on another attempt of {row.bead.id}")
    elif change.act == "note unknown outcome of":
        _check_fence(world, process, row, change)
    elif change.act == "record signed job of":
        _check_pause(world, process, change)
        _check_recorder(world, process, row, str(change.put["bdauto.job"]))
    elif change.act == "note job of":
        _check_pause(world, process, change)
        attempt = world.attempts[row.bead.record.attempt]
        if attempt.noted_again:
            world.violate("twice", f"{process.name} writes the lost note of {row.bead.id} again for the second time")
        attempt.noted_again = True
    elif change.act == "give back the charge of":
        _check_giving_back(world, process, row, change)


def changed(world: World, who: "Process | str", row: Row, before: Bead, change: Change | None = None) -> None:
    """Learn from a change that was made, by bdauto if there is a `change`."""
    bead = row.bead
    row.changed_at = world.scheduler.now
    _learn_place(row, before, change)
    world.revision += 1
    if change is not None and change.act == "claim" and isinstance(who, Process):
        world.attempts[bead.record.attempt] = Attempt(
            bead.record.attempt, bead.id, who.name, world.scheduler.now, before
        )
        who.claims[bead.id] = bead.record.attempt
        world.count("claims")
    if change is not None and change.act == "restore claim":
        assert isinstance(who, Process)
        _learn_restored(world, who, bead, before)
    attempt = world.attempts.get(before.record.attempt)
    if change is not None and change.act == "record" and attempt:
        attempt.recorded = world.scheduler.now
    left = before.status == "in_progress" and bead.status != "in_progress"
    if attempt and not attempt.ended and (left or bead.record.attempt != before.record.attempt):
        attempt.ended = who.name if isinstance(who, Process) else who
    if change is None:
        noted = bead.notes != before.notes
        if attempt and noted and attempt.touched is None:
            attempt.touched = row.version
        if attempt and (noted or bead.status in ("closed", "blocked")) and before.record.claimed_at:
            world.last_life = max(world.last_life, before.record.claimed_at)
    for other in world.rows.values():
        if other is row or bead.id in other.blockers:
            note_fitness(world, other)


def _learn_place(row: Row, before: Bead, change: Change | None) -> None:
    """Learn since when a bead waits, by the table of places in docs/decisions.md.

    A bead that is requeued waits since then, even if it was closed, and its last result recorded, in the same second.
    """
    bead = row.bead
    if change is None:
        soon = row.given_back and bead.updated_at - row.given_back <= timedelta(seconds=62)
        if bead.status == "open":
            row.place = None if soon else bead.updated_at
    elif bead.record.attempt not in ("", before.record.attempt):
        row.claimed_place = row.place
    elif bead.status == "open" and change.act == "give back the charge of":
        row.place, row.lost_place, row.given_back = row.lost_place, None, bead.updated_at
    elif bead.status == "open" and (before.status == "in_progress" or change.act == "requeue"):
        row.given_back = bead.updated_at
        since = row.claimed_place if before.record.attempt else row.place
        row.place = since and min(since, bead.updated_at)  # a time that lies ahead is somebody's wrong clock
        fewer = bead.record.attempts < before.record.attempts
        had_turn = before.record.job or (before.record.attempt and before.record.died == before.record.attempt)
        if (change.act == "requeue" and not fewer) or (change.note and had_turn and not fewer):
            row.lost_place, row.place = row.place, bead.updated_at
    elif bead.status == "open" and bead.updated_at != before.updated_at:
        row.place = None


def _learn_restored(world: World, process: Process, bead: Bead, before: Bead) -> None:
    """Learn that a claim is back, or that a job that bdauto did not know of has got one: it has shown life before."""
    attempt, job = world.attempts.get(bead.record.attempt), world.jobs[bead.record.job]
    if process.jobs_told.get(job.id) not in ALIVE:
        world.violate("evidence", f"{process.name} claims {bead.id} for {job.id}, which was not said to run")
    _check_recorder(world, process, world.rows[bead.id], job.id)
    if bead.record.attempts != (attempt.before if attempt else before).record.attempts + 1:
        world.violate("charge", f"{process.name} claims {bead.id} for {job.id} with {bead.record.attempts} attempts")
    if attempt is None:
        attempt = Attempt(
            bead.record.attempt, bead.id, process.name, world.scheduler.now, before, answer="started", touched=0
        )
        attempt.jobs.append(job)
        if job.bead != bead.id:  # somebody has signed for a job of another bead
            world.attempts[bead.record.attempt] = attempt
            return
        job.attempt, world.attempts[bead.record.attempt] = bead.record.attempt, attempt
    attempt.ended, attempt.restored = "", True
    attempt.noted_again = False  # it has a note of its own, which bd may lose too


def _check_recorder(world: World, process: Process, row: Row, job: str) -> None:
    """A job that another bead has recorded since before the cycle or sweep is not taken for a bead."""
    others = [other for other in world.rows.values() if other is not row and other.bead.record.job == job]
    if any(other.changed_at < process.begun for other in others):
        world.violate("two beads", f"{process.name} takes {job} for {row.bead.id}, and another bead records it")


def check_post(world: World, process: Process, bead_id: str) -> Attempt | None:
    """Judge a POST that is about to be sent, and return its attempt."""
    row, attempt = world.rows[bead_id], world.attempts.get(process.claims.get(bead_id, ""))
    if attempt is None:
        world.violate("claim", f"{process.name} posts {bead_id} without a claim")
        return None
    attempt.posts += 1
    if attempt.posts > 1:
        world.violate("one post", f"{process.name} posts attempt {attempt.id} of {bead_id} twice")
    if attempt.ended.startswith(("reaper", "dispatcher", "loop")):
        world.violate("late post", f"{process.name} posts {bead_id}, which {attempt.ended} has taken from it")
    for job in world.live_jobs(bead_id):
        other = world.attempts.get(job.attempt)
        if other and other is not attempt and _still_holds(world, process, other, job):
            world.violate("two jobs", f"{process.name} posts {bead_id} while job {job.id} of it runs")
    paused, now = world.paused_at, world.scheduler.now
    suspended = process.stood_still > process.written_at  # since its claim: it may have been behind its last look
    if paused is not None and now - paused > max(process.look_took, 2) + 1 and not suspended:
        world.violate("pause", f"{process.name} posts {bead_id} {now - paused:.1f} s after a pause has been set")
    if _perhaps_posted(world, process, attempt.before, now, nothing=process.runs_nothing):
        world.violate("question", f"{process.name} posts {bead_id}, which may have been posted before")
    if world.plan.agent_service and not world.plan.hosts:
        _check_questions(world, process, attempt)
    if row.bead.record.attempt == attempt.id and row.bead.status == "in_progress":
        world.count("posts under the claim")
    return attempt


def _check_questions(world: World, process: Process, attempt: Attempt) -> None:
    """Each job that the bead named is known to be over, or forgotten, or that of another bead."""
    before = attempt.before
    noted = [job for _, job in NAMED.findall(before.notes)]
    named = (*noted[-20:], before.record.job, before.record.unclaimed)
    for job in filter(None, named):
        told, known = process.jobs_told.get(job, "not asked"), world.jobs.get(job)
        waited = told == "timeout" and (f"{FINISH_NOTE}{job} timeout" in before.notes or _is_own(world, process, known))
        others = any(r.bead.record.job == job for r in world.rows.values() if r.bead.id != before.id)
        foreign = (others and job != before.record.job) or job == before.record.given_up
        if told not in ENDED and told != FORGOTTEN and not waited and not foreign:
            world.violate("question", f"{process.name} posts {before.id}, whose job {job} is {told!r}")


def _perhaps_posted(world: World, process: Process, bead: Bead, at: float, *, nothing: bool = False) -> bool:
    """Whether somebody has opened a bead during or after its POST, and no job of it was known at a time.

    It is passed over for UNTOLD, or for the grace period if it is a host's, or the agent service runs nothing
    (docs/decisions.md).
    """
    claimed_at, record = bead.record.claimed_at, bead.record
    if not (world.plan.agent_service or world.plan.hosts) or claimed_at is None:
        return False
    signed = any(job.bead == bead.id and job.noted and job.attempt == record.attempt for job in world.jobs.values())
    ended = any(run.attempt == record.attempt for run in record.runs)
    unknown = bool(record.attempt) and not (record.job or signed or ended)
    longest = timedelta(seconds=world.plan.grace) if world.plan.hosts or nothing else UNTOLD
    known = any(job.attempt == record.attempt for job in world.jobs.values() if job.host)
    return unknown and not known and abs(START + timedelta(seconds=at) + process.skew - claimed_at) < longest - ROUNDING


def _is_own(world: World, process: Process, job: Job | None) -> bool:
    """Whether the process has started the job itself: it knows when a reaper has settled it."""
    known = world.attempts.get(job.attempt) if job else None
    return known is not None and known.process == process.name


def _still_holds(world: World, process: Process, other: Attempt, job: Job) -> bool:
    """Whether the attempt of a job is not over, or its process knows better than the tracker, which has lost it."""
    if other.ended != "reverted":
        return not other.ended
    started = [
        a for a in world.attempts.values() if (a.bead, a.process, a.answer) == (job.bead, process.name, "started")
    ]
    told = process.jobs_told.get(job.id)
    known = other.jobs[:1] == [job]  # of a POST that arrived twice the answer names one job
    return started[-1:] == [other] and known and (told is None or told in ALIVE)


def check_swap(world: World, process: Process, key: str, new: str | None) -> None:
    """Note the trial that a process takes, and judge how long the breaker is open: 5 minutes, doubling to an hour."""
    if key != breaker.KEY or new is None:
        return
    before, process.swapped = breaker.read(world.store), {key: new}
    after = breaker.read(process.swapped)
    if after.trial:
        process.trials.add(after.trial)
    _check_deaths(world, process, before, after)
    failed = {death.attempt for death in after.deaths} - {death.attempt for death in before.deaths}
    if after.until is None:
        world.openings = 0
    elif not after.trial and (before.until is None or before.trial in failed):
        whole = min(timedelta(minutes=5) * 2**world.openings, timedelta(hours=1))
        wait = after.until - world.now - process.skew
        if not whole - timedelta(seconds=world.scheduler.now - process.begun) - ROUNDING <= wait <= whole + ROUNDING:
            world.violate("breaker", f"{process.name} opens the breaker for {wait}, not {whole}")
        world.openings += 1
        process.opened = True


def _check_deaths(world: World, process: Process, before: Breaker, after: Breaker) -> None:
    """Only early deaths and unknown outcomes are counted, and as many beads as the limit never leave it closed."""
    most = world.plan.trip_after
    if after.until is None and most and len({death.bead for death in after.deaths}) >= most:
        world.violate("breaker", f"{process.name} leaves the breaker closed after {len(after.deaths)} deaths")
    for death in set(after.deaths) - set(before.deaths):
        attempt, row = world.attempts.get(death.attempt), world.rows[death.bead]
        if attempt is None or row.bead.record.adopted:
            world.violate("breaker", f"{process.name} counts {death.bead}, whose job bdauto did not start")
        elif not death.unknown and attempt.touched is not None and (listed := process.listed_as(death.bead)):
            soon = any(job.ended and job.ended - attempt.at < 62 for job in attempt.jobs)  # it may only have signed
            if attempt.touched <= row.version_of(listed) and not soon:
                world.violate("breaker", f"{process.name} counts {death.bead} as an early death: its agent had written")


def _check_runs(world: World, process: Process, row: Row, change: Change) -> None:
    """The list of runs has each attempt once, 20 at most, and keeps the ends that it has."""
    if "bdauto.runs" not in change.put:
        return
    before, after = _runs(row.bead.metadata), _runs(change.put)
    attempts = [run["attempt"] for run in after]
    kept = {run["attempt"]: run for run in after}
    lost = [run for run in before[-19:] if run["attempt"] not in kept or (run["ended"] and kept[run["attempt"]] != run)]
    if len(set(attempts)) != len(attempts) or len(after) > 20 or lost:
        world.violate(
            "runs", f"{process.name} ({change.act}) loses or doubles runs of {row.bead.id}: {lost or attempts}"
        )


def _check_blind(world: World, process: Process, row: Row, change: Change) -> None:
    """A status is written only over what was read. Two changes within a second may look like one."""
    if change.status is None:
        return
    seen = process.seen.get(row.bead.id)
    if seen is None:
        world.violate("blind", f"{process.name} writes the status of {row.bead.id}, which it has not read")
    elif row.version_of(seen) < row.version and _view(seen) != _view(row.bead):
        words = f"{process.name} writes {change.status} on {row.bead.id}, which has changed since it was read"
        world.violate("blind", words)


def _view(bead: Bead) -> tuple[object, ...]:
    return bead.updated_at, bead.status, bead.assignee, bead.record.attempt


def _check_claim(world: World, process: Process, row: Row, attempt: str) -> None:
    bead, name = row.bead, process.name
    if bead.status != "open" or bead.assignee != ASSIGNEE:
        world.violate("claim", f"{name} claims {bead.id}, which is {bead.status} and assigned to {bead.assignee}")
    read = process.ready_at
    if read is not None:
        read = max(read, process.read_at.get(bead.id, read))
    if read is None or (process.posted_at is not None and read < process.posted_at):
        world.violate("stale", f"{name} claims {bead.id} from a queue that it read before its last POST")
    elif row.unfit_since is not None and row.unfit_since < read:
        world.violate("unfit", f"{name} claims {bead.id}, which must not be dispatched")
    for other in row.blockers:
        known = world.rows.get(other)
        lied = known and known.bead.status == "closed" and world.closer(other) == ASSIGNEE and _to_check(world, other)
        if lied and not world.passed(other):
            world.violate("check", f"{name} claims {bead.id}, which waits for the check of {other}")
    if bead.record.retry_at and bead.record.retry_at > world.now + process.skew:
        world.violate("backoff", f"{name} claims {bead.id}, which waits until {bead.record.retry_at}")
    looked = process.looked_at
    if looked is None:
        world.violate("gate", f"{name} claims {bead.id} without a look at the pause switch since its last POST")
    elif world.paused_at is not None:
        world.violate("pause", f"{name} claims {bead.id} though it is paused")
    elif process.free is not None and process.started >= process.free:
        world.violate("capacity", f"{name} claims {bead.id} though there is no room")
    elif process.started >= world.plan.max_beads:
        world.violate("capacity", f"{name} claims {bead.id}, one more than it may dispatch")
    elif world.plan.trip_after and breaker.read(process.store).until and attempt not in process.trials:
        world.violate("breaker", f"{name} claims {bead.id} under an open breaker, and not as its trial")
    elif process.stops:
        world.violate("stop", f"{name} claims {bead.id} after the answer {process.stops!r}, which ends a cycle")
    else:
        _check_limit(world, process, row)
        _check_order(world, process, row)
        _check_adoption(world, process, row)
        _check_probation(world, process, row)
    process.claims_since_signal += process.signals > 0
    if process.claims_since_signal > 1:
        world.violate("signal", f"{name} claims {bead.id}, the second bead since a signal")


def _check_adoption(world: World, process: Process, row: Row) -> None:
    """A bead is not claimed anew while a job of BeadBoard's button runs, whose agent has written on what was read."""
    if world.plan.hosts or not world.plan.agent_service:
        return
    signs = [line for line in process.seen[row.bead.id].notes.splitlines() if line.startswith(AGENT_SIGN)]
    for job in world.live_jobs(row.bead.id):
        told = process.jobs_told.get(job.id)
        if not job.attempt and signs[-1:] == [f"{AGENT_SIGN} {job.id}"] and (told is None or told in ALIVE):
            world.violate("two jobs", f"{process.name} claims {row.bead.id}, on which somebody's job {job.id} runs")


def _check_probation(world: World, process: Process, row: Row) -> None:
    """A loop hands nothing out while the agents of its last beads have given no sign of life, for two minutes.

    A bead whose claim bd has taken back, or that a person has opened, was open in between, so its agent was no longer
    waited for.
    """
    most, now = world.plan.trip_after, world.scheduler.now
    mine = [
        a for a in world.attempts.values() if a.process == process.name and a.recorded is not None and not a.restored
    ]
    mine = [a for a in mine if process.begun - 20 * MINUTE < a.at < process.begun and not world.rows[a.bead].reverted]
    signs = [a for a in mine if a.touched is not None or a.ended or not any(job.alive for job in a.jobs)]
    waits = {a.bead for a in mine if a.recorded is not None and now - a.recorded < 2 * MINUTE}
    if process.name.startswith("loop") and most and not signs and len(waits) >= most:
        world.violate("probation", f"{process.name} claims {row.bead.id} before an agent of {waits} has given a sign")


def _check_limit(world: World, process: Process, row: Row) -> None:
    """Nothing is dispatched when the limit of a day was reached before the cycle began. bd may lose what is counted."""
    limit, plan = world.plan.max_per_day, world.plan
    lossy = "note lost" in plan.rates or any(act == "reverts" for act, _, _ in plan.acts)
    if limit is None or lossy:
        return
    times = [attempt.recorded for attempt in world.attempts.values() if attempt.recorded is not None]
    before = sum(moment < process.begun for moment in times)
    if before >= limit:
        world.violate("limit", f"{process.name} claims {row.bead.id}: {before} were dispatched, at most {limit}")


def _check_order(world: World, process: Process, row: Row) -> None:
    """The first claim of a cycle takes the best of the beads that have waited unchanged since before the cycle."""
    if breaker.read(process.store).until:  # beads whose agents died come last
        return
    began = START + timedelta(seconds=process.begun) + process.skew
    for other in world.rows.values():
        bead = other.bead
        waits = bead.status == "open" and not other.reverted and bead.id not in process.tried
        before = other.fit_since is not None and max(other.fit_since, other.changed_at) < process.begun
        ready = waits and before and (bead.record.retry_at is None or bead.record.retry_at <= began)
        ready = ready and (bead.ends_by is None or bead.ends_by < world.now)  # its job may run in another place
        ready = ready and not _perhaps_posted(world, process, bead, process.begun - 2 * ROUNDING.seconds)
        named = [job for _, job in NAMED.findall(bead.notes)]  # somebody may have signed for another bead's
        jobs = [job for job in world.jobs.values() if job.bead == bead.id or job.id in named]
        ready = ready and not any(_may_run(process, job) for job in jobs)
        if ready and not process.started and row.changed_at < process.begun and _rank(other) < _rank(row):
            world.violate("order", f"{process.name} claims {row.bead.id} before {bead.id}")


def _may_run(process: Process, job: Job) -> bool:
    """Whether the process was told something of a job by which its bead is passed over."""
    return process.jobs_told.get(job.id, FORGOTTEN) not in (*ENDED, FORGOTTEN, NOT_STARTED)


def _rank(row: Row) -> tuple[object, ...]:
    return row.bead.priority, row.place or row.bead.waiting_since, row.bead.id


def _check_pause(world: World, process: Process, change: Change) -> None:
    """Once a pause has been set a sweep settles and records nothing: the switch is a condition of each write."""
    if world.paused_at is not None:
        world.violate("pause", f"{process.name} reaps {change.bead.id} though it is paused")


def _check_fence(world: World, process: Process, row: Row, change: Change) -> None:
    if process.claims.get(row.bead.id) != row.bead.record.attempt:
        attempt = row.bead.record.attempt
        words = f"{process.name} writes ({change.act}) on {row.bead.id}, whose attempt {attempt} is not its own"
        world.violate("fence", words)


def _check_end(world: World, process: Process, row: Row, change: Change) -> None:
    """A dispatcher gives a bead back only if no job can run, and with the charge that the answer deserves."""
    bead, attempt = row.bead, world.attempts[process.claims[row.bead.id]]
    if attempt.answer in ("started", "unknown"):
        world.violate("release", f"{process.name} gives {bead.id} back, whose job {attempt.answer}")
    seen = process.seen[bead.id]
    if attempt.touched is not None and attempt.touched <= row.version_of(seen):
        world.violate("release", f"{process.name} gives {bead.id} back, on which somebody has written")
    attempts, before = _attempts_after(bead, change), attempt.before.record.attempts
    if attempt.answer == "refused" and process.refused_in_a_row >= IN_A_ROW and attempts != before:
        world.violate("charge", f"{process.name} charges {bead.id}, one of {IN_A_ROW} beads refused in a row")
    if change.status == "blocked":
        refused = attempt.answer == "refused" or _looks_old(world, process, attempt)
        if not refused or before + 1 < world.plan.max_attempts:
            world.violate("charge", f"{process.name} quarantines {bead.id} after {before + 1} attempts")
    elif attempts > before and attempt.answer in UNCHARGED and not _looks_old(world, process, attempt):
        world.violate("charge", f"{process.name} charges {bead.id} for the answer {attempt.answer!r}")
    elif attempts == before and attempt.answer == "refused" and process.refused_in_a_row < 3:
        world.violate("charge", f"{process.name} does not charge {bead.id}, which was refused")
    elif attempts > before and before + 1 >= world.plan.max_attempts:
        world.violate("charge", f"{process.name} opens {bead.id} after {before + 1} attempts")
    if change.status == "open" and (attempt.answer == "not started" or attempts > before):
        _check_backoff(world, process, bead, change, attempt.before.record.failures)
    if not change.retracts_claim_note:
        world.violate("notes", f"{process.name} leaves the note of its claim on {bead.id}")
    if change.status == "open" and change.note and attempt.heard and bead.record.error.startswith(attempt.heard):
        world.violate("notes", f"{process.name} notes {attempt.heard} on {bead.id} again")


def _check_exhausted(world: World, process: Process, row: Row, change: Change) -> None:
    """A bead that somebody opened is blocked without a claim only after its last attempt, and starts afresh then."""
    bead = row.bead
    if bead.record.attempts < world.plan.max_attempts or bead.record.quarantined:
        world.violate("charge", f"{process.name} quarantines {bead.id} after {bead.record.attempts} attempts")
    if kept := [key for key in AFRESH if key in bead.metadata and key not in change.drop]:
        world.violate("charge", f"{process.name} quarantines {bead.id}, which would not start afresh: {kept}")


def _check_giving_back(world: World, process: Process, row: Row, change: Change) -> None:
    """A charge is given back once, for a death that the open breaker knows."""
    bead, stores = row.bead, (world.store, process.store, process.swapped)
    known = {death.attempt for store in stores if breaker.read(store).until for death in breaker.read(store).deaths}
    if bead.record.died not in known:
        world.violate("charge", f"{process.name} gives back the charge of {bead.id}, whose agent did not die early")
    if bead.record.died in world.given_back and not row.reverted:
        world.violate("charge", f"{process.name} gives back the charge of {bead.id} twice")
    if _attempts_after(bead, change) != bead.record.attempts - 1:
        world.violate("charge", f"{process.name} gives back more or less than one charge of {bead.id}")
    world.given_back.add(bead.record.died)


def age_seen(world: World, process: Process, attempt: Attempt) -> timedelta:
    """Return how far the creation of a bead is from now by the clock of its dispatcher."""
    return abs(world.now + process.skew - attempt.before.created_at)


def _looks_old(world: World, process: Process, attempt: Attempt) -> bool:
    """Whether a bead that BeadBoard does not see is perhaps no new one by the dispatcher's clock."""
    return attempt.answer == "not found" and age_seen(world, process, attempt) > EXPORT_DELAY - timedelta(minutes=1)


def _check_settling(world: World, process: Process, row: Row, change: Change) -> None:
    """A reaper settles a bead only on the evidence of docs/decisions.md.

    A job that somebody started on a claimed bead by a click counts as that of the claim once its agent has signed for
    it: nobody can tell it from the job of a POST whose dispatcher died.
    """
    bead, attempt = row.bead, world.attempts.get(row.bead.record.attempt)
    told = process.jobs_told.get(bead.record.job or bead.record.attempt, "")
    silent = attempt is not None and attempt.touched is None
    if told in ALIVE or told == TOKEN_REFUSED:
        world.violate("evidence", f"{process.name} settles {bead.id} though it was told {told!r} of its job")
    known = world.jobs.get(bead.record.job or bead.record.attempt)
    if (
        told in ENDED
        and (known is None or known.bead == bead.id)
        and (known is None or known.attempt not in ("", bead.record.attempt))
    ):
        world.violate("evidence", f"{process.name} settles {bead.id} by {bead.record.job}, the job of another attempt")
    if known and known.host not in ("", process.host) and known.alive:
        world.violate("evidence", f"{process.name} settles {bead.id}, whose job runs on {known.host}")
    if told not in ENDED:
        limit, why = _limit(world, process, bead, told, silent)
        age = _age(world, process, bead)
        process.aged += 1
        if 0 < world.reap_settings.max_reap < process.aged:
            world.violate("max reap", f"{process.name} settles {process.aged} beads by their age")
        if age < limit - ROUNDING:
            world.violate("too early", f"{process.name} settles {bead.id} after {age}, not {limit} ({why})")
    _check_charge(world, process, bead, change)
    word = told in ENDED or told in ("", FORGOTTEN, NO_ANSWER)
    if attempt and silent and bead.record.job and word and world.plan.trip_after:
        _check_trip(world, process, bead)


def _check_result(world: World, process: Process, row: Row, change: Change) -> None:
    """The end of a job is recorded once, on the attempt that was read, and not while the job is known to run."""
    bead, seen = row.bead, process.seen[row.bead.id]
    before = {run["attempt"] for run in _runs(bead.metadata) if run["ended"]}
    ended = next((run for run in _runs(change.put) if run["ended"] and run["attempt"] not in before), None)
    told = process.jobs_told.get(ended["job"] or ended["attempt"], "") if ended else ""
    if (seen.record.attempt, seen.record.job) != (bead.record.attempt, bead.record.job):
        world.violate("fence", f"{process.name} records a result on another attempt of {bead.id}")
    if told in ALIVE:
        world.violate("evidence", f"{process.name} records a result on {bead.id}, whose job was said to be {told}")
    if ended is None or bead.metadata.get("bdauto.result") != "running":
        world.violate("twice", f"{process.name} records the result of {bead.id} twice")


def _runs(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(str(metadata.get("bdauto.runs", "[]")))
    return found


def _check_reopening(world: World, process: Process, row: Row) -> None:
    """A closed bead is opened again only if its agent has closed it, and no check of it has passed.

    Where its mark is gone, say because bd has taken the claim back, the host of its last claim's job knows it. A check
    that passes between the question and the write is seen by the same sweep, which closes the bead.
    """
    bead = row.bead
    here = [job for job in world.jobs.values() if job.bead == bead.id and job.host == process.host]
    known = bool(here) and here[-1].checked and bead.record.attempt in ("", here[-1].id)
    if bead.record.check != "due" and not known:
        world.violate("check", f"{process.name} opens {bead.id} again, which was not to be checked")
    passed = {job.id for job in _passed_here(world, process, bead)} - process.not_passed
    if world.closer(bead.id) == "ann" or bead.record.job in passed:
        world.violate("check", f"{process.name} opens {bead.id} again, which a person has closed, or has passed")


def _to_check(world: World, bead: str) -> bool:
    """Whether the last job of a bead was to be checked."""
    jobs = [job for job in world.jobs.values() if job.bead == bead]
    return bool(jobs) and jobs[-1].checked


def _passed_here(world: World, process: Process, bead: Bead) -> list[Job]:
    jobs = [job for job in world.jobs.values() if job.bead == bead.id and job.host == process.host]
    return [job for job in jobs if job.state == "completed" and not job.check_failed]


def _limit(world: World, process: Process, bead: Bead, told: str, silent: bool) -> tuple[timedelta, str]:
    settings = world.reap_settings
    if told == NO_ANSWER:
        return max(settings.threshold, NO_ANSWER_LIMIT), "the agent service does not answer"
    if (
        silent
        and not bead.record.job
        and not bead.record.error.startswith(UNKNOWN)
        and (process.runs_nothing or told == NOT_STARTED)
    ):
        return min(settings.grace, settings.threshold), "nothing runs"
    return settings.threshold, "no evidence"


def _age(world: World, process: Process, bead: Bead) -> timedelta:
    """Return how long ago the bead was updated, or claimed if its update lay too far ahead when the sweep began."""
    seen, began = bead.updated_at, START + timedelta(seconds=process.begun)
    if seen > began + world.reap_settings.grace and bead.record.claimed_at:
        seen = bead.record.claimed_at
    return world.now - seen


def _check_opened(world: World, process: Process, bead: Bead, change: Change) -> None:
    """An open bead's claim is ended only if a person has opened it, who starts it afresh and does not wait."""
    opened = [row for row in world.events if row["issue_id"] == bead.id and row["new_value"] == '{"status":"open"}']
    if not opened or opened[-1]["actor"] != "ann":
        world.violate("charge", f"{process.name} ends the claim of {bead.id}, which no person has opened")
    if _attempts_after(bead, change) or "bdauto.retry_at" in change.put:
        world.violate("charge", f"{process.name} charges {bead.id}, which a person has opened")


def _check_charge(world: World, process: Process, bead: Bead, change: Change) -> None:
    job = world.jobs.get(bead.record.attempt)
    if change.status == "closed":
        if job is None or not job.checked or job.check_failed or job.state != "completed":
            world.violate("check", f"{process.name} closes {bead.id}, whose check has not passed")
        return
    if job and job.checked and job.state == "completed" and bead.record.attempt in world.attempts:
        touched = world.attempts[bead.record.attempt].touched is not None
        if touched and not job.check_failed:
            world.violate("check", f"{process.name} ({change.act}) does not close {bead.id}, whose check has passed")
        if touched and change.status == "open" and _attempts_after(bead, change) != max(bead.record.attempts - 1, 0):
            world.violate("charge", f"{process.name} charges {bead.id} for a failed check")
        if touched and (change.status == "blocked") != (bead.record.failed_checks + 1 >= world.plan.max_attempts):
            words = f"after {bead.record.failed_checks + 1} failed checks"
            world.violate("charge", f"{process.name} sets {bead.id} to {change.status} {words}")
        if touched:
            return
    if bead.record.adopted:
        if change.status != "open" or _attempts_after(bead, change) != max(bead.record.attempts - 1, 0):
            world.violate("charge", f"{process.name} charges {bead.id} for a job that bdauto did not start")
        return
    if change.status == "blocked":
        kept = [key for key in AFRESH if key in bead.metadata and key not in change.drop]
        if kept or not change.put.get("bdauto.quarantined"):
            world.violate("charge", f"{process.name} blocks {bead.id}, which would not start afresh: {kept}")
        return
    stores = (world.store, process.store, process.swapped)
    suspended = any(breaker.read(store).until for store in stores)
    attempts = _attempts_after(bead, change)
    if attempts != bead.record.attempts and not suspended:
        world.violate(
            "charge", f"{process.name} releases {bead.id} with {attempts} attempts, not {bead.record.attempts}"
        )
    elif attempts == bead.record.attempts and bead.record.attempts >= world.plan.max_attempts:
        world.violate("charge", f"{process.name} opens {bead.id} after {bead.record.attempts} attempts")
    died = bead.record.deaths if "bdauto.deaths" in change.put else 0
    _check_backoff(world, process, bead, change, max(bead.record.failures, died))


def _check_backoff(world: World, process: Process, bead: Bead, change: Change, failures: int) -> None:
    again = change.put.get("bdauto.retry_at")
    whole = min(timedelta(minutes=2) * 2 ** min(failures, 10), timedelta(hours=1))
    if not isinstance(again, Moment) or not whole / 2 <= again.delay <= whole:
        world.violate("backoff", f"{process.name} opens {bead.id} with the backoff {again}, not up to {whole}")


def _check_trip(world: World, process: Process, bead: Bead) -> None:
    """Early deaths in a row, with no sign of an agent between them, must have opened the breaker.

    A death is counted before its bead is settled. A person who closes the breaker in between makes it forgotten.
    """
    resumed = world.resumed_at is not None and world.resumed_at >= process.begun
    if bead.record.claimed_at and not resumed and bead.record.attempt not in [death[0] for death in world.deaths]:
        world.deaths.append((bead.record.attempt, bead.id, bead.record.claimed_at))
    beads = {death[1] for death in world.deaths if death[2] > world.last_life}
    if breaker.read(world.store).trial == bead.record.attempt:
        world.violate("breaker", f"{process.name} settles {bead.id}, which was the trial, and the breaker is half open")
    if len(beads) >= world.plan.trip_after and breaker.read(world.store).until is None and not resumed:
        world.violate("breaker", f"{process.name} settles the {len(beads)}th early death, and the breaker is closed")


def _attempts_after(bead: Bead, change: Change) -> int:
    value = change.put.get("bdauto.attempts", 0 if "bdauto.attempts" in change.drop else bead.record.attempts)
    assert isinstance(value, int)
    return value


def note_fitness(world: World, row: Row) -> None:
    """Note since when a bead must not be dispatched, whatever its status and its backoff."""
    bead = row.bead
    waits = any(world.rows[other].bead.status != "closed" for other in row.blockers if other in world.rows)
    deferred = bead.defer_until is not None and bead.defer_until > world.now
    unfit = waits or deferred or not bead.acceptance_criteria.strip() or bead.assignee != ASSIGNEE
    if not unfit:
        row.unfit_since = None
        row.fit_since = world.scheduler.now if row.fit_since is None else row.fit_since
    elif row.unfit_since is None:
        row.unfit_since, row.fit_since = world.scheduler.now, None
