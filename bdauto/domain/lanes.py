"""Lanes: which beads belong to which, when several share a tracker.

An open bead belongs to the first lane, in the order of the file, whose conditions it meets. A claimed one belongs to
the lane that claimed it, or, if there is no such lane any more, to the first of its assignee.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from bdauto.domain.bead import Bead
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.record import Run
from bdauto.domain.selection import Condition, selecting
from bdauto.domain.settings import DispatchSettings


class LaneRule(msgspec.Struct, frozen=True):
    """What the other lanes of a tracker need to know of one.

    `wants` says which beads it takes, and its limits. `local`: its agent runs on this machine, not in a service.
    `fallback` is the lane that takes its beads while it cannot, or "".
    """

    name: str
    assignee: str
    wants: DispatchSettings
    local: bool = False
    fallback: str = ""

    def lacks(self, bead: Bead) -> str:
        """Return why a bead does not belong to this lane, "" if it meets the conditions."""
        if bead.assignee != self.assignee:
            return f"assigned to {bead.assignee or 'nobody'}, not to {self.assignee}"
        return next((found.detail for found in selecting(bead, self.wants) if not found.passed), "")


class Lanes(msgspec.Struct, frozen=True):
    """The lanes of one tracker, in the order of the file, as the lane `own` sees them. No `rules`: it is the only one.

    `taking` has the lanes whose beads `own` takes now, because they cannot, and why.
    """

    own: str = DEFAULT_LANE
    rules: tuple[LaneRule, ...] = ()
    taking: Mapping[str, str] = {}

    def of(self, bead: Bead) -> LaneRule | None:
        """Return the lane of a bead that is not claimed, None if it meets the conditions of none."""
        return next((rule for rule in self.rules if not rule.lacks(bead)), None)

    def wanted(self, bead: Bead, settings: DispatchSettings) -> DispatchSettings:
        """Return the settings by which `own`, which has these, chooses this bead: of a lane whose beads it takes."""
        found = self.of(bead) if self.taking else None
        return found.wants if found and found.name in self.taking else settings

    def has(self, bead: Bead) -> bool:
        """Whether a bead that is not claimed belongs to `own`, or is taken for another lane."""
        found = self.of(bead)
        return not self.rules or (found is not None and found.name in (self.own, *self.taking))

    def condition(self, bead: Bead) -> Condition | None:
        """Judge whether the bead is for `own`. None if there is no other lane."""
        if not self.rules:
            return None
        found = self.of(bead)
        if found is None:
            return Condition("lane", False, f"no lane takes it: {self.why_not(bead, self.rules)}")
        if why := self.taking.get(found.name):
            return Condition("lane", True, f"lane {self.own} takes it for lane {found.name}, which is {why}")
        earlier = self.why_not(bead, self.rules[: self.rules.index(found)])
        words = f"lane {found.name}" + (f"; {earlier}" if earlier else "")
        return Condition("lane", found.name == self.own, words)

    def why_not(self, bead: Bead, rules: Iterable[LaneRule]) -> str:
        """Say why a bead does not belong to these lanes."""
        return ", ".join(f"not {rule.name}: {rule.lacks(bead)}" for rule in rules)

    def fallen_back(self) -> Iterator[tuple[LaneRule, ...]]:
        """Yield, for each lane that falls back on `own`, the lanes that must be unable to work: it, and any between."""
        by_name = {rule.name: rule for rule in self.rules}
        for rule in self.rules:
            path = [rule]
            while (
                (following := by_name.get(path[-1].fallback)) and following not in path and following.name != self.own
            ):
                path.append(following)
            if path[-1].fallback == self.own and rule.name != self.own:
                yield tuple(path)

    def claimed(self, bead: Bead) -> bool:
        """Whether a bead that was claimed belongs to `own`."""
        return self.took(bead.record.lane, bead.assignee, local=bead.local)

    def ran(self, run: Run, assignee: str) -> bool:
        """Whether a run of this assignee's queue belongs to `own`."""
        lane = run.lane or DEFAULT_LANE
        if any(rule.name == lane for rule in self.rules):  # what a machine knows itself is of all assignees
            return lane == self.own
        return self.took(lane, assignee, local=run.local)

    def had(self, bead: Bead, assignee: str) -> bool:
        """Whether `own` ran a bead of this assignee last. One without a run belongs to the lane of its claim."""
        runs = bead.record.all_runs
        return self.ran(runs[-1], assignee) if runs else self.claimed(bead)

    def took(self, lane: str, assignee: str, *, local: bool) -> bool:
        """Whether a claim for this assignee that names this lane belongs to `own`. `local`: its job is on a machine."""
        return self._owner(lane, assignee, local=local) == self.own

    def _owner(self, lane: str, assignee: str, *, local: bool) -> str:
        """Return the lane of a claim that names this lane."""
        if not self.rules:
            return self.own
        mine = [rule for rule in self.rules if rule.assignee == assignee]
        named = [rule for rule in mine if rule.name == (lane or DEFAULT_LANE)]
        alike = [rule for rule in mine if rule.local == local]
        return next((rule.name for rule in (*named, *alike, *mine)), "")


def written_name(lane: str) -> str:
    """Return how a record names a lane: the default one is not named."""
    return "" if lane == DEFAULT_LANE else lane
