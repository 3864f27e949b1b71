"""The agent service without BeadBoard: bdauto posts each bead there itself, with the prompt of local agents."""

import math
from datetime import timedelta

from bdauto.agents.answers import Answer, NotStarted
from bdauto.agents.prompt import read_template, render
from bdauto.agents.runner_status import RunnerStatus
from bdauto.agents.service.settings import ServiceAgentSettings
from bdauto.agents.service_runner import SERVICE, ServiceRunner, join
from bdauto.common.errors import UsageError
from bdauto.domain.bead import Bead
from bdauto.domain.earlier_attempts import describe_earlier

JOB = '$(basename "$PWD")'
"""The id of the job, for the agent's shell: the service runs each job in a folder of that name. It makes the id itself,
and tells it only in its answer."""
LONGEST_PROMPT = (1 << 17) - 1
"""Bytes of a prompt: the service gives it to the agent as one argument of a command (Linux: 128 KiB with the end)."""


def open_runner(settings: ServiceAgentSettings, _project: object) -> "ServiceAgent":
    """Return what runs the agent. Raises UsageError."""
    return ServiceAgent(settings)


class ServiceAgent(ServiceRunner):
    """Starts an agent of the agent service for each bead."""

    settings: ServiceAgentSettings
    started = frozenset({200, 202})
    busy_status = frozenset({409, 429})
    uncertain = frozenset({500, 504})  # the service makes the job before it answers

    def status(self) -> RunnerStatus:
        """Ask the service how it is."""
        return RunnerStatus((self.service_part(),))

    def check_start(self, *, dry_run: bool = False) -> None:
        """Raise UsageError without a readable prompt, or without a token: the service refuses every request then."""
        self._template()
        self.read_token()
        if not self.http.token:
            words = f"{SERVICE} starts nothing without its token"
            raise UsageError(words, hint="give --agent-token-file or API_BEARER_TOKEN")

    def problem_with(self, bead: Bead) -> str:
        """Return that the bead's prompt is too long, or ""."""
        size = len(self.prompt(bead, bead.id).encode())
        return f"its prompt is too long: {size} of {LONGEST_PROMPT} bytes" if size > LONGEST_PROMPT else ""

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return the prompt for a bead. It never begins like an option of the agent's command."""
        text = render(self._template(), bead, JOB, describe_earlier(bead, {}))
        return f" {text}" if text.startswith("-") else text

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Ask the service once to start the agent on a bead. It would start the same attempt twice."""
        try:
            prompt = self.prompt(bead, attempt)
        except UsageError as error:
            return NotStarted(str(error))
        self.read_token()
        body: dict[str, object] = {
            "prompt": prompt,
            "agent": self.settings.agent_name,
            "timeout_seconds": math.ceil(self.settings.agent_timeout / timedelta(seconds=1)),
        }
        if self.settings.max_cost_per_run is not None:  # else the service has its own limit
            body["max_budget_usd"] = self.settings.max_cost_per_run
        return self._post(join(self.settings.agent_url, "/execute"), body, authorized=True)

    def _template(self) -> str:
        return read_template(self.settings.agent_prompt)
