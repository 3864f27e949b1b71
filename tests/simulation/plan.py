"""What a seed makes of a history: how many of whom, which settings, and which faults are possible at all.

Each history has some kinds of faults and lacks the others. A mixture of all of them would hide what two of them do.
"""

import random
from datetime import UTC, datetime

import msgspec

START = datetime(2026, 4, 18, 22, 0, tzinfo=UTC)
MINUTE = 60.0
HOUR = 60 * MINUTE
QUIET = 6 * HOUR
"""So long after the last fault everything is settled: an unanswered job waits for 2 hours, a backoff for one."""

BD_FAULTS = ("bd fails", "bd hangs", "bd garbles", "write not made", "write unanswered", "write late", "conflict")
HTTP_FAULTS = (
    "cannot connect",
    "request lost",
    "request late",
    "answer lost",
    "answer garbled",
    "request doubled",
    "answer slow",
    "gateway fails",
)
OTHER_FAULTS = ("killed", "suspended", "note lost", "SIGTERM")
SPELLS = (
    "BeadBoard blind",
    "BeadBoard down",
    "BeadBoard misconfigured",
    "agent service down",
    "token refused",
    "agents die at once",
)
GATEWAY = "POSTs time out"
"""A spell in which a gateway with a short time-out answers every POST, and no job is started."""
SLOW = "bd slow"
"""A fault: bd takes longer than an answer may be old, and does what it is asked."""
ACTS = (
    "notes", "edits", "takes", "re-opens", "closes", "defers", "adds a blocker", "pauses", "clicks", "restarts agent",
    "resumes",
)  # fmt: skip
MOMENTS = ("", "", "claim", "POST", "sweep")
LIVES = (
    "finishes",
    "fails the check",
    "gives up",
    "leaves",
    "dies",
    "dies silent",
    "hangs",
    "hangs silent",
    "wakes late",
    "restless",
)
"""What becomes of an agent: all but the first leave something to settle."""


