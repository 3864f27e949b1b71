"""Cleans text from outside: bounded, on one line, without control characters."""

import re
import unicodedata

NOTE_LIMIT = 300
"""Characters of foreign text (an HTTP body, bd's stderr) that a note or an error message may hold."""


_SECRET = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|github_pat|glpat|xox[a-z])[-_][\w.-]{8,}|\beyJ[\w-]{8,}(?:\.[\w-]+)*|\bA[KS]IA[A-Z0-9]{16}\b"
    r"|(?<=://)[^/@\s]+@"
    r"|(?i:(?<=bearer )|(?<=basic ))(?=\S*\d)[\w.+/=-]{16,}"
)
_NAMED = re.compile(
    r"((?i:token|key)[\"']?(?:\s*[=:]\s*|\s)[\"']?)(?=\S*\d)[\w.+/=-]{16,}"
    r"|((?i:passw(?:or)?d|secret)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;]{4,}"
)
"""What follows the name of a secret: after a token or a key something long, after a password anything."""


def hide_secrets(text: str) -> str:
    """Replace what looks like a key, a token or a password in a URL by `***`: an agent may quote its own."""
    return _NAMED.sub(lambda found: f"{found[1] or found[2]}***", _SECRET.sub("***", text))


def clean(text: str, limit: int = NOTE_LIMIT) -> str:
    """Return `text` on one line of at most `limit` characters.

    A run of white space becomes one space. Control characters, format characters (which include the bidirectional
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


_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
"""A sequence that controls a terminal: a colour, a move of the cursor, a title."""


def clean_lines(text: str) -> str:
    """Return text of any length without control and format characters but for tabs and line ends."""
    text = _TERMINAL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or not unicodedata.category(c).startswith("C"))
