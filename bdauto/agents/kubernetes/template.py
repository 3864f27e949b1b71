"""From a template to the Job of one attempt: pure functions on JSON objects.

The template is a suspended CronJob. Its `jobTemplate` is copied, bdauto adds what names the attempt, and forces what
keeps an agent from running twice. A template that says otherwise is refused.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from bdauto.agents.kubernetes.message import PodChecks
from bdauto.agents.kubernetes.settings import NAME, KubernetesSettings
from bdauto.common.errors import UsageError
from bdauto.domain.values import format_duration

Object = dict[str, Any]
TRACKER, ATTEMPT, BEAD_HASH, TOMBSTONE, RECORDED = (
    f"bdauto/{name}" for name in ("tracker", "attempt", "bead-hash", "tombstone", "recorded")
)
"""Labels of a Job. The first three are its pods' as well. The last two are set where they apply."""
BEAD, ASSIGNEE, CHECKS, PROMPT, STOPPED, LAST, LOG, STATE = (
    f"bdauto/{name}" for name in ("bead", "assignee", "checks", "prompt", "stopped", "last-figures", "log", "state")
)
"""Annotations: the bead, whose queue it was in, and how many checks its work must pass. Of the pod: the prompt. Of a
stopped Job: why, its figures, and the end of its log. Of a Job that keeps a log: that, and how its Job ended."""
FOLDER = "/etc/bdauto-job"
"""Where the prompt is in the agent's container, as the file `prompt`."""
VOLUME = "bdauto-job"
TERMINATION_LOG = "/dev/termination-log"
"""Where Kubernetes takes the end of a container from."""
EVICTABLE = "cluster-autoscaler.kubernetes.io/safe-to-evict"
MARGIN = timedelta(minutes=2)
"""The Job's own deadline comes so much after the agent's time limit, which its entry keeps."""
ENTRY = "agent-entry"
"""The command of bdauto that runs the checks in the pod."""
LONGEST_CHECKS = 60_000
"""Bytes of the checks' commands: a variable of a process may have 128 KiB, and each $ is doubled."""
LONGEST_PROMPT = 200_000
"""Bytes of a prompt: the annotations of an object may have 256 KiB in all."""
TOMBSTONE_KEPT = 86_400
"""Seconds after which a tombstone may go: no dispatcher starts a claim that old."""
LOG_KEPT = timedelta(days=30)
"""How long the end of a log is kept after that of its Job. It takes up to 17 kB of the cluster's database."""
FORCED: Mapping[str, tuple[object, ...]] = {
    "completions": (None, 1),
    "parallelism": (None, 1),
    "backoffLimit": (None, 0),
    "podReplacementPolicy": (None, "Failed"),
    "completionMode": (None, "NonIndexed"),
    "backoffLimitPerIndex": (None,),
    "maxFailedIndexes": (None,),
    "successPolicy": (None,),
    "selector": (None,),
    "manualSelector": (None, False),
    "managedBy": (None, "kubernetes.io/job-controller"),
}
"""The fields of a Job that bdauto sets or leaves out, with the values that a template may give them."""


def short_hash(text: str) -> str:
    """Return a label value for a text that may be no label value."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:20]


def job_name(attempt: str) -> str:
    """Return the name of an attempt's Job."""
    return f"bdauto-{attempt}"


def may_have_job(attempt: str) -> bool:
    """Return whether a Job can have the name of an attempt's. A note may name anything."""
    return NAME.fullmatch(job_name(attempt)) is not None


def log_name(attempt: str) -> str:
    """Return the name of the Job that keeps the log of an attempt."""
    return f"{job_name(attempt)}-log"


