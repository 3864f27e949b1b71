"""Create the Job of an attempt, and what the answer of the API means (docs/kubernetes.md has the table)."""

from typing import TYPE_CHECKING

from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started
from bdauto.agents.kubernetes.evidence import read_job
from bdauto.agents.kubernetes.template import ATTEMPT, BEAD, Object
from bdauto.common.clock import Runtime
from bdauto.common.errors import ServiceDown, ServiceError, ServiceRefusal

if TYPE_CHECKING:
    from bdauto.agents.kubernetes.cluster import Cluster

API = "the Kubernetes API"
AGAIN = 2.0
"""Seconds within which a Job is created again that is not there. No longer: a pause may have begun since."""
FIND = 10.0
"""Seconds within which the API is asked again whether the Job is there, once an answer was lost."""
HINT = "run `bdauto doctor`, which checks the rights and the template"


def start(cluster: "Cluster", job: Object, runtime: Runtime) -> Answer:
    """Create the Job. If the answer is lost, look for it by its name, and create it again where it is not there."""
    began, wait = runtime.monotonic(), 0.1
    while True:
        answer = _create(cluster, job)
        lost = answer.message if isinstance(answer, ServiceDown) else ""
        if lost:
            answer = _find(cluster, job, runtime, began + FIND)
        if not isinstance(answer, ServiceError):
            return answer
        if runtime.monotonic() - began + wait > AGAIN:
            return NotStarted(lost or answer.message)
        runtime.sleep(wait)
        wait *= 2


def _create(cluster: "Cluster", job: Object) -> Answer | ServiceError:
    """Create the Job once. A ServiceError is returned where it is to be tried again, ServiceDown if it may be there."""
    try:
        cluster.create_job(job)
    except ServiceDown as error:
        return error
    except ServiceRefusal as error:
        if error.code == 409:  # it exists, or the quota's counter has changed meanwhile
            return ServiceDown(error.message) if error.reason == "AlreadyExists" else error
        if error.code == 403 and "exceeded quota" in error.words:
            return AtCapacity(f"the namespace is full: {error.words}")
        return Refused(error.words, API, HINT) if error.code == 422 else Misconfigured(error.message, API, HINT)
    return Started(job["metadata"]["labels"][ATTEMPT])


def _find(cluster: "Cluster", job: Object, runtime: Runtime, until: float) -> Answer | ServiceError:
    """Return what the Job of this name means, or the error if there is none, or nobody can be asked."""
    name = job["metadata"]["name"]
    while True:
        try:
            found = cluster.job(name)
            break
        except ServiceDown as error:
            if runtime.monotonic() + 1 > until:
                return NotStarted(error.message)
            runtime.sleep(1)
        except ServiceRefusal as error:
            return Misconfigured(error.message, API, HINT)
    if found is None:
        return ServiceDown(f"{API} has not created the Job")
    view = read_job(found)
    if view is None or view.bead != job["metadata"]["annotations"][BEAD]:
        return NotStarted(f"the name {name} is taken by a Job of somebody else")
    if view.tombstone:
        return NotStarted("its claim was given up meanwhile, or cancelled")
    if view.deleting:
        return NotStarted(f"somebody deletes the Job {name}")
    return Started(view.attempt)
