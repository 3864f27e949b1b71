"""What each `bdauto run` of this user on this machine was given, for commands that were told of no agent.

A `run` keeps a file with the options of its lanes' agents, which this user alone can read, and a lock on it for as long
as it lives.
"""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bdauto.agents import kinds
from bdauto.agents.kinds import LOOKING, AgentSettings
from bdauto.agents.local.files import read_file
from bdauto.agents.local.jobs import default_folder, is_locked, private_folder
from bdauto.common.errors import UsageError
from bdauto.domain.bead import MALFORMED
from bdauto.domain.settings import BdSettings

LARGEST = 1 << 20
"""Bytes of a file that are read."""


class RunningLane(msgspec.Struct, frozen=True):
    """The queue that a lane of a `run` takes beads from, and those of LOOKING that were given for its agent."""

    tracker: str
    assignee: str
    lane: str
    options: dict[str, Any]


def lane_of(tracker: str, bd: BdSettings, lane: str, agent: AgentSettings) -> RunningLane:
    """Return what others may know of a lane. Paths become absolute."""
    default = AgentSettings()
    given = {name: getattr(agent, name) for name in LOOKING if getattr(agent, name) != getattr(default, name)}
    return RunningLane(tracker, bd.assignee, lane, given)


@contextlib.contextmanager
def published(lanes: Sequence[RunningLane]) -> Iterator[None]:
    """Let others know of these lanes while the block runs, where there is a place for that."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, UsageError):  # a container with a read-only root, say
            _remove_old()
            file = _folder() / uuid.uuid4().hex
            stack.callback(file.unlink, missing_ok=True)
            held = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.write(held, msgspec.json.encode(lanes, enc_hook=lambda value: os.path.abspath(value)))  # noqa: PTH100
        yield


def given_to_run(agent: AgentSettings, tracker: str, bd: BdSettings, lane: str) -> AgentSettings:
    """Return the settings of an agent, with those of the `run` that serves this queue if these choose none.

    They are returned as they are if those cannot be used, as when the file with the token is gone.
    """
    if kinds.chosen(agent):
        return agent
    mine = (one for one in _running() if (one.tracker, one.assignee) == (tracker, bd.assignee))
    found = sorted(mine, key=lambda one: one.lane != lane)
    if not found:
        return agent
    try:
        given = msgspec.convert(found[0].options, AgentSettings, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError:  # of another version of bdauto
        return agent
    names = found[0].options.keys() & {*LOOKING}
    try:
        return kinds.complete(msgspec.structs.replace(agent, **{name: getattr(given, name) for name in names}))
    except UsageError:
        return agent


def _folder() -> Path:
    folder = default_folder(os.environ).parent / "running"
    private_folder(folder)
    return folder


def _running() -> Iterator[RunningLane]:
    """Yield the lanes of each `run` that lives."""
    folder = default_folder(os.environ).parent / "running"
    try:
        if not folder.is_dir():
            return
        private_folder(folder)
    except (OSError, UsageError):  # others may write there
        return
    for file in folder.iterdir():
        with contextlib.suppress(OSError, *MALFORMED):
            if is_locked(file):
                yield from msgspec.json.decode(read_file(file, LARGEST), type=list[RunningLane])


def _remove_old() -> None:
    """Remove the files of those that were killed."""
    for file in _folder().iterdir():
        with contextlib.suppress(OSError):
            if not is_locked(file):
                file.unlink()
