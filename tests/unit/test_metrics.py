"""The metrics' numbers, and their ways out: the page, the file, the Pushgateway."""

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bdauto.errors import BdFailed
from bdauto.export import MetricsFile, Pushgateway, parse
from bdauto.metrics import BEADS, DISPATCHES, DURATION, FAMILIES, LAST_SUCCESS, OUTCOMES, UP, Metrics, key, page
from bdauto.outcome import BeadOutcome, BeadReport, Outcome, Report
from bdauto.settings import Secret

NOW = datetime(2026, 4, 18, 22, 35, 46, tzinfo=UTC)


def report(command: str = "dispatch", *outcomes: BeadOutcome, error: BdFailed | None = None) -> Report:
    beads = tuple(BeadReport(f"x-{n}", outcome, "job", "text of a bead") for n, outcome in enumerate(outcomes))
    return Report(command, Outcome.idle, False, beads, error=error)


def counted(*outcomes: BeadOutcome, seconds: float = 0.3) -> Metrics:
    metrics = Metrics("dispatch")
    metrics.count(report("dispatch", *outcomes), seconds, NOW)
    return metrics


def test_counters_begin_at_zero_and_gauges_when_they_are_known() -> None:
    metrics = Metrics("dispatch", "reap")
    for name, outcomes in OUTCOMES.items():
        assert [metrics.get(name, outcome=outcome) for outcome in outcomes] == [0.0] * len(outcomes)
    assert metrics.get(UP, target="bd") is None
    assert metrics.get(LAST_SUCCESS, job="dispatch") is None


def test_a_cycle_counts_beads_time_and_success() -> None:
    metrics = counted(BeadOutcome.dispatched, BeadOutcome.dispatched, BeadOutcome.lost)
    assert metrics.get(DISPATCHES, outcome="dispatched") == 2
    assert metrics.get(DISPATCHES, outcome="lost") == 1
    assert metrics.get(f"{DURATION}_count", job="dispatch") == 1
    assert metrics.get(f"{DURATION}_sum", job="dispatch") == pytest.approx(0.3)
    assert [metrics.get(f"{DURATION}_bucket", job="dispatch", le=le) for le in ("0.25", "0.5", "+Inf")] == [0, 1, 1]
    assert metrics.get(LAST_SUCCESS, job="dispatch") == NOW.timestamp()


def test_a_failed_cycle_is_no_success() -> None:
    metrics = Metrics("reap")
    metrics.count(report("reap", error=BdFailed("no")), 1.0, NOW)
    assert metrics.get(LAST_SUCCESS, job="reap") is None


def test_every_outcome_that_a_job_can_have_is_begun() -> None:
    assert set(OUTCOMES["bdauto_dispatches_total"]) | set(OUTCOMES["bdauto_reaps_total"]) == set(BeadOutcome)


