"""A running `bd`, and what its failures mean."""

import errno
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

import msgspec

from bdauto.bd import process
from bdauto.bd.parsing import unwrap
from bdauto.common.errors import BdConflict, BdDrift, BdError, BdFailed, BdMissing, BdMoved, BdTimeout
from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED
from bdauto.domain.values import format_duration

T = TypeVar("T")

_CONFLICT = re.compile(r"Error 1213|40001|serialization failure", re.IGNORECASE)
_NO_SQL = "not yet supported in embedded mode"
SCHEMA_OLDER = "once every bd of this database is as new as this one, run `bd migrate schema` with it"
_SCHEMA = (
    (re.compile("pending schema migrations"), "commit what is uncommitted with the old bd: `bd dolt commit`"),
    (
        re.compile("schema version mismatch: .*knows up to"),
        "install the bd that migrated this database, or a later one",
    ),
    (re.compile("read-only open cannot migrate|table not found|could not be found in any table"), SCHEMA_OLDER),
)
_NO_GUARDS = "unknown flag: --if-"
GUARD_MISMATCH = 13
"""Exit status of `bd update` when the bead is not as `--if-status` and `--if-assignee` say. Nothing was written."""
_NO_READONLY = b"strict readonly is unavailable"


class RunningCommand(Generic[T]):
    """A running `bd`. `result()` waits for its answer."""

    ahead = 0.0
    """Seconds that the child had already run when this object took it over: see `process.start_ahead`."""

    def __init__(
        self,
        child: process.Process,
        verb: str,
        timeout: timedelta,
        parse: Callable[[bytes], T],
        heard: Callable[[bytes], None],
        again: Callable[[], process.Process] | None = None,
    ) -> None:
        """Take the started child. `heard` is called at its end with its stderr.

        `again` starts it once more without --readonly, if bd refuses that option for this database.
        """
        self._process = child
        self.ahead = time.monotonic() - child.began
        self._again = again
        self._verb = verb
        self._timeout = timeout
        self._parse = parse
        self._heard = heard

    def result(self) -> T:
        """Return the parsed answer. Raises BdTimeout, BdFailed, BdConflict or BdDrift."""
        code, out, err = self._wait()
        if code != 0 and self._again and lacks_readonly(err):
            self._process = self._again()
            code, out, err = self._wait()
        self._heard(err)
        if code != 0:
            raise failure(self._verb, code, out, err)
        return self._parse(out)

    def _wait(self) -> tuple[int, bytes, bytes]:
        try:
            return self._process.wait(self._timeout.total_seconds())
        except process.TimeoutExpired:
            self._heard(b"")
            words = f"bd {self._verb} did not answer within {format_duration(self._timeout)} and was killed"
            raise BdTimeout(words, hint="check its database server, or raise --bd-timeout") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End the child with its whole process group, if it still runs."""
        self._process.end()


def lacks_readonly(stderr: bytes) -> bool:
    """Whether bd refused --readonly itself, which it does on a proxied server, before it opens the database."""
    return _NO_READONLY in stderr


def no_guards(error: BdError) -> bool:
    """Whether `bd update` does not know its guards. Then it has not written."""
    return _NO_GUARDS in str(error)


def no_sql(error: BdError) -> bool:
    """Whether this failure of `bd sql` says that the database is embedded."""
    return _NO_SQL in str(error)


def not_started(bd: str, error: OSError) -> BdError:
    """Return the error of a bd that could not be started."""
    if error.errno == errno.E2BIG:
        return BdFailed("bd: the command line is too long")
    reason = clean(error.strerror or str(error))
    if error.errno in _NO_PROCESS:
        return BdFailed(f"bd: no process can be started: {reason}", hint=_NO_PROCESS[error.errno])
    return BdMissing(
        f"bd: cannot run {clean(bd, 200)!r}: {reason}", hint="install bd, or name it with --bd or BDAUTO_BD"
    )


_NO_PROCESS = {
    errno.EMFILE: "raise this process's limit of open files (`ulimit -n`)",
    errno.ENFILE: "this host is out of open files: find the processes that hold them",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`, or the container's pids)",
    errno.ENOMEM: "give it more memory",
    errno.ENOSPC: "set TMPDIR to a writable folder with free space",
    errno.EPERM: "a security profile forbids it: check that of the container or the service",
}
"""What to do when no process can be started at all, by errno. bd itself may be fine."""


def failure(verb: str, code: int, out: bytes, err: bytes) -> BdError:
    """Return the error of a bd that ended with this exit status and output."""
    how = f"was killed by signal {-code}" if code < 0 else f"failed (exit {code})"
    message = _message(out) or _message(err) or err.decode(errors="replace") or out[:400].decode(errors="replace")
    text = f"bd {verb} {how}: {clean(message)}" if clean(message) else f"bd {verb} {how} with no output"
    if code == GUARD_MISMATCH and verb == "update":
        return BdMoved(text)
    return BdConflict(text) if _CONFLICT.search(message) else BdFailed(text, hint=schema_hint(message))


def _message(answer: bytes) -> str:
    """Return the `error` of the last JSON object in the text, or ""."""
    start = answer.find(b"{")
    if start < 0:
        return ""
    try:
        value = msgspec.json.decode(unwrap(answer[start:].strip(), "bd"))
    except (*MALFORMED, BdDrift):
        return ""
    message = value.get("error") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def schema_hint(message: str) -> str:
    """Return what to do where a failure is one of bd's schema, "" where it is not."""
    return next((hint for pattern, hint in _SCHEMA if pattern.search(message)), "")
