"""The calls of the Kubernetes API that bdauto makes. No other module imports lightkube.

Objects are plain JSON, so that what this version of the library does not know is kept. Large lists come in pages.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from lightkube import Client, KubeConfig, operators
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.generic_resource import GenericGlobalResource, GenericNamespacedResource, create_api_info
from lightkube.types import PatchType

from bdauto.common.errors import ServiceDown, ServiceRefusal, UsageError
from bdauto.common.sanitize import clean

Object = dict[str, Any]
TIMEOUT = 5.0
"""Seconds for each step of a request: to connect, to send, to get the next piece of the answer."""
PAGE = 100
"""Objects in one page of a list. A pod takes some kilobytes, more with a long prompt."""
SERVICE = "the Kubernetes API"


class _Job(GenericNamespacedResource):
    _api_info = create_api_info("batch", "v1", "Job", "jobs")


class _CronJob(GenericNamespacedResource):
    _api_info = create_api_info("batch", "v1", "CronJob", "cronjobs")


class _Pod(GenericNamespacedResource):
    _api_info = create_api_info("", "v1", "Pod", "pods")


class _Event(GenericNamespacedResource):
    _api_info = create_api_info("", "v1", "Event", "events")


class _Quota(GenericNamespacedResource):
    _api_info = create_api_info("", "v1", "ResourceQuota", "resourcequotas")


class _AccessReview(GenericGlobalResource):
    _api_info = create_api_info(
        "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", ["post"]
    )


class Cluster:
    """One namespace of a cluster. Methods raise ServiceDown without a usable answer, else ServiceRefusal."""

    def __init__(
        self, namespace: str | None, context: str | None, transport: httpx2.BaseTransport | None = None
    ) -> None:
        """Read the kubeconfig, or the pod's service account. `transport` replaces the network. Raises UsageError."""
        try:
            file = os.environ.get("KUBECONFIG") or (DEFAULT_KUBECONFIG if context else "")
            config = (KubeConfig.from_file(file) if file else KubeConfig.from_env()).get(context_name=context)
            self._client = Client(config, namespace, httpx2.Timeout(TIMEOUT), transport=transport)
        except Exception as error:  # a file of the user's: whatever is wrong with it is said on one line
            words = f"the kubeconfig cannot be used: {clean(str(error) or type(error).__name__)}"
            raise UsageError(words, hint="check KUBECONFIG and --kubernetes-context with `kubectl get jobs`") from None
        self.namespace = self._client.namespace
        self.calls = 0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def cron_job(self, name: str) -> Object | None:
        """Return a CronJob, None if there is none."""
        return self._get(_CronJob, name)

    def job(self, name: str) -> Object | None:
        """Return a Job, None if there is none."""
        return self._get(_Job, name)

    def create_job(self, job: Object, *, dry_run: bool = False) -> Object:
        """Create a Job and return it as the API has stored it. With `dry_run` it stores nothing."""
        with self._asking():
            return dict(self._client.create(_Job.from_dict(job), namespace=self.namespace, dry_run=dry_run))

    def patch_job(self, name: str, patch: Object) -> bool:
        """Merge a patch into a Job. Return False if there is none."""
        try:
            with self._asking():
                self._client.patch(_Job, name, patch, namespace=self.namespace, patch_type=PatchType.MERGE)
        except ServiceRefusal as error:
            if error.code == 404:
                return False
            raise
        return True

    def jobs(self, labels: Mapping[str, str], without: str = "") -> Iterator[Object]:
        """Yield the Jobs with these labels and without that one."""
        selector: dict[str, Any] = {**labels, **({without: operators.not_exists()} if without else {})}
        return self._list(_Job, labels=selector)

    def pods(self, labels: Mapping[str, str], *, unfinished: bool = False) -> Iterator[Object]:
        """Yield the pods with these labels, with `unfinished` only those that may yet run."""
        fields = {"status.phase": operators.not_in(["Succeeded", "Failed"])} if unfinished else None
        return self._list(_Pod, labels=dict(labels), fields=fields)

    def events(self, kind: str, name: str) -> Iterator[Object]:
        """Yield the events of an object."""
        return self._list(_Event, fields={"involvedObject.kind": kind, "involvedObject.name": name})

    def quotas(self) -> list[Object]:
        """Return the resource quotas of the namespace."""
        return [*self._list(_Quota)]

    def log(self, pod: str, container: str, *, since: int | None = None, lines: int | None = None) -> Iterator[str]:
        """Yield the lines of a container's log, each after its time. None are there before the container starts."""
        try:
            with self._asking():
                yield from self._client.log(
                    pod, namespace=self.namespace, container=container, since=since, tail_lines=lines, timestamps=True
                )
        except ServiceRefusal as error:
            if error.code not in (400, 404):  # it has not started, or is gone
                raise

    def may(self, verb: str, resource: str) -> bool:
        """Return whether this account may do that in the namespace. `resource` is GROUP/NAME or GROUP/NAME/PART."""
        group, name, part = [*resource.split("/"), ""][:3]
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": name, "subresource": part}
        with self._asking():
            found = self._client.create(
                _AccessReview.from_dict({"metadata": {}, "spec": {"resourceAttributes": asked}})
            )
        return bool((found.get("status") or {}).get("allowed"))

    def _get(self, kind: type[GenericNamespacedResource], name: str) -> Object | None:
        try:
            with self._asking():
                return dict(self._client.get(kind, name, namespace=self.namespace))
        except ServiceRefusal as error:
            if error.code == 404:
                return None
            raise

    def _list(self, kind: type[GenericNamespacedResource], **selectors: Any) -> Iterator[Object]:
        with self._asking():
            for number, found in enumerate(
                self._client.list(kind, namespace=self.namespace, chunk_size=PAGE, **selectors)
            ):
                self.calls += bool(number and number % PAGE == 0)
                if isinstance(found, dict):
                    yield found

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn the library's errors into this project's."""
        self.calls += 1
        try:
            yield
        except ApiError as error:
            status = error.status
            code, words = status.code or error.response.status_code, clean(status.message or "")
            if code >= 500 or code == 429:
                raise ServiceDown(f"{SERVICE} answers {code}: {words}") from None
            raise _refusal(code, clean(status.reason or "", 60), words) from None
        except httpx2.HTTPStatusError as error:
            code = error.response.status_code
            if code >= 500 or code == 429:
                raise ServiceDown(f"{SERVICE} answers {code}") from None
            raise _refusal(code) from None
        except ConfigError as error:
            raise ServiceDown(f"{SERVICE}: {clean(str(error))}", hint="check the kubeconfig") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ValueError, RecursionError, OSError) as error:
            words = f"{SERVICE} does not answer: {clean(str(error) or type(error).__name__)}"
            raise ServiceDown(
                words, hint="check that it can be reached, as with `kubectl get jobs`", silent=True
            ) from None


def _refusal(code: int, reason: str = "", words: str = "") -> ServiceRefusal:
    words = words or reason or "no reason"
    return ServiceRefusal(f"{SERVICE} answers {code}: {words}", code=code, reason=reason, words=words)
