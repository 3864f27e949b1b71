"""The verbs of `bd` that list beads."""

import re
from collections.abc import Sequence
from datetime import datetime

from bdauto.bd import command
from bdauto.bd.program import BdProgram
from bdauto.bd.running import RunningCommand
from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.bead import ID_PATTERN, BeadList
from bdauto.domain.record import PLACE, PREFIX
from bdauto.domain.record_values import guarded
from bdauto.domain.times import format_time


class BeadLists(BdProgram):
    """Lists beads, each list by a `bd` that runs from the moment its method is called."""

    @property
    def assignee(self) -> str:
        """Whose beads it lists."""
        return self.settings.assignee

    def ready(
        self, *, limit: int, priority: int | None = None, oldest: bool = False, place: str = "", parent: str = ""
    ) -> RunningCommand[BeadList]:
        """List the assignee's open beads that bd calls ready. `limit` 0 lists all of them.

        One `priority` is asked for only after the first page was read: beads of it that cannot be read are no drift.
        With `place` only beads whose PLACE is that, and with `parent` only the descendants of that bead.
        """
        words = command.ready(self.assignee, limit, priority, oldest=oldest)
        words += [f"--metadata-field={PLACE}={place}"] if place else []
        words += ["--parent", checked_id(parent)] if parent else []
        return self._beads(words, understood=priority is not None)

    def in_progress(self) -> RunningCommand[BeadList]:
        """List the assignee's beads in progress, all of them."""
        return self._beads(command.in_progress(self.assignee))

    def assigned(self, statuses: Sequence[str]) -> RunningCommand[BeadList]:
        """List all the assignee's beads of these statuses."""
        return self._beads(["list", "--assignee", self.assignee, "--status", ",".join(statuses), "--limit", "0"])

    def with_metadata(self, **values: str) -> RunningCommand[BeadList]:
        """List all beads whose metadata has these texts under these keys of bdauto, whatever their status.

        `with_metadata(result="running")` asks for `bdauto.result`.
        """
        fields = [f"--metadata-field={PREFIX}{key}={value}" for key, value in values.items()]
        return self._beads(["list", "--all", *fields, "--limit", "0"])

    def recorder_of(self, job: str, besides: str) -> str:
        """Return the id of another bead than `besides` that records this job, or "". Raises BdError."""
        for text in dict.fromkeys((job, guarded(job))):
            others = [bead.id for bead in self.with_metadata(job=text).result().beads if bead.id != besides]
            if others:
                return others[0]
        return ""

    def changed_since(self, moment: datetime) -> RunningCommand[BeadList]:
        """List all beads that were updated after a moment, whoever has them and whatever their status."""
        return self._beads(["list", "--all", "--updated-after", format_time(moment), "--limit", "0"])

    def labelled(self, label: str) -> RunningCommand[BeadList]:
        """List all beads with a label that are not closed, whoever has them."""
        return self._beads(["list", "--label", label, "--limit", "0"])

    def newest(self) -> RunningCommand[BeadList]:
        """List the one bead that was updated last, whatever its status."""
        return self._beads(["list", "--all", "--sort", "updated", "--limit", "1"])

    def recent(self, limit: int) -> RunningCommand[BeadList]:
        """List the assignee's beads that were updated last, whatever their status."""
        return self._beads(["list", "--assignee", self.assignee, "--all", "--sort", "updated", "--limit", str(limit)])

    def query(self, expression: str, *, limit: int) -> RunningCommand[BeadList]:
        """List beads that match an expression of bd's query language. `limit` 0 is all of them."""
        return self._beads(["query", expression, "--limit", str(limit)])

    def read(self, ids: Sequence[str]) -> RunningCommand[BeadList]:
        """Read those of these beads that exist, of any kind and status.

        By `bd list`: `bd show` would make the first of them the one that a person's next bare `bd close` closes.
        """
        everything = ["--all", "--include-gates", "--include-infra", "--include-templates", "--limit", "0"]
        return self._beads(["list", "--id", ",".join(map(checked_id, ids)), *everything])


def checked_id(bead_id: str) -> str:
    """Return the id if it is one. Raises UsageError for what could be misread as an option or as SQL."""
    if not re.match(ID_PATTERN, bead_id):
        raise UsageError(f"{clean(bead_id, 60)!r} is not a bead id")
    return bead_id
