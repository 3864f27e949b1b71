"""The lives of single jobs: agents whose tools take hours, people who change the bead at every moment, looks at both.

It knows who did what in which order. A job that is ended without a reason is a false stop, one that goes on in spite of
a reason that bd tells is a missed one. `python -m tests.simulation --lives` runs many.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from bdauto.agents.runner import Runner
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.controllers.reconciler import Reconciler
from bdauto.domain.bead import Bead
from bdauto.domain.lanes import Lanes
from bdauto.domain.reaping import CLOCK_ROUNDING
from bdauto.domain.reconcile import RUNNING, RunningJob
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.times import format_time
from tests.support.fakes import NOW, bead

AGENT, DISPATCHER = "agent", "beads-dispatcher"
OTHERS = ("ada", "bob", "agent-2", DISPATCHER)
SETTINGS = DispatchSettings(labels=("trusted",), exclude_labels=("no-agent",))
HOURS = 6 * 3600.0
TICK = 0.001
"""Seconds by which times may be rounded."""
LATE = 5.0
"""Seconds after a job's time is over, within which it is ended."""
CHANGES: Mapping[str, tuple[str, str]] = {
    "closes": ("status", "closed"),
    "blocks": ("status", "blocked"),
    "defers": ("status", "deferred"),
    "opens": ("status", "open"),
    "gives away": ("assignee", "bob"),
    "unassigns": ("assignee", ""),
    "gives back": ("assignee", AGENT),
    "distrusts": ("label", "-trusted"),
    "trusts": ("label", "+trusted"),
    "excludes": ("label", "+no-agent"),
    "edits the title": ("title", "another"),
    "notes": ("notes", "a note"),
    "claims anew": ("attempt", "a2"),
}
QUIET = ("notes", "edits the title")


@dataclass
class Life:
    """One job, its bead, and what is true of both. Times are in seconds since the job's start."""

    seed: int
    now: float = 0.0
    heard: float = 0.0
    in_tool: bool = False
    written: float = 0.0
    closed: float = 0.0
    stopped: str = ""
    violation: str = ""
    murky: bool = False
    """Whether bd's records did not tell at some look who had made a change."""
    fields: dict[str, str] = field(default_factory=lambda: {"status": "in_progress", "assignee": AGENT})
    labels: set[str] = field(default_factory=lambda: {"trusted"})
    attempt: str = "a1"
    claimed: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)
    last: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    """Who gave a field its value last, and when: in the order in which it was written."""
    between: list[tuple[str, str]] = field(default_factory=list)
    """What somebody writes between the read of the bead and that of its events."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.linger = self.rng.choice((30.0, 120.0, 600.0))
        self.silence = self.rng.choice((None, 600.0, 1800.0))
        runtime = Runtime(lambda: self.moment(self.now), lambda: self.now, lambda _: None, self.rng)
        settings = self.rng.choice((SETTINGS, None))
        self.settings, self.clear, self.late = settings, True, 0.0
        bd = SimpleNamespace(assignee=AGENT, lanes=Lanes(), read=self._read, events=self._events)
        self.reconciler = Reconciler(cast(Bd, bd), settings, timedelta(seconds=self.linger), runtime)

    # What the reconciler sees

    def _read(self, _ids: Sequence[str]) -> SimpleNamespace:
        found = SimpleNamespace(beads=(self.bead(),), malformed=())
        return SimpleNamespace(result=lambda: found)

    def _events(self, _ids: Sequence[str]) -> list[dict[str, Any]]:
        for who, what in self.between:
            self.write(who, what)
        self.between = []
        return self.events

    def bead(self) -> Bead:
        """Return the bead."""
        own = {"bdauto.attempt": self.attempt, "bdauto.job": self.attempt}
        own["bdauto.claimed_at"] = format_time(self.moment(self.claimed))
        closed = self.moment(self.closed) if self.fields["status"] == "closed" else None
        return bead(
            **self.fields,
            labels=sorted(self.labels),
            metadata=own,
            updated_at=self.moment(round(self.written)),
            closed_at=closed,
        )

    def running_jobs(self) -> list[RunningJob]:
        """Return the job as `bdauto.agents.local` describes it."""
        silence = None if self.silence is None else timedelta(seconds=self.silence)
        return [RunningJob("x-1", "a1", self.moment(0), self.moment(self.heard), silence, in_tool=self.in_tool)]

    def stop(self, _job: str, why: str) -> bool:
        """End the job."""
        self.stopped = self.stopped or why
        return True

    # What happens

    @staticmethod
    def moment(seconds: float) -> datetime:
        """Return a time."""
        return NOW + timedelta(seconds=seconds)

    def write(self, who: str, what: str) -> None:
        """Let somebody change the bead."""
        kind, value = CHANGES[what]
        self.written = max(self.written, self.now)
        at = f"{self.moment(self.now):%Y-%m-%dT%H:%M:%SZ}"
        event: dict[str, Any] = {"issue_id": "x-1", "actor": who, "event_type": "status_changed", "created_at": at}
        if kind == "label":
            (self.labels.add if value[0] == "+" else self.labels.discard)(value[1:])
            verb = "Added" if value[0] == "+" else "Removed"
            event |= {"event_type": f"label_{verb.lower()}", "comment": f"{verb} label: {value[1:]}"}
        elif kind == "attempt":
            self.attempt, self.claimed = value, self.now
            self.fields |= {"status": "in_progress"}
            kind, value = "status", "in_progress"
            event["new_value"] = {"status": value}
        elif kind in ("title", "notes"):
            return
        else:
            self.closed = self.now if value == "closed" and self.fields[kind] != value else self.closed
            self.fields[kind] = value
            kinds = {"status": "status_changed", "assignee": "updated"}
            event |= {"event_type": kinds[kind], "new_value": {kind: value}}
        self.events.append(event)
        self.last[kind, value] = (who, self.now)

    def reasons(self) -> set[str]:
        """Return why the job may be ended now: `other`, `linger`, `silence`."""
        status, found = self.fields["status"], set()
        wrong = [("status", status)] if status not in RUNNING else []
        wrong += [("assignee", self.fields["assignee"])] if self.fields["assignee"] != AGENT else []
        wrong += [("status", "in_progress")] if self.attempt != "a1" and status == "in_progress" else []
        if self.settings:
            wrong += [("label", "-trusted")] if "trusted" not in self.labels else []
            wrong += [("label", "+no-agent")] if "no-agent" in self.labels else []
        if any(self.last[one][0] != AGENT for one in wrong):
            found.add("other")
        over = [self.now]
        if status == "closed" and self.last["status", "closed"][0] == AGENT:
            over.append(self.closed + self.linger)
            found |= {"linger"} if self.now >= over[-1] - TICK else set()
        if allowed := self.silence and max(self.silence, 7200.0 if self.in_tool else 0.0):
            over.append(max(self.heard, round(self.written)) + allowed)
            found |= {"silence"} if self.now >= over[-1] - TICK else set()
        self.late = self.now - min(over)
        anew = self.attempt == "a1" or timedelta(seconds=int(self.claimed)) > CLOCK_ROUNDING
        self.clear = anew and all(self._is_clear(one) for one in wrong)
        return found

    def _is_clear(self, one: tuple[str, str]) -> bool:
        """Return whether bd's records, to the second, name one actor for this value."""
        at = f"{self.moment(self.last[one][1]):%Y-%m-%dT%H:%M:%SZ}"
        kind, value = one
        same = {
            event["actor"]
            for event in self.events
            if event["created_at"] == at
            and (event.get("new_value") or {}).get(kind, event.get("comment")) in (value, _comment(value))
        }
        return len(same) == 1

    def look(self) -> None:
        """Look at the job, as the loop does, and judge what comes of it."""
        before = self.reasons()
        clear, late = self.clear, self.late
        raced = bool(self.between)
        self.murky |= not clear
        self.reconciler.look(cast(Runner, self))
        allowed = before | self.reasons()
        if self.stopped and not allowed:
            self.violation = f"false stop: {self.stopped}"
        elif not self.stopped and ("other" in before or late > TICK) and clear and self.clear and not raced:
            self.violation = f"missed: {sorted(before)}"
        elif late > LATE and "other" not in before and not (self.murky or raced):
            self.violation = f"late by {late:.0f} s: {sorted(before)}"


