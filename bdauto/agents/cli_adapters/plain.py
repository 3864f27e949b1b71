"""Why a command failed that prints text: read from the error lines of agents' command lines, and from no other words.

An agent's output also has that of its tests and tools, so "401" or "quota" alone says nothing about the service behind
the agent. A line counts if it has the form in which an agent's command line reports an error.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bdauto.domain.agent_end import Why, cause

_START = r"""
    (?:\[?\d{4}-\d\d-\d\d[T ][\d:.,+]+Z?\]?[ ]*)?            # the stamp of a log
    (?:[^\w\s"'`\[({<>|/\\+-]+[ ]*)?                          # a bullet, a warning sign
    (?:\[?(?:error|fatal|warning|(?!assert)[a-z_.]*(?:error|exception))\]?:[ ]*|(?:error|fatal|warning)[ ]+(?=\w+:))*
"""
_OWN = r"""
      \[?api[ ]error\b[ ]?[:(\]]
    | (?:[\w ,.'’-]{1,80}[ ]·[ ])?(?:please[ ]run[ ]/login|fix[ ]external[ ]api[ ]key)
    | failed[ ]to[ ]authenticate\.[ ]api[ ]error | oauth[ ]token[ ](?:revoked|has[ ]expired)
    | credit[ ]balance[ ]is[ ]too[ ]low
    | you['’]?(?:ve|[ ]have)[ ](?:hit|reached)[ ]your[ ][\w -]{0,30}limit
    | you['’]?(?:re|[ ]are)[ ]out[ ]of[ ][\w ]{0,20}usage
    | (?:claude[ ](?:ai[ ])?|[\w-]{1,12}[ ]){0,3}limit[ ]reached\b(?:[ ]?[|·∙,:].*\d|.*\breset)
    | unexpected[ ]status[ ]\d{3}\b | exceeded[ ]retry[ ]limit,[ ]last[ ]status:[ ]\d{3}
    | stream[ ](?:error:|disconnected[ ]before[ ]completion)
    | you[ ]have[ ]exhausted[ ]your[ ][\w ]{0,30}(?:quota|capacity|limit)
    | attempt[ ]\d+[ ]failed(?:[ ]with[ ]status[ ]\d{3}|:.{0,40}(?:capacity|quota))
    | error[ ]when[ ]talking[ ]to[ ]\w{0,10}[ ]?api | (?:terminal|retryable)quotaerror\b
    | (?:litellm|openai|anthropic)\.[\w.]*(?:error|exception)\b | ai_[a-z]*error\b | providerautherror\b
    | error[ ]code:[ ]\d{3}[ ]-[ ]\{ | \d{3}[ ]\{"(?:type|error)":
    | the[ ]api[ ]provider(?:['’]s[ ]servers[ ]are|[ ](?:has[ ]rate[ ]limited|is[ ]not[ ]able[ ]to[ ]authenticate))
"""
"""How an agent's command line begins a line about its service, in lower case. No test of a project prints that."""
_REASON = r"""
    unauthorized|forbidden|too[ ]many[ ]requests|(?:internal[ ])?server[ ]error|internal[ ]server[ ]error|bad[ ]gateway
    |service[ ](?:temporarily[ ])?unavailable|gateway[ ]time-?out|overloaded|(?:invalid|incorrect)[ ](?:x-)?api[- ]key
    |rate[ _-]?limit|quota[ ]exceeded|you[ ]exceeded[ ]your[ ]current[ ]quota|resource[ _]exhausted|insufficient_quota
"""
_LAST = rf"""
      (?:http[ /]?(?:[\d.]+[ ])?|status[ ]){{0,2}}(?:4(?:01|03|29)|5\d\d)[ :,(-]{{1,3}}(?:{_REASON})
    | (?:{_REASON})\b | not[ ]logged[ ]in | login[ ]required | authentication[ _](?:error|failed|required)
    | fetch[ ]failed | getaddrinfo[ ] | connect[ ]e[a-z]+[ ] | network[ ](?:error|is[ ]unreachable)
    | unable[ ]to[ ]connect
    | connection[ ](?:error|refused|reset|timed[ ]out|closed) | error[ ]sending[ ]request | socket[ ]hang[ ]up
    | .*\b(?:limit|limits|limited|quota|429|too[ ]many[ ]requests|exhausted)\b
      .*\b(?:resets?|try[ ]again|retry|back|available)\b.*\d
"""
"""How a line may begin that is the last error of a command: other programs print such lines, too."""
_OF_SERVICE = re.compile(f"{_START}(?:{_OWN})", re.VERBOSE | re.IGNORECASE)
_OF_SERVICE_LAST = re.compile(f"{_START}(?:{_LAST})", re.VERBOSE | re.IGNORECASE)
_OF_TESTS = re.compile(
    r"\s*(?:[E>+✓✗✘×-]\s|not ok|ok\b|pass|fail|assert|expect|\w+::|\S+:\d+|[\"'`(]|test\w*\b)", re.IGNORECASE
)
"""How lines of tests begin: those of pytest, TAP, Jest, Go and compilers."""
_AFTER = re.compile(
    r"\s.*|[\W\d_]*|[{}\[\],\"].*|(?:at|file|caused by|hint|see|run|tip|tokens used)\b.*|/\w.*", re.IGNORECASE
)
"""Lines that may follow a command's last error: a stack trace, a hint, pieces of JSON, numbers."""
_BODY_TYPES = frozenset({
    "api_error", "authentication_error", "billing_error", "insufficient_quota", "invalid_api_key", "overloaded_error",
    "permission_error", "rate_limit_error", "rate_limit_exceeded", "server_error", "timeout_error", "tokens",
    "requests", "INTERNAL", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE",
})  # fmt: skip
"""What Anthropic, OpenAI and Google call the type, code or status of an error in the body of their answers."""


def error_line(lines: Sequence[str]) -> str:
    """Return the line in which a command reports an error of the service behind it, or "" if there is none.

    `lines` are the last ones of its output. A line that other programs print, too, counts only as the last error.
    """
    own = [line for line in lines if _OF_SERVICE.match(line)]
    if own:
        return next((line for line in reversed(own) if cause(line)), own[-1])
    last = next((line for line in reversed(lines) if not _AFTER.fullmatch(line)), "")
    return last if _OF_SERVICE_LAST.match(last) and not _OF_TESTS.match(last) else ""


def failure(lines: Sequence[str]) -> Why:
    """Return why a command failed that printed these lines last."""
    return cause(error_line(lines)) or Why.error


def error_text(value: Mapping[str, Any]) -> str:
    """Return an object that reports an error of a model's provider as an error line, "" for any other object."""
    error = value.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        if _BODY_TYPES.isdisjoint(str(error.get(key)) for key in ("type", "code", "status")):
            return ""
        return f"API Error: {error['message']} {msgspec.json.encode(value).decode()}"
    if value.keys() == {"type", "message"} and value["type"] == "error" and isinstance(value["message"], str):
        return f"API Error: {value['message']}"
    return ""
