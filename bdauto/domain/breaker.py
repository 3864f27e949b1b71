"""The circuit breaker: when agents die at once, dispatching stops instead of failing bead after bead.

An expired key or a usage limit makes every job die within seconds while every POST succeeds. Rules for one bead would
then use up the attempts of the whole queue. The breaker's state lives in the tracker beside the pause switch, so it
holds for every dispatcher and reaper.

    closed      `trip_after` early deaths of different beads, with no sign of an agent in between, open it. So do
                as many POSTs in a row of which nobody knows what became of them, as many early deaths of two
                beads, where all have the same last words, and as many of one bead by its agent's service
    open        nothing is dispatched until `until`, unless that is further ahead than any reset time is believed
    half-open   exactly one bead is dispatched. A sign of its agent closes the breaker, another early death opens it
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.reset_time import LONGEST
from bdauto.domain.times import format_time, parse_time

KEY = "bdauto.breaker"
"""The key of bd's shared key-value store that holds the breaker of the default lane."""
FIRST_WAIT = timedelta(minutes=5)
LONGEST_WAIT = timedelta(hours=1)
"""An open breaker waits FIRST_WAIT, doubling with each failed trial up to LONGEST_WAIT."""
TRIAL = timedelta(minutes=10)
"""A trial without a sign of its agent for so long gives its place to another bead."""
REMEMBERED = 20
"""Early deaths that the state holds. Older ones are dropped."""

State = Literal["closed", "open", "half-open"]


class Death(msgspec.Struct, frozen=True):
    """An early death: a job that ended, with its bead still in progress and no sign of its agent since the claim.

    `unknown` marks a POST with an unknown outcome, whose job may never have started. `service` marks a job whose
    agent's service failed, even if the agent had worked before.
    """

    bead: str
    attempt: str
    job: str = ""
    words: str = ""
    claimed_at: str = ""
    unknown: bool = False
    service: bool = False

    @property
    def short_words(self) -> str:
        """The words as an error has them."""
        return clean(self.words, 120)

    @property
    def since(self) -> datetime:
        """When the bead was claimed, as far as that is known."""
        try:
            return parse_time(self.claimed_at)
        except ValueError:
            return datetime.min.replace(tzinfo=UTC)


def unknown_outcome(bead: str, attempt: str, error: str, now: datetime) -> Death:
    """Return the death that stands for a POST with an unknown outcome."""
    return Death(bead, attempt, words=clean(error), claimed_at=format_time(now), unknown=True)


