"""Reads a job's record that is too large to be held in memory: it contains all that the agent printed.

The record is a JSON object whose members may come in any order. The texts of the wanted members are kept, and only the
end of a long one, because the figures of a run are in its last line.
"""

import contextlib
import re
from collections.abc import Mapping

import msgspec

from bdauto.domain.bead import MALFORMED

TEXTS = frozenset({"status", "started_at", "finished_at"})
LINES = frozenset({"output", "stderr", "error"})
"""Members that are one text, or a list of lines."""
DEEPEST = 1_000
"""Depth of nested brackets that is accepted. No real record is nested so deeply."""

_OUTSIDE = re.compile(rb'[^"\[\]{},]*+')
_TEXT = re.compile(rb'(?>(?:[^"\\]++|\\u.{4}|\\[^u])*)', re.DOTALL)
"""The rest of a text. A group with `*+` in its place takes too much before Python 3.11.5."""
_ITEMS = re.compile(rb'(?>(?:[^"\\]++|\\u.{4}|\\[^u]|"\s*,\s*")*)', re.DOTALL)
"""The rest of a text in a list of texts, and those that follow."""
_BETWEEN = re.compile(rb'"\s*,\s*"')
_PLAIN = re.compile(rb"\\n|[ !#-\[\]-~]{7}")
"""Where a text may be cut: after a newline or seven plain characters. No escape is longer than `\\uXXXX`."""
_BACKSLASH = ord("\\")


class JobReader:
    """Takes a JSON object in pieces. Of each wanted member it keeps at least the last `keep` bytes, or all."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._rest = b""
        self._open = bytearray()
        self._in_text = self._named = False
        self._name, self._member = bytearray(), ""
        self._into: bytearray | None = None
        self._found: dict[str, bytearray] = {}
        self._lists: set[str] = set()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises ValueError for what is no JSON object."""
        data, at = self._rest + piece, 0
        while at < len(data):
            pattern = _OUTSIDE if not self._in_text else _ITEMS if self._listed else _TEXT
            match = pattern.match(data, at)
            assert match is not None  # each matches nothing at all, too
            if self._in_text and self._into is not None:
                self._into += match[0]
                self._shorten(self._into)
            at = match.end()
            if at == len(data) or (data[at] == _BACKSLASH and self._in_text):
                break  # the rest of an escape is in the next piece
            self._mark(data[at : at + 1])
            at += 1
        self._rest = data[at:]

    def record(self) -> Mapping[str, str | list[str]]:
        """Return the wanted members: before the object's end those that were read, and no lines."""
        record: dict[str, str | list[str]] = {}
        for name, raw in self._found.items():
            if raw is not self._into and not (self._open and name in LINES):
                with contextlib.suppress(*MALFORMED):  # what cannot be read is unknown
                    text = b'["' + raw + b'"]'
                    lines = msgspec.json.decode(text, type=list[str])
                    record[name] = lines if name in self._lists else lines[0]
        return record

    @property
    def _listed(self) -> bool:
        return self._open == b"{["

    def _mark(self, mark: bytes) -> None:
        if self._in_text:
            self._end_text()
        elif mark == b'"':
            self._begin_text()
        elif mark in b"[{":
            if len(self._open) == DEEPEST or not (self._open or mark == b"{"):
                raise ValueError("not a JSON object, or nested too deeply")
            self._open += mark
        elif not self._open:
            raise ValueError("more than one JSON value")
        elif mark == b",":
            self._named = self._named and len(self._open) > 1
        elif self._open.pop() != (b"[" if mark == b"]" else b"{")[0]:
            raise ValueError("brackets that do not match")

    def _begin_text(self) -> None:
        self._in_text, self._into = True, None
        if self._open == b"{" and not self._named:
            self._into = self._name = bytearray()
        elif self._open == b"{" and self._member in TEXTS | LINES:
            self._into = self._found[self._member] = bytearray()
        elif self._listed and self._member in LINES:
            self._lists.add(self._member)
            self._into = self._found.get(self._member)
            if self._into is None:
                self._into = self._found[self._member] = bytearray()
            else:
                self._into += b'","'

    def _end_text(self) -> None:
        self._in_text = False
        if self._into is self._name:
            self._named, self._member = True, self._name.decode(errors="replace")
            self._found.pop(self._member, None)  # of two members of one name the last counts
            self._lists.discard(self._member)
        self._into = None

    def _shorten(self, text: bytearray) -> None:
        """Drop the beginning of a text that has become longer than twice `keep`."""
        if len(text) > 2 * self._keep:
            start = len(text) - self._keep
            cut = (_BETWEEN.search(text, start) if self._listed else None) or _PLAIN.search(text, start)
            del text[: cut.end() if cut else len(text)]
