"""The alerts and the dashboard: they name metrics that the code has, and each alert leads into the runbook."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bdauto.telemetry.families import BEADS, DISPATCHES, FAMILIES, OUTCOMES
from tests.support.manifests import DEPLOY, ROOT, pod_spec, render, tool

MONITORING = DEPLOY / "monitoring"
ALERTS = {
    "BdautoStarved",
    "BdautoStalled",
    "BdautoPersonNeeded",
    "BdautoTargetDown",
    "BdautoNoSuccess",
    "BdautoAbsent",
    "BdautoPausedTooLong",
    "BdautoSuspended",
    "BdautoOutcomeUnknown",
}


def metrics_in(expression: str) -> set[str]:
    """Return the metrics of bdauto that an expression uses; a histogram's series count as the histogram."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bbdauto_[a-z_]+", expression)}


def rules() -> list[dict[str, Any]]:
    """Return all rules."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    """Return all queries of the dashboard, its variables' included."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [item["query"]["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    return queries + variables


def promtool() -> Any:
    """Return promtool, or skip the test."""
    return tool("promtool", "go build github.com/prometheus/prometheus/cmd/promtool")


def test_the_alerts_are_there() -> None:
    assert {rule["alert"] for rule in rules()} == ALERTS


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alert_uses_metrics_that_exist(rule: dict[str, Any]) -> None:
    used = metrics_in(rule["expr"])
    assert used
    assert used <= set(FAMILIES)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alert_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (\w+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def label_values(metric: str, label: str) -> set[str]:
    """Return the values of a label that the alerts ask for, of one metric."""
    found = [re.findall(rf'{metric}\{{[^}}]*{label}="([^"]+)"', rule["expr"]) for rule in rules()]
    return {value for values in found for value in values}


def test_alerts_ask_for_outcomes_and_states_that_exist() -> None:
    outcomes = label_values(DISPATCHES, "outcome")
    assert outcomes
    assert outcomes <= {str(outcome) for outcome in OUTCOMES[DISPATCHES]}
    states = label_values(BEADS, "state")
    assert states
    assert all(re.search(rf"\b{state}\b", FAMILIES[BEADS][1]) for state in states)


def test_every_alert_is_seen_to_fire_in_the_unit_tests() -> None:
    tests = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == ALERTS
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == ALERTS


def test_dashboard_shows_every_metric_and_no_other() -> None:
    assert set().union(*map(metrics_in, dashboard_queries())) == set(FAMILIES)


def test_a_legend_names_only_labels_that_its_query_keeps() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    for target in (target for panel in panels for target in panel["targets"]):
        kept = re.search(r"\bby \(([^)]*)\)", target["expr"])
        named = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
        assert named <= set(kept[1].split(", ") if kept else ()), target["expr"]


def test_dashboard_hides_no_outage_of_one_namespace_behind_another() -> None:
    [expression] = (query for query in dashboard_queries() if "bdauto_up{" in query)
    assert "by (namespace, target)" in expression


def test_dashboard_panels_do_not_overlap() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_prometheus_accepts_the_rules() -> None:
    promtool()("check", "rules", str(MONITORING / "rules.yaml"))


def test_rules_pass_their_unit_tests() -> None:
    promtool()("test", "rules", str(MONITORING / "rules.test.yaml"))


def test_prometheus_parses_the_dashboards_queries(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "5m") for query in dashboard_queries() if "label_values" not in query]
    recorded = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    rule_file = tmp_path / "queries.yaml"
    rule_file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    promtool()("check", "rules", str(rule_file))


COMPONENT = DEPLOY / "kustomize" / "components" / "monitoring"


def test_prometheus_rule_has_the_same_groups() -> None:
    objects = yaml.safe_load_all((COMPONENT / "monitoring.yaml").read_text())
    [rule] = [item for item in objects if item["kind"] == "PrometheusRule"]
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    assert rule["spec"]["groups"] == groups, "run `make manifests`"


def test_pod_monitor_finds_the_deployments_pods() -> None:
    objects = {item["kind"]: item for item in render("examples/cluster")}
    template = objects["Deployment"]["spec"]["template"]
    [endpoint] = objects["PodMonitor"]["spec"]["podMetricsEndpoints"]
    ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert objects["PodMonitor"]["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert endpoint["port"] in ports
    assert objects["PodMonitor"]["metadata"]["namespace"] == objects["Deployment"]["metadata"]["namespace"]


def test_external_secret_fills_the_secret_that_the_pods_mount() -> None:
    objects = {item["kind"]: item for item in render("examples/cluster")}
    [secret] = (volume["secret"] for volume in pod_spec(objects["Deployment"])["volumes"] if "secret" in volume)
    external = objects["ExternalSecret"]["spec"]
    assert external["target"]["name"] == secret["secretName"]
    assert {item["key"] for item in secret["items"]} <= {item["secretKey"] for item in external["data"]}
