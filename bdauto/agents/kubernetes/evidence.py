"""What Jobs and pods say: pure functions on JSON objects, which any tool may have changed. What is odd is unknown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bdauto.agents.kubernetes import message
from bdauto.agents.kubernetes.template import (
    ASSIGNEE,
    ATTEMPT,
    BEAD,
    CHECKS,
    LAST,
    LOG,
    RECORDED,
    STATE,
    STOPPED,
    TOMBSTONE,
    job_name,
    log_name,
)
from bdauto.common.sanitize import clean, without_secrets
from bdauto.domain.agent_end import AgentEnd, Why
from bdauto.domain.reconcile import SILENCE
from bdauto.domain.record import WORDS_LIMIT, Result, Run
from bdauto.domain.results import last_words, told_end, whole_seconds
from bdauto.domain.times import parse_time

Object = dict[str, Any]
QUEUED, RUNNING, COMPLETED, FAILED, TIMED_OUT, CANCELLED = (
    "queued", "running", "completed", "failed", "timed out", "cancelled",
)  # fmt: skip
AT_ONCE = frozenset({"InvalidImageName", "CreateContainerConfigError"})
"""Reasons why a container waits that no time mends: a wrong image name, a missing Secret."""
INIT_FAILED = "init container failed"
NOT_STARTED = frozenset({"StartError", "ContainerCannotRun", INIT_FAILED})
"""Reasons why a container never ran: its command is not in the image, for example."""
BEGAN = ("active", "ready", "succeeded", "failed", "terminating", "uncountedTerminatedPods")
"""Fields of a Job's status that are set once there is, or was, a pod."""
CONFIG = "configuration: "
"""How the reason begins for which bdauto ended a Job that cannot run as its template is."""
NO_ENTRY = "no check has run: the command of its template's first container is not a `bdauto agent-entry` that can"
PENDING = "pending: "
"""The same for a Job whose pod did not start in time."""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of a Job. `reason` and `words` are of its condition, `stopped` why bdauto has ended it.

    `since` is when it began to wait for its pod, `began` whether it has had one. `last` is the message that was
    read from its log before it was ended. `checks` is how many its work must pass before its bead is closed. `log` is
    the end of its log, if that is kept. What remains of a Job that Kubernetes has removed is a view like its own.
    """

    name: str
    attempt: str
    bead: str
    assignee: str
    created: datetime | None
    since: datetime | None
    state: str
    began: bool = False
    deleting: bool = False
    suspended: bool = False
    tombstone: bool = False
    recorded: bool = False
    checks: int = 0
    reason: str = ""
    words: str = ""
    ended: datetime | None = None
    stopped: str = ""
    last: str = ""
    log: str = ""

    @property
    def over(self) -> bool:
        """True: the Job has ended, and none of its pods runs."""
        return self.state not in (QUEUED, RUNNING)


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of a pod. `waits` is why it has not started, `disrupted` why Kubernetes has taken it away.

    `told` is the termination message of its agent's container, `reason` and `code` how that ended.
    """

    name: str
    uid: str
    attempt: str
    container: str
    phase: str
    waits: str = ""
    hopeless: bool = False
    disrupted: str = ""
    reason: str = ""
    code: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    told: str = ""


def read_job(job: Object) -> JobView | None:
    """Return what matters of a Job, None if bdauto has not made it."""
    metadata = _dict(job.get("metadata"))
    labels, notes = _dict(metadata.get("labels")), _dict(metadata.get("annotations"))
    name, attempt, spec, status = (
        metadata.get("name"),
        labels.get(ATTEMPT),
        _dict(job.get("spec")),
        _dict(job.get("status")),
    )
    if not isinstance(attempt, str) or name not in (job_name(attempt), log_name(attempt)):
        return None
    remains = name == log_name(attempt)
    conditions = {one.get("type"): one for one in _dicts(status.get("conditions")) if one.get("status") == "True"}
    end = conditions.get("Complete") or conditions.get("Failed") or {}
    stopped = _text(notes.get(STOPPED))
    state = RUNNING if status.get("active") and status.get("ready") else QUEUED
    if end and conditions.get("Complete"):
        state = COMPLETED
    elif end:
        state = CANCELLED if stopped else TIMED_OUT if end.get("reason") == "DeadlineExceeded" else FAILED
    if remains:
        state = next((one for one in (COMPLETED, TIMED_OUT, CANCELLED) if notes.get(STATE) == one), FAILED)
    return JobView(
        name=name,
        attempt=attempt,
        bead=_text(notes.get(BEAD)),
        assignee=_text(notes.get(ASSIGNEE)),
        created=_time(metadata.get("creationTimestamp")),
        since=_time(status.get("startTime")) or _time(metadata.get("creationTimestamp")),
        state=state,
        began=any(status.get(name) for name in BEGAN),
        deleting=bool(metadata.get("deletionTimestamp")),
        suspended=bool(spec.get("suspend")),
        tombstone=not remains and (TOMBSTONE in labels or spec.get("completions") == 0),
        recorded=RECORDED in labels,
        checks=_count(notes.get(CHECKS)),
        reason=_text(end.get("reason"), 60),
        words=_text(end.get("message")),
        ended=_time(status.get("completionTime")) or _time(end.get("lastTransitionTime")),
        stopped=stopped,
        last=str(notes.get(LAST) or ""),
        log=str(notes.get(LOG) or ""),
    )


