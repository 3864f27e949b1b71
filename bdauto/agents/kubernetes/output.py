"""The log of a Job's pod, and what it says of costs."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bdauto.agents.cli_adapters import table
from bdauto.agents.cli_adapters.transcript import Event
from bdauto.agents.kubernetes import message
from bdauto.agents.kubernetes.evidence import PodView
from bdauto.common.sanitize import without_secrets
from bdauto.domain.record import Result
from bdauto.domain.results import told_end

if TYPE_CHECKING:
    from bdauto.agents.kubernetes.cluster import Cluster

TAIL = 200
"""Lines of a log that are read before its Job is ended, and that are kept at most."""
KEPT_BYTES, KEPT_LINE = 16_000, 500
"""So many bytes of them are kept, from their end, and so many characters of each."""


class PodOutput:
    """The output of a Job. Each `read` yields the lines that are newer than the last one."""

    agent = ""

    def __init__(
        self,
        cluster: "Cluster",
        find: Callable[[], PodView | None],
        state: Callable[[], str],
        monotonic: Callable[[], float],
        kept: Callable[[], str],
    ) -> None:
        """`find` returns the pod, None while there is none, `state` the Job's state, `kept` what is kept of a log."""
        self._cluster = cluster
        self._find = find
        self._kept = kept
        self._said = ""
        self._monotonic = monotonic
        self.state = state
        self._pod: PodView | None = None
        self._last = ""
        self._at: float | None = None

    def read(self) -> Iterator[bytes]:
        """Yield the new lines. Nodes have other clocks, so the API is asked for a span of time, not for a moment."""
        self._pod = self._pod or self._find()
        if self._pod is None:
            before, self._said = self._said, self._said or self._kept()
            yield self._said.removeprefix(before).encode()
            return
        now = self._monotonic()
        since = None if self._at is None else math.ceil(now - self._at) + 2
        self._at = now
        before = self._last
        for line in self._cluster.log(self._pod.name, self._pod.container, since=since):
            at, _, text = line.partition(" ")
            if at > before:
                self._last = max(self._last, at)
                yield text.encode()


def tail(cluster: "Cluster", pod: PodView) -> Iterator[bytes]:
    """Yield the last lines of a log. Raises ServiceError."""
    for line in cluster.log(pod.name, pod.container, lines=TAIL):
        yield line.partition(" ")[2].encode()


def figures(lines: Sequence[bytes], now: datetime) -> str:
    """Return the message that the end of a log allows, for a pod that will be gone."""
    said = table.read_end(lines, "", now, UTC, failed=True)
    return message.encode(message.message_of(told_end(Result.stopped, now, said), "cancelled")).decode()


def kept(lines: Iterable[bytes]) -> str:
    """Return what is kept of the end of a log: what `bdauto logs` would show of it, bounded, without secrets.

    A line of an agent may have megabytes, so they are not held together.
    """
    shown: deque[str] = deque(maxlen=TAIL)
    for event in _events(lines):
        shown.extend(without_secrets(line, KEPT_LINE) + "\n" for line in event.lines().splitlines())
    while sum(len(line.encode()) for line in shown) > KEPT_BYTES:
        shown.popleft()
    return "".join(shown)


def _events(lines: Iterable[bytes]) -> Iterator[Event]:
    reader = table.Reader()
    for line in lines:
        yield from reader.feed(line)
    yield from reader.end()
