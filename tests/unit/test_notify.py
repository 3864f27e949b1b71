"""Notifications: what is told, that a failure is a warning, and that no URL is ever shown."""

import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from bdauto.cli.validation import check_telemetry
from bdauto.common.errors import UsageError
from bdauto.domain.messages import Topic
from bdauto.domain.settings import Secret, TelemetrySettings, describe
from bdauto.telemetry import notify
from bdauto.telemetry.background import LIMIT, Background

URL = Secret("json://ann:s3cret@hook.test/t0ken")


class Apprise:
    """What stands for the library: keeps what is sent, and fails as told."""

    sent: list[tuple[str, str, str]]
    failing: Any

    def __init__(self) -> None:
        self.urls: list[str] = []

    def add(self, url: str) -> bool:
        self.urls.append(url)
        return url.startswith("json://")

    def notify(self, title: str, body: str, body_format: str) -> bool:
        assert body_format == "text", "a service that takes markup would interpret a bead's title"
        if isinstance(Apprise.failing, Exception):
            raise Apprise.failing
        if callable(Apprise.failing):
            Apprise.failing()
        Apprise.sent += [(url, title, body) for url in self.urls]
        return not Apprise.failing


@pytest.fixture(autouse=True)
def _apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    Apprise.sent, Apprise.failing = [], False
    monkeypatch.setitem(sys.modules, "apprise", SimpleNamespace(Apprise=Apprise, __spec__="found"))


def deliver(*urls: Secret, topic: Topic = Topic.blocked, text: str = "why", **more: Any) -> list[tuple[str, str, str]]:
    background = Background()
    settings = TelemetrySettings(notify_urls=urls or (URL,), **more)
    notify.Notifier(settings, background).send(topic, "x-1 is blocked", text)
    background.close(10)
    return Apprise.sent


def test_topics_are_chosen() -> None:
    assert deliver(topic=Topic.starved, notify_on=("question", "digest")) == []
    assert deliver(topic=Topic.question, notify_on=("question", "digest")) == [
        (URL.value, "bdauto: x-1 is blocked", "why")
    ]


def test_a_message_calls_nobody_in_a_chat() -> None:
    [(_, _, body)] = deliver(text="<!channel> @everyone <@U123> ann@example.org 1 < 2")
    assert body == "<\u200b!channel> @\u200beveryone <\u200b@U123> ann@example.org 1 < 2"


def test_an_url_that_hangs_holds_up_nobody() -> None:
    go, background = threading.Event(), Background()
    Apprise.failing = lambda: go.wait(10)
    notifier = notify.Notifier(TelemetrySettings(notify_urls=(URL,)), background)
    for _ in range(500):
        notifier.send(Topic.blocked, "x-1 is blocked", "why")
    background.close(0.01)
    assert Apprise.sent == []
    go.set()
    background.close(10)


def test_every_url_gets_its_own_message() -> None:
    other = Secret("json://other.test")
    assert [url for url, _, _ in deliver(URL, other)] == [URL.value, other.value]


@pytest.mark.parametrize("failing", [True, RuntimeError("json://ann:s3cret@hook.test/t0ken"), ImportError("no")])
def test_a_failure_is_a_warning_without_the_url(failing: Any, caplog: pytest.LogCaptureFixture) -> None:
    Apprise.failing = failing
    with caplog.at_level(logging.WARNING, "bdauto"):
        deliver()
    [record] = caplog.records
    assert record.getMessage() == "notify-failed"
    assert "s3cret" not in str(vars(record))
    assert "t0ken" not in str(vars(record))


def test_a_url_that_apprise_does_not_know_is_named_without_the_url() -> None:
    found = notify.unknown((Secret("nosuch://ann:s3cret@hook.test"),))
    assert "nosuch://***" in found
    assert "s3cret" not in found
    assert notify.unknown((URL,)) == ""


def test_no_secret_in_what_is_printed_of_the_settings() -> None:
    settings = TelemetrySettings(pushgateway=Secret("http://ann:s3cret@g.test"), notify_urls=(URL,))
    assert "s3cret" not in repr(settings) + str(describe(settings))


@pytest.mark.parametrize("url", ["no-url", "json:/x", "", "json://a b"])
def test_what_is_no_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError):
        check_telemetry(TelemetrySettings(notify_urls=(Secret(url),)))


@pytest.mark.parametrize(
    ("module", "option", "settings"),
    [
        ("apprise", "--notify-url", TelemetrySettings(notify_urls=(Secret("json://x"),))),
        ("prometheus_client", "--pushgateway", TelemetrySettings(pushgateway=Secret("http://g.test"))),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, option: str, settings: TelemetrySettings
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else object())
    with pytest.raises(UsageError, match=rf"{option} needs {module}.*; run `"):
        check_telemetry(settings)


def test_the_background_drops_what_is_too_much_and_waits_for_nothing() -> None:
    background, go = Background(), threading.Event()
    done: list[int] = []

    def hold() -> None:
        go.wait(10)

    background.put(hold)
    for number in range(LIMIT + 5):
        background.put(lambda number=number: done.append(number))  # type: ignore[misc]
    background.close(0.01)
    assert done == []
    go.set()
    background.close(10)
    assert LIMIT - 1 <= len(done) <= LIMIT


def test_what_sends_heeds_neither_proxies_nor_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy would see the secret in the path of the URL."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine hook.test login ann password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/a/bundle")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.test:3128")
    deliver()
    session = requests.Session()
    sent: list[tuple[requests.PreparedRequest, dict[str, Any]]] = []

    def send(prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
        sent.append((prepared, options))
        answer = requests.Response()
        answer.status_code = 200
        return answer

    monkeypatch.setattr(session, "send", send)
    session.post("http://hook.test/t0ken")
    [(prepared, options)] = sent
    assert "Authorization" not in prepared.headers
    assert not options["proxies"]
    assert options["verify"] == "/a/bundle"
