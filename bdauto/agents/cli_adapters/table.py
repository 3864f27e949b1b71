"""The table of adapters, and how the output of any other command is read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, tzinfo
from pathlib import Path

import msgspec

from bdauto.agents.cli_adapters import claude, codex, gemini, opencode
from bdauto.agents.cli_adapters.session_files import NAME
from bdauto.agents.cli_adapters.stream import Stream
from bdauto.agents.cli_adapters.transcript import Event, Read, Transcript, event_of, events
from bdauto.domain.agent_end import AgentEnd


class Adapter(msgspec.Struct, frozen=True):
    """One agent's command line. `command` takes the model, the most that a run may cost, and the session to resume.

    `keeps` takes a session, the folder that it ran in and the agent's environment. It says whether the session is on
    this machine. `versions` are those that the adapter was written for. `tells_cost` says whether its output has the
    cost of a run, `limits_cost` whether it can be given a limit, `streams_cost` whether it says costs before its end,
    `sums_tokens` whether a resumed session tells the tokens of all its runs. Each tells the cost of the run alone.
    """

    program: str
    command: Callable[[str, float | None, str], list[str]]
    read: Read
    keeps: Callable[[str, Path, Mapping[str, str]], bool]
    versions: str
    tells_cost: bool = False
    limits_cost: bool = False
    streams_cost: bool = False
    sums_tokens: bool = False

    def can_resume(self, session: str, directory: Path, environment: Mapping[str, str]) -> bool:
        """Return whether this session of this folder is on this machine. Raises nothing."""
        try:
            return bool(NAME.fullmatch(session)) and self.keeps(session, directory, environment)
        except (OSError, ValueError):  # a folder that cannot be read
            return False


ADAPTERS = {
    "claude": Adapter(
        claude.PROGRAM, claude.command, claude.read, claude.has_session, "1.0 to 2.1", tells_cost=True, limits_cost=True
    ),
    "codex": Adapter(codex.PROGRAM, codex.command, codex.read, codex.has_session, "0.40 to 0.147", sums_tokens=True),
    "gemini": Adapter(gemini.PROGRAM, gemini.command, gemini.read, gemini.has_session, "0.11 to 0.56"),
    "opencode": Adapter(
        *(opencode.PROGRAM, opencode.command, opencode.read, opencode.has_session),
        "1.4 to 1.18",
        tells_cost=True,
        streams_cost=True,
    ),
}
"""The adapters by the name that `--agent` takes."""


def reads_of(agent: str) -> dict[str, Read]:
    """Return the reader of an agent's output. For any other command, each object is recognized by its shape."""
    return {name: adapter.read for name, adapter in ADAPTERS.items() if agent in ("", name)}


class Reader:
    """Reads an output as it comes. `agent` is the adapter, "" if each object is recognized by its shape."""

    def __init__(self, agent: str = "") -> None:
        self._reads, self._transcript, self._stream = reads_of(agent), Transcript(), Stream()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that are complete with these bytes."""
        for value in self._stream.feed(data):
            yield from event_of(value, self._transcript, self._reads)

    def end(self) -> Iterator[Event]:
        """Yield the events of what is left."""
        for value in self._stream.end():
            yield from event_of(value, self._transcript, self._reads)
        yield from self._transcript.end_piece()


def last_event(chunks: Iterable[bytes], agent: str) -> str:
    """Return the last event of an output, or of its end, on one line. "" if there is none."""
    reader, last = Reader(agent), ""
    for event in (*(event for chunk in chunks for event in reader.feed(chunk)), *reader.end()):
        last = event.line() or last
    return last


def since_resumed(end: AgentEnd, tokens: int) -> AgentEnd:
    """Return the end of a run whose session had so many tokens before it."""
    sums = end.agent in ADAPTERS and ADAPTERS[end.agent].sums_tokens
    if not sums or end.tokens is None or end.tokens < tokens:
        return end
    return msgspec.structs.replace(end, tokens=end.tokens - tokens)


def read_end(chunks: Iterable[bytes], agent: str, ended: datetime, local: tzinfo | None, *, failed: bool) -> AgentEnd:
    """Return the end of a run from its whole output. `failed` says that the command ended with an error."""
    transcript = Transcript()
    for _ in events(chunks, transcript, reads_of(agent)):
        pass
    return transcript.end(ended, local, failed=failed)
