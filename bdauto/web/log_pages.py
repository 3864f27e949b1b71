"""The log of a job on a page: its end, and what comes after that as server-sent events.

A stream has a thread of the listener while it is open. At most STREAMS are, each for STREAM_SECONDS at most. The
browser then connects again, and gets the end of the log anew.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bdauto.agents.cli_adapters.table import Reader
from bdauto.common.errors import BdautoError
from bdauto.domain.reaping import ALIVE

if TYPE_CHECKING:
    from bdauto.agents.runner import JobOutput

LOG_BYTES = 1 << 16
"""Bytes of a job's output, from its end, that a page holds."""
STREAMS = 4
STREAM_SECONDS = 40.0
"""Less than the listener lets a connection be open."""
INTERVAL = 1.0
"""Seconds between two looks at the output."""
KEEP_ALIVE = b": nothing new\n\n"
"""A comment. Writing it finds out whether the reader is still there."""


class Log:
    """A job's output as text: what the agent does and says."""

    def __init__(self, output: "JobOutput") -> None:
        self._output = output
        self._reader = Reader(output.agent)

    def end(self) -> str:
        """Return the end of the output so far. Raises ServiceError."""
        kept, cut = b"", False
        for data in self._output.read():
            kept, cut = (kept + data)[-LOG_BYTES:], cut or len(kept) + len(data) > LOG_BYTES
        if cut:
            kept = kept.partition(b"\n")[2]  # its first line is cut
        return self._text(kept)

    def new(self) -> str:
        """Return what came since the last call. Raises ServiceError."""
        return self._text(b"".join(self._output.read())[-LOG_BYTES:])

    def rest(self) -> str:
        """Return what the last lines were, once nothing follows."""
        return "\n".join(event.lines() for event in self._reader.end())

    def _text(self, data: bytes) -> str:
        return "\n".join(event.lines() for event in self._reader.feed(data))


def whole(output: "JobOutput") -> str:
    """Return the end of a log, or why there is none."""
    try:
        output.state()  # asks the agent service for the job
        found = Log(output)
        return "\n".join(text for text in (found.end(), found.rest()) if text)
    except BdautoError as error:
        return str(error)


class Streams:
    """The places for streams."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._places = threading.BoundedSemaphore(STREAMS)
        self._sleep = sleep

    def open(self, output: "JobOutput") -> "Stream | None":
        """Return a stream of this output, or None if all places are taken."""
        return Stream(output, self._places, self._sleep) if self._places.acquire(blocking=False) else None


class Stream:
    """Server-sent events of one job: `log` with the end of the log, `more` with each addition, `end` with its state."""

    def __init__(self, output: "JobOutput", places: threading.BoundedSemaphore, sleep: Callable[[float], None]) -> None:
        self._output, self._places, self._sleep = output, places, sleep
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        """Yield events until the job ends, or for STREAM_SECONDS."""
        try:
            yield from self._events()
        except BdautoError as error:
            yield _event("end", str(error))

    def _events(self) -> Iterator[bytes]:
        lines = Log(self._output)
        yield _event("log", lines.end())
        for _ in range(int(STREAM_SECONDS / INTERVAL)):
            state = self._output.state()
            text = lines.new()
            if state not in ALIVE:
                yield _event("more", "\n".join(filter(None, (text, lines.rest()))))
                yield _event("end", state)
                return
            yield _event("more", text) if text else KEEP_ALIVE
            self._sleep(INTERVAL)

    def close(self) -> None:
        """Give the place back. The listener calls this when the connection is over."""
        if self._open:
            self._open = False
            self._places.release()


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