def _comment(value: str) -> str:
    return f"{'Added' if value[:1] == '+' else 'Removed'} label: {value[1:]}"


def live(seed: int) -> Life:
    """Let one job live until it is stopped or ends, and return it."""
    life = Life(seed)
    rng = life.rng
    agenda = sorted(_agenda(rng))
    for at, act, who in agenda:
        _pass(life, at)
        if life.stopped or life.violation:
            break
        life.now = max(life.now, at)
        match act:
            case "says":
                life.heard, life.in_tool = life.now, False
            case "begins a tool":
                life.heard, life.in_tool = life.now, True
            case "look":
                meanwhile = (rng.choice((AGENT, *OTHERS)), rng.choice([*CHANGES]))
                life.between = [meanwhile] if rng.random() < 0.3 else []
                raced = bool(life.between)
                life.look()
                if raced and not (life.stopped or life.violation):  # the loop sees this change, too
                    life.between, life.now = [], life.now + 1
                    life.look()
            case _:
                life.write(who, act)
    return life


def _agenda(rng: random.Random) -> list[tuple[float, str, str]]:
    """Return what happens: when, what, who. People come at any moment, often just before or after the agent."""
    at, found = 0.0, list[tuple[float, str, str]]()
    gentle, willing = rng.choice((0.5, 0.9, 1.0)), rng.choice(("note", "note", "own"))
    while at < HOURS and len(found) < 60:
        at += rng.choice((0.3, 5.0, 60.0, 400.0, 3000.0, 6000.0)) * rng.random()
        act, own = rng.choice(("says", "says", "begins a tool", willing)), ""
        if act in ("note", "own"):
            own = rng.choice([*CHANGES][:-1]) if act == "own" else "notes"
            found += [(at, own, AGENT), (at, "says", AGENT)]
        else:
            found.append((at, act, AGENT))
        if rng.random() < 0.3:
            moment = max(at + rng.choice((-1.0, -0.2, 0.0, 0.2, 1.0, 30.0)), 0.01)
            quiet = rng.random() < gentle
            what = own if own and rng.random() < 0.3 else rng.choice(QUIET if quiet else [*CHANGES])
            found.append((moment, what, rng.choice(OTHERS)))
    writes = [moment for moment, act, _ in found if act in CHANGES]  # the loop sees each within seconds
    looks = [0.5, *(moment + rng.choice((0.0, 0.5, 2.0)) for moment in writes)]
    return found + [(moment, "look", "") for moment in looks]


def _pass(life: Life, until: float) -> None:
    """Let the time pass, with a look whenever the reconciler wants one."""
    while (due := life.reconciler.due) and not (life.stopped or life.violation):
        seconds = (due - NOW).total_seconds()
        if seconds >= until:
            return
        life.now = max(life.now, seconds + TICK)
        life.look()
