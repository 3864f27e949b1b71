"""Splits an agent's output into values: each JSON object is one, and each other line is one as text.

Output is untrusted. It may be cut anywhere, mixed with lines of other programs, coloured, or wrongly encoded.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bdauto.domain.bead import MALFORMED

LINE_LIMIT = 1 << 24
"""Characters of one line, or of one object over several lines. What is longer is text, and only its start is kept."""
TEXT_LIMIT = 4096
"""Characters of a line of text that are kept."""
_NOISE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,999}(?:\x07|\x1b\\))|[\x00\ufeff]+")
"""Colour, titles of terminals, NUL, byte order marks."""

_BEGINS = re.compile(r'[{\[][{\[\s]*(?:"[^"]*"\s*:.*)?')
"""The first line of an object over several lines. Others, such as `[INFO] ready`, are text and are not held back."""
_HALVES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Escapes of JSON. The group is half of a character: JavaScript writes it where it cut a text within an emoji."""

Value = dict[str, Any] | str


class Stream:
    """Splits output into values. `feed` takes bytes as they arrive, and `end` returns what is left."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []
        self._rest_size = 0
        self._open: list[str] = []
        self._open_size = 0

    def feed(self, data: bytes) -> Iterator[Value]:
        """Yield the values that are complete with these bytes."""
        *lines, rest = self._decoder.decode(data).split("\n")
        if lines:
            lines[0] = self._take_rest() + lines[0]
        self._rest.append(rest)
        self._rest_size += len(rest)
        if self._rest_size > LINE_LIMIT:
            self._rest = [self._take_rest()[:TEXT_LIMIT]]
        for line in lines:
            yield from self._line(_NOISE.sub("", line).rstrip("\r"))

    def end(self) -> Iterator[Value]:
        """Yield what is left. An object that was never closed is text."""
        yield from self._line(_NOISE.sub("", self._take_rest()).rstrip("\r"))
        yield from self._give_up()

    def _take_rest(self) -> str:
        """Return the incomplete line and forget it. Its pieces are joined only once, to keep long lines cheap."""
        rest = "".join(self._rest)
        self._rest, self._rest_size = [], 0
        return rest

    def _line(self, line: str) -> Iterator[Value]:
        whole = _decoded(line) if line[:1] in ("{", "[") or not self._open else None
        if whole is not None:
            yield from self._give_up()
            yield from whole
        elif self._open:
            yield from self._continue(line)
        elif len(line) < TEXT_LIMIT and _BEGINS.fullmatch(line):
            self._open, self._open_size = [line], len(line)
        elif line.strip():
            yield line[:TEXT_LIMIT]

    def _continue(self, line: str) -> Iterator[Value]:
        """Continue an object over several lines. It ends with a bracket at the start of a line."""
        self._open.append(line)
        self._open_size += len(line)
        if line[:1] in ("}", "]"):
            whole = _decoded("\n".join(self._open))
            if whole is not None:
                self._open = []
                yield from whole
                return
        if self._open_size > LINE_LIMIT or line[:1] in ("}", "]"):
            yield from self._give_up()

    def _give_up(self) -> Iterator[Value]:
        lines, self._open = self._open, []
        yield from (line[:TEXT_LIMIT] for line in lines if line.strip())


def values(chunks: Iterable[bytes]) -> Iterator[Value]:
    """Yield the values of a whole output."""
    stream = Stream()
    for chunk in chunks:
        yield from stream.feed(chunk)
    yield from stream.end()


def _decoded(text: str) -> list[dict[str, Any]] | None:
    """Return the objects of a JSON text: one, or those of an array. None if it is neither."""
    if len(text) > LINE_LIMIT or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = _json(text)
    except MALFORMED:
        return None
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return value
    return None


def _json(text: str) -> Any:
    """Decode JSON, with U+FFFD for each half of a character. Raises one of MALFORMED."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        whole = _HALVES.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
        if whole == text:
            raise
        return msgspec.json.decode(whole)
