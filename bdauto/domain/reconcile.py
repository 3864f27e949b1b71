"""Decide whether a job may go on, from what has become of its bead since the claim.

An agent's own changes of its bead never stop its job. What bd has recorded decides whose change it was. If it is not
known, the job goes on and the bead is named.
"""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.edits import CHECKER, Edit, author
from bdauto.domain.reaping import CLOCK_ROUNDING
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.values import format_duration

SILENCE = "silence: "
"""The start of why a silent job was ended."""
TOOL_SILENCE = timedelta(hours=2)
"""How long a tool of an agent may run without a word: builds and test suites print nothing until their end."""
RUNNING = ("in_progress", "open")
"""Statuses of a bead whose job goes on. An open one gets its claim back before it is dispatched again."""


class RunningJob(msgspec.Struct, frozen=True):
    """A job that runs on this machine, the bead that it was started for, and when it was started.

    It was `heard` last then. It is ended if it is silent for `silence`, or for TOOL_SILENCE while a tool of its agent
    runs. None: it may be silent. `give_up` says why it cannot begin, and must be ended. A `checked` job goes on with
    the check when its agent has closed the bead.
    """

    bead: str
    job: str
    started: datetime
    heard: datetime | None = None
    silence: timedelta | None = None
    give_up: str = ""
    checked: bool = False
    in_tool: bool = False

    @property
    def allowed(self) -> timedelta | None:
        """How long it may be silent."""
        return self.silence and max(self.silence, TOOL_SILENCE if self.in_tool else self.silence)


class Fate(StrEnum):
    """What becomes of a running job."""

    goes_on = "goes-on"
    unclear = "unclear"
    stopped = "stopped"


class Decision(msgspec.Struct, frozen=True):
    """What becomes of a running job, and why in words. It may be another at `due`, though nobody does anything."""

    running: RunningJob
    fate: Fate
    why: str = ""
    due: datetime | None = None


class Difference(msgspec.Struct, frozen=True):
    """One way in which a bead is not as its job needs it: the field's value now, and who did what in words."""

    field: str
    value: str
    did: str


def differences(
    bead: Bead, running: RunningJob, assignee: str, settings: DispatchSettings | None = None
) -> Iterator[Difference]:
    """Yield what is different from a bead that may have this job. `settings` say which beads are dispatched at all."""
    if bead.status not in RUNNING:
        did = "closed the bead" if bead.status == "closed" else f"set the bead to {clean(bead.status, 40)}"
        yield Difference("status", bead.status, did)
    if bead.assignee != assignee:
        did = f"gave the bead to {clean(bead.assignee, 60)}" if bead.assignee else "took the bead from the agent"
        yield Difference("assignee", bead.assignee, did)
    if bead.status == "in_progress" and _claimed_since(bead, running):
        yield Difference("status", "in_progress", f"gave the bead to another attempt, {bead.record.attempt}")
    if settings is None:
        return
    labels = set(bead.labels or ())
    for label in settings.labels:
        if label not in labels:
            yield Difference("label", f"-{label}", f"took the label {clean(label, 60)} away")
    for label in settings.exclude_labels:
        if label in labels:
            yield Difference("label", f"+{label}", f"gave it the label {clean(label, 60)}")
    if bead.issue_type not in settings.types if settings.types else bead.issue_type in settings.exclude_types:
        yield Difference("issue_type", bead.issue_type, f"made it of type {clean(bead.issue_type, 40)}")


def decide(
    running: RunningJob,
    bead: Bead | None,
    edits: Collection[Edit],
    assignee: str,
    settings: DispatchSettings | None,
    *,
    linger: timedelta,
    now: datetime,
) -> Decision:
    """Decide about a running job. `bead` is None if it was deleted. `assignee` is also the name the agent writes as.

    `linger` is how long an agent may go on after it has closed its bead itself.
    """
    if bead is None:
        return Decision(running, Fate.unclear, "the bead was deleted, and bd does not tell by whom")
    found = [
        (one, author(edits, bead.id, one.field, one.value)) for one in differences(bead, running, assignee, settings)
    ]
    for difference, actor in found:
        if actor and actor not in (assignee, CHECKER):
            return Decision(running, Fate.stopped, f"{clean(actor, 60)} {difference.did}")
    for difference, actor in found:
        if actor is None:
            return Decision(running, Fate.unclear, f"somebody {difference.did}, and bd does not tell who")
    closed_at = bead.closed_at or bead.updated_at
    if bead.status == "closed" and now - closed_at >= linger and not running.checked:
        return Decision(
            running, Fate.stopped, f"its agent closed the bead and did not end within {format_duration(linger)}"
        )
    if running.give_up:
        return Decision(running, Fate.stopped, running.give_up)
    if why := silent(running, bead.updated_at, now):  # a note is a sign of life, too
        return Decision(running, Fate.stopped, why)
    due = [closed_at + linger] if bead.status == "closed" and not running.checked else []
    if running.silence and running.allowed:  # its tool may end meanwhile
        due.append(min(_heard(running, bead.updated_at) + running.allowed, now + running.silence))
    return Decision(running, Fate.goes_on, due=min(due, default=None))


def silent(running: RunningJob, noted: datetime, now: datetime) -> str:
    """Return why a job must end that was silent for too long, or "". `noted` is another sign of its life."""
    if running.allowed and now - _heard(running, noted) >= running.allowed:
        return f"{SILENCE}nothing was written for {format_duration(running.allowed)}"
    return ""


def _heard(running: RunningJob, noted: datetime) -> datetime:
    return max(running.heard or running.started, noted)


def _claimed_since(bead: Bead, running: RunningJob) -> bool:
    """True: the bead was claimed for another attempt after this job had started."""
    record = bead.record
    other = record.attempt not in ("", running.job) and record.job != running.job
    return other and record.claimed_at is not None and record.claimed_at > running.started + CLOCK_ROUNDING