def read_pod(pod: Object) -> PodView | None:
    """Return what matters of a pod, None if bdauto's Jobs have not made it."""
    metadata, spec, status = (_dict(pod.get(part)) for part in ("metadata", "spec", "status"))
    attempt = _dict(metadata.get("labels")).get(ATTEMPT)
    if not isinstance(attempt, str) or not isinstance(metadata.get("name"), str):
        return None
    container = str(next((one.get("name") for one in _dicts(spec.get("containers"))), ""))
    statuses = _dicts(status.get("containerStatuses"))
    own = next((_dict(one.get("state")) for one in statuses if one.get("name") == container), {})
    ended = _dict(own.get("terminated")) or _failed_init(status)
    phase = str(status.get("phase") or "Pending")
    code = ended.get("exitCode")
    found = _waits(status) if phase == "Pending" else ("", "")
    return PodView(
        name=metadata["name"],
        uid=str(metadata.get("uid") or ""),
        attempt=attempt,
        container=container,
        phase=phase,
        waits=": ".join(filter(None, found)),
        hopeless=found[0] in AT_ONCE,
        disrupted=_disruption(status),
        reason=_text(ended.get("reason"), 60),
        code=code if isinstance(code, int) else None,
        started=_time(ended.get("startedAt")) or _time(_dict(own.get("running")).get("startedAt")),
        ended=_time(ended.get("finishedAt")),
        told=str(ended.get("message") or "")[: message.MESSAGE_BYTES],
    )


def _waits(status: Object) -> tuple[str, str]:
    """Return why a pod has not started: a reason of Kubernetes and its words."""
    for one in (*_dicts(status.get("initContainerStatuses")), *_dicts(status.get("containerStatuses"))):
        waiting = _dict(_dict(one.get("state")).get("waiting"))
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return _text(waiting["reason"], 60), _cause(waiting.get("message"))
    for one in _dicts(status.get("conditions")):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _text(one.get("reason"), 60), _text(one.get("message"))
    return "", ""


def _failed_init(status: Object) -> Object:
    """Return the end of the init container whose failure kept the agent's from starting, {} if none failed."""
    for one in _dicts(status.get("initContainerStatuses")):
        ended = _dict(_dict(one.get("state")).get("terminated"))
        if status.get("phase") == "Failed" and ended.get("exitCode"):
            words = [word for word in (one.get("name"), ended.get("reason"), ended.get("message")) if word]
            return {"reason": INIT_FAILED, "exitCode": ended["exitCode"], "message": ": ".join(map(str, words))}
    return {}


def _disruption(status: Object) -> str:
    for one in _dicts(status.get("conditions")):
        if one.get("type") == "DisruptionTarget" and one.get("status") == "True":
            return ": ".join(filter(None, (_text(one.get("reason"), 60), _text(one.get("message")))))
    return _text(status.get("message")) if status.get("reason") in ("Evicted", "Preempting", "NodeLost") else ""


def waits(job: JobView, pod: PodView | None) -> str:
    """Return in words what a Job waits for, "" if its pod runs or nothing is known."""
    if job.deleting:
        return "somebody deletes it"
    if job.suspended:
        return "suspended"
    return pod.waits if pod else ""


def state_of(job: JobView, pod: PodView | None) -> str:
    """Return the state of a Job. One that is being deleted runs until it is gone. Failure to come is no end."""
    if job.over:
        return job.state
    return RUNNING if job.deleting or (pod and pod.phase not in ("Pending",)) else job.state


