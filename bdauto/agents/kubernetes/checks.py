"""What `bdauto doctor` checks of agents in Kubernetes. Reads only."""

from collections.abc import Iterator
from typing import Any

from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.kubernetes.template import starts_other
from bdauto.agents.prompt import read_template
from bdauto.agents.runner import CheckContext
from bdauto.common.errors import ServiceError, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.findings import Check, fail, ok, warn

RIGHTS = {
    "batch/jobs": ("create", "get", "list", "patch"),
    "batch/cronjobs": ("get",),
    "/pods": ("list",),
    "/pods/log": ("get",),
    "/events": ("list",),
}
"""What bdauto does in its namespace, by GROUP/RESOURCE. The Role of deploy/ has exactly these."""


def checks(agent: KubernetesAgent, context: CheckContext) -> Iterator[Check]:  # noqa: ARG001
    """Check the rights, the template, its image, the prompt and the quotas."""
    try:
        wanted = [(verb, resource) for resource, verbs in RIGHTS.items() for verb in verbs]
        lacking = [
            f"{verb} {resource.lstrip('/')}" for verb, resource in wanted if not agent.cluster.may(verb, resource)
        ]
    except ServiceError as error:
        yield fail("Kubernetes", error)
        return
    if lacking:
        words = f"this account may not {', '.join(lacking)} in namespace {agent.cluster.namespace}"
        yield fail("rights", UsageError(words), "give it the Role of the chart")
    else:
        yield ok("rights", f"all that is needed in namespace {agent.cluster.namespace}")
    try:
        found = agent.read_template()
        yield ok("template", agent.name)
        yield _image(found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0])
        read_template(agent.settings.agent_prompt)
    except (UsageError, ServiceError) as error:
        yield fail("template", error)
    yield _quota(agent)


def _image(container: dict[str, Any]) -> Check:
    """Check the agent's image as far as it can be judged without a pod: whether it is fixed, and what it starts."""
    image = clean(str(container.get("image")), 120)
    if starts_other(container):
        why = f"{image} does not start `bdauto agent-entry`: only Kubernetes keeps an agent from running twice"
        return warn("image", why, "see docs/kubernetes.md, in the pod")
    if "@" not in image and image.rpartition("/")[2].partition(":")[2] in ("", "latest"):
        return warn("image", f"{image} names no fixed version", "name a tag other than latest, or a digest")
    return ok("image", image)


def _quota(agent: KubernetesAgent) -> Check:
    """Look for a quota on pods, which alone is a hard limit: dispatchers that count at the same time count the same."""
    name = "quota"
    try:
        limits = [
            (str(quota["metadata"]["name"]), hard)
            for quota in agent.cluster.quotas()
            for hard in [(quota.get("status") or {}).get("hard") or {}]
        ]
    except ServiceError:
        return ok(name, "not known: this account may not list resourcequotas")
    for quota, hard in limits:
        if "count/jobs.batch" in hard:
            words = f"{clean(quota, 60)} counts Jobs, also those that have ended"
            return warn(name, words, "limit `pods` instead")
        if "pods" in hard:
            return ok(name, f"{clean(quota, 60)}: {clean(str(hard['pods']), 20)} pods")
    return ok(name, f"none; --agent-slots is {agent.settings.agent_slots}")
