"""The made-up history that reports are looked at with: nothing in it happens before its cause."""

from datetime import datetime

import msgspec
import pytest

from bdauto.domain.bead import Bead
from bdauto.domain.history import history_of
from scripts.history import weeks_until
from tests.support.fakes import NOW


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_every_run_waits_ends_and_is_counted(slots: int) -> None:
    issues = [*weeks_until(NOW, beads=2000, slots=slots).issues()]
    claimed = [issue["metadata"] for issue in issues if "bdauto.waited" in issue["metadata"]]
    assert len(claimed) > 1000
    assert all(metadata["bdauto.waited"] >= 0 for metadata in claimed)
    for issue in issues:
        arrived = datetime.fromisoformat(issue["created_at"])
        for run in history_of(msgspec.convert(issue, Bead)).runs:
            assert run.claimed_at
            assert arrived < run.claimed_at < (run.ended_at or NOW)
            arrived = run.claimed_at
