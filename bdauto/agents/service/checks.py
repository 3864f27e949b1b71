"""What `bdauto doctor` checks of the agent service without BeadBoard. Reads only."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bdauto.agents.service.runner import ServiceAgent
from bdauto.agents.service_checks import SERVICE_NAME, clock_check, service_checks
from bdauto.agents.service_runner import join
from bdauto.common.errors import UsageError
from bdauto.domain.findings import Check, fail, ok

if TYPE_CHECKING:
    from bdauto.agents.runner import CheckContext


def checks(agent: ServiceAgent, context: "CheckContext") -> Iterator[Check]:
    """Check the service, its token, the prompt, and the clock."""
    capacity, found = service_checks(agent)
    yield from found
    try:
        agent.check_start()
        yield ok("agent", agent.settings.agent_name)
    except UsageError as error:
        yield fail("agent", error)
    if capacity:
        yield clock_check(agent, SERVICE_NAME, join(agent.settings.agent_url, "/health"), context)
