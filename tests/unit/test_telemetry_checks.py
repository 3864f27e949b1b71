"""What `doctor` says of where metrics and notifications go."""

import sys
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest

from bdauto.cli.telemetry_checks import telemetry_checks
from bdauto.domain.findings import Check
from bdauto.domain.settings import Secret, TelemetrySettings
from bdauto.telemetry.export import Pushgateway


def found(**settings: Any) -> list[Check]:
    return list(telemetry_checks(TelemetrySettings(**settings)))


def test_what_is_not_configured_is_not_named() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("answer", "level", "detail"),
    [
        (None, "ok", "answers"),
        (HTTPError("u", 401, "Unauthorized", {}, None), "fail", "HTTP Error 401: Unauthorized"),  # type: ignore[arg-type]
        (OSError("Connection refused for http://ann:s3cret@gateway.test"), "fail", "Connection refused"),
    ],
)
def test_the_pushgateway_is_asked_and_nothing_pushed(
    monkeypatch: pytest.MonkeyPatch, answer: Exception | None, level: str, detail: str
) -> None:
    asked = []

    def send(self: Pushgateway, url: str, method: str, *_: Any) -> Any:
        def do() -> None:
            asked.append((method, url))
            if answer:
                raise answer

        return do

    monkeypatch.setattr(Pushgateway, "_send", send)
    [check] = found(pushgateway=Secret("http://ann:s3cret@gateway.test:9091/base/"))
    assert (check.level, asked) == (level, [("GET", "http://gateway.test:9091/base/-/healthy")])
    assert check.detail.startswith(detail)
    assert "s3cret" not in check.detail


def test_a_notification_url_is_understood_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    apprise = SimpleNamespace(Apprise=lambda: SimpleNamespace(add=lambda url: url.startswith("json:")), __spec__="here")
    monkeypatch.setitem(sys.modules, "apprise", apprise)
    [good] = found(notify_urls=(Secret("json://host.test/s3cret"),))
    assert (good.level, good.detail) == ("ok", "Apprise understands json; nothing was sent")
    [bad] = found(notify_urls=(Secret("nosuch://s3cret"),))
    assert (bad.level, bad.detail) == ("fail", "--notify-url nosuch://***: Apprise does not understand it")
