"""What is certain from bd's version alone. The rest is found out by asking: builds keep the last release's number."""

import re
from collections.abc import Callable

from bdauto.common.errors import BdDrift, BdUnsupported
from bdauto.common.sanitize import clean

OLDEST_BD = (1, 0, 2)
HARMFUL_BD = {
    (1, 0, 4): "it re-imports a stale issues.jsonl before every write in server mode and so undoes others' changes"
}
"""Versions that must not write in server mode (beads issues 3849, 3948 and 4245, fixed in 1.0.5)."""
OLDEST_WITH_GUARDS = (1, 2, 2)
"""No older bd has `bd update --if-status`. This one has it in builds made after the release."""


def parse_version(version: str) -> tuple[int, int, int]:
    """Parse a version of bd, e.g. `1.0.3`. Raises BdDrift."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not match:
        raise BdDrift(f"bd version: {clean(version, 40)!r} is not a version", hint="check what `bd` on PATH is")
    return int(match[1]), int(match[2]), int(match[3])


def check_version(version: str, server_mode: Callable[[], bool]) -> None:
    """Refuse a bd that is too old, or harmful in this mode. `server_mode` is asked only where the answer matters."""
    number = parse_version(version)
    if number < OLDEST_BD:
        oldest = ".".join(map(str, OLDEST_BD))
        raise BdUnsupported(f"bd {version} is too old", hint=f"install {oldest} or later")
    if number in HARMFUL_BD and server_mode():
        raise BdUnsupported(f"bd {version} must not write here: {HARMFUL_BD[number]}", hint="install 1.0.5 or later")


def may_have_guards(version: str) -> bool:
    """Whether `bd update` may know `--if-status` and `--if-assignee`. Where it does not, it refuses them."""
    return parse_version(version) >= OLDEST_WITH_GUARDS