def test_the_page_is_read_by_the_official_parser_and_holds_nothing_of_a_bead() -> None:
    metrics = counted(BeadOutcome.dispatched)
    metrics.set(BEADS, 3, state="eligible")
    text = page(metrics.samples()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["bdauto_dispatches"].type == "counter"
    assert families[DURATION].type == "histogram"
    assert families["bdauto_beads"].type == "gauge"
    bounds = [sample.labels["le"] for sample in families[DURATION].samples if "le" in sample.labels]
    assert [float(bound) for bound in bounds] == sorted(float(bound) for bound in bounds)
    assert "x-0" not in text
    assert "text of a bead" not in text
    assert parse(text) == metrics.samples()


def test_the_file_is_replaced_in_one_step_and_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "bdauto.prom"
    target.write_text("")
    before = target.stat().st_ino
    mask = os.umask(0o077)
    try:
        MetricsFile(target).save(counted(BeadOutcome.dispatched))
    finally:
        os.umask(mask)
    assert target.stat().st_ino != before
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [target]


def test_counters_add_up_over_runs_and_gauges_are_the_last_ones(tmp_path: Path) -> None:
    target = tmp_path / "bdauto.prom"
    for free in (3, 1):
        metrics = counted(BeadOutcome.dispatched)
        metrics.set(BEADS, free, state="eligible")
        MetricsFile(target).save(metrics)
    sweep = Metrics("reap")
    sweep.count(report("reap", BeadOutcome.kept), 1.0, NOW)
    MetricsFile(target).save(sweep)
    found = parse(target.read_text())
    assert found[key(DISPATCHES, outcome="dispatched")] == 2
    assert found[key(f"{DURATION}_count", job="dispatch")] == 2
    assert found[key(f"{DURATION}_bucket", job="dispatch", le="0.5")] == 2
    assert found[key(BEADS, state="eligible")] == 1
    assert found[key("bdauto_reaps_total", outcome="kept")] == 1


def test_a_long_run_adds_what_is_new_each_time(tmp_path: Path) -> None:
    target = tmp_path / "bdauto.prom"
    file, metrics = MetricsFile(target), counted(BeadOutcome.dispatched)
    file.save(metrics)
    file.save(metrics)
    MetricsFile(target).save(counted(BeadOutcome.dispatched))
    metrics.count(report("dispatch", BeadOutcome.dispatched), 1.0, NOW)
    file.save(metrics)
    assert parse(target.read_text())[key(DISPATCHES, outcome="dispatched")] == 3


@pytest.mark.parametrize("content", [b"not metrics {", b"bdauto_up{target= 1", b"\xff\xfe", b"bdauto_starved abc\n"])
def test_a_file_that_is_none_begins_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "bdauto.prom"
    target.write_bytes(content)
    MetricsFile(target).save(counted(BeadOutcome.dispatched))
    assert parse(target.read_text())[key(DISPATCHES, outcome="dispatched")] == 1


def test_what_is_not_ours_in_the_file_is_dropped(tmp_path: Path) -> None:
    target = tmp_path / "bdauto.prom"
    target.write_text('evil{bead="x"} 1\nbdauto_up{target="bd"} NaN\n')
    MetricsFile(target).save(Metrics("dispatch"))
    assert "evil" not in target.read_text()
    assert "NaN" not in target.read_text()


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "gone" / "bdauto.prom").save(Metrics("dispatch"))
    (tmp_path / "folder.prom").mkdir()
    MetricsFile(tmp_path / "folder.prom").save(Metrics("dispatch"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.prom"]


def test_two_writers_at_once_lose_no_count(tmp_path: Path) -> None:
    target = tmp_path / "bdauto.prom"
    threads = [
        threading.Thread(target=lambda: MetricsFile(target).save(counted(BeadOutcome.dispatched))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parse(target.read_text())[key(DISPATCHES, outcome="dispatched")] == 12


def pushed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keep what would be pushed."""
    found: list[dict[str, Any]] = []

    def push(self: Pushgateway, url: str, method: str, timeout: float, headers: Any, data: bytes) -> Callable[[], None]:
        return lambda: found.append({"url": url, "method": method, "data": data.decode()})

    monkeypatch.setattr(Pushgateway, "_send", push)
    return found


def test_each_job_is_pushed_as_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pushed(monkeypatch)
    metrics = Metrics("dispatch", "reap")
    metrics.set(UP, 1, target="bd")
    Pushgateway(Secret("http://gateway.test:9091/base"), "dispatch").push(metrics.samples())
    assert sorted(request["url"] for request in requests) == [
        "http://gateway.test:9091/base/metrics/job/dispatch",
        "http://gateway.test:9091/base/metrics/job/reap",
    ]
    by_url = {request["url"].rpartition("/")[2]: request["data"] for request in requests}
    assert 'job="reap"' not in by_url["dispatch"]
    assert 'job="dispatch"' not in by_url["reap"]
    assert "bdauto_up" in by_url["dispatch"]
    assert "bdauto_up" not in by_url["reap"]
    assert {request["method"] for request in requests} == {"PUT"}


def test_a_reapers_metrics_are_all_in_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pushed(monkeypatch)
    metrics = Metrics("reap")
    metrics.set(UP, 1, target="bd")
    Pushgateway(Secret("gateway.test:9091"), "reap").push(metrics.samples())
    assert [request["url"] for request in requests] == ["http://gateway.test:9091/metrics/job/reap"]


def test_the_gateways_password_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []

    def handler(url: str, method: str, timeout: Any, headers: Any, data: bytes) -> Callable[[], None]:
        seen.append({"url": url, **dict(headers)})

        def fail() -> None:
            raise OSError("http://ann:s3cret@gateway.test refused")

        return fail

    monkeypatch.setattr("prometheus_client.exposition.default_handler", handler)
    gateway = Pushgateway(Secret("https://ann:s3cret@gateway.test:9091"), "dispatch")
    with caplog.at_level("WARNING", "bdauto"):
        gateway.push(Metrics("dispatch").samples())
    assert seen[0]["url"] == "https://gateway.test:9091/metrics/job/dispatch"
    assert bytes(seen[0]["Authorization"]).startswith(b"Basic ")
    assert "s3cret" not in json.dumps([str(vars(record)) for record in caplog.records]) + str(vars(gateway))


def test_every_metric_is_documented_with_its_labels() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for name in FAMILIES:
        assert f"`{name}" in text, name
