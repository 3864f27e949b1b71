"""The lanes that a command serves, each with its settings. Without lanes in the configuration file there is one."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from bdauto import __version__
from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.tracker import tracker_of
from bdauto.cli import config_lanes
from bdauto.cli.context import LazyRunner, opened, start_log
from bdauto.cli.fields import Field
from bdauto.cli.options import DISPATCHING, LOOKING, Group, Offer, Part, value_of
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.validation import CHECKS, check_dispatch
from bdauto.common import log
from bdauto.common.errors import BdautoError, BdError, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.defaults import DEFAULT_LANE
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings, describe

if TYPE_CHECKING:
    from bdauto.bd.client import Bd
    from bdauto.cli.config_keys import Config, Section
    from bdauto.domain.bead import Bead
    from bdauto.domain.lanes import Lanes


class LaneSettings(NamedTuple):
    """The settings of one lane. `fallback` is the lane that takes its beads while it cannot, or ""."""

    name: str
    agent: AgentSettings
    bd: BdSettings
    dispatch: DispatchSettings
    reap: ReapSettings
    fallback: str = ""
    part: "Section | None" = None
    """What the file says, if it has lanes."""


class PerLane(NamedTuple):
    """The lanes that a command `serves`, and all lanes of the file, in its order. Without lanes `known` is empty."""

    serves: tuple[LaneSettings, ...]
    known: tuple[LaneSettings, ...] = ()

    @classmethod
    def only(cls, structs: Mapping[type, Any]) -> "PerLane":
        """Return the one lane of a command without lanes in its file."""
        return cls((_lane(DEFAULT_LANE, structs),))

    @classmethod
    def of_file(
        cls,
        config: "Config",
        groups: Mapping[type, Group],
        values: Mapping[str, Any],
        given: Mapping[str, str],
        chosen: Sequence[str],
    ) -> "PerLane":
        """Return the lanes of a file.

        `values` are those of all parameters, and `given` says of those that a flag or a variable sets which of both.
        They go before the file, for each lane. Raises UsageError.
        """
        if unknown := [name for name in chosen if name not in config.lanes]:
            names = ", ".join(config.lanes)
            raise UsageError(f"there is no lane {clean(unknown[0], 40)!r}", hint=f"the lanes of the file are {names}")
        served = [name for name in config.lanes if not chosen or name in chosen]
        fields = {field.name: field for group in groups.values() for field in group.fields}
        if len(served) > 1:
            for name in served:
                _refuse(config.lanes[name], name, {fields[one]: how for one, how in given.items() if one in fields})
        known = tuple(
            _resolved(config, name, groups, values, given if name in served else _besides(part, fields, given))
            for name, part in config.lanes.items()
        )
        found = cls(known, known)
        return cls(tuple(found.checked(lane, groups) for lane in known if lane.name in served), known)

    def checked(self, lane: LaneSettings, groups: Mapping[type, Group]) -> LaneSettings:
        """Return a lane whose settings were checked, as far as the command does so. Raises UsageError."""
        with self.naming(lane):
            parts = {kind: _checked(part, groups.get(kind)) for kind, part in zip(KINDS, lane[1:], strict=False)}
        return _lane(lane.name, parts, lane.part)

    @property
    def several(self) -> bool:
        """Whether what is shown names the lane."""
        return len(self.known) > 1

    def required(self, lane: LaneSettings) -> kinds.Kind:
        """Return the kind of agent of a lane. Raises UsageError, also for a limit that cannot be held."""
        with self.naming(lane):
            kind = kinds.required(lane.agent)
            check_dispatch(lane.dispatch, lane.agent)
            return kind

    def name(self, lane: LaneSettings) -> str:
        """Return what the log calls a lane: "" where there is no other."""
        return lane.name if self.several else ""

    def trackers(self) -> list[list[LaneSettings]]:
        """Return the lanes that are served, those of each tracker together."""
        found: dict[str, list[LaneSettings]] = {}
        for lane in self.serves:
            found.setdefault(tracker_of(lane.bd), []).append(lane)
        return [*found.values()]

    def view(self, lane: LaneSettings) -> "Lanes":
        """Return the lanes of its tracker, as this lane sees them."""
        from bdauto.domain.lanes import LaneRule, Lanes

        tracker = tracker_of(lane.bd)
        rules = tuple(
            LaneRule(one.name, one.bd.assignee, one.dispatch, kinds.chosen(one.agent) is kinds.LOCAL, one.fallback)
            for one in self.known
            if tracker_of(one.bd) == tracker
        )
        return Lanes(lane.name, rules)

    @contextlib.contextmanager
    def opened(self, lane: LaneSettings, *, readonly: bool = True) -> "Iterator[Bd]":
        """Yield bd for a lane."""
        with opened(lane.bd, self.view(lane), readonly=readonly) as bd:
            yield bd

    def of_bead(self, bead_id: str) -> LaneSettings:
        """Return the lane of a bead, in whichever tracker that is. Raises BdError.

        It is the first one for a bead that no tracker has. One that is deleted belongs to a lane that has a job of it.
        """
        if len(self.serves) == 1:
            return self.serves[0]
        failed: BdError | None = None
        for lanes in self.trackers():
            try:
                with self.opened(lanes[0]) as bd:
                    found = bd.read([bead_id]).result()
            except BdError as error:  # another tracker may have it
                failed = failed or error
                continue
            if found.beads or found.malformed:
                return self._choose(lanes, found.beads[0]) if found.beads else lanes[0]
        if failed:
            raise failed
        return next(filter(lambda lane: self._has_job(lane, bead_id), self.serves), self.serves[0])

    def _choose(self, lanes: Sequence[LaneSettings], bead: "Bead") -> LaneSettings:
        """Return the lane of a bead, among those of its tracker."""
        views = [(lane, self.view(lane)) for lane in lanes]
        if bead.record.attempt:
            mine = [lane for lane, view in views if view.claimed(bead)]
        else:
            mine = [lane for lane, view in views if (rule := view.of(bead)) and rule.name == lane.name]
        return next(iter(mine or [lane for lane in lanes if lane.bd.assignee == bead.assignee]), lanes[0])

    def _has_job(self, lane: LaneSettings, bead_id: str) -> bool:
        with contextlib.suppress(BdautoError):
            return bool(LazyRunner(kinds.LOCAL, lane.agent, lane.bd, self.view(lane))().jobs_here(bead_id))
        return False

    @contextlib.contextmanager
    def naming(self, lane: LaneSettings) -> Iterator[None]:
        """Name the lane in a UsageError of the block."""
        try:
            yield
        except UsageError as error:
            if lane.part is None:
                raise
            from bdauto.cli.config_keys import keys, located

            error = located(error, lane.part, keys().values())
            raise UsageError(f"lane {lane.name}: {error.message}", hint=error.hint) from None


JudgedLanes = Annotated[
    PerLane,
    Part(AgentSettings, LOOKING),
    Part(ReapSettings, Offer(only=("threshold", "grace"))),
    Part(DispatchSettings, DISPATCHING),
    Part(BdSettings),
]
"""The lanes of a command that shows what a dispatcher and a reaper would do with beads."""


def begin(
    command: str,
    output: OutputSettings,
    lanes: PerLane,
    parts: Sequence[Sequence[msgspec.Struct]],
    *settings: msgspec.Struct,
    screen: logging.Handler | None = None,
) -> float:
    """Start the log with the version and the settings, for each lane. Return the monotonic clock's reading in seconds.

    `parts` are the settings of each lane that the command uses, `settings` those of the process. A `screen` shows the
    log in place of what the settings of the output say.
    """
    if screen:
        log.send_to(screen, logging.DEBUG if output.verbose else logging.INFO)
    else:
        start_log(output, brief=command != "run")
    for lane, own in zip(lanes.serves, parts, strict=True):
        shown = describe(output, *own, *settings)
        log.event("start", command=command, version=__version__, lane=lanes.name(lane), **shown)
    return time.monotonic()


KINDS: tuple[type[msgspec.Struct], ...] = (AgentSettings, BdSettings, DispatchSettings, ReapSettings)
"""The settings of a lane, as in `LaneSettings`."""


def _lane(name: str, structs: Mapping[type, Any], part: "Section | None" = None) -> LaneSettings:
    agent, bd, dispatch, reap = (structs.get(kind) or kind() for kind in KINDS)
    return LaneSettings(name, agent, bd, dispatch, reap, part.fallback if part else "", part)  # type: ignore[arg-type]


def _checked(part: Any, group: Group | None) -> Any:
    check = CHECKS.get(type(part)) if group and group.check else None
    return check(part) if check else part


def _refuse(part: "Section", name: str, given: Mapping[Field, str]) -> None:
    """Raise UsageError where a flag or a variable would silently replace what makes a lane different."""
    for field, how in given.items():
        if own := _own_key(part, field):
            what = field.flag if how == "flag" else field.variable
            words = f"{what} is given for all lanes, and lane {name} has its own ({own} at {part.place(own)})"
            raise UsageError(words, hint=f"leave it out, or name one lane with --lane {name}")


def _own_key(part: "Section", field: Field) -> str:
    """Return the key by which a lane itself says what an option says of beads, tracker or agent, "" for none."""
    if field.key not in config_lanes.OWN_KEYS:
        return ""
    alike = next((keys for keys, _ in config_lanes.REPLACED if field.key in keys), frozenset({field.key}))
    return next((key for key in sorted(alike) if part.own(key)), "")


def _besides(part: "Section", fields: Mapping[str, Field], given: Mapping[str, str]) -> dict[str, str]:
    """Return what is given, but for what would change which beads a lane has that is not served."""
    return {name: how for name, how in given.items() if name not in fields or not _own_key(part, fields[name])}


def _resolved(
    config: "Config", name: str, groups: Mapping[type, Group], values: Mapping[str, Any], given: Mapping[str, str]
) -> LaneSettings:
    """Return what holds for a lane: what is given, over its table, over what stands at the top."""
    from bdauto.cli.config_keys import settings_of

    part, parts = config.lanes[name], {}
    for kind in KINDS:
        group = groups.get(kind) or Group(kind(), [], False)
        found = settings_of(kind, part, group.default)
        offered = {field.name: field for field in group.fields}
        urls = {
            one: field.parse(config.given(field, part))
            for one, field in offered.items()
            if field.metavar == "URL" and field.key in part.values
        }
        flags = {one: value_of(field, values[one]) for one, field in offered.items() if one in given}
        own = {one: value for one, value in flags.items() if offered[one].key not in config_lanes.LIMITS}
        of_all = {one: flags[like] for one, like in config_lanes.OF_ALL.items() if like in flags}
        parts[kind] = msgspec.structs.replace(found, **urls, **own, **of_all)
    return _lane(name, parts, part)
