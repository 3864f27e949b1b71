"""What `bdauto doctor` looks at, in the order in which one thing needs another. Reads only.

Features are probed, not concluded from a version: bd's are on the database, so it comes before them.
"""

import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from bdauto.agents.runner import CheckContext
from bdauto.bd.client import Bd
from bdauto.bd.running import RunningCommand
from bdauto.bd.versions import check_version
from bdauto.common.errors import (
    AgentsDie,
    BdDrift,
    BdError,
    BdMissing,
    UsageError,
)
from bdauto.common.sanitize import clean
from bdauto.diagnostics.record_checks import Topology, record_checks, shared_job_checks
from bdauto.domain import breaker
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import verdict, why_nothing_goes
from bdauto.domain.findings import MOST_SKEW, Check, Level, fail, ok, unchecked, warn
from bdauto.domain.settings import DispatchSettings
from bdauto.domain.values import format_age

NOT_CLOSED = ("open", "in_progress", "blocked", "deferred")


def examine(
    bd: Bd | UsageError,
    agent: Callable[[CheckContext], Iterator[Check]],
    now: Callable[[], datetime],
    dispatch: DispatchSettings = DispatchSettings(),  # noqa: B008 - frozen
) -> Iterator[Check]:
    """Check everything, one after another, without raising. `bd` is readonly, or the error that prevented it.

    `agent` opens what runs the agent, and returns its checks. It may raise UsageError and BdError.
    """
    if isinstance(bd, UsageError):
        yield fail("metadata.json", bd)
        yield unchecked("database", "metadata.json is not usable")
    else:
        yield from _tracker(bd, now, dispatch)
        yield _actor(bd)
    try:
        found = agent(_context(bd, now))
    except (UsageError, BdError) as error:
        yield fail("services", error)
    else:
        yield from found


def _context(bd: Bd | UsageError, now: Callable[[], datetime]) -> CheckContext:
    if isinstance(bd, UsageError):
        return CheckContext(now)
    return CheckContext(now, bd.settings.bd_path, lambda: bd.assigned(NOT_CLOSED).result().beads)


def _tracker(bd: Bd, now: Callable[[], datetime], dispatch: DispatchSettings) -> Iterator[Check]:
    """Check bd, its version, metadata.json, the database, the features and the database's clock."""
    found = shutil.which(bd.settings.bd_path)
    if found is None:
        words = f"{clean(bd.settings.bd_path, 200)!r} is not a program"
        yield fail("bd", BdMissing(words), "install bd, or name it with --bd or BDAUTO_BD")
        yield unchecked("database", "bd does not run")
        return
    yield ok("bd", found)
    yield _version(bd)
    try:
        place = bd.where()
    except BdError as error:
        yield fail("database", error, "name the .beads folder with --db or BDAUTO_DB")
        yield unchecked("features", "there is no database")
        return
    folder, server = Path(str(place.get("path", ""))), not str(place.get("database_path")).endswith("embeddeddolt")
    yield _metadata(folder)
    try:
        newest = bd.newest().result().beads
    except BdError as error:
        hint = error.hint or "is the Dolt server up, and its address in metadata.json right?"
        yield fail("database", error, hint)
        yield unchecked("features", "the database cannot be read")
        return
    topology = Topology.embedded if not server else Topology.server if bd.takes_readonly else Topology.proxied
    yield ok("database", f"{topology} mode, {folder}")
    yield from _features(bd, server)
    yield from _breaker(bd, now())
    yield from record_checks(bd, topology)
    yield from shared_job_checks(bd, now())
    yield _newest(newest, now())
    yield from _queue(bd, dispatch, now())


def _queue(bd: Bd, settings: DispatchSettings, now: datetime) -> Iterator[Check]:
    """Check that not all open beads of the assignee fail the same condition."""
    try:
        beads = [bead for bead in bd.assigned(("open",)).result().beads if bead.status == "open"]
    except BdError as error:
        yield unchecked("queue", str(error))
        return
    assignee, lanes = bd.settings.assignee, bd.lanes
    if homeless := [bead.id for bead in beads if lanes.rules and lanes.of(bead) is None]:
        more = f" and {len(homeless) - 3} more" if len(homeless) > 3 else ""
        hint = "see `bdauto explain` on one of them, and add a lane"
        yield warn("lanes", f"no lane takes {', '.join(homeless[:3])}{more}: not dispatched", hint)
    beads = [bead for bead in beads if lanes.has(bead)]
    if why := why_nothing_goes([verdict(bead, True, assignee, settings, now) for bead in beads]):
        yield warn("queue", f"nothing can be dispatched: {why}")


