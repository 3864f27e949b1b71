"""The agent service's bearer token, from a file or from the environment."""

import os
from pathlib import Path

from bdauto.common.errors import UsageError
from bdauto.domain.settings import Secret


def read_token(path: Path | None) -> Secret | None:
    """Read the token from a file, or without one from API_BEARER_TOKEN. None if it is empty. Raises UsageError."""
    if path is None:
        text = os.environ.get("API_BEARER_TOKEN", "")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"--agent-token-file {path}: {reason}", hint="name a readable file") from None
    token = text.strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("invalid agent token: expected printable ASCII without spaces")
    return Secret(token)
