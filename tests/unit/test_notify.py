"""Notifications: what is told, that a failure is a warning, and that no URL is ever shown."""

import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from bdauto.cli.one_shot import OneShot
from bdauto.cli.validation import check_telemetry
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.domain.settings import Secret, TelemetrySettings, describe
from bdauto.errors import AgentsDie, UsageError
from bdauto.telemetry import notify
from bdauto.telemetry.background import LIMIT, Background
from tests.support.fakes import Clock, Tracker

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

    def notify(self, title: str, body: str) -> bool:
        if isinstance(Apprise.failing, Exception):
            raise Apprise.failing
        Apprise.sent += [(url, title, body) for url in self.urls]
        return not Apprise.failing


@pytest.fixture(autouse=True)
def _apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    Apprise.sent, Apprise.failing = [], False
    monkeypatch.setitem(sys.modules, "apprise", SimpleNamespace(Apprise=Apprise, __spec__="found"))


def deliver(report: Report, *urls: Secret) -> list[tuple[str, str, str]]:
    background = Background()
    notify.Notifier(urls or (URL,), background).report(report)
    background.close(10)
    return Apprise.sent


def test_a_message_names_the_bead_by_its_title_and_says_the_cause() -> None:
    words = "failed after 12s: API Error: 529 overloaded"
    bead = BeadReport("q-932", BeadOutcome.blocked, "wf64", words, title="Write a\nhaiku\x1b[1m")
    found = deliver(Report("reap", Outcome.reaped, False, (bead,)))
    assert found == [(URL.value, "bdauto: q-932 (Write a haiku[1m) reaped: blocked", words)]


def report(*outcomes: BeadOutcome, dry_run: bool = False) -> Report:
    beads = tuple(BeadReport(f"x-{outcome}", outcome, "j", "why") for outcome in outcomes)
    return Report("reap", Outcome.reaped, dry_run, beads)


def test_beads_that_were_quarantined_or_reaped_are_told_of_and_no_others() -> None:
    sent = deliver(report(*BeadOutcome))
    assert [(title, body) for _, title, body in sent] == [
        ("bdauto: x-quarantined quarantined", "why"),
        ("bdauto: x-released reaped: open again", "why"),
        ("bdauto: x-requeued reaped: open again", "why"),
        ("bdauto: x-blocked reaped: blocked", "why"),
        ("bdauto: x-asks asks", "why"),
    ]


def test_a_one_shot_command_tells_of_agents_that_die_with_their_last_words() -> None:
    error = AgentsDie("suspended until 22:40: the agents of 3 beads died at once: Invalid API key", hint="mend it")
    OneShot(TelemetrySettings(notify_urls=(URL,)), Clock().runtime(), Tracker(Clock()), None)(
        Report("reap", Outcome.partial, False, error=error), 1.0
    )
    assert Apprise.sent == [(URL.value, "bdauto: suspended", error.message)]


def test_every_url_gets_its_own_message() -> None:
    other = Secret("json://other.test")
    assert [url for url, _, _ in deliver(report(BeadOutcome.blocked), URL, other)] == [URL.value, other.value]


def test_a_dry_run_tells_nobody() -> None:
    assert deliver(report(BeadOutcome.blocked, dry_run=True)) == []


@pytest.mark.parametrize("failing", [True, RuntimeError("json://ann:s3cret@hook.test/t0ken"), ImportError("no")])
def test_a_failure_is_a_warning_without_the_url(failing: Any, caplog: pytest.LogCaptureFixture) -> None:
    Apprise.failing = failing
    with caplog.at_level(logging.WARNING, "bdauto"):
        deliver(report(BeadOutcome.blocked))
    [record] = caplog.records
    assert record.getMessage() == "notify-failed"
    assert "s3cret" not in str(vars(record))
    assert "t0ken" not in str(vars(record))


def test_a_url_that_apprise_does_not_know_is_a_usage_error_without_the_url() -> None:
    with pytest.raises(UsageError) as caught:
        notify.check((Secret("nosuch://ann:s3cret@hook.test"),))
    assert "nosuch://***" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    notify.check((URL,))


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
    deliver(report(BeadOutcome.blocked))
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
