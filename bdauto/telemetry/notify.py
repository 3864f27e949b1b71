"""Notifications through Apprise, an optional extra: Slack, ntfy, mail, webhooks. One message an event.

A failing notification is a warning, never more. The URLs hold tokens and are never written anywhere.
"""

import logging
import re
from datetime import date, datetime
from typing import Any

from bdauto.common import log
from bdauto.domain.messages import Topic
from bdauto.domain.settings import Secret, TelemetrySettings
from bdauto.telemetry.background import Background


class Notifier:
    """Sends messages to each of the URLs, from the background: on the chosen topics, or on all if none is chosen."""

    def __init__(self, settings: TelemetrySettings, background: Background) -> None:
        self._urls = settings.notify_urls
        self._topics = settings.notify_on
        self._digest_at = settings.digest_at
        self._background = background

    @property
    def has_urls(self) -> bool:
        """Whether there is somebody to send to."""
        return bool(self._urls)

    def tells(self, topic: Topic) -> bool:
        """Whether messages on this topic are sent."""
        return self.has_urls and (not self._topics or topic in self._topics)

    def digest_day(self, now: datetime) -> date | None:
        """Return the last day whose digest is due by now, None if nobody wants one."""
        return self._digest_at.day(now) if self._digest_at and self.tells(Topic.digest) else None

    def send(self, topic: Topic, title: str, text: str) -> None:
        """Send one message on a topic, soon."""
        if self.tells(topic):
            for url in self._urls:
                self._background.put(lambda url=url: _send(url, _harmless(title), _harmless(text)))  # type: ignore[misc]


def unknown(urls: tuple[Secret, ...]) -> str:
    """Return the error of the first URL that Apprise does not know, which names its scheme only, or ""."""
    bad = next((url for url in urls if not _apprise().Apprise().add(url.value)), None)
    return f"--notify-url {scheme(bad)}://***: Apprise does not understand it" if bad else ""


def scheme(url: Secret) -> str:
    """Return what may be said of a URL."""
    return url.value.partition("://")[0][:20]


def _send(url: Secret, title: str, text: str) -> None:
    try:
        apprise = _apprise()
        sender = apprise.Apprise()  # one a URL: with several, Apprise would start threads that cannot be left
        sent = sender.add(url.value) and sender.notify(title=f"bdauto: {title}", body=text or title, body_format="text")
        error = "" if sent else "not delivered"
    except Exception as caught:  # a plugin may raise anything, and its words may hold the URL
        sent, error = False, type(caught).__name__
    if not sent:
        log.warning("notify-failed", service=scheme(url), subject=title, error=error)


def _harmless(text: str) -> str:
    """Return text that calls nobody in a chat, whatever a bead's title says: no `@everyone`, no `<!channel>`."""
    return re.sub(r"@(?=everyone|here|channel|all)|<(?=[!@#&])", "\\g<0>\u200b", text, flags=re.IGNORECASE)


def _apprise() -> Any:
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its words may hold the URL
    _ignore_proxies()
    return apprise


def _ignore_proxies() -> None:
    """Make `requests`, with which Apprise sends, ignore proxy variables and .netrc.

    A proxy would see the secret in the URL's path. A login in .netrc would replace the one in the URL.
    """
    import requests.sessions

    sessions: Any = requests.sessions

    sessions.get_environ_proxies = lambda *_, **__: {}
    sessions.get_netrc_auth = lambda *_, **__: None
    sessions.resolve_proxies = lambda _request, proxies, *_: dict(proxies or {})
