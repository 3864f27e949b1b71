"""The settings of the agent service and its token, for every kind of agent whose jobs run there."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from bdauto.common.errors import UsageError
from bdauto.domain.settings import SERVICES, Option, Secret
from bdauto.domain.values import checked_url


class AgentServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the agent service is. `agent_token` is what `agent_token_file` or the environment holds."""

    agent_url: Annotated[
        str | None,
        Option(
            "The agent service. With --beadboard-url it is asked for its capacity and the state of jobs, else it also "
            "starts the agent of each bead.",
            SERVICES,
            metavar="URL",
        ),
    ] = None
    agent_token_file: Annotated[
        Path | None,
        Option("File with the agent service's bearer token. (default: the variable API_BEARER_TOKEN)", SERVICES),
    ] = None
    timeout: Annotated[timedelta, Option("Time limit of each HTTP request as a whole.", SERVICES)] = timedelta(
        seconds=30
    )
    agent_token: Secret | None = None


def check_urls(urls: Mapping[str, str | None]) -> None:
    """Check the URLs, by the names of their settings. Raises UsageError."""
    for name, url in urls.items():
        flag = f"--{name.replace('_', '-')}"
        try:
            checked_url(url or "http://not.asked")
        except UsageError as error:
            raise UsageError(f"{flag} {error.message}") from None
        if url and name == "agent_url" and "@" in urlsplit(url).netloc:
            raise UsageError(
                "--agent-url holds a user name or a password, which would replace the bearer token",
                hint="put the token into --agent-token-file or API_BEARER_TOKEN",
            )


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
