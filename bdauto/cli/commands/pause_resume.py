"""`bdauto pause` and `bdauto resume`."""

import os
import sys
from datetime import timedelta
from typing import Annotated

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.change import swap_and_look
from bdauto.bd.client import Bd
from bdauto.bd.writer import BdWriter
from bdauto.cli.context import LazyRunner, opened, start_log
from bdauto.cli.lane_settings import LaneSettings, PerLane
from bdauto.cli.options import Offer, Part, argument, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import SCHEMA_VERSION
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdFailed, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain import breaker
from bdauto.domain.constants import SWAP_TRIES
from bdauto.domain.pause import KEY, Pause, read
from bdauto.domain.settings import BdSettings, PauseSettings
from bdauto.domain.times import format_time
from bdauto.domain.values import parse_actor

REASON_LIMIT = 300
BY_LOGIN = BdSettings(actor="")
"""An empty author stands for the login of the person who pauses."""


@with_options
def pause(
    *,
    reason: Annotated[str, argument("[REASON]", "Why, for whoever asks.", show_default=False)] = "",
    when: PauseSettings,
    lanes: Annotated[PerLane, Part(AgentSettings, Offer(only=kinds.JOBS_HERE)), Part(BdSettings, default=BY_LOGIN)],
    output: OutputSettings,
) -> None:
    """Pause every dispatcher and reaper of this tracker. BeadBoard's own Dispatch button still works."""
    start_log(output)
    runtime = Runtime()
    now = runtime.now().replace(microsecond=0)
    until = now + max(when.lasting, timedelta(seconds=1)) if when.lasting else None
    who = by_login(lanes.serves[0].bd).actor
    switch = Pause(clean(reason, REASON_LIMIT), who, now, until and until.replace(microsecond=0), when.stop)
    for first, *_ in lanes.trackers():
        with opened(by_login(first.bd)) as tracker:
            _set(tracker, runtime, KEY, switch.encode())
            if read(tracker.kv_list().result(), now) != switch:
                raise BdFailed(
                    "bd kv set: the pause switch reads back as something else",
                    hint="see `bdauto status`, and try again",
                )
    stopped = sum(_stop_jobs(switch.stops, lanes, lane) for lane in lanes.serves) if when.stop else None
    told = "" if stopped is None else f"; jobs asked to end on this machine: {stopped}"
    _show("pause", "paused", switch, switch.describe() + told, output.json, stopped)


@with_options
def resume(
    *, lanes: Annotated[PerLane, Part(BdSettings, Offer(without=("assignee",)), BY_LOGIN)], output: OutputSettings
) -> None:
    """End a pause, and close the circuit breaker."""
    start_log(output)
    runtime = Runtime()
    before: Pause | None = None
    suspended: list[str] = []
    for own in lanes.trackers():
        with opened(by_login(own[0].bd)) as tracker:
            store = tracker.kv_list().result()
            found = read(store, runtime.now())
            closed = [lane.name for lane in own if breaker.read(store, lane.name).until is not None]
            for key in (*([KEY] if found else []), *map(breaker.key_of, closed)):
                _set(tracker, runtime, key, None)
            if found and _now(tracker, runtime) is not None:
                words = "bd kv clear: the pause switch is still there"
                raise BdFailed(words, hint="see `bdauto status`, and try again")
            before, suspended = before or found, suspended + closed
    if before is None and not suspended:
        _show("resume", "not_paused", None, "not paused", output.json)
        return
    of = f" of {', '.join(suspended)}" if lanes.several else ""
    said = [f"it was {before.describe()}" if before else "", f"the circuit breaker{of} is closed" if suspended else ""]
    _show("resume", "resumed", before, f"resumed; {' and '.join(filter(None, said))}", output.json)


def _stop_jobs(why: str, lanes: PerLane, lane: LaneSettings) -> int:
    """Ask for the end of the jobs that run here, and return how many. Elsewhere, the next look there does so."""
    runner = LazyRunner(kinds.LOCAL, lane.agent, lane.bd, lanes.view(lane))()
    return sum(runner.stop(running.job, why) for running in runner.running_jobs())


def _set(tracker: Bd, runtime: Runtime, key: str, value: str | None) -> None:
    """Set or clear a key of the tracker, whatever it was. Raises BdError."""
    writer = BdWriter(tracker, runtime)
    for _ in range(SWAP_TRIES):
        if swap_and_look(writer, tracker.kv_list, key, tracker.kv_list().result().get(key) or None, value):
            return
    raise BdFailed(f"{key} is changed by others all the time", hint="see `bdauto status`, and try again")


def by_login(bd: BdSettings) -> BdSettings:
    """Use the login as the author if neither --actor nor BEADS_ACTOR names one."""
    return msgspec.structs.replace(bd, actor=bd.actor or _login())


def _login() -> str:
    import getpass

    try:
        return parse_actor(getpass.getuser())
    except (KeyError, OSError, UsageError):  # a container's user need not have a name
        return f"uid-{os.getuid()}"


def _now(tracker: Bd, runtime: Runtime) -> Pause | None:
    return read(tracker.kv_list().result(), runtime.now())


def _show(
    command: str, outcome: str, switch: Pause | None, words: str, as_json: bool, stopped: int | None = None
) -> None:
    if not as_json:
        sys.stdout.write(words + "\n")
        return
    import json

    fields: dict[str, str | int | None] = {"schema_version": SCHEMA_VERSION, "command": command, "outcome": outcome}
    if stopped is not None:
        fields["stopped"] = stopped
    if switch:
        fields |= {"reason": switch.reason, "by": switch.by}
        fields |= {"since": format_time(switch.since) if switch.since else None}
        fields |= {"until": format_time(switch.until) if switch.until else None}
    sys.stdout.write(json.dumps(fields) + "\n")
