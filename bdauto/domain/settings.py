"""The settings of a command. A field with an `Option` is an option. The options of an agent's kind are in `agents/`.

A command names the structs that it takes (`bdauto.cli.options`). A default stands in its struct and nowhere else.
"""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bdauto.domain.active_hours import ActiveHours, parse_active_hours
from bdauto.domain.defaults import ASSIGNEE, BD, DISPATCHER
from bdauto.domain.messages import DigestTime, parse_digest_time, parse_topics
from bdauto.domain.since import Since
from bdauto.domain.values import (
    format_duration,
    parse_actor,
    parse_address,
    parse_limit,
    parse_name,
    parse_priorities,
    redact,
)


class Option(msgspec.Struct, frozen=True):
    """Makes a field of a settings struct an option: `field: Annotated[type, Option("Help.", PANEL)] = default`.

    The rest follows from the field's name and type: `max_reap: int` is `--max-reap NUMBER` and `BDAUTO_MAX_REAP`. With
    another `flag` the variable is named after that. A `bool` has no value, and a variable only if `env` names one.
    `env=None` leaves the variable out. `key` is its name in the configuration file, if that is not the flag's.
    """

    help: str
    panel: str | None = None
    flag: str = ""
    short: str = ""
    env: str | None = ""
    metavar: str = ""
    parse: Callable[[Any], Any] | None = None
    key: str = ""


TRACKER, SERVICES, QUEUE, LIMITS, REAPING = "bd", "Services", "Which beads", "Limits", "Reaping"
LOOP, TELEMETRY, OUTPUT = "The loop", "Metrics and notifications", "Output"


class OnStall(StrEnum):
    """What the reaper does with a stalled bead."""

    block = "block"
    requeue = "requeue"


class Acceptance(StrEnum):
    """Whether a bead needs acceptance criteria."""

    required = "required"
    optional = "optional"


class By(StrEnum):
    """What the figures of a report are grouped by."""

    day = "day"
    label = "label"
    type = "type"
    creator = "creator"


class Watch(StrEnum):
    """Whether `bdauto run` follows the changes of the tracker."""

    auto = "auto"
    off = "off"


class Secret(msgspec.Struct, frozen=True):
    """A value that shows as `***` wherever it is printed by accident."""

    value: str

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "***"


class BdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How bd is run, on which database, and for whom."""

    db: Annotated[Path | None, Option("The .beads folder. (default: bd finds it)", TRACKER, metavar="DIR")] = None
    metadata: Annotated[
        Path | None,
        Option(
            "Copy this metadata.json into a private folder and use that as --db. bdauto writes nothing beside it.",
            TRACKER,
        ),
    ] = None
    bd_path: Annotated[str, Option("The bd program.", TRACKER, flag="--bd", metavar="PATH")] = BD
    bd_timeout: Annotated[timedelta, Option("Time limit of each bd call.", TRACKER)] = timedelta(seconds=60)
    assignee: Annotated[str, Option("Dispatch the beads assigned to this name.", TRACKER, parse=parse_name)] = ASSIGNEE
    actor: Annotated[
        str,
        Option(
            "Author recorded in bd for changes made by bdauto. It may have spaces.",
            TRACKER,
            env="BEADS_ACTOR",
            parse=parse_actor,
        ),
    ] = DISPATCHER


class WorkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What dispatch and reap have in common.

    A dispatcher posts no claim older than half the grace period, because a reaper may release it after the whole.
    """

    grace: Annotated[
        timedelta,
        Option(
            "Release a claim without a job after this long if the agent service runs nothing, else after --threshold.",
            REAPING,
        ),
    ] = timedelta(minutes=10)
    max_attempts: Annotated[
        int, Option("Attempts before a refused bead is quarantined, or a stalled one is no longer requeued.", QUEUE)
    ] = 3
    trip_after: Annotated[
        int,
        Option(
            "Suspend dispatching after early deaths of the agents of this many different beads. 0 switches this off.",
            QUEUE,
            parse=parse_limit,
        ),
    ] = 3
    ignore_pause: Annotated[bool, Option("Work although `bdauto pause` is in force.")] = False
    dry_run: Annotated[bool, Option("Read and decide as usual, but write nothing and post nothing.", short="-n")] = (
        False
    )


