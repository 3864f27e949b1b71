"""The settings of agents that run as Kubernetes Jobs (docs/kubernetes.md)."""

import re
from datetime import timedelta
from typing import Annotated

import msgspec

from bdauto.agents.prompt_settings import (
    CHECK_LIMIT,
    TIME_LIMIT,
    Checks,
    CheckTimeout,
    Keep,
    Prompt,
    Slots,
    TimeLimit,
)
from bdauto.common.errors import UsageError
from bdauto.domain.settings import Option

KUBERNETES = "An agent in Kubernetes"
AROUND_A_CHECK = timedelta(minutes=1)
"""What a check may take beyond its time limit: until its processes have ended, and to ask bd and git before."""
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


def parse_object_name(text: str) -> str:
    """Return the name of an object in Kubernetes, which goes into the path of a URL. Raises UsageError."""
    if not NAME.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is not a name in Kubernetes")
    return text


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which CronJob is the template, where it is, and how long a Job may wait for its pod."""

    kubernetes_template: Annotated[
        str | None,
        Option(
            "Run each bead as a Job of this suspended CronJob, instead of asking a service.",
            KUBERNETES,
            parse=parse_object_name,
        ),
    ] = None
    kubernetes_namespace: Annotated[
        str | None,
        Option(
            "Where that CronJob is. (default: the namespace of the context, or of bdauto's pod)",
            KUBERNETES,
            parse=parse_object_name,
        ),
    ] = None
    kubernetes_context: Annotated[
        str | None, Option("Context of the kubeconfig. (default: its current one, or bdauto's pod)", KUBERNETES)
    ] = None
    pending_timeout: Annotated[
        timedelta, Option("Give up a Job whose pod has not started after this time.", KUBERNETES)
    ] = timedelta(minutes=15)
    agent_slots: Slots = 1
    agent_prompt: Prompt = None
    agent_timeout: TimeLimit = TIME_LIMIT
    agent_check: Checks = ()
    agent_check_timeout: CheckTimeout = CHECK_LIMIT
    agent_keep: Keep = timedelta(days=7)

    @property
    def longest_checks(self) -> timedelta:
        """The longest that the checks take."""
        return len(self.agent_check) * (self.agent_check_timeout + AROUND_A_CHECK)

    @property
    def longest(self) -> timedelta:
        """The longest that a Job waits for its pod, and that its agent and its checks run."""
        return self.pending_timeout + self.agent_timeout + self.longest_checks