def _refusals(template: Object, settings: KubernetesSettings) -> Iterator[str]:
    if template["spec"].get("suspend") is not True:
        yield "spec.suspend is not true, so Kubernetes itself starts Jobs of it"
    job = template["spec"]["jobTemplate"].get("spec") or {}
    for field, allowed in FORCED.items():
        if job.get(field) not in allowed:
            yield f"{field} must not be {job[field]!r:.60}: a bead has one pod, which is not tried again"
    for rule in (job.get("podFailurePolicy") or {}).get("rules") or ():
        if rule.get("action") in ("Ignore", "Count"):
            yield f"podFailurePolicy has the action {rule['action']}: a second pod would follow the first"
    pod = (job.get("template") or {}).get("spec") or {}
    if pod.get("restartPolicy") not in (None, "Never"):
        yield f"restartPolicy must not be {pod['restartPolicy']!r:.40}: a container runs once"
    if not pod.get("containers"):
        yield "it has no container"
    if any(volume.get("name") == VOLUME for volume in pod.get("volumes") or ()):
        yield f"the volume name {VOLUME} is taken by bdauto"
    if settings.agent_check and pod.get("containers"):
        yield from _unchecked(pod["containers"][0], deadline_of(template, settings), settings)


def _unchecked(container: Object, deadline: int, settings: KubernetesSettings) -> Iterator[str]:
    """Yield why no check could run in a pod."""
    if starts_other(container):
        yield f"--agent-check needs `bdauto {ENTRY} -- CMD` as the command of its first container"
    if _agent_limit(deadline, settings) <= 0:
        took = format_duration(settings.longest_checks + MARGIN)
        yield f"its activeDeadlineSeconds leave the agent no time: the checks of --agent-check may take {took} of them"


def starts_other(container: Object) -> bool:
    """Return whether a container is known to start something other than bdauto's entry."""
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return bool(words) and not any(ENTRY in str(word) for word in words)


def check_template(template: Object, settings: KubernetesSettings) -> None:
    """Raise UsageError if a CronJob cannot be the template."""
    if why := next(_refusals(template, settings), ""):
        raise UsageError(f"--kubernetes-template {settings.kubernetes_template}: {why}", hint="change the CronJob")


def deadline_of(template: Object, settings: KubernetesSettings) -> int:
    """Return after how many seconds Kubernetes ends a Job: the template's own deadline, else all limits and MARGIN.

    It counts from the Job's start, so the time until its pod runs is a part of it.
    """
    own = (template["spec"]["jobTemplate"].get("spec") or {}).get("activeDeadlineSeconds")
    return own if isinstance(own, int) and own > 0 else round((settings.longest + MARGIN).total_seconds())


def _agent_limit(deadline: int, settings: KubernetesSettings) -> float:
    """Return the seconds that the agent has: some less than until the deadline, by which the pod's figures are gone."""
    left = deadline - (MARGIN + settings.longest_checks).total_seconds()
    left = left if settings.agent_check else max(left, deadline / 2)
    return min(settings.agent_timeout.total_seconds(), left)


def job_of(
    template: Object,
    settings: KubernetesSettings,
    *,
    tracker: str,
    bead: str,
    attempt: str,
    assignee: str,
    prompt: str,
) -> Object:
    """Return the Job of an attempt. The template must have passed `check_template`."""
    made = copy.deepcopy(template["spec"]["jobTemplate"])
    labels = {TRACKER: short_hash(tracker), ATTEMPT: attempt, BEAD_HASH: short_hash(bead)}
    job, pod = made.setdefault("spec", {}), made["spec"]["template"]
    for field in (*FORCED, "ttlSecondsAfterFinished"):
        job.pop(field, None)
    job |= {"completions": 1, "parallelism": 1, "backoffLimit": 0, "podReplacementPolicy": "Failed"}
    deadline = job["activeDeadlineSeconds"] = deadline_of(template, settings)
    _label(pod, labels, {EVICTABLE: "false"} | (_metadata(pod).get("annotations") or {}) | {PROMPT: prompt})
    spec = pod["spec"]
    spec["restartPolicy"] = "Never"
    spec.setdefault("automountServiceAccountToken", False)
    spec["volumes"] = [*(spec.get("volumes") or ()), _prompt_volume()]
    variables = {
        "BEAD_ID": bead,
        "BDAUTO_JOB": attempt,
        "BDAUTO_PROMPT": f"{FOLDER}/prompt",
        "BDAUTO_TERMINATION_LOG": TERMINATION_LOG,
        "BDAUTO_AGENT_TIMEOUT": f"{_agent_limit(deadline, settings):.0f}s",
        "BDAUTO_CHECKS": checks_of(settings),
        "BEADS_ACTOR": assignee,
    }
    _complete(spec["containers"][0], variables)
    about = {"name": job_name(attempt)}
    old = made.get("metadata") or {}
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": job}
    notes = {BEAD: bead, ASSIGNEE: assignee, CHECKS: str(len(settings.agent_check))}
    _label(made, (old.get("labels") or {}) | labels, (old.get("annotations") or {}) | notes)
    return made


