"""Which messages have been sent, kept in the tracker: so each cause is told once, by whichever process is first.

The key-value store holds a short hash of each cause that still needs a person, and the day of the last digest. A cause
is noted before its message is sent. A process that is killed in between leaves it untold.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec

from bdauto.bd.change import Writer, swap_and_look
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.domain.bead import MALFORMED
from bdauto.domain.constants import SWAP_TRIES

KEY = "bdauto.told"
MOST = 2000
"""Causes that are kept. Each takes 13 bytes."""


class Told(msgspec.Struct, frozen=True):
    """What has been told: the hashes of causes, and the day of the last digest. `write` is unique to each write."""

    causes: tuple[str, ...] = ()
    digest: str = ""
    write: str = ""


class News(msgspec.Struct, frozen=True):
    """What this process is to tell: these causes, whether the digest, and the causes that are over."""

    causes: Collection[str] = ()
    digest: bool = False
    over: Collection[str] = ()


def take_news(
    bd: Bd,
    writer: Writer,
    runtime: Runtime,
    causes: Sequence[str],
    *,
    wanted: Collection[str],
    watched: Collection[str] = (),
    kept: Collection[str] = (),
    digest: date | None = None,
    store: Mapping[str, Any] | None = None,
) -> News:
    """Note by compare-and-set what this process tells, and return it: the `wanted` causes, and the `digest` of a day.

    `causes` are all that there are now. What was told and is no cause any more is forgotten, but for `kept`. `watched`
    are constant causes of which it is told when they are over. Raises BdError.
    """
    key = _key(bd)
    for _ in range(SWAP_TRIES):
        current = bd.kv_list().result() if store is None else store
        store = None
        before = _read(current.get(key))
        known, day = {*before.causes}, digest.isoformat() if digest else ""
        there = [*dict.fromkeys(_hash(cause) for cause in (*causes, *kept))]
        fresh = [cause for cause in wanted if _hash(cause) not in known]
        over = [cause for cause in watched if _hash(cause) in known and _hash(cause) not in there]
        due = _is_due(before, digest)
        told = known | {_hash(cause) for cause in fresh}
        after = Told(tuple(one for one in there if one in told)[:MOST], day if due else before.digest, runtime.unique())
        if not due and set(after.causes) == known:
            return News()
        if swap_and_look(writer, bd.kv_list, key, current.get(key) or None, msgspec.json.encode(after).decode()):
            return News([cause for cause in fresh if _hash(cause) in after.causes], due, over)
    return News()


def digest_is_due(bd: Bd, store: Mapping[str, Any], day: date | None) -> bool:
    """Return whether the digest of a day has not been sent. None: nobody wants one."""
    return _is_due(_read(store.get(_key(bd))), day)


def _is_due(before: Told, day: date | None) -> bool:
    """Compare with the last digest. One that lies further ahead than zones are apart is from a wrong clock."""
    if day is None:
        return False
    return day.isoformat() > before.digest or before.digest > (day + timedelta(days=1)).isoformat()


def _key(bd: Bd) -> str:
    """Return the key of the assignee's queue and its lane."""
    return f"{KEY}.{_hash(f'{bd.lane} {bd.assignee}')}"


def _hash(cause: str) -> str:
    return hashlib.blake2s(cause.encode(), digest_size=5).hexdigest()


def _read(value: object) -> Told:
    """Read what the key-value store holds. What is malformed counts as nothing."""
    try:
        return msgspec.json.decode(value, type=Told) if isinstance(value, str) else Told()
    except MALFORMED:
        return Told()
