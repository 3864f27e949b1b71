"""The metrics' ways out: a file for node_exporter's textfile collector, and a Pushgateway.

Failing to write metrics is a warning, never more.
"""

import contextlib
import fcntl
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from bdauto import log
from bdauto.metrics import FAMILIES, REAPS, Command, Exposition, Key, Metrics, Samples, counts, family, page
from bdauto.settings import Secret, redact
from bdauto.text import clean

PUSH_TIMEOUT = 10.0
"""Seconds for one request to a Pushgateway."""


class MetricsFile:
    """A file that one or more processes write in turn: counters add up, gauges are those of the last writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Samples = {}

    def save(self, metrics: Metrics) -> None:
        """Add what was counted since the last time to what stands in the file, and replace the file in one step."""
        samples = metrics.samples()
        try:
            with _locked(self._path.parent):
                merged = self._merged(self._read(), samples)
                _replace(self._path, page(merged))
        except OSError as error:
            log.warning("metrics-failed", target="file", error=f"{self._path}: {error.strerror}")
        else:
            self._written = samples

    def _read(self) -> Samples:
        try:
            return parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            log.warning("metrics-failed", target="file", error=f"{self._path} begins anew: {clean(str(error))}")
            return {}

    def _merged(self, before: Samples, samples: Samples) -> Samples:
        merged = dict(before)
        for series, value in samples.items():
            if counts(series):
                merged[series] = before.get(series, 0.0) + value - self._written.get(series, 0.0)
            else:
                merged[series] = value
        return merged


def parse(text: str) -> Samples:
    """Read bdauto's own series from Prometheus' text format; raises ValueError for what is not in that format."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: Samples = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            if family(sample.name) in FAMILIES and math.isfinite(sample.value):
                samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return samples


class Pushgateway:
    """A Pushgateway. Each job is a group of its own, since the gateway's label `job` replaces the metrics' own."""

    def __init__(self, url: Secret, default: Command) -> None:
        """Take the URL, which may hold user and password; series that belong to no job go to `default`'s group."""
        parts = urlsplit(url.value if "://" in url.value else f"http://{url.value}")
        host = parts.hostname or ""
        address = f"[{host}]" if ":" in host else host
        self._url = urlunsplit(parts._replace(netloc=f"{address}:{parts.port}" if parts.port else address))
        self._user = unquote(parts.username) if parts.username is not None else None
        self._password = Secret(unquote(parts.password or ""))
        self._default = default

    def push(self, samples: Samples) -> None:
        """Replace what the gateway has of these jobs."""
        from prometheus_client import push_to_gateway

        groups: dict[str, Samples] = {}
        for series, value in samples.items():
            groups.setdefault(self._group(series), {})[series] = value
        for job, group in groups.items():
            try:
                push_to_gateway(self._url, job, Exposition(group), timeout=PUSH_TIMEOUT, handler=self._send)
            except Exception as error:  # urllib and http.client raise many kinds
                log.warning("metrics-failed", target="pushgateway", error=redact(clean(str(error))))

    def _group(self, series: Key) -> str:
        return dict(series[1]).get("job") or ("reap" if series[0] == REAPS else self._default)

    def _send(
        self, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        from prometheus_client.exposition import basic_auth_handler, default_handler

        if self._user is None:
            return default_handler(url, method, timeout, headers, data)
        return basic_auth_handler(url, method, timeout, headers, data, self._user, self._password.value)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder: two writers of one file would lose each other's counts."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)  # node_exporter is another user
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