class Breaker(msgspec.Struct, frozen=True):
    """The breaker's state. `write` is a unique id of the last write, so that no two writes are alike.

    `opened` counts how often it opened in a row. `trial` is the attempt that is tried while it is half open, and
    `trial_bead` its bead.
    """

    deaths: tuple[Death, ...] = ()
    until: datetime | None = None
    opened: int = 0
    trial: str = ""
    trial_bead: str = ""
    write: str = ""

    def state(self, now: datetime) -> State:
        """Return the state at this moment."""
        if self.until is None:
            return "closed"
        return "open" if now < self.until <= now + LONGEST else "half-open"

    @property
    def words(self) -> str:
        """The last words of the agent that died last, or ""."""
        return self.deaths[-1].words if self.deaths else ""

    def describe(self) -> str:
        """Describe an open breaker in one line."""
        beads = len({death.bead for death in self.deaths})
        until = f" until {format_time(self.until)}" if self.until else ""
        if self.trial:
            until = f" while {self.trial_bead} tries whether the agent works again"
        quoted = f": {self.words}" if self.words else ""
        of = f"{beads} bead" + ("" if beads == 1 else "s")
        if self.deaths and all(death.unknown for death in self.deaths):
            return f"suspended{until}: nobody knows what became of the POSTs of {of}{quoted}"
        return f"suspended{until}: the agents of {of} died at once{quoted}"

    def encode(self) -> str:
        """Write the breaker as the tracker holds it."""
        return msgspec.json.encode(
            {
                "deaths": self.deaths,
                "until": format_time(self.until) if self.until else None,
                "opened": self.opened,
                "trial": self.trial,
                "trial_bead": self.trial_bead,
                "write": self.write,
            }
        ).decode()

    def after_death(
        self, death: Death, trip_after: int, now: datetime, *, resume_at: datetime | None = None
    ) -> "Breaker":
        """Return the breaker with an early death. An attempt counts once. `trip_after` 0 never opens the breaker.

        `resume_at` is when the agent's words say that it can work again. It replaces the doubling wait. After a failed
        trial it can only prolong the wait, because an agent that always names the next second would be tried without
        end. A time that has passed changes nothing.
        """
        if any(known.attempt == death.attempt for known in self.deaths):
            return self
        deaths = (*self.deaths, death)[-REMEMBERED:]
        failed_trial = self.trial != "" and death.attempt == self.trial
        beads, of_service = len({known.bead for known in deaths}), sum(known.service for known in deaths)
        tripped = trip_after > 0 and (max(beads, of_service) >= trip_after or _alike(deaths, trip_after))
        if not failed_trial and (self.until is not None or not tripped):
            return msgspec.structs.replace(self, deaths=deaths)
        waited = now + min(FIRST_WAIT * (1 << min(self.opened, 10)), LONGEST_WAIT)
        until = resume_at if resume_at and resume_at > now else waited
        return msgspec.structs.replace(
            self,
            deaths=deaths,
            until=max(until, waited) if failed_trial else until,
            opened=self.opened + 1,
            trial="",
            trial_bead="",
        )

    def after_life(self, attempt: str, claimed_at: datetime) -> "Breaker":
        """Take a sign of life of an agent for what it says: what was claimed before it died of something else.

        The agent of the trial closes the breaker, and so does one that was claimed after all the deaths.
        """
        left = tuple(death for death in self.deaths if death.since > claimed_at and death.attempt != attempt)
        if (self.trial and attempt == self.trial) or (not left and (self.deaths or self.until)):
            return Breaker()
        return self if left == self.deaths else msgspec.structs.replace(self, deaths=left)

    def after_start(self, claimed_at: datetime) -> "Breaker":
        """Forget unknown outcomes that are older than the claim of a bead whose POST was answered with a job."""
        left = tuple(death for death in self.deaths if not death.unknown or death.since > claimed_at)
        return self if left == self.deaths else msgspec.structs.replace(self, deaths=left)

    def with_trial(self, attempt: str, bead: str, now: datetime) -> "Breaker":
        """Give the one place of a half-open breaker to an attempt, for TRIAL. Others wait meanwhile."""
        return msgspec.structs.replace(self, trial=attempt, trial_bead=bead, until=now + TRIAL)


def _alike(deaths: Sequence[Death], number: int) -> bool:
    """True: this many deaths, of more than one bead, have the same last words. Words with a digit are ignored."""
    if any(death.unknown for death in deaths):
        return False
    words = {re.sub(r"\S*\d\S*", "#", death.words) for death in deaths}
    return len(deaths) >= number and len({death.bead for death in deaths}) > 1 and len(words) == 1 and words != {""}


def key_of(lane: str) -> str:
    """Return the key that holds a lane's breaker."""
    return KEY if lane == DEFAULT_LANE else f"{KEY}.{lane}"


def read(store: Mapping[str, Any], lane: str = DEFAULT_LANE) -> Breaker:
    """Return the lane's breaker in the key-value store. A value that is malformed is taken for a closed breaker."""
    value = store.get(key_of(lane))
    if value in (None, ""):
        return Breaker()
    try:
        found = msgspec.json.decode(value, type=_Stored)
        until = parse_time(found.until) if found.until else None
    except (*MALFORMED, TypeError):
        return Breaker()
    deaths = tuple(
        Death(
            clean(d.bead, 255),
            clean(d.attempt, 80),
            clean(d.job, 100),
            clean(d.words),
            clean(d.claimed_at, 40),
            d.unknown,
            d.service,
        )
        for d in found.deaths
    )
    trial, trial_bead = clean(found.trial, 80), clean(found.trial_bead, 255)
    return Breaker(deaths[-REMEMBERED:], until, max(found.opened, 0), trial, trial_bead, found.write)


def suspension(store: Mapping[str, Any], now: datetime, lane: str) -> tuple[str, datetime | None]:
    """Describe the lane's breaker in the key-value store, and return until when it is open. "" and None: it is not."""
    found = read(store, lane)
    return (found.describe(), found.until) if found.state(now) == "open" else ("", None)


class _Stored(msgspec.Struct, frozen=True):
    deaths: tuple[Death, ...] = ()
    until: str | None = None
    opened: int = 0
    trial: str = ""
    trial_bead: str = ""
    write: str = ""
