"""Cleans text from outside: bounded, on one line, without control characters."""

import re
import unicodedata

NOTE_LIMIT = 300
"""Characters of foreign text (an HTTP body, bd's stderr) that a note or an error message may hold."""


_KNOWN = "|".join(
    (
        r"gh[oprsu]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas|ffct|wt)-[\w.-]{8,}",
        r"sk-(?:ant|proj|svcacct|admin|or)-[\w-]{6,}|sk-(?=[\w-]{0,99}\d)[\w-]{10,}|[prs]k_(?:live|test|prod)_\w{8,}|whsec_[\w+/=]{8,}",
        r"xox[a-z](?:\.xox[a-z])?-[\w-]{8,}|xapp-\d-[\w-]{8,}|(?<=hooks\.slack\.com/services/)[\w/]{8,}",
        r"A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])[A-Z0-9]{12,16}|AIza[\w-]{16,}|ya29\.[\w-]{8,}|GOCSPX-[\w-]{8,}|LTAI[A-Za-z0-9]{12,}",
        r"eyJ[\w-]{8,}(?:\.[\w-]*)*",
        r"(?:npm|hf|gsk|r8|pcsk|dckr_pat|rubygems|sbp|sb_secret|lin_api|figd|glsa|glc|do[opr]_v1|shp(?:at|ca|pa|ss))_[A-Za-z0-9]{16,}\w*",
        r"(?:lsv2_(?:pt|sk)|sntry[su]|phx|ntn|pscale_(?:tkn|oauth|pw)|bkua|e2b)_[\w.=+/-]{16,}",
        r"(?:xai|pplx|nvapi|tskey|sq0(?:atp|csp)|PMAK|NRAK|CFPAT|tvly|pypi-Ag|dapi)-?(?=[\w-]{0,99}\d)[\w-]{16,}",
        r"SG\.[\w-]{8,}(?:\.[\w-]+)?|hv[bsr]\.[\w-]{16,}|ATATT3[\w=-]{16,}|AGE-SECRET-KEY-1[A-Z0-9]{8,}|key-[0-9a-z]{32}",
        r"\d{8,10}:AA[\w-]{30,}|[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{25,}",
    )
)
"""Formats of keys that have a known prefix, as lists of secret formats have them: GitHub and GitLab, OpenAI and
Anthropic, Stripe, Slack, AWS and Google, JSON web tokens, package registries and others. No id and no hash begins so.
"""
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*-----|\Z)"
    rf"|(?<![A-Za-z0-9])(?:{_KNOWN})"
    r"|(?<=://)[^/\s]+@"
    r"|(?i:(?<=bearer )|(?<=basic ))(?=\S{0,99}\d)[\w.~+/=-]{16,}",
    re.DOTALL,
)
_NAMED = re.compile(
    r"((?i:token|key|signature|credential|\bsig)[\"']?\s*[=:]\s*[\"']?)(?=\S{0,99}\d)[\w.~%+/=-]{16,}"
    r"|((?i:passw(?:or)?d|passphrase|secret)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;]{4,}"
    r"|(--(?:api-)?(?:password|token|key|secret)\s+)[^\s-][^\s]{3,}"
    r"|(\b(?i:token|key) [\"']?)(?=\w{0,99}[a-z])(?=\w{0,99}[A-Z])(?=\w{0,99}\d)[\w+=-]{16,}"
    r"|((?i:authorization)[\"']?\s*[=:]\s*[\"']?(?i:bearer|basic|token|digest|apikey|negotiate|bot|dpop|key)\s+)[^\s\"',;]{4,}"
    r"|((?i:authorization)[\"']?\s*[=:]\s*[\"']?)(?=\S{0,99}\d)[^\s\"',;]{8,}"
    r"|((?i:cookie)[\"']?\s*:\s*[\"']?)[^\s=;\"']{1,99}=[^\"'\r\n]+"
)
"""Matches what follows the name of a secret: something long after a token or a key, anything after a password.

If only a space separates them, as in a sentence, a hash or an id is not taken for a secret.
"""


def hide_secrets(text: str) -> str:
    """Replace what looks like a key, a token or a password by `***`, in a URL or a header too: agents quote theirs."""
    return _NAMED.sub(lambda found: f"{found[found.lastindex or 0]}***", _SECRET.sub("***", text))


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


def without_secrets(text: str, limit: int = NOTE_LIMIT) -> str:
    """Return text as `clean` does, without what looks like a secret. One that is cut would not be known any more."""
    return clean(hide_secrets(text), limit)


_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
"""A sequence that controls a terminal: a colour, a move of the cursor, a title."""


def clean_lines(text: str) -> str:
    """Return text of any length without control and format characters but for tabs and line ends."""
    text = _TERMINAL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or not unicodedata.category(c).startswith("C"))
