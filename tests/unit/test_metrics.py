"""The metrics' numbers, and their ways out: the page, the Pushgateway."""

import json
import os
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bdauto.common.errors import BdFailed
from bdauto.domain.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.domain.settings import Secret
from bdauto.telemetry.export import Pushgateway
from bdauto.telemetry.families import BEADS, COST, DISPATCHES, DURATION, FAMILIES, LAST_SUCCESS, OUTCOMES, UP
from bdauto.telemetry.metrics import Metrics

NOW = datetime(2026, 4, 18, 22, 35, 46, tzinfo=UTC)


def report(command: str = "dispatch", *outcomes: BeadOutcome, error: BdFailed | None = None) -> Report:
    beads = tuple(BeadReport(f"x-{n}", outcome, "job", "text of a bead") for n, outcome in enumerate(outcomes))
    return Report(command, Outcome.idle, False, beads, error=error)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return a series' value, None when it is not there."""
    return metrics.registry.get_sample_value(name, labels)


def counted(*outcomes: BeadOutcome, seconds: float = 0.3) -> Metrics:
    metrics = Metrics("dispatch")
    metrics.count(report("dispatch", *outcomes), seconds, NOW)
    return metrics


def test_counters_begin_at_zero_and_gauges_when_they_are_known() -> None:
    metrics = Metrics("dispatch", "reap")
    for name, outcomes in OUTCOMES.items():
        assert [value(metrics, name, outcome=outcome) for outcome in outcomes] == [0.0] * len(outcomes)
    assert value(metrics, UP, target="bd") is None
    assert value(metrics, LAST_SUCCESS, command="dispatch") is None


def test_what_runs_cost_is_added_up() -> None:
    metrics = Metrics("reap")
    assert value(metrics, COST) == 0.0
    for cost_usd in (0.42, 0.0, 1.08):
        metrics.count(Report("reap", Outcome.idle, False, cost_usd=cost_usd), 0.1, NOW)
    assert value(metrics, COST) == pytest.approx(1.5)


def test_a_cycle_counts_beads_time_and_success() -> None:
    metrics = counted(BeadOutcome.dispatched, BeadOutcome.dispatched, BeadOutcome.lost)
    assert value(metrics, DISPATCHES, outcome="dispatched") == 2
    assert value(metrics, DISPATCHES, outcome="lost") == 1
    assert value(metrics, f"{DURATION}_count", command="dispatch") == 1
    assert value(metrics, f"{DURATION}_sum", command="dispatch") == pytest.approx(0.3)
    assert [value(metrics, f"{DURATION}_bucket", command="dispatch", le=le) for le in ("0.25", "0.5", "+Inf")] == [
        0,
        1,
        1,
    ]
    assert value(metrics, LAST_SUCCESS, command="dispatch") == NOW.timestamp()


def test_a_failed_cycle_is_no_success() -> None:
    metrics = Metrics("reap")
    metrics.count(report("reap", error=BdFailed("no")), 1.0, NOW)
    assert value(metrics, LAST_SUCCESS, command="reap") is None


def test_every_outcome_that_a_command_can_have_is_begun() -> None:
    assert set(OUTCOMES["bdauto_dispatches_total"]) | set(OUTCOMES["bdauto_reaps_total"]) == set(BeadOutcome)


def test_the_page_is_read_by_the_official_parser_and_holds_nothing_of_a_bead() -> None:
    metrics = counted(BeadOutcome.dispatched)
    metrics.set(BEADS, 3, state="eligible")
    text = generate_latest(metrics.registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["bdauto_dispatches"].type == "counter"
    assert families[DURATION].type == "histogram"
    assert families["bdauto_beads"].type == "gauge"
    bounds = [sample.labels["le"] for sample in families[DURATION].samples if "le" in sample.labels]
    assert [float(bound) for bound in bounds] == sorted(float(bound) for bound in bounds)
    assert "x-0" not in text
    assert "text of a bead" not in text


def pushed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keep what would be pushed."""
    found: list[dict[str, Any]] = []

    def push(self: Pushgateway, url: str, method: str, timeout: float, headers: Any, data: bytes) -> Callable[[], None]:
        return lambda: found.append({"url": url, "method": method, "data": data.decode()})

    monkeypatch.setattr(Pushgateway, "_send", push)
    return found


def test_each_command_is_pushed_as_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pushed(monkeypatch)
    metrics = Metrics("dispatch", "reap")
    metrics.set(UP, 1, target="bd")
    Pushgateway(Secret("http://gateway.test:9091/base"), "dispatch", instance="host").push(metrics.registry)
    assert sorted(request["url"] for request in requests) == [
        "http://gateway.test:9091/base/metrics/job/bdauto/command/dispatch/instance/host",
        "http://gateway.test:9091/base/metrics/job/bdauto/command/reap/instance/host",
    ]
    dispatch, reap = (request["data"] for request in sorted(requests, key=lambda request: str(request["url"])))
    assert 'command="reap"' not in dispatch
    assert 'command="dispatch"' not in reap
    assert "bdauto_up" in dispatch
    assert "bdauto_up" not in reap
    assert "bdauto_cost" not in dispatch
    assert "bdauto_cost" in reap
    assert {request["method"] for request in requests} == {"POST"}, "an earlier success stays when a cycle fails"


def test_two_trackers_have_groups_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pushed(monkeypatch)
    for namespace in ("one", "two"):
        gateway = Pushgateway(Secret("http://gateway.test:9091"), "reap", instance="bdauto", namespace=namespace)
        gateway.push(Metrics("reap").registry)
    assert [request["url"].partition("/command/")[2] for request in requests] == [
        "reap/instance/bdauto/namespace/one",
        "reap/instance/bdauto/namespace/two",
    ]


def test_instance_is_the_host_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pushed(monkeypatch)
    Pushgateway(Secret("http://gateway.test:9091"), "reap").push(Metrics("reap").registry)
    assert requests[0]["url"].endswith(f"/instance/{os.uname().nodename}")


def test_a_reapers_metrics_are_all_in_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pushed(monkeypatch)
    metrics = Metrics("reap")
    metrics.set(UP, 1, target="bd")
    Pushgateway(Secret("gateway.test:9091"), "reap", instance="host").push(metrics.registry)
    urls = [request["url"] for request in requests]
    assert urls == ["http://gateway.test:9091/metrics/job/bdauto/command/reap/instance/host"]


def test_the_gateways_password_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []

    def refuse(self: OpenerDirector, request: Request, timeout: float) -> None:
        elsewhere = HTTPRedirectHandler().redirect_request(request, None, 302, "Found", {}, "http://other.test/")  # type: ignore[arg-type]
        assert elsewhere is not None
        assert not elsewhere.has_header("Authorization"), "a gateway could send the password on"
        seen.append({"url": request.full_url, **request.headers, **request.unredirected_hdrs})
        raise OSError("http://ann:s3cret@gateway.test refused")

    monkeypatch.setattr(OpenerDirector, "open", refuse)
    gateway = Pushgateway(Secret("https://ann:s3cret@gateway.test:9091"), "dispatch", instance="host")
    with caplog.at_level("WARNING", "bdauto"):
        gateway.push(Metrics("dispatch").registry)
    assert seen[0]["url"] == "https://gateway.test:9091/metrics/job/bdauto/command/dispatch/instance/host"
    assert b64decode(seen[0]["Authorization"].removeprefix("Basic ")) == b"ann:s3cret"
    assert "s3cret" not in json.dumps([str(vars(record)) for record in caplog.records]) + str(vars(gateway))


def test_every_metric_is_documented_with_its_labels() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for name in FAMILIES:
        assert f"`{name}" in text, name
