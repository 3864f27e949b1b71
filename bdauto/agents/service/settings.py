"""The settings of an agent in the agent service that bdauto starts itself."""

from typing import Annotated

from bdauto.agents.prompt_settings import PROMPT, TIME_LIMIT, CostLimit, Prompt, TimeLimit
from bdauto.agents.service_settings import AgentServiceSettings
from bdauto.domain.settings import Option
from bdauto.domain.values import parse_name


class ServiceAgentSettings(AgentServiceSettings, frozen=True, kw_only=True):
    """Which of the agent service's agents is started, with which prompt, how long it may run and what it may cost."""

    agent_name: Annotated[str, Option("The agent service's agent, without BeadBoard.", PROMPT, parse=parse_name)] = (
        "beads-task-runner"
    )
    agent_prompt: Prompt = None
    agent_timeout: TimeLimit = TIME_LIMIT
    max_cost_per_run: CostLimit = None
