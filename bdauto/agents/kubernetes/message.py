"""What `bdauto agent-entry` is told of the checks, and what it leaves as its container's termination message.

The agent can write that file as well. So the Job's own condition decides how the Job ended, the message only says what
it cost, and why.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from bdauto.common.sanitize import clean, without_secrets
from bdauto.domain.agent_end import GATES, AgentEnd, Why
from bdauto.domain.record import WORDS_LIMIT, Run
from bdauto.domain.record_values import checked_cost, checked_count

MESSAGE_BYTES = 4096
"""Kubernetes keeps so much of a message."""
_Text = Annotated[str, msgspec.Meta(max_length=2000)]


class PodChecks(msgspec.Struct, frozen=True):
    """The commands of --agent-check, and the seconds that each may take."""

    commands: list[list[str]]
    seconds: float


class Message(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """What the entry says of its agent's run. `fenced` says that it has started none, since another pod had.

    `passed` is how many checks have passed, 0 unless all have. None: the entry knows of no check.
    """

    fenced: bool = False
    passed: int | None = None
    state: _Text = ""
    why: _Text | None = None
    words: _Text = ""
    agent: _Text | None = None
    seconds: float | None = None
    cost_usd: float | None = None
    tokens: float | None = None
    turns: float | None = None
    exit_code: int | None = None
    session: _Text | None = None
    reset_at: datetime | None = None


def message_of(end: Run, state: str, checks: int = 0) -> Message:
    """Return the message about the end of a run that was to pass so many checks."""
    names = set(Message.__struct_fields__) - {"fenced", "state", "passed"}
    told = {name: value for name in names if (value := getattr(end, name)) is not msgspec.UNSET}
    return Message(state=state, passed=(checks if end.checked else 0) if checks else None, **told)


def encode(message: Message) -> bytes:
    """Return the message as JSON. It is shorter than MESSAGE_BYTES, because words are."""
    return msgspec.json.encode(message)


def decode(text: str) -> Message | None:
    """Return the message in a text, None if it is none."""
    try:
        return msgspec.json.decode(text.encode(errors="replace"), type=Message)
    except (ValueError, RecursionError):
        return None


def said(message: Message, *, checked: bool) -> AgentEnd:
    """Return what a message says as the end that an agent tells. What makes no sense is unknown.

    Only the work of a Job that is `checked` can have failed a check.
    """
    no_reasons = {Why.config, *(GATES - {Why.check} if checked else GATES)}
    why = message.why if message.why in Why.__members__ and message.why not in no_reasons else None
    reset = message.reset_at
    session = clean(message.session or "", 100)
    return AgentEnd(
        agent=clean(message.agent or "", 40) or None,
        why=Why(why) if why else None,
        words=without_secrets(message.words, WORDS_LIMIT),
        cost_usd=checked_cost(message.cost_usd),
        tokens=checked_count(message.tokens),
        turns=checked_count(message.turns),
        seconds=checked_count(message.seconds),
        sessions=(session,) if session else (),
        reset_at=reset.astimezone(UTC) if reset and reset.tzinfo else None,
    )
