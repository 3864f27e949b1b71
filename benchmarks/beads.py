"""The beads that a benchmark seeds its trackers with, and the SQL that puts them there."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

ROWS_AT_ONCE = 500
COLUMNS = (
    "id, title, description, design, acceptance_criteria, notes, status, priority, issue_type, assignee, created_at, "
    "created_by, updated_at"
)
DESCRIPTION = "When a customer's order is split, the second parcel loses its tracking number. " * 12
ACCEPTANCE = "- Each parcel of a split order shows its own number.\n- A test covers three parcels.\n" * 2

Shape = Literal["usual", "one priority", "shuffled", "reversed, one priority"]
"""How a queue's beads lie to each other; see `queue_of`."""


@dataclass(frozen=True)
class SeedBead:
    """A bead as it is put into a tracker; times are UTC."""

    priority: int
    created: datetime
    updated: datetime
    status: str = "open"
    assignee: str = "agent"


def queue_of(count: int, shape: Shape = "usual") -> list[SeedBead]:
    """Return `count` eligible beads, created over a month, all times distinct.

    usual: five priorities, each bead handed to the agent within two days of its creation and untouched since.
    one priority: the same, all of priority 2. shuffled: last updated in an order that has nothing to do with creation.
    reversed, one priority: the oldest bead was updated last, the worst order for a reader of pages.
    """
    chance = random.Random(count)  # the same queue each time
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=40)
    step = timedelta(days=30) / count
    places = list(range(count))
    if shape == "shuffled":
        chance.shuffle(places)
    elif shape == "reversed, one priority":
        places.reverse()
    beads = []
    for place, new_place in enumerate(places):
        created = start + place * step
        if shape in ("usual", "one priority"):
            updated = created + timedelta(seconds=chance.randrange(2 * 86400))
        else:
            updated = start + timedelta(days=31) + new_place * timedelta(seconds=60)
        beads.append(SeedBead(2 if "one priority" in shape else chance.randrange(5), created, updated))
    return beads


def others(count: int = 500) -> list[SeedBead]:
    """Return `count` beads of people, which are nothing to the agent: half closed, half open."""
    beads = queue_of(count)
    return [
        SeedBead(bead.priority, bead.created, bead.updated, ("open", "closed")[number % 2], "alice")
        for number, bead in enumerate(beads)
    ]


def stalled(count: int) -> list[SeedBead]:
    """Return `count` beads of the agent, in progress and without an update for two hours."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [
        SeedBead(2, now - timedelta(days=1, minutes=number), now - timedelta(hours=2, minutes=number), "in_progress")
        for number in range(count)
    ]


def seed_sql(prefix: str, beads: list[SeedBead]) -> str:
    """Return the statements that insert the beads."""
    rows = [_row(f"{prefix}-{number:05x}", number, bead) for number, bead in enumerate(beads)]
    groups = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    return "".join(f"INSERT INTO issues ({COLUMNS}) VALUES " + ",\n".join(group) + ";\n" for group in groups)


def _row(bead_id: str, number: int, bead: SeedBead) -> str:
    values = [
        bead_id,
        f"Parcel {number} loses its number",
        DESCRIPTION[: 400 + number % 500],
        "",
        ACCEPTANCE,
        "",
        bead.status,
        str(bead.priority),
        "task",
        bead.assignee,
        f"{bead.created:%Y-%m-%d %H:%M:%S}",
        "alice",
        f"{bead.updated:%Y-%m-%d %H:%M:%S}",
    ]
    return "(" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + ")"
