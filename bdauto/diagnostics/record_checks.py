"""What `bdauto doctor` checks of bd's own record, and of an upgrade of bd. Reads only, an upgrade on a copy."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from bdauto.bd.client import Bd
from bdauto.bd.sql import SCHEMA_VERSION, UNCOMMITTED, expired_leases
from bdauto.bd.versions import check_version
from bdauto.diagnostics.findings import Check, fail, ok, unchecked, warn
from bdauto.domain.runs import shared_jobs
from bdauto.errors import BdError, BdFailed
from bdauto.sanitize import clean

COMMIT = """bd sql "CALL DOLT_COMMIT('-A', '-m', 'left uncommitted')\""""
OPENS = "upgrade: opens"
WEEK = timedelta(days=7)
NAMED = 5
"""Beads that a check names."""


class Topology(StrEnum):
    """Where the database is, as bd names it."""

    embedded = "embedded"
    server = "server"
    proxied = "proxied server"


def record_checks(bd: Bd, topology: Topology) -> Iterator[Check]:
    """Check what stands in the way of an upgrade, of the agent, and of a claim."""
    if topology is not Topology.embedded:
        yield _uncommitted(bd)
    try:
        guards = bd.has_guards()
    except BdError as error:
        yield unchecked("closing", error.message)
        return
    if guards:
        yield ok("closing", "bd closes a bead only for its assignee: the agent needs BEADS_ACTOR=agent")
        if topology is not Topology.embedded:
            yield _leases(bd)
    elif topology is Topology.server:
        yield ok(
            "reverts", "bd before 1.3 can undo a committed change (beads issue 5740); `bdauto run` restores its claims"
        )


def shared_job_checks(bd: Bd, now: datetime) -> Iterator[Check]:
    """Warn of jobs, up to NAMED, that more than one bead of the last week records."""
    try:
        shared = shared_jobs(bd.changed_since(now - WEEK).result().beads)
    except BdError as error:
        yield unchecked("jobs", error.message)
        return
    for job, ids in [*shared.items()][:NAMED]:
        words = f"job {clean(job)} is recorded on {', '.join(ids[:NAMED])}: a job belongs to one bead"
        yield warn("jobs", words, "see `bdauto explain` of each; its cost is counted once")


def _dirty(bd: Bd) -> list[str]:
    """Return the tables with uncommitted changes, but for the configuration, which `bd init` leaves so."""
    tables = (clean(str(row.get("table_name")), 40) for row in bd.select(UNCOMMITTED))
    return sorted({table for table in tables if table != "config"})


def _uncommitted(bd: Bd) -> Check:
    """Check that no table has uncommitted changes."""
    name = "uncommitted"
    try:
        dirty = _dirty(bd)
    except BdError as error:
        return unchecked(name, error.message)
    if dirty:
        return warn(name, f"in no Dolt commit: {', '.join(dirty)}. A newer bd may refuse the database", COMMIT)
    return ok(name, "every change is in a Dolt commit")


def _leases(bd: Bd) -> Check:
    """Check for beads in progress that `bd reclaim` would take from a running job."""
    try:
        beads = [clean(str(row.get("issue_id")), 60) for row in bd.select(expired_leases(bd.settings.assignee))]
    except BdError as error:
        return unchecked("leases", error.message)
    if not beads:
        return ok("leases", "none of the beads in progress has an expired lease")
    words = f"`bd reclaim` would take {', '.join(beads[:NAMED])} back: the agent sent `bd heartbeat` and stopped"
    return warn("leases", words, "let the agent go on with it as long as it runs, or never begin")


def upgrade_checks(bd: Bd, program: str, folder: Path, topology: Topology) -> Iterator[Check]:
    """Check whether another bd will open the database. `folder` is the .beads folder."""
    if shutil.which(program) is None:
        yield fail("upgrade", BdFailed(f"{clean(program, 200)!r} is not a program"), "name the new bd with --upgrade")
        return
    settings = msgspec.structs.replace(bd.settings, bd_path=program)
    try:
        version = Bd(settings).version().result()
        check_version(version, lambda: topology is not Topology.embedded)
    except BdError as error:
        yield fail("upgrade", error)
        return
    yield ok("upgrade", f"to bd {clean(version, 40)}")
    with tempfile.TemporaryDirectory(prefix="bdauto-") as scratch:
        copy = Path(scratch) / ".beads"
        new = Bd(msgspec.structs.replace(settings, db=copy), private=True)
        if topology is Topology.embedded:
            yield _opens_copy(new, folder, copy)
        else:
            yield _migrates(bd, new, copy)


def _opens_copy(new: Bd, folder: Path, copy: Path) -> Check:
    """Let the new bd write and read a copy of an embedded database."""
    try:
        shutil.copytree(folder, copy)
        new.kv_set("bdauto.doctor", "upgrade")
        new.ready(limit=1).result()
    except (OSError, shutil.Error) as error:
        return unchecked(OPENS, f"{folder} cannot be copied: {clean(str(error), 200)}")
    except BdError as error:
        return fail(OPENS, error, error.hint or "do not upgrade; see what it says")
    return ok(OPENS, "reads and writes a copy of the database")


def _migrates(bd: Bd, new: Bd, scratch: Path) -> Check:
    """Compare the schema of a server's database with the new bd's, which is not let near it: it would migrate it."""
    try:
        [row] = bd.select(SCHEMA_VERSION)
        has, knows = int(row["version"]), _schema_of(new, scratch)
        dirty = _dirty(bd)
    except (BdError, ValueError, TypeError, KeyError) as error:
        return unchecked(OPENS, f"the versions of the schema cannot be compared: {clean(str(error), 200)}")
    versions = f"the database has version {has} of the schema, this bd knows {knows}"
    if knows < has:
        return fail(OPENS, BdFailed(versions), "install a later bd")
    if knows == has:
        return ok(OPENS, versions)
    if dirty:
        words = f"{versions}, and it will not migrate uncommitted tables: {', '.join(dirty)}"
        return fail(OPENS, BdFailed(words), f"before the upgrade, run `{COMMIT}`")
    hint = (
        "stop every older bd of this database, which cannot open it then, and run `bd migrate schema` with the new one"
    )
    return warn(OPENS, f"{versions}: it migrates the database", hint)


def _schema_of(new: Bd, scratch: Path) -> int:
    """Return the version of the schema that a bd gives a new, empty database. Raises BdError or ValueError."""
    scratch.mkdir(mode=0o700)
    names = {"database": "dolt", "backend": "dolt", "dolt_mode": "embedded", "dolt_database": "empty"}
    (scratch / "metadata.json").write_bytes(msgspec.json.encode(names))
    version = new.migrated_schema()
    if version is None:
        raise ValueError("this bd does not say which it knows")
    return version
