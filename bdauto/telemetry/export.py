"""The metrics' ways out: a file for node_exporter's textfile collector, and a Pushgateway.

Failing to write metrics is a warning, never more.
"""

import math
import os
import stat
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import ProxyHandler, Request, build_opener

from prometheus_client import CollectorRegistry, Metric, pushadd_to_gateway, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bdauto import log
from bdauto.domain.settings import Secret
from bdauto.domain.values import full_url, redact
from bdauto.lock import locked
from bdauto.sanitize import clean
from bdauto.telemetry.families import COMPLETIONS, FAMILIES, REAPS, Command

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series: the sample's name, and its labels in order."""
Samples = dict[Key, float]

PUSH_TIMEOUT = 10.0
"""Seconds for one request to a Pushgateway."""
LOCK_TIMEOUT = 2.0
"""Seconds to wait for another writer of the file, which holds the lock for milliseconds."""
LARGEST_FILE = 1 << 20
"""Bytes of a metrics file that are read: bdauto's own metrics are a few KiB."""


class MetricsFile:
    """A file that one or more processes write in turn: counters add up, gauges are those of the last writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Samples = {}

    def save(self, registry: CollectorRegistry) -> None:
        """Add what was counted since the last time to what stands in the file, and replace the file in one step."""
        samples = collected(registry)
        try:
            with locked(self._path.parent, LOCK_TIMEOUT):  # two writers would lose each other's counts
                write_to_textfile(str(self._path), registry_of(self._merged(self._read(), samples)))
                self._path.chmod(0o644)  # node_exporter is another user
        except OSError as error:
            log.warning("metrics-failed", target="file", error=f"{self._path}: {error.strerror or error}")
        else:
            self._written = samples

    def _read(self) -> Samples:
        try:
            return parse(_read_regular(self._path).decode())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            log.warning("metrics-failed", target="file", error=f"{self._path} begins anew: {clean(str(error))}")
            return {}

    def _merged(self, before: Samples, samples: Samples) -> Samples:
        """Return the series for the file. Only a gauge does not add up."""
        added = {
            series: value
            if _kind(series) == "gauge"
            else before.get(series, 0.0) + value - self._written.get(series, 0.0)
            for series, value in samples.items()
        }
        return before | added


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
        groups: dict[str, Samples] = {}
        for series, value in collected(registry).items():
            groups.setdefault(self._group(series), {})[series] = value
        for command, group in groups.items():
            labels = {"command": command, **self._labels}
            try:
                pushadd_to_gateway(self._url, "bdauto", registry_of(group), labels, PUSH_TIMEOUT, self._send)
            except Exception as error:  # urllib and http.client raise many kinds
                log.warning("metrics-failed", target="pushgateway", error=redact(clean(str(error))))

    def trouble(self) -> str:
        """Ask the gateway whether it is healthy, and return what is wrong, or ""."""
        try:
            self._send(f"{self._url.rstrip('/')}/-/healthy", "GET", PUSH_TIMEOUT, [], None)()
        except Exception as error:  # urllib and http.client raise many kinds
            return redact(clean(str(error))) or type(error).__name__
        return ""

    def _group(self, series: Key) -> str:
        return dict(series[1]).get("command") or ("reap" if series[0] in (REAPS, COMPLETIONS) else self._default)

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


def collected(registry: CollectorRegistry) -> Samples:
    """Return all series of a registry as they are now."""
    return _samples(registry.collect())


def parse(text: str) -> Samples:
    """Read bdauto's own series from Prometheus' text format. Raises ValueError for anything else."""
    return _samples(text_string_to_metric_families(text))


def _samples(families: Iterable[Metric]) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if _family(sample.name) in FAMILIES and math.isfinite(sample.value)
    }


def registry_of(samples: Samples) -> CollectorRegistry:
    """Return a registry that holds these series."""
    registry = CollectorRegistry()
    registry.register(_Held(samples))
    return registry


class _Held(Collector):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        for name, (kind, words) in FAMILIES.items():
            metric = Metric(name.removesuffix("_total"), words, kind)
            for sample, labels in sorted((key for key in self._samples if _family(key[0]) == name), key=_order):
                metric.add_sample(sample, dict(labels), self._samples[sample, labels])
            if metric.samples:
                yield metric


def _order(series: Key) -> tuple[object, ...]:
    name, labels = series
    return name, [(label, float(value) if label == "le" else value) for label, value in labels]


def _family(sample: str) -> str:
    head, _, part = sample.rpartition("_")
    return head if part in ("bucket", "sum", "count") and head in FAMILIES else sample


def _kind(series: Key) -> str:
    return FAMILIES[_family(series[0])][0]


def _read_regular(path: Path) -> bytes:
    """Read a file. Raises OSError for a pipe or a device, which could hang or never end, and for a large file."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a regular file")
        if found.st_size > LARGEST_FILE:
            raise OSError("too large to be a file of bdauto's metrics")
        return file.read(LARGEST_FILE)