class BeadPlan(msgspec.Struct, frozen=True):
    """A bead of the history. `refused` is one that BeadBoard never takes."""

    id: str
    priority: int
    age: float
    refused: bool = False
    acceptance: bool = True
    blocker: str = ""
    from_minute: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A history before it happens."""

    seed: int
    beads: tuple[BeadPlan, ...]
    dispatchers: int
    reapers: int
    loops: int
    hosts: int
    """Hosts that run the agents themselves; 0 is an agent service."""
    checked: bool
    """Whether the hosts check what their agents have done, and bdauto closes their beads."""
    counting: bool
    watching: bool
    max_beads: int
    fillers: int
    """Beads that nobody works on, and that fill the first page."""
    fillers_alike: bool
    max_reap: int
    capacity: int
    agent_service: bool
    requeue: bool
    threshold: float
    grace: float
    max_attempts: int
    trip_after: int
    max_per_day: int | None
    faults_until: float
    reap_every: float
    rates: dict[str, float]
    spells: tuple[str, ...]
    acts: tuple[tuple[str, str, int], ...]
    """What people do, and when: at some moment, or with the n-th of an event."""
    lives: tuple[str, ...]
    skews: dict[str, float]
    sick_jobs: float
    """Which part of the jobs the agent service can say nothing of, while the faults last."""


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(f"{seed}/plan")
    numbers = range(1, rng.choice((1, 2, 2, 3, 3, 4)) + 1)
    beads = tuple(_bead(f"b-{number}", rng) for number in numbers)
    loops = rng.choice((0, 0, 0, 1, 2))
    dispatchers = rng.choice((0, 0, 1)) if loops else rng.choice((1, 1, 2, 2, 3))
    hosts = rng.choice((0, 0, 0, 0, 1, 2))
    reapers = max(rng.choice((0, 1)) if loops else rng.choice((1, 1, 2)), hosts)
    service = rng.random() < 0.75
    reverts = loops == 1 and not dispatchers and not hosts and service and rng.random() < 0.4
    kinds = (("dispatcher", dispatchers), ("reaper", reapers), ("loop", loops))
    names = [f"{kind} {number}" for kind, count in kinds for number in range(1, count + 1)]
    skewed = rng.random() < 0.25
    others = random.Random(f"{seed}/others")  # a source of its own: the rest of the plan stays as it is
    sick = others.choice((0.0, 0.0, 0.0, 0.0, 0.3, 0.7))
    signs = [("signs for another", others.choice(MOMENTS), others.randrange(1, 6))] if others.random() < 0.1 else []
    looks = [("pauses", "look", others.randrange(1, 12))] if others.random() < 0.1 else []
    clicks = [("clicks", "create", 1)] if service and others.random() < 0.08 else []
    reverts_here = loops == 1 and not dispatchers and hosts == 1 and others.random() < 0.4
    gateway = (GATEWAY,) if others.random() < 0.04 else ()
    slow = {SLOW: others.choice((0.02, 0.08))} if others.random() < 0.15 else {}
    return Plan(
        seed=seed,
        beads=beads,
        dispatchers=dispatchers,
        reapers=reapers,
        loops=loops,
        hosts=hosts,
        checked=hosts > 0 and random.Random(f"{seed}/checks").random() < 0.7,
        counting=rng.random() < 0.3,
        watching=rng.random() < 0.6,
        max_beads=rng.choice((1, 1, 2, 4)),
        fillers=25 if rng.random() < 0.07 else 0,
        fillers_alike=rng.random() < 0.5,
        max_reap=10 if loops else rng.choice((1, 10, 10, 10)),
        capacity=rng.choice((1, 2, 3, 10)),
        agent_service=service,
        requeue=rng.random() < 0.3,
        threshold=rng.choice((12, 30)) * MINUTE,
        grace=rng.choice((4, 10)) * MINUTE,
        max_attempts=rng.choice((2, 3, 3)),
        trip_after=rng.choice((0, 2, 3, 3)),
        max_per_day=rng.choice((1, 2, 4)) if rng.random() < 0.1 else None,
        faults_until=rng.choice((20, 40, 40, 70)) * MINUTE,
        reap_every=rng.choice((3, 5, 10)) * MINUTE,
        rates=_rates(rng) | slow,
        spells=(*_spells(rng), *gateway),
        acts=(*_acts(rng, reverts or reverts_here), *signs, *looks, *clicks),
        lives=_lives(rng),
        skews={name: rng.choice((-1200.0, -120.0, -3.0, 3.0, 120.0, 1200.0)) for name in names if skewed},
        sick_jobs=sick if service and not hosts else 0.0,
    )


def _bead(name: str, rng: random.Random) -> BeadPlan:
    return BeadPlan(
        name,
        priority=rng.choice((0, 1, 2, 2, 2, 4)),
        age=rng.choice((30.0, HOUR, 5 * HOUR)) + rng.randrange(60),
        refused=rng.random() < 0.08,
        acceptance=rng.random() > 0.05,
        blocker="b-1" if name != "b-1" and rng.random() < 0.1 else "",
        from_minute=rng.choice((0.0, 0.0, 5.0, 17.0)) if name != "b-1" else 0.0,
    )


def _rates(rng: random.Random) -> dict[str, float]:
    wild = rng.choice((0.0, 0.15, 0.4))
    named = [name for name in (*BD_FAULTS, *HTTP_FAULTS, *OTHER_FAULTS) if rng.random() < wild]
    return {name: rng.choice((0.005, 0.02, 0.08)) for name in named}


def _spells(rng: random.Random) -> tuple[str, ...]:
    rate = rng.choice((0.1, 0.1, 0.1, 0.1, 0.5))
    return tuple(spell for spell in SPELLS if rng.random() < rate)


def _acts(rng: random.Random, reverts: bool) -> tuple[tuple[str, str, int], ...]:
    acts = [(rng.choice(ACTS), rng.choice(MOMENTS), rng.randrange(1, 6)) for _ in range(rng.choice((0, 0, 1, 2, 3)))]
    return (*acts, *[("reverts", moment, rng.randrange(1, 4)) for moment in ("record", "POST", "record") if reverts])


def _lives(rng: random.Random) -> tuple[str, ...]:
    """Return what may become of agents; each is as probable as the others."""
    unlucky = [life for life in LIVES[1:] if rng.random() < 0.25]
    return ("finishes",) * rng.choice((1, 3)) + tuple(unlucky)