class DispatchSettings(WorkSettings, frozen=True, kw_only=True):
    """Which beads may be dispatched, and how many in one cycle."""

    max_beads: Annotated[int, Option("Beads to dispatch in one cycle.", QUEUE, flag="--max")] = 1
    exclude_types: Annotated[tuple[str, ...], Option("Skip beads of this type. Repeatable.", QUEUE)] = ("epic",)
    acceptance: Annotated[
        Acceptance,
        Option(
            "Whether a bead needs acceptance criteria. Not with BeadBoard, which refuses beads without them.", QUEUE
        ),
    ] = Acceptance.required
    types: Annotated[
        tuple[str, ...], Option("Dispatch only beads of this type. Repeatable. (default: any)", QUEUE)
    ] = ()
    priorities: Annotated[
        tuple[int, ...],
        Option(
            "Dispatch only beads of this priority, from 0 to 4. Repeatable. (default: any)",
            QUEUE,
            metavar="0-4",
            parse=parse_priorities,
        ),
    ] = ()
    trusted_creators: Annotated[
        tuple[str, ...],
        Option(
            "Dispatch only beads that this person created. Repeatable. (default: anyone)",
            QUEUE,
            metavar="NAME",
            key="creators",
        ),
    ] = ()
    labels: Annotated[
        tuple[str, ...], Option("Dispatch only beads with this label. Repeatable: with all of them.", QUEUE)
    ] = ()
    exclude_labels: Annotated[tuple[str, ...], Option("Skip beads with this label. Repeatable.", QUEUE)] = ()
    max_per_day: Annotated[
        int | None, Option("Dispatch at most so many times in any 24 hours. (default: no limit)", LIMITS)
    ] = None
    max_cost_per_day: Annotated[
        float | None,
        Option("Dispatch nothing while the jobs of the last 24 hours cost this much. (default: no limit)", LIMITS),
    ] = None
    per_day_of_all: int | None = None
    cost_per_day_of_all: float | None = None
    """The limits that hold for all lanes together."""
    cost_per_run: Annotated[
        float | None,
        Option(
            "What a run counts for --max-cost-per-day if its agent does not say its cost. "
            "(default: the mean of the others)",
            LIMITS,
        ),
    ] = None
    active_hours: Annotated[
        ActiveHours | None,
        Option(
            "Dispatch only in these hours, such as '22:00-07:00 Europe/Sofia'. (default: always)",
            LIMITS,
            metavar="HOURS",
            parse=parse_active_hours,
        ),
    ] = None


class ReapSettings(WorkSettings, frozen=True, kw_only=True):
    """When a bead in progress is reaped, and how."""

    threshold: Annotated[timedelta, Option("A bead that has had no update for this long is stalled.", REAPING)] = (
        timedelta(minutes=30)
    )
    agent_linger: Annotated[
        timedelta, Option("Let an agent go on for this long after it has closed its bead, then end its job.", REAPING)
    ] = timedelta(minutes=2)
    on_stall: Annotated[OnStall, Option("What to do with a stalled bead.", REAPING)] = OnStall.block
    max_reap: Annotated[
        int,
        Option(
            "Abort the sweep if it would reap more than this many beads by age alone, as a wrong clock would. "
            "0: no limit.",
            REAPING,
            parse=parse_limit,
        ),
    ] = 10


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where metrics go (a Pushgateway) and events (the notify URLs)."""

    pushgateway: Annotated[Secret | None, Option("Push metrics to this Pushgateway.", TELEMETRY)] = None
    pushgateway_instance: Annotated[
        str | None,
        Option("Label `instance` of what is pushed. (default: the host's name)", TELEMETRY, parse=parse_name),
    ] = None
    pushgateway_namespace: Annotated[
        str | None, Option("Label `namespace` of what is pushed: it tells trackers apart.", TELEMETRY, parse=parse_name)
    ] = None
    notify_urls: Annotated[
        tuple[Secret, ...],
        Option("Send notifications to this Apprise URL. Repeatable. In the variable, separated by spaces.", TELEMETRY),
    ] = ()
    notify_on: Annotated[
        tuple[str, ...],
        Option(
            "Send only messages on this: question, blocked, quarantined, suspended, limit, outage, starved or digest. "
            "Repeatable. (default: all)",
            TELEMETRY,
            metavar="TOPIC",
            parse=parse_topics,
        ),
    ] = ()
    digest_at: Annotated[
        DigestTime | None,
        Option(
            "Send a digest of the last 24 hours once a day at this time, such as '09:00 Europe/Sofia'. (default: none)",
            TELEMETRY,
            metavar="TIME",
            parse=parse_digest_time,
        ),
    ] = None


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often `bdauto run` dispatches and reaps, and where it listens: (host, port), where port 0 is any free one."""

    dispatch_every: Annotated[
        timedelta, Option("Interval between dispatch cycles. Up to four times that while there is nothing to do.", LOOP)
    ] = timedelta(seconds=15)
    reap_every: Annotated[timedelta, Option("Interval between reaper sweeps.", LOOP)] = timedelta(minutes=10)
    watch: Annotated[
        Watch,
        Option(
            "Look at the tracker when it has changed, and hardly ever else. `off` looks at intervals alone, as `auto` "
            "does where changes cannot be followed.",
            LOOP,
        ),
    ] = Watch.auto
    listen: Annotated[
        tuple[str, int] | None,
        Option(
            "Serve a page, /healthz, /readyz and /metrics there; on 127.0.0.1 without a host. (default: off)",
            LOOP,
            metavar="[HOST:]PORT",
            parse=parse_address,
        ),
    ] = None


class StatusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How `bdauto status` shows what it shows."""

    check: Annotated[bool, Option("Exit with status 5 and say why if a person is needed.", OUTPUT)] = False
    watch: Annotated[
        timedelta | None,
        Option("Repeat until Ctrl-C, every 2s unless a duration is given.", OUTPUT, env=None, metavar="[DURATION]"),
    ] = None
    limit: Annotated[int, Option("Beads in each list. 0 shows all.", OUTPUT, env=None, parse=parse_limit)] = 20


class ReportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which time `bdauto report` is about, and how it shows it."""

    since: Annotated[
        Since, Option("Report on what happened in this time until now, or since this date.", OUTPUT, env=None)
    ] = Since("7d")
    by: Annotated[By, Option("Group the figures.", OUTPUT, env=None)] = By.day
    html: Annotated[
        Path | None, Option("Write the report to this file, as one page that loads nothing.", OUTPUT, env=None)
    ] = None


class RunsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs `bdauto runs` lists."""

    bead: Annotated[str | None, Option("Only those of this bead.", OUTPUT, env=None, metavar="ID", parse=str)] = None
    since: Annotated[
        Since | None,
        Option(
            "Those that ended in this time until now, or since this date, and those that run. "
            "(default: 7d, with --bead all)",
            OUTPUT,
            env=None,
        ),
    ] = None
    failed: Annotated[bool, Option("Only those that failed.", OUTPUT)] = False
    running: Annotated[bool, Option("Only those that run. With --failed, both.", OUTPUT)] = False


class LogsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which job's output `bdauto logs` shows, and whether it goes on until the job ends."""

    follow: Annotated[bool, Option("Go on until the job ends.", OUTPUT, short="-f")] = False
    raw: Annotated[bool, Option("Print the output as it is, instead of what the agent does.", OUTPUT)] = False
    attempt: Annotated[
        int | None, Option("The first, second, … job of the bead that is known. (default: the last)", OUTPUT, env=None)
    ] = None


class CancelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are cancelled."""

    all: Annotated[bool, Option("Cancel every job that runs on this machine.")] = False


class WorktreesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `bdauto worktrees` does with worktrees that nothing would be lost with."""

    remove: Annotated[bool, Option("Remove those whose work is merged, with their branches. Nothing else is.")] = False
    dry_run: Annotated[bool, Option("With --remove, say what would be removed.", short="-n")] = False


class PauseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long a pause lasts, and whether it stops what runs. None is until `bdauto resume`."""

    stop: Annotated[
        bool, Option("Also stop every running job that can be stopped. Its bead is not charged, and goes on later.")
    ] = False

    lasting: Annotated[
        timedelta | None, Option("End the pause after this time. (default: at `bdauto resume`)", flag="--for", env=None)
    ] = None


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `bdauto demo` runs on."""

    local: Annotated[bool, Option("Tell of an agent command on this machine instead of BeadBoard.")] = False
    real_bd: Annotated[bool, Option("Use the real bd, in a temporary folder, instead of the stand-in.")] = False


def describe(*groups: msgspec.Struct) -> dict[str, str]:
    """Return the settings as printable text, for the log's first line. Secrets stay hidden."""
    shown: dict[str, str] = {}
    for group in groups:
        for name in group.__struct_fields__:
            value = getattr(group, name)
            if value is None or value == ():
                continue
            shown[name] = _printable(value)
    return shown


def _printable(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        address = isinstance(value[0], str) and isinstance(value[-1], int)
        return (":" if address else ",").join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return redact(str(value))
