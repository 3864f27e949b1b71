"""Text that comes from outside, made harmless: bounded, on one line, without control characters."""

import unicodedata

NOTE_LIMIT = 300
"""Characters of foreign text (an HTTP body, bd's stderr) that a note or an error message may hold."""


def clean(text: str, limit: int = NOTE_LIMIT) -> str:
    """Return `text` on one line of at most `limit` characters.

    Runs of white space become one space; control characters, format characters (which include the bidirectional
    overrides), surrogates and unassigned code points are dropped.
    """
    head = text[: limit * 4]
    kept = "".join(
        " " if c.isspace() else c for c in head if c.isspace() or not unicodedata.category(c).startswith("C")
    )
    line = " ".join(kept.split())
    if len(line) > limit or len(text) > len(head):
        return line[: limit - 1].rstrip() + "…"
    return line
