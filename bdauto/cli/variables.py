"""The environment variables that bdauto knows. A misspelt one is refused: ignoring a limit may cost money."""

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache

from bdauto.common.errors import UsageError

OWN, CONFIG = "BDAUTO_", "BDAUTO_CONFIG"
GIVEN_TO_AGENTS = frozenset({"BDAUTO_CHECKS", "BDAUTO_JOB", "BDAUTO_POD", "BDAUTO_PROMPT", "BDAUTO_TERMINATION_LOG"})
"""What a job's agent is given, which may run bdauto itself."""
_SERVICE = re.compile(r"BDAUTO_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)\w*)|BDAUTO_PORT")
_ADDRESS = re.compile(r"BDAUTO_\w+_PORT")
"""What Kubernetes gives every container of a namespace in which a Service is called bdauto, or bdauto-something.

`BDAUTO_SOMETHING_PORT` is such a one only if it holds an address, as `tcp://10.0.0.1:8080`.
"""
NAMED = 5
"""Unknown variables that an error names."""


@cache
def known() -> frozenset[str]:
    """Return the variables that begin with BDAUTO_ of the options of all commands."""
    from bdauto.cli.config_keys import keys  # it takes time, and many have no variable

    return frozenset(name for field in keys().values() if (name := field.variable or "").startswith(OWN)) | {CONFIG}


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
    return next(iter(difflib.get_close_matches(name, sorted(known()), n=1, cutoff=0.75)), "")


def _unknown(environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environment):
        if not name.startswith(OWN) or name in GIVEN_TO_AGENTS or name in known():
            continue
        if not _SERVICE.fullmatch(name) and not (_ADDRESS.fullmatch(name) and "://" in environment[name]):
            yield name
