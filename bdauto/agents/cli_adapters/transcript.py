"""Adds up the output of one job: events to show, and one end."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Any, Literal

import msgspec

from bdauto.agents.cli_adapters.plain import error_line, error_text, failure
from bdauto.agents.cli_adapters.stream import TEXT_LIMIT, Value, values
from bdauto.common.sanitize import clean, clean_lines, hide_secrets, without_secrets
from bdauto.domain.agent_end import AgentEnd, Why, cause
from bdauto.domain.record_values import checked_cost, checked_count
from bdauto.domain.reset_time import LONGEST, reset_time
from bdauto.domain.results import error_words, last_line, last_words, telling_lines

Kind = Literal["session", "text", "tool", "limit", "error", "result"]
_MARKS: dict[Kind, str] = {"session": "● ", "limit": "! ", "error": "✗ ", "result": "■ "}
MOST_NAMES = 20
"""Sessions and denied tools that are kept."""
MOST_TEXT = 1 << 16
"""How many characters of error messages are kept, the last ones."""
LAST_LINES = 40
"""Lines of text that are kept, the last ones: a plain command says there why it failed."""
SUBJECT_LIMIT = 160
_COST = re.compile(r"cost.{0,80}\$(\d+(?:\.\d+)?) session", re.ASCII | re.IGNORECASE)


class Event(msgspec.Struct, frozen=True):
    """One thing that an agent did. `name` is that of a tool, `text` its subject, or what was said."""

    kind: Kind
    text: str
    name: str = ""

    def line(self) -> str:
        """Return the event on one line."""
        text = without_secrets(clean_lines(self.text), SUBJECT_LIMIT)
        if self.kind != "tool":
            return f"{_MARKS.get(self.kind, '')}{text}"
        return f"$ {text}" if self.name == "$" else f"▸ {clean(self.name, 40)} {text}".rstrip()

    def lines(self) -> str:
        """Return the event as `bdauto logs` shows it: what was said on as many lines as it has."""
        if self.kind == "text":
            return hide_secrets(clean_lines(self.text)).rstrip("\n")
        return self.line()


class Figures(msgspec.Struct):
    """The figures of one session. They are sums, so a later result of the same session replaces them."""

    cost_usd: float | None = None
    tokens: int | None = None
    turns: int | None = None
    seconds: int | None = None


class Transcript:
    """Collects what an output says. The last result decides why the run ended."""

    def __init__(self) -> None:
        self.agent: str | None = None
        self._why: Why | None = None
        self._words = self._piece = self._line = self._errors = ""
        self.limit_reached = False
        self._sessions: dict[str, None] = {}
        self._denied: dict[str, None] = {}
        self._calls: dict[str, str] = {}
        self._figures: dict[str, Figures] = {}
        self._resets: list[datetime] = []
        self._lines: list[str] = []

    def begun(self, name: object, model: object = "") -> Iterator[Event]:
        """Note that a session begins."""
        if session := self.session(name):
            yield Event("session", f"session {session}" + (f", {model}" if isinstance(model, str) and model else ""))

    def session(self, name: object) -> str:
        """Note that what follows belongs to this session. Return its name, "" if `name` is not valid."""
        if not isinstance(name, str) or not re.fullmatch(r"[\w.:-]{1,100}", name, re.ASCII):
            return ""
        self._sessions.pop(name, None)
        self._sessions[name] = None
        return name

    @property
    def last_session(self) -> str:
        """The session that was named last, or ""."""
        return next(reversed(self._sessions), "")

    def figures(self, session: str) -> Figures:
        """Return the figures of a session, which the caller fills in. A result without a session gets its own."""
        return self._figures.setdefault(session or f"#{len(self._figures)}", Figures())

    def said(self, text: object) -> Iterator[Event]:
        """Note a message of the agent."""
        if isinstance(text, str) and text.strip():
            self._words = text
            yield Event("text", text)

    def piece(self, text: str) -> Iterator[Event]:
        """Note a piece of a message. What follows without another event in between belongs to it."""
        self._piece += text
        self._words = self._piece
        *lines, self._line = f"{self._line}{text}".split("\n") if "\n" in text else [self._line + text]
        yield from (Event("text", line) for line in lines if line.strip())

    def end_piece(self) -> Iterator[Event]:
        """Note that the message is complete."""
        last, self._line, self._piece = self._line, "", ""
        yield from [Event("text", last)] if last.strip() else []

    def failed(self, message: object, why: Why | None = None) -> Iterator[Event]:
        """Note an error of the command. It decides why the run ended, unless a result follows."""
        text = message if isinstance(message, str) else ""
        self._errors = f"{self._errors}\n{text}"[-MOST_TEXT:]
        self._why = why or cause(text) or Why.error
        self._words = text or self._words
        yield Event("error", text)

    def limited(self, text: str, reset_at: datetime | None) -> Iterator[Event]:
        """Note that a limit is reached. A result without an error shows that the command got round it."""
        self._why, self.limit_reached = Why.limit, True
        self._resets += [reset_at] if reset_at else []
        yield Event("limit", text)

    def ended(self, text: object, why: Why = Why.ok) -> Iterator[Event]:
        """Note a result: the agent's last words, and why it ended."""
        self._why = why
        words = text if isinstance(text, str) else ""
        new = words.strip() != self._words.strip()
        self._words = words or self._words
        yield Event("result", f"{why}: {words}" if words.strip() and new else f"{why}")

    def deny(self, tool: object) -> None:
        """Note a tool that the command was not allowed to use."""
        if isinstance(tool, str) and tool and len(self._denied) < MOST_NAMES:
            self._denied[without_secrets(tool, 80)] = None

    def call(self, call_id: object, tool: object) -> None:
        """Note that a tool is called, until `called`."""
        if isinstance(call_id, str) and isinstance(tool, str) and len(self._calls) < MOST_NAMES:
            self._calls[call_id] = tool

    def called(self, call_id: object) -> str:
        """Return the tool of a call that is over, "" if it is unknown."""
        return self._calls.pop(call_id, "") if isinstance(call_id, str) else ""

    def line(self, text: str) -> Iterator[Event]:
        """Note a line of plain text."""
        self._lines = [*self._lines[1 - LAST_LINES :], text]
        if (cost := _COST.search(text)) is not None:  # aider
            self._figures["text"] = Figures(cost_usd=checked_cost(cost[1]))
        yield Event("text", text)

    def end(self, ended: datetime, local: tzinfo | None, *, failed: bool = False) -> AgentEnd:
        """Return the end of the run. `ended` and `local` are passed to `reset_time`.

        With `failed`, a command that did not say why it ended is judged by the last lines that it printed.
        """
        told = f"{self._errors}\n{self._words}" if self._why else "\n".join(self._lines)
        why = self._why or (failure(self._lines) if failed else None)
        why = Why.denied if why is Why.ok and self._denied else why
        error = error_line(self._lines) if failed and not self._why else ""
        resets = [at for at in self._resets if ended < at <= ended + LONGEST]
        reset_at = max(resets, default=reset_time(told, ended, local))  # all of the limits must be over
        figures = self._figures.values()
        return AgentEnd(
            agent=self.agent,
            why=why,
            words=last_line(error) or self._last_words(crashed=failed and not self._why),
            cost_usd=_sum(checked_cost(each.cost_usd) for each in figures),
            tokens=_total(each.tokens for each in figures),
            turns=_total(each.turns for each in figures),
            seconds=_total(each.seconds for each in figures),
            sessions=tuple(self._sessions)[-MOST_NAMES:],
            denied=tuple(self._denied),
            reset_at=reset_at if why in (None, Why.limit, Why.overloaded) else None,
        )

    def unknown(self, value: dict[str, Any]) -> None:
        """Note an object that no adapter knows. It counts if a provider of models reports an error in it."""
        if text := error_text(value):
            self._lines = [*self._lines[1 - LAST_LINES :], text[:TEXT_LIMIT]]

    def _last_words(self, *, crashed: bool) -> str:
        """Return what was said last. What a command that crashed says of an error counts before what its agent said."""
        if crashed and (words := error_words(self._lines)):
            return words
        if words := last_line(self._words):
            return words
        return last_words(self._lines) if crashed else last_line("\n".join(telling_lines(self._lines)))


