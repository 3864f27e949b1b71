"""Jobs of this machine are asked to end when somebody else changed their beads, and unclear cases are named once."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from bdauto.controllers import reconciler
from bdauto.controllers.reconciler import Reconciler
from bdauto.domain.edits import Edit
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.settings import DispatchSettings
from tests.support.fakes import NOW, Board, Clock, Tracker, row

OWN = {"bdauto.attempt": "a1", "bdauto.job": "a1", "bdauto.claimed_at": "2026-04-18T22:30:40Z"}


class Ward:
    """A tracker with one bead, whose job a1 runs here, and what bd has recorded of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *edits: Edit, **fields: Any) -> None:
        self.clock = Clock()
        self.tracker = Tracker(self.clock, row("x-1", **({"status": "in_progress", "metadata": OWN} | fields)))
        self.asked: list[list[str]] = []
        self.stopped: list[tuple[str, str]] = []
        self.runner = Board().services(agent=True)()
        started = NOW - timedelta(minutes=5)
        monkeypatch.setattr(self.runner, "running_jobs", lambda: [RunningJob("x-1", "a1", started)])
        monkeypatch.setattr(self.runner, "stop", self._stop)

        def recorded(_bd: object, beads: Sequence[str]) -> list[Edit]:
            self.asked.append(list(beads))
            return list(edits)

        monkeypatch.setattr(reconciler, "recorded_edits", recorded)

    def _stop(self, job: str, why: str) -> bool:
        self.stopped.append((job, why))
        return True

    def reconciler(self, *, dry_run: bool = False) -> Reconciler:
        return Reconciler(self.tracker, None, timedelta(minutes=2), self.clock.runtime(), dry_run=dry_run)


def test_nobody_asks_who_changed_a_bead_that_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(monkeypatch)
    ward.reconciler().look(ward.runner)
    assert (ward.asked, ward.stopped) == ([], [])


def test_a_job_is_asked_to_end_and_a_dry_run_only_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(monkeypatch, Edit("x-1", "ada", "status", "closed", "t"), status="closed", closed_at=NOW)
    [told] = ward.reconciler(dry_run=True).look(ward.runner)
    assert (told.outcome, ward.stopped) == ("stopping", [])
    ward.reconciler().look(ward.runner)
    assert ward.stopped == [("a1", "ada closed the bead")]


def test_what_is_unclear_goes_on_and_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(monkeypatch, status="deferred")
    looks = ward.reconciler()
    [told] = looks.look(ward.runner)
    why = "somebody set the bead to deferred, and bd does not tell who: its job goes on"
    assert (told.id, told.outcome, told.job, told.detail) == ("x-1", "unclear", "a1", why)
    assert looks.look(ward.runner) == []
    assert ward.stopped == []


def test_every_job_can_be_stopped_without_asking_bd(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(monkeypatch)
    ward.reconciler().look(ward.runner, stop_all="paused by ada")
    assert ward.stopped == [("a1", "paused by ada")]
    assert ward.tracker.reads == []


@pytest.mark.parametrize(
    ("lane", "fields", "stopped"),
    [
        ("docs", {"labels": ["docs"]}, False),
        ("docs", {"labels": []}, True),
        ("docs", {"labels": [], "issue_type": "bug"}, False),
        ("bugs", {"labels": []}, False),
    ],
    ids=["as it was", "lost its label", "taken for a lane that falls back", "of another lane"],
)
def test_a_job_ends_for_what_its_own_lane_wants(
    lane: str, fields: dict[str, Any], stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, bugs = DispatchSettings(labels=("docs",)), DispatchSettings(types=("bug",))
    metadata = OWN | {"bdauto.lane": lane}
    ward = Ward(monkeypatch, Edit("x-1", "ada", "label", "-docs", "t"), metadata=metadata, **fields)
    rules = (LaneRule("docs", "agent", docs), LaneRule("bugs", "agent", bugs, fallback="docs"))
    ward.tracker.lane, ward.tracker.lanes = "docs", Lanes("docs", rules)
    Reconciler(ward.tracker, docs, timedelta(minutes=2), ward.clock.runtime()).look(ward.runner)
    assert bool(ward.stopped) is stopped
