"""What `bdauto doctor` checks of bd's own record. Reads only."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum

from bdauto.bd.client import Bd
from bdauto.bd.sql import UNCOMMITTED, expired_leases
from bdauto.common.errors import BdError
from bdauto.common.sanitize import clean
from bdauto.domain.constants import NAMED
from bdauto.domain.findings import Check, ok, unchecked, warn
from bdauto.domain.history import shared_jobs

COMMIT = """bd sql "CALL DOLT_COMMIT('-A', '-m', 'left uncommitted')\""""
WEEK = timedelta(days=7)


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


def _uncommitted(bd: Bd) -> Check:
    """Check that no table has uncommitted changes, but for the configuration, which `bd init` leaves so."""
    name = "uncommitted"
    try:
        tables = {clean(str(row.get("table_name")), 40) for row in bd.select(UNCOMMITTED)}
    except BdError as error:
        return unchecked(name, error.message)
    if dirty := sorted(tables - {"config"}):
        return warn(name, f"in no Dolt commit: {', '.join(dirty)}. A newer bd may refuse the database", COMMIT)
    return ok(name, "every change is in a Dolt commit")


def _leases(bd: Bd) -> Check:
    """Check for beads in progress that `bd reclaim` would take from a running job."""
    try:
        beads = [clean(str(row.get("issue_id")), 60) for row in bd.select(expired_leases(bd.assignee))]
    except BdError as error:
        return unchecked("leases", error.message)
    if not beads:
        return ok("leases", "none of the beads in progress has an expired lease")
    words = f"`bd reclaim` would take {', '.join(beads[:NAMED])} back: the agent sent `bd heartbeat` and stopped"
    return warn("leases", words, "let the agent go on with it as long as it runs, or never begin")
