"""What `explain`, `status --check`, `doctor` and `report` say of the jobs that beads name."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.explanation import explanation
from bdauto.diagnostics.record_checks import shared_job_checks
from bdauto.diagnostics.snapshot import gather
from bdauto.domain.limits import reached
from bdauto.domain.settings import DispatchSettings, ReapSettings
from tests.support.fakes import NOW, Board, Clock, Reply, row
from tests.support.scene import Queue

ROOM = {"busy": False, "active": 0, "queued": 0, "capacity": 9}
SIGNED = {"notes": "claimed by agent j-1"}
OWN = {"bdauto.job": "j-1", "bdauto.attempt": "a", "bdauto.claimed_at": "2026-04-18T22:30:00Z"}


class View:
    """A tracker with its services, and what the commands say of it."""

    def __init__(self, *rows: dict[str, Any], agent: bool = True, **jobs: str | Reply) -> None:
        self.tracker = Queue(Clock(), *rows)
        self.board = Board(health=[ROOM], jobs={name.replace("_", "-"): state for name, state in jobs.items()})
        self.runner = self.board.services(agent=agent)()

    def explain(self, bead_id: str) -> str:
        return explanation(self.tracker, self.runner, bead_id, DispatchSettings(), ReapSettings(), NOW).headline

    def alerts(self) -> list[str]:
        return active_alerts(gather(self.tracker, self.runner, DispatchSettings(), ReapSettings(), NOW))


def test_a_bead_whose_job_nobody_tells_of_is_not_next() -> None:
    here = View(row("x-1", updated_at=NOW, **SIGNED), j_1=httpx.Response(500))
    assert here.explain("x-1").startswith("waiting: nobody can be asked about its job j-1, which may run: ")
    [alert] = here.alerts()
    assert alert.startswith("not posted: x-1 (title of x-1): nobody can be asked about its job j-1")


def test_a_bead_whose_claim_was_gone_is_not_next() -> None:
    """`run` or a one-shot dispatch started its job, and noted that on the bead."""
    bead = row("x-1", updated_at=NOW, metadata={"bdauto.unclaimed": "j-1"})
    here = View(bead, agent=False)
    assert here.explain("x-1") == "waiting: its job j-1 is not known, and may run"
    assert here.alerts() == ["not posted: x-1 (title of x-1): its job j-1 is not known, and may run"]


def test_failures_about_some_jobs_say_nothing_of_the_next() -> None:
    """As in a dispatch, which asks about each and posts the last."""
    beads = [row(f"x-{n}", priority=1, updated_at=NOW, notes=f"claimed by agent j-{n}") for n in range(4)]
    here = View(*beads, row("y-1", updated_at=NOW, notes="claimed by agent j-9"))
    here.board.jobs = {f"j-{n}": httpx.Response(500) for n in range(4)}
    assert [alert.split()[2] for alert in here.alerts() if alert.startswith("not posted")] == [b["id"] for b in beads]


def test_a_claim_that_a_person_opened_is_not_next_while_it_may_be_posted() -> None:
    own = {"bdauto.attempt": "a-1", "bdauto.attempts": 1, "bdauto.claimed_at": "2026-04-18T22:33:46Z"}
    here = View(row("x-1", updated_at=NOW, metadata=own))
    words = "it was claimed 2m ago and may have been posted: nobody knows of its job"
    assert (here.explain("x-1"), here.alerts()) == (f"waiting: {words}", [f"not posted: x-1 (title of x-1): {words}"])


def test_a_bead_whose_job_runs_is_not_next_and_needs_nobody() -> None:
    here = View(row("x-1", updated_at=NOW, **SIGNED), j_1="running")
    assert here.explain("x-1") == "waiting: its job j-1 is running"
    assert here.alerts() == []


@pytest.mark.parametrize("state", ["failed", None])
def test_a_job_that_is_over_changes_nothing(state: str | None) -> None:
    here = View(row("x-1", updated_at=NOW, **SIGNED))
    here.board.jobs = {"j-1": state} if state else {}
    assert (here.explain("x-1"), here.alerts()) == ("next", [])


def test_a_job_of_two_beads_is_a_finding() -> None:
    beads = [row(f"x-{n}", status="in_progress", updated_at=NOW, metadata=OWN) for n in (1, 2)]
    here = View(*beads, row("x-3", updated_at=NOW), j_1="running")
    assert here.alerts() == ["one job of several beads: j-1 is recorded on x-1, x-2"]
    [found] = shared_job_checks(here.tracker, NOW)
    assert "job j-1 is recorded on x-1, x-2" in found.detail
    here.tracker.rows["x-2"]["metadata"] = OWN | {"bdauto.job": "j-2"}
    assert ([*shared_job_checks(here.tracker, NOW)], here.alerts()) == ([], [])


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_cost_is_counted_once(seconds: int) -> None:
    """A service that does not tell when a job ended leaves the time of the sweep: another one for each bead."""

    def runs(ended: int) -> str:
        end = f'"ended": "2026-04-18T22:34:0{ended}Z", "result": "failed", "cost": 2.5'
        return f'[{{"attempt": "a", "job": "j-1", {end}}}]'

    metadata = [{"bdauto.runs": runs(ended)} for ended in (0, seconds)]
    beads = [row(f"x-{n}", updated_at=NOW - timedelta(hours=1), metadata=own) for n, own in enumerate(metadata)]
    here = View(*beads)
    changed = here.tracker.changed_since(NOW - timedelta(days=1)).result().beads
    assert len(changed) == 2
    assert reached(changed, DispatchSettings(max_cost_per_day=2.6), "agent", NOW) is None
    assert reached(changed, DispatchSettings(max_cost_per_day=2.5), "agent", NOW) is not None