def end_of(job: JobView, pods: Sequence[PodView], now: datetime) -> Run:
    """Return how a Job has ended. The Job says that it is over, its pod what it did.

    A pod that has succeeded did so, whatever has been asked of its Job meanwhile, say while the API was away.
    """
    ended = min(job.ended or now, now)
    pod = next((one for one in pods if not _fenced(one)), None)
    found = message.decode(pod.told if pod else job.last) if pod or job.last else None
    succeeded = pod is not None and pod.phase == "Succeeded"
    state, stopped = (COMPLETED, "") if succeeded else (job.state, job.stopped)
    told = message.said(found, checked=job.checks > 0) if found else AgentEnd()
    seconds = whole_seconds(pod.ended - pod.started) if pod and pod.ended and pod.started else None

    def end(result: Result, words: str = "", why: Why | None = None) -> Run:
        at = pod.ended if pod and pod.ended else ended
        code = found.exit_code if found else pod.code if pod else None
        words = clean(words, WORDS_LIMIT)
        return told_end(result, at, told, seconds=seconds, words=words, why=why, exit_code=code)

    if stopped.startswith(SILENCE):
        return end(Result.timeout, stopped.removeprefix(SILENCE), Why.silence)
    if stopped.startswith(CONFIG):
        return end(Result.error, stopped.removeprefix(CONFIG), Why.config)
    if stopped and state != COMPLETED:
        return end(Result.stopped, stopped)
    if pod and pod.disrupted and state != COMPLETED:
        return end(Result.stopped, f"Kubernetes took its pod away: {pod.disrupted}")
    if state == TIMED_OUT or (found and (found.state == "timeout" or found.why == Why.silence)):
        return end(Result.timeout)
    if state == FAILED and found and found.state == "cancelled":
        return end(Result.stopped, "its pod was asked to end")
    if pods and pod is None:
        return end(Result.stopped, f"its pod is gone, and the next one started no agent: {_fence_words(pods[0])}")
    if state == FAILED and pod is None:
        return end(Result.stopped, "its pod was deleted, by hand or by a drain, an eviction or a preemption")
    if pod and pod.reason in NOT_STARTED:
        return end(Result.error, f"{pod.reason}: {_cause(pod.told)}", Why.config)
    if pod and (state == FAILED or pod.phase == "Failed"):
        if found and found.state == "error":  # no agent ran, so its entry alone says why
            return end(Result.error, why=told.why)
        return end(Result.failed, _last_words(pod, found))
    if job.checks and not pod:
        return end(Result.lost, "its pod was deleted, so nobody knows whether its checks have passed")
    if job.checks and (found is None or found.passed is None):
        return end(Result.error, NO_ENTRY, Why.config)
    ended_well = end(Result.completed)
    passed = found is not None and found.passed == job.checks > 0 and ended_well.result is Result.completed
    return msgspec.structs.replace(ended_well, checked=passed)


def _fenced(pod: PodView) -> bool:
    """True: the pod has started no agent, since another one had."""
    found = message.decode(pod.told)
    return found is not None and found.fenced


def _fence_words(pod: PodView) -> str:
    found = message.decode(pod.told)
    return _text(found.words) if found else ""


def _last_words(pod: PodView, found: message.Message | None) -> str:
    """Return what is known of a failed container without a message: its reason, and the end of its log."""
    if found:
        return ""
    how = pod.reason if pod.reason != "Error" else ""
    return ": ".join(filter(None, [how, last_words(pod.told.splitlines())]))


def by_attempt(pods: Iterable[PodView]) -> Mapping[str, PodView]:
    """Return the pod of each attempt: the one that has come furthest, and has started its agent."""
    order = ("Pending", "Unknown", "Running", "Failed", "Succeeded")
    rank = {phase: place for place, phase in enumerate(order)}
    return {pod.attempt: pod for pod in sorted(pods, key=lambda pod: -2 if _fenced(pod) else rank.get(pod.phase, -1))}


def event_words(events: Iterable[Object]) -> str:
    """Return the words of the last warning among events, "" if there is none."""
    last = ""
    for one in events:
        if one.get("type") == "Warning":
            last = ": ".join(filter(None, (_text(one.get("reason"), 60), _cause(one.get("message")))))
    return last


def deleted_job(attempt: str, bead: str, pods: Sequence[PodView]) -> JobView:
    """Return what is left of a Job that somebody has deleted. Its pods go after it, or stay if they were kept."""
    phases = {pod.phase for pod in pods}
    state = RUNNING if phases - {"Succeeded", "Failed"} else COMPLETED if "Succeeded" in phases else CANCELLED
    return JobView(
        name=job_name(attempt),
        attempt=attempt,
        bead=bead,
        assignee="",
        created=None,
        since=None,
        state=state,
        began=True,
        stopped="its Job was deleted",
    )


def overdue(job: JobView, pod: PodView | None, now: datetime, limit: timedelta) -> str:
    """Return why a Job must be given up that waits for its pod, "" if it may wait. A suspended one always may."""
    if job.over or job.stopped or job.suspended or job.deleting or (pod.phase != "Pending" if pod else job.began):
        return ""
    if pod and pod.hopeless:
        return f"{CONFIG}{pod.waits}"
    if job.since and now - job.since > limit:
        return PENDING
    return ""


def _dict(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> Iterator[Object]:
    yield from (one for one in (value if isinstance(value, list) else []) if isinstance(one, dict))


def _text(value: object, limit: int = 200) -> str:
    return without_secrets(value, limit) if isinstance(value, str) else ""


def _count(value: object) -> int:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 5 else 0


def _cause(value: object) -> str:
    """Return an error's words. Those of images and containers are nested, with the cause at the end."""
    text = _text(value, 4000)
    return text if len(text) <= 160 else f"{text[:50].rstrip()} … {text[-107:].lstrip()}"


def _time(value: object) -> datetime | None:
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return None