def checks_of(settings: KubernetesSettings) -> str:
    """Return what the entry of a pod is told of the checks, as JSON, "" without one.

    Raises UsageError for what no pod can be told.
    """
    if not settings.agent_check:
        return ""
    commands = [[*command.words] for command in settings.agent_check]
    checks = PodChecks(commands, settings.agent_check_timeout.total_seconds())
    try:
        told = msgspec.json.encode(checks)
    except UnicodeEncodeError:
        raise UsageError("--agent-check is not UTF-8", hint="write it in UTF-8") from None
    if len(told) > LONGEST_CHECKS:
        words = f"--agent-check is too long for a pod: {len(told)} of {LONGEST_CHECKS} bytes"
        raise UsageError(words, hint="put it into a script in the image")
    return told.decode()


def tombstone_of(*, tracker: str, bead: str, attempt: str) -> Object:
    """Return a Job without a pod that takes the name of an attempt's Job, so that nobody can start it any more."""
    labels = {TRACKER: short_hash(tracker), ATTEMPT: attempt, BEAD_HASH: short_hash(bead), TOMBSTONE: "true"}
    container = {"name": "none", "image": "none.invalid/none"}
    spec = {"completions": 0, "parallelism": 0, "backoffLimit": 0, "ttlSecondsAfterFinished": TOMBSTONE_KEPT}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    metadata = {"name": job_name(attempt), "labels": labels, "annotations": {BEAD: bead}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**spec, "template": pod}}


def log_of(*, tracker: str, bead: str, attempt: str, state: str, log: str) -> Object:
    """Return a Job without a pod that keeps the end of a log: Kubernetes removes it, and it needs no other right."""
    made = tombstone_of(tracker=tracker, bead=bead, attempt=attempt)
    del made["metadata"]["labels"][TOMBSTONE]
    made["metadata"]["name"] = log_name(attempt)
    _label(made, {RECORDED: "true"}, {STATE: state, LOG: log})
    made["spec"]["ttlSecondsAfterFinished"] = round(LOG_KEPT.total_seconds())
    return made


def _complete(container: Object, variables: Mapping[str, str]) -> None:
    """Give the agent's container its variables and its prompt. Kubernetes expands $(NAME), so $ is doubled."""
    own = [one for one in container.get("env") or () if one.get("name") not in variables]
    given = {name: value.replace("$", "$$") for name, value in variables.items() if value}
    added: list[Object] = [{"name": name, "value": value} for name, value in given.items()]
    uid = {"name": "BDAUTO_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    container["env"] = [*(one for one in own if one.get("name") != "BDAUTO_POD"), *added, uid]
    mount = {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
    container["terminationMessagePath"] = TERMINATION_LOG
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"


def _prompt_volume() -> Object:
    field = {"fieldPath": f"metadata.annotations['{PROMPT}']"}
    return {"name": VOLUME, "downwardAPI": {"items": [{"path": "prompt", "fieldRef": field}]}}


def _metadata(thing: Object) -> Object:
    metadata: Object = thing.get("metadata") or {}
    return metadata


def _label(thing: Object, labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    old = _metadata(thing)
    thing["metadata"] = {
        **old,
        "labels": {**(old.get("labels") or {}), **labels},
        "annotations": {**(old.get("annotations") or {}), **annotations},
    }
