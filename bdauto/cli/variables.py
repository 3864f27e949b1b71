"""The environment variables that bdauto knows. A misspelt one is refused: ignoring a limit may cost money."""

import difflib
import re
from collections.abc import Iterator, Mapping

from bdauto.common.errors import UsageError

# Written by `make docs` from the options of all commands.
KNOWN = frozenset({
    # names: begin
    "BDAUTO_ACCEPTANCE",
    "BDAUTO_ACTIVE_HOURS",
    "BDAUTO_AGENT",
    "BDAUTO_AGENT_BASE",
    "BDAUTO_AGENT_CHECK",
    "BDAUTO_AGENT_CHECK_TIMEOUT",
    "BDAUTO_AGENT_COMMAND",
    "BDAUTO_AGENT_DIR",
    "BDAUTO_AGENT_JOBS",
    "BDAUTO_AGENT_KEEP",
    "BDAUTO_AGENT_LAND",
    "BDAUTO_AGENT_LINGER",
    "BDAUTO_AGENT_NAME",
    "BDAUTO_AGENT_PREPARE",
    "BDAUTO_AGENT_PROMPT",
    "BDAUTO_AGENT_REVIEW",
    "BDAUTO_AGENT_SILENCE",
    "BDAUTO_AGENT_SLOTS",
    "BDAUTO_AGENT_TIMEOUT",
    "BDAUTO_AGENT_TOKEN_FILE",
    "BDAUTO_AGENT_URL",
    "BDAUTO_AGENT_WORKTREE",
    "BDAUTO_ASSIGNEE",
    "BDAUTO_BD",
    "BDAUTO_BD_TIMEOUT",
    "BDAUTO_CONFIG",
    "BDAUTO_COST_PER_RUN",
    "BDAUTO_DB",
    "BDAUTO_DIGEST_AT",
    "BDAUTO_DISPATCH_EVERY",
    "BDAUTO_EXCLUDE_LABEL",
    "BDAUTO_EXCLUDE_TYPE",
    "BDAUTO_GRACE",
    "BDAUTO_KUBERNETES_CONTEXT",
    "BDAUTO_KUBERNETES_NAMESPACE",
    "BDAUTO_KUBERNETES_TEMPLATE",
    "BDAUTO_LABEL",
    "BDAUTO_LISTEN",
    "BDAUTO_LOG_FORMAT",
    "BDAUTO_MAX",
    "BDAUTO_MAX_ATTEMPTS",
    "BDAUTO_MAX_COST_PER_DAY",
    "BDAUTO_MAX_COST_PER_RUN",
    "BDAUTO_MAX_PER_DAY",
    "BDAUTO_MAX_REAP",
    "BDAUTO_METADATA",
    "BDAUTO_MODEL",
    "BDAUTO_NOTIFY_ON",
    "BDAUTO_NOTIFY_URL",
    "BDAUTO_ON_STALL",
    "BDAUTO_PENDING_TIMEOUT",
    "BDAUTO_PRIORITY",
    "BDAUTO_PUSHGATEWAY",
    "BDAUTO_PUSHGATEWAY_INSTANCE",
    "BDAUTO_PUSHGATEWAY_NAMESPACE",
    "BDAUTO_REAP_EVERY",
    "BDAUTO_THRESHOLD",
    "BDAUTO_TIMEOUT",
    "BDAUTO_TRIP_AFTER",
    "BDAUTO_TRUSTED_CREATOR",
    "BDAUTO_TYPE",
    "BDAUTO_WATCH",
    # names: end
})  # fmt: skip
GIVEN_TO_AGENTS = frozenset({"BDAUTO_CHECKS", "BDAUTO_JOB", "BDAUTO_POD", "BDAUTO_PROMPT", "BDAUTO_TERMINATION_LOG"})
"""What a job's agent is given, which may run bdauto itself."""
_SERVICE = re.compile(r"BDAUTO_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)\w*)|BDAUTO_PORT")
_ADDRESS = re.compile(r"BDAUTO_\w+_PORT")
"""What Kubernetes gives every container of a namespace in which a Service is called bdauto, or bdauto-something.

`BDAUTO_SOMETHING_PORT` is such a one only if it holds an address, as `tcp://10.0.0.1:8080`.
"""
NAMED = 5
"""Unknown variables that an error names."""


def check_variables(environment: Mapping[str, str]) -> None:
    """Raise UsageError for variables that begin with BDAUTO_ and are no setting."""
    if unknown := [*_unknown(environment)]:
        near = [f"{one} (did you mean {like}?)" if (like := nearest(one)) else one for one in unknown[:NAMED]]
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        are = "is no setting" if len(unknown) == 1 else "are no settings"
        raise UsageError(
            f"{', '.join(near)}{more} {are} of bdauto", hint="mend or unset it; `bdauto run --help` has all"
        )


def nearest(name: str) -> str:
    """Return the known variable with the most similar name, "" if none is similar."""
    return next(iter(difflib.get_close_matches(name, sorted(KNOWN), n=1, cutoff=0.75)), "")


def _unknown(environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environment):
        if not name.startswith("BDAUTO_") or name in KNOWN or name in GIVEN_TO_AGENTS:
            continue
        if not _SERVICE.fullmatch(name) and not (_ADDRESS.fullmatch(name) and "://" in environment[name]):
            yield name