Read = Callable[[dict[str, Any], Transcript], Iterable[Event] | None]
"""Reads one object of a stream. None if the object is not from this agent."""


def events(chunks: Iterable[bytes], transcript: Transcript, reads: Mapping[str, Read]) -> Iterator[Event]:
    """Yield the events of an output as it comes, and collect them in the transcript. `reads` are by agent."""
    for value in values(chunks):
        yield from event_of(value, transcript, reads)


def event_of(value: Value, transcript: Transcript, reads: Mapping[str, Read]) -> Iterable[Event]:
    """Return the events of one value. What an agent's stream has of other objects is none, because tools print them."""
    if isinstance(value, str):
        return transcript.line(value)
    for agent, read in reads.items():
        events = read(value, transcript)
        if events is not None:
            transcript.agent = agent
            return events
    transcript.unknown(value)
    return () if transcript.agent else (Event("text", msgspec.json.encode(value).decode()),)


def counts(*parts: object) -> int | None:
    """Return the sum of the plausible counts among the parts, None if there are none."""
    return _total(checked_count(part) for part in parts)


def mapping(value: object) -> dict[str, Any]:
    """Return an object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _sum(parts: Iterable[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return checked_cost(sum(known)) if known else None


def _total(parts: Iterable[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return checked_count(sum(known)) if known else None
