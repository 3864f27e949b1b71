"""Where bd's records of who changed a bead are read, and what is done where they cannot be."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bdauto.bd.client import Bd
from bdauto.bd.edit_log import LOG, recorded_edits
from bdauto.common.errors import BdError, BdFailed, BdTimeout
from bdauto.domain.edits import Edit, author, read_events

LINE = (
    '{"kind":"field_change","created_at":"2026-04-18T22:33:00Z","actor":"ada","issue_id":"x-1",'
    '"extra":{"field":"status","new_value":"closed"}}\n'
)
EDIT = Edit("x-1", "ada", "status", "closed", "2026-04-18T22:33:00Z")


class Embedded:
    """bd on an embedded database. `answer` is what `bd history --events` gives: None if it does not know the flag."""

    def __init__(self, folder: Path, answer: list[Mapping[str, Any]] | BdError | None) -> None:
        (folder / LOG).write_text(LINE)
        self.folder, self.answer = folder, answer

    def events(self, ids: Sequence[str]) -> None:
        return None

    def history_events(self, bead_id: str) -> list[Mapping[str, Any]] | None:
        if isinstance(self.answer, BdError):
            raise self.answer
        return self.answer

    def tracker(self) -> SimpleNamespace:
        return SimpleNamespace(folder=self.folder)


def test_the_log_is_read_only_where_bd_lists_no_events(tmp_path: Path) -> None:
    assert recorded_edits(cast(Bd, Embedded(tmp_path, None)), ["x-1"]) == [EDIT]
    assert recorded_edits(cast(Bd, Embedded(tmp_path, [])), ["x-1"]) == []


@pytest.mark.parametrize("error", [BdTimeout("bd history: no answer"), BdFailed("database is locked")])
def test_a_bd_that_fails_is_not_taken_for_an_old_one(tmp_path: Path, error: BdError) -> None:
    with pytest.raises(type(error)):
        recorded_edits(cast(Bd, Embedded(tmp_path, error)), ["x-1"])


def test_who_notes_something_on_a_closed_bead_has_not_closed_it() -> None:
    """A sweep that records a result leaves an event with the status of that moment."""
    row = {"issue_id": "x-1", "created_at": "2026-04-18T22:33:00Z"}
    closing = row | {"actor": "agent", "event_type": "closed", "new_value": "done"}
    recording = row | {"actor": "beads-reaper", "event_type": "updated", "new_value": '{"status": "closed"}'}
    for at in ("2026-04-18T22:33:00Z", "2026-04-18T22:35:00Z"):
        found = read_events([closing, recording | {"created_at": at}])
        assert author(found, "x-1", "status", "closed") == "agent"
