"""The metrics' way out: a Pushgateway. A push that fails is a warning, never more."""

import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import ProxyHandler, Request, build_opener

from prometheus_client import CollectorRegistry, Metric, pushadd_to_gateway
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from bdauto.common import log
from bdauto.domain.settings import Secret
from bdauto.domain.values import describe_error, full_url
from bdauto.telemetry.families import COMPLETIONS, COST, REAPS, Command

PUSH_TIMEOUT = 10.0
"""Seconds for one request to a Pushgateway."""


class Pushgateway:
    """A Pushgateway. Dispatch and reap have a group each, so that neither replaces what the other pushed."""

    def __init__(
        self, url: Secret, default: Command, *, instance: str | None = None, namespace: str | None = None
    ) -> None:
        """Take the URL, which may hold user and password. Series that belong to neither go to `default`'s group.

        `instance` (the host's name unless it is given) and `namespace` are labels of both groups. What has the same
        labels is taken for the same bdauto.
        """
        parts = urlsplit(full_url(url.value))
        host = parts.hostname or ""
        address = f"[{host}]" if ":" in host else host
        self._url = urlunsplit(parts._replace(netloc=f"{address}:{parts.port}" if parts.port else address))
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self._login = Secret(user) if parts.username is not None else None
        self._default = default
        self._labels = {"instance": instance or os.uname().nodename} | ({"namespace": namespace} if namespace else {})

    def push(self, registry: CollectorRegistry) -> None:
        """Replace what the gateway has of these metrics. What this process does not know stays as it was."""
        groups: defaultdict[str, _Group] = defaultdict(_Group)
        for family in registry.collect():
            for sample in family.samples:
                groups[self._group(sample)].add(family, sample)
        for command, group in groups.items():
            labels = {"command": command, **self._labels}
            try:
                pushadd_to_gateway(self._url, "bdauto", group, labels, PUSH_TIMEOUT, self._send)
            except Exception as error:  # urllib and http.client raise many kinds
                log.warning("metrics-failed", target="pushgateway", error=describe_error(error))

    def trouble(self) -> str:
        """Ask the gateway whether it is healthy, and return what is wrong, or ""."""
        try:
            self._send(f"{self._url.rstrip('/')}/-/healthy", "GET", PUSH_TIMEOUT, [], None)()
        except Exception as error:  # urllib and http.client raise many kinds
            return describe_error(error)
        return ""

    def _group(self, sample: Sample) -> str:
        return sample.labels.get("command") or ("reap" if sample.name in (REAPS, COMPLETIONS, COST) else self._default)

    def _send(
        self, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes | None
    ) -> Callable[[], None]:
        """Return what sends one request: past any proxy, which the environment could name."""
        request = Request(url, data, dict(headers), method=method)  # noqa: S310 - checked to be HTTP
        if self._login:
            request.add_unredirected_header("Authorization", f"Basic {b64encode(self._login.value.encode()).decode()}")

        def send() -> None:
            with build_opener(ProxyHandler({})).open(request, timeout=timeout):
                pass

        return send


class _Group(Collector):
    """The series of one group, by family."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, family: Metric, sample: Sample) -> None:
        part = Metric(family.name, family.documentation, family.type)
        self._families.setdefault(family.name, part).samples.append(sample)

    def collect(self) -> Iterable[Metric]:
        return self._families.values()