def _version(bd: Bd) -> Check:
    try:
        version = bd.version().result()
        check_version(version, lambda: not str(bd.where().get("database_path")).endswith("embeddeddolt"))
    except BdError as error:
        return fail("version", error)
    return ok("version", f"bd {clean(version, 40)}")


def _metadata(folder: Path) -> Check:
    """Check that metadata.json is a JSON object, and that the folder is its owner's alone."""
    name, file = "metadata.json", folder / "metadata.json"
    try:
        msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        return fail(name, UsageError(f"{file}: {error.strerror}"), "name the .beads folder with --db or BDAUTO_DB")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return fail(name, UsageError(f"{file}: {clean(str(error))}"), "restore it, or run `bd init` again")
    if mode & 0o077:
        return warn(name, f"valid, but others may look into {folder} (mode {mode:04o})", f"chmod 700 {folder}")
    return ok(name, "valid and private")


def _features(bd: Bd, server: bool) -> Iterator[Check]:
    """Try each feature of bd that bdauto uses."""
    upgrade = "install bd 1.0.2 or later"
    calls: tuple[tuple[str, RunningCommand[Any]], ...] = (
        ("ready --assignee", bd.ready(limit=1)),
        ("kv", bd.kv_list()),
    )
    for name, call in calls:
        try:
            call.result()
        except BdError as error:
            yield fail(name, error, upgrade)
        else:
            yield ok(name, "works")
    try:
        if not bd.takes_readonly:
            yield ok("--readonly", "a proxied server takes none: bdauto itself keeps its reads from writing")
        elif bd.refuses_writes():
            yield ok("--readonly", "refuses writes")
        else:
            yield fail("--readonly", BdDrift("bd does not refuse a write with --readonly"), upgrade)
    except BdError as error:
        yield fail("--readonly", error, upgrade)
    if not server:
        yield ok("sql", "not needed: changes are made under a lock on this host")
        return
    try:
        if bd.can_sql():
            yield ok("sql", "works")
        else:
            yield fail("sql", BdDrift("bd sql says that the database is embedded, and bd where does not"), upgrade)
    except BdError as error:
        yield fail("sql", error, upgrade)


def _breaker(bd: Bd, now: datetime) -> Iterator[Check]:
    """Check that the circuit breaker lets beads through. A tracker that does not tell is another check's finding."""
    name, hint = "breaker", "mend the agent; one bead then tries it, or close the breaker with `bdauto resume`"
    try:
        found = breaker.read(bd.kv_list().result(), bd.lane)
    except BdError:
        return
    match found.state(now):
        case "open":
            yield fail(name, AgentsDie(found.describe()), hint)
        case "half-open":
            yield warn(name, f"half open: one bead tries whether the agent works again: {found.words}", hint)
        case "closed":
            deaths = len(found.deaths)
            yield ok(name, f"closed{f', early deaths counted: {deaths}' if deaths else ''}")


def _newest(beads: tuple[Bead, ...], now: datetime) -> Check:
    """Compare this host's clock with the newest update, which cannot have been made later than now."""
    name = "clock: database"
    if not beads:
        return ok(name, "no bead to compare with")
    ahead = beads[0].updated_at - now
    if ahead > MOST_SKEW:
        words = f"{beads[0].id} was updated {format_age(ahead)} in the future"
        return fail(name, BdDrift(words), "set this host's clock, or that of whoever wrote it: the reaper goes by ages")
    return ok(name, f"the last update was {format_age(-ahead)} ago")


def _actor(bd: Bd) -> Check:
    name, settings = "actor", bd.settings
    if settings.actor == settings.assignee:
        hint = "give bdauto an actor of its own with --actor or BEADS_ACTOR"
        return warn(name, f"{settings.actor} is the assignee too: the history cannot tell them apart", hint)
    return ok(name, f"{settings.actor}, for beads of {settings.assignee}")


def as_json(checks: list[Check]) -> dict[str, Any]:
    """Return the checks as docs/operating.md describes them."""
    return {
        "ok": not any(check.level is Level.fail for check in checks),
        "checks": [
            {"name": check.name, "level": check.level, "detail": check.detail, "hint": check.hint or None}
            for check in checks
        ],
    }
