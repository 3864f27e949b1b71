"""`bdauto pause` and `bdauto resume`."""

import os
import sys
from datetime import timedelta

from bdauto import options
from bdauto.bd import Bd
from bdauto.changes import BdWriter
from bdauto.errors import BdFailed
from bdauto.models import format_time
from bdauto.pause import KEY, Pause, read
from bdauto.report import SCHEMA_VERSION
from bdauto.runtime import Runtime
from bdauto.session import opened, start_log
from bdauto.text import clean

REASON_LIMIT = 300


def pause(
    reason: options.Reason = "",
    for_: options.For = None,
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    actor: options.Actor = "",
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """Pause every dispatcher and reaper of this tracker. BeadBoard's own Dispatch button still works."""
    lasting = options.duration("--for", for_) if for_ is not None else None
    settings = options.bd_settings(bd, db, metadata, bd_timeout, "agent", actor or _login())
    start_log(log_format, verbose)
    runtime = Runtime()
    with opened(settings) as tracker:
        now = runtime.now().replace(microsecond=0)
        until = now + max(lasting, timedelta(seconds=1)) if lasting else None
        switch = Pause(clean(reason, REASON_LIMIT), settings.actor, now, until and until.replace(microsecond=0))
        BdWriter(tracker, runtime).check()
        tracker.kv_set(KEY, switch.encode())
        if read(tracker.kv_list().result(), now) != switch:
            raise BdFailed("bd kv set: the switch does not read as it was written; see `bdauto status`, and try again")
    _show("pause", "paused", switch, switch.words(), json)


def resume(
    db: options.Db = None,
    metadata: options.Metadata = None,
    bd: options.BdPath = "bd",
    bd_timeout: options.BdTimeout = options.BD_TIMEOUT,
    actor: options.Actor = "",
    json: options.Json = False,
    log_format: options.LogFormatOption = None,
    verbose: options.Verbose = False,
) -> None:
    """End a pause."""
    settings = options.bd_settings(bd, db, metadata, bd_timeout, "agent", actor or _login())
    start_log(log_format, verbose)
    runtime = Runtime()
    with opened(settings) as tracker:
        before = _now(tracker, runtime)
        if before is None:
            _show("resume", "not_paused", None, "not paused", json)
            return
        BdWriter(tracker, runtime).check()
        tracker.kv_clear(KEY)
        if _now(tracker, runtime) is not None:
            raise BdFailed("bd kv clear: the switch is still there; see `bdauto status`, and try again")
    _show("resume", "resumed", before, f"resumed; it was {before.words()}", json)


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid-{os.getuid()}"


def _now(tracker: Bd, runtime: Runtime) -> Pause | None:
    return read(tracker.kv_list().result(), runtime.now())


def _show(command: str, outcome: str, switch: Pause | None, words: str, as_json: bool) -> None:
    if not as_json:
        sys.stdout.write(words + "\n")
        return
    import json

    fields: dict[str, str | int | None] = {"schema_version": SCHEMA_VERSION, "command": command, "outcome": outcome}
    if switch:
        fields |= {"reason": switch.reason, "by": switch.by}
        fields |= {"since": format_time(switch.since) if switch.since else None}
        fields |= {"until": format_time(switch.until) if switch.until else None}
    sys.stdout.write(json.dumps(fields) + "\n")
