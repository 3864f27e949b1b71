"""What `bdauto doctor` checks of BeadBoard and of the agent service behind it. Reads only."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.runner_status import Capacity
from bdauto.agents.service_checks import SERVICE_NAME, clock_check, service_checks
from bdauto.agents.service_runner import join
from bdauto.common.errors import BdautoError, BdError, ServiceDown, ServiceDrift, ServiceError
from bdauto.domain.constants import EXPORT_DELAY
from bdauto.domain.findings import Check, fail, ok, unchecked, warn

if TYPE_CHECKING:
    from bdauto.agents.runner import CheckContext

SHOWN = 3


def checks(services: BeadBoardRunner, context: "CheckContext") -> Iterator[Check]:
    """Check BeadBoard and the agent service, each alone and then together, their clocks, and BeadBoard's beads."""
    settings = services.settings
    busy: bool | None = None
    try:
        busy = services.beadboard_busy()
        yield ok("BeadBoard", f"answers as expected: {'busy' if busy else 'not busy'}")
    except BdautoError as error:
        yield fail("BeadBoard", error)
    capacity: Capacity | None = None
    if settings.agent_url:
        capacity, found = service_checks(services)
        yield from found
    else:
        yield warn("agent service", "not configured: neither capacity nor jobs are known", "give --agent-url")
    yield from _believable(busy, capacity, bool(settings.agent_url))
    if busy is not None:
        yield clock_check(services, "BeadBoard", join(settings.beadboard_url, "/api/agent-status"), context)
    if capacity:
        yield clock_check(services, SERVICE_NAME, join(settings.agent_url, "/health"), context)
    if context.beads:
        yield from _visible(services, context)


def _believable(busy: bool | None, capacity: Capacity | None, configured: bool) -> Iterator[Check]:
    """Judge BeadBoard's `busy` by the agent service's own word: it says idle, too, when that is down."""
    name = "busy"
    if busy is None:
        return
    if not configured:
        hint = "give --agent-url, so that the agent service is asked itself"
        yield warn(name, "BeadBoard's word cannot be checked: it says idle, too, when the agent service is down", hint)
    elif capacity is None and not busy:
        words = "BeadBoard says idle while the agent service does not answer: do not believe it"
        yield fail(name, ServiceDown(words), "start the agent service; until then nothing can be dispatched")
    elif capacity is None:
        yield warn(name, "BeadBoard says busy, and the agent service does not answer")
    elif busy != (capacity.free == 0):
        words = f"BeadBoard says {'busy' if busy else 'idle'}, the agent service has room for {capacity.free}"
        yield warn(name, words, "within 2 s of a change that is normal; otherwise they may not be a pair")
    else:
        yield ok(name, "BeadBoard and the agent service agree")


def _visible(services: BeadBoardRunner, context: "CheckContext") -> Iterator[Check]:
    """Compare BeadBoard's list of beads with bd's. BeadBoard may read an export, or another database."""
    name, hint = "BeadBoard's beads", "let BeadBoard read the same database as bd; a POST of such a bead is refused"
    assert context.beads
    try:
        beads = context.beads()
        seen = services.listed_beads()
    except BdError:
        return
    except ServiceError as error:
        yield unchecked(name, error.message)
        return
    if seen is None:
        yield unchecked(name, "BeadBoard has no list of them")
        return
    missing = [bead for bead in beads if bead.id not in seen]
    overdue = [bead for bead in missing if context.now() - bead.created_at >= EXPORT_DELAY]
    if not missing:
        yield ok(name, f"BeadBoard lists all of the assignee's beads ({len(beads)})")
        return
    names = ", ".join(bead.id for bead in missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
    words = f"BeadBoard does not list {len(missing)} of {len(beads)} beads of the assignee ({names})"
    if overdue:
        yield fail(name, ServiceDrift(words), hint)
    else:
        yield warn(name, f"{words}; they are less than two minutes old", "look again in two minutes")
