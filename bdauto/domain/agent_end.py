"""What an agent's command told about its run: why it ended, its figures, its last words."""

import re
from datetime import datetime
from enum import StrEnum

import msgspec


class Why(StrEnum):
    """Why a run ended. `question`: the agent needs a person's answer. `config`: a Job that cannot run as configured.

    `check`, `review`, `land`: the agent has completed, and the step of that name after it has failed.
    """

    ok = "ok"
    question = "question"
    check = "check"
    review = "review"
    land = "land"
    error = "error"
    limit = "limit"
    login = "login"
    overloaded = "overloaded"
    network = "network"
    config = "config"
    turns = "turns"
    budget = "budget"
    denied = "denied"
    timeout = "timeout"
    silence = "silence"
    stopped = "stopped"
    lost = "lost"
    unknown = "unknown"


GATES = frozenset({Why.check, Why.review, Why.land})
"""The steps that must succeed after an agent before its bead is closed."""
OF_SERVICE = frozenset({Why.limit, Why.login, Why.overloaded, Why.network, Why.config})
"""The service behind the agent is at fault, so no bead is charged."""


class AgentEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent's command told about its end. Unknown values are None.

    It is no `Run`, because it has no result: `domain.results` makes one of it and of what is known of the process.
    `agent` is the adapter that understood its output. `why` is None if the command did not tell it. Then its exit
    status decides. `sessions` are in order, and the last one can be resumed. `denied` are the tools that the command
    was not allowed to use. `reset_at` is when a limit ends.
    """

    agent: str | None = None
    why: Why | None = None
    words: str = ""
    cost_usd: float | None = None
    tokens: int | None = None
    turns: int | None = None
    seconds: int | None = None
    sessions: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    reset_at: datetime | None = None


_CAUSES = {
    Why.limit: (
        r"(?:usage|rate|session|weekly|daily|monthly|hour|spend(?:ing)?|token|request)[- _]?limits?\b",
        r"limit (?:has been )?reached|\blimits?\b.{0,40}\bresets?\b|hit your [\w -]{0,30}limit|billing hard limit",
        r"rate[_ -]?limited|throttled",
        r"quota|too many requests|\b429\b|resource[_ ]exhausted|credit balance|(?:out of|insufficient|no) credits",
    ),
    Why.login: (
        r"(?:invalid|incorrect) (?:x-)?api[- ]?key|invalid_api_key|api key (?:is )?(?:missing|not (?:set|found|valid))",
        r"please run /?login|not logged in|log ?in (?:again|required)|oauth token|permission_denied",
        r"\b40[13]\b|unauthori[sz]ed|authentication[_ ](?:error|failed|required)|failed to authenticate",
        r"(?:token|credentials?|session) (?:has |have )?expired",
    ),
    Why.overloaded: (
        r"overloaded|\b529\b|\b50[0234]\b|service unavailable|internal server error|bad gateway|server_error",
        r"at capacity|high demand|temporarily unavailable",
    ),
    Why.network: (
        r"econn(?:refused|reset|aborted)|enotfound|eai_again|etimedout|enetunreach|ehostunreach|getaddrinfo",
        r"could not resolve|name resolution|dns error|network (?:error|is unreachable)|fetch failed|socket hang up",
        r"connection (?:error|refused|reset|timed out|closed)|stream disconnected|error sending request",
        r"unable to connect|certificate",
    ),
}
"""Patterns of error messages. The first match counts, because a limit may come with any HTTP status."""
_PATTERNS = {why: re.compile("|".join(words), re.ASCII | re.IGNORECASE) for why, words in _CAUSES.items()}


def cause(text: str) -> Why | None:
    """Return what an error message says about the service, None if it says nothing about it."""
    return next((why for why, pattern in _PATTERNS.items() if pattern.search(text)), None)


def cause_of_status(status: object) -> Why | None:
    """Return what an HTTP status of the service behind the agent means, None if it is no such status."""
    if not isinstance(status, int) or isinstance(status, bool):
        return None
    if status == 429:
        return Why.limit
    if status in (401, 403):
        return Why.login
    return Why.overloaded if status >= 500 else None
