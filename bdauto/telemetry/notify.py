"""Notifications through Apprise, an optional extra: Slack, ntfy, mail, webhooks. One message an event.

A failing notification is a warning, never more. The URLs hold tokens and are never written anywhere.
"""

import logging
from typing import Any

from bdauto import log
from bdauto.domain.outcome import BeadOutcome, Report
from bdauto.domain.settings import Secret
from bdauto.errors import UsageError
from bdauto.sanitize import clean
from bdauto.telemetry.background import Background

WORDS = {
    BeadOutcome.quarantined: "quarantined",
    BeadOutcome.blocked: "reaped: blocked",
    BeadOutcome.requeued: "reaped: open again",
    BeadOutcome.released: "reaped: open again",
    BeadOutcome.asks: "asks",
}
"""The outcomes of a bead that are worth a message."""


TITLE_LIMIT = 80
"""Characters of a bead's title in a message."""


class Notifier:
    """Sends messages to each of the URLs, from the background."""

    def __init__(self, urls: tuple[Secret, ...], background: Background) -> None:
        self._urls = urls
        self._background = background

    def report(self, report: Report) -> None:
        """Tell of each bead that was quarantined or reaped, or whose agent asks a person."""
        for bead in report.beads:
            if bead.outcome in WORDS and not report.dry_run:
                title = f" ({clean(bead.title, TITLE_LIMIT)})" if bead.title else ""
                self.send(f"{bead.id}{title} {WORDS[bead.outcome]}", bead.detail or "")

    def send(self, title: str, text: str) -> None:
        """Send one message, soon."""
        for url in self._urls:
            self._background.put(lambda url=url: _send(url, title, text))  # type: ignore[misc]


def check(urls: tuple[Secret, ...]) -> None:
    """Raise UsageError for a URL that Apprise does not know. The error names its scheme only."""
    for url in urls:
        if not _apprise().Apprise().add(url.value):
            raise UsageError(f"--notify-url {scheme(url)}://***: Apprise does not understand it")


def scheme(url: Secret) -> str:
    """Return what may be said of a URL."""
    return url.value.partition("://")[0][:20]


def _send(url: Secret, title: str, text: str) -> None:
    try:
        apprise = _apprise()
        sender = apprise.Apprise()  # one a URL: with several, Apprise would start threads that cannot be left
        sent = sender.add(url.value) and sender.notify(title=f"bdauto: {title}", body=text or title)
        error = "" if sent else "not delivered"
    except Exception as caught:  # a plugin may raise anything, and its words may hold the URL
        sent, error = False, type(caught).__name__
    if not sent:
        log.warning("notify-failed", service=scheme(url), subject=title, error=error)


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
